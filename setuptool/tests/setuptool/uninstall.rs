//! `uninstall` with and without `--purge`.

use std::fs;

use crate::place::{Place, context};

const UNIT: &str = "home/.config/systemd/user/docker.service";

/// An installation, as its user would have it.
fn installed() -> Place {
    let place = Place::new();
    place.daemon();
    place.run(&["install"]).exits(0);
    fs::write(place.at("calls"), "").expect("the calls");
    place.write("home/.docker/config.json", "{\"auths\":{},\"currentContext\":\"rootless\"}");
    let docker = context("unix:///run/user/1/docker.sock", "Rootless mode");
    place.stub("docker", &format!("{docker}; env > \"${{0%/*}}/../env\""));
    place.daemon_stops();
    place
}

#[test]
fn the_transcript_of_the_documentation() {
    let place = installed();
    place.stub("systemctl", "case \" $* \" in *' disable '*) echo 'Removed @.' >&2 ;; esac");
    let done = place.run(&["uninstall"]);
    done.exits(0);
    assert_eq!(
        done.stderr,
        "+ systemctl --user stop docker.service
+ systemctl --user disable docker.service
Removed @.
"
    );
    assert_eq!(
        done.stdout,
        "[INFO] Uninstalled docker.service
[INFO] Deleted CLI context \"rootless\"
[INFO] Configured CLI to use the \"default\" context.
[INFO] If you set PATH, DOCKER_HOST or DOCKER_CONTEXT for this daemon in ~/.bashrc, remove them there.
[INFO] This uninstallation tool does NOT remove Docker binaries and data.
[INFO] To remove data, run: `@/bin/rootlesskit rm -rf @/home/.local/share/docker`
"
    );
    assert!(!place.at("home/.config/systemd").exists());
    let calls = place.calls();
    for call in [
        "systemctl --user daemon-reload",
        "docker --context=default context rm -f rootless",
        "docker --context=default context use default",
    ] {
        assert!(calls.iter().any(|c| c == call), "{call} in {calls:?}");
    }
}

#[test]
fn a_third_context_stays_and_docker_host_does_not_disturb() {
    let mut place = installed();
    place.write("home/.docker/config.json", "{\"currentContext\":\"elsewhere\"}");
    place.run(&["uninstall"]).exits(0);
    assert!(!place.calls().join("\n").contains("use default"));
    place.write("home/.docker/config.json", "{\"currentContext\":\"rootless\"}");
    place.set("DOCKER_HOST", "unix:///other");
    place.run(&["uninstall"]).exits(0);
    let env = place.read("env").expect("the stub's environment");
    assert!(!env.contains("DOCKER_HOST"), "{env}");
}

#[test]
fn no_prerequisite_is_needed() {
    let mut place = installed();
    place.stub("systemctl", "exit 1");
    place.unset("XDG_RUNTIME_DIR");
    for name in
        ["newuidmap", "rootlesskit", "dockerd-rootless.sh", "dockerd", "docker", "getsubids"]
    {
        place.remove_stub(name);
    }
    place.write("home/.config/systemd/user/default.target.wants/docker.service", "");
    let done = place.run(&["uninstall"]);
    done.exits(0)
        .says("context rm -f rootless")
        .prints("rootlesskit rm -rf @/home/.local/share/docker");
    assert!(place.read(UNIT).is_none());
    assert!(place.read("home/.config/systemd/user/default.target.wants/docker.service").is_none());
    place.run(&["uninstall"]).exits(0);
}

/// Everything that a daemon leaves, and some things that are not its own.
fn used() -> Place {
    let place = installed();
    place.stub("rootlesskit", "ROOTLESSKIT_STATE_DIR=/x exec unshare --map-root-user \"$@\"");
    for file in [
        "home/.local/share/docker/overlay2/x/f",
        "home/.local/share/docker/engine-id",
        "run/dockerd-rootless/child_pid",
        "run/dockerd-rootless/lock",
        "run/docker/containerd/containerd.toml",
        "run/docker.pid",
        "home/.config/systemd/user/other.service",
        "home/.config/docker/daemon.json",
        "home/.config/docker/key.json",
        "home/.local/share/other",
    ] {
        place.write(file, "1");
    }
    place.write("home/.config/docker/daemon.json", "{}");
    place
}

fn files(place: &Place) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = vec![place.at("home"), place.at("run")];
    while let Some(path) = next.pop() {
        if path.is_dir() {
            next.extend(
                fs::read_dir(path).expect("a directory").flatten().map(|entry| entry.path()),
            );
        } else {
            found.push(path.to_string_lossy().replace(&place.text(""), ""));
        }
    }
    found.sort();
    found
}

#[test]
fn purge_leaves_what_is_not_ours() {
    let place = used();
    place.run(&["uninstall"]).exits(0);
    assert!(place.read("home/.local/share/docker/overlay2/x/f").is_some());
    let done = place.run(&["uninstall", "--purge"]);
    done.exits(0).says(
        "+ @/bin/rootlesskit @/app/dockerd-rootless-setuptool.sh delete data @/home/.local/share/docker \
         exec @/run/docker state @/run/dockerd-rootless\n",
    );
    assert_eq!(
        files(&place),
        [
            "home/.config/docker/daemon.json",
            "home/.config/systemd/user/other.service",
            "home/.docker/config.json",
            "home/.local/share/other",
            "run/bus",
        ]
    );
}

#[test]
fn purge_leaves_no_empty_directories() {
    let place = used();
    for file in ["home/.config/docker/daemon.json", "home/.config/systemd/user/other.service"] {
        fs::remove_file(place.at(file)).expect("a file");
    }
    fs::remove_file(place.at("home/.local/share/other")).expect("a file");
    // Only the owner of the parent may remove them.
    for dir in ["home/.docker/contexts", "home/.docker/contexts/meta", "run/runc"] {
        fs::create_dir(place.at(dir)).expect("a directory");
        std::os::unix::fs::chown(place.at(dir), Some(65534), None).expect("root");
    }
    place.run(&["uninstall", "--purge"]).exits(0);
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(place.at(dir)).expect("a directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(
        (names("home"), names("home/.docker")),
        (vec![".docker".to_owned()], vec!["config.json".to_owned()])
    );
    assert_eq!(names("run"), ["bus"]);
}

#[test]
fn what_cannot_be_removed_is_an_error() {
    let place = used();
    place.stub("rootlesskit", "exit 5");
    place
        .run(&["uninstall", "--purge"])
        .exits(1)
        .says("[ERROR] cannot delete all of @/home/.local/share/docker (rootlesskit failed with exit status: 5)\n");
}

#[test]
fn purge_spares_directories_that_variables_name() {
    let mut place = used();
    place.write("home/docker/mine", "1");
    place.write("home/state/mine", "1");
    place.set("XDG_RUNTIME_DIR", &place.text("home"));
    place.set("DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR", &place.text("home/state"));
    place.run(&["uninstall", "--purge"]).exits(0);
    assert!(place.read("home/docker/mine").is_some() && place.read("home/state/mine").is_some());
}
