//! Datagrams as the host sends and receives them: sizes, many ports, broadcasts, ports of our own.

use tests::{As, PATIENCE, Result, ensure, wait};

use crate::kit::{self, Net};

#[test]
fn datagrams_that_must_not_be_cut_are_not_and_the_sender_hears_what_fits() -> Result<()> {
    let b = kit::boot()?;
    b.root(
        "ip route replace 10.77.0.0/24 dev eth0 src 10.77.0.1 mtu 1280
         ip -6 route del fd77::/64 dev eth0; ip -6 route add fd77::/64 dev eth0 mtu 1280",
    )
    .ok()?;
    let net = Net::start(&b)?;
    let four = kit::serve(&b, As::Peer, "udp-echo 0.0.0.0:9000")?;
    let six = kit::serve(&b, As::Peer, "udp-echo [fd77::2]:9001")?;
    // A flow that begins with the large ones, and one that has a socket of its own by then.
    for before in [0, 20] {
        for to in ["10.77.0.2:9000", "[fd77::2]:9001"] {
            let command = format!("fixture sizes '{to}' {before}");
            for out in [b.user(&command).ok()?, net.inside(&command).ok()?] {
                assert_eq!(out, "1280\ncut\n", "{to} after {before}");
            }
        }
        // The next round finds out anew.
        net.inside("ip route flush cache; ip -6 route flush cache").ok()?;
    }
    for (to, size) in [("10.77.0.2", 1252), ("fd77::2", 1232)] {
        net.inside(&format!("ping -c 1 -W 2 -M do -s {size} {to}")).ok()?;
        let out = net.inside(&format!("ping -c 2 -i 0.2 -W 1 -M do -s {} {to}", size + 1)).run()?;
        let told = out.stdout.contains("1280") || out.stderr.contains("1280");
        ensure!(told && !out.stdout.contains("bytes from"), "{out}");
        net.inside(&format!("ping -c 1 -W 2 -M dont -s 1400 {to}")).ok()?;
    }
    drop((four, six));
    net.stop()
}

#[test]
fn datagrams_of_clients_that_come_and_go_are_all_answered() -> Result<()> {
    let _no_floods = kit::without_floods();
    let b = kit::boot()?;
    let outside = kit::serve(&b, As::Peer, "udp-echo 10.77.0.2:9000")?;
    for driver in ["gateway", "builtin"] {
        let flags = kit::FLAGS.replace("--port-driver=gateway", &format!("--port-driver={driver}"));
        let net = Net::with_many_files(&b, &format!("{flags} -p 0.0.0.0:8081:81/udp"))?;
        let inside = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
        let out = b.peer("fixture churn 10.77.0.1:8081 20000 64").limit(120).ok()?;
        assert_eq!(out, "0 lost\n", "{driver}");
        // The same the other way: a name server in a container asks others from many ports.
        let out = net.inside("fixture churn 10.77.0.2:9000 20000 64").limit(120).ok()?;
        assert_eq!(out, "0 lost\n", "out of the namespace, {driver}");
        drop(inside);
        net.stop()?;
    }
    drop(outside);
    Ok(())
}

#[test]
fn datagrams_of_a_flow_and_pings_go_on_when_the_address_of_the_host_is_another() -> Result<()> {
    let b = kit::boot()?;
    let outside = ["10.77.0.2:9000", "[fd77::2]:9000"]
        .map(|at| kit::serve(&b, As::Peer, &format!("udp-echo {at}")));
    let net = Net::start(&b)?;
    goes_on_from_another_address(
        &net,
        "10.77.0.2",
        [("10.77.0.1", "10.77.0.50"), ("10.77.0.50", "10.77.0.1")],
        // The other address of the network goes with the first one, and comes again.
        |old, new| {
            format!(
                "ip address add {new}/24 dev eth0; ip address delete {old}/24 dev eth0
                 ip address replace {new}/24 dev eth0; ip route replace default via 10.77.0.2"
            )
        },
    )?;
    // A socket of IPv6 is not told that its address has gone.
    goes_on_from_another_address(
        &net,
        "fd77::2",
        [("fd77::1", "fd77::50"), ("fd77::50", "fd77::1")],
        |old, new| {
            format!("ip address add {new}/64 dev eth0 nodad; ip address delete {old}/64 dev eth0")
        },
    )?;
    for server in outside {
        drop(server?);
    }
    net.stop()
}

/// A flow and a ping to `to` go on whenever the host's address changes as `change` says, and new flows begin at the new one.
fn goes_on_from_another_address(
    net: &Net<'_>,
    to: &str,
    changes: [(&str, &str); 2],
    change: impl Fn(&str, &str) -> String,
) -> Result<()> {
    let server = if to.contains(':') { format!("[{to}]:9000") } else { format!("{to}:9000") };
    let busy = net.inside(&format!("exec fixture keep udp {server}")).spawn()?;
    let ping = net.inside(&format!("exec ping -i 0.2 {to}")).spawn()?;
    let goes_on = || {
        let counted = || -> Result<(usize, usize)> {
            let answers = ping.printed()?.matches("bytes from").count();
            Ok((busy.printed()?.lines().count(), answers))
        };
        let before = counted()?;
        wait::until_true("the flow and the ping go on", PATIENCE, || {
            let (datagrams, answers) = counted()?;
            Ok(datagrams > before.0 + 20 && answers > before.1)
        })
    };
    goes_on()?;
    for (old, new) in changes {
        net.b.root(&change(old, new)).ok()?;
        goes_on()?;
        let out = net.inside(&format!("fixture udp-ask {server} hello")).ok()?;
        ensure!(out.starts_with(&format!("{new}:")), "{out}");
    }
    Ok(())
}

#[test]
fn datagrams_to_everybody_are_answered_by_the_address_of_the_host() -> Result<()> {
    let b = kit::boot()?;
    for driver in ["gateway", "builtin"] {
        let flags = kit::FLAGS.replace("--port-driver=gateway", &format!("--port-driver={driver}"));
        let net = Net::with(&b, &format!("{flags} -p 0.0.0.0:8081:81/udp"))?;
        let server = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
        let out = b.peer("fixture anybody 10.77.0.255:8081 hello").ok()?;
        assert_eq!(out, "10.77.0.1:8081\n", "{driver}");
        let scope = b.peer("cat /sys/class/net/eth1/ifindex").ok()?;
        let to = format!("[ff02::1%{}]:8081", scope.trim());
        let out = b.peer(&format!("fixture anybody {to} hello")).ok()?;
        ensure!(out.starts_with("[fe80::") && out.ends_with("]:8081\n"), "{driver}: {out}");
        drop(server);
        net.stop()?;
    }
    Ok(())
}

#[test]
fn datagrams_of_our_own_flows_hold_no_port_that_is_published() -> Result<()> {
    let b = kit::boot()?;
    // So few local ports that each is in use.
    b.root("sysctl -qw net.ipv4.ip_local_port_range='50000 50003'").ok()?;
    let outside = kit::serve(&b, As::Peer, "udp-echo 0.0.0.0:9000")?;
    let net = Net::start(&b)?;
    let talk = || kit::ready(net.inside("exec fixture talk 10.77.0.2:9000"));
    let flows = [talk()?, talk()?, talk()?, talk()?];
    for port in 50_000..50_004 {
        net.ctl(&format!("add-ports 0.0.0.0:{port}:81/udp")).ok()?;
    }
    let inside = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
    for port in 50_000..50_004 {
        b.peer(&format!("fixture udp-ask 10.77.0.1:{port} hi")).ok()?;
    }
    // A port that somebody else listens at is still taken.
    let other = kit::serve(&b, As::User, "udp-echo 0.0.0.0:9999")?;
    let out = net.ctl("add-ports 0.0.0.0:9999:81/udp").run()?;
    ensure!(out.code != 0 && out.stderr.contains("address already in use"), "{out}");
    drop((flows, inside, other, outside));
    net.stop()
}

/// Asks the server at ADDRESS PORT from 50 sockets, four times each, and prints how many answers came.
const ASK: &str = "
import socket, sys
address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]
answers = 0
for i in range(50):
    with socket.socket(address[0], socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(address[4])
        for j in range(4):
            question = f'{i}.{j}'.encode()
            client.send(question)
            answers += client.recv(100).endswith(question)
print(answers)
";

#[test]
fn datagrams_of_a_server_on_all_addresses_answer_whoever_asks_a_loopback_address() -> Result<()> {
    let b = kit::boot()?;
    for driver in ["gateway", "builtin"] {
        let flags = kit::FLAGS.replace("--port-driver=gateway", &format!("--port-driver={driver}"));
        let ports = "-p 127.0.0.1:8081:81/udp -p [::1]:8083:83/udp";
        let net = Net::with(&b, &format!("{flags} --ipv6 {ports}"))?;
        let servers = [
            ["0.0.0.0:81", "[::]:83"],
            // The same by servers that take only what is for one address.
            ["127.0.0.1:81", "[::1]:83"],
        ];
        for pair in servers {
            let inside: Result<Vec<_>> = pair
                .iter()
                .map(|at| kit::ready(net.inside(&format!("exec fixture udp-echo {at}"))))
                .collect();
            for (client, to) in [(As::User, "127.0.0.1 8081"), (As::User, "::1 8083")] {
                let out = b.argv(client, &["sh", "-c", &format!("python3 -c \"$ASK\" {to}")]);
                let out = out.env("ASK", ASK).ok()?;
                assert_eq!(out, "200\n", "{driver}: {pair:?} at {to}");
            }
            drop(inside);
        }
        net.stop()?;
    }
    Ok(())
}
