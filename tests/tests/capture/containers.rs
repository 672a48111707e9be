//! Containers of Docker: their own packets, and nobody else's.

use tests::containers::{FIXTURE, PEER, peer_serves, rootlessctl, serve, state_dir};
use tests::docker::Docker;
use tests::{PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::{INBOUND, OUTBOUND, Packet, conversation, read, start, stop};

/// The addresses of a container.
fn addresses(d: &Docker<'_>, name: &str) -> Result<Vec<String>> {
    let all = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}";
    let text = d.run(&format!("inspect -f '{all}' {name}"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn containers_are_captured_with_their_own_addresses_and_nobody_elses() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    peer_serves(&b, "udp-echo [::]:9000")?;
    let d = Docker::start(&b, &[("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--ipv6")])?;
    d.import()?;
    let socket = &format!("{}/api.sock", state_dir(&b)?);
    d.run("network create --ipv6 --subnet 172.29.0.0/16 --subnet fd99::/64 six")?;
    d.run("network create --subnet 172.28.0.0/16 one")?;
    serve(&d, "web", "--network six -p 8080:80", "http [::]:80 page")?;
    serve(&d, "noisy", "--network six", "http [::]:80 noise")?;
    d.run("network connect one web")?;
    d.run("network connect one noisy")?;
    let (web, noisy) = (addresses(&d, "web")?, addresses(&d, "noisy")?);
    ensure!(web.len() == 3 && noisy.len() == 3, "{web:?} {noisy:?}");
    let of = |all: &[String], begin: &str| -> String {
        all.iter().find(|ip| ip.starts_with(begin)).cloned().unwrap_or_default()
    };

    let all = start(&b, socket, "--container web -w web.pcapng")?;
    let port = start(
        &b,
        socket,
        &format!("--container {} --port 9000 -w port.pcapng", of(&web, "172.29.")),
    )?;
    let host = start(
        &b,
        socket,
        &format!("--container web --host {} -w host.pcapng", of(&noisy, "172.28.")),
    )?;
    for name in ["web", "noisy"] {
        for verb in ["get 10.77.0.2:7000", "get [fd77::2]:7000", "udp-ask 10.77.0.2:9000 ping"] {
            d.run(&format!("exec {name} fixture {verb}"))?;
        }
    }
    for begin in ["172.28.", "172.29."] {
        d.run(&format!("exec noisy fixture get {}:80", of(&web, begin)))?;
    }
    b.peer("fixture get 10.77.0.1:8080").ok()?;
    for capture in [all, port, host] {
        stop(capture)?;
    }

    let packets = read(&b, "web.pcapng")?;
    conversation(&packets, &of(&web, "172.29."), PEER, false)?;
    conversation(&packets, &of(&web, "fd99"), "fd77::2", true)?;
    for begin in ["172.28.", "172.29."] {
        conversation(&packets, &of(&web, begin), &of(&noisy, begin), true)?;
    }
    let mut tcp_out = packets.iter().filter(|p| p.tcp && (p.src == PEER || p.dst == PEER));
    ensure!(tcp_out.next().is_some(), "{packets:#?}");
    let published = packets.iter().filter(|p| p.ports[1] == "80" && !noisy.contains(&p.src));
    ensure!(published.count() > 0, "nobody came to the published port: {packets:#?}");
    // Addresses of ARP messages are none of IP to tshark.
    for packet in packets.iter().filter(|p| !p.src.is_empty()) {
        ensure!(web.contains(&packet.src) || web.contains(&packet.dst), "{packet:?}");
        ensure!(packet.good || !(packet.tcp || packet.udp), "{packet:?}");
    }
    // What comes from the container comes in by the bridge.
    let ours = |p: &&Packet| p.src == of(&web, "172.29.") && p.dst == PEER;
    let theirs = |p: &&Packet| p.dst == of(&web, "172.29.") && p.src == PEER;
    ensure!(packets.iter().filter(ours).all(|p| p.direction == INBOUND), "{packets:#?}");
    ensure!(packets.iter().filter(theirs).all(|p| p.direction == OUTBOUND), "{packets:#?}");
    // Both of its networks, by name.
    let mut names: Vec<_> = packets.iter().map(|p| p.interface.clone()).collect();
    names.sort();
    names.dedup();
    ensure!(names.len() == 2 && names.iter().all(|name| name.starts_with("br-")), "{names:?}");

    let packets = read(&b, "port.pcapng")?;
    conversation(&packets, &of(&web, "172.29."), PEER, false)?;
    ensure!(packets.iter().all(|p| p.udp && p.ports.contains(&"9000".to_owned())), "{packets:#?}");
    let packets = read(&b, "host.pcapng")?;
    conversation(&packets, &of(&web, "172.28."), &of(&noisy, "172.28."), true)?;
    let other = packets.iter().find(|p| p.tcp && !p.src.starts_with("172.28."));
    ensure!(other.is_none(), "{other:?}");

    bulk(&b, &d, socket)?;
    refusals_with_docker(&b, &d, socket)?;
    d.run(&format!("rm -f {}", d.run("ps -aq")?.replace('\n', " ")))?;
    d.stop()
}

/// Segments that no network card cuts are longer than the MTU, and right as they are.
fn bulk(b: &TestBox, d: &Docker<'_>, socket: &str) -> Result<()> {
    b.peer("iperf3 -s -1 -D").ok()?;
    wait::until_true("iperf3 listens", PATIENCE, || {
        Ok(!b.peer("ss -Hltn 'sport = :5201'").ok()?.is_empty())
    })?;
    let capture = start(b, socket, "--container web --port 5201 -w bulk.pcapng")?;
    d.run("exec web /usr/bin/iperf3 -c 10.77.0.2 -n 8M")?;
    capture.signal("INT")?;
    let out = capture.wait(PATIENCE)?;
    ensure!(out.code == 0 && out.stderr.contains("stopped by SIGINT"), "{out}");
    let packets = read(b, "bulk.pcapng")?;
    let longest = packets.iter().map(|p| p.length).max();
    ensure!(longest > Some(1514), "the longest of {} packets has {longest:?} bytes", packets.len());
    let bad = packets.iter().find(|p| !p.good);
    ensure!(bad.is_none(), "of {} packets, {bad:?}: {out}", packets.len());
    let told = b.user("capinfos bulk.pcapng").ok()?;
    for part in ["Capture application: rootlessctl", "container \"web\": 172.", "nanosecond"] {
        ensure!(told.contains(part), "no {part:?} in {told}");
    }
    Ok(())
}

/// What cannot be captured is explained, and leaves no file.
fn refusals_with_docker(b: &TestBox, d: &Docker<'_>, socket: &str) -> Result<()> {
    d.run(&format!("run -d --name open --network host {FIXTURE} bb sleep 1000"))?;
    d.run(&format!("run -d --name guest --network container:web {FIXTURE} bb sleep 1000"))?;
    for (name, parts) in [
        ("open", &["--network=host", "hint: omit --container"][..]),
        ("guest", &["shares", "hint: use --container \"web\""]),
        ("nobody", &["\"nobody\"", "running containers are", "\"web\""]),
        ("172.29.0.1", &["address of the namespace itself", "hint"]),
        ("198.51.100.7", &["leads directly", "198.51.100.7", "hint"]),
    ] {
        let line =
            format!("rootlessctl --socket={socket} capture --container {name} -w refused.pcapng");
        let text = b.user(&line).fails_with(1)?;
        ensure!(parts.iter().all(|part| text.contains(part)), "{name}: {text}");
        ensure!(!b.exists("/home/tester/refused.pcapng"), "{name}: a file was left");
    }
    ensure!(rootlessctl(b, "list-ports")?.contains("8080"), "the daemon is as before");
    Ok(())
}
