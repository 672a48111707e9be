//! nerdctl, which Debian does not ship: what its setup tool tries, how it comes in from the host, and how its hook
//! publishes the ports of a container in a detached network namespace.

use serde_json::{Value, json};
use tests::{As, Context as _, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::containerd::{Containerd, FIXTURE, IMAGE, STATE};
use crate::kit::Api;

/// `containerd-rootless-setuptool.sh check`: a trial without a network, and one of the file system for containers.
#[test]
fn the_trials_of_the_setup_tool() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user(
        "rootlesskit --disable-host-loopback --copy-up=/etc --copy-up=/run --copy-up=/var/lib true",
    )
    .ok()?;
    let folders = "d=$(mktemp -d); mkdir $d/l $d/u $d/w $d/m";
    let mount =
        "rootlesskit mount -t overlay -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w overlay $d/m";
    b.user(&format!("{folders}; {mount}")).ok()?;
    // The mount went with its namespace; overlayfs leaves the inner folder of `w`, which belongs to the user.
    b.user("rmdir /tmp/tmp.*/w/work /tmp/tmp.*/* /tmp/tmp.*").ok()?;
    b.assert_clean(&[])
}

/// What the bridge and portmap plugins make when nerdctl's hook runs them in the detached namespace: a bridge for the
/// namespace of the container, its way out, and a rule that leads the published port to it wherever it is asked from.
const NETWORK: &str = r#"net() { nsenter -n"$ROOTLESSKIT_STATE_DIR/netns" "$@"; }
own() { nsenter -t "$container" -n "$@"; }
net ip link add nerdctl0 type bridge
net ip addr add 10.4.0.1/24 dev nerdctl0
net ip link set nerdctl0 up
net ip link add veth1 type veth peer name eth0 netns "$container"
net ip link set veth1 master nerdctl0 up
own ip addr add 10.4.0.2/24 dev eth0
own ip link set eth0 up
own ip link set lo up
own ip route add default via 10.4.0.1
net sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.nerdctl0.route_localnet=1
net nft -f - <<END
table ip cni {
    chain out { type nat hook output priority -100; fib daddr type local meta l4proto { tcp, udp } th dport 8080 dnat to 10.4.0.2:80; }
    chain in { type nat hook prerouting priority -100; fib daddr type local meta l4proto { tcp, udp } th dport 8080 dnat to 10.4.0.2:80; }
    chain back { type nat hook postrouting priority 100; ip saddr 10.4.0.0/24 ip daddr != 10.4.0.0/24 masquerade; ip saddr 127.0.0.0/8 oifname nerdctl0 masquerade; }
}
END"#;

/// From the host: the pid, the socket of containerd through that process' root, and a command in the working directory.
fn comes_in(c: &Containerd<'_>) -> Result<()> {
    let b = c.b;
    ensure!(b.exists(&format!("{STATE}/netns")), "the file that stands for a detached namespace");
    let socket = format!("/proc/$(cat {STATE}/child_pid)/root/run/containerd/containerd.sock");
    b.user(&format!("test -S {socket} && ctr -a {socket} version")).ok()?;
    let said = c
        .inside("echo $ROOTLESSKIT_PARENT_EUID $ROOTLESSKIT_PARENT_EGID $PWD; id -u")
        .dir("/var/tmp")
        .ok()?;
    assert_eq!(said, "1001 1001 /var/tmp\n0\n");
    // Not entered: the daemon and what is run beside it are in the network of the host.
    let said = c.inside("ip -o addr show dev eth0; fixture get 127.0.0.1:7001").ok()?;
    ensure!(said.contains("10.77.0.1/24") && said.ends_with("loopback from 127.0.0.1\n"), "{said}");
    // What was copied up is the user's, and the certificates are the host's.
    c.inside(
        "touch /var/lib/cni/mark /etc/containerd/mark; test -s /etc/ssl/certs/ca-certificates.crt",
    )
    .ok()?;
    ensure!(b.exists("/home/tester/.config/containerd/mark"), "not the user's folder");
    ensure!(!b.exists("/var/lib/cni") && !b.exists("/etc/containerd/mark"), "the host's folder");
    Ok(())
}

/// nerdctl dereferences both drivers when ports are to be published, puts the name servers into containers, and leaves
/// the address of the namespace out of a request unless loopback is not allowed.
fn reads_info(api: &Api<'_>, ipv6: bool) -> Result<String> {
    let info = api.info()?;
    for (driver, name) in [("networkDriver", "slirp4netns"), ("portDriver", "builtin")] {
        assert_eq!(info[driver]["driver"], name, "{info}");
    }
    assert_eq!(info["networkDriver"]["childIP"], "10.0.2.100", "{info}");
    let six = if ipv6 { Value::Bool(true) } else { Value::Null };
    assert_eq!(info["networkDriver"]["ipv6"], six, "{info}");
    assert_eq!(info["portDriver"]["disallowLoopbackChildIP"], Value::Null, "{info}");
    assert_eq!(info["stateDir"], STATE, "{info}");
    for version in ["version", "apiVersion"] {
        let text = info[version].as_str().unwrap_or_default();
        ensure!(text.split('.').count() == 3, "{version}: {info}");
    }
    let dns = info["networkDriver"]["dns"][0].as_str().context("no name server")?;
    Ok(dns.to_owned())
}

/// A port as the hook asks for it: no address of the namespace, the same port on both sides.
fn port(proto: &str) -> Value {
    json!({ "proto": proto, "parentIP": "0.0.0.0", "parentPort": 8080, "childPort": 8080 })
}

/// The hook at the stop of a container: finds the numbers of its ports by what it had asked for.
fn unpublish(api: &Api<'_>) -> Result<()> {
    for wanted in [port("tcp"), port("udp")] {
        let same = |one: &Value| {
            ["proto", "parentPort", "childPort"].iter().all(|key| one["spec"][key] == wanted[key])
                && one["spec"]["parentIP"].as_str().is_some_and(|ip| {
                    ip.parse() == Ok(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
                })
        };
        let list = api.list()?;
        let found =
            list.iter().find(|one| same(one)).with_context(|| format!("{wanted} in {list:?}"))?;
        api.remove(found["id"].as_i64().context("no id")?)?;
    }
    ensure!(api.list()?.is_empty(), "ports are left");
    Ok(())
}

/// The life of `nerdctl run -p 8080:80 -p 8080:80/udp`.
fn run(c: &Containerd<'_>, dns: &str) -> Result<()> {
    let (b, api) = (c.b, c.api());
    let servers = "sh -c '/usr/local/bin/fixture udp-echo 0.0.0.0:80 & exec /usr/local/bin/fixture http 0.0.0.0:80 page'";
    c.inside(&format!("ctr run -d {FIXTURE} {IMAGE} web {servers}")).ok()?;
    let pid = c.inside("ctr task ls | awk '$1 == \"web\" { print $2 }'").ok()?;
    c.inside(NETWORK).env("container", pid.trim()).ok()?;
    c.inside(&format!("echo nameserver {dns} >/run/resolv.conf.web")).ok()?;
    let mount = "--mount type=bind,src=/run/resolv.conf.web,dst=/etc/resolv.conf,options=bind:ro";
    let once = |command: &str| {
        let join = format!("--with-ns network:/proc/{}/ns/net {mount} {FIXTURE}", pid.trim());
        c.inside(&format!("ctr run --rm {join} {IMAGE} once {command}")).ok()
    };
    ensure!(once("nslookup foo.test")?.contains("10.9.8.7"));
    assert_eq!(once("/usr/local/bin/fixture get 10.77.0.2:7000")?, "peer from 10.77.0.1\n");
    api.add(&port("tcp"))?;
    api.add(&port("udp"))?;
    // One port can be had once, and the answer says why, for nerdctl to print.
    ensure!(api.refused(&port("tcp"))?.contains("conflict with ID 1"), "another message");
    for (who, host) in [(As::User, "127.0.0.1"), (As::Peer, "10.77.0.1")] {
        let address = format!("{host}:8080");
        let page = wait::until("the container answers", PATIENCE, || {
            Ok(b.argv(who, &["fixture", "get", &address]).ok().ok())
        })?;
        // A client of another machine keeps its address on the way through the bridge.
        let client = if who == As::Peer { "10.77.0.2" } else { "10.4.0.1" };
        assert_eq!(page, format!("page from {client}\n"));
        let echo = b.argv(who, &["fixture", "udp-ask", &address, "hi"]).ok()?;
        ensure!(echo.ends_with(" hi\n"), "{echo}");
    }
    unpublish(&api)?;
    b.peer("fixture get 10.77.0.1:8080").fails_with(1)?;
    c.remove("web")
}

#[test]
fn nerdctl_with_a_detached_namespace() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let c = Containerd::start(&b, &[("CONTAINERD_ROOTLESS_ROOTLESSKIT_IPV6", "1")])?;
    comes_in(&c)?;
    let dns = reads_info(&c.api(), true)?;
    run(&c, &dns)?;
    c.stop()
}

/// Before the flag existed, and where somebody turns it off, the commands enter the network namespace, too.
#[test]
fn nerdctl_without_a_detached_namespace() -> Result<()> {
    let b = TestBox::boot(Suite::Trixie)?;
    let c = Containerd::start(&b, &[("CONTAINERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS", "0")])?;
    ensure!(!b.exists(&format!("{STATE}/netns")), "a file netns");
    let dns = reads_info(&c.api(), false)?;
    let said = c.inside("ip -o addr show dev tap0; cat /etc/resolv.conf").ok()?;
    ensure!(
        said.contains("10.0.2.100/24") && said.contains(&format!("nameserver {dns}\n")),
        "{said}"
    );
    c.stop()
}
