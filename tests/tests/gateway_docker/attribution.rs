//! Which container has opened what, and which one answers: each connection, flow, ping and query is counted for the right
//! one, through restarts of containers and of the gateway.

use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tests::docker::Docker;
use tests::kit::number;
use tests::{As, Context as _, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::support::{HOST, PEER, bare, peer_serves, rootlessctl, serve, state_dir};

/// Two networks besides Docker's own; both have fixed addresses, the second one IPv6 as well.
const NETWORKS: [&str; 3] = ["bridge", "one", "six"];
const CONTAINERS: usize = 10;

/// What is counted for an address: TCP connections out, refused ones, datagrams of a byte out, echo requests, DNS queries,
/// TCP connections and UDP flows in. A crowd uses ports again after a while, and flows go on then.
type Counts = [u64; 7];

/// No port is used twice, except by a crowd. Nobody gets these by chance.
static PORT: AtomicU16 = AtomicU16::new(20_000);
/// From here on, all containers use the same ones at once.
const CROWDED_PORT: u16 = 22_000;

fn ports(count: u64) -> u16 {
    PORT.fetch_add(u16::try_from(count).unwrap_or(u16::MAX), Ordering::Relaxed)
}

struct Container {
    name: String,
    /// Its server is of datagrams.
    udp: bool,
    port: usize,
    pid: String,
    /// IPv4, and IPv6 if it has that.
    addresses: Vec<String>,
    counts: [Counts; 2],
}

/// Starts the container with this number; `place` decides on its address.
fn start(d: &Docker<'_>, ipv6: bool, n: usize, place: usize) -> Result<Container> {
    let (name, port, udp) = (format!("c{n}"), 9100 + n, n % 2 == 1);
    let network = NETWORKS[place % 3];
    let fixed = match network {
        "one" => format!("--ip 172.28.0.{}", 10 + place),
        "six" if ipv6 => format!("--ip 172.29.0.{0} --ip6 fd99::{0}", 10 + place),
        "six" => format!("--ip 172.29.0.{}", 10 + place),
        _ => String::new(),
    };
    let (publish, verb) = if udp {
        (format!("-p {port}:81/udp"), "udp-echo [::]:81")
    } else {
        (format!("-p {port}:80"), "http [::]:80 page")
    };
    serve(d, &name, &format!("--network {network} {fixed} {publish}"), verb)?;
    let inspect = |what: &str| d.run(&format!("inspect -f '{what}' {name}"));
    let all = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
    let addresses = inspect(all)?.split_whitespace().map(str::to_owned).collect();
    let pid = inspect("{{.State.Pid}}")?.trim().to_owned();
    Ok(Container { name, udp, port, pid, addresses, counts: Default::default() })
}

/// Everything that a container can do, as often as its number says, and somebody who asks it.
fn talk(b: &TestBox, n: usize, container: &mut Container) -> Result<()> {
    let (many, few) = (n as u64 + 1, n as u64 % 3 + 1);
    let six = container.addresses.len() > 1;
    let families: &[(&str, &str)] =
        if six { &[(PEER, HOST), ("[fd77::2]", "[fd77::1]")] } else { &[(PEER, HOST)] };
    for ((peer, host), counts) in families.iter().zip(&mut container.counts) {
        let bare = peer.trim_matches(['[', ']']);
        let any = if *bare == **peer { "0.0.0.0" } else { "[::]" };
        let out = format!(
            "set -e
             for i in $(seq {many}); do fixture get {peer}:7000; done
             for i in $(seq {few}); do ! fixture get {peer}:1; done
             fixture each {peer}:9000 {any}:{} {few}
             ping -c {few} -i 0.2 -W 60 {bare}
             for i in $(seq {many}); do dig +short @10.0.2.3 foo.test; done",
            ports(few)
        );
        b.argv(As::Root, &["nsenter", "-t", &container.pid, "-n", "sh", "-c", &out]).ok()?;
        let at = format!("{host}:{}", container.port);
        let ask = if container.udp {
            format!("fixture each {at} {any}:{} {many}", ports(many))
        } else {
            format!("set -e; for i in $(seq {many}); do fixture get {at}; done")
        };
        b.peer(&ask).ok()?;
        let (tcp, udp) = if container.udp { (0, many) } else { (many, 0) };
        for (count, more) in counts.iter_mut().zip([many, few, few, few, 0, tcp, udp]) {
            *count += more;
        }
        // The name server has an IPv4 address only.
    }
    container.counts[0][4] += many * families.len() as u64;
    Ok(())
}

fn counted(stats: &Value, ip: &str) -> Counts {
    let all = stats["containers"].as_array().into_iter().flatten();
    let one = all.into_iter().find(|one| one["ip"] == ip).cloned().unwrap_or_default();
    let paths = [
        &["tcp", "opened"][..],
        &["tcp", "failed"],
        &["udp", "bytesOut"],
        &["echoRequests"],
        &["dnsQueries"],
        &["publishedTcp", "opened"],
        &["publishedUdp", "opened"],
    ];
    paths.map(|path| number(&one, path))
}

/// Waits until everything is counted, for whom it should.
fn right(b: &TestBox, containers: &[Container]) -> Result<()> {
    let stats = || -> Result<Value> { Ok(serde_json::from_str(&rootlessctl(b, "stats --json")?)?) };
    let wrong = |stats: &Value| -> Vec<String> {
        let each = containers.iter().flat_map(|of| {
            of.addresses.iter().zip(of.counts).map(|(ip, counts)| (&of.name, ip, counts))
        });
        let wrong = each.filter(|(_, ip, counts)| counted(stats, ip) != *counts);
        wrong
            .map(|(name, ip, counts)| {
                format!("{name} {ip}: {:?}, not {counts:?}", counted(stats, ip))
            })
            .collect()
    };
    wait::until_true("everything is counted", PATIENCE, || Ok(wrong(&stats()?).is_empty()))
        .with_context(|| {
            stats().map_or_else(
                |e| e.to_string(),
                |stats| format!("{:#?}\n{}", wrong(&stats), stats["containers"]),
            )
        })?;
    // And nothing for anybody else.
    let stats = stats()?;
    let ours: Vec<&str> =
        containers.iter().flat_map(|of| &of.addresses).map(String::as_str).collect();
    for one in stats["containers"].as_array().into_iter().flatten() {
        let ip = one["ip"].as_str().unwrap_or_default();
        ensure!(ours.contains(&ip) || counted(&stats, ip) == Counts::default(), "{one}");
    }
    ensure!(number(&stats, &["events", "unattributed"]) == 0, "{stats}");
    Ok(())
}

/// People see names, if Docker can be asked.
fn named(b: &TestBox, containers: &[Container]) -> Result<()> {
    let ctl = |env: &str, args: &str| -> Result<String> {
        b.user(&format!("{env} rootlessctl --socket={}/api.sock stats {args}", state_dir(b)?)).ok()
    };
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let has = |text: &str, row: &[&str]| {
        text.lines().any(|line| {
            cells(line).starts_with(&row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>())
        })
    };
    let table = ctl("", "--by container")?;
    let metrics = ctl("", "--by container --openmetrics")?;
    for (n, container) in containers.iter().enumerate() {
        let (name, network) = (&*container.name, NETWORKS[n % 3]);
        ensure!(has(&table, &[name, network, "tcp", "out"]), "{name}: {table}");
        let kind = if container.udp { "udp" } else { "tcp" };
        ensure!(has(&table, &[name, network, kind, "published"]), "{name}: {table}");
        let (ip, opened) = (&container.addresses[0], container.counts[0][0]);
        let line = format!(
            "rootlesskit_container_opened_total{{ip=\"{ip}\",container=\"{name}\",network=\"{network}\",proto=\"tcp\"}} {opened}"
        );
        ensure!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
    }
    // The daemon next to the socket is asked, and no other. Elsewhere, the environment names one.
    ensure!(ctl("DOCKER_HOST=unix:///nothing", "--by container")?.contains("bridge"), "no names");
    let moved = format!("ln -sf {}/api.sock /tmp/api.sock", state_dir(b)?);
    b.user(&moved).ok()?;
    let other = |args: &str| {
        let stats = "rootlessctl --socket=/tmp/api.sock stats";
        b.user(&format!("DOCKER_HOST=unix:///nothing {stats} {args} 2>/dev/null")).ok()
    };
    let (table, json) = (other("--by container")?, other("--by container --json")?);
    let ip = &*containers[0].addresses[0];
    ensure!(has(&table, &[ip, "tcp", "out"]) && !table.contains("bridge"), "{table}");
    ensure!(json.contains(ip) && !json.contains("bridge"), "{json}");
    Ok(())
}

/// All containers at once, a thousand things each.
///
/// They use the same ports, one container at a time each: of two first datagrams that leave from one port at the same
/// moment, the masquerade drops one (`insert_failed` in `/proc/net/stat/nf_conntrack`), because it gives both the same new
/// source before either is known.
fn crowd(b: &TestBox, containers: &mut [Container]) -> Result<()> {
    const EACH: Counts = [600, 0, 300, 100, 0, 0, 0];
    let out = format!(
        "set -e
         for i in $(seq 300); do
             fixture get {PEER}:7000; fixture get {PEER}:7000
             port=$(({CROWDED_PORT} + i))
             flock /tmp/port-$port fixture each {PEER}:9000 0.0.0.0:$port 1
         done
         ping -q -c 100 -i 0.01 -W 60 {PEER}"
    );
    std::thread::scope(|scope| {
        let talks: Vec<_> = containers
            .iter()
            .map(|of| {
                let argv = ["nsenter", "-t", &of.pid, "-n", "sh", "-c", &out].map(str::to_owned);
                scope.spawn(move || {
                    b.argv(As::Root, &argv.each_ref().map(String::as_str)).ok().map(drop)
                })
            })
            .collect();
        talks.into_iter().try_for_each(|talk| match talk.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    for container in containers {
        for (count, more) in container.counts[0].iter_mut().zip(EACH) {
            *count += more;
        }
    }
    Ok(())
}

/// IPv6 out of a container takes Docker 27 or later.
fn attribution(suite: Suite, ipv6: bool) -> Result<()> {
    let b = bare(suite)?;
    peer_serves(&b, "udp-echo [::]:9000")?;
    let d = Docker::start(&b, &[("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--ipv6")])?;
    d.import()?;
    d.run("network create --subnet 172.28.0.0/16 one")?;
    let six = if ipv6 { "--ipv6 --subnet fd99::/64" } else { "" };
    d.run(&format!("network create --subnet 172.29.0.0/16 {six} six"))?;
    let mut containers =
        (0..CONTAINERS).map(|n| start(&d, ipv6, n, n)).collect::<Result<Vec<_>>>()?;
    for (n, container) in containers.iter_mut().enumerate() {
        talk(&b, n, container)?;
    }
    right(&b, &containers)?;

    named(&b, &containers)?;

    crowd(&b, &mut containers)?;
    right(&b, &containers)?;

    // Their addresses go to others, among these such as do something else.
    d.run("rm -f c1 c4 c2 c5")?;
    for (n, place) in [(1, 4), (4, 1), (2, 5), (5, 2)] {
        let before = std::mem::take(&mut containers[place].counts);
        let mut new = start(&d, ipv6, n, place)?;
        ensure!(new.addresses == containers[place].addresses, "{:?}", new.addresses);
        new.counts = before;
        talk(&b, n, &mut new)?;
        containers[place] = new;
    }
    right(&b, &containers)?;

    // Counters start anew with the gateway.
    let gateway = || b.process("rootlesskit-gateway");
    let old = gateway()?.pid;
    b.signal(old, "KILL")?;
    wait::until_true("it is replaced", PATIENCE, || {
        let stats = rootlessctl(&b, "stats --json");
        Ok(stats.is_ok_and(|stats| stats.contains("\"restarts\":1")))
    })?;
    for (n, container) in containers.iter_mut().enumerate() {
        container.counts = Default::default();
        talk(&b, n, container)?;
    }
    right(&b, &containers)?;
    ensure!(!d.log()?.contains("statistics per container"), "{}", d.log()?);
    d.run(&format!("rm -f {}", d.run("ps -aq")?.replace('\n', " ")))?;
    d.stop()
}

#[test]
fn attribution_with_docker_26_1() -> Result<()> {
    attribution(Suite::Trixie, false)
}

#[test]
fn attribution_with_docker_28_5() -> Result<()> {
    attribution(Suite::Sid, true)
}
