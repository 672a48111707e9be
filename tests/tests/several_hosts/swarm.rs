//! Hosts on one network, and a Docker swarm of their daemons.

use serde_json::Value;
use tests::containers::{FIXTURE, rootlessctl, state_dir};
use tests::docker::Docker;
use tests::kit::number;
use tests::{Context as _, Error, Lan, PATIENCE, Result, Suite, TestBox, ensure, kit, wait};

/// Boxes on one network, with the addresses 10.78.0.1 and fd78::1 and so on.
pub(crate) struct Hosts {
    pub(crate) lan: Lan,
    pub(crate) boxes: Vec<TestBox>,
    /// What the addresses of the nodes begin with.
    prefix: &'static str,
    /// The port of the overlay networks, unless it is the usual one.
    data_path_port: Option<u16>,
}

impl Hosts {
    pub(crate) fn boot(suites: &[Suite]) -> Result<Self> {
        Self::on(Lan::new()?, suites)
    }

    pub(crate) fn on(lan: Lan, suites: &[Suite]) -> Result<Self> {
        let mut boxes = Vec::new();
        for (index, suite) in suites.iter().enumerate() {
            let (b, number) = (TestBox::boot(*suite)?, index + 1);
            lan.join(&b, &[&format!("10.78.0.{number}/24"), &format!("fd78::{number}/64")])?;
            // A node asks the registry for the image of each task first. Here it hears at once that there is none.
            b.root("ip route add unreachable 10.9.8.7").ok()?;
            boxes.push(b);
        }
        Ok(Self { lan, boxes, prefix: "10.78.0.", data_path_port: None })
    }

    /// The nodes have the IPv6 addresses.
    pub(crate) fn six(self) -> Self {
        Self { prefix: "fd78::", ..self }
    }

    /// The overlay networks have this port.
    pub(crate) fn data_path_port(self, port: u16) -> Self {
        Self { data_path_port: Some(port), ..self }
    }

    /// Starts the daemon of a host. All hosts are its peers.
    pub(crate) fn node(&self, index: usize) -> Result<Node<'_>> {
        let address = |index| format!("{}{}", self.prefix, index + 1);
        let peers: Vec<_> = (0..self.boxes.len()).map(address).collect();
        let (b, address) = (&self.boxes[index], address(index));
        let mut swarm = format!("{address},peers={}", peers.join("+"));
        if let Some(port) = self.data_path_port {
            swarm.push_str(&format!(",data-path-port={port}"));
        }
        let d = Docker::start(b, &[("DOCKERD_ROOTLESS_SWARM", &swarm)])?;
        Ok(Node { b, d, address })
    }

    /// The daemons of the first hosts. They start together: one that was a manager waits for the others.
    pub(crate) fn nodes(&self, count: usize) -> Result<Vec<Node<'_>>> {
        std::thread::scope(|scope| {
            let start = |index| scope.spawn(move || self.node(index));
            let all: Vec<_> = (0..count).map(start).collect();
            all.into_iter()
                .map(|thread| thread.join().map_err(|_| Error::msg("a thread panicked"))?)
                .collect()
        })
    }

    /// A swarm of as many managers and workers, each on a host of its own, with the image `bb`.
    pub(crate) fn swarm(&self, managers: usize, workers: usize) -> Result<Vec<Node<'_>>> {
        let nodes = self.nodes(managers + workers)?;
        for (index, node) in nodes.iter().enumerate() {
            node.d.import()?;
            if index == 0 {
                let port = self.data_path_port.map(|port| format!(" --data-path-port {port}"));
                node.run(&format!("swarm init{}", port.unwrap_or_default()))?;
            } else {
                node.join(&nodes[0], if index < managers { "manager" } else { "worker" })?;
            }
        }
        nodes[0].await_ready(nodes.len())?;
        Ok(nodes)
    }
}

/// Stops all daemons.
pub(crate) fn stop(nodes: Vec<Node<'_>>) -> Result<()> {
    nodes.into_iter().try_for_each(Node::stop)
}

/// A daemon that is prepared to be a node of a swarm.
pub(crate) struct Node<'b> {
    pub(crate) b: &'b TestBox,
    pub(crate) d: Docker<'b>,
    pub(crate) address: String,
}

impl<'b> Node<'b> {
    /// What `docker ARGS` prints.
    pub(crate) fn run(&self, args: &str) -> Result<String> {
        Ok(self.d.run(args)?.trim().to_owned())
    }

    /// A daemon that joins does not look at its default for `--advertise-addr`.
    fn join(&self, manager: &Self, role: &str) -> Result<()> {
        let token = manager.run(&format!("swarm join-token -q {role}"))?;
        let own = &self.address;
        let to = match &manager.address {
            six if six.contains(':') => format!("[{six}]:2377"),
            four => format!("{four}:2377"),
        };
        self.run(&format!("swarm join --advertise-addr {own} --token {token} {to}")).map(drop)
    }

    /// What this manager says about all nodes: `Ready` or `Down`, and `Leader`, `Reachable` or nothing.
    pub(crate) fn states(&self) -> Result<Vec<String>> {
        let all = self.run("node ls --format '{{.Status}} {{.ManagerStatus}}'")?;
        Ok(all.lines().map(|line| line.trim().to_owned()).collect())
    }

    pub(crate) fn await_ready(&self, count: usize) -> Result<()> {
        let mut last = None;
        let ready = wait::until_true("nodes are ready", PATIENCE, || {
            // A manager that has no leader, for a moment.
            let states = self.states();
            let ready = states.as_ref().is_ok_and(|all| {
                all.iter().filter(|state| state.starts_with("Ready")).count() == count
            });
            last = Some(states);
            Ok(ready)
        });
        ready.with_context(|| format!("at last: {last:?}"))
    }

    /// Creates a network for containers and services of all nodes.
    pub(crate) fn network(&self, name: &str, options: &str) -> Result<()> {
        self.run(&format!("network create -d overlay --attachable {options} {name}")).map(drop)
    }

    /// Starts a container that does nothing by itself.
    pub(crate) fn container(&self, name: &str, network: &str) -> Result<()> {
        let options = format!("--network {network} --stop-signal KILL {FIXTURE}");
        self.run(&format!("run -d --name {name} {options} bb sleep 1000000")).map(drop)
    }

    /// Runs a command in a container.
    pub(crate) fn exec(&self, name: &str, command: &str) -> Result<String> {
        self.run(&format!("exec {name} {command}"))
    }

    /// Starts a server in a container.
    pub(crate) fn serve(&self, name: &str, verb: &str) -> Result<()> {
        let log = format!("/tmp/{}", verb.split(' ').next().unwrap_or_default());
        self.run(&format!("exec -d {name} sh -c 'exec fixture {verb} >{log}'"))?;
        wait::until_true(&format!("{verb} in {name}"), PATIENCE, || {
            Ok(self.exec(name, &format!("cat {log}")).is_ok_and(|said| said == "ready"))
        })
    }

    /// The address of a container in its network.
    pub(crate) fn address_of(&self, name: &str) -> Result<String> {
        let path = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.run(&format!("inspect -f '{path}' {name}"))
    }

    /// A service with a task on each node, whose name stands for the addresses of all tasks.
    pub(crate) fn service(&self, name: &str, options: &str, verb: &str) -> Result<()> {
        let kind = "--mode global --endpoint-mode dnsrr --no-resolve-image --stop-signal KILL";
        let folders = ["/usr", "/lib", "/lib64"]
            .map(|dir| format!("--mount type=bind,source={dir},target={dir},readonly "))
            .concat();
        let program = "-e PATH=/usr/local/bin:/bin bb fixture";
        self.run(&format!(
            "service create -d --name {name} {kind} {options} {folders} {program} {verb}"
        ))
        .map(drop)
    }

    /// Waits until a container reaches another one by its name.
    pub(crate) fn reaches(&self, name: &str, other: &str) -> Result<()> {
        let mut last = None;
        let reached = wait::until_true(&format!("{name} reaches {other}"), PATIENCE, || {
            last = Some(self.exec(name, &format!("ping -c 1 -W 1 {other}")));
            Ok(last.as_ref().is_some_and(Result::is_ok))
        });
        reached.with_context(|| format!("at last: {last:?}"))
    }

    pub(crate) fn stats(&self) -> Result<Value> {
        Ok(serde_json::from_str(&rootlessctl(self.b, "stats --json")?)?)
    }

    /// The statistics of a published port such as `2377/tcp`.
    pub(crate) fn port(&self, name: &str) -> Result<Option<Value>> {
        let stats = self.stats()?;
        let mut ports = stats["ports"].as_array().into_iter().flatten();
        let found = ports
            .find(|port| port["port"].as_str().is_some_and(|p| p.contains(&format!(":{name}"))));
        Ok(found.cloned())
    }

    /// Those of the port of the overlay networks.
    pub(crate) fn data_path(&self) -> Result<Value> {
        self.port("4789/udp")?.context("the port of overlay networks is not published")
    }

    /// Whether dockerd itself is on the host's network.
    pub(crate) fn detached(&self) -> Result<bool> {
        Ok(self.b.exists(&format!("{}/netns", state_dir(self.b)?)))
    }

    /// Every checksum in a container was right, and no flow had to go.
    pub(crate) fn nothing_went_wrong(&self, container: &str) -> Result<()> {
        let counters = self.exec(container, "cat /proc/net/snmp")?;
        ensure!(kit::wrong_checksums(&counters) == 0, "{counters}");
        let stats = self.stats()?;
        ensure!(number(&stats, &["events", "evicted"]) == 0, "{stats}");
        Ok(())
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.d.stop()?;
        self.b.assert_no_processes()
    }
}
