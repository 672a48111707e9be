//! Overlay networks between two nodes of a swarm.

use tests::kit::{counter, number};
use tests::{Lan, PATIENCE, Result, Suite, ensure, wait};

use crate::swarm::{Hosts, Node, stop};

/// As much as each stream carries.
const BYTES: u64 = 100_000_000;

/// A network with a container on each of the nodes.
fn network(nodes: &[Node<'_>], name: &str, options: &str) -> Result<[String; 2]> {
    nodes[0].network(name, options)?;
    let names = [format!("{name}-one"), format!("{name}-two")];
    for (node, container) in nodes.iter().zip(&names) {
        node.container(container, name)?;
    }
    nodes[0].reaches(&names[0], &names[1])?;
    nodes[1].reaches(&names[1], &names[0])?;
    Ok(names)
}

/// Streams and datagrams from the container of one node to that of another.
fn carries(from: &Node<'_>, own: &str, to: &Node<'_>, other: &str, bytes: u64) -> Result<()> {
    let (client, server) = (from.address_of(own)?, to.address_of(other)?);
    for kind in ["sink", "source"] {
        let out = from.exec(own, &format!("fixture stream {server}:81 {kind} {bytes}"))?;
        ensure!(out.starts_with(&format!("{bytes} ok")), "{kind}: {out}");
    }
    let out = from.exec(own, &format!("fixture who udp {server}:81"))?;
    ensure!(out.rsplit(' ').next().is_some_and(|seen| seen.starts_with(&client)), "UDP: {out}");
    let out = from.exec(own, &format!("fixture churn {server}:81 2000 16"))?;
    ensure!(out == "0 lost", "datagrams: {out}");
    let out = from.exec(own, &format!("fixture get {other}:80"))?;
    ensure!(out == format!("page from {client}"), "by name: {out}");
    from.nothing_went_wrong(own)
}

fn serve(node: &Node<'_>, name: &str) -> Result<()> {
    for verb in ["streams 0.0.0.0:81", "udp-echo 0.0.0.0:81", "http 0.0.0.0:80 page"] {
        node.serve(name, verb)?;
    }
    Ok(())
}

/// Both ways, in a network with these options.
fn carries_both_ways(nodes: &[Node<'_>], name: &str, options: &str, bytes: u64) -> Result<()> {
    let names = network(nodes, name, options)?;
    for (node, name) in nodes.iter().zip(&names) {
        serve(node, name)?;
    }
    carries(&nodes[0], &names[0], &nodes[1], &names[1], bytes)?;
    carries(&nodes[1], &names[1], &nodes[0], &names[0], bytes)
}

/// A container of an overlay still has its way out.
fn has_a_way_out(node: &Node<'_>, name: &str) -> Result<()> {
    let said = node.exec(name, "fixture get peer.test:7000")?;
    ensure!(said == "peer from 10.77.0.1", "{said}");
    Ok(())
}

#[test]
fn containers_of_two_nodes_reach_each_other_by_name() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid])?;
    let nodes = hosts.swarm(1, 1)?;
    carries_both_ways(&nodes, "usual", "", BYTES)?;
    has_a_way_out(&nodes[1], "usual-two")?;
    // The addresses of the gateway's own network.
    carries_both_ways(&nodes, "same", "--subnet 10.0.2.0/24", BYTES / 10)?;
    has_a_way_out(&nodes[1], "same-two")?;
    stop(nodes)
}

#[test]
fn connections_of_an_overlay_outlive_the_gateway_processes() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid])?;
    let nodes = hosts.swarm(1, 1)?;
    let names = network(&nodes, "net", "")?;
    serve(&nodes[1], &names[1])?;
    let server = nodes[1].address_of(&names[1])?;
    let stream = |bytes: u64| {
        let command = format!("docker exec {} fixture stream {server}:81 echo {bytes}", names[0]);
        nodes[0].b.user(&command).limit(120)
    };
    let streams = [stream(300_000_000).spawn()?, stream(300_000_000).spawn()?];
    let sent = || -> Result<u64> { Ok(number(&nodes[0].data_path()?, &["bytesIn"])) };
    for node in &nodes {
        let before = sent()?;
        wait::until_true("the streams are under way", PATIENCE, || {
            Ok(sent()? > before + 10_000_000)
        })?;
        let gateway = node.b.process("rootlesskit-gateway")?;
        node.b.signal(gateway.pid, "KILL")?;
        wait::until_true("there is another gateway process", PATIENCE, || {
            Ok(node.b.process("rootlesskit-gateway").is_ok_and(|new| new.pid != gateway.pid))
        })?;
    }
    for stream in streams {
        let out = stream.wait(2 * PATIENCE)?.ok()?;
        ensure!(out.starts_with("300000000 ok"), "{out}");
    }
    stop(nodes)
}

#[test]
fn a_node_that_was_cut_off_comes_back() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid])?;
    let nodes = hosts.swarm(1, 1)?;
    let names = network(&nodes, "net", "")?;
    serve(&nodes[1], &names[1])?;
    let server = nodes[1].address_of(&names[1])?;
    let command = format!("docker exec {} fixture stream {server}:81 echo 300000000", names[0]);
    let stream = nodes[0].b.user(&command).limit(120).spawn()?;
    let received = || -> Result<u64> { Ok(number(&nodes[0].data_path()?, &["bytesIn"])) };
    wait::until_true("the stream is under way", PATIENCE, || Ok(received()? > 10_000_000))?;
    hosts.lan.cut_off(nodes[1].b)?;
    wait::until_true("the node is missed", PATIENCE, || {
        Ok(nodes[0].states()?.iter().any(|state| state.starts_with("Down")))
    })?;
    hosts.lan.bring_back(nodes[1].b)?;
    nodes[0].await_ready(2)?;
    nodes[0].reaches(&names[0], &names[1])?;
    nodes[1].reaches(&names[1], &names[0])?;
    let out = stream.wait(2 * PATIENCE)?.ok()?;
    ensure!(out.starts_with("300000000 ok"), "{out}");
    stop(nodes)
}

#[test]
fn hosts_whose_network_has_a_small_mtu_are_nodes() -> Result<()> {
    let hosts = Hosts::on(Lan::with_mtu(1400)?, &[Suite::Sid, Suite::Sid])?;
    let nodes = hosts.swarm(1, 1)?;
    // The option is about the network of the hosts. With it, the datagrams fit. Without it, the hosts cut them.
    let cut = || -> Result<Option<u64>> {
        Ok(counter(&hosts.boxes[0].root("cat /proc/net/snmp").ok()?, "Ip", "FragCreates"))
    };
    carries_both_ways(&nodes, "fit", "--opt com.docker.network.driver.mtu=1400", BYTES / 10)?;
    ensure!(cut()? == Some(0), "{:?} packets are cut", cut()?);
    carries_both_ways(&nodes, "usual", "", BYTES / 10)?;
    ensure!(cut()? > Some(0), "nothing is cut");
    stop(nodes)
}

#[test]
fn docker_26_and_docker_28_are_nodes_of_one_swarm() -> Result<()> {
    for suites in [[Suite::Sid, Suite::Trixie], [Suite::Trixie, Suite::Sid]] {
        let hosts = Hosts::boot(&suites)?;
        let nodes = hosts.swarm(1, 1)?;
        carries_both_ways(&nodes, "net", "", BYTES / 10)?;
        stop(nodes)?;
    }
    Ok(())
}

#[test]
fn nodes_reach_each_other_over_ipv6() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid])?.six();
    let nodes = hosts.swarm(1, 1)?;
    carries_both_ways(&nodes, "net", "", BYTES)?;
    stop(nodes)
}

#[test]
fn overlays_can_have_another_port() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid])?.data_path_port(5789);
    let nodes = hosts.swarm(1, 1)?;
    carries_both_ways(&nodes, "net", "", BYTES / 10)?;
    let stats = nodes[0].port("5789/udp")?.unwrap_or_default();
    ensure!(number(&stats, &["bytesIn"]) > BYTES / 5, "{stats}");
    stop(nodes)
}
