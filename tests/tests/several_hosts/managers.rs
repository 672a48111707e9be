//! Managers of a swarm are stopped and started again.

use tests::{PATIENCE, Result, Suite, ensure, wait};

use crate::swarm::{Hosts, Node, stop};

/// Waits until each of the tasks of the service can be reached from each container.
fn all_tasks_answer(nodes: &[Node<'_>]) -> Result<()> {
    for node in nodes {
        wait::until_true("the node has its task", PATIENCE, || Ok(!task(node)?.is_empty()))?;
        wait::until_true("tasks answer", PATIENCE, || {
            let task = task(node)?;
            let found = node.exec(&task, "nslookup tasks.web").unwrap_or_default();
            let all: Vec<_> = found.lines().filter_map(|l| l.strip_prefix("Address: ")).collect();
            let answers = |address: &&&str| {
                node.exec(&task, &format!("fixture get {address}:80"))
                    .is_ok_and(|s| s.starts_with("page from"))
            };
            Ok(all.len() == nodes.len() && all.iter().filter(answers).count() == nodes.len())
        })?;
    }
    Ok(())
}

/// The container of the service on a node.
fn task(node: &Node<'_>) -> Result<String> {
    node.run("ps -q --filter status=running --filter label=com.docker.swarm.service.name=web")
}

#[test]
fn a_swarm_outlives_restarts_of_its_managers() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid, Suite::Sid])?;
    let mut nodes = hosts.swarm(3, 0)?;
    nodes[0].network("net", "")?;
    nodes[0].service("web", "--network net", "http 0.0.0.0:80 page")?;
    all_tasks_answer(&nodes)?;
    // The leader.
    nodes.remove(0).stop()?;
    wait::until_true("another manager leads", PATIENCE, || {
        Ok(nodes[0].states().is_ok_and(|all| all.contains(&"Ready Leader".to_owned())))
    })?;
    nodes.insert(0, hosts.node(0)?);
    nodes[1].await_ready(3)?;
    all_tasks_answer(&nodes)?;
    // All of them.
    stop(nodes)?;
    let nodes = hosts.nodes(3)?;
    nodes[0].await_ready(3)?;
    all_tasks_answer(&nodes)?;
    let states = nodes[1].states()?;
    ensure!(states.iter().all(|s| s == "Ready Leader" || s == "Ready Reachable"), "{states:?}");
    stop(nodes)
}
