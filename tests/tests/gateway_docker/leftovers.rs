//! What a killed dockerd leaves where no service manager ends its containers.

use tests::docker::Docker;
use tests::{PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::support::{bare, start};

/// The processes of the containers, and their shims.
fn left(b: &TestBox) -> Vec<String> {
    let all = b.user_processes().into_iter().filter(|process| {
        process.program().starts_with("containerd-shim") || process.command.starts_with("sleep 100")
    });
    all.map(|process| format!("{} {}", process.pid, process.command)).collect()
}

/// Starts containers of root and of another user, and kills dockerd as the out-of-memory killer would.
fn kill_daemon(b: &TestBox) -> Result<()> {
    let d = start(b)?;
    d.run("run -d --name root bb sleep 1000")?;
    d.run("run -d --name other --user 1000 bb sleep 1001")?;
    b.signal(b.process("dockerd")?.pid, "KILL")?;
    wait::until_true("rootlesskit and containerd end", PATIENCE, || {
        let running = b.user_processes();
        let ended = |name: &str| !running.iter().any(|process| process.program() == name);
        Ok(["dockerd", "containerd", "rootlesskit", "rootlesskit-gateway"].into_iter().all(ended))
    })
}

/// No dockerd takes over what another left, and none can kill containers of other ids than root's. The launcher ends them, so
/// that the next dockerd starts them again.
fn ended_and_started_again(suite: Suite) -> Result<()> {
    let b = bare(suite)?;
    kill_daemon(&b)?;
    let before = left(&b);
    assert_eq!(before.len(), 4, "{before:#?}");
    let d = Docker::start(&b, &[])?;
    let told = "WARN: a killed dockerd left containers behind (containerd-shim ";
    ensure!(d.log()?.contains(told), "{}", d.log()?);
    let still: Vec<_> = left(&b).into_iter().filter(|line| before.contains(line)).collect();
    ensure!(still.is_empty(), "still there: {still:#?}");
    d.run("start root other")?;
    assert_eq!(d.run("ps -q")?.lines().count(), 2);
    d.run("rm -f root other")?;
    d.stop()?;
    let d = start(&b)?;
    ensure!(!d.log()?.contains(told), "{}", d.log()?);
    d.stop()
}

/// A second daemon that is refused does not end the first one's containers.
#[test]
fn containers_of_a_running_daemon_are_left_alone() -> Result<()> {
    let b = bare(Suite::Sid)?;
    let d = start(&b)?;
    d.run("run -d --name other --user 1000 bb sleep 1001")?;
    let before = left(&b);
    let second = b
        .user("dockerd-rootless.sh")
        .env("DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR", "/tmp/second")
        .run()?;
    ensure!(second.code != 0, "{second}");
    assert_eq!(left(&b), before);
    d.run("rm -f other")?;
    d.stop()
}

#[test]
fn containers_of_a_killed_docker_20_10_are_ended_and_start_again() -> Result<()> {
    ended_and_started_again(Suite::Bookworm)
}

#[test]
fn containers_of_a_killed_docker_26_1_are_ended_and_start_again() -> Result<()> {
    ended_and_started_again(Suite::Trixie)
}

#[test]
fn containers_of_a_killed_newest_docker_are_ended_and_start_again() -> Result<()> {
    ended_and_started_again(Suite::Sid)
}
