//! Servers and clients in containers of a rootless Docker, and on the machines around it.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::docker::Docker;
use crate::{As, PATIENCE, TestBox, wait};

/// Brings the fixture program of the box into a container, with the libraries it needs. (The static busybox cannot
/// fetch a page on bookworm: it crashes in glibc's name service.)
pub const FIXTURE: &str =
    "-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro -e PATH=/usr/local/bin:/bin";

/// The host as other machines reach it.
pub const HOST: &str = "10.77.0.1";
/// The other machine.
pub const PEER: &str = "10.77.0.2";

/// The state directory of the rootlesskit around the running dockerd, as its environment says. (A child that dockerd is
/// just starting looks like another dockerd; it has the same environment.)
///
/// # Errors
/// There is no dockerd, or it runs without rootlesskit.
pub fn state_dir(b: &TestBox) -> Result<String> {
    let variable = |environ: Vec<u8>| {
        let environ = String::from_utf8_lossy(&environ);
        let value = environ.split('\0').find_map(|v| v.strip_prefix("ROOTLESSKIT_STATE_DIR="));
        value.map(str::to_owned)
    };
    let all = b.user_processes().into_iter().filter(|process| process.program() == "dockerd");
    let mut environs = all.filter_map(|process| fs::read(process.dir().join("environ")).ok());
    environs.find_map(variable).context("no dockerd has a ROOTLESSKIT_STATE_DIR")
}

/// Runs `rootlessctl ARGS` for the running daemon.
///
/// # Errors
/// There is no daemon, or the command fails.
pub fn rootlessctl(b: &TestBox, args: &str) -> Result<String> {
    b.user(&format!("rootlessctl --socket={}/api.sock {args}", state_dir(b)?)).ok()
}

/// Fails unless rootlesskit says that it runs with these drivers; `none` and `implicit` are no port drivers to it.
///
/// # Errors
/// It says otherwise, or cannot be asked.
pub fn drivers(b: &TestBox, net: &str, port: &str) -> Result<()> {
    let info: serde_json::Value = serde_json::from_str(&rootlessctl(b, "info --json")?)?;
    let found = (info["networkDriver"]["driver"].as_str(), info["portDriver"]["driver"].as_str());
    let port = (!["none", "implicit"].contains(&port)).then_some(port);
    ensure!(found == (Some(net), port), "not {net} and {port:?} but {found:?}");
    Ok(())
}

/// Starts a container that serves (`options`: name, ports, networks; `verb`: what the fixture program does), and waits
/// until it listens.
///
/// # Errors
/// It does not start, or does not listen within 15 seconds.
pub fn serve(d: &Docker<'_>, name: &str, options: &str, verb: &str) -> Result<()> {
    d.run(&format!("run -d --name {name} {options} {FIXTURE} bb fixture {verb}"))?;
    wait::until_true(&format!("{name} listens"), PATIENCE, || {
        Ok(d.run(&format!("logs {name}"))?.contains("ready"))
    })
}

/// Starts a server on the other machine; it ends with the box.
///
/// # Errors
/// It does not listen within 10 seconds.
pub fn peer_serves(b: &TestBox, verb: &str) -> Result<()> {
    let log = b.path("/run/box/peer-server.log");
    b.peer(&format!("setsid -f fixture {verb} >/run/box/peer-server.log 2>&1 </dev/null")).ok()?;
    wait::until_true("the other machine's server listens", PATIENCE, || {
        Ok(fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")))
    })
}

/// What the fixture program of a new container prints.
///
/// # Errors
/// It fails.
pub fn inside(d: &Docker<'_>, options: &str, verb: &str) -> Result<String> {
    d.output(&format!("{options} {FIXTURE} bb fixture {verb}"))
}

/// The page of `http://HOST/`, asked once.
///
/// # Errors
/// Nobody answers.
pub fn page(b: &TestBox, who: As, host: &str) -> Result<String> {
    b.argv(who, &["curl", "-gsS", "-m30", &format!("http://{host}/")]).ok()
}

/// Fails unless nobody listens there (rather than nobody answering).
///
/// # Errors
/// Somebody listens, or the host cannot be reached.
pub fn refused(b: &TestBox, who: As, host: &str) -> Result<()> {
    b.argv(who, &["curl", "-gsS", "-m5", &format!("http://{host}/")]).fails_with(7).map(drop)
}

/// The ways out of a container with these options: TCP, UDP, ping and names; `peer_serves("udp-echo 0.0.0.0:9000")`
/// first.
///
/// # Errors
/// One of them is closed, or shows another client than the host.
pub fn ways_out(d: &Docker<'_>, options: &str) -> Result<()> {
    ways_out_but_ping(d, options)?;
    d.run(&format!("run --rm {options} bb ping -c 1 -W 5 {PEER}")).map(drop)
}

/// The same without ping, which a host may keep from its users.
///
/// # Errors
/// As [`ways_out`].
pub fn ways_out_but_ping(d: &Docker<'_>, options: &str) -> Result<()> {
    let seen = format!("peer from {HOST}\n");
    ensure!(inside(d, options, "get 10.77.0.2:7000")? == seen, "by address");
    ensure!(inside(d, options, "get peer.test:7000")? == seen, "by name");
    let answer = inside(d, options, "udp-ask 10.77.0.2:9000 ping")?;
    ensure!(answer.starts_with(&format!("{HOST}:")) && answer.ends_with(" ping\n"), "{answer:?}");
    let names = d.output(&format!("{options} bb nslookup foo.test"))?;
    ensure!(names.contains("10.9.8.7"), "{names}");
    Ok(())
}
