use nix::errno::Errno;

use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, all, case, remedy};
use crate::facts::{Home, Owner, Room};
use crate::findings::{Wish, diagnose};
use crate::probe::Probe;

#[test]
fn situations_of_the_data_directory() {
    all(&the_data_directory());
}

pub(super) fn the_data_directory() -> Vec<Case> {
    vec![
        case("the data root is on NFS", Class, "data-root-nfs", "data-root", |_| {})
            .facts(|facts| facts.storage.ownerless = Some("NFS")),
        case("the data root is on a Windows share", Class, "data-root-fs", "data-root", |_| {})
            .facts(|facts| facts.storage.ownerless = Some("SMB")),
        case(
            "daemon.json selects the storage driver btrfs for the containerd image store",
            Class,
            "storage-driver",
            "remove \"storage-driver\"",
            |h| {
                h.write(
                    "home/.config/docker/daemon.json",
                    r#"{"storage-driver": "btrfs", "features": {"containerd-snapshotter": true}}"#,
                );
            },
        ),
        case("Docker's classic storage driver btrfs is used", Class, "", "", |h| {
            h.write("home/.config/docker/daemon.json", r#"{"storage-driver": "btrfs"}"#);
        }),
        case("the user's quota is exhausted", Fatal, "quota-full", "quota -s", |_| {})
            .facts(|facts| facts.storage.room = Room::Full(Errno::EDQUOT)),
        case("the disk is full", Fatal, "space-full", "df -i", |_| {}).facts(|facts| {
            facts.storage.room = Room::Full(Errno::ENOSPC);
            facts.storage.free = Some(0);
        }),
        case("the quota is too small for an image", Advisory, "quota-low", "larger quota", |_| {})
            .facts(|facts| facts.storage.room = Room::Quota),
        case(
            "the data root cannot be created",
            Fatal,
            "data-root-closed",
            "sudo install -d -m 0710 -o jo ",
            |_| {},
        )
        .facts(|facts| facts.storage.room = Room::Closed(Errno::EACCES)),
        case(
            "rootful Docker left the data root behind",
            Fatal,
            "data-root-closed",
            "needs the data that rootful Docker left there: sudo chown jo: ",
            |_| {},
        )
        .facts(|facts| {
            facts.storage.room = Room::Closed(Errno::EACCES);
            facts.storage.owner = Owner::Intruder;
        }),
        case(
            "the data root belongs to the user but is not writable",
            Fatal,
            "data-root-closed",
            "chmod u+rwx ",
            |_| {},
        )
        .facts(|facts| {
            facts.storage.room = Room::Closed(Errno::EACCES);
            facts.storage.owner = Owner::User;
        }),
        case(
            "the data root belongs to another user",
            Fatal,
            "data-root-closed",
            "in ~/.config/docker/daemon.json, set \"data-root\"",
            |_| {},
        )
        .facts(|facts| {
            facts.storage.room = Room::Closed(Errno::EACCES);
            facts.storage.owner = Owner::Other;
        }),
        case(
            "the data root is on a read-only file system",
            Fatal,
            "data-root-closed",
            "in ~/.config/docker/daemon.json, set \"data-root\"",
            |_| {},
        )
        .facts(|facts| facts.storage.room = Room::Closed(Errno::EROFS)),
        case("HOME is read-only (reported once)", Fatal, "home-read-only", "", |_| {}).facts(
            |facts| {
                facts.account.home = Home::ReadOnly("/home/jo".into());
                facts.storage.room = Room::Closed(Errno::EROFS);
            },
        ),
        case("little disk space is left", Advisory, "space-low", "data-root", |_| {})
            .facts(|facts| facts.storage.free = Some(5 << 20)),
    ]
}

/// Nothing that somebody else may need is given away, and nothing is proposed that root cannot do either.
#[test]
fn only_what_is_the_users_own_is_opened() {
    let commands = |owner, errno| {
        let host = Host::healthy();
        let mut facts = host.facts();
        facts.storage.owner = owner;
        facts.storage.room = Room::Closed(errno);
        let findings = diagnose(&facts, Wish::default());
        findings.iter().map(|finding| remedy(finding).join("\n")).collect::<String>()
    };
    let changes = |text: &str| ["install", "chown", "chmod"].iter().any(|verb| text.contains(verb));
    assert!(changes(&commands(Owner::Nobody, Errno::EACCES)));
    assert!(!changes(&commands(Owner::Other, Errno::EACCES)));
    for errno in [Errno::EROFS, Errno::EPERM] {
        for owner in [Owner::Nobody, Owner::User, Owner::Intruder] {
            assert!(!changes(&commands(owner, errno)), "{errno} {owner:?}");
        }
    }
}

#[test]
fn the_owner_of_the_data_directory() {
    let mut host = Host::healthy();
    host.world.uid = nix::unistd::geteuid().as_raw();
    let owner = |host: &Host| host.facts().storage.owner;
    assert_eq!(owner(&host), Owner::Nobody);
    host.write("home/.local/share/docker/x", "");
    assert_eq!(owner(&host), Owner::User);
    host.world.uid += 1;
    assert_eq!(owner(&host), Owner::Intruder);
    // What was chosen, and what a link leads to.
    let chosen = format!("{{\"data-root\": \"{}\"}}", host.at("home/.local").display());
    host.write("home/.config/docker/daemon.json", &chosen);
    assert_eq!(owner(&host), Owner::Other);
    host.remove("home/.config");
    host.remove("home/.local/share/docker");
    host.link("home/.local/share/docker", host.at("var").to_str().unwrap());
    assert_eq!(owner(&host), Owner::Other);
    host.remove("var");
    assert_eq!(owner(&host), Owner::Other, "a link to nothing");
}

#[test]
fn situations_of_security_modules_containers_and_limits() {
    all(&security_modules_containers_and_limits());
}

pub(super) fn security_modules_containers_and_limits() -> Vec<Case> {
    vec![
        case("SELinux is enforcing on Fedora", Advisory, "selinux", "container-selinux", |h| {
            h.os("ID=fedora\nVERSION_ID=42\n");
            h.selinux("1");
        }),
        case("SELinux is enforcing on Debian", Advisory, "selinux", "", |h| {
            h.selinux("1");
        }),
        case("SELinux is permissive", Advisory, "selinux", "", |h| {
            h.selinux("0");
        }),
        case("the kernel has SELinux, and no policy is loaded", Advisory, "", "", |h| {
            h.selinux("0");
            h.write("proc/self/attr/current", "kernel\0");
        }),
        case(
            "this machine is a Podman container",
            Class,
            "proc-masked in-container",
            "--privileged",
            |h| {
                h.write("run/.containerenv", "");
                h.fails(Probe::Proc, "mount: /proc: permission denied.");
            },
        ),
        case(
            "this machine is an LXC container",
            Class,
            "proc-masked in-container",
            "security.nesting=true",
            |h| {
                h.write("run/systemd/container", "lxc\n");
                h.fails(Probe::Proc, "mount: /proc: permission denied.");
            },
        ),
        case(
            "this machine is a Kubernetes pod",
            Class,
            "proc-masked in-container",
            "procMount: Unmasked",
            |h| {
                h.set("KUBERNETES_SERVICE_HOST", "10.96.0.1");
                h.fails(Probe::Proc, "mount: /proc: permission denied.");
            },
        ),
        case(
            "only the ID map shows that this machine is a container",
            Advisory,
            "in-container",
            "",
            |h| {
                h.write("proc/self/uid_map", "0 1000000 1000000\n");
                h.write("proc/self/gid_map", "0 1000000 1000000\n");
            },
        ),
        case(
            "this machine is a systemd-nspawn container in which everything works",
            Advisory,
            "in-container",
            "",
            |h| {
                h.write("run/systemd/container", "systemd-nspawn\n");
            },
        ),
        case(
            "the limit on inotify instances is low",
            Advisory,
            "inotify-low",
            "fs.inotify.max_user_instances = 1024",
            |h| h.write("proc/sys/fs/inotify/max_user_instances", "64\n"),
        ),
        case(
            "the limit on inotify watches is low",
            Advisory,
            "inotify-low",
            "/etc/sysctl.d/55-rootless-inotify.conf",
            |h| {
                h.write("proc/sys/fs/inotify/max_user_instances", "128\n");
                h.write("proc/sys/fs/inotify/max_user_watches", "8191\n");
            },
        ),
        case(
            "the open-file limit is low",
            Advisory,
            "nofile-low",
            "echo 'jo hard nofile 65536'",
            |h| {
                h.write("proc/self/limits", "Max open files 1024 4096 files\n");
            },
        ),
        case(
            "the open-file limit is low on NixOS",
            Advisory,
            "nofile-low",
            "{ domain = \"jo\"; type = \"hard\"; item = \"nofile\"; value = \"65536\"; }",
            |h| {
                h.os("ID=nixos\n");
                h.write("proc/self/limits", "Max open files 1024 4096 files\n");
            },
        ),
        case(
            "the open-file limit is low on Alpine",
            Advisory,
            "nofile-low no-systemd",
            "rc_ulimit=\"-n 65536\"",
            |h| {
                h.os("ID=alpine\n");
                h.without_systemd();
                h.write("proc/self/limits", "Max open files 1024 4096 files\n");
            },
        ),
        case(
            "the open-file limit is low in a container",
            Advisory,
            "nofile-low in-container",
            "--ulimit nofile=65536:65536",
            |h| {
                h.write(".dockerenv", "");
                h.write("proc/self/limits", "Max open files 1024 4096 files\n");
            },
        ),
        case(
            "the open-file limit is too low for rootlesskit",
            Fatal,
            "nofile-low",
            "> /etc/security/limits.d/rootless-",
            |h| {
                h.write("proc/self/limits", "Max open files 24 24 files\n");
            },
        ),
    ]
}
