//! What the scenarios have in common: a box without helpers, a daemon in it, servers in containers.

use std::time::Duration;

use tests::docker::Docker;
use tests::{As, Result, Suite, TestBox, ensure, wait};

/// Brings the fixture program of the box into a container, with the libraries it needs.
pub(crate) const FIXTURE: &str =
    "-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro -e PATH=/usr/local/bin:/bin";

/// The host as other machines reach it.
pub(crate) const HOST: &str = "10.77.0.1";
/// The other machine.
pub(crate) const PEER: &str = "10.77.0.2";
/// What a server sees in place of a client that has no address of its own that means something inside.
pub(crate) const GATEWAY: &str = "10.0.2.2";

/// A host on which the gateway is the only network that can work.
pub(crate) fn bare(suite: Suite) -> Result<TestBox> {
    let b = TestBox::boot(suite)?;
    b.root("rm -f /usr/bin/slirp4netns /usr/bin/vpnkit /usr/bin/pasta* /usr/bin/passt*").ok()?;
    let found = b.user("command -v slirp4netns pasta passt vpnkit").run()?;
    ensure!(found.stdout.is_empty(), "helpers are installed: {found}");
    Ok(b)
}

/// A daemon whose launcher chose the network by itself, with the image `bb`.
pub(crate) fn start(b: &TestBox) -> Result<Docker<'_>> {
    let d = Docker::start(b, &[])?;
    drivers(b, "gateway", "gateway")?;
    d.import()?;
    Ok(d)
}

/// Fails unless rootlesskit says that it runs with these drivers.
pub(crate) fn drivers(b: &TestBox, net: &str, port: &str) -> Result<()> {
    let info = rootlessctl(b, "info --json")?;
    let info: serde_json::Value = serde_json::from_str(&info)?;
    let found = (info["networkDriver"]["driver"].as_str(), info["portDriver"]["driver"].as_str());
    ensure!(found == (Some(net), Some(port)), "not {net} and {port} but {found:?}");
    Ok(())
}

/// Runs `rootlessctl ARGS` of the running daemon.
pub(crate) fn rootlessctl(b: &TestBox, args: &str) -> Result<String> {
    b.user(&format!("rootlessctl --socket=/run/user/1001/dockerd-rootless/api.sock {args}")).ok()
}

/// Starts a container that serves (`options`: name, ports, networks; `verb`: what the fixture program does), and waits
/// until it listens.
pub(crate) fn serve(d: &Docker<'_>, name: &str, options: &str, verb: &str) -> Result<()> {
    d.run(&format!("run -d --name {name} {options} {FIXTURE} bb fixture {verb}"))?;
    ready(d, name)
}

/// Waits until the server of a container listens.
fn ready(d: &Docker<'_>, name: &str) -> Result<()> {
    wait::until_true(&format!("{name} listens"), Duration::from_secs(15), || {
        Ok(d.run(&format!("logs {name}"))?.contains("ready"))
    })
}

/// Starts a server on the other machine; it ends with the box.
pub(crate) fn peer_serves(b: &TestBox, verb: &str) -> Result<()> {
    let log = b.path("/run/box/peer-server.log");
    b.peer(&format!("setsid -f fixture {verb} >/run/box/peer-server.log 2>&1 </dev/null")).ok()?;
    wait::until_true("the other machine's server listens", Duration::from_secs(10), || {
        Ok(std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")))
    })
}

/// What the fixture program of a new container prints.
pub(crate) fn inside(d: &Docker<'_>, options: &str, verb: &str) -> Result<String> {
    d.output(&format!("{options} {FIXTURE} bb fixture {verb}"))
}

/// The page of `http://HOST/`, asked once.
pub(crate) fn page(b: &TestBox, who: As, host: &str) -> Result<String> {
    b.argv(who, &["curl", "-gsS", "-m5", &format!("http://{host}/")]).ok()
}

/// Fails unless nobody listens there (rather than nobody answering).
pub(crate) fn refused(b: &TestBox, who: As, host: &str) -> Result<()> {
    b.argv(who, &["curl", "-gsS", "-m5", &format!("http://{host}/")]).fails_with(7).map(drop)
}

/// The ways out of a container with these options: TCP, UDP, ping and names; `peer_serves("udp-echo 0.0.0.0:9000")`
/// first.
pub(crate) fn ways_out(d: &Docker<'_>, options: &str) -> Result<()> {
    assert_eq!(inside(d, options, "get 10.77.0.2:7000")?, format!("peer from {HOST}\n"));
    assert_eq!(inside(d, options, "get peer.test:7000")?, format!("peer from {HOST}\n"));
    let answer = inside(d, options, "udp-ask 10.77.0.2:9000 ping")?;
    ensure!(answer.starts_with(&format!("{HOST}:")) && answer.ends_with(" ping\n"), "{answer:?}");
    d.run(&format!("run --rm {options} bb ping -c 1 -W 5 {PEER}"))?;
    let names = d.output(&format!("{options} bb nslookup foo.test"))?;
    ensure!(names.contains("10.9.8.7"), "{names}");
    Ok(())
}
