//! The child pass with the real binary, in user, mount and network namespaces of an ordinary user. Needs
//! root, to become an ordinary user, and unshare(1), nsenter(1) and mount(8) of util-linux.

use std::fs;
use std::path::Path;

use crate::place::{Finished, Place, finish};

/// A dockerd that records what it finds.
const DOCKERD: &str = r#"out=${0%/*}/../recorded
for a in "$@"; do printf '%s\0' "$a"; done > "$out/argv"
readlink /proc/self/ns/net > "$out/netns"
cat /proc/sys/net/ipv4/ip_forward > "$out/forward"
cat /proc/sys/net/ipv6/conf/all/forwarding > "$out/forward6"
[ -f "$ROOTLESSKIT_STATE_DIR/netns" ] && nsenter -n"$ROOTLESSKIT_STATE_DIR/netns" cat /proc/sys/net/ipv4/ip_forward > "$out/inner"
ls -l /run > "$out/run"
cat /run/systemd/resolve/resolv.conf > "$out/resolved" 2>/dev/null
cat /etc/resolv.conf > "$out/resolv" 2>/dev/null
cat /etc/ssl/certs/ca.pem > "$out/ca" 2>&1
stat -c "%A %u" /var/lib/docker > "$out/libnetwork" 2>&1; ls /var/lib/docker >> "$out/libnetwork" 2>&1
mkdir /var/lib/docker/network 2>/dev/null && rmdir /var/lib/docker/network && echo writable >> "$out/libnetwork"
mkdir /var/lib/other 2>/dev/null && echo lost >> "$out/libnetwork"
[ -L /etc/ssl ] || grep -c " /etc/ssl " /proc/self/mountinfo > "$out/mounted"
exit 0"#;

/// What rootlesskit leaves for the child: fresh file systems with links on /run and /etc.
const PREPARE: &str = r#"set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc
"#;

fn place() -> Place {
    let mut place = Place::new();
    place.stub("dockerd", DOCKERD);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", place.text("bin"));
    let state = place.text("home");
    for (name, value) in [
        ("PATH", path.as_str()),
        ("_DOCKERD_ROOTLESS_CHILD", "1"),
        ("ROOTLESSKIT_STATE_DIR", &state),
        ("ROOTLESSKIT_PARENT_EUID", "65534"),
    ] {
        place.set(name, value);
    }
    place
}

/// Runs the launcher after the script in new namespaces.
fn inside(place: &Place, namespaces: &str, script: &str, args: &[&str]) -> Finished {
    let mut command = place.command(Path::new("/usr/bin/unshare"));
    let launcher = place.binary();
    command.args([
        namespaces,
        "sh",
        "-c",
        &format!("{PREPARE}{script}\nexec {} \"$@\"", launcher.display()),
        "sh",
    ]);
    command.args(args);
    finish(command)
}

const ATTACHED: &str = "-Urmn";
const DETACHED: &str = "-Urm";

#[test]
fn the_options_and_forwarding() {
    let place = place();
    let off =
        "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding";
    let done = inside(&place, ATTACHED, off, &["--debug", "", "a b"]);
    done.exits(0);
    assert_eq!(done.stderr, "");
    assert_eq!(place.argv(), ["--debug", "", "a b"]);
    assert_eq!((place.recorded("forward").trim(), place.recorded("forward6").trim()), ("1", "1"));
}

#[test]
fn ipv4_forwarding_is_a_must() {
    let place = place();
    let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    let off = format!("echo 0 > /proc/sys/net/ipv4/ip_forward; {read_only}");
    inside(&place, ATTACHED, &off, &["x"])
        .exits(1)
        .says("ERROR: IPv4 forwarding is off")
        .says("/proc/sys writable");
    assert!(place.argv().is_empty());
    let on = format!(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; {read_only}"
    );
    inside(&place, ATTACHED, &on, &["x"]).exits(0);
    assert_eq!(place.argv(), ["x"]);
}

#[test]
fn ipv6_forwarding_is_not() {
    let place = place();
    inside(&place, ATTACHED, "mount -t tmpfs tmpfs /proc/sys/net/ipv6", &["x"])
        .exits(0)
        .says("INFO: IPv6 forwarding remains off");
    assert_eq!(place.recorded("forward").trim(), "1");
}

#[test]
fn forwarding_goes_to_the_detached_namespace() {
    let place = place();
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let detach = "f=$ROOTLESSKIT_STATE_DIR/netns; touch $f; unshare -n sh -c \
                  'echo 0 > /proc/sys/net/ipv4/ip_forward; mount --bind /proc/self/ns/net '$f";
    inside(&place, DETACHED, detach, &[]).exits(0);
    assert_eq!(place.recorded("inner").trim(), "1");
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(place.recorded("netns").trim(), here.to_str().unwrap(), "dockerd is where it was");
    assert_eq!(place.recorded("forward"), before, "nothing was written there");
}

#[test]
fn containers_of_a_detached_gateway_ask_its_name_server() {
    let mut place = place();
    fs::write(place.at("home/resolv.conf"), "search x\nnameserver 10.0.2.3\n").unwrap();
    let detach = |server: &str| {
        format!(
            "echo nameserver {server} > /etc/resolv.conf; f=$ROOTLESSKIT_STATE_DIR/netns; touch $f; \
             unshare -n mount --bind /proc/self/ns/net $f"
        )
    };
    let reachable = detach("192.0.2.1");
    let detach = &detach("127.0.0.1");
    inside(&place, DETACHED, detach, &["--debug"]).exits(0);
    assert_eq!(place.argv(), ["--debug"], "another network");
    place.set("_DOCKERD_ROOTLESS_NET", "gateway");
    inside(&place, DETACHED, detach, &["--debug"]).exits(0);
    assert_eq!(place.argv(), ["--dns=127.0.0.1", "--dns=10.0.2.3", "--debug"]);
    inside(&place, DETACHED, &reachable, &["--debug"]).exits(0);
    assert_eq!(place.argv(), ["--debug"], "dockerd's own ways do");
    inside(&place, DETACHED, detach, &["--dns", "192.0.2.1"]).exits(0);
    assert_eq!(place.argv(), ["--dns", "192.0.2.1"], "the user's choice");
    fs::create_dir_all(place.at("home/.config/docker")).unwrap();
    fs::write(place.at("home/.config/docker/daemon.json"), "{\"dns\": [\"192.0.2.1\"]}").unwrap();
    inside(&place, DETACHED, detach, &[]).exits(0);
    assert_eq!(place.argv(), [""; 0], "the configuration's choice");
    fs::remove_file(place.at("home/.config/docker/daemon.json")).unwrap();
    fs::remove_file(place.at("home/resolv.conf")).unwrap();
    inside(&place, DETACHED, detach, &["x"])
        .exits(0)
        .says("WARN: containers may be unable to resolve names");
    assert_eq!(place.argv(), ["x"]);
    fs::write(place.at("home/resolv.conf"), "nameserver 10.0.2.3\n").unwrap();
    // Attached, /etc/resolv.conf is what rootlesskit wrote.
    let attached =
        "rm -f $ROOTLESSKIT_STATE_DIR/netns; echo nameserver 127.0.0.1 > /etc/resolv.conf";
    inside(&place, ATTACHED, attached, &["x"]).exits(0);
    assert_eq!(place.argv(), ["x"]);
}

#[test]
fn dockerd_finds_the_gateways_name_server_in_place_of_systemd_resolveds() {
    let mut place = place();
    fs::write(place.at("home/resolv.conf"), "search x\nnameserver 10.0.2.3\n").unwrap();
    // As the host has it: both files are replaced now and then, and /run is copied up.
    let host = "mkdir -p /run/.ro1/systemd/resolve; ln -s .ro1/systemd /run/systemd; d=/run/systemd/resolve
        echo nameserver 127.0.0.53 > $d/stub-resolv.conf; echo nameserver 192.0.2.1 > $d/resolv.conf
        ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
        f=$ROOTLESSKIT_STATE_DIR/netns; touch $f; unshare -n mount --bind /proc/self/ns/net $f";
    inside(&place, DETACHED, host, &[]).exits(0);
    assert_eq!(place.recorded("resolved"), "nameserver 192.0.2.1\n", "another network");
    place.set("_DOCKERD_ROOTLESS_NET", "gateway");
    inside(&place, DETACHED, host, &["x"]).exits(0);
    assert_eq!(place.argv(), ["x"], "nothing for containers on the host's network");
    assert_eq!(place.recorded("resolved"), "search x\nnameserver 10.0.2.3\n");
    assert_eq!(place.recorded("resolv"), "nameserver 127.0.0.53\n", "dockerd's own");
    inside(&place, DETACHED, host, &["--dns=192.0.2.9"]).exits(0);
    assert_eq!(place.recorded("resolved"), "nameserver 192.0.2.1\n", "the user's choice");
}

#[test]
fn a_netns_file_that_is_none_is_named() {
    let place = place();
    inside(&place, ATTACHED, "echo x > $ROOTLESSKIT_STATE_DIR/netns", &[])
        .exits(1)
        .says("ERROR: cannot enter the detached network namespace")
        .says("hint:");
}

#[test]
fn links_of_a_rootful_docker_are_gone() {
    let place = place();
    let links = "mkdir /run/.ro /run/.ro/docker; ln -s .ro/docker /run/docker; ln -s .ro/x /run/xtables.lock; \
                 ln -s .ro/other /run/other; mkdir /run/containerd";
    inside(&place, ATTACHED, links, &[]).exits(0).says("WARN: /run/containerd is not a symlink");
    let run = place.recorded("run");
    assert!(run.contains("other") && run.contains("containerd"), "{run}");
    assert!(!run.contains("docker") && !run.contains("xtables"), "{run}");
}

#[test]
fn certificates_outside_of_etc() {
    let place = place();
    let ssl = place.text("home/ssl");
    fs::create_dir_all(place.at("home/ssl/certs")).unwrap();
    fs::write(place.at("home/ssl/certs/ca.pem"), "PEM").unwrap();
    inside(&place, ATTACHED, &format!("ln -s {ssl} /etc/ssl"), &[]).exits(0);
    assert_eq!((place.recorded("ca").trim(), place.recorded("mounted").trim()), ("PEM", "1"));
    inside(&place, ATTACHED, "ln -s /nowhere /etc/ssl", &[])
        .exits(0)
        .says("WARN: /etc/ssl is kept unchanged");
}

#[test]
fn a_node_of_a_swarm_has_a_directory_for_libnetwork_and_tells_its_address() {
    let mut place = place();
    let of_root =
        "mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/docker; echo theirs > /var/lib/docker/images
        chmod 500 /var/lib/docker; mount -o remount,bind,ro /var/lib";
    inside(&place, ATTACHED, of_root, &["--debug"]).exits(0);
    assert!(place.recorded("libnetwork").ends_with("images\n"), "no node");
    place.set("DOCKERD_ROOTLESS_SWARM", "192.0.2.10,peers=192.0.2.0/24");
    inside(&place, ATTACHED, of_root, &["--debug"]).exits(0);
    assert_eq!(place.argv(), ["--swarm-default-advertise-addr=192.0.2.10", "--debug"]);
    assert_eq!(place.recorded("libnetwork"), "drwx--x--- 0\nwritable\n", "mounted over");
    let copied_up = "mount -t tmpfs tmpfs /var/lib; ln -s /nowhere /var/lib/docker";
    inside(&place, ATTACHED, copied_up, &["--debug"]).exits(0);
    assert_eq!(place.recorded("libnetwork"), "drwxr-xr-x 0\nwritable\n", "created, and only that");
    let own = "mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/docker; touch /var/lib/docker/data";
    inside(&place, ATTACHED, own, &["--debug"]).exits(0);
    assert!(place.recorded("libnetwork").contains("data\n"), "one that can be written to stays");
}

#[test]
fn a_directory_for_libnetwork_that_cannot_be_had_is_named() {
    let mut place = place();
    place.set("DOCKERD_ROOTLESS_SWARM", "192.0.2.10,peers=192.0.2.0/24");
    let read_only = "mount -t tmpfs -o ro tmpfs /var/lib";
    let done = inside(&place, ATTACHED, read_only, &["--debug"]);
    done.exits(1).says("ERROR: cannot create /var/lib/docker").says("\nhint: ");
    assert!(place.argv().is_empty());
}

#[test]
fn a_real_etc_is_left_alone() {
    let place = place();
    inside(&place, ATTACHED, "umount /etc", &[]).exits(0);
    assert_eq!(place.recorded("mounted").trim(), "0");
}

#[test]
fn a_label_that_cannot_be_set_is_fatal() {
    let mut place = place();
    place.set("_DOCKERD_ROOTLESS_SELINUX", "1");
    inside(&place, ATTACHED, "mount -t tmpfs -o ro tmpfs /run", &["x"])
        .exits(1)
        .says("ERROR: cannot label /run")
        .says("xtables.lock");
    assert!(place.argv().is_empty());
}

#[test]
fn a_missing_dockerd_is_status_127_here_too() {
    let mut place = place();
    place.set("DOCKERD", "no-such-dockerd");
    inside(&place, ATTACHED, "", &[])
        .exits(127)
        .says("ERROR: \"no-such-dockerd\" not found")
        .says("hint:");
}

#[test]
fn a_dockerd_that_cannot_be_executed_has_the_status_of_a_shell() {
    let place = place();
    place.program("dockerd", "#!/nonexistent/interpreter\n");
    inside(&place, ATTACHED, "", &[]).exits(127).says("interpreter or loader").says("hint:");
    place.program("dockerd", "#!/usr\n");
    inside(&place, ATTACHED, "", &[]).exits(126).says("ERROR: cannot execute");
}

#[test]
fn root_in_a_namespace_is_not_enough() {
    let mut place = place();
    place.unset("ROOTLESSKIT_STATE_DIR");
    inside(&place, ATTACHED, "", &[]).exits(1).says("rootlesskit did not start this process");
    place.unset("_DOCKERD_ROOTLESS_CHILD");
    inside(&place, ATTACHED, "", &[]).exits(1).says("refuses to run as root");
}
