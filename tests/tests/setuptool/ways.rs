//! Ways to get a shell: each reaches the user's service manager, or there is one remedy for it. And hosts without one.

use tests::{As, Cmd, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::doctor::{Check, paste};
use crate::{TOOL, answers, host, in_order, login, packages, serve};

/// The shell of a cron job: the user's ids, and next to no variable.
fn cron<'b>(b: &'b TestBox, line: &str) -> Cmd<'b> {
    let become_user = ["setpriv", "--reuid=1001", "--regid=1001", "--init-groups", "env", "-i"];
    let variables = ["HOME=/home/tester", "LOGNAME=tester", "SHELL=/bin/sh", "PATH=/usr/bin:/bin"];
    b.argv(As::Root, &[&become_user[..], &variables, &["sh", "-c", line]].concat())
        .dir("/home/tester")
        .limit(120)
}

/// What a service of the administrator with `User=` and PAM gets.
fn service<'b>(b: &'b TestBox, line: &str) -> Cmd<'b> {
    let run = ["systemd-run", "--uid=1001", "-p", "PAMName=login", "--pipe", "--wait", "--quiet"];
    b.argv(As::Root, &[&run[..], &["sh", "-c", line]].concat()).limit(120)
}

#[test]
fn every_way_in_reaches_the_users_manager() -> Result<()> {
    for suite in Suite::ALL {
        let b = host(suite)?;
        let check = format!("{TOOL} check --json");
        let in_manager =
            ["systemd-run", "-M", "tester@.host", "--user", "--pipe", "--wait", "--quiet"];
        let ways = [
            ("su -", login(&b, &check), ""),
            ("su", b.argv(As::Root, &["su", "tester", "-c", &check]).dir("/home/tester"), ""),
            ("a system service with PAM", service(&b, &check), ""),
            (
                "a service of the user, from root",
                b.argv(As::Root, &[&in_manager[..], &["sh", "-c", &check]].concat()),
                "",
            ),
            ("setpriv with XDG_RUNTIME_DIR", b.user(&check), ""),
            ("cron", cron(&b, &check), "runtime-dir-found"),
        ];
        for (name, way, code) in ways {
            let seen = Check::of(way)?;
            let name = format!("{name} on {suite:?}");
            ensure!(seen.status == 0, "{name}: {seen:?}");
            assert_eq!(seen.effective("systemd"), "true", "{name}");
            assert_eq!(
                seen.effective("docker_host"),
                "unix:///run/user/1001/docker.sock",
                "{name}"
            );
            assert_eq!(seen.has("runtime-dir-found"), !code.is_empty(), "{name}: {seen:?}");
        }
    }
    Ok(())
}

#[test]
fn a_cron_job_installs_and_purges() -> Result<()> {
    let b = host(Suite::Sid)?;
    let done = cron(&b, &format!("{TOOL} install")).ok()?;
    in_order(
        &done,
        &["Installed docker.service successfully", "export XDG_RUNTIME_DIR=/run/user/1001\n"],
    )?;
    assert_eq!(cron(&b, "docker version -f '{{.Server.Os}}'").ok()?, "linux\n");
    cron(&b, &format!("{TOOL} uninstall --purge")).ok()?;
    ensure!(!b.exists("/run/user/1001/docker.sock"), "the daemon runs on");
    ensure!(!b.exists("/home/tester/.local"), "the data is left");
    Ok(())
}

#[test]
fn without_a_session_there_is_one_remedy() -> Result<()> {
    let b = host(Suite::Trixie)?;
    let check = format!("{TOOL} check");
    // A directory of one's own works, and hides the manager.
    let own = "mkdir -p -m 0700 $HOME/.docker/run; export XDG_RUNTIME_DIR=$HOME/.docker/run; ";
    let seen = cron(&b, &format!("{own}{check}")).run()?;
    in_order(
        &seen.stderr,
        &[
            "user-manager: systemctl --user does not work",
            "export XDG_RUNTIME_DIR=/run/user/1001\n",
        ],
    )?;

    // root's, as sudo leaves it, and one that is not there.
    b.root("mkdir -m 700 /run/user/0").ok()?;
    for dir in ["/run/user/0", "/run/user/4711"] {
        let seen = cron(&b, &format!("export XDG_RUNTIME_DIR={dir}; {check}")).fails_with(1)?;
        in_order(
            &seen,
            &["runtime-dir: XDG_RUNTIME_DIR=", dir, "fix: export XDG_RUNTIME_DIR=/run/user/1001\n"],
        )?;
    }

    b.root("loginctl disable-linger tester").ok()?;
    wait::until_true("the user's manager ends", PATIENCE, || Ok(!b.exists("/run/user/1001")))?;
    for verb in ["check", "install"] {
        let seen = cron(&b, &format!("{TOOL} {verb}")).fails_with(1)?;
        in_order(
            &seen,
            &[
                "loginctl enable-linger tester\nEOF\n",
                "[ERROR] runtime-dir: XDG_RUNTIME_DIR is not set",
            ],
        )?;
    }
    let seen = Check::of(cron(&b, &format!("{check} --json")))?;
    assert_eq!((seen.status, seen.fatal()), (1, vec!["runtime-dir".to_owned()]));
    paste(&b, &cron(&b, &check).run()?.stdout)?;
    wait::until_true("the user's manager starts", PATIENCE, || Ok(b.exists("/run/user/1001/bus")))?;
    cron(&b, &check).ok().map(drop)
}

#[test]
fn with_lingering_the_daemon_starts_with_the_system() -> Result<()> {
    let b = host(Suite::Trixie)?;
    service(&b, &format!("{TOOL} install")).ok()?;
    serve(&b)?;
    // What a boot does: with lingering, the user's manager comes without a login.
    b.root("systemctl restart user@1001.service").ok()?;
    answers(&b)?;

    b.root("rm /var/lib/systemd/linger/tester").ok()?;
    let seen = login(&b, &format!("{TOOL} check")).ok()?;
    in_order(&seen, &["[INFO] linger: ", "sudo loginctl enable-linger tester\n"])
}

#[test]
fn without_systemd_the_printed_line_starts_it() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let user = |line: &str| b.user(line).env("DOCKER_HOST", "");
    for logind in [true, false] {
        let unset = if logind { "" } else { "unset XDG_RUNTIME_DIR; " };
        if !logind {
            b.root("rmdir /run/user/1001").ok()?;
        }
        let said = user(&format!("{unset}{TOOL} install")).ok()?;
        in_order(
            &said,
            &["[INFO] systemd not detected, dockerd-rootless.sh needs to be started manually:\n"],
        )?;
        let line = said.lines().find(|line| line.contains("$PATH dockerd-rootless.sh"));
        let line = line.unwrap_or_default();
        assert_eq!(line.starts_with("PATH="), logind, "{said}");
        let daemon = user(&format!("{unset}{line}")).spawn()?;
        let up = wait::until_true("dockerd answers", PATIENCE, || {
            Ok(user("docker version").run()?.code == 0)
        });
        if let Err(error) = up {
            return Err(error.context(daemon.printed()?));
        }
        let kit = b.processes().into_iter().find(|p| p.command.contains("rootlesskit --state-dir"));
        let kit = kit.map(|p| p.pid).unwrap_or_default();
        let purge = format!("{unset}{TOOL} uninstall --purge");
        let refused = user(&purge).fails_with(1)?;
        let words = ["data is in use, so it was kept", &format!("[ERROR]   kill {kit}\n")];
        in_order(&refused, &words)?;
        b.signal(kit, "TERM")?;
        assert_eq!(daemon.wait(PATIENCE)?.code, 0);
        user(&purge).ok()?;
        b.assert_clean(&["/home/tester/.docker"])?;
    }
    Ok(())
}

/// With a detached network namespace the daemon lives in the host's; the containers' is reached from within.
#[test]
fn nsenter_with_a_detached_network_namespace() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let daemon = b
        .user("exec dockerd-rootless.sh")
        .env("DOCKERD", "sleep infinity")
        .env("DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS", "true")
        .spawn()?;
    // The launcher asks the program for its version before it starts it.
    wait::until_true("the daemon runs", PATIENCE, || {
        let mut all = b.user_processes().into_iter();
        Ok(all.any(|p| p.program() == "sleep" && !p.command.contains("--version")))
    })
    .or_else(|error| Err(error.context(daemon.printed()?)))?;
    let enter = |script: &str| b.argv(As::User, &[TOOL, "nsenter", "sh", "-c", script]).ok();
    in_order(&enter("id -u; ip -o -4 addr")?, &["0\n", "eth0", "10.77.0.1"])?;
    in_order(&enter("nsenter -n$ROOTLESSKIT_STATE_DIR/netns ip -o -4 addr")?, &["tap0"])
}

/// What `machinectl shell tester@` and run0(1) start: a unit of the system with PAM, on a pseudo terminal. The colour of
/// the levels and the wish of docker's messages for a terminal are no hindrance.
#[test]
fn on_a_terminal_of_its_own() -> Result<()> {
    let b = host(Suite::Trixie)?;
    let line =
        format!("{TOOL} check --json > /tmp/seen.json; {TOOL} install; echo $? > /tmp/status");
    let systemd_run = "systemd-run --uid=1001 -p PAMName=login --pty --wait --quiet";
    b.script("/tmp/line", &format!("#!/bin/sh\n{line}\n"))?;
    let terminal = |command: &str| {
        b.argv(As::Root, &["script", "-qec", command, "/dev/null"]).env("TERM", "xterm").limit(120)
    };
    let seen = terminal(&format!("{systemd_run} /tmp/line")).ok()?;
    // systemd-run may leave before it has shown the last lines.
    let installed =
        "\x1b[104m\x1b[97m[INFO]\x1b[49m\x1b[39m Installed docker.service successfully.";
    in_order(&seen, &[installed])?;
    assert_eq!(b.read("/tmp/status")?, "0\n", "{seen}");
    let check = Check::of(b.root("cat /tmp/seen.json"))?;
    assert_eq!((check.status, check.effective("systemd").as_str()), (0, "true"), "{check:?}");
    serve(&b)?;
    // The same by its newer name, and without colour.
    let purge = format!("run0 --user=tester -- env NO_COLOR=1 {TOOL} uninstall --purge");
    let seen = terminal(&purge).ok()?;
    ensure!(!b.exists("/home/tester/.config/systemd/user/docker.service"), "{seen}");
    ensure!(!seen.contains("\x1b[104m"), "NO_COLOR is not heeded: {seen:?}");
    ensure!(!b.exists("/run/user/1001/docker.sock"), "the daemon runs on");
    Ok(())
}

/// A command over ssh, which no profile of a login shell prepares.
#[test]
fn through_ssh() -> Result<()> {
    let b = host(packages::suite()?)?;
    packages::unpack(&b, &["openssh-server", "openssh-client"])?;
    b.root(
        "useradd -r -d /run/sshd sshd; mkdir -p /run/sshd ~/.ssh /home/tester/.ssh && \
         ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && \
         ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && \
         install -m 600 -o tester ~/.ssh/id_ed25519.pub /home/tester/.ssh/authorized_keys && \
         chown tester /home/tester/.ssh && systemd-run --quiet --unit=sshd \
         /usr/sbin/sshd -D -f /dev/null -o UsePAM=yes -o ListenAddress=127.0.0.1 -o HostKey=/etc/ssh/ssh_host_ed25519_key",
    )
    .ok()?;
    let ssh = |line: &str| {
        let options = ["ssh", "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes"];
        b.argv(As::Root, &[&options[..], &["tester@127.0.0.1", line]].concat()).limit(120)
    };
    wait::until_true("sshd answers", PATIENCE, || Ok(ssh("true").run()?.code == 0))?;
    // Lingering off: the session alone brings the service manager.
    b.root("loginctl disable-linger tester").ok()?;
    wait::until_true("the user's manager ends", PATIENCE, || Ok(!b.exists("/run/user/1001")))?;
    let seen = Check::of(ssh(&format!("{TOOL} check --json")))?;
    ensure!(seen.status == 0 && seen.has("linger"), "{seen:?}");
    assert_eq!(seen.effective("docker_host"), "unix:///run/user/1001/docker.sock");

    b.root("loginctl enable-linger tester").ok()?;
    let done = ssh(&format!("{TOOL} install")).ok()?;
    in_order(&done, &["Installed docker.service successfully", "export PATH=/usr/bin:$PATH\n"])?;
    // The daemon outlives the session, and the context is the command's, without any variable.
    assert_eq!(ssh("docker version -f '{{.Server.Os}}'").ok()?, "linux\n");
    ssh(&format!("{TOOL} uninstall --purge")).ok()?;
    ensure!(!b.exists("/run/user/1001/docker.sock"), "the daemon runs on");
    Ok(())
}
