//! `install`: transcripts, the order of what is called, repetition, and every step that can fail.

use crate::place::{Place, context};

const UNIT: &str = "home/.config/systemd/user/docker.service";

const TRAILER: &str = "
[INFO] Make sure the following environment variable(s) are set (or add them to ~/.bashrc):
export PATH=@/bin:$PATH

[INFO] Some applications may require the following environment variable too:
export DOCKER_HOST=unix://@/run/docker.sock

";

#[test]
fn the_transcript_of_the_documentation() {
    let place = Place::new();
    place.daemon();
    let done = place.run(&["install"]);
    done.exits(0);
    let expected = format!(
        "[INFO] Creating @/{UNIT}
[INFO] Starting systemd unit docker.service
* docker.service - running
Server at unix://@/run/docker.sock
[INFO] Installed docker.service successfully.
[INFO] To control docker.service, run: `systemctl --user (start|stop|restart) docker.service`
[INFO] To run docker.service on system startup, run: `sudo loginctl enable-linger nobody`

[INFO] Creating CLI context \"rootless\"
[INFO] Using CLI context \"rootless\"
{TRAILER}"
    );
    assert_eq!(done.stdout, expected);
    assert_eq!(
        done.own_errors(),
        "+ systemctl --user start docker.service
+ systemctl --user --no-pager --full status docker.service
+ DOCKER_HOST=unix://@/run/docker.sock @/bin/docker version
+ systemctl --user enable docker.service
said by docker
said by docker
"
    );
    assert!(
        !done.stdout.contains('\x1b') && !done.stderr.contains('\x1b'),
        "no terminal, no colour"
    );
}

/// From a folder that is not in PATH, with docker elsewhere.
#[test]
fn the_printed_path_finds_launcher_and_docker() {
    let place = Place::new();
    place.daemon();
    for name in ["dockerd-rootless.sh", "dockerd-rootless.sh.do"] {
        std::fs::rename(place.at("bin").join(name), place.at("app").join(name)).unwrap();
    }
    let done = place.run(&["install"]);
    done.exits(0).prints("\nexport PATH=@/app:@/bin:$PATH\n");
}

#[test]
fn the_order_of_calls() {
    let place = Place::new();
    place.daemon();
    place.run(&["install"]).exits(0);
    let calls = place.calls();
    let (probes, rest): (Vec<String>, Vec<String>) =
        calls.into_iter().partition(|call| call.starts_with("rootlesskit"));
    assert_eq!(probes[0], "rootlesskit true");
    assert_eq!(
        probes[1],
        "rootlesskit --net=none --disable-host-loopback --copy-up=/etc --copy-up=/run true"
    );
    assert_eq!(
        rest,
        [
            "systemctl --user show-environment",
            "systemctl --user daemon-reload",
            "systemctl --user --no-pager status docker.service",
            "systemctl --user reset-failed docker.service",
            "systemctl --user start docker.service",
            "systemctl --user --no-pager --full status docker.service",
            "docker version",
            "systemctl --user enable docker.service",
            "docker --context=default context inspect rootless",
            "docker --context=default context create rootless --docker host=unix://@/run/docker.sock --description Rootless mode",
            "docker --context=default context use rootless",
        ]
    );
    let unit = place.read(UNIT).expect("a unit").replace(&place.text(""), "@/");
    assert!(unit.contains("\nExecStart=@/bin/dockerd-rootless.sh\n"), "{unit}");
    assert!(unit.contains("\nEnvironment=PATH=@/bin:/sbin:/usr/sbin:/usr/bin:/bin\n"), "{unit}");
    assert!(unit.contains("\nRequires=dbus.socket\n"), "{unit}");
}

#[test]
fn again_changes_nothing() {
    let place = Place::new();
    place.daemon();
    place.run(&["install"]).exits(0);
    let unit = place.read(UNIT);
    place.stub("systemctl", "");
    place.stub("docker", &context(&format!("unix://{}/docker.sock", place.text("run")), ""));
    let before = place.calls().len();
    let done = place.run(&["install"]);
    done.exits(0).prints(&format!("[INFO] @/{UNIT} is up to date\n"));
    done.prints("[INFO] CLI context \"rootless\" already exists\n");
    assert_eq!(place.read(UNIT), unit);
    assert!(place.read(&format!("{UNIT}.bak")).is_none());
    let calls = place.calls().split_off(before).join("\n");
    for word in ["daemon-reload", " start ", "create", "update"] {
        assert!(!calls.contains(word), "{word} in\n{calls}");
    }
}

#[test]
fn a_failed_start_is_explained() {
    let place = Place::new();
    place.stub("systemctl", "case \"$*\" in *' start '*|*status*) exit 3 ;; esac");
    place.stub(
        "journalctl",
        "echo \"Fatal: can't open lock file /run/xtables.lock: Permission denied\"",
    );
    let done = place.run(&["install"]);
    done.exits(1).says("journalctl -n 20 --no-pager --user --unit docker.service");
    done.says("semanage permissive -a iptables_t")
        .says("https://github.com/moby/moby/issues/41230");
    done.says("dockerd-rootless-setuptool.sh uninstall -f && @/bin/rootlesskit rm -rf @/home/.local/share/docker");
    assert!(!place.calls().join("\n").contains("enable"));
}

#[test]
fn the_last_words_of_the_daemon_are_shown() {
    let place = Place::new();
    place.stub("systemctl", "case \"$*\" in *' start '*|*status*) exit 3 ;; esac");
    place.stub(
        "journalctl",
        "for i in 1 2 3 4 5 6; do echo \"Jan 1 00:00:00 h dockerd[7]: word $i\"; done",
    );
    let done = place.run(&["install"]);
    done.exits(1).says("    Jan 1 00:00:00 h dockerd[7]: word 2\n").says("dockerd[7]: word 6\n");
    assert!(!done.stderr.contains("word 1\n"), "{}", done.stderr);
    let asked = "journalctl -n 20 --no-pager --quiet _SYSTEMD_USER_UNIT=docker.service _UID=65534 + \
                 SYSLOG_IDENTIFIER=dockerd-rootless.sh _UID=65534";
    assert!(place.calls().contains(&asked.to_owned()), "{:?}", place.calls());
}

#[test]
fn the_status_of_docker_is_passed_on() {
    let place = Place::new();
    place.daemon();
    place.stub("docker", "exit 42");
    place
        .run(&["install"])
        .exits(42)
        .says("[ERROR] the daemon is running, but `docker version` failed");
    let place = Place::new();
    place.daemon();
    place.stub("docker", "case \"$*\" in *inspect*) exit 1 ;; *create*) exit 7 ;; esac");
    place.run(&["install"]).exits(7).says("`docker context create rootless");
}

#[test]
fn every_step_that_fails_ends_with_a_word() {
    for (program, script, code, words) in [
        ("systemctl", "*daemon-reload*) exit 4", 1, "`systemctl --user daemon-reload` failed"),
        (
            "systemctl",
            "*--full*) exit 3",
            1,
            "journalctl -n 20 --no-pager --user --unit docker.service",
        ),
        ("systemctl", "*enable*) exit 6", 6, "`systemctl --user enable docker.service` failed"),
        (
            "docker",
            "*inspect*) exit 1 ;; *' use '*) exit 9",
            9,
            "`docker context use rootless` failed",
        ),
    ] {
        let place = Place::new();
        place.daemon();
        place.stub(program, &format!("case \"$*\" in {script} ;; esac"));
        place.run(&["install"]).exits(code).says(words);
    }
}

#[test]
fn nothing_is_touched_when_docker_is_missing() {
    let mut place = Place::new();
    place.remove_stub("docker");
    place.run(&["install"]).exits(1).says("[ERROR] docker-cli-missing: ");
    assert!(place.read(UNIT).is_none());
    assert!(!place.calls().join("\n").contains("daemon-reload"));
}

#[test]
fn a_failing_trial_run_stops_unless_forced() {
    let place = Place::new();
    place.daemon();
    place.stub("rootlesskit", "echo 'something odd' >&2; exit 1");
    place
        .run(&["install"])
        .exits(1)
        .says("[ERROR] rootlesskit-fails: `rootlesskit true` fails: something odd\n");
    assert!(place.read(UNIT).is_none());
    place.run(&["--force", "install"]).exits(0).says("[WARNING] rootlesskit-fails: ");
    assert!(place.read(UNIT).is_some());
}

#[test]
fn without_iptables_only_where_there_is_none() {
    let place = Place::new();
    place.daemon();
    place.run(&["install", "--skip-iptables"]).exits(0);
    assert!(!place.read(UNIT).expect("a unit").contains("--iptables"));
    place.stub("rootlesskit", "case \"$*\" in *' nat '*) echo 'no nat' >&2; exit 1 ;; esac");
    place.run(&["install", "--skip-ip"]).exits(0);
    let unit = place.read(UNIT).expect("a unit");
    assert!(unit.contains("/bin/dockerd-rootless.sh --iptables=false\n"), "{unit}");
    let done = place.run(&["install"]);
    done.exits(1).says("[ERROR] nat-fails: ").says("--skip-iptables");
    // In a container, the command is for its host, and no part of the block.
    assert!([&done.stdout, &done.stderr].iter().any(|text| text.contains("modprobe nf_tables")));
    place.stub("iptables", "echo 'iptables: error while loading shared libraries' >&2; exit 127");
    let done = place.run(&["install"]);
    done.exits(1).says("fix: install iptables again, because ").says("use --skip-iptables.");
}

#[test]
fn without_systemd_the_command_is_printed() {
    let mut place = Place::new();
    place.stub("systemctl", "echo 'Failed to connect to bus' >&2; exit 1");
    let done = place.run(&["install"]);
    done.exits(0);
    let expected = format!(
        "[INFO] systemd not detected, dockerd-rootless.sh needs to be started manually:

PATH=@/bin:/sbin:/usr/sbin:$PATH dockerd-rootless.sh

[INFO] To start the daemon automatically and keep it running, run install again with --supervise
[INFO] Creating CLI context \"rootless\"
[INFO] Using CLI context \"rootless\"
{TRAILER}"
    );
    assert_eq!(done.stdout, expected);
    assert!(place.read(UNIT).is_none());

    // With no runtime directory at all, one is made, which only install does.
    place.unset("XDG_RUNTIME_DIR");
    let made = || place.at("home/.docker/run").is_dir();
    place.run(&["check"]);
    assert!(!made());
    let done = place.run(&["install"]);
    done.exits(0).prints("export XDG_RUNTIME_DIR=@/home/.docker/run\n");
    done.prints("# WARNING: delete @/home/.docker/run at every logout\n");
    done.prints("XDG_RUNTIME_DIR=@/home/.docker/run PATH=@/bin:");
    assert!(made());
}

#[test]
fn the_block_for_the_administrator() {
    let mut place = Place::new();
    place.stub("getsubids", "exit 1");
    place.remove_stub("newuidmap");
    let done = place.run(&["install"]);
    done.exits(1)
        .says("[ERROR] newuidmap-missing: not found in PATH: newuidmap")
        .says("[ERROR] subid-missing: ");
    let (_, block) = done.stdout.split_once("########## BEGIN ##########\n").expect("a block");
    let (block, _) = block.split_once("########## END ##########\n").expect("its end");
    assert!(block.starts_with("sudo sh -eux <<'EOF'\n# ") && block.ends_with("\nEOF\n"), "{block}");
    assert!(block.contains("# give nobody subordinate IDs that no other user has\n"), "{block}");
}

#[test]
fn root_is_refused() {
    let place = Place::new();
    for verb in ["check", "install", "uninstall"] {
        place.run_as_root(&["-f", verb]).exits(1).says("[ERROR] ").says("root");
    }
    assert_eq!(place.calls(), Vec::<String>::new());
}
