//! `install --supervise`, `supervise` and `uninstall` without systemd: our own supervisor with a daemon that is a stub,
//! and OpenRC as stubs. The real runit and s6 are tried in the test hosts.

use std::time::{Duration, Instant};

use crate::place::Place;

const SCRIPT: &str = "home/.config/docker-rootless/run";
const LOG: &str = "home/.local/state/docker-rootless/docker.log";
const PID: &str = "home/.local/state/docker-rootless/supervise.pid";

/// A host without systemd, with a daemon that runs until it is told to stop.
fn place() -> Place {
    let place = Place::new();
    place.stub("systemctl", "echo 'Failed to connect to bus' >&2; exit 1");
    place.stub(
        "dockerd-rootless.sh",
        "trap 'echo bye; exit 0' TERM; trap 'echo again' HUP; env > \"${0%/*}/../env\"\n\
         (sleep 1000 & echo \"shim $!\"); echo \"up $$\"\n\
         while :; do sleep 0.05; done",
    );
    place
}

fn until(place: &Place, what: &str, mut holds: impl FnMut() -> bool) {
    // What takes longer hangs.
    let limit = Duration::from_secs(60);
    let deadline = Instant::now() + limit;
    while !holds() {
        let log = || place.read(LOG).unwrap_or_default();
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}; the log:\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pid(place: &Place) -> i32 {
    let text = place.read(PID).expect("a pid file");
    text.lines().next().and_then(|line| line.parse().ok()).expect("a pid")
}

/// The pid that the daemon printed last.
fn daemon(place: &Place) -> Option<i32> {
    last(place, "up ")
}

fn last(place: &Place, word: &str) -> Option<i32> {
    let log = place.read(LOG)?;
    log.lines().rev().find_map(|line| line.strip_prefix(word)?.parse().ok())
}

/// Whether it runs; an orphan that has ended waits for the init of the machine.
fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn send(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("a process");
}

#[test]
fn a_daemon_is_kept_running_and_leaves_nothing() {
    let place = place();
    place.daemon();
    place.write("home/.config/docker-rootless/env", "COLOUR='light blue'\n");
    let done = place.run(&["install", "--supervise"]);
    done.exits(0)
        .prints(&format!("[INFO] Creating @/{SCRIPT}\n[INFO] Started the supervisor (pid "))
        .prints("Server at unix://@/run/docker.sock\n[INFO] Installed the daemon under plain successfully.\n")
        .prints("crontab -e`: @reboot @/app/dockerd-rootless-setuptool.sh supervise\n")
        .prints("[INFO] Using CLI context \"rootless\"\n");
    until(&place, "the daemon is up", || daemon(&place).is_some());
    let env = place.read("env").expect("the stub's environment");
    for line in ["COLOUR=light blue", &format!("XDG_RUNTIME_DIR={}", place.text("run"))] {
        assert!(env.lines().any(|found| found == line), "{line} in\n{env}");
    }

    // Only one, and a second install leaves it alone.
    let (first, shim) = (daemon(&place), last(&place, "shim "));
    place
        .run(&["supervise"])
        .exits(1)
        .says(&format!("a supervisor is already running (pid {})", pid(&place)));
    place.run(&["install", "--supervise=plain"]).exits(0).prints(&format!(
        "[INFO] @/{SCRIPT} is up to date\n[INFO] The supervisor is already running (pid {})\n",
        pid(&place)
    ));
    assert_eq!(daemon(&place), first);

    send(pid(&place), nix::sys::signal::Signal::SIGHUP);
    until(&place, "SIGHUP is passed on", || {
        place.read(LOG).is_some_and(|log| log.contains("again\n"))
    });
    send(first.expect("a pid"), nix::sys::signal::Signal::SIGKILL);
    until(&place, "it is started again", || daemon(&place) != first);
    assert!(!alive(shim.expect("a pid")), "what a crashed daemon leaves is ended");
    let log = place.read(LOG).expect("a log");
    let (_, rest) =
        log.split_once("[supervise] the daemon was killed by signal 9 after ").expect(&log);
    assert!(rest.contains(" s; restarting it in 1 s\n"), "{log}");

    let supervisor = pid(&place);
    let done = place.run(&["uninstall"]);
    done.exits(0).prints(&format!(
        "[INFO] Stopping the supervisor (pid {supervisor})\n[INFO] Uninstalled the service of plain\n\
         [INFO] Your own settings stay in @/home/.config/docker-rootless/env\n"
    ));
    assert!(!place.at("home/.local/state/docker-rootless").exists());
    assert!(!place.at(SCRIPT).exists());
    for pid in [supervisor, daemon(&place).unwrap_or(supervisor)] {
        assert!(!alive(pid), "{pid} still runs");
    }
    place.daemon_stops();
    place.run(&["uninstall", "--purge"]).exits(0);
    assert!(
        place.read("home/.config/docker-rootless/env").is_some()
            && !place.at("home/.local").exists()
    );
}

#[test]
fn a_daemon_that_does_not_start_is_explained_and_not_tried_for_ever() {
    let place = place();
    place.stub(
        "dockerd-rootless.sh",
        "echo 'newuidmap: write to uid_map failed: Operation not permitted'; exit 1",
    );
    let done = place.run(&["install", "--supervise=plain"]);
    done.exits(1)
        .says("[ERROR] the daemon did not answer on @/run/docker.sock")
        .says("    newuidmap: write to uid_map failed: Operation not permitted\n")
        .says("[ERROR] The log contains \"write to uid_map failed\": ")
        .prints("[INFO] Stopping the supervisor (pid ");
    let log = place.read(LOG).expect("a log");
    // Each pause is twice as long as the one before.
    for seconds in [1, 2, 4] {
        assert!(log.contains(&format!("restarting it in {seconds} s\n")), "{log}");
    }
    assert!(!place.at(PID).exists());
    place.run(&["uninstall"]).exits(0);
    assert!(!place.at("home/.local/state/docker-rootless").exists());
}

#[test]
fn what_cannot_be_had_is_refused_before_anything_is_touched() {
    let place = place();
    for kind in ["runit", "s6", "openrc"] {
        let done = place.run(&["install", &format!("--supervise={kind}")]);
        done.exits(1).says("[ERROR] ");
        let hint = if kind == "openrc" {
            "rc-service was not found"
        } else {
            "hint: mkdir -p @/home/.config/"
        };
        done.says(hint);
    }
    place.run(&["supervise"]).exits(1).says("install --supervise=plain");
    place.run(&["install", "--socket"]).exits(1).says("--socket needs the user's systemd");
    assert!(!place.at("home/.config").exists());
    place.run_as_root(&["supervise"]).exits(1).says("refusing to supervise as root");

    let systemd = Place::new();
    systemd.run(&["install", "--supervise"]).exits(1).says("omit --supervise");
    assert!(!systemd.at("home/.config").exists());
}

#[test]
fn a_daemon_that_was_started_by_hand_is_not_disturbed() {
    let place = place();
    place.write("run/dockerd-rootless/lock", "");
    let file = std::fs::File::open(place.at("run/dockerd-rootless/lock")).expect("a lock");
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock);
    place
        .run(&["install", "--supervise=plain"])
        .exits(1)
        .says("[ERROR] a daemon is already running in @/run/dockerd-rootless");
    assert!(!place.at(SCRIPT).exists());
    drop(lock);
}

/// OpenRC with services of users, which runs what the script says.
const RC_SERVICE: &str = "case \"$*\" in\n\
    --version) echo 'rc-service (OpenRC) 0.62.6' ;;\n\
    *start) . \"$HOME/.config/rc/init.d/docker\"; $command $command_args >/dev/null 2>&1 </dev/null & ;;\n\
    esac\n";

#[test]
fn openrc_gets_a_service_of_the_user() {
    let place = place();
    place.daemon();
    place.stub("rc-service", RC_SERVICE);
    place.stub("rc-update", "");
    place.stub("openrc-run", "");
    let done = place.run(&["install", "--supervise=openrc"]);
    done.exits(0)
        .says("+ rc-update --user add docker default\n+ rc-service --user docker start\n")
        .prints("[INFO] Creating @/home/.config/rc/init.d/docker\n")
        .prints("rc-service --user docker (start|stop|restart|status)");
    let script = place.read("home/.config/rc/init.d/docker").expect("a service script");
    for line in [
        &format!("#!{}/openrc-run\n", place.text("bin")),
        "command_args=supervise\ncommand_background=true\n",
        "pidfile=",
    ] {
        assert!(script.contains(line), "{line} in\n{script}");
    }
    until(&place, "the daemon is up", || daemon(&place).is_some());
    let first = daemon(&place).expect("a pid");
    // The stub's does not listen; somebody else does so for it.
    place.daemon_stops();
    place
        .run(&["uninstall", "--purge"])
        .exits(0)
        .says("+ rc-service --user docker stop\n+ rc-update --user del docker default\n");
    assert!(!alive(first));
    assert!(!place.at("home/.config").exists() && !place.at("home/.local").exists());
}

#[test]
fn an_older_openrc_gets_a_block_for_the_administrator() {
    let place = place();
    place.stub("rc-service", "[ \"$1\" = --version ] && echo 'rc-service (OpenRC) 0.54'");
    let done = place.run(&["install", "--supervise=openrc"]);
    done.exits(0);
    let (_, block) = done.stdout.split_once("########## BEGIN ##########\n").expect("a block");
    let (block, _) = block.split_once("########## END ##########\n").expect("its end");
    for line in [
        "sudo sh -eux <<'EOF'\ncat > /etc/init.d/docker-rootless.65534 <<'SCRIPT'\n#!",
        "command=@/app/dockerd-rootless-setuptool.sh\ncommand_args=supervise\n",
        "command_user=nobody\nexport HOME=@/home\n",
        "checkpath --directory --mode 0700 --owner nobody @/run\n",
        "\nSCRIPT\nchmod 755 /etc/init.d/docker-rootless.65534\nrc-update add docker-rootless.65534 default\n",
    ] {
        assert!(block.contains(line), "{line} in\n{block}");
    }
    assert!(place.at(SCRIPT).exists());
    place.run(&["uninstall", "--purge"]).exits(0);
    assert!(!place.at("home/.config").exists());
}

#[test]
fn systemd_takes_the_daemon_over() {
    let place = place();
    place.daemon();
    place.run(&["install", "--supervise=plain"]).exits(0);
    until(&place, "the daemon is up", || daemon(&place).is_some());
    let first = daemon(&place).expect("a pid");
    place.run(&["nsenter", "true"]).exits(1).says("install --supervise");
    // The next login has a service manager.
    place.stub("systemctl", "case \"$*\" in *' --full '*) ;; *status*) exit 3 ;; esac");
    let done = place.run(&["install"]);
    done.exits(0)
        .prints("[INFO] Uninstalled the service of plain\n")
        .prints("[INFO] Installed docker.service successfully.\n");
    assert!(!alive(first) && !place.at(SCRIPT).exists());
}
