use super::Host;
use super::Severity::{Advisory, Class};
use super::{Case, all, case};
use crate::findings::limits::predict;
use crate::findings::{Wish, diagnose};
use crate::probe::Probe;

const V1: &str = "32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

fn delegate(host: &Host, controllers: &str) {
    let uid = host.world.uid;
    let file =
        format!("sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers");
    host.write(&file, controllers);
}

/// What the user's slice has, above the service manager.
fn in_slice(host: &Host, controllers: &str) {
    let file = format!("sys/fs/cgroup/user.slice/user-{}.slice/cgroup.controllers", host.world.uid);
    host.write(&file, controllers);
}

#[test]
fn situations_of_control_groups() {
    all(&control_groups());
}

pub(super) fn control_groups() -> Vec<Case> {
    vec![
        case(
            "only memory and pids are delegated, and lingering is on",
            Class,
            "cgroup-delegation",
            ".service, which ends all services and containers of jo",
            |h| delegate(h, "memory pids\n"),
        ),
        case(
            "only memory and pids are delegated, and lingering is off",
            Class,
            "cgroup-delegation linger",
            "then log out of all sessions and in again, or reboot",
            |h| {
                h.remove("var/lib/systemd/linger/jo");
                delegate(h, "memory pids\n");
            },
        ),
        case(
            "only memory and pids are delegated on NixOS",
            Class,
            "cgroup-delegation",
            "systemd.services.\"user@\".serviceConfig.Delegate",
            |h| {
                h.os("ID=nixos\n");
                delegate(h, "memory pids\n");
            },
        ),
        case(
            "Debian 10's systemd cannot delegate cpuset",
            Class,
            "cgroup-delegation",
            "cpuset, upgrade systemd to 244 or later",
            |h| {
                h.says("systemctl", "systemd 241 (241)\n+PAM +AUDIT");
                delegate(h, "memory pids\n");
            },
        ),
        case(
            "a container's host uses hybrid cgroups",
            Class,
            "cgroup-controllers",
            "unified_cgroup_hierarchy",
            |h| {
                h.write("sys/fs/cgroup/cgroup.controllers", "memory pids\n");
                delegate(h, "memory pids\n");
            },
        ),
        case(
            "the host uses cgroup v1",
            Class,
            "cgroup-v1",
            "systemd.unified_cgroup_hierarchy=1",
            |h| {
                h.write("proc/self/mountinfo", V1);
            },
        ),
        case(
            "openSUSE uses cgroup v1",
            Class,
            "cgroup-v1",
            "grub2-mkconfig -o /boot/grub2/grub.cfg",
            |h| {
                h.os("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n");
                h.write("proc/self/mountinfo", V1);
            },
        ),
        case(
            "Fedora uses cgroup v1",
            Class,
            "cgroup-v1",
            "grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1",
            |h| {
                h.os("ID=fedora\n");
                h.write("proc/self/mountinfo", V1);
            },
        ),
        case(
            "the host uses cgroup v1, without systemd",
            Class,
            "cgroup-v1",
            "rc_cgroup_mode",
            |h| {
                h.without_systemd();
                h.write("proc/self/mountinfo", V1);
            },
        ),
        case("the host has no systemd", Advisory, "no-systemd", "", |h| h.without_systemd()),
    ]
}

#[test]
fn options_that_are_not_ignored_but_fail() {
    let host = Host::healthy();
    delegate(&host, "memory pids\n");
    in_slice(&host, "io memory pids\n");
    let facts = host.facts();
    let why = predict(&facts).into_iter().map(|limit| limit.why_not.unwrap_or_default());
    let fails: Vec<bool> = why.map(|why| why.ends_with("does not start")).collect();
    assert_eq!(fails, [true, false, true, false, false]);
    let findings = diagnose(&facts, Wish::default());
    assert_eq!(
        findings[0].seen,
        "not delegated to the user: cpu, cpuset, io; ignored: --cpuset-cpus; \
         containers do not start with: --cpus, --device-read-bps, --device-write-bps"
    );
}

/// Which options are said to work.
fn working(prepare: impl Fn(&mut Host)) -> String {
    let mut host = Host::healthy();
    prepare(&mut host);
    let limits = predict(&host.facts());
    assert!(limits.iter().all(|limit| limit.works == limit.why_not.is_none()));
    let names = limits.iter().filter(|limit| limit.works).map(|limit| limit.controller);
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_docker_run_will_do() {
    assert_eq!(working(|_| {}), "cpu cpuset io memory pids");
    assert_eq!(working(|h| delegate(h, "cpu memory pids\n")), "cpu memory pids");
    assert_eq!(working(|h| delegate(h, "memory pids\n")), "memory pids");
    assert_eq!(working(|h| h.remove("sys/fs/cgroup")), "");
    assert_eq!(working(|h| h.write("sys/fs/cgroup/cgroup.controllers", "pids\n")), "pids");
    assert_eq!(working(|h| h.write("proc/self/mountinfo", V1)), "");
    assert_eq!(working(|h| h.fails(Probe::UserManager, "no bus")), "");
    assert_eq!(working(Host::without_systemd), "");
    let overlay_fails = |h: &mut Host| h.fails(Probe::Overlay, "EPERM");
    assert_eq!(working(overlay_fails), "cpu cpuset io memory pids");
    let by_fuse = |h: &mut Host| {
        overlay_fails(h);
        h.program("bin/fuse-overlayfs");
    };
    assert_eq!(working(by_fuse), "cpu cpuset memory pids");
    let told = |driver: &'static str| {
        move |h: &mut Host| {
            by_fuse(h);
            h.write(
                "home/.config/docker/daemon.json",
                &format!("{{\"storage-driver\": \"{driver}\"}}"),
            );
        }
    };
    assert_eq!(working(told("vfs")), "cpu cpuset io memory pids");
    assert_eq!(working(told("fuse-overlayfs")), "cpu cpuset memory pids");
    for (version, loses) in [
        ("20.10.24+dfsg1", false),
        ("23.0.0", true),
        ("25.0.6", true),
        ("25.0.7", false),
        ("26.1.5+dfsg1", true),
        ("27.1.1", true),
        ("27.1.2", false),
        ("28.5.2", false),
    ] {
        let host = |h: &mut Host| h.says("docker", &format!("Docker version {version}, build x\n"));
        assert_eq!(working(host).contains("io"), !loses, "{version}");
    }
}
