//! Which limits of `docker run` will hold.
//!
//! dockerd sets limits through systemd on cgroup2, within what the user's service manager was given (delegation). On
//! anything else it has no cgroup driver, warns, and ignores the options. What it believes to have been given are the
//! controllers of the user's slice: one that the slice has, but not the service manager, makes a container fail. Without
//! the controller `cpu`, it refuses `--cpus` and only warns about other limits (`verifyPlatformContainerResources()` in
//! moby's daemon/daemon_unix.go).

use std::ops::Range;

use cgroup2::Mode;
use serde::Serialize;

use super::{Finding, Wish, session, storage_driver};
use crate::distro::Family;
use crate::facts::Facts;
use crate::probe::Probe;

/// An option, and whether it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub option: &'static str,
    pub controller: &'static str,
    pub works: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// Whether a container with this option does not start. Otherwise, the option is ignored where it does not work.
    #[serde(skip)]
    pub fails: bool,
}

/// The first systemd that delegates cpuset.
const CPUSET_SINCE: u32 = 244;

/// What becomes of an option whose controller is there for the user's slice alone.
const FAILS: &str = "Docker sees the controller in the user's slice, so a container with this option does not start";
/// What becomes of `--cpus` without its controller.
const REFUSED: &str = "Docker refuses the option (\"NanoCPUs can not be set\"), so a container with this option does not start";

/// What becomes of limits of input and output with fuse-overlayfs.
const FUSE: &str = "fuse-overlayfs reads and writes the container's own files, which the limit does not apply to (it \
                    applies to volumes)";

/// Versions of the docker command that drop the options, as if they were not given.
const LOSES_IO: [Range<[u32; 3]>; 2] = [[23, 0, 0]..[25, 0, 7], [26, 0, 0]..[27, 1, 2]];

/// What is left where limits do not hold.
const INSTEAD: [&str; 3] = [
    "instead of --cpus, start the program with cpulimit, which the image must contain: docker run IMAGE cpulimit \
     --limit=50 --include-children COMMAND",
    "instead of --memory, run ulimit -v (in KiB) before the program: docker run IMAGE sh -c 'ulimit -v 1048576; COMMAND'",
    "instead of --pids-limit, limit the processes of a user: docker run --user 2000 --ulimit nproc=100 IMAGE COMMAND",
];

/// Where systemd sets cgroups up at boot. A container has those of its host.
fn boot_unified(facts: &Facts) -> String {
    let parameter = "systemd.unified_cgroup_hierarchy=1";
    let how = match facts.distro.family {
        Family::Nix => format!("in configuration.nix, add \"{parameter}\" to boot.kernelParams"),
        Family::Fedora | Family::Yum => {
            format!("as root, run grubby --update-kernel=ALL --args={parameter}")
        }
        Family::Debian => format!(
            "as root, add {parameter} to GRUB_CMDLINE_LINUX in /etc/default/grub, and run update-grub"
        ),
        Family::Suse => format!(
            "as root, add {parameter} to GRUB_CMDLINE_LINUX in /etc/default/grub, and run grub2-mkconfig -o /boot/grub2/grub.cfg"
        ),
        _ => format!(
            "as root, add {parameter} to the kernel command line (with GRUB: to GRUB_CMDLINE_LINUX in /etc/default/grub, then \
             run grub-mkconfig -o /boot/grub/grub.cfg)"
        ),
    };
    format!(
        "boot with cgroup v2 only: {how}, then reboot; if this machine is a container, do this on the container's host"
    )
}

const OPTIONS: [(&str, &str); 5] = [
    ("--cpus", "cpu"),
    ("--cpuset-cpus", "cpuset"),
    ("--device-read-bps, --device-write-bps", "io"),
    ("--memory", "memory"),
    ("--pids-limit", "pids"),
];

pub fn predict(facts: &Facts) -> Vec<Limit> {
    let obstacle = obstacle(facts);
    let limits = OPTIONS.into_iter().map(|(option, controller)| {
        let failing = match &obstacle {
            Some(obstacle) => Some((obstacle.clone(), false)),
            None => missing(facts, controller).or_else(|| evaded(facts, controller)),
        };
        let fails = failing.as_ref().is_some_and(|(_, fails)| *fails);
        let why_not = failing.map(|(why, _)| why);
        Limit { option, controller, works: why_not.is_none(), why_not, fails }
    });
    limits.collect()
}

/// Why dockerd, which sets limits through systemd, cannot use a controller, and whether a container then fails.
fn missing(facts: &Facts, controller: &str) -> Option<(String, bool)> {
    let is_in = |list: &[String]| list.iter().any(|name| name == controller);
    let delegation = facts.cgroup.delegation.as_ref();
    let why = if !is_in(&facts.cgroup.offered) {
        format!("this system has no {controller} controller on cgroup v2")
    } else if delegation.is_some_and(|delegation| is_in(&delegation.available)) {
        return None;
    } else {
        format!("the {controller} controller is not delegated to the user")
    };
    Some(match controller {
        _ if is_in(&facts.cgroup.slice) => (format!("{why}; {FAILS}"), true),
        "cpu" => (format!("{why}; {REFUSED}"), true),
        _ => (why, false),
    })
}

/// Why a limit does not hold although its controller is there: the docker command does not pass it on, or, with
/// fuse-overlayfs, a process of the daemon writes the container's files.
fn evaded(facts: &Facts, controller: &str) -> Option<(String, bool)> {
    if controller != "io" {
        return None;
    }
    let lost =
        facts.tools.docker_version.filter(|version| LOSES_IO.iter().any(|r| r.contains(version)));
    let lost = lost.map(|[major, minor, patch]| {
        format!(
            "docker {major}.{minor}.{patch} does not pass these options on to dockerd (https://github.com/docker/cli/issues/5321); \
             upgrade the docker command to 27.1.2 or later"
        )
    });
    let why = lost.or_else(|| storage_driver::by_fuse(facts).then(|| FUSE.to_owned()))?;
    Some((why, false))
}

fn obstacle(facts: &Facts) -> Option<String> {
    if facts.cgroup.mode != Mode::Unified {
        return Some("the host does not use pure cgroup v2".to_owned());
    }
    if !facts.works(Probe::UserManager) {
        return Some("the user has no systemd user manager".to_owned());
    }
    if !facts.account.bus && !facts.account.bus_unit {
        return Some(
            "the user has no D-Bus session, which dockerd uses to talk to systemd".to_owned(),
        );
    }
    None
}

fn lost(facts: &Facts) -> String {
    let limits = predict(facts).into_iter().filter(|limit| !limit.works);
    let (fail, ignored): (Vec<_>, Vec<_>) = limits.partition(|limit| limit.fails);
    let parts = [("ignored", ignored), ("containers do not start with", fail)];
    let parts = parts.iter().filter(|(_, limits)| !limits.is_empty()).map(|(what, limits)| {
        let options: Vec<&str> = limits.iter().map(|limit| limit.option).collect();
        format!("{what}: {}", options.join(", "))
    });
    parts.collect::<Vec<_>>().join("; ")
}

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let lost = lost(facts);
    if lost.is_empty() {
        return;
    }
    if facts.cgroup.mode != Mode::Unified {
        let finding = Finding::class(
            "cgroup-v1",
            format!("this host does not use pure cgroup v2; {lost}"),
            "unprivileged users cannot manage cgroup v1 (Cgroup Driver: none)",
        );
        let how = if facts.account.systemd {
            boot_unified(facts)
        } else {
            "mount only cgroup2 at /sys/fs/cgroup (OpenRC: as root, set rc_cgroup_mode=\"unified\" in /etc/rc.conf, and \
             reboot)"
                .to_owned()
        };
        findings.push(finding.fix(how).fixes(INSTEAD));
        return;
    }
    if !facts.account.systemd {
        let keep = "start the daemon and keep it running: dockerd-rootless-setuptool.sh install --supervise";
        findings.push(
            Finding::advisory(
                "no-systemd",
                format!("systemd is not running; {lost}"),
                "dockerd sets limits through systemd only (Cgroup Driver: none)",
            )
            .fix(keep)
            .fixes(INSTEAD),
        );
        return;
    }
    // The session has findings of its own.
    if obstacle(facts).is_some() {
        return;
    }
    let Some(delegation) = &facts.cgroup.delegation else { return };
    let (there, absent): (Vec<&String>, Vec<&String>) =
        delegation.missing.iter().partition(|name| facts.cgroup.offered.contains(*name));
    let names =
        |list: &[&String]| list.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if !absent.is_empty() {
        findings.push(
            Finding::class(
                "cgroup-controllers",
                format!(
                    "cgroup v2 lacks these controllers on this host: {}; {lost}",
                    names(&absent)
                ),
                "a controller that cgroup v1 uses, or that the kernel lacks, cannot be delegated",
            )
            .fix(boot_unified(facts)),
        );
    }
    if !there.is_empty() {
        findings.push(undelegated(facts, &names(&there), &lost));
    }
}

fn undelegated(facts: &Facts, missing: &str, lost: &str) -> Finding {
    let finding = Finding::class(
        "cgroup-delegation",
        format!("not delegated to the user: {missing}; {lost}"),
        "by default, systemd delegates only some controllers to users; cpuset needs systemd 244 or later",
    );
    let wanted = cgroup2::delegation::WANTED.join(" ");
    let file = "/etc/systemd/system/user@.service.d/delegate.conf";
    let finding = if facts.distro.family == Family::Nix {
        finding.fix(format!(
            "in configuration.nix, set systemd.services.\"user@\".serviceConfig.Delegate = \"{wanted}\";"
        ))
    } else {
        finding.admin(
            "delegate all controllers to users",
            [
                "mkdir -p /etc/systemd/system/user@.service.d".to_owned(),
                format!("printf '[Service]\\nDelegate={wanted}\\n' > {file}"),
                "systemctl daemon-reload".to_owned(),
            ],
        )
    };
    let finding = finding.fix(session::again(facts));
    match facts.tools.systemd {
        Some(version) if version < CPUSET_SINCE => finding.fix(format!(
            "if you also need cpuset, upgrade systemd to {CPUSET_SINCE} or later (this is {version})"
        )),
        _ => finding,
    }
}
