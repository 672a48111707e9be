//! The egress policy with Docker's containers: rules by name, label and network follow containers wherever they go.

mod files;
mod swarm;
mod table;

use serde_json::Value;
use tests::docker::Docker;
use tests::egress::{self, FILE, ZONE, goes_on, matched, write};
use tests::kit::events;
use tests::{
    As, Cmd, Context as _, Output, PATIENCE, Result, Running, Suite, TestBox, ensure, wait,
};

use crate::support::{
    FIXTURE, HOST, PEER, bare_debian, drivers, peer_serves, rootlessctl, state_dir,
};

use self::table::{POLICY, ROWS, Row, TARGETS};

/// A daemon and the box that it runs in.
struct World<'b> {
    b: &'b TestBox,
    d: Docker<'b>,
}

impl<'b> World<'b> {
    /// Starts a container that does nothing, unless there is something that it does.
    fn run(&self, name: &str, options: &str, what: &str) -> Result<()> {
        let what = if what.is_empty() { "sleep 3600" } else { what };
        self.d
            .run(&format!("run -d --stop-signal KILL --name {name} {options} {FIXTURE} bb {what}"))
            .map(drop)
    }

    fn inspect(&self, name: &str, what: &str) -> Result<String> {
        Ok(self.d.run(&format!("inspect -f '{what}' {name}"))?.trim().to_owned())
    }

    /// Makes shell lines programs of the box in the network of a container.
    fn enter(&self, name: &str) -> Result<impl Fn(&str) -> Cmd<'b> + use<'b>> {
        let (b, pid) = (self.b, self.inspect(name, "{{.State.Pid}}")?);
        Ok(move |line: &str| b.argv(As::Root, &["nsenter", "-t", &pid, "-n", "sh", "-c", line]))
    }

    /// Waits until a container may do something, which takes until Docker has told of it, and longer if it restarts.
    fn becomes(&self, name: &str, target: &str, outcome: &str) -> Result<()> {
        egress::becomes(|expected| self.expect(name, expected), target, outcome)
    }

    fn expect(&self, name: &str, expected: &[(&str, &str)]) -> Result<()> {
        egress::expect(self.enter(name)?, expected).with_context(|| name.to_owned())
    }

    /// Everything that a row says.
    fn row(&self, (name, _, denied): &Row) -> Result<()> {
        let is_denied = |target: &str| denied.iter().any(|(found, _)| *found == target);
        let outcome = |target| if is_denied(target) { "denied" } else { "open" };
        // An unknown address is denied what a rule denies to any container; this one shows that it is known.
        if let Some(open) = TARGETS.into_iter().rev().find(|target| !is_denied(target)) {
            self.becomes(name, open, "open")?;
        }
        self.expect(name, &TARGETS.map(|target| (target, outcome(target))))
    }

    /// What `policy test` says about an attempt, and its exit status.
    fn tested(&self, name: &str, target: &str) -> Result<Output> {
        let (protocol, to) = target.split_once('/').context("a protocol")?;
        let socket = format!("--socket={}/api.sock", state_dir(self.b)?);
        let args = format!("policy test --from {name} --to {to} --protocol {protocol}");
        self.b.user(&format!("rootlessctl {socket} {args}")).run()
    }

    fn show(&self) -> Result<Value> {
        Ok(serde_json::from_str(&rootlessctl(self.b, "policy show --json")?)?)
    }

    /// What it does on its standard output and error.
    fn logs(&self, name: &str) -> Result<String> {
        self.d.run(&format!("logs {name} 2>&1"))
    }

    /// Fails if something that goes on in a container was let through once.
    fn never_let_through(&self, name: &str) -> Result<()> {
        let logs = self.logs(name)?;
        let through =
            logs.lines().find(|line| line.contains("connected") || line.contains("answered"));
        ensure!(through.is_none(), "{name}: {through:?}");
        ensure!(logs.contains("EHOSTUNREACH"), "{name}: {logs}");
        Ok(())
    }
}

/// Tries what `tier=back` may not do for as long as the container lives.
const HAMMER: &str =
    "sh -c 'while :; do fixture probe 1 tcp/10.77.0.11:7000 udp/10.77.0.11:7011; done'";

fn follow<'b>(b: &'b TestBox) -> Result<Running<'b>> {
    let line =
        format!("exec rootlessctl --socket={}/api.sock flows --follow --json", state_dir(b)?);
    let follower = b.user(&line).spawn()?;
    wait::until_true("it follows", PATIENCE, || {
        rootlessctl(b, "stats")?;
        b.peer(&format!("fixture get {HOST}:8080")).ok()?;
        Ok(follower.printed()?.contains('\n'))
    })?;
    Ok(follower)
}

/// Each container may do what it may, `policy test` agrees, and the flow log has the rules.
fn rows(w: &World<'_>) -> Result<()> {
    let follower = follow(w.b)?;
    for row in ROWS {
        w.row(row)?;
    }
    for (name, _, denied) in ROWS {
        for target in TARGETS {
            let out = w.tested(name, target)?;
            match denied.iter().find(|(found, _)| *found == target) {
                Some((_, rule)) => ensure!(
                    out.code == 1 && out.stdout.contains(&format!("\"{rule}\"")),
                    "{name} {target}: {out}"
                ),
                None => ensure!(out.code == 0, "{name} {target}: {out}"),
            }
        }
        wait::until_true(&format!("the lines of {name}"), PATIENCE, || {
            let events = events(&follower)?;
            Ok(denied.iter().all(|(target, rule)| {
                events.iter().any(|event| {
                    event["container"] == *name
                        && event["end"] == "denied"
                        && event["rule"] == *rule
                        && target.contains(event["destination"]["ip"].as_str().unwrap_or("?"))
                        && target.starts_with(event["protocol"].as_str().unwrap_or("?"))
                })
            }))
        })
        .with_context(|| follower.printed().unwrap_or_default())?;
    }
    // Pings, and what is in no container.
    for (name, to, code) in
        [("back", "10.77.0.11", 1), ("free", "10.77.0.11", 0), ("free", "169.254.169.254", 1)]
    {
        let out = w.enter(name)?(&format!("ping -c 1 -W 30 {to}")).run()?;
        ensure!(out.code == code && (code == 0 || out.stdout.contains("Packet filtered")), "{out}");
    }
    let probe = format!(
        "run --rm --network=host {FIXTURE} bb fixture probe 60 tcp/10.77.0.12:7000 tcp/10.77.0.11:7000"
    );
    assert_eq!(egress::outcomes(&w.d.run(&probe)?)?, ["denied", "open"]);
    let show = w.show()?;
    for rule in ["metadata", "nothing else", "back", "datagrams of one", "back in one", "daemon"] {
        ensure!(matched(&show, rule)? > 0, "{rule}: {show}");
    }
    Ok(())
}

/// Names, through the gateway's name server and through the one that Docker gives to containers in other networks. Docker
/// 28 asks for these from the namespace, so that nobody can tell which one it was: what it has learnt counts for all.
fn names(w: &World<'_>, shared: bool) -> Result<()> {
    let get = |name: &str, host: &str| {
        w.b.user(&format!("docker exec {name} fixture get {host}:7000")).run()
    };
    let (first, second) = ("tcp/10.77.0.21:7000", "tcp/10.77.0.22:7000");
    for (name, network) in [("shop2", "bridge"), ("shop3", "one"), ("shop4", "six")] {
        w.run(name, &format!("--network={network}"), "")?;
        write(w.b, ZONE, &format!("shop.test 10.77.0.21\nelse.test {PEER}\n"))?;
        w.expect(name, &[("tcp/10.77.0.13:7000", "denied")])?;
        wait::until_true(&format!("{name} gets the page"), PATIENCE, || {
            Ok(get(name, "shop.test")?.code == 0)
        })
        .with_context(|| format!("{:?}", get(name, "shop.test")))?;
        w.expect(
            name,
            &[(first, "open"), ("udp/10.77.0.21:7011", "open"), ("tcp/10.77.0.13:7000", "denied")],
        )?;
        let out = get(name, "else.test")?;
        ensure!(out.code != 0 && out.stderr.contains("No route to host"), "{out}");
        // The name moves.
        if !shared || name != "shop4" {
            w.expect(name, &[(second, "denied")])?;
        }
        write(w.b, ZONE, "shop.test 10.77.0.22\n")?;
        let out = get(name, "shop.test")?;
        ensure!(out.code == 0, "{name}: {out}");
        w.expect(name, &[(second, "open"), (first, "open")])?;
        // Others have not asked, and this one may not use the name.
        if !shared || name == "shop2" {
            w.expect("shop1", &[(first, "denied"), (second, "denied")])?;
        }
        w.d.run(&format!("rm -f {name}"))?;
    }
    Ok(())
}

/// Addresses go from container to container, and rules with the containers.
fn addresses(w: &World<'_>) -> Result<()> {
    let at = "--network=one --ip 172.28.0.77";
    let (probe, eleven) = ("fixture probe 60 tcp/10.77.0.11:7000", "tcp/10.77.0.11:7000");
    for round in 0..3 {
        w.run("plain", at, "")?;
        w.becomes("plain", eleven, "open")?;
        w.d.run("rm -f plain")?;
        // The first packet of each is its own, and waits until Docker lists whose it is.
        for (label, outcome) in [("tier=back", "denied"), ("tier=none", "open")] {
            let said = w.d.run(&format!("run --rm --label {label} {at} {FIXTURE} bb {probe}"))?;
            assert_eq!(egress::outcomes(&said)?, [outcome], "round {round}");
        }
    }
    // A name that is changed, a network that is left and joined.
    w.run("plain", "", "")?;
    w.becomes("plain", eleven, "open")?;
    w.d.run("rename plain shop9")?;
    w.becomes("shop9", eleven, "denied")?;
    w.d.run("rename shop9 plain")?;
    w.becomes("plain", eleven, "open")?;
    w.d.run("network connect one plain && docker network disconnect bridge plain")?;
    w.becomes("plain", "udp/10.77.0.12:7011", "denied")?;
    w.becomes("plain", "tcp/10.77.0.12:7000", "open")?;
    w.d.run("network disconnect one plain && docker network connect bridge plain")?;
    w.becomes("plain", "udp/10.77.0.12:7011", "open")?;
    w.d.run("rm -f plain").map(drop)
}

/// A change ends what one container may not do any more, and nothing of the others.
fn changes(w: &World<'_>) -> Result<()> {
    let mut ending = Vec::new();
    let mut staying = Vec::new();
    for name in ["free", "inner"] {
        let kept = if name == "free" { &mut ending } else { &mut staying };
        kept.push(egress::keep(w.enter(name)?, "tcp", "10.77.0.13:7010")?);
        kept.push(egress::keep(w.enter(name)?, "udp", "10.77.0.13:7011")?);
    }
    staying.push(egress::keep(w.enter("free")?, "tcp", &format!("{PEER}:7010"))?);
    let more = "[[rule]]\nname = 'free'\naction = 'deny'\nfrom = { container = 'free' }\nto = '10.77.0.13'\n";
    write(w.b, FILE, &format!("{POLICY}{more}"))?;
    for kept in ending {
        let out = kept.wait(PATIENCE)?;
        ensure!(out.stdout.contains("\nended E"), "{out}");
    }
    staying.iter_mut().try_for_each(goes_on)?;
    w.expect("free", &[("tcp/10.77.0.13:7000", "denied"), ("tcp/10.77.0.11:7000", "open")])?;
    w.expect("inner", &[("tcp/10.77.0.13:7000", "open")])?;

    // Nothing is refused in a dry run, and everything counts.
    write(w.b, FILE, &format!("mode = 'dry-run'\n{POLICY}"))?;
    for name in ["back", "shop1"] {
        w.becomes(name, "tcp/10.77.0.11:7000", "open")?;
    }
    let before = matched(&w.show()?, "back")?;
    w.expect("back", &[("tcp/10.77.0.11:7000", "open"), ("udp/10.77.0.11:7011", "open")])?;
    wait::until_true("it counts", PATIENCE, || Ok(matched(&w.show()?, "back")? >= before + 2))?;
    write(w.b, FILE, POLICY)?;
    w.becomes("back", "tcp/10.77.0.11:7000", "denied")
}

/// IPv6 out of a container.
fn six(w: &World<'_>) -> Result<()> {
    let (eleven, two) = ("tcp/[fd77::11]:7000", "tcp/[fd77::2]:7000");
    w.run("plain6", "--network=six", "")?;
    w.becomes("plain6", eleven, "open")?;
    w.expect("outer", &[(eleven, "denied"), ("udp/[fd77::11]:7011", "denied"), (two, "open")])?;
    let ping = w.enter("outer")?("ping -c 1 -W 30 fd77::11").run()?;
    ensure!(ping.code != 0 && ping.stdout.contains("prohibited"), "{ping}");
    w.enter("plain6")?("ping -c 1 -W 30 fd77::11").ok()?;
    w.run("shop6", "--network=six", "")?;
    w.becomes("shop6", eleven, "denied")?;
    write(w.b, ZONE, "shop.test fd77::11\n")?;
    wait::until_true("it gets the page", PATIENCE, || {
        Ok(w.b.user("docker exec shop6 fixture get shop.test:7000").run()?.code == 0)
    })?;
    w.expect("shop6", &[(eleven, "open"), (two, "denied")])?;
    w.d.run("rm -f plain6 shop6").map(drop)
}

/// IPv6 out of a container takes Docker 27 or later.
fn policy(suite: Suite, ipv6: bool) -> Result<()> {
    let b = bare_debian(suite)?;
    let _servers = egress::serve(&b)?;
    peer_serves(&b, &format!("udp-echo {PEER}:9000"))?;
    let _names = egress::name_server(&b, "")?;
    write(&b, FILE, POLICY)?;
    let flags = [("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--ipv6")];
    let mut w = World { b: &b, d: Docker::start(&b, &flags)? };
    drivers(&b, "gateway", "gateway")?;
    w.d.import()?;
    w.d.run("network create --subnet 172.28.0.0/16 one")?;
    w.d.run(&format!(
        "network create {} six",
        if ipv6 { "--ipv6 --subnet fd99::/64" } else { "" }
    ))?;
    for (name, options, _) in ROWS {
        w.run(name, options, "")?;
    }
    w.run("page", "-p 8080:80", "fixture http 0.0.0.0:80 page")?;
    w.run("hammer", "--network=one --label tier=back --restart=always", HAMMER)?;
    rows(&w)?;
    names(&w, suite == Suite::Sid)?;
    addresses(&w)?;
    if ipv6 {
        six(&w)?;
    }
    w.never_let_through("hammer")?;

    // Containers that restart, a gateway process that is replaced.
    w.d.run("restart -t 0 back shop1 hammer free")?;
    ROWS.iter().try_for_each(|row| w.row(row))?;
    b.signal(b.process("rootlesskit-gateway")?.pid, "KILL")?;
    wait::until_true("it is replaced", PATIENCE, || {
        Ok(rootlessctl(&b, "stats --json").is_ok_and(|stats| stats.contains("\"restarts\":1")))
    })?;
    ROWS.iter().try_for_each(|row| w.row(row))?;
    w.never_let_through("hammer")?;

    // Another daemon, with the containers that it starts by itself.
    w.d.stop()?;
    w.d = Docker::start(&b, &flags)?;
    wait::until_true("the containers run again", PATIENCE, || {
        Ok(["back", "hammer"].iter().all(|name| {
            w.enter(name).is_ok_and(|enter| enter("true").run().is_ok_and(|out| out.code == 0))
        }))
    })?;
    w.row(&ROWS[1])?;
    w.never_let_through("hammer")?;
    w.d.run("start free inner shop1")?;
    w.d.run("rm -f hammer")?;
    changes(&w)?;
    w.d.run(&format!("rm -f {}", w.d.run("ps -aq")?.replace('\n', " ")))?;
    w.d.stop()
}

#[test]
fn egress_rules_follow_containers_with_docker_26_1() -> Result<()> {
    policy(Suite::Trixie, false)
}

#[test]
fn egress_rules_follow_containers_with_docker_28_5() -> Result<()> {
    policy(Suite::Sid, true)
}
