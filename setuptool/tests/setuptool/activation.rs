//! `install --socket`: systemd listens, and the first connection starts the daemon.

use crate::place::Place;

const UNIT: &str = "home/.config/systemd/user/docker.service";
const SOCKET: &str = "home/.config/systemd/user/docker.socket";

/// Nothing is active or enabled before.
const SYSTEMCTL: &str = "case \" $* \" in\n\
    *' is-active '*|*' is-enabled '*) exit 3 ;;\n\
    *' --full status '*) ;;\n\
    *' status '*) exit 3 ;;\n\
    esac\n";

fn place() -> Place {
    let place = Place::new();
    place.daemon();
    place.stub("systemctl", SYSTEMCTL);
    place
}

/// The traced commands of systemctl.
fn traced(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("+ systemctl --user ")).collect()
}

#[test]
fn the_socket_is_listened_on_and_enabled() {
    let place = place();
    let done = place.run(&["install", "--socket"]);
    done.exits(0)
        .prints(&format!("[INFO] Creating @/{UNIT}\n[INFO] Creating @/{SOCKET}\n"))
        .prints("[INFO] Installed docker.service successfully.\n")
        .prints("docker.service starts on the first connection");
    assert_eq!(
        traced(&done.stderr),
        [
            "start docker.socket",
            "start docker.service",
            "--no-pager --full status docker.service",
            "enable docker.socket",
        ]
    );
    let unit = place.read(UNIT).expect("a unit");
    for line in [
        "Requires=docker.socket\nAfter=docker.socket\n",
        "/bin/dockerd-rootless.sh -H fd://\n",
        "Requires=dbus.socket\n",
    ] {
        assert!(unit.contains(line), "{line} in\n{unit}");
    }
    let socket = place.read(SOCKET).expect("a socket");
    assert!(
        socket.contains("\nListenStream=%t/docker.sock\n")
            && socket.contains("\nWantedBy=sockets.target\n"),
        "{socket}"
    );
}

#[test]
fn from_one_way_to_the_other_and_back() {
    let place = place();
    place.run(&["install"]).exits(0);
    // The daemon of the other way runs and starts at login.
    place.stub("systemctl", "case \" $* \" in *' is-active docker.socket '*) exit 3 ;; esac");
    let done = place.run(&["install", "--socket"]);
    done.exits(0)
        .says("[WARNING] Stopping the daemon, so that docker.socket can take over its socket\n");
    let commands = traced(&done.stderr);
    assert_eq!(commands[..2], ["stop docker.service", "start docker.socket"]);
    assert_eq!(commands[commands.len() - 2..], ["enable docker.socket", "disable docker.service"]);

    let done = place.run(&["install"]);
    done.exits(0).prints("[INFO] Uninstalled docker.socket\n");
    assert_eq!(traced(&done.stderr)[..2], ["stop docker.socket", "disable docker.socket"]);
    assert!(!place.at(SOCKET).exists());
    assert!(!place.read(UNIT).expect("a unit").contains("fd://"));
}

#[test]
fn uninstall_takes_the_socket_first() {
    let place = place();
    place.run(&["install", "--socket"]).exits(0);
    place.write("home/.config/systemd/user/docker.socket.d/mine.conf", "[Socket]\n");
    let done = place.run(&["uninstall"]);
    done.exits(0).prints("Your own settings stay in @/home/.config/systemd/user/docker.socket.d\n");
    assert_eq!(
        traced(&done.stderr),
        [
            "stop docker.socket",
            "disable docker.socket",
            "stop docker.service",
            "disable docker.service"
        ]
    );
    place.daemon_stops();
    place.run(&["uninstall", "--purge"]).exits(0);
    assert!(place.read("home/.config/systemd/user/docker.socket.d/mine.conf").is_some());

    // Without systemd the files go nevertheless.
    let place = crate::activation::place();
    place.run(&["install", "--socket"]).exits(0);
    place.write("home/.config/systemd/user/sockets.target.wants/docker.socket", "");
    place.stub("systemctl", "exit 1");
    place.run(&["uninstall"]).exits(0);
    assert!(!place.at("home/.config/systemd").exists());
}

#[test]
fn what_systemd_refuses_is_an_error() {
    let place = place();
    place.stub(
        "systemctl",
        "case \" $* \" in *' is-active '*|*' start docker.socket '*) exit 3 ;; esac",
    );
    place
        .run(&["install", "--socket"])
        .exits(1)
        .says("`systemctl --user start docker.socket` failed");
    place.stub(
        "systemctl",
        "case \" $* \" in *' --property=Result '*) echo timeout ;; *' show-env'*|*' daemon-reload '*) ;; *) exit 3 ;; esac",
    );
    let done = place.run(&["install"]);
    done.exits(1).says("[ERROR] The daemon was not ready within its unit's TimeoutStartSec\n");
}
