//! Nodes that joined in a way that cannot work.

use tests::{Result, Suite, ensure};

use crate::swarm::{Hosts, stop};

#[test]
fn check_names_a_node_that_joined_without_its_address() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid; 2])?;
    let nodes = hosts.nodes(2)?;
    let [first, second] = &nodes[..] else { unreachable!("two nodes were asked for") };
    first.run("swarm init")?;
    let check = || {
        let value = format!("{},peers=10.78.0.0/24", second.address);
        let check = second.b.user("dockerd-rootless-setuptool.sh check --json");
        let found = check.env("DOCKERD_ROOTLESS_SWARM", &value).run()?.stdout;
        ensure!(found.contains("\"swarm-limits\""), "{found}");
        Ok(found)
    };
    let token = first.run("swarm join-token -q worker")?;
    let join = |options: &str| {
        second.run(&format!("swarm join {options} --token {token} {}:2377", first.address))
    };
    join("")?;
    first.await_ready(2)?;
    let found = check()?;
    // A dockerd on the host's network finds the address of the host by itself.
    let named = found.contains("\"swarm-advertise\"");
    ensure!(named != second.detached()?, "{found}");
    ensure!(!named || found.contains("--advertise-addr 10.78.0.2"), "{found}");

    second.run("swarm leave")?;
    let found = check()?;
    ensure!(!found.contains("swarm-advertise"), "{found}");
    join(&format!("--advertise-addr {}", second.address))?;
    let found = check()?;
    ensure!(!found.contains("swarm-advertise"), "{found}");
    stop(nodes)
}
