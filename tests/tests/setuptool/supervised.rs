//! Hosts without systemd: a real daemon under our own supervisor, under runit and under s6. It is started again when
//! dockerd is killed, its container answers again, and nothing is left in the end.

use tests::{Cmd, Output, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::doctor::paste;
use crate::{TOOL, answers, in_order, packages, serve};

fn user<'b>(b: &'b TestBox, line: &str) -> Cmd<'b> {
    // Docker 20.10 takes an empty variable for a daemon of its own choice.
    b.user(&format!("unset DOCKER_HOST; {line}")).limit(150)
}

fn installs(b: &TestBox, kind: &str) -> Result<Output> {
    let done = user(b, &format!("{TOOL} install --supervise")).run()?;
    ensure!(done.code == 0, "{done}");
    in_order(
        &done.stdout,
        &[
            "[INFO] Creating /home/tester/.config/docker-rootless/run\n",
            "Server:",
            &format!("[INFO] Installed the daemon under {kind} successfully.\n"),
            "[INFO] Creating CLI context \"rootless\"\n",
            "[INFO] Using CLI context \"rootless\"\n",
        ],
    )?;
    Ok(done)
}

fn dockerd(b: &TestBox) -> Option<i32> {
    b.user_processes().iter().find(|p| p.program() == "dockerd").map(|p| p.pid)
}

/// Kills dockerd as no signal handler can help, and expects another one and its container.
fn survives(b: &TestBox) -> Result<()> {
    let first = dockerd(b);
    ensure!(first.is_some(), "dockerd does not run");
    b.signal(first.unwrap_or_default(), "KILL")?;
    wait::until_true("another dockerd runs", PATIENCE, || {
        let now = dockerd(b);
        Ok(now.is_some() && now != first && user(b, "docker version").run()?.code == 0)
    })
    .or_else(|error| logged(b, error))?;
    answers(b)
}

/// The error with the daemon's log.
fn logged(b: &TestBox, error: tests::Error) -> Result<()> {
    let log = b
        .root("cd /home/tester/.local/state/docker-rootless && tail -n 30 docker.log log/current")
        .run()?;
    let running = b.user_processes();
    Err(error.context(format!("{log}\n{running:#?}")))
}

/// Everything goes but the docker command's own file, and what is named.
fn leaves_nothing(b: &TestBox, but: &[&str]) -> Result<String> {
    let gone = user(b, &format!("{TOOL} uninstall --purge")).run()?;
    ensure!(gone.code == 0, "{gone}");
    for left in [".config/docker-rootless", ".local/state"] {
        ensure!(!b.exists(&format!("/home/tester/{left}")), "{left} is left: {gone}");
    }
    ensure!(dockerd(b).is_none(), "dockerd runs on");
    b.assert_clean(&[&["/home/tester/.docker"], but].concat())?;
    Ok(format!("{gone}"))
}

#[test]
fn our_own_supervisor() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let done = installs(&b, "plain")?;
    in_order(
        &done.stdout,
        &["[INFO] Started the supervisor (pid ", "crontab -e`: @reboot /usr/bin/"],
    )?;
    serve(&b)?;
    survives(&b)?;
    let inside = user(&b, &format!("{TOOL} nsenter -- sh -c 'id -u; echo $ROOTLESSKIT_STATE_DIR'"));
    assert_eq!(inside.ok()?, "0\n/run/user/1001/dockerd-rootless\n");

    // As in a crontab: the supervisor brings it up again, under no session.
    let first = dockerd(&b);
    let pid_file = "/home/tester/.local/state/docker-rootless/supervise.pid";
    let supervisor = b.process("dockerd-rootless-setuptool.sh")?.pid;
    user(&b, &format!("kill $(head -n 1 {pid_file})")).ok()?;
    // It removes its file shortly before it ends.
    wait::until_true("the daemon stops with its supervisor", PATIENCE, || {
        Ok(b.user_processes().iter().all(|process| process.pid != supervisor))
    })?;
    ensure!(!b.exists(pid_file), "{pid_file} is left");
    let left = b.user_processes();
    ensure!(left.is_empty(), "left by the daemon: {left:#?}");
    user(
        &b,
        &format!("env -i HOME=$HOME PATH=/usr/bin:/bin setsid -f {TOOL} supervise >/dev/null 2>&1"),
    )
    .ok()?;
    wait::until_true("the daemon is back", PATIENCE, || {
        Ok(user(&b, "docker version").run()?.code == 0)
    })
    .or_else(|error| logged(&b, error))?;
    assert_ne!(dockerd(&b), first);
    answers(&b)?;
    let log = b.read("/home/tester/.local/state/docker-rootless/docker.log")?;
    let words = [
        "API listen on",
        "[supervise] killed ",
        " processes that the daemon left behind\n[supervise] the daemon exited with status",
        "API listen on",
    ];
    in_order(&log, &words)?;
    let gone = leaves_nothing(&b, &[])?;
    in_order(&gone, &["[INFO] Stopping the supervisor (pid "])
}

#[test]
fn runit() -> Result<()> {
    let b = TestBox::boot(packages::suite()?)?;
    packages::unpack(&b, &["runit"])?;
    b.user("mkdir service").ok()?;
    let scanner = b.user("exec runsvdir -P service").spawn()?;
    wait::until_true("runsvdir runs", PATIENCE, || {
        Ok(b.user_processes().iter().any(|p| p.program() == "runsvdir"))
    })?;
    let done = installs(&b, "runit")?;
    in_order(&done.stderr, &["+ sv up /home/tester/service/docker\n"])?;
    serve(&b)?;
    survives(&b)?;
    in_order(
        &b.read("/home/tester/.local/state/docker-rootless/log/current")?,
        &["API listen on", "API listen on"],
    )?;
    // The same service under a later install, which finds nothing to do.
    let again = user(&b, &format!("{TOOL} install --supervise=runit")).ok()?;
    in_order(
        &again,
        &["docker-rootless/run is up to date\n", "context \"rootless\" already exists\n"],
    )?;
    let gone = leaves_nothing_but_scanner(&b, "runsvdir", "service", scanner)?;
    in_order(&gone, &["+ sv -w 120 down /home/tester/service/docker\n"])
}

#[test]
fn s6() -> Result<()> {
    let b = TestBox::boot(packages::suite()?)?;
    packages::unpack(&b, &["s6", "lib*", "s6", "execline"])?;
    b.user("mkdir scan").ok()?;
    let scanner = b.user("exec s6-svscan scan").spawn()?;
    wait::until_true("s6-svscan is ready", PATIENCE, || {
        Ok(b.exists("/home/tester/scan/.s6-svscan/control"))
    })?;
    let done = installs(&b, "s6")?;
    in_order(&done.stderr, &["+ s6-svscanctl -a /home/tester/scan\n"])?;
    serve(&b)?;
    survives(&b)?;
    let gone = leaves_nothing_but_scanner(&b, "s6-svscan", "scan", scanner)?;
    in_order(
        &gone,
        &[
            "+ s6-svc -wD -T 120000 -d /home/tester/scan/docker\n",
            "+ s6-svscanctl -an /home/tester/scan\n",
        ],
    )
}

/// OpenRC as it is on a host that it has booted.
fn openrc(b: &TestBox) -> Result<()> {
    packages::unpack(b, &["openrc", "librc1*", "openrc", "libeinfo1*"])?;
    // What its first boot script makes.
    let dirs = "exclusive starting started stopping inactive wasinactive failed hotplugged scheduled daemons options tmp";
    b.root(&format!(
        "mkdir -p /etc/runlevels/default /run/openrc && cd /run/openrc && mkdir -p {dirs} && echo default > softlevel"
    ))
    .ok()
    .map(drop)
}

#[test]
fn a_daemon_is_kept_running_by_openrc() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    openrc(&b)?;
    let done = installs(&b, "openrc")?;
    in_order(
        &done.stderr,
        &["+ rc-update --user add docker default\n", "+ rc-service --user docker start\n"],
    )?;
    serve(&b)?;
    survives(&b)?;
    let service = |verb: &str| user(&b, &format!("rc-service --user docker {verb}")).run();
    let status = service("status")?;
    in_order(&status.stdout, &["status: started"])?;

    let first = dockerd(&b);
    ensure!(service("restart")?.code == 0, "restart");
    wait::until_true("the daemon is back", PATIENCE, || {
        Ok(dockerd(&b).is_some_and(|pid| Some(pid) != first)
            && user(&b, "docker version").run()?.code == 0)
    })
    .or_else(|error| logged(&b, error))?;
    answers(&b)?;

    let stopped = service("stop")?;
    ensure!(stopped.code == 0 && dockerd(&b).is_none(), "{stopped}");
    in_order(&service("status")?.stdout, &["status: stopped"])?;
    let left = b.user_processes();
    ensure!(left.is_empty(), "left by the daemon: {left:#?}");

    // As at the start of the next session.
    user(&b, "openrc --user default").ok()?;
    wait::until_true("the runlevel starts it", PATIENCE, || {
        Ok(user(&b, "docker version").run()?.code == 0)
    })
    .or_else(|error| logged(&b, error))?;
    answers(&b)?;

    let gone = leaves_nothing(&b, &["/run/user/1001/openrc", "/run/openrc"])?;
    in_order(
        &gone,
        &["+ rc-service --user docker stop\n", "+ rc-update --user del docker default\n"],
    )
}

/// A release without services of users: the administrator pastes what is printed.
#[test]
fn openrc_of_the_system() -> Result<()> {
    let b = TestBox::boot(Suite::Trixie)?;
    openrc(&b)?;
    let printed = user(&b, &format!("{TOOL} install --supervise")).ok()?;
    in_order(
        &printed,
        &["Have the administrator run these\n", "rc-service docker-rootless.1001 start\n"],
    )?;
    paste(&b, &printed)?;
    let up = || Ok(user(&b, "docker version").run()?.code == 0);
    wait::until_true("the daemon answers", PATIENCE, up).or_else(|error| logged(&b, error))?;
    serve(&b)?;
    survives(&b)?;
    let service =
        |verb: &str| b.root(&format!("rc-service docker-rootless.1001 {verb}")).limit(150);
    in_order(&service("status").ok()?, &["status: started"])?;
    let first = dockerd(&b);
    service("restart").ok()?;
    wait::until_true("the daemon is back", PATIENCE, up).or_else(|error| logged(&b, error))?;
    assert_ne!(dockerd(&b), first);
    answers(&b)?;

    // The user cannot remove it, and is told who can.
    let refused = user(&b, &format!("{TOOL} uninstall --purge")).fails_with(1)?;
    let hint = "sudo rc-service docker-rootless.1001 stop; sudo rc-update del docker-rootless.1001 default; \
                sudo rm -f /etc/init.d/docker-rootless.1001";
    in_order(&refused, &["only root can remove the system service", hint])?;
    b.root(hint).ok()?;
    ensure!(dockerd(&b).is_none(), "dockerd runs on");
    let left = b.user_processes();
    ensure!(left.is_empty(), "left by the daemon: {left:#?}");
    leaves_nothing(&b, &["/run/openrc"]).map(drop)
}

/// The user's own process supervisor stays, without any child of ours, until it is told to end.
fn leaves_nothing_but_scanner(
    b: &TestBox,
    name: &str,
    dir: &str,
    scanner: tests::Running<'_>,
) -> Result<String> {
    // Other services of the user are not touched.
    let other = user(b, &format!("mkdir -p {dir}/.mine && ls -A {dir}")).ok()?;
    ensure!(other.lines().any(|line| line == "docker"), "{other}");
    let gone = user(b, &format!("{TOOL} uninstall --purge")).run()?;
    ensure!(gone.code == 0, "{gone}");
    let left = user(b, &format!("ls -A {dir}")).ok()?;
    ensure!(!left.contains("docker"), "{left}");
    wait::until_true("only the scanner is left", PATIENCE, || {
        let running = b.user_processes();
        Ok(running.len() == 1 && running[0].program() == name)
    })?;
    scanner.signal("TERM")?;
    scanner.wait(PATIENCE)?;
    let text = format!("{gone}");
    leaves_nothing(b, &[&format!("/home/tester/{dir}")])?;
    Ok(text)
}
