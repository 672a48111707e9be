//! Situations of overlayfs and what replaces it, and which storage driver dockerd takes.

use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, all, case};
use crate::facts::Device;
use crate::findings::storage_driver;
use crate::probe::{Outcome, Probe};

const EPERM: &str = "mount: m: permission denied.";
const NO_CLONE3: &str =
    "error: failed to start the child: fork/exec /proc/self/exe: function not implemented";
const DAEMON_JSON: &str = "home/.config/docker/daemon.json";
const DATA_ROOT: &str = "home/.local/share/docker";

/// A storage driver, and what has to be the case for it.
#[test]
fn the_storage_driver_is_the_one_that_dockerd_would_take() {
    type Change = fn(&mut Host);
    let driver = |version: &str, changes: &[Change], btrfs: bool| {
        let mut h = Host::healthy();
        h.prober.answers.insert("dockerd", format!("Docker version {version}, build x"));
        changes.iter().for_each(|change| change(&mut h));
        let mut facts = h.facts();
        facts.storage.btrfs = btrfs;
        storage_driver(&facts).map(str::to_owned)
    };
    let no_overlay: Change = |h| h.fails(Probe::Overlay, EPERM);
    let nobody_tried: Change = |h| drop(h.prober.outcomes.insert(Probe::Overlay, Outcome::Unknown));
    let fuse: Change = |h| h.program("bin/fuse-overlayfs");
    let selinux: Change = |h| h.selinux("1");
    let permissive: Change = |h| h.selinux("0");
    let named: Change = |h| h.write(DAEMON_JSON, r#"{"storage-driver": "vfs"}"#);
    let containerd: Change =
        |h| h.write(DAEMON_JSON, r#"{"features": {"containerd-snapshotter": true}}"#);
    let classic: Change =
        |h| h.write(DAEMON_JSON, r#"{"features": {"containerd-snapshotter": false}}"#);
    let empty: Change =
        |h| std::fs::create_dir_all(h.at(DATA_ROOT).join("fuse-overlayfs")).expect("a directory");
    let by_fuse: Change = |h| h.write(&format!("{DATA_ROOT}/fuse-overlayfs/l/x"), "");
    let copied: Change = |h| h.write(&format!("{DATA_ROOT}/vfs/dir/x"), "");
    for (version, changes, btrfs, expected) in [
        ("26.1.5+dfsg1", &[][..], false, Some("overlay2")),
        ("26.1.5", &[], true, Some("overlay2")),
        ("20.10.24", &[], true, Some("btrfs")),
        ("20.10.24", &[], false, Some("overlay2")),
        ("26.1.5", &[no_overlay], false, Some("vfs")),
        ("26.1.5", &[no_overlay], true, Some("btrfs")),
        ("26.1.5", &[no_overlay, fuse], true, Some("fuse-overlayfs")),
        ("26.1.5", &[selinux], false, Some("vfs")),
        ("26.1.5", &[selinux, fuse], false, Some("fuse-overlayfs")),
        ("26.1.5", &[permissive], false, Some("vfs")),
        ("26.1.5", &[permissive, fuse], false, Some("fuse-overlayfs")),
        ("26.1.5", &[by_fuse], false, Some("fuse-overlayfs")),
        ("26.1.5", &[empty], false, Some("overlay2")),
        ("26.1.5", &[copied], false, Some("overlay2")),
        ("26.1.5", &[named], false, Some("vfs")),
        ("26.1.5", &[nobody_tried], false, None),
        ("28.5.2", &[containerd], false, Some("overlayfs")),
        ("29.6.1", &[], false, Some("overlayfs")),
        ("29.6.1", &[selinux], false, Some("overlayfs")),
        ("29.6.1", &[no_overlay, fuse], false, Some("native")),
        ("29.6.1", &[no_overlay, fuse, classic], false, Some("fuse-overlayfs")),
        ("29.6.1", &[by_fuse], false, Some("fuse-overlayfs")),
        ("29.6.1", &[nobody_tried], false, None),
        ("unknown", &[], false, None),
    ] {
        let found = driver(version, changes, btrfs);
        assert_eq!(found.as_deref(), expected, "{version}, {} changes, {btrfs}", changes.len());
    }
}

#[test]
fn situations_of_storage() {
    all(&storage());
}

pub(super) fn storage() -> Vec<Case> {
    vec![
        case(
            "Debian 11 with Linux 5.10 has no usable overlayfs",
            Class,
            "overlay",
            "apt-get install -y fuse-overlayfs",
            |h| {
                h.os("ID=debian\nVERSION_ID=\"11\"\n");
                h.write("proc/sys/kernel/osrelease", "5.10.0-33-amd64\n");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case(
            "overlayfs does not work on Arch",
            Class,
            "overlay",
            "pacman -S --noconfirm --needed fuse-overlayfs",
            |h| {
                h.os("ID=arch\n");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case(
            "overlayfs does not work on openSUSE",
            Class,
            "overlay",
            "zypper --non-interactive install fuse-overlayfs",
            |h| {
                h.os("ID=opensuse-tumbleweed\n");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case(
            "overlayfs does not work on RHEL 8",
            Class,
            "overlay",
            "dnf install -y fuse-overlayfs",
            |h| {
                h.os("ID=\"rhel\"\nVERSION_ID=\"8.10\"\n");
                h.write("proc/sys/kernel/osrelease", "4.18.0-553.el8_10.x86_64\n");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case("overlayfs does not work, but fuse-overlayfs is installed", Class, "", "", |h| {
            h.program("bin/fuse-overlayfs");
            h.fails(Probe::Overlay, EPERM);
        }),
        case(
            "overlayfs does not work, and Docker 29 cannot use fuse-overlayfs in the containerd image store",
            Class,
            "overlay",
            "\"features\": {\"containerd-snapshotter\": false}",
            |h| {
                h.says("dockerd", "Docker version 29.6.1, build x");
                h.program("bin/fuse-overlayfs");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case(
            "overlayfs does not work, and Docker 29 is set up for the classic image store",
            Class,
            "",
            "",
            |h| {
                h.says("dockerd", "Docker version 29.6.1, build x");
                h.program("bin/fuse-overlayfs");
                h.write(DAEMON_JSON, r#"{"features": {"containerd-snapshotter": false}}"#);
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case(
            "overlayfs does not work, and Docker 29 finds images of the classic image store",
            Class,
            "",
            "",
            |h| {
                h.says("dockerd", "Docker version 29.6.1, build x");
                h.program("bin/fuse-overlayfs");
                h.write(&format!("{DATA_ROOT}/fuse-overlayfs/l/x"), "");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case("/dev/fuse does not exist", Class, "fuse-closed", "modprobe fuse", |h| {
            h.program("bin/fuse-overlayfs");
            h.remove("dev/fuse");
            h.fails(Probe::Overlay, EPERM);
        }),
        case(
            "neither fuse-overlayfs nor /dev/fuse exists",
            Class,
            "overlay",
            "modprobe fuse",
            |h| {
                h.remove("dev/fuse");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case(
            "/dev/fuse does not exist in a container",
            Class,
            "fuse-closed in-container",
            "as root, on this container's host: modprobe fuse",
            |h| {
                h.write(".dockerenv", "");
                h.program("bin/fuse-overlayfs");
                h.remove("dev/fuse");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case(
            "/dev/fuse does not exist in an LXC container",
            Class,
            "fuse-closed in-container",
            "lxc.mount.entry = /dev/fuse dev/fuse none",
            |h| {
                h.write("run/systemd/container", "lxc\n");
                h.program("bin/fuse-overlayfs");
                h.remove("dev/fuse");
                h.fails(Probe::Overlay, EPERM);
            },
        ),
        case("/dev/fuse is not accessible", Class, "fuse-closed", "chmod 0666 /dev/fuse", |h| {
            h.program("bin/fuse-overlayfs");
            h.fails(Probe::Overlay, EPERM);
        })
        .facts(|facts| facts.host.fuse = Device::Closed),
        case(
            "SELinux is on, and fuse-overlayfs is not installed",
            Class,
            "overlay selinux",
            "apt-get install -y fuse-overlayfs",
            |h| {
                h.says("dockerd", "Docker version 28.5.2, build x");
                h.selinux("0");
            },
        ),
        case("SELinux is on, and fuse-overlayfs is installed", Advisory, "selinux", "", |h| {
            h.says("dockerd", "Docker version 28.5.2, build x");
            h.program("bin/fuse-overlayfs");
            h.selinux("1");
        }),
        case("SELinux is on, and Docker 29 uses overlayfs", Advisory, "selinux", "", |h| {
            h.says("dockerd", "Docker version 29.6.1, build x");
            h.selinux("1");
        }),
        case(
            "SELinux is on, and the data root has images of overlay2",
            Fatal,
            "overlay-selinux selinux",
            "set \"storage-driver\" to \"fuse-overlayfs\"",
            |h| {
                h.says("dockerd", "Docker version 28.5.2, build x");
                h.program("bin/fuse-overlayfs");
                h.selinux("0");
                h.write(&format!("{DATA_ROOT}/overlay2/l/x"), "");
            },
        ),
        case(
            "SELinux is on, and daemon.json selects overlay2",
            Fatal,
            "overlay-selinux selinux",
            "apt-get install -y fuse-overlayfs",
            |h| {
                h.says("dockerd", "Docker version 28.5.2, build x");
                h.selinux("1");
                h.write(DAEMON_JSON, r#"{"storage-driver": "overlay2"}"#);
            },
        ),
        case("an old Ubuntu kernel allows overlayfs", Class, "", "", |h| {
            h.write("proc/sys/kernel/osrelease", "5.4.0-150-generic\n");
        }),
        case("CentOS 7 runs Linux 3.10", Fatal, "kernel-old", "upgrade", |h| {
            h.write("proc/sys/kernel/osrelease", "3.10.0-1160.el7.x86_64\n");
            h.fails(Probe::Namespaces, NO_CLONE3);
        }),
        case("the host runs Linux 5.2", Fatal, "kernel-old", "upgrade", |h| {
            h.write("proc/sys/kernel/osrelease", "5.2.21\n");
            h.fails(Probe::Namespaces, NO_CLONE3);
        }),
        case("an older kernel has the needed features as backports", Fatal, "", "", |h| {
            h.write("proc/sys/kernel/osrelease", "4.18.0-553.el8_10.x86_64\n");
        }),
    ]
}
