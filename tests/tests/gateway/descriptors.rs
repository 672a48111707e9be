//! Small limits of open files: every kind of use has its share, nothing dies of the lack, and the log says what is short.
//! The figures are those of the table in `docs/network.md`.

use budget::{Budget, DataPath, MINIMUM};
use tests::{As, Context as _, Output, PATIENCE, Result, TestBox, ensure, wait};

use crate::kit::{self, FLAGS, Net, number};

/// What a limit gives to the gateway network.
fn budget(nofile: u64) -> Budget {
    Budget::new(nofile, DataPath::Gateway)
}

fn specs(count: usize) -> String {
    (0..count).map(|n| format!(" 0.0.0.0:{}:80/tcp", 20_000 + n)).collect()
}

/// Publishes as many ports as there may be, and one more, which is refused.
fn publish_all(net: &Net<'_>, ports: usize, nofile: u64) -> Result<()> {
    net.ctl(&format!("add-ports{}", specs(ports))).limit(120).ok()?;
    let out = net.ctl("add-ports 0.0.0.0:9999:80/tcp").run()?;
    let wanted = format!("the limit of open files, {nofile}, allows {ports}");
    ensure!(out.code != 0 && out.stderr.contains(&wanted), "{out}");
    ensure!(out.stderr.contains("hint: "), "{out}");
    Ok(())
}

fn answers(b: &TestBox, port: u16) -> Result<()> {
    wait::until_true("a published port answers", PATIENCE, || {
        Ok(b.peer(&format!("fixture get 10.77.0.1:{port}")).run()?.stdout.contains("page from"))
    })
}

#[test]
fn descriptors_ports_beyond_the_limit_are_refused_and_the_gateway_is_replaced_at_any_time()
-> Result<()> {
    for nofile in [64, 256] {
        let b = kit::boot()?;
        let net = Net::with_limit(&b, nofile, FLAGS)?;
        let inner = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
        let gateway = net.gateway()?;
        let ports = budget(nofile).ports;
        publish_all(&net, ports, nofile)?;
        assert_eq!(net.gateway()?.0.pid, gateway.0.pid, "the gateway died");
        answers(&b, 20_000)?;
        for _ in 0..2 {
            let old = net.gateway()?.0.pid;
            b.signal(old, "KILL")?;
            answers(&b, 20_001)?;
            ensure!(net.gateway()?.0.pid != old, "it was not replaced");
            net.inside("fixture get 10.77.0.2:7000").ok()?;
        }
        let said = net.kit.printed()?;
        ensure!(
            said.contains(&format!("the limit of open files is {nofile}: room for {ports} pub")),
            "{said}"
        );
        ensure!(
            !said.contains("Too many open files") && !said.contains("does not serve"),
            "{said}"
        );
        net.ctl("remove-ports 1").ok()?;
        net.ctl("add-ports 0.0.0.0:9999:80/tcp").ok()?;
        answers(&b, 9999)?;
        drop(inner);
        net.stop()?;
    }
    Ok(())
}

/// The kernel compares what all processes of the user have in transit with the limit of the one that sends (unix(7)).
#[test]
fn descriptors_that_others_have_in_transit_only_delay_a_start() -> Result<()> {
    let b = kit::boot()?;
    let script = "import os, socket, time
a, b = socket.socketpair()
socket.send_fds(a, [b'x'], [0] * 200)
open('/tmp/held', 'w')
while not os.path.exists('/tmp/s'): time.sleep(0.01)
time.sleep(2.5)";
    b.write("/tmp/transit.py", script)?;
    let sender = b.user("exec python3 /tmp/transit.py").spawn()?;
    wait::until_true("descriptors are in transit", PATIENCE, || Ok(b.exists("/tmp/held")))?;
    let net = Net::with_limit(&b, 64, FLAGS)?;
    ensure!(sender.wait(PATIENCE)?.code == 0, "the descriptors were not in transit");
    b.root("rm /tmp/transit.py /tmp/held").ok()?;
    net.stop()
}

#[test]
fn descriptors_a_killed_slirp4netns_is_started_again_beside_all_ports_of_builtin() -> Result<()> {
    let b = kit::boot()?;
    let flags = "--net=slirp4netns --port-driver=builtin --copy-up=/etc --disable-host-loopback";
    let net = Net::with_limit(&b, 128, flags)?;
    let inner = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    publish_all(&net, Budget::new(128, DataPath::Parent).ports, 128)?;
    answers(&b, 20_000)?;
    // All the connections that there may be, so that nothing is left but what is set aside.
    let _held = b.peer("exec fixture hang 10.77.0.1:20001 100").spawn()?;
    for _ in 0..2 {
        let old = b.process("slirp4netns")?;
        b.signal(old.pid, "KILL")?;
        wait::until_true("it runs again", PATIENCE, || {
            Ok(b.process("slirp4netns").is_ok_and(|new| new.pid != old.pid))
        })?;
        wait::until_true("and serves", PATIENCE, || {
            Ok(net.inside("fixture get 10.77.0.2:7000").run()?.stdout.contains("peer from"))
        })?;
        net.ctl("list-ports").ok()?;
    }
    drop(inner);
    net.stop()
}

/// Holds as many connections as there may be out of the namespace, for a moment.
fn hold_out(net: &Net<'_>, count: usize) -> Result<Output> {
    net.inside(&format!("touch /tmp/go; exec fixture hold 10.77.0.2:86 {count} /tmp/go"))
        .limit(120)
        .run()
}

#[test]
fn descriptors_as_many_connections_as_the_table_says_at_each_limit() -> Result<()> {
    let b = kit::boot()?;
    let _echo = kit::serve(&b, As::Peer, "echo-many [::]:86")?;
    for nofile in [MINIMUM, 64, 128, 180, 256, 512, 1024] {
        let net = Net::with_limit(&b, nofile, &format!("{FLAGS} -p 0.0.0.0:8086:86/tcp4"))?;
        let inner = kit::ready(net.inside("exec fixture echo-many 0.0.0.0:86"))?;
        let count = budget(nofile).connections();
        let out = hold_out(&net, count)?;
        ensure!(out.stdout.contains(&format!("again {count}")), "{nofile}, {count} out: {out}");
        let line = format!("touch /tmp/go; exec fixture hold 10.77.0.1:8086 {count} /tmp/go");
        let out = b.peer(&line).limit(120).run()?;
        ensure!(out.stdout.contains(&format!("again {count}")), "{nofile}, {count} in: {out}");
        // One too many waits for another to end, and the log says why.
        let held = net.inside("exec fixture hang 10.77.0.2:86 2000").spawn()?;
        wait::until_true("the log says what is short", PATIENCE, || {
            Ok(net
                .kit
                .printed()?
                .contains("outbound connections from containers wait for others to end"))
        })
        .with_context(|| format!("at {nofile}: {:?}", net.kit.printed()))?;
        assert_eq!(number(&net.stats()?, &["restarts"]), 0);
        drop((inner, held));
        b.root("rm /tmp/go").ok()?;
        net.stop()?;
    }
    Ok(())
}

#[test]
fn descriptors_a_limit_that_is_too_low_is_an_error_and_leaves_nothing() -> Result<()> {
    let b = kit::boot()?;
    for flags in ["--net=none", "--net=host", FLAGS, "--net=slirp4netns --port-driver=builtin"] {
        for nofile in (8..MINIMUM).step_by(4).chain([24, 47, MINIMUM, 56]) {
            let out = b
                .user(&format!(
                    "ulimit -n {nofile}; exec rootlesskit --state-dir=/tmp/low {flags} true"
                ))
                .run()?;
            ensure!(!out.stderr.contains("panicked"), "{flags} at {nofile}: {out}");
            ensure!(!b.exists("/tmp/low"), "{flags} at {nofile} left its state directory");
            ensure!((out.code == 0) == (nofile >= MINIMUM), "{flags} at {nofile}: {out}");
            let said = format!(
                "limit of open files is {nofile}; rootlesskit needs at least {MINIMUM}\nhint: "
            );
            ensure!(out.code == 0 || out.stderr.contains(&said), "{flags} at {nofile}: {out}");
        }
    }
    b.assert_clean(&[])
}

#[test]
fn descriptors_that_the_starter_left_open_reach_nobody() -> Result<()> {
    let b = kit::boot()?;
    b.user("echo left >/tmp/left-open").ok()?;
    for (flags, ours) in [(FLAGS, 4), ("--net=none", 3)] {
        let line = format!(
            "exec 3</tmp/left-open 9</tmp/left-open 60</tmp/left-open
             exec rootlesskit --state-dir=/tmp/s {flags} sh -c 'echo up; exec sleep 1000'"
        );
        // bash has descriptors of two digits.
        let mut kit = b.argv(As::User, &["bash", "-c", &line]).spawn()?;
        wait::until_true("the target runs", PATIENCE, || {
            ensure!(kit.alive()?, "{}", kit.printed()?);
            Ok(kit.printed()?.contains("up\n"))
        })?;
        let all = b.user_processes();
        ensure!(all.len() >= ours, "{all:?}");
        for process in all {
            let fds = std::fs::read_dir(process.dir().join("fd"))?.flatten();
            for fd in fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()) {
                ensure!(!fd.ends_with("left-open"), "{process:?} has {}", fd.display());
            }
        }
        kit.signal("TERM")?;
        kit.wait(PATIENCE)?;
    }
    // Those of socket activation are what they were.
    let line = "exec 3</tmp/left-open 4</tmp/left-open 5</etc/hostname 9</tmp/left-open
        LISTEN_PID=$$ LISTEN_FDS=2 exec rootlesskit --net=none fixture fds";
    let out = b.argv(As::User, &["bash", "-c", line]).ok()?;
    ensure!(out.contains("3 /tmp/left-open") && out.contains("4 /tmp/left-open"), "{out}");
    ensure!(!out.contains("hostname") && !out.contains("9 /tmp"), "{out}");
    Ok(())
}

#[test]
fn descriptors_of_a_parent_fit_what_is_set_aside_for_them() -> Result<()> {
    let b = kit::boot()?;
    let ports = " -p 127.0.0.1:8081:81/tcp -p 127.0.0.1:8082:82/udp";
    for flags in [
        FLAGS.to_owned(),
        format!("{FLAGS} --detach-netns{ports}"),
        format!("--net=gateway --port-driver=builtin --ipv6 --copy-up=/etc{ports}"),
        format!("--net=slirp4netns --port-driver=builtin --copy-up=/etc{ports}"),
        "--net=pasta --port-driver=implicit --copy-up=/etc".to_owned(),
    ] {
        let net = Net::with_limit(&b, 256, &flags)?;
        let parent = b.processes().into_iter().find(|p| p.pid == net.kit.pid());
        let parent = parent.context("no parent")?;
        // A connection to the API ends when it is answered.
        net.ctl("info").ok()?;
        let open = || -> Result<usize> { Ok(std::fs::read_dir(parent.dir().join("fd"))?.count()) };
        let published = flags.matches(" -p ").count();
        // Besides ports a socket or two that are ready.
        let most = budget::PARENT + budget::NETWORK + budget::ENGINE + published + 2;
        println!("{flags}: {} with {published} ports, {most} at most", open()?);
        wait::until_true("few are open", PATIENCE, || Ok(open()? <= most))?;
        if let Ok(gateway) = net.gateway() {
            println!("the gateway: {}", gateway.descriptors()?);
            let most = 15 + u64::try_from(published)?;
            ensure!(gateway.descriptors()? <= most, "the gateway: {}", gateway.descriptors()?);
        }
        net.stop()?;
    }
    Ok(())
}

#[test]
fn descriptors_udp_flows_pings_and_names_leave_tcp_its_share() -> Result<()> {
    let _flooding = kit::flooding();
    for nofile in [128, 2048] {
        let b = kit::boot()?;
        let _echo = kit::serve(&b, As::Peer, "echo-many [::]:86")?;
        // The host's name server does not answer names whose first label has eight letters.
        b.root(
            "nft add table ip t; nft add chain ip t out '{ type filter hook output priority 0; }'
             nft add rule ip t out udp dport 53 @th,160,8 8 drop",
        )
        .ok()?;
        let net = Net::with_limit(&b, nofile, FLAGS)?;
        let flood = net.inside("exec fixture flood 1000 all 10.0.2.100 10.77.0.2");
        let mut flood = flood.spawn()?;
        let shares = budget(nofile).shares;
        let wanted = [
            (&["udp", "active"], 2 * shares.flows_kept),
            (&["events", "echoRequests"], 2 * shares.pings),
            (&["events", "dnsQueries"], 2 * shares.names),
        ];
        wait::until_true("they take what there is", PATIENCE, || {
            let stats = net.stats()?;
            Ok(wanted.iter().all(|(path, most)| number(&stats, *path) >= *most as u64))
        })?;
        let count = budget(nofile).connections();
        let held = hold_out(&net, count)?;
        ensure!(held.stdout.contains(&format!("again {count}")), "{nofile}: {held}");
        let name = net.inside("dig +short +tries=6 foo.test").ok()?;
        assert_eq!(name, "10.9.8.7\n");
        ensure!(flood.alive()?, "{nofile}: it ended: {}", flood.printed()?);
        drop(flood);
        let said = net.kit.printed()?;
        ensure!(said.contains("UDP flows from containers expire early"), "{said}");
        assert_eq!(number(&net.stats()?, &["restarts"]), 0);
        b.root("rm /tmp/go; nft delete table ip t").ok()?;
        net.stop()?;
    }
    Ok(())
}

/// The bound of 8 MiB for datagrams that wait, and what the process has anyway.
const MEMORY: u64 = 24 << 10;

#[test]
fn descriptors_a_stalled_child_costs_little_memory_however_many_ask() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::with(&b, "--net=none --port-driver=builtin -p 0.0.0.0:8081:81/udp4")?;
    let child: i32 = b.read("/tmp/s/child_pid")?.parse()?;
    b.signal(child, "STOP")?;
    let parent = b.processes().into_iter().find(|p| p.pid == net.kit.pid());
    let status = parent.context("no parent")?.dir().join("status");
    let memory = || -> Result<u64> {
        let text = std::fs::read_to_string(&status)?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?)
    };
    let before = memory()?;
    // 4,000 sources with 90 kB each.
    let script = "import socket
for i in range(4000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for j in range(3): s.sendto(b'x' * 30000, ('10.77.0.1', 8081))
    s.close()";
    b.write("/tmp/many.py", script)?;
    b.peer("python3 /tmp/many.py").limit(120).ok()?;
    b.root("rm /tmp/many.py").ok()?;
    let more = memory()?.saturating_sub(before);
    ensure!(more < MEMORY, "{more} KiB more");
    b.signal(child, "CONT")?;
    net.stop()
}
