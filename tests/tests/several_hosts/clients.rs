//! Who may send to a node, and whom the servers of its services see.

use tests::kit::{counter, number};
use tests::{PATIENCE, Result, Suite, ensure, wait};

use crate::swarm::{Hosts, Node, stop};

/// An address of the third host that no node has as a peer.
const STRANGER: &str = "10.78.0.66";

#[test]
fn the_servers_of_a_service_see_the_addresses_of_their_clients() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid, Suite::Sid])?;
    let nodes = hosts.swarm(1, 1)?;
    nodes[0].network("net", "")?;
    let options = "--network net --publish mode=host,published=8080,target=80";
    nodes[0].service("web", options, "http 0.0.0.0:80 page")?;
    for node in &nodes {
        let get = format!("fixture get {}:8080", node.address);
        wait::until_true("the task serves", PATIENCE, || {
            Ok(hosts.boxes[2].root(&get).run()?.stdout == "page from 10.78.0.3\n")
        })?;
    }
    // In the network, the name stands for both tasks.
    nodes[1].container("client", "net")?;
    let own = nodes[1].address_of("client")?;
    let found = nodes[1].exec("client", "nslookup tasks.web")?;
    let tasks: Vec<_> = found.lines().filter_map(|line| line.strip_prefix("Address: ")).collect();
    ensure!(tasks.len() == 2, "{found}");
    for task in tasks {
        let said = nodes[1].exec("client", &format!("fixture get {task}:80"))?;
        ensure!(said == format!("page from {own}"), "{task}: {said}");
    }
    stop(nodes)
}

/// How many pings a container got.
fn pings(node: &Node<'_>, name: &str) -> Result<Option<u64>> {
    Ok(counter(&node.exec(name, "cat /proc/net/snmp")?, "Icmp", "InEchos"))
}

#[test]
fn strangers_are_refused_and_counted() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid])?;
    let nodes = hosts.swarm(1, 0)?;
    let (node, stranger) = (&nodes[0], &hosts.boxes[1]);
    node.network("net", "")?;
    node.container("target", "net")?;
    let inspect = |what: &str, path: &str| node.run(&format!("{what} -f '{path}'"));
    let id = inspect(
        "network inspect net",
        "{{index .Options \"com.docker.network.driver.overlay.vxlanid_list\"}}",
    )?;
    let mac =
        inspect("inspect target", "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}")?;
    let (ip, subnet) = (
        node.address_of("target")?,
        inspect("network inspect net", "{{(index .IPAM.Config 0).Subnet}}")?,
    );
    stranger.root(&format!("ip address add {STRANGER}/24 dev lan0")).ok()?;
    // Knows everything about the network, and sends from this address.
    let intrude = |from: &str| {
        let script = format!(
            "ip link add vx0 type vxlan id {id} local {from} remote {} dstport 4789 && ip link set vx0 up &&
             ip route add {subnet} dev vx0 src 10.78.0.2 && ip neigh add {ip} lladdr {mac} dev vx0 || exit 99
             ping -c 3 -i 0.2 -W 1 {ip}; ip link del vx0",
            node.address
        );
        stranger.root(&script).run()
    };
    let out = intrude(STRANGER)?;
    ensure!(out.code == 0, "{out}");
    ensure!(pings(node, "target")? == Some(0), "a stranger is in the network");
    let stats = node.data_path()?;
    ensure!(number(&stats, &["refused"]) >= 3 && number(&stats, &["bytesIn"]) == 0, "{stats}");
    // The same from a peer, as the proof that only the address makes the difference.
    intrude("10.78.0.2")?;
    ensure!(pings(node, "target")? == Some(3), "a peer is not in the network");
    // The ports of managers and of gossip have the same list, unless dockerd itself listens on the host.
    for port in [2377, 7946] {
        let before = node.port(&format!("{port}/tcp"))?;
        ensure!(before.is_none() == node.detached()?, "published: {before:?}");
        let Some(before) = before else { continue };
        let command = format!("socat -u TCP:{}:{port},bind={STRANGER} -", node.address);
        let said = stranger.root(&command).fails_with(1)?;
        ensure!(said.contains("reset by peer"), "{port}: {said}");
        let after = node.port(&format!("{port}/tcp"))?.unwrap_or_default();
        let counted = number(&after, &["refused"]) - number(&before, &["refused"]);
        ensure!(counted == 1, "{after}");
    }
    stop(nodes)
}
