//! A policy that allows nothing but what the nodes themselves exchange.

use tests::containers::PEER;
use tests::egress::{FILE, write};
use tests::{Result, Suite, ensure};

use crate::swarm::{Hosts, stop};

const POLICY: &str = r#"
default = "deny"

[[rule]]
name = "nodes"
action = "allow"
from = { daemon = true }
to = ["10.78.0.1", "10.78.0.2"]
"#;

#[test]
fn nodes_are_allowed_to_a_policy_as_what_is_in_no_container() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Trixie])?;
    for b in &hosts.boxes {
        write(b, FILE, POLICY)?;
    }
    let nodes = hosts.swarm(1, 1)?;
    nodes[0].network("net", "")?;
    for (node, name) in nodes.iter().zip(["one", "two"]) {
        node.container(name, "net")?;
    }
    for (node, own, other) in [(&nodes[0], "one", "two"), (&nodes[1], "two", "one")] {
        node.reaches(own, other)?;
        let out = node.b.user(&format!("docker exec {own} fixture get {PEER}:7000")).run()?;
        ensure!(out.code != 0 && out.stderr.contains("No route to host"), "{out}");
    }
    stop(nodes)
}
