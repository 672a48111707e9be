//! What the namespace has, and whom it reaches.

use serde_json::Value;
use tests::{Context as _, Result, ensure};

use crate::facts::Facts;
use crate::kit::{Kit, LOOPBACK, OPEN, PEER, PEER6, Seen, allow};

/// What the stand-in for vpnkit leaves out.
const NO_TCP: &str = "not in the stand-in";

/// The cell for what is asked of the router, where there is none.
const NO_ROUTER: &str = "no router";

/// The name of the address with that flag.
pub(crate) const IPV6: &str = "IPv6 with `--ipv6`";

/// The cell for what can only be found out with that flag where it is refused.
pub(crate) const REFUSED: &str = "`--ipv6` is refused";

/// What `ip` and the state directory tell.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    interface: Option<String>,
    mtu: u64,
    v4: Option<String>,
    v6: Option<String>,
    router: Option<String>,
    /// What the target gets as name server.
    dns: Option<String>,
}

impl Shape {
    fn of(kit: &Kit<'_>) -> Result<Self> {
        let script = "ip -j addr; ip -j route; cat /tmp/s/resolv.conf 2>/dev/null; echo; cat /etc/resolv.conf";
        let out = kit.inside(script)?;
        let mut lines = out.stdout.lines();
        let mut json = || -> Result<Value> {
            serde_json::from_str(lines.next().unwrap_or_default()).with_context(|| out.to_string())
        };
        let (links, routes) = (json()?, json()?);
        let all = || links.as_array().into_iter().flatten();
        let link = all().find(|link| link["ifname"] != "lo" && link["operstate"] != "DOWN");
        let address = |family: &str| {
            let found = link?["addr_info"].as_array()?;
            // Not what routers advertise: that comes when it comes.
            let fixed = |a: &&Value| a["dynamic"] != true && a["scope"] == "global";
            let global = |a: &&Value| a["family"] == family && fixed(a);
            let found = found.iter().find(global)?;
            Some(format!("{}/{}", found["local"].as_str()?, found["prefixlen"]))
        };
        let routes = routes.as_array().into_iter().flatten();
        let mut default = routes.filter(|route| route["dst"] == "default");
        let rest: Vec<_> = lines.collect();
        let server = rest.iter().find_map(|line| line.strip_prefix("nameserver "));
        Ok(Self {
            interface: link.and_then(|link| link["ifname"].as_str()).map(str::to_owned),
            mtu: link.and_then(|link| link["mtu"].as_u64()).unwrap_or(0),
            v4: address("inet"),
            v6: address("inet6"),
            router: default.next().and_then(|r| r["gateway"].as_str()).map(str::to_owned),
            dns: server.map(str::to_owned),
        })
    }
}

fn or_none(text: Option<&str>) -> String {
    text.unwrap_or("none").to_owned()
}

fn yes(really: bool) -> &'static str {
    if really { "yes" } else { "no" }
}

/// How an answer of a server outside reads.
fn reached(seen: &Seen) -> String {
    match seen {
        Seen::Nothing => "no".to_owned(),
        Seen::Own => "yes, directly".to_owned(),
        // Its own address is the host's as well (pasta).
        Seen::OwnAddress => "yes, as the host".to_owned(),
        Seen::Other(ip) if ip == "10.77.0.1" || ip == "fd77::1" => "yes, as the host".to_owned(),
        Seen::Other(ip) => format!("yes, as {ip}"),
    }
}

/// Everything about the network, with the helper killed in between if there is one.
pub(crate) fn facts(kit: &Kit<'_>) -> Result<Facts> {
    let shape = Shape::of(kit)?;
    let mut facts = Facts::default();
    of_shape(kit, &shape, &mut facts)?;
    outside(kit, &shape, &mut facts)?;
    described(kit, &shape)?;
    if kit.full {
        let killed = kit.kill_helper()?;
        if killed {
            // The same again: the network has to be as it was.
            let after = Shape::of(kit)?;
            ensure!(after == shape, "before the helper was killed {shape:?}, then {after:?}");
            outside(kit, &shape, &mut facts)?;
        }
        let cell = if killed { "replaced, the network stays" } else { "has none" };
        facts.add("helper or gateway process, when killed", cell)?;
    }
    host_loopback(kit, &shape, &mut facts)?;
    if kit.full {
        open_port(kit, &shape, &mut facts)?;
    }
    Ok(facts)
}

fn of_shape(kit: &Kit<'_>, shape: &Shape, facts: &mut Facts) -> Result<()> {
    facts.add("interface", or_none(shape.interface.as_deref()))?;
    let leased = kit.host.network == "lxc-user-nic"
        && shape.v4.as_ref().is_some_and(|ip| ip.starts_with("10.0.3.") && ip.ends_with("/24"));
    let address = if leased { Some("by DHCP") } else { shape.v4.as_deref() };
    facts.add("address", or_none(address))?;
    facts.add("default route", or_none(shape.router.as_deref()))?;
    facts.add("name server", or_none(shape.dns.as_deref()))?;
    let mtu = shape.interface.as_ref().map_or("none".to_owned(), |_| shape.mtu.to_string());
    facts.add(if kit.full { "MTU with `--mtu=1400`" } else { "MTU" }, mtu)?;
    if kit.full && kit.host.refuses_ipv6() {
        let line = format!("rootlesskit --net={} --ipv6 true", kit.host.network);
        let out = kit.host.b.user(&line).run()?;
        let text = crate::refused::reason(&out.stderr, out.code, &out.to_string())?;
        return facts.add(IPV6, format!("refused: {text}"));
    }
    facts.add(if kit.full { IPV6 } else { "IPv6" }, or_none(shape.v6.as_deref()))
}

/// Another host by both protocols, by name, by ping.
fn outside(kit: &Kit<'_>, shape: &Shape, facts: &mut Facts) -> Result<()> {
    let stand_in = kit.host.network == "vpnkit";
    // Networks need a moment after their start; without one there is nothing to wait for.
    let again = |there: bool| if there { 600 } else { 0 };
    let (v4, v6) = (again(shape.interface.is_some()), again(shape.v6.is_some()));
    let mut targets = vec![(format!("udp/{PEER}"), v4)];
    targets.extend([(format!("tcp/{PEER6}"), v6), (format!("udp/{PEER6}"), v6)]);
    targets.extend((!stand_in).then(|| (format!("tcp/{PEER}"), v4)));
    let seen = kit.ask_from_inside(&targets)?;
    facts.add("TCP to another host", seen.get(3).map_or(NO_TCP.to_owned(), reached))?;
    facts.add("UDP to another host", reached(&seen[0]))?;
    ensure!(seen[1].answered() == seen[2].answered(), "one protocol only: {seen:?}");
    let name = if kit.full {
        "TCP and UDP to an IPv6 host with `--ipv6`"
    } else {
        "TCP and UDP to an IPv6 host"
    };
    let refused = kit.full && kit.host.refuses_ipv6();
    facts.add(name, if refused { REFUSED.to_owned() } else { reached(&seen[1]) })?;
    let answers = Answers::get(kit, shape)?;
    facts.add("ping of another host", if stand_in { NO_TCP } else { yes(answers.host) })?;
    if !kit.full {
        let router = shape.router.as_deref().map(|_| yes(answers.router));
        facts.add("ping of the router", router.unwrap_or(NO_ROUTER))?;
    }
    facts.add("name resolution", yes(answers.names))
}

/// What one look by ping and by name gave.
struct Answers {
    host: bool,
    router: bool,
    names: bool,
}

impl Answers {
    fn get(kit: &Kit<'_>, shape: &Shape) -> Result<Self> {
        let ping = |to: &str| format!("ping -c1 -W5 {to} >/dev/null 2>&1 && echo pong {to}\n");
        let mut script = String::new();
        if kit.host.network != "vpnkit" {
            script.push_str(&ping("10.77.0.2"));
        }
        // With --disable-host-loopback it may be nobody, which costs all of ping's patience.
        if !kit.full {
            script.extend(shape.router.as_deref().map(ping));
        }
        if let Some(server) = &shape.dns {
            script.push_str(&format!("dig +short +time=5 +tries=3 foo.test @{server}\n"));
        }
        // The C library has the name server where the target is in the network.
        script.push_str("getent ahostsv4 peer.test; true");
        let out = kit.inside(&script)?;
        let has = |line: &str| out.stdout.lines().any(|l| l == line);
        let names = has("10.9.8.7");
        let libc = out.stdout.contains("10.77.0.2       STREAM");
        ensure!(kit.detached || libc == names, "two answers: {out}");
        let pong = |to: &str| has(&format!("pong {to}"));
        let router = shape.router.as_deref().is_some_and(pong);
        Ok(Self { host: pong("10.77.0.2"), router, names })
    }
}

/// A server on the host's loopback, at the router's address and at the namespace's own loopback.
fn host_loopback(kit: &Kit<'_>, shape: &Shape, facts: &mut Facts) -> Result<()> {
    let proto = if kit.host.network == "vpnkit" { "udp" } else { "tcp" };
    let names = if kit.full {
        [
            "host's loopback at the router's address with `--disable-host-loopback`",
            "host's loopback at 127.0.0.1 with `--disable-host-loopback`",
        ]
    } else {
        ["host's loopback at the router's address", "host's loopback at 127.0.0.1"]
    };
    // pasta looks once a second for what listens.
    let again = if kit.host.network == "pasta" && !kit.full { 100 } else { 0 };
    let target = |ip: &str| (format!("{proto}/{ip}:{LOOPBACK}"), again);
    let places: Vec<_> =
        [Some("127.0.0.1"), shape.router.as_deref()].into_iter().flatten().collect();
    let seen = kit.ask_from_inside(&places.into_iter().map(target).collect::<Vec<_>>())?;
    let word = |seen: &Seen| if seen.answered() { "open" } else { "closed" };
    facts.add(names[0], seen.get(1).map_or(NO_ROUTER, word))?;
    facts.add(names[1], word(&seen[0]))
}

/// One port of the host's loopback where the rest is closed, at the router's address.
fn open_port(kit: &Kit<'_>, shape: &Shape, facts: &mut Facts) -> Result<()> {
    let network = kit.host.network;
    let cell = if kit.host.opens_ports() {
        let router = shape.router.as_deref().unwrap_or_default();
        let seen = kit.ask_from_inside(&[
            (format!("tcp/{router}:{OPEN}"), 0),
            (format!("udp/{router}:{OPEN}"), 0),
        ])?;
        ensure!(!seen[1].answered(), "the other protocol is open: {seen:?}");
        if seen[0].answered() { "open" } else { "closed" }.to_owned()
    } else {
        let allow = allow();
        let line = format!("rootlesskit --net={network} --disable-host-loopback {allow} true");
        let out = kit.host.b.user(&line).run()?;
        let text = crate::refused::reason(&out.stderr, out.code, &out.to_string())?;
        format!("refused: {}", text.replacen(&format!("--net={network}"), "--net=NETWORK", 1))
    };
    let name = "port 9002 of the host's loopback at the router's address with `--disable-host-loopback --host-loopback-allow=tcp:9002`";
    facts.add(name, cell)
}

/// What the API says is what is there.
fn described(kit: &Kit<'_>, shape: &Shape) -> Result<()> {
    let text = kit.host.b.user("rootlessctl --socket /tmp/s/api.sock info --json").ok()?;
    let info: Value = serde_json::from_str(&text)?;
    let net = &info["networkDriver"];
    ensure!(net["driver"] == kit.host.network, "{text}");
    let dynamic = kit.host.network == "lxc-user-nic";
    ensure!(net["dynamicChildIP"].as_bool().unwrap_or(false) == dynamic, "{text}");
    let has_own = !matches!(kit.host.network, "host" | "none") && !dynamic;
    if has_own {
        let ip = shape.v4.as_deref().and_then(|ip| ip.split('/').next());
        ensure!(net["childIP"].as_str() == ip && ip.is_some(), "{shape:?}: {text}");
        ensure!(net["dns"][0].as_str() == shape.dns.as_deref(), "{shape:?}: {text}");
        ensure!(net["ipv6"].as_bool().unwrap_or(false) == shape.v6.is_some(), "{shape:?}: {text}");
    }
    let port = match kit.port {
        "none" | "implicit" => None,
        other => Some(other),
    };
    ensure!(info["portDriver"]["driver"].as_str() == port, "{text}");
    Ok(())
}
