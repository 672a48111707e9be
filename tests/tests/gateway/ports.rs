//! Published ports: who the server sees, where answers come from, thousands of them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tests::{PATIENCE, Result, ensure, wait};

use crate::kit::{self, Net, number};

#[test]
fn ports_servers_see_the_clients_address_and_port() -> Result<()> {
    let b = kit::boot()?;
    b.peer("ip addr add 10.77.0.7/24 dev eth1; ip addr add fd77::7/64 dev eth1 nodad").ok()?;
    let net = Net::with(
        &b,
        &format!(
            "{} -p 0.0.0.0:8080:80/tcp4 -p 0.0.0.0:8081:81/udp4 -p [::]:8080:80/tcp6 -p [::]:8081:81/udp6",
            kit::FLAGS
        ),
    )?;
    let tcp = kit::ready(net.inside("exec fixture tcp-echo [::]:80"))?;
    let udp = kit::ready(net.inside("exec fixture udp-echo [::]:81"))?;
    // socat says what it used and what came back.
    for (from, to) in [("10.77.0.7", "10.77.0.1"), ("[fd77::7]", "[fd77::1]")] {
        let plain = from.trim_matches(|c| c == '[' || c == ']');
        for port in [40_001, 40_002] {
            let text = b
                .peer(&format!("echo hi | socat -t 2 - 'TCP:{to}:8080,bind={from}:{port}'"))
                .ok()?;
            assert_eq!(text, format!("{plain}:{port}\nhi\n"));
            let text = b
                .peer(&format!("printf hi | socat -t 2 - 'UDP:{to}:8081,bind={from}:{port}'"))
                .ok()?;
            assert_eq!(text, format!("{plain}:{port} hi"));
        }
    }
    // The host's own address is one like any other; its loopback is the gateway.
    for (to, seen) in [
        ("10.77.0.1", "10.77.0.1:"),
        ("127.0.0.1", "10.0.2.2:"),
        ("127.0.0.5", "10.0.2.2:"),
        ("[fd77::1]", "fd77::1:"),
        ("[::1]", "fd00::2:"),
    ] {
        let text = b.user(&format!("echo hi | socat -t 2 - 'TCP:{to}:8080'")).ok()?;
        ensure!(text.starts_with(seen) && text.ends_with("\nhi\n"), "{to}: {text}");
        let text = b.user(&format!("fixture udp-ask {to}:8081 hi")).ok()?;
        ensure!(text.starts_with(seen) && text.ends_with(" hi\n"), "{to}: {text}");
    }
    drop((tcp, udp));
    net.stop()
}

#[test]
fn ports_answers_come_from_the_address_that_was_asked() -> Result<()> {
    let b = kit::boot()?;
    b.root("ip addr add 10.77.0.9/24 dev eth0; ip addr add fd77::9/64 dev eth0 nodad").ok()?;
    let net =
        Net::with(&b, &format!("{} -p 0.0.0.0:8081:81/udp4 -p [::]:8081:81/udp6", kit::FLAGS))?;
    let udp = kit::ready(net.inside("exec fixture udp-echo [::]:81"))?;
    // `udp-ask` takes answers of no other address. All at the same time: the flows are told apart.
    let hosts = ["10.77.0.1", "10.77.0.9", "[fd77::1]", "[fd77::9]"];
    for number in 0..3 {
        let asked = hosts.map(|to| b.peer(&format!("fixture udp-ask '{to}:8081' '{to}-{number}'")));
        for (to, out) in hosts.iter().zip(kit::together(asked)?) {
            ensure!(out.stdout.ends_with(&format!(" {to}-{number}\n")), "{to}: {out}");
        }
    }
    // Large ones arrive, too.
    let out =
        b.peer("fixture udp-ask 10.77.0.1:8081 $(head -c 9000 /dev/zero | tr '\\0' x)").ok()?;
    ensure!(out.len() > 9000, "{}", out.len());
    drop(udp);
    net.stop()
}

#[test]
fn ports_a_connection_that_nobody_takes_inside_is_not_taken_outside_for_long() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::with(&b, &format!("{} -p 0.0.0.0:8080:80/tcp4", kit::FLAGS))?;
    // The host's kernel has accepted by then; the end comes at once.
    let out = b.peer("fixture stream 10.77.0.1:8080 reset").run()?;
    let ended =
        out.stdout.contains("ECONNRESET") || out.stdout.contains("0 bytes") || out.code != 0;
    // Long before the client would give up.
    ensure!(ended && out.took < Duration::from_secs(30), "{out}");
    wait::until_true("it is counted", PATIENCE, || {
        Ok(net.stats()?["ports"][0]["failed"].as_u64() == Some(1))
    })?;
    net.stop()
}

#[test]
fn ports_ten_thousand_are_published_served_by_a_successor_and_removed() -> Result<()> {
    const COUNT: u16 = 10_000;
    let b = kit::boot()?;
    let net = Net::with_many_files(&b, kit::FLAGS)?;
    let http = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    let gateway = net.gateway()?;
    let (files, memory) = (gateway.descriptors()?, gateway.memory()?);
    let mut ports = String::new();
    for number in 0..COUNT {
        writeln!(ports, "0.0.0.0:{}:80/tcp", 20_000 + number)?;
    }
    b.write("/tmp/ports", &ports)?;
    let started = Instant::now();
    net.ctl("add-ports $(cat /tmp/ports) >/tmp/ids").limit(600).ok()?;
    println!("published in {:.2?}", started.elapsed());
    for port in [20_000, 25_000, 29_999] {
        let page = b.peer(&format!("fixture get 10.77.0.1:{port}")).ok()?;
        assert_eq!(page, "page from 10.77.0.2\n");
    }
    ensure!(gateway.descriptors()? >= u64::from(COUNT), "where are they?");
    let grown = gateway.memory()?.saturating_sub(memory);
    ensure!(grown < 32 << 10, "{grown} KiB for {COUNT} ports");
    // A successor serves them all.
    b.signal(gateway.0.pid, "KILL")?;
    let killed = Instant::now();
    for port in [20_000, 29_999] {
        wait::until_true("published again", PATIENCE, || {
            Ok(b.peer(&format!("fixture get 10.77.0.1:{port}")).run()?.code == 0)
        })?;
    }
    println!("published again in {:.2?}", killed.elapsed());
    let started = Instant::now();
    net.ctl("remove-ports $(cat /tmp/ids) >/dev/null").limit(600).ok()?;
    println!("removed in {:.2?}", started.elapsed());
    net.gateway()?.descriptors_return_to(files)?;
    b.peer("curl -sS -m3 http://10.77.0.1:20000/").fails_with(7)?;
    b.root("rm /tmp/ports /tmp/ids").ok()?;
    drop(http);
    net.stop()
}

#[test]
fn a_port_serves_only_the_clients_that_are_allowed_also_after_a_restart() -> Result<()> {
    let b = kit::boot()?;
    for driver in ["gateway", "builtin"] {
        let flags = kit::FLAGS.replace("--port-driver=gateway", &format!("--port-driver={driver}"));
        let all = "-p 0.0.0.0:8080:80/tcp4 -p [::]:8080:80/tcp6";
        let others =
            "-p 0.0.0.0:8081:80/tcp@192.0.2.0/24+fd00::/16 -p 0.0.0.0:8082:81/udp@192.0.2.1";
        let some = "-p 0.0.0.0:8083:80/tcp@10.77.0.0/30+127.0.0.1 -p 0.0.0.0:8084:81/udp@10.77.0.2";
        let net = Net::with(&b, &format!("{flags} {all} {others} {some}"))?;
        let page = kit::ready(net.inside("exec fixture http [::]:80 page"))?;
        let echo = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
        for round in 0..2 {
            for open in ["10.77.0.1:8080", "[fd77::1]:8080", "10.77.0.1:8083"] {
                let text = b.peer(&format!("fixture get '{open}'")).ok()?;
                ensure!(text.starts_with("page from "), "{driver}, {round}, {open}: {text}");
            }
            b.user("fixture get 127.0.0.1:8083").ok()?;
            let refused = b.peer("fixture get 10.77.0.1:8081").run()?;
            ensure!(refused.stderr.contains("reset"), "{driver}, {round}: {refused}");
            let out = b.peer("fixture udp-ask 10.77.0.1:8084 hello").ok()?;
            ensure!(out.ends_with(" hello\n"), "{driver}, {round}: {out}");
            b.peer("fixture udp-ask 10.77.0.1:8082 hello").fails_with(1)?;
            if driver == "gateway" {
                let stats = net.stats()?;
                let refused = |at: usize| number(&stats["ports"][at], &["refused"]);
                ensure!((refused(2), refused(4)) == (1, 0), "{stats}");
                ensure!(refused(3) > 0 && refused(5) == 0, "{stats}");
                if round == 0 {
                    b.signal(net.gateway()?.0.pid, "KILL")?;
                    wait::until_true("another gateway serves", PATIENCE, || {
                        Ok(b.peer("fixture get 10.77.0.1:8080").run()?.code == 0)
                    })?;
                }
            }
        }
        drop((page, echo));
        net.stop()?;
    }
    Ok(())
}

#[test]
fn a_port_where_nobody_listens_is_reset_whatever_its_number() -> Result<()> {
    let b = kit::boot()?;
    for driver in ["gateway", "builtin"] {
        let flags = kit::FLAGS.replace("--port-driver=gateway", &format!("--port-driver={driver}"));
        let net = Net::with(
            &b,
            &format!(
                "{flags} -p 0.0.0.0:8080:50000/tcp -p 127.0.0.1:8081:50000/tcp \
                -p 0.0.0.0:8082:50000/udp"
            ),
        )?;
        // The only local port that the kernel can choose: a socket that connects to it connects to itself, and gives back
        // what is sent to it.
        net.inside("sysctl -qw net.ipv4.ip_local_port_range='50000 50000'").ok()?;
        for to in ["10.77.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8081"] {
            let out = b.user(&format!("echo hi | socat -t 2 - TCP:{to}")).run()?;
            assert_eq!(out.stdout, "", "{driver}: {to}: {out}");
        }
        let out = b.user("echo hi | socat -t 2 - UDP:10.77.0.1:8082").run()?;
        assert_eq!(out.stdout, "", "{driver}: {out}");
        net.stop()?;
    }
    Ok(())
}
