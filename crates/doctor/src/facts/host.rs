//! The kernel, its parameters and devices, and control groups.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use cgroup2::{Delegation, Mode};
use hostenv::selinux::Selinux;
use hostenv::{namespaces, vars};
use nix::libc;

use super::Container;
use super::variables::UserSettings;
use crate::place::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Missing,
    /// Its node exists, but the kernel has no such device: the module is not loaded, and opening the node does not load it.
    Driverless,
    Closed,
    Fine,
}

#[derive(Debug, Clone)]
pub struct Host {
    /// What calls itself the kernel; `None` without `/proc`.
    pub ostype: Option<String>,
    /// `uname -r` as text, and its first two numbers.
    pub release: String,
    pub kernel: Option<(u32, u32)>,
    pub userns_clone: Option<u64>,
    pub max_user_namespaces: Option<u64>,
    /// The other kinds of namespaces that containers need and nobody may make, as sysctls name them.
    pub forbidden_namespaces: Vec<&'static str>,
    pub apparmor_restricts: bool,
    pub apparmor_restricts_unconfined: bool,
    /// Text of the files in `/etc/apparmor.d`, to look a program's path up.
    pub apparmor_profiles: String,
    pub tun: Device,
    pub fuse: Device,
    pub bridge_netfilter: bool,
    pub ipv6: bool,
    /// First and last group id that may use ICMP sockets.
    pub ping_group_range: Option<(u64, u64)>,
    pub port_start: Option<u64>,
    /// How many inotify(7) instances, and watches, a user may have.
    pub inotify_instances: Option<u64>,
    pub inotify_watches: Option<u64>,
    pub selinux: Selinux,
    /// Where `/etc/resolv.conf` leads, if that is outside of `/etc` and `/run`, which a sandboxed slirp4netns sees; `None` if
    /// the user has turned the sandbox off.
    pub resolv_conf: Option<PathBuf>,
    pub container: Option<Container>,
    /// Hard limit of open files; `None` is none.
    pub nofile: Option<u64>,
}

impl Host {
    pub(super) fn gather(world: &World, settings: &UserSettings<'_>) -> Self {
        let release = world.text("proc/sys/kernel/osrelease").unwrap_or_default();
        let ping = world.text("proc/sys/net/ipv4/ping_group_range");
        Self {
            ostype: world.text("proc/sys/kernel/ostype"),
            kernel: version(&release),
            release,
            userns_clone: world.sysctl("kernel.unprivileged_userns_clone"),
            max_user_namespaces: world.sysctl("user.max_user_namespaces"),
            forbidden_namespaces: namespaces::KINDS
                .into_iter()
                .filter(|kind| world.sysctl(&namespaces::limit(kind)) == Some(0))
                .collect(),
            apparmor_restricts: world.sysctl("kernel.apparmor_restrict_unprivileged_userns")
                == Some(1),
            apparmor_restricts_unconfined: world
                .sysctl("kernel.apparmor_restrict_unprivileged_unconfined")
                == Some(1),
            apparmor_profiles: profiles(&world.at("etc/apparmor.d")),
            tun: device(&world.at("dev/net/tun")),
            fuse: device(&world.at("dev/fuse")),
            bridge_netfilter: world.at("proc/sys/net/bridge").is_dir(),
            ipv6: world.at("proc/sys/net/ipv6").is_dir(),
            ping_group_range: ping.as_deref().and_then(two_numbers),
            port_start: world.sysctl("net.ipv4.ip_unprivileged_port_start"),
            inotify_instances: world.sysctl("fs.inotify.max_user_instances"),
            inotify_watches: world.sysctl("fs.inotify.max_user_watches"),
            selinux: Selinux::of(&world.root),
            resolv_conf: resolv_conf(world, settings),
            container: Container::gather(world),
            nofile: world.text("proc/self/limits").as_deref().and_then(hard_nofile),
        }
    }

    /// Whether nobody may make namespaces of a kind.
    pub fn forbids(&self, kind: &str) -> bool {
        self.forbidden_namespaces.contains(&kind)
    }
}

/// `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn two_numbers(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_whitespace().map(str::parse);
    Some((words.next()?.ok()?, words.next()?.ok()?))
}

/// The line of proc_pid_limits(5); `unlimited` is none.
fn hard_nofile(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Profiles are small; files of a directory deeper down are parts of others.
fn profiles(dir: &Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else { return String::new() };
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    files.filter_map(|file| hostenv::file::text(&file).ok()).collect::<Vec<_>>().join("\n")
}

fn device(path: &Path) -> Device {
    let Err(error) = OpenOptions::new().read(true).write(true).open(path) else {
        return Device::Fine;
    };
    match error.raw_os_error() {
        Some(libc::ENOENT) => Device::Missing,
        Some(libc::ENODEV | libc::ENXIO) => Device::Driverless,
        _ => Device::Closed,
    }
}

fn resolv_conf(world: &World, settings: &UserSettings<'_>) -> Option<PathBuf> {
    let by_variable = || settings.variable(vars::DOCKERD_ROOTLESS_SLIRP4NETNS_SANDBOX);
    let sandbox = settings.flags.last("slirp4netns-sandbox").or_else(by_variable);
    if sandbox.is_some_and(|setting| setting.value == "false") {
        return None;
    }
    let target = fs::read_link(world.at("etc/resolv.conf")).ok()?;
    let target = Path::new("/etc").join(target);
    // `..` is the usual way out of /etc: ../run/systemd/resolve/stub-resolv.conf.
    let mut parts = PathBuf::new();
    for part in target.components() {
        if part == std::path::Component::ParentDir {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    let usual = ["/etc", "/run", "/var/run"].iter().any(|dir| parts.starts_with(dir));
    (!usual).then_some(parts)
}

#[derive(Debug, Clone)]
pub struct Cgroup {
    pub mode: Mode,
    /// What the user's service manager may hand out; `None` if it has no group.
    pub delegation: Option<Delegation>,
    /// The controllers of the user's slice, above the service manager. dockerd takes them for those it may use.
    pub slice: Vec<String>,
    /// The controllers that the whole host has on cgroup2.
    pub offered: Vec<String>,
}

impl Cgroup {
    pub fn gather(world: &World) -> Self {
        let mode = cgroup2::detect(&world.root).unwrap_or(Mode::None);
        let mountinfo = fs::read(world.at("proc/self/mountinfo")).unwrap_or_default();
        let group = cgroup2::group::user_service(world.uid);
        let mount = cgroup2::mountpoint(&mountinfo);
        let below = |group: &Path| {
            let dir = cgroup2::group::directory(mount.as_ref()?, group)?;
            Some(world.root.join(dir.strip_prefix("/").ok()?))
        };
        let controllers = |group: &Path| {
            let file = below(group).map(|dir| dir.join("cgroup.controllers"));
            let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        Self {
            mode,
            delegation: below(&group).and_then(|dir| cgroup2::delegation(&dir).ok()),
            slice: group.parent().map(controllers).unwrap_or_default(),
            offered: controllers(Path::new("/")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("4.18.0-553.el8_10.x86_64"), Some((4, 18)));
        assert_eq!(version("5.11-rc3"), Some((5, 11)));
        assert_eq!(version(""), None);
        assert_eq!(version("next"), None);
    }

    #[test]
    fn limits_and_ranges() {
        let text = "Limit  Soft Limit Hard Limit Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(hard_nofile(text), Some(524_288));
        assert_eq!(hard_nofile("Max open files  1024  unlimited  files"), None);
        assert_eq!(two_numbers("1\t0"), Some((1, 0)));
        assert_eq!(two_numbers("1"), None);
    }
}
