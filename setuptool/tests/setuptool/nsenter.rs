//! `nsenter`, with a real child in real namespaces.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;

/// A process like rootlesskit's child, which root maps as rootlesskit does.
struct Fake(Child);

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child(place: &Place, flags: &[&str]) -> Fake {
    let state = place.text("run/dockerd-rootless");
    let child = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-U", "-r", "-m"])
        .args(flags)
        .args(["sh", "-c", "mount -t tmpfs marked /mnt && : > /mnt/inside && exec sleep 60"])
        .env("ROOTLESSKIT_STATE_DIR", &state)
        .env("ROOTLESSKIT_PARENT_EUID", "65534")
        .stdin(Stdio::null())
        .spawn()
        .expect("util-linux");
    let (fake, pid) = (Fake(child), "run/dockerd-rootless/child_pid");
    place.write(pid, &fake.0.id().to_string());
    // Until it has its namespaces and its mount, and its last program has its environment, which is empty for a moment.
    let end = Instant::now() + Duration::from_secs(60);
    let proc = Path::new("/proc").join(fake.0.id().to_string());
    let read = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
    while !proc.join("root/mnt/inside").exists()
        || read("comm") != "sleep\n"
        || read("environ").is_empty()
    {
        assert!(Instant::now() < end, "the child does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    fake
}

#[test]
fn the_attached_network_namespace_is_entered() {
    let place = Place::new();
    let fake = child(&place, &["-n"]);
    let script = "readlink /proc/self/ns/user /proc/self/ns/mnt /proc/self/ns/net; id -u; pwd; \
                  ls /mnt; echo $ROOTLESSKIT_PARENT_EUID; exit 7";
    let done = place.run(&["nsenter", "--", "sh", "-c", script]);
    done.exits(7);
    let mut expected = String::new();
    for kind in ["user", "mnt", "net"] {
        let link =
            std::fs::read_link(format!("/proc/{}/ns/{kind}", fake.0.id())).expect("a namespace");
        expected.push_str(&format!("{}\n", link.display()));
    }
    assert_eq!(done.stdout, format!("{expected}0\n@/home\ninside\n65534\n"));
    // Options of the program need no dashes before it.
    place.run(&["nsenter", "ls", "-1", "/mnt"]).exits(0).prints("inside\n");
    place.run(&["nsenter", "no-such-program"]).exits(127).says("no-such-program");
}

#[test]
fn a_detached_network_namespace_is_left_alone() {
    let place = Place::new();
    let _fake = child(&place, &[]);
    place.write("run/dockerd-rootless/netns", "");
    let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    let done = place.run(&["nsenter", "readlink", "/proc/self/ns/net"]);
    done.exits(0);
    assert_eq!(done.stdout, format!("{}\n", own.display()));
}

#[test]
fn the_state_directory_may_be_elsewhere_and_the_shell_is_the_default() {
    let mut place = Place::new();
    let _fake = child(&place, &["-n"]);
    place.set("SHELL", "/bin/pwd");
    place.run(&["nsenter"]).exits(0).prints("@/home\n");
    place.set("DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR", &place.text("elsewhere"));
    place.run(&["nsenter"]).exits(1).says("not running").says("@/elsewhere");
}

#[test]
fn a_daemon_that_does_not_run_is_said_not_to() {
    let place = Place::new();
    place.run(&["nsenter", "true"]).exits(1).says("the rootless daemon is not running");
    // A pid that was given to somebody else.
    place.write("run/dockerd-rootless/child_pid", &std::process::id().to_string());
    place.run(&["nsenter", "true"]).exits(1).says("systemctl --user start docker.service");
}
