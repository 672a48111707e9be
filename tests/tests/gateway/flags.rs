//! Flags that shape the network; attached and detached; and the names of other drivers that it goes by.

use serde_json::Value;
use tests::{As, PATIENCE, Result, TestBox, ensure, wait};

use crate::kit::{self, Net};

/// `GET /v1/info`.
fn info(net: &Net<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&net.ctl("info --json").ok()?)?)
}

/// The way out works: names, TCP, UDP, ping, and a bulk of bytes.
fn reaches_out(net: &Net<'_>) -> Result<()> {
    assert_eq!(net.inside("fixture get peer.test:7000").ok()?, "peer from 10.77.0.1\n");
    let text = net.inside("fixture udp-ask 10.77.0.2:85 hello; ping -c 1 -W 30 10.77.0.2").ok()?;
    ensure!(text.contains(" hello\n"), "{text}");
    net.inside("fixture stream 10.77.0.2:86 echo 20000000").ok().map(drop)
}

fn peer(b: &TestBox) -> Result<Vec<tests::Running<'_>>> {
    Ok(vec![
        kit::serve(b, As::Peer, "udp-echo [::]:85")?,
        kit::serve(b, As::Peer, "streams [::]:86")?,
    ])
}

#[test]
fn flags_mtu_cidr_ifname_and_ipv6_shape_the_network() -> Result<()> {
    let b = kit::boot()?;
    let _peer = peer(&b)?;
    for (flags, parts) in [
        ("", ["tap0", "mtu 1500", "inet 10.0.2.100/24", "via 10.0.2.2 ", "nameserver 10.0.2.3\n"]),
        (
            "--mtu=9000 --cidr=10.50.0.0/16 --ifname=up0",
            ["up0", "mtu 9000", "inet 10.50.0.100/16", "via 10.50.0.2 ", "nameserver 10.50.0.3\n"],
        ),
        (
            "--mtu=65520 --cidr=192.168.77.0/25",
            [
                "tap0",
                "mtu 65520",
                "192.168.77.100/25",
                "via 192.168.77.2 ",
                "nameserver 192.168.77.3\n",
            ],
        ),
        ("--mtu=576", ["tap0", "mtu 576", "inet 10.0.2.100/24", "via 10.0.2.2 ", "10.0.2.3\n"]),
    ] {
        let net = Net::with(
            &b,
            &format!("--net=gateway --disable-host-loopback --copy-up=/etc {flags}"),
        )?;
        let text = net.inside("ip -o link; ip -o addr; ip route; cat /etc/resolv.conf").ok()?;
        for part in parts {
            ensure!(text.contains(part), "{flags}: no {part:?} in {text}");
        }
        ensure!(!text.contains("fd00::"), "{flags}: {text}");
        let info = info(&net)?;
        assert_eq!(info["networkDriver"]["driver"], "gateway");
        ensure!(text.contains(info["networkDriver"]["childIP"].as_str().unwrap_or("?")), "{info}");
        reaches_out(&net)?;
        let six = net.inside("fixture probe 2 tcp/[fd77::2]:7000").ok()?;
        ensure!(six.contains("ENETUNREACH"), "{six}");
        net.stop()?;
    }
    let net =
        Net::with(&b, "--net=gateway --ipv6 --disable-host-loopback --copy-up=/etc --mtu=1280")?;
    let text = net.inside("ip -o addr; ip -6 route; cat /etc/resolv.conf").ok()?;
    for part in ["inet6 fd00::64/64", "default via fd00::2", "nameserver fd00::3\n"] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    ensure!(net.inside("fixture get [fd77::2]:7000").ok()?.starts_with("peer from fd77::1"));
    let text = net.inside("fixture udp-ask [fd77::2]:85 hello; ping -c 1 -W 30 fd77::2").ok()?;
    ensure!(text.contains(" hello\n"), "{text}");
    reaches_out(&net)?;
    assert_eq!(info(&net)?["networkDriver"]["ipv6"], true);
    net.stop()
}

#[test]
fn flags_detached_the_target_stays_on_the_host_and_the_network_is_in_a_file() -> Result<()> {
    let b = kit::boot()?;
    let _peer = peer(&b)?;
    let net = Net::with(
        &b,
        &format!("{} --detach-netns -p 0.0.0.0:8080:80/tcp -p 0.0.0.0:8081:81/udp", kit::FLAGS),
    )?;
    // Inside of the mounts of the target, where dockerd would be.
    let out = b
        .user("nsenter -U -m --preserve-credentials -t $(cat /tmp/s/child_pid) sh -c 'ip -o addr show dev eth0; fixture get 127.0.0.1:7001; cat /etc/resolv.conf'")
        .ok()?;
    for part in ["inet 10.77.0.1/24", "loopback from 127.0.0.1\n", "nameserver 10.77.0.2\n"] {
        ensure!(out.contains(part), "no {part:?} in {out}");
    }
    assert_eq!(b.read("/tmp/s/resolv.conf")?.lines().next(), Some("nameserver 10.0.2.3"));
    let text = net.inside("ip -o addr; fixture get 10.77.0.2:7000; dig +short foo.test @10.0.2.3; fixture udp-ask 10.77.0.2:85 hello").ok()?;
    for part in [
        "inet 10.0.2.100/24",
        "inet 127.0.0.1/8",
        "peer from 10.77.0.1\n",
        "10.9.8.7\n",
        " hello\n",
    ] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    let http = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    let echo = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
    assert_eq!(b.peer("fixture get 10.77.0.1:8080").ok()?, "page from 10.77.0.2\n");
    ensure!(b.peer("fixture udp-ask 10.77.0.1:8081 in").ok()?.starts_with("10.77.0.2:"));
    b.signal(net.gateway()?.0.pid, "KILL")?;
    wait::until_true("it is replaced", PATIENCE, || {
        Ok(b.peer("fixture get 10.77.0.1:8080").run()?.stdout == "page from 10.77.0.2\n")
    })?;
    drop((http, echo));
    net.stop()
}

#[test]
fn flags_gvisor_tap_vsock_is_the_same_network_with_that_drivers_addresses() -> Result<()> {
    let b = kit::boot()?;
    let _peer = peer(&b)?;
    for driver in ["gvisor-tap-vsock", "builtin"] {
        let net = Net::with(
            &b,
            &format!(
                "--net=gvisor-tap-vsock --port-driver={driver} --disable-host-loopback --copy-up=/etc -p 0.0.0.0:8080:80/tcp"
            ),
        )?;
        let text = net
            .inside("ip -o link show dev tap0; ip -o addr; ip route; cat /etc/resolv.conf")
            .ok()?;
        for part in ["mtu 65520", "inet 10.0.2.100/24", "via 10.0.2.1 ", "nameserver 10.0.2.1\n"] {
            ensure!(text.contains(part), "no {part:?} in {text}");
        }
        let info = info(&net)?;
        assert_eq!(info["networkDriver"]["driver"], "gvisor-tap-vsock");
        assert_eq!(info["networkDriver"]["dns"][0], "10.0.2.1");
        assert_eq!(info["networkDriver"]["childIP"], "10.0.2.100");
        assert_eq!(info["portDriver"]["driver"], driver);
        assert_eq!(net.stats()?["driver"], "gvisor-tap-vsock");
        reaches_out(&net)?;
        // Its gateway is no way to the host's loopback.
        let text = net
            .inside("fixture probe 1 tcp/10.0.2.1:7001 tcp/10.0.2.2:7001 tcp/10.0.2.254:7001")
            .ok()?;
        ensure!(!text.contains("connected"), "{text}");
        let http = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
        assert_eq!(b.peer("fixture get 10.77.0.1:8080").ok()?, "page from 10.77.0.2\n", "{driver}");
        drop(http);
        net.stop()?;
    }
    Ok(())
}

#[test]
fn flags_other_port_drivers_work_with_the_gateway_network() -> Result<()> {
    let b = kit::boot()?;
    let _peer = peer(&b)?;
    let base = "--net=gateway --disable-host-loopback --copy-up=/etc";
    for mode in ["", "--detach-netns"] {
        let net = Net::with(
            &b,
            &format!(
                "{base} {mode} --port-driver=builtin -p 0.0.0.0:8080:80/tcp -p 127.0.0.1:8081:81/udp"
            ),
        )?;
        let http = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
        let echo = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
        assert_eq!(b.peer("fixture get 10.77.0.1:8080").ok()?, "page from 10.77.0.2\n");
        ensure!(b.user("fixture udp-ask 127.0.0.1:8081 hi").ok()?.ends_with(" hi\n"));
        assert_eq!(info(&net)?["portDriver"]["driver"], "builtin");
        drop((http, echo));
        net.stop()?;
    }
    let net = Net::with(&b, &format!("{base} --port-driver=none"))?;
    reaches_out(&net)?;
    net.ctl("add-ports 0.0.0.0:8080:80/tcp").fails_with(1)?;
    net.stop()
}

#[test]
fn flags_dual_stack_ports_are_served_to_clients_of_both_families() -> Result<()> {
    let b = kit::boot()?;
    for ipv6 in ["", "--ipv6"] {
        let net = Net::with(
            &b,
            &format!(
                "--net=gateway --port-driver=gateway --disable-host-loopback {ipv6} --gateway-dual-stack -p 0.0.0.0:8080:80/tcp4 -p 0.0.0.0:8081:81/udp4 -p 10.77.0.1:8082:80/tcp4"
            ),
        )?;
        let http = kit::ready(net.inside("exec fixture http [::]:80 page"))?;
        let echo = kit::ready(net.inside("exec fixture udp-echo [::]:81"))?;
        assert_eq!(b.peer("fixture get 10.77.0.1:8080").ok()?, "page from 10.77.0.2\n");
        // Over IPv6 the server's side is IPv4 (ports lead to the child's one address), so the client is the gateway.
        assert_eq!(b.peer("fixture get [fd77::1]:8080").ok()?, "page from 10.0.2.2\n");
        ensure!(b.peer("fixture udp-ask [fd77::1]:8081 hi").ok()?.starts_with("10.0.2.2:"));
        ensure!(b.peer("fixture udp-ask 10.77.0.1:8081 hi").ok()?.starts_with("10.77.0.2:"));
        ensure!(b.user("fixture get [::1]:8080").ok()?.starts_with("page from 10.0.2.2"));
        b.peer("curl -sS -m3 'http://[fd77::1]:8082/'").fails_with(7)?;
        drop((http, echo));
        net.stop()?;
    }
    // Without the flag there is no other family.
    let net = Net::with(&b, &format!("{} -p 0.0.0.0:8080:80/tcp4", kit::FLAGS))?;
    b.peer("curl -sS -m3 'http://[fd77::1]:8080/'").fails_with(7)?;
    net.stop()
}

#[test]
fn connections_that_stay_on_the_machine_use_reno_or_cubic_whatever_the_host_uses() -> Result<()> {
    let b = kit::boot()?;
    for driver in ["--net=gateway", "--net=slirp4netns", "--net=none --port-driver=builtin"] {
        for detach in ["", "--detach-netns"] {
            let net = Net::with(&b, &format!("{driver} --disable-host-loopback {detach}"))?;
            let name = net.inside("cat /proc/sys/net/ipv4/tcp_congestion_control").ok()?;
            ensure!(["reno\n", "cubic\n"].contains(&name.as_str()), "{driver} {detach}: {name}");
            net.stop()?;
        }
    }
    Ok(())
}
