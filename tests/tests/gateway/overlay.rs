//! Overlay networks: a VXLAN link in the target namespace, and one of the root of another host.

use tests::{As, PATIENCE, Result, TestBox, ensure, wait};

use crate::kit::{self, FLAGS, Net, number};

/// Enough for thousands of packets of each size in each direction.
const BYTES: u64 = 100_000_000;

/// The box and its other machine.
const IPV4: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const IPV6: [&str; 2] = ["fd77::1", "fd77::2"];
/// The usual port of VXLAN.
const USUAL: &str = "dstport 4789";

/// A network that publishes a port, and a VXLAN link between its namespace (192.168.77.1) and the other machine
/// (192.168.77.2).
fn linked<'b>(
    b: &'b TestBox,
    publish: &str,
    options: &str,
    [ours, theirs]: [&str; 2],
) -> Result<Net<'b>> {
    let net = Net::with(b, &format!("{FLAGS} -p {publish}"))?;
    // The hosts find each other's frames by VXLAN's own flooding: one remote, no learning needed.
    let link = |remote: &str, number: u8| {
        format!(
            "ip link add vx0 type vxlan id 42 remote {remote} {options} && ip link set vx0 mtu 1430 up &&
             ip addr add 192.168.77.{number}/24 dev vx0"
        )
    };
    net.inside(&link(theirs, 1)).ok()?;
    b.peer(&link(ours, 2)).ok()?;
    Ok(net)
}

/// Ends what [`linked`] began.
fn end(b: &TestBox, net: Net<'_>) -> Result<()> {
    b.peer("ip link del vx0").ok()?;
    net.stop()
}

/// A box whose other machine is at the end of something that behaves like a network card.
fn boot() -> Result<TestBox> {
    let b = kit::boot()?;
    b.peer("fixture card eth1").ok()?;
    Ok(b)
}

/// Streams both ways, begun on both sides, and no checksum that is wrong.
fn carries(b: &TestBox, net: &Net<'_>, bytes: u64) -> Result<()> {
    let ours = kit::ready(net.inside("exec fixture streams 192.168.77.1:80"))?;
    let theirs = kit::serve(b, As::Peer, "streams 192.168.77.2:80")?;
    let echo = kit::serve(b, As::Peer, "udp-echo 192.168.77.2:81")?;
    for kind in ["sink", "source"] {
        let out = net.inside(&format!("fixture stream 192.168.77.2:80 {kind} {bytes}"));
        ensure!(out.limit(120).ok()?.starts_with(&format!("{bytes} ok")), "begun inside, {kind}");
        let out = b.peer(&format!("fixture stream 192.168.77.1:80 {kind} {bytes}"));
        ensure!(out.limit(120).ok()?.starts_with(&format!("{bytes} ok")), "begun outside, {kind}");
    }
    let answer = net.inside("fixture udp-ask 192.168.77.2:81 hello").ok()?;
    ensure!(answer.starts_with("192.168.77.1:") && answer.ends_with(" hello\n"), "{answer}");
    for text in [net.inside("cat /proc/net/snmp").ok()?, b.peer("cat /proc/net/snmp").ok()?] {
        assert_eq!(kit::wrong_checksums(&text), 0, "{text}");
    }
    drop((ours, theirs, echo));
    Ok(())
}

#[test]
fn vxlan_carries_streams_to_another_host_whatever_its_port() -> Result<()> {
    let b = boot()?;
    let variants =
        [(4789, ""), (4789, "df set"), (8472, "udpcsum"), (8472, "noudpcsum"), (14_789, "gbp")];
    for (port, options) in variants {
        let publish = format!("0.0.0.0:{port}:{port}/udp");
        let net = linked(&b, &publish, &format!("dstport {port} {options}"), IPV4)?;
        carries(&b, &net, if options.is_empty() { BYTES } else { BYTES / 10 })?;
        end(&b, net)?;
    }
    Ok(())
}

#[test]
fn vxlan_carries_streams_between_hosts_with_ipv6() -> Result<()> {
    let b = boot()?;
    let net = linked(&b, "[::]:4789:4789/udp6", USUAL, IPV6)?;
    carries(&b, &net, BYTES / 10)?;
    end(&b, net)
}

#[test]
fn connections_in_an_overlay_share_one_flow_each_way() -> Result<()> {
    let b = boot()?;
    let net = linked(&b, "0.0.0.0:4789:4789/udp", USUAL, IPV4)?;
    let page = kit::serve(&b, As::Peer, "http 192.168.77.2:80 page")?;
    let before = net.gateway()?.descriptors()?;
    // VXLAN has a source port for each of them, and so does the other host for its answers.
    let out = net.inside("fixture load 192.168.77.2:80 2000 8").limit(120).ok()?;
    assert_eq!(out, "2000\n");
    let stats = net.stats()?;
    ensure!(number(&stats, &["udp", "opened"]) <= 2, "out: {stats}");
    let port = &stats["ports"][0];
    ensure!(number(port, &["opened"]) <= 2 && number(port, &["bytesIn"]) > 0, "in: {stats}");
    assert_eq!(number(&stats, &["events", "evicted"]), 0, "{stats}");
    ensure!(net.gateway()?.descriptors()? <= before + 72, "{before} before");
    drop(page);
    end(&b, net)
}

#[test]
fn a_stream_in_an_overlay_outlives_the_gateway_process() -> Result<()> {
    let b = boot()?;
    let net = linked(&b, "0.0.0.0:4789:4789/udp", USUAL, IPV4)?;
    let server = kit::serve(&b, As::Peer, "streams 192.168.77.2:80")?;
    let stream = net.inside("fixture stream 192.168.77.2:80 echo 1000000000").limit(120).spawn()?;
    let running = || -> Result<u64> { Ok(number(&net.stats()?, &["udp", "bytesOut"])) };
    wait::until_true("the stream is under way", PATIENCE, || Ok(running()? > 1_000_000))?;
    b.signal(net.gateway()?.0.pid, "KILL")?;
    let out = stream.wait(4 * PATIENCE)?.ok()?;
    ensure!(out.starts_with("1000000000 ok"), "{out}");
    drop(server);
    end(&b, net)
}

#[test]
fn what_only_looks_like_an_overlay_gets_its_answers_at_each_port() -> Result<()> {
    let b = kit::boot()?;
    let outside = kit::serve(&b, As::Peer, "udp-echo 10.77.0.2:9000")?;
    let net = Net::with(&b, &format!("{FLAGS} -p 0.0.0.0:8081:81/udp"))?;
    let inside = kit::ready(net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
    // A header of VXLAN, two Ethernet addresses, the EtherType of IPv4. Each socat has a port of its own.
    let ask = |to: &str| {
        let frame = r"\010\0\0\0\0\0*\0address1addr\010\0hello";
        format!("printf '{frame}' | socat -t 2 - UDP:{to} | tr '\\0' .")
    };
    for round in 0..3 {
        let out = net.inside(&ask("10.77.0.2:9000")).ok()?;
        ensure!(out.ends_with("hello"), "out, {round}: {out}");
        let out = b.peer(&ask("10.77.0.1:8081")).ok()?;
        ensure!(out.ends_with("hello"), "in, {round}: {out}");
    }
    drop((outside, inside));
    net.stop()
}
