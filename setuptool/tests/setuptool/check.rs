//! `check`, and what is printed for the command line itself.

use crate::place::Place;

#[test]
fn check_ends_with_one_line_and_changes_nothing() {
    let place = Place::new();
    let done = place.run(&["check", "ignored", "words"]);
    done.exits(0).prints("[INFO] Network driver: none, port driver: builtin\n");
    assert!(done.stdout.ends_with("[INFO] Requirements are satisfied\n"), "{}", done.stdout);
    let left = std::fs::read_dir(place.at("home")).expect("a directory").count();
    assert_eq!(left, 0);
}

#[test]
fn the_storage_driver_is_predicted_for_the_dockerd_that_is_installed() {
    let place = Place::new();
    let done = place.run(&["check"]);
    assert!(!done.stdout.contains("Storage driver"), "of no known version: {}", done.stdout);
    for (version, driver) in [("28.5.2", "overlay2"), ("29.6.1", "overlayfs")] {
        place.stub("dockerd", &format!("echo 'Docker version {version}, build x'"));
        place.run(&["check"]).prints(&format!("[INFO] Storage driver: {driver}\n"));
        let done = place.run(&["check", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!(value["effective"]["storage_driver"], driver);
    }
}

#[test]
fn json_is_all_there_is_on_standard_output() {
    let mut place = Place::new();
    let done = place.run(&["check", "--json"]);
    done.exits(0);
    let value: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!((value["version"].as_u64(), value["ok"].as_bool()), (Some(1), Some(true)));
    assert_eq!(value["effective"]["net"], "none");
    assert_eq!(value["effective"]["docker_host"], "unix://@/run/docker.sock");
    assert_eq!(value["limits"].as_array().map(Vec::len), Some(5));

    place.remove_stub("newgidmap");
    let done = place.run(&["check", "--json"]);
    done.exits(1);
    let value: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(value["ok"], false);
    let findings = value["findings"].as_array().expect("a list");
    let finding = findings.iter().find(|f| f["code"] == "newuidmap-missing").expect("a finding");
    assert_eq!(finding["severity"], "fatal");
    assert!(finding["seen"].is_string() && finding["why"].is_string(), "{finding}");
    assert_eq!(done.stderr, "");
}

/// A rootlesskit with the gateway network, which fails if there is a text in `refusal`.
const WITH_GATEWAY: &str = "case \"$*\" in\n\
    --help) echo '--net value  [host, none, gateway, slirp4netns]' ;;\n\
    --net=gateway*) if [ -e \"${0%/*}/../refusal\" ]; then cat \"${0%/*}/../refusal\" >&2; exit 1; fi ;;\n\
    esac\n";

#[test]
fn the_gateway_is_what_would_be_used() {
    let mut place = Place::new();
    place.unset("DOCKERD_ROOTLESS_ROOTLESSKIT_NET");
    place.stub("rootlesskit", WITH_GATEWAY);
    let done = place.run(&["check"]);
    done.exits(0).prints("[INFO] Network driver: gateway, port driver: gateway\n");
    assert!(!done.stdout.contains("-fails"), "{}", done.stdout);
    let trials = place.calls().into_iter().filter(|call| call.contains("--disable-host-loopback"));
    assert_eq!(
        trials.collect::<Vec<_>>(),
        ["rootlesskit --net=gateway --disable-host-loopback --copy-up=/etc --copy-up=/run true"]
    );
}

#[test]
fn a_gateway_that_does_not_work_is_advice_while_another_network_does() {
    let mut place = Place::new();
    place.unset("DOCKERD_ROOTLESS_ROOTLESSKIT_NET");
    place.stub("rootlesskit", WITH_GATEWAY);
    let refusal = "[rootlesskit:child ] error: no tunnel of words\nhint: dig one\n\
                   [rootlesskit:parent] error: child exited: exit status 1\n";
    place.write("refusal", refusal);
    place
        .run(&["check"])
        .exits(0)
        .prints(
            "[INFO] gateway-fails: the gateway network driver does not work: no tunnel of words\n",
        )
        .prints("    fix: dig one\n")
        .prints("[INFO] Network driver: slirp4netns, port driver: builtin\n");
    place.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway");
    let done = place.run(&["check", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(value["effective"]["net"], "gateway");
    done.exits(1);
}

#[test]
fn a_wrong_runtime_directory_is_named() {
    let mut place = Place::new();
    place.set("XDG_RUNTIME_DIR", "/nonexistent/run");
    let done = place.run(&["check"]);
    done.exits(1).says("[ERROR] runtime-dir: XDG_RUNTIME_DIR=/nonexistent/run is not a directory");
}

#[test]
fn nothing_works_without_a_home() {
    let mut place = Place::new();
    place.unset("HOME");
    place.run(&["check"]).exits(1).says("[ERROR] home-unset: HOME is not set");
    place.run(&["uninstall"]).exits(1).says("[ERROR] HOME is not set");
    let mut place = Place::new();
    place.set("HOME", "/");
    place.run(&["check"]).exits(1).says("[ERROR] home-foreign: HOME=/ belongs to user 0");
}

#[test]
fn the_command_line() {
    let place = Place::new();
    let done = place.run(&["--help"]);
    done.exits(0).prints("uninstall").prints("--skip-iptables").prints("--purge");
    assert_eq!(done.stderr, "");
    let done = place.run(&["install", "--help"]);
    done.exits(0).prints("setuptool.sh install [OPTIONS]").prints("--skip-iptables");
    assert_eq!(done.stderr, "");
    place.run(&["--frob", "check"]).exits(1).says("`--frob`").prints("Usage: ");
    place.run(&[]).exits(1).says("[ERROR] ").says("install").says("--help");
    place.run(&["instal"]).exits(1).says("[ERROR] unknown command `instal`");
    assert_eq!(place.calls(), Vec::<String>::new());
}

#[test]
fn colour_on_a_terminal_unless_it_is_unwanted() {
    let mut place = Place::new();
    place.set("TERM", "xterm");
    let seen = place.run_on_terminal(&["check"]);
    assert!(
        seen.contains("\x1b[104m\x1b[97m[INFO]\x1b[49m\x1b[39m Requirements are satisfied"),
        "{seen}"
    );
    place.set("NO_COLOR", "1");
    let seen = place.run_on_terminal(&["check"]);
    assert!(seen.contains("[INFO] Requirements are satisfied") && !seen.contains('\x1b'), "{seen}");
}
