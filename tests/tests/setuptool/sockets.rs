//! `install --socket`: the first connection starts the daemon, on the socket that systemd made.

use tests::{PATIENCE, Result, Snapshot, Suite, TestBox, ensure, wait};

use crate::{TOOL, answers, daily, host, in_order, login, serve};

const PATH: &str = "/run/user/1001/docker.sock";

fn state(b: &TestBox, verb: &str, unit: &str) -> Result<String> {
    Ok(login(b, &format!("systemctl --user {verb} {unit}")).run()?.stdout.trim().to_owned())
}

fn inode(b: &TestBox) -> Result<String> {
    b.root(&format!("stat -c '%i %a' {PATH}")).ok()
}

fn dockerd(b: &TestBox) -> Option<tests::procs::Proc> {
    b.user_processes().into_iter().find(|p| p.program() == "dockerd")
}

fn on_demand(suite: Suite) -> Result<()> {
    let b = host(suite)?;
    let before = Snapshot::of(&b)?;
    let done = login(&b, &format!("{TOOL} install --socket")).run()?;
    ensure!(done.code == 0, "{done}");
    in_order(
        &done.stdout,
        &[
            "[INFO] Creating /home/tester/.config/systemd/user/docker.service\n",
            "[INFO] Creating /home/tester/.config/systemd/user/docker.socket\n",
            "Server:",
            "[INFO] Installed docker.service successfully.\n",
            "[INFO] docker.service starts on the first connection",
        ],
    )?;
    in_order(
        &done.stderr,
        &[
            "+ systemctl --user start docker.socket\n",
            "+ systemctl --user start docker.service\n",
            "+ systemctl --user enable docker.socket\n",
            "sockets.target.wants/docker.socket",
        ],
    )?;
    assert_eq!(state(&b, "is-enabled", "docker.socket")?, "enabled");
    assert_eq!(state(&b, "is-enabled", "docker.service")?, "disabled");

    // dockerd listens on systemd's socket alone: it was handed over through the launcher and rootlesskit.
    let daemon = dockerd(&b);
    let pid = daemon.map(|p| p.pid).unwrap_or_default();
    let environ = b.root(&format!("tr '\\0' '\\n' < /proc/{pid}/environ")).ok()?;
    ensure!(environ.lines().any(|line| line == "LISTEN_FDS=1"), "{environ}");
    let socket = inode(&b)?;
    ensure!(socket.ends_with(" 660\n"), "{socket}");
    serve(&b)?;

    // The service stops, the socket stays.
    login(&b, "systemctl --user stop docker.service").ok()?;
    assert_eq!(state(&b, "is-active", "docker.socket")?, "active");
    assert_eq!(state(&b, "is-active", "docker.service")?, "inactive");
    ensure!(dockerd(&b).is_none(), "dockerd runs on");
    assert_eq!(inode(&b)?, socket);

    // A boot with lingering brings the socket only, and looking is a connection.
    b.root("systemctl restart user@1001.service").ok()?;
    wait::until_true("the socket is there", PATIENCE, || Ok(b.exists(PATH)))?;
    ensure!(dockerd(&b).is_none(), "the daemon starts by itself");
    login(&b, "docker version").ok()?;
    answers(&b)?;
    assert_eq!(state(&b, "is-active", "docker.service")?, "active");

    // A daemon that is killed comes back on the same socket.
    let socket = inode(&b)?;
    let killed = dockerd(&b).map(|p| p.pid).unwrap_or_default();
    b.signal(killed, "KILL")?;
    wait::until_true("another dockerd runs", PATIENCE, || {
        Ok(dockerd(&b).is_some_and(|p| p.pid != killed))
    })?;
    answers(&b)?;
    assert_eq!(inode(&b)?, socket);

    // Back to a daemon that listens by itself, and away.
    let plain = login(&b, &format!("{TOOL} install")).run()?;
    ensure!(plain.code == 0, "{plain}");
    ensure!(!b.exists("/home/tester/.config/systemd/user/docker.socket"), "{plain}");
    answers(&b)?;
    login(&b, &format!("{TOOL} install --socket")).ok()?;
    answers(&b)?;
    let gone = login(&b, &format!("{TOOL} uninstall --purge")).run()?;
    ensure!(gone.code == 0, "{gone}");
    in_order(
        &gone.stderr,
        &[
            "+ systemctl --user stop docker.socket\n",
            "+ systemctl --user stop docker.service\n",
            "+ systemctl --user disable docker.socket\n",
        ],
    )?;
    daily::nothing_left(&b, &before)
}

#[test]
fn on_demand_with_systemd_252() -> Result<()> {
    on_demand(Suite::Bookworm)
}

#[test]
fn on_demand_with_systemd_262() -> Result<()> {
    on_demand(Suite::Sid)
}
