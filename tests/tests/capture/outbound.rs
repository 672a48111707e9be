//! Every kind of namespace, without Docker.

use tests::containers::{PEER, peer_serves};
use tests::kit::{FLAGS, Net};
use tests::{PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::{INBOUND, OUTBOUND, conversation, read, start, stop};

/// What goes out of a namespace, however it is made and whoever carries it.
fn outbound(flags: &str) -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    peer_serves(&b, "udp-echo [::]:9000")?;
    let net = Net::with(&b, flags)?;
    let capture = start(&b, "/tmp/s/api.sock", "-w out.pcapng")?;
    // It has its sockets, and nothing else: no capability, no way to one, and few system calls.
    let status = b.read(&format!("/proc/{}/status", capture.pid()))?;
    for line in
        ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        ensure!(status.lines().any(|found| found == line), "no {line:?} in {status}");
    }
    net.inside("fixture get 10.77.0.2:7000 && fixture udp-ask 10.77.0.2:9000 ping").ok()?;
    let said = stop(capture)?;
    ensure!(said.contains("capturing on tap0 to out.pcapng"), "{said}");
    let packets = read(&b, "out.pcapng")?;
    conversation(&packets, "10.0.2.100", PEER, true)?;
    conversation(&packets, "10.0.2.100", PEER, false)?;
    for packet in packets.iter().filter(|p| p.tcp || p.udp) {
        ensure!(packet.interface == "tap0" && packet.good, "{packet:?}");
        let expected = if packet.src == "10.0.2.100" { OUTBOUND } else { INBOUND };
        ensure!(packet.direction == expected, "{packet:?}");
    }
    // A program that lives in a bridge's network, without Docker.
    let bridge =
        "ip link add br0 type bridge && ip addr add 10.9.0.1/24 dev br0 && ip link set br0 up
        unshare -n sleep 1000 & pid=$!
        while [ $(readlink /proc/$pid/ns/net) = $(readlink /proc/self/ns/net) ]; do :; done
        ip link add v0 type veth peer name eth0 netns $pid && ip link set v0 master br0 up
        nsenter -t $pid -n sh -c 'ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up'
        echo ready $pid; wait";
    let script = net.inside(bridge).spawn()?;
    let pid = wait::until("the bridge is there", PATIENCE, || {
        let printed = script.printed()?;
        let pid = printed.split_once("ready ").and_then(|(_, pid)| pid.trim().parse::<i32>().ok());
        Ok(pid)
    })?;
    let capture = start(&b, "/tmp/s/api.sock", "--container 10.9.0.2 -w bridge.pcapng")?;
    net.inside(&format!("nsenter -t {pid} -n ping -c 2 10.9.0.1")).ok()?;
    let said = stop(capture)?;
    ensure!(said.contains("capturing on br0 (container at 10.9.0.2)"), "{said}");
    let packets = read(&b, "bridge.pcapng")?;
    let pings = packets.iter().filter(|p| p.src == "10.9.0.2" && p.direction == INBOUND).count();
    let answers = packets.iter().filter(|p| p.dst == "10.9.0.2" && p.direction == OUTBOUND).count();
    ensure!(pings == 2 && answers == 2, "{packets:#?}");
    b.signal(pid, "KILL")?;
    script.wait(PATIENCE)?;
    b.user("rm out.pcapng bridge.pcapng").ok()?;
    net.stop()
}

#[test]
fn outbound_packets_of_the_gateway_network() -> Result<()> {
    outbound(FLAGS)
}

#[test]
fn outbound_packets_of_a_detached_namespace() -> Result<()> {
    outbound(&format!("{FLAGS} --detach-netns"))
}

#[test]
fn outbound_packets_of_slirp4netns() -> Result<()> {
    outbound(
        "--net=slirp4netns --port-driver=builtin --disable-host-loopback --copy-up=/etc --copy-up=/run",
    )
}
