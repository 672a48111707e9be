//! What the target of rootlesskit sees and what its exit status becomes, without any network helper.

use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

/// The ways to run with and without a pid namespace and a reaper.
const MODES: [&str; 4] = ["", "--pidns", "--pidns --reaper=true", "--pidns --reaper=false"];

#[test]
fn the_target_is_root_of_new_user_and_mount_namespaces() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user /proc/self/ns/mnt";
    let out = b.argv(As::User, &["rootlesskit", "sh", "-c", script]).ok()?;
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["0"]);
    assert_eq!(lines[1], ["0", "1001", "1"]);
    assert_eq!(lines[2], ["1", "100000", "65536"]);
    let host = b.user("readlink /proc/self/ns/user /proc/self/ns/mnt").ok()?;
    for (inside, outside) in lines[3..].iter().zip(host.lines()) {
        assert_ne!(inside[0], outside);
    }
    b.assert_clean(&[])
}

#[test]
fn exit_statuses_pass_through_in_every_mode() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for mode in MODES {
        b.user(&format!("rootlesskit {mode} true")).ok()?;
        b.user(&format!("rootlesskit {mode} sh -c 'exit 42'")).fails_with(42)?;
        // Not found and not executable are errors of rootlesskit's own.
        let text = b.user(&format!("rootlesskit {mode} /nonexistent/x")).fails_with(1)?;
        ensure!(text.contains("/nonexistent/x"), "{text}");
        b.user(&format!("rootlesskit {mode} /etc/passwd")).fails_with(1)?;
    }
    b.assert_clean(&[])
}

#[test]
fn a_signal_to_child_pid_reaches_the_target_and_its_death_is_status_255() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for mode in MODES {
        let target = b
            .user(&format!("exec rootlesskit --state-dir=/tmp/s {mode} sleep infinity"))
            .spawn()?;
        let pid = wait::until("the target runs", PATIENCE, || {
            let up = b.user_processes().iter().any(|p| p.program() == "sleep");
            Ok(up.then(|| b.read("/tmp/s/child_pid").ok()).flatten())
        })?;
        b.user(&format!("kill -USR1 {pid}")).ok()?;
        let out = target.wait(PATIENCE)?;
        assert_eq!(out.code, 255, "{mode}: {out}");
        ensure!(out.stderr.contains("user defined signal 1"), "{mode}: {out}");
    }
    b.assert_clean(&[])
}

#[test]
fn without_a_reaper_the_target_keeps_its_terminal() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let inner = "rootlesskit --reaper=false bash -ic 'tty; echo DONE; exit 42'";
    let out = b.argv(As::User, &["script", "-qefc", inner, "/dev/null"]).run()?;
    assert_eq!(out.code, 42, "{out}");
    ensure!(out.stdout.contains("/dev/pts/") && out.stdout.contains("DONE"), "{out}");
    ensure!(!out.stdout.contains("cannot set terminal process group"), "{out}");
    b.assert_clean(&[])
}

#[test]
fn signals_are_relayed_once_each_and_a_clean_end_follows() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for mode in ["", "--pidns"] {
        b.user("rm -f /tmp/got").ok()?;
        let kit = b.user(&format!("exec rootlesskit {mode} fixture signals /tmp/got 7")).spawn()?;
        wait::until_true("the target is ready", PATIENCE, || Ok(b.exists("/tmp/got")))?;
        for (n, name) in ["HUP", "USR1", "INT"].into_iter().enumerate() {
            kit.signal(name)?;
            let lines = || b.read("/tmp/got").map(|text| text.lines().count());
            wait::until_true("the signal arrives", PATIENCE, || Ok(lines()? > n))?;
        }
        kit.signal("TERM")?;
        assert_eq!(kit.wait(PATIENCE)?.code, 7);
        assert_eq!(b.read("/tmp/got")?, "SIGHUP\nSIGUSR1\nSIGINT\nSIGTERM\n", "{mode}");
    }
    b.assert_clean(&["/tmp/got"])
}

#[test]
fn control_c_at_a_terminal_reaches_the_target_once() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user("mkfifo /tmp/keys").ok()?;
    let inner = "rootlesskit fixture signals /tmp/got 7";
    let terminal = b.user(&format!("exec script -qefc '{inner}' /dev/null </tmp/keys")).spawn()?;
    let _keys = b.user("exec 3>/tmp/keys; until [ -e /tmp/press ]; do sleep 0.02; done; printf '\\003' >&3; sleep infinity").spawn()?;
    wait::until_true("the target is ready", PATIENCE, || Ok(b.exists("/tmp/got")))?;
    b.user("touch /tmp/press").ok()?;
    wait::until_true("the key arrives", PATIENCE, || Ok(!b.read("/tmp/got")?.is_empty()))?;
    let target = b.process("fixture")?;
    b.signal(target.pid, "TERM")?;
    assert_eq!(terminal.wait(PATIENCE)?.code, 7);
    assert_eq!(b.read("/tmp/got")?, "SIGINT\nSIGTERM\n");
    Ok(())
}

#[test]
fn the_environment_tells_the_target_about_its_parent_and_nothing_else_leaks() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let out = b.user("cd /tmp && rootlesskit --state-dir=s sh -c 'cat /proc/$(cat s/child_pid)/environ | tr \"\\0\" \"\\n\"; echo; env'").ok()?;
    let (child, target) = out.split_once("\n\n").unwrap_or_default();
    for environment in [child, target] {
        for line in [
            "ROOTLESSKIT_STATE_DIR=/tmp/s",
            "ROOTLESSKIT_PARENT_EUID=1001",
            "ROOTLESSKIT_PARENT_EGID=1001",
        ] {
            ensure!(environment.lines().any(|l| l == line), "{line} is missing in:\n{environment}");
        }
        ensure!(environment.lines().any(|l| l == "HOME=/home/tester"), "{environment}");
    }
    let leaked: Vec<_> = target.lines().filter(|line| line.starts_with("_ROOTLESSKIT")).collect();
    ensure!(leaked.is_empty(), "{leaked:?}");
    // No descriptor either; umask and working folder are the caller's.
    let open = |command: &str| -> Result<Vec<String>> {
        Ok(b.user(command)
            .ok()?
            .lines()
            .filter(|line| !line.starts_with("pid "))
            .map(str::to_owned)
            .collect())
    };
    // Nor what the starter left open.
    ensure!(!open("fixture fds 7</dev/null")?.is_empty(), "nothing is open to begin with");
    assert_eq!(open("rootlesskit fixture fds 7</dev/null")?, Vec::<String>::new());
    assert_eq!(
        b.user("umask 027; rootlesskit sh -c 'umask; pwd'").dir("/var").ok()?,
        "0027\n/var\n"
    );
    b.assert_clean(&[])
}

#[test]
fn the_state_folder_is_complete_before_the_target_starts_and_gone_after_it() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let script = "cd $ROOTLESSKIT_STATE_DIR; stat -c '%n %a %F' *; cat child_pid; echo; rootlessctl info --json";
    let out = b.argv(As::User, &["rootlesskit", "--state-dir=/tmp/s", "sh", "-c", script]).ok()?;
    for line in ["api.sock 755 socket", "child_pid 444 regular file"] {
        ensure!(out.lines().any(|l| l == line), "no {line:?} in:\n{out}");
    }
    ensure!(out.lines().any(|l| l.starts_with("lock 600 regular")), "{out}");
    ensure!(!out.contains("netns"), "{out}");
    ensure!(out.contains("\"stateDir\": \"/tmp/s\""), "{out}");
    ensure!(!b.exists("/tmp/s"), "the state folder stays");
    // A folder of its own below TMPDIR, by default.
    let out =
        b.user("rootlesskit sh -c 'echo $ROOTLESSKIT_STATE_DIR'").env("TMPDIR", "/var/tmp").ok()?;
    ensure!(out.starts_with("/var/tmp/rootlesskit"), "{out}");
    b.assert_clean(&[])
}

#[test]
fn a_second_instance_on_one_state_folder_is_refused_and_does_no_harm() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let first = b.user("exec rootlesskit --state-dir=/tmp/s sleep infinity").spawn()?;
    wait::until_true("the first runs", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
    let text = b.user("rootlesskit --state-dir=/tmp/s true").fails_with(1)?;
    ensure!(text.contains("/tmp/s"), "{text}");
    b.user("rootlessctl --socket=/tmp/s/api.sock info").ok()?;
    first.signal("TERM")?;
    assert_eq!(first.wait(PATIENCE)?.code, 255);
    b.assert_clean(&[])
}

#[test]
fn a_users_own_files_in_the_state_folder_survive() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user("mkdir -p /tmp/mine/deep; echo precious | tee /tmp/mine/file /tmp/mine/deep/file")
        .ok()?;
    b.user("rootlesskit --state-dir=/tmp/mine true").run()?;
    b.user("rootlesskit --state-dir=/home/tester true").run()?;
    assert_eq!(b.user("cat /tmp/mine/file /tmp/mine/deep/file").ok()?, "precious\nprecious\n");
    ensure!(b.exists("/home/tester/.bashrc"), "the home folder was emptied");
    b.assert_clean(&["/tmp/mine"])
}

#[test]
fn pid_uts_ipc_and_cgroup_namespaces_on_request() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let links =
        "readlink /proc/self/ns/pid /proc/self/ns/uts /proc/self/ns/ipc /proc/self/ns/cgroup";
    let host = b.user(links).ok()?;
    assert_eq!(b.user(&format!("rootlesskit {links}")).ok()?, host);
    let all = b.user(&format!("rootlesskit --pidns --utsns --ipcns --cgroupns {links}")).ok()?;
    for (inside, outside) in all.lines().zip(host.lines()) {
        assert_ne!(inside, outside);
    }
    // /proc belongs to the new pid namespace; the hostname can be changed in the new UTS namespace.
    let out = b.user("rootlesskit --pidns sh -c 'ls -d /proc/[0-9]*; cat /proc/1/comm'").ok()?;
    ensure!(out.lines().filter(|l| l.starts_with("/proc/")).count() < 6, "{out}");
    assert_eq!(b.user("rootlesskit --utsns sh -c 'hostname other; hostname'").ok()?, "other\n");
    assert_eq!(b.root("hostname").ok()?, "testbox\n");
    b.assert_clean(&[])
}

#[test]
fn with_a_reaper_orphans_leave_no_zombies() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = b.user("exec rootlesskit --pidns sh -c 'for i in 1 2 3 4 5; do setsid -f true; done; exec sleep infinity'").spawn()?;
    wait::until_true("the target runs", PATIENCE, || {
        Ok(b.user_processes().iter().any(|p| p.program() == "sleep"))
    })?;
    wait::until_true("no zombie", PATIENCE, || {
        Ok(b.user_processes().iter().all(|p| p.state != 'Z'))
    })?;
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    b.assert_clean(&[])
}

#[test]
fn evacuation_moves_the_processes_into_a_group_of_their_own() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let delegate = "mkdir /sys/fs/cgroup/d && chown -R 1001 /sys/fs/cgroup/d && echo $$ > /sys/fs/cgroup/d/cgroup.procs";
    let kit = "rootlesskit --cgroupns --pidns --evacuate-cgroup2=evac cat /proc/self/cgroup";
    let user =
        "exec setpriv --reuid=1001 --regid=1001 --clear-groups env HOME=/home/tester USER=tester";
    let out = b.root(&format!("{delegate}; {user} {kit}")).ok()?;
    // The last line is version 2; machines with version 1 next to it show those first.
    assert_eq!(out.lines().last(), Some("0::/evac"));
    Ok(())
}

#[test]
fn sockets_of_a_service_manager_reach_the_target_at_the_same_numbers() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for n in 1..=3_usize {
        let listen =
            (0..n).map(|i| format!("-l 127.0.0.1:{}", 9001 + i)).collect::<Vec<_>>().join(" ");
        let kit = b
            // The number of systemd 258 and later names the process that is started, which is not the target.
            .user(&format!(
                "exec systemd-socket-activate {listen} sh -c \
                 'export LISTEN_PIDFDID=${{LISTEN_PIDFDID:-4711}} WATCHDOG_USEC=9 WATCHDOG_PID=$$; exec rootlesskit --pidns sh -c \"env; exec fixture fds\"'"
            ))
            .spawn()?;
        wait::until_true("it listens", PATIENCE, || Ok(kit.printed()?.contains("Listening on")))?;
        b.user("curl -s -m1 http://127.0.0.1:9001/").run()?;
        let out = kit.wait(PATIENCE)?;
        let value = |name: &str| {
            out.stdout.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).unwrap_or_default()
        };
        assert_eq!(value("LISTEN_FDS="), n.to_string(), "{out}");
        assert_eq!(value("LISTEN_PID="), value("pid "), "{out}");
        assert_eq!(value("WATCHDOG_PID="), value("pid "), "{out}");
        ensure!(!out.stdout.contains("LISTEN_PIDFDID"), "{out}");
        let sockets: Vec<_> = out.stdout.lines().filter(|l| l.contains("socket:[")).collect();
        assert_eq!(sockets.len(), n, "{out}");
        for (i, line) in sockets.iter().enumerate() {
            ensure!(line.starts_with(&format!("{} ", 3 + i)), "{out}");
        }
    }
    b.assert_clean(&[])
}

#[test]
fn files_of_the_real_root_stay_closed_and_files_of_subids_can_be_removed() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let text = b.user("rootlesskit cat /etc/shadow").fails_with(1)?;
    ensure!(text.contains("Permission denied"), "{text}");
    b.user("rootlesskit sh -c 'mkdir -p /tmp/d/e; touch /tmp/d/e/f; chown -R 5:5 /tmp/d'").ok()?;
    ensure!(b.user("rm -r /tmp/d").run()?.code != 0, "subids are not in use");
    b.user("rootlesskit rm -rf /tmp/d").ok()?;
    b.assert_clean(&[])
}

#[test]
fn ranges_by_number_duplicates_and_several_ranges_are_understood() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let map = |source: &str| {
        b.user(&format!("rootlesskit --subid-source={source} cat /proc/self/uid_map")).ok()
    };
    let fields = |text: String| -> Vec<String> {
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    for file in ["/etc/subuid", "/etc/subgid"] {
        b.write(
            file,
            "# a comment\n\n1001:100000:65536\ntester:100000:65536\ntester:200000:1000\n",
        )?;
    }
    for source in ["static", "auto"] {
        let lines = fields(map(source)?);
        assert_eq!(lines[0], "0 1001 1", "{source}");
        assert_eq!(lines[1..], ["1 100000 65536", "65537 200000 1000"], "{source}");
    }
    b.assert_clean(&[])
}

#[test]
fn help_and_versions() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    // nerdctl looks for this literal flag in the help.
    ensure!(b.user("rootlesskit --help").ok()?.contains("--detach-netns"));
    assert_eq!(b.user("rootlesskit -v").ok()?, "rootlesskit version 3.2.0\n");
    let semver =
        b.user("for p in major minor patch; do rootlesskit --print-semver=$p; done").ok()?;
    assert_eq!(semver, "3\n2\n0\n");
    ensure!(b.user("rootlessctl --version").ok()?.contains("3.2.0"));
    Ok(())
}

#[test]
fn nothing_but_newuidmap_and_newgidmap_needs_privilege() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("find / -xdev -type f -perm /6000 ! -name newuidmap ! -name newgidmap -exec chmod ug-s {} +").ok()?;
    b.user("rootlesskit --net=slirp4netns --port-driver=builtin -p 0.0.0.0:8080:80/tcp --copy-up=/etc true").ok()?;
    b.user("rootlesskit --net=pasta --port-driver=implicit --copy-up=/etc true").ok()?;
    let modes = b
        .root("stat -c %a /usr/bin/rootlesskit /usr/bin/rootlessctl; getcap /usr/bin/rootless*")
        .ok()?;
    assert_eq!(modes, "755\n755\n");
    b.assert_clean(&[])
}
