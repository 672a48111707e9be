//! `install --swarm`: the file of a node of a swarm is written, kept, replaced, carried along and removed.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::place::{Finished, Place};

const UNIT: &str = "home/.config/systemd/user/docker.service";
const DROP_IN: &str = "home/.config/systemd/user/docker.service.d/swarm.conf";
const VARIABLES: &str = "home/.config/docker-rootless/swarm";

/// A host whose rootlesskit has the gateway, and which can be a node.
fn place() -> Place {
    enter_network();
    let mut place = Place::new();
    place.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway");
    place.daemon();
    place
}

/// The only address of the host.
const ADDRESS: &str = "192.0.2.10";

/// Moves the thread, and what it starts, to a network with this address. A thread of the test harness runs one test and
/// ends.
fn enter_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
    for args in
        [["link", "set", "lo", "up"].as_slice(), &["address", "add", "192.0.2.10/24", "dev", "lo"]]
    {
        let done = Command::new("ip").args(args).status().expect("iproute2");
        assert!(done.success(), "{args:?}");
    }
}

fn value() -> String {
    format!("{ADDRESS},peers=192.0.2.0/24")
}

/// Runs install with `--swarm=VALUE` and more options.
fn install(place: &Place, value: &str, more: &[&str]) -> Finished {
    let option = format!("--swarm={value}");
    place.run(&[&["install", &option], more].concat())
}

fn runs(place: &Place) {
    place.stub("systemctl", "");
}

#[test]
fn a_wrong_value_is_refused_before_anything_is_touched() {
    let place = place();
    for (value, why) in [
        ("192.0.2.10", "\"192.0.2.10\": it has no peers="),
        ("eth0,peers=192.0.2.0/24", "\"eth0\" is not an IP address"),
        ("192.0.2.10,peers=node2", "the peer \"node2\""),
    ] {
        let done = install(&place, value, &["--force"]);
        done.exits(1)
            .says("[ERROR] --swarm is \"")
            .says(why)
            .says("[ERROR] hint: use --swarm=ADDRESS,peers=NETWORK");
    }
    assert_eq!(place.calls(), [""; 0]);
    install(&place, "203.0.113.77,peers=203.0.113.0/24", &[])
        .exits(1)
        .says("[ERROR] swarm-address: 203.0.113.77 is not an address of this host");
    place.run(&["check", &format!("--swarm={}", value())]).exits(1).says("only valid with install");
    assert!(!place.at("home/.config").exists());
}

#[test]
fn the_drop_in_is_written_kept_and_removed() {
    let place = place();
    let value = value();
    let line = format!("\n[Service]\nEnvironment=DOCKERD_ROOTLESS_SWARM={value}\n");
    let done = install(&place, &value, &[]);
    done.exits(0).prints(&format!("[INFO] Creating @/{DROP_IN}\n")).prints(&format!(
        "docker swarm join --advertise-addr {ADDRESS} --token TOKEN MANAGER:2377"
    ));
    let text = place.read(DROP_IN).expect("a drop-in");
    assert!(text.ends_with(&line), "{text}");
    let reload = place.calls().iter().position(|call| call.ends_with("daemon-reload"));
    let start = place.calls().iter().position(|call| call.ends_with("start docker.service"));
    assert!(reload < start && reload.is_some());

    // After an upgrade, with whatever options.
    place.run(&["install", "--force", "--skip-iptables"]).exits(0);
    assert_eq!(place.read(DROP_IN).as_ref(), Some(&text));
    install(&place, &value, &[]).exits(0).prints(&format!("[INFO] @/{DROP_IN} is up to date\n"));

    runs(&place);
    let other = format!("{value}+198.51.100.7");
    install(&place, &other, &[])
        .exits(0)
        .prints(&format!("[INFO] Updated @/{DROP_IN}\n"))
        .says("to apply them, run: `systemctl --user restart docker.service`");
    assert!(place.read(DROP_IN).expect("a drop-in").contains("+198.51.100.7/32\n"));

    place.run(&["uninstall"]).exits(0).prints(&format!("[INFO] Removed @/{DROP_IN}\n"));
    assert!(!place.at("home/.config/systemd").exists());
}

#[test]
fn an_edited_drop_in_stays_without_force() {
    let place = place();
    let value = value();
    install(&place, &value, &[]).exits(0);
    let edited = place.read(DROP_IN).expect("a drop-in") + "Environment=DEBUG=1\n";
    place.write(DROP_IN, &edited);
    let done = install(&place, &value, &[]);
    done.exits(0).says(&format!("[WARNING] @/{DROP_IN} was edited after this tool wrote it"));
    assert_eq!(place.read(DROP_IN).as_ref(), Some(&edited));
    // The command that it names.
    let (_, command) = done.stderr.split_once("to compare it, run: ").expect("a command");
    let command = command.split_once("; to replace it").expect("its end").0;
    place.shell(command).exits(1).prints("\n-Environment=DEBUG=1\n");

    install(&place, &value, &["--force"]).exits(0).says("the old version is @/");
    assert_eq!(place.read(&format!("{DROP_IN}.bak")).as_ref(), Some(&edited));

    place.write(DROP_IN, &edited);
    place
        .run(&["uninstall"])
        .exits(0)
        .prints(&format!("it is kept as @/{DROP_IN}.bak.1\n"))
        .prints("Your own settings stay in @/home/.config/systemd/user/docker.service.d\n");
    assert!(place.read(DROP_IN).is_none());
    assert_eq!(place.read(&format!("{DROP_IN}.bak.1")), Some(edited));
}

#[test]
fn an_empty_value_removes_the_setting() {
    let place = place();
    install(&place, "", &[]).exits(0);
    assert!(place.read(DROP_IN).is_none() && place.read(UNIT).is_some());
    install(&place, &value(), &[]).exits(0);
    runs(&place);
    install(&place, "", &[])
        .exits(0)
        .prints(&format!("[INFO] Removed @/{DROP_IN}\n"))
        .prints("until you run `docker swarm leave`\n")
        .says("to apply them, run: `systemctl --user restart docker.service`");
    assert!(!place.at(DROP_IN).parent().expect("a directory").exists());
    assert!(place.read(UNIT).is_some());

    // What the user has there stays, and so does an empty directory without our file.
    let own = DROP_IN.replace("swarm", "override");
    place.write(&own, "[Service]\n");
    install(&place, &value(), &[]).exits(0);
    install(&place, "", &[]).exits(0);
    assert!(place.read(DROP_IN).is_none() && place.read(&own).is_some());
    std::fs::remove_file(place.at(&own)).expect("a file");
    place.run(&["uninstall"]).exits(0);
    assert!(place.at(DROP_IN).parent().expect("a directory").is_dir());
}

#[test]
fn what_would_be_written_is_printed() {
    let place = place();
    let print = format!("--print={}", place.text(DROP_IN));
    install(&place, &value(), &[&print])
        .exits(0)
        .prints(&format!("Environment=DOCKERD_ROOTLESS_SWARM={}\n", value()));
    place.run(&["install", &print]).exits(1).says("install does not write");
    assert!(!place.at("home/.config").exists());
}

#[test]
fn a_variable_of_the_shell_is_none_of_the_service() {
    let mut place = place();
    place.set("DOCKERD_ROOTLESS_SWARM", &value());
    place.run(&["install"]).exits(0).says(
        "The service does not inherit DOCKERD_ROOTLESS_SWARM from this shell; set it with `install --swarm=VALUE`",
    );
    assert!(place.read(DROP_IN).is_none());
}

#[test]
fn without_a_service_the_command_sets_the_variable() {
    let place = place();
    let value = value();
    place.stub("systemctl", "exit 1");
    let command = format!(
        "\nDOCKERD_ROOTLESS_SWARM={value} PATH=@/bin:/sbin:/usr/sbin:$PATH dockerd-rootless.sh\n"
    );
    install(&place, &value, &[]).exits(0).prints(&command);
    assert!(!place.at("home/.config").exists());
    // A service that was there before had it.
    place.write(DROP_IN, &format!("[Service]\nEnvironment=DOCKERD_ROOTLESS_SWARM={value}\n"));
    place.run(&["install"]).exits(0).prints(&command);
}

/// The node stays one when another supervisor starts it.
#[test]
fn the_value_is_taken_over_by_another_supervisor() {
    let place = place();
    let value = value();
    install(&place, &value, &[]).exits(0);
    place.stub("systemctl", "exit 1");
    place.stub("dockerd-rootless.sh", "env > \"${0%/*}/../env\"; exec sleep 1000");
    let done = place.run(&["install", "--supervise=plain"]);
    done.exits(0).prints(&format!("[INFO] Creating @/{VARIABLES}\n"));
    let text = place.read(VARIABLES).expect("variables");
    assert!(text.ends_with(&format!("\nDOCKERD_ROOTLESS_SWARM={value}\n")), "{text}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let found = format!("\nDOCKERD_ROOTLESS_SWARM={value}\n");
    while !place.read("env").is_some_and(|env| format!("\n{env}").contains(&found)) {
        assert!(std::time::Instant::now() < deadline, "{:?}", place.read("env"));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // And back; what another one has is no longer there.
    std::fs::remove_file(place.at(DROP_IN)).expect("the drop-in");
    place.stub("systemctl", "case \" $* \" in *' --full '*) ;; *' status '*) exit 3 ;; esac");
    place.run(&["install"]).exits(0).prints(&format!("[INFO] Creating @/{DROP_IN}\n"));
    assert!(place.read(VARIABLES).is_none());
    install(&place, "", &[]).exits(0);
    place.run(&["uninstall"]).exits(0);
    for dir in ["systemd", "docker-rootless"] {
        assert!(!place.at("home/.config").join(dir).exists(), "{dir}");
    }
}
