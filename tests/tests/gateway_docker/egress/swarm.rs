//! Tasks of a swarm, which leave through a bridge that is none of their networks, and get new containers all the time.

use tests::docker::Docker;
use tests::egress::{self, FILE, write};
use tests::kit::events;
use tests::{Context as _, PATIENCE, Result, Suite, ensure, wait};

use super::{HAMMER, World, follow};
use crate::support::{FIXTURE, HOST, bare_debian, rootlessctl};

/// By name, label and network, and one that is for all tasks.
const POLICY: &str = r#"
[[rule]]
name = "by name"
action = "deny"
from = { container = "web.*" }
to = "10.77.0.11"

[[rule]]
name = "by label"
action = "deny"
from = { label = "com.docker.swarm.service.name=web" }
to = "10.77.0.12"

[[rule]]
name = "by network"
action = "deny"
from = { network = "back" }
to = "10.77.0.13"

[[rule]]
name = "all tasks"
action = "deny"
from = { network = "docker_gwbridge" }
to = "10.77.0.21"
"#;

/// Nothing but this is open.
const CLOSED: &str = r#"
default = "deny"

[[rule]]
name = "open to one service"
action = "allow"
from = { container = "web.*" }
to = "10.77.0.11"

[[rule]]
name = "open to one network"
action = "allow"
from = { network = "back" }
to = "10.77.0.12"
"#;

/// What is denied to the tasks of `web`, which are in the network `back`, and by which rule.
const DENIED: [(&str, &str); 5] = [
    ("tcp/10.77.0.11:7000", "by name"),
    ("udp/10.77.0.11:7011", "by name"),
    ("tcp/10.77.0.12:7000", "by label"),
    ("tcp/10.77.0.13:7000", "by network"),
    ("tcp/10.77.0.21:7000", "all tasks"),
];
/// What is open to all.
const OPEN: &str = "tcp/10.77.0.22:7000";

/// A container of a task.
#[derive(Clone, Debug)]
struct Task {
    name: String,
    /// In the bridge.
    address: String,
}

impl World<'_> {
    fn service(&self, name: &str, network: &str, command: &str) -> Result<()> {
        let folders = ["/usr", "/lib", "/lib64"]
            .map(|dir| format!("--mount type=bind,source={dir},target={dir},readonly "))
            .concat();
        let kind = "--replicas 0 --endpoint-mode dnsrr --no-resolve-image --stop-signal KILL";
        let path = "-e PATH=/usr/local/bin:/bin";
        let options = format!("--name {name} --network {network} {kind} {folders} {path}");
        self.d.run(&format!("service create -d {options} bb {command}")).map(drop)
    }

    /// Has a service run as many tasks.
    fn scale(&self, service: &str, count: usize) -> Result<Vec<Task>> {
        self.d.run(&format!("service scale -d {service}={count}"))?;
        let filters = "--filter status=running --filter label=com.docker.swarm.service.name=";
        let list =
            format!("ps --no-trunc --format '{{{{.ID}}}} {{{{.Names}}}}' {filters}{service}");
        let mut tasks = Vec::new();
        wait::until_true(&format!("{service} has {count} tasks"), PATIENCE, || {
            tasks = self.d.run(&list)?.lines().map(str::to_owned).collect();
            Ok(tasks.len() == count)
        })
        .with_context(|| {
            self.d.run(&format!("service ps --no-trunc {service}")).unwrap_or_default()
        })?;
        let task = |line: &String| -> Result<Task> {
            let (id, name) = line.split_once(' ').context(line.clone())?;
            let path = format!("{{{{(index .Containers \"{id}\").IPv4Address}}}}");
            let address = self.d.run(&format!("network inspect -f '{path}' docker_gwbridge"))?;
            let (address, _) = address.split_once('/').context(address.clone())?;
            Ok(Task { name: name.to_owned(), address: address.to_owned() })
        };
        tasks.iter().map(task).collect()
    }

    /// A task of `web` may not do what the rules deny, and `policy test` and the flow log agree.
    fn is_web(&self, task: &Task) -> Result<()> {
        let follower = follow(self.b)?;
        self.becomes(&task.name, OPEN, "open")?;
        self.expect(&task.name, &DENIED.map(|(target, _)| (target, "denied")))?;
        for (target, rule) in DENIED {
            let out = self.tested(&task.name, target)?;
            ensure!(out.code == 1 && out.stdout.contains(&format!("{rule:?}")), "{target}: {out}");
            wait::until_true(&format!("the line of {target}"), PATIENCE, || {
                Ok(events(&follower)?
                    .iter()
                    .any(|event| event["container"] == *task.name && event["rule"] == rule))
            })
            .with_context(|| follower.printed().unwrap_or_default())?;
        }
        self.is_counted(task)
    }

    /// A task of `api`, which is in the network `front`.
    fn is_api(&self, task: &Task) -> Result<()> {
        self.becomes(&task.name, DENIED[0].0, "open")?;
        self.expect(
            &task.name,
            &DENIED.map(|(target, rule)| {
                (target, if rule == "all tasks" { "denied" } else { "open" })
            }),
        )?;
        self.is_counted(task)
    }

    /// People see its name.
    fn is_counted(&self, task: &Task) -> Result<()> {
        let table = rootlessctl(self.b, "stats --by container")?;
        let found = table.lines().any(|line| {
            line.split_whitespace().take(4).eq([&*task.name, "docker_gwbridge", "tcp", "out"])
        });
        ensure!(found, "{task:?}: {table}");
        Ok(())
    }
}

fn tasks(suite: Suite) -> Result<()> {
    let b = bare_debian(suite)?;
    // The registry that is asked for the image of each task cannot be reached, which the node hears at once.
    b.root("ip route add unreachable 10.9.8.7").ok()?;
    let _servers = egress::serve(&b)?;
    write(&b, FILE, POLICY)?;
    let node = format!("{HOST},peers={HOST}");
    let w = World { b: &b, d: Docker::start(&b, &[("DOCKERD_ROOTLESS_SWARM", &node)])? };
    w.d.import()?;
    // By default, the second network would be 10.0.2.0/24, which is the gateway's.
    w.d.run("swarm init --default-addr-pool 10.20.0.0/16")?;
    w.d.run(
        "network create -d overlay back && docker network create -d overlay --attachable front",
    )?;
    w.d.run(&format!("run -d --name page -p 8080:80 {FIXTURE} bb fixture http 0.0.0.0:80 page"))?;
    // One tries what it may not from its first moment on, the other one does nothing.
    w.service("web", "back", HAMMER)?;
    w.service("api", "front", "sleep 3600")?;

    let (web, api) = (w.scale("web", 1)?, w.scale("api", 1)?);
    let ([web], [api]) = (&web[..], &api[..]) else { unreachable!("one task each") };
    w.is_web(web)?;
    w.is_api(api)?;
    w.never_let_through(&web.name)?;
    let file = "capture --max-packets 2 --max-time 60 --host 10.77.0.11 -w /tmp/task.pcapng";
    let said = rootlessctl(&b, &format!("{file} --container {} 2>&1", web.name))?;
    ensure!(said.contains("--max-packets"), "{said}");

    // Their containers go, and each address goes to a task of the other one.
    w.scale("web", 0)?;
    w.scale("api", 0)?;
    let (new_api, new_web) = (w.scale("api", 1)?, w.scale("web", 1)?);
    let ([new_web], [new_api]) = (&new_web[..], &new_api[..]) else {
        unreachable!("one task each")
    };
    ensure!(new_web.name != web.name && new_web.address == api.address, "{web:?}, {new_web:?}");
    ensure!(new_api.name != api.name && new_api.address == web.address, "{api:?}, {new_api:?}");
    w.is_web(new_web)?;
    w.is_api(new_api)?;
    w.never_let_through(&new_web.name)?;

    // A container that joins an overlay network is one of its members like the tasks.
    w.run("plain", "--network front", "")?;
    w.becomes("plain", DENIED[0].0, "open")?;
    w.expect("plain", &[("tcp/10.77.0.21:7000", "denied")])?;

    write(&b, FILE, CLOSED)?;
    w.becomes(&new_web.name, "tcp/10.77.0.11:7000", "open")?;
    w.expect(&new_web.name, &[("tcp/10.77.0.12:7000", "open"), (OPEN, "denied")])?;
    for name in [&*new_api.name, "plain"] {
        w.expect(
            name,
            &["11", "12", "22"]
                .map(|n| format!("tcp/10.77.0.{n}:7000"))
                .each_ref()
                .map(|t| (&**t, "denied")),
        )?;
    }
    w.d.run("rm -f plain page && docker swarm leave --force")?;
    w.d.stop()
}

#[test]
fn egress_rules_follow_the_tasks_of_a_swarm_with_docker_26_1() -> Result<()> {
    tasks(Suite::Trixie)
}

#[test]
fn egress_rules_follow_the_tasks_of_a_swarm_with_docker_28_5() -> Result<()> {
    tasks(Suite::Sid)
}
