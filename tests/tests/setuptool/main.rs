//! The setup tool in hosts with systemd as PID 1 (252, 257 and 262) and without: its daily life, every way to get a
//! shell, and what it says about hosts in which something is wrong.

mod apparmor;
mod broken;
mod contained;
mod daily;
mod doctor;
mod odd;
mod packages;
mod purge;
mod settings;
mod sockets;
mod supervised;
mod swarm;
mod ways;

use tests::docker::MAKE_IMAGE;
use tests::{As, Cmd, PATIENCE, Result, Snapshot, Suite, TestBox, ensure, wait};

const TOOL: &str = "dockerd-rootless-setuptool.sh";
/// What a published port answers with.
const PAGE: &str = "hello-from-container\n";
/// A daemon stops at once, since its container does.
const RUN: &str =
    "docker run -d --name web --restart always --stop-signal KILL -p 8080:80 bb httpd -f -h /www";

/// A login as `su -` makes it: PAM, a session of logind, the profile.
fn login<'b>(b: &'b TestBox, line: &str) -> Cmd<'b> {
    b.argv(As::Root, &["su", "-", "tester", "-c", line]).limit(120)
}

/// A host on which the user has used the service manager before: it made its own folders, the bus runs, and all is
/// quiet.
fn host(suite: Suite) -> Result<TestBox> {
    let b = TestBox::builder(suite).systemd().boot()?;
    login(&b, "systemd-run --user --slice=user.slice --wait --quiet true").ok()?;
    let mut last = Snapshot::default();
    wait::until_true("the host has settled", PATIENCE, || {
        let now = Snapshot::of(&b)?;
        let same = now == last;
        last = now;
        Ok(same)
    })?;
    Ok(b)
}

/// Makes the image and publishes a port of a container.
fn serve(b: &TestBox) -> Result<()> {
    login(b, MAKE_IMAGE).ok()?;
    login(b, RUN).ok()?;
    answers(b)
}

/// Every word is in the text, in this order.
fn in_order(text: &str, words: &[&str]) -> Result<()> {
    let mut rest = text;
    for word in words {
        let at = rest.find(word);
        ensure!(at.is_some(), "{word:?} is missing or in the wrong place in:\n{text}");
        rest = &rest[at.unwrap_or_default() + word.len()..];
    }
    Ok(())
}

fn answers(b: &TestBox) -> Result<()> {
    for (from, url) in [
        ("host", "http://127.0.0.1:8080/"),
        ("host", "http://10.77.0.1:8080/"),
        ("peer", "http://10.77.0.1:8080/"),
    ] {
        wait::until_true(&format!("{url} answers {from}"), PATIENCE, || {
            let line = format!("curl -sS --max-time 5 {url}");
            let output = if from == "peer" { b.peer(&line) } else { b.root(&line) }.run()?;
            Ok(output.code == 0 && output.stdout == PAGE)
        })?;
    }
    Ok(())
}
