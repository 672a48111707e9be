//! The doctor: every condition that rootless Docker depends on, a file a group.
//!
//! # Theory of operation
//! [`diagnose`] is a pure function of [`Facts`] and of what the user wants to do. Each group appends [`Finding`]s in a
//! fixed order; a finding has a stable code, how bad it is, what was seen, why that matters, and the remedy on this
//! distribution. What a probe has shown to work is never doubted because of a file: modules that the list of modules
//! does not name, or a security module without a profile, are no problem if the real thing works.
//!
//! `--force` and `--skip-iptables` make warnings of the errors they are about, and of nothing else.

mod account;
mod conflicts;
mod container;
mod driver;
mod egress;
mod files;
mod finding;
mod ids;
mod kernel;
pub mod limits;
mod loopback;
mod namespaces;
mod network;
mod networks;
pub mod script;
mod session;
mod storage;
mod storage_driver;
mod swarm;
mod ways;

pub use finding::{Finding, Severity};
pub use storage_driver::storage_driver;

use std::path::Path;

use hostenv::shellwords::quoted;

use crate::facts::{Device, Facts};
use crate::remedy::Remedy;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// To install now, not only to know.
    pub install: bool,
    pub force: bool,
    pub skip_iptables: bool,
}

/// Something because of which nothing else can be said.
fn alone(facts: &Facts) -> Option<Finding> {
    account::root(facts).or_else(|| account::platform(facts))
}

/// Whether the host is one that can be judged.
pub fn can_judge(facts: &Facts) -> bool {
    alone(facts).is_none()
}

/// Everything that is not as it should be, the worst first.
pub fn diagnose(facts: &Facts, wish: Wish) -> Vec<Finding> {
    if let Some(alone) = alone(facts) {
        return vec![alone];
    }
    let mut findings = Vec::new();
    for group in [
        swarm::limits,
        account::examine,
        session::examine,
        conflicts::examine,
        files::examine,
        kernel::oldest,
        ids::examine,
        namespaces::examine,
        driver::examine,
        swarm::examine,
        loopback::examine,
        egress::examine,
        network::examine,
        ways::examine,
        networks::examine,
        storage::examine,
        limits::examine,
        kernel::examine,
        container::examine,
    ] {
        group(facts, wish, &mut findings);
    }
    for finding in &mut findings {
        let waived =
            (finding.forcible && wish.force) || (finding.about_iptables && wish.skip_iptables);
        if waived && finding.severity == Severity::Fatal {
            finding.severity = Severity::Class;
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Lets the user write to a directory of their own.
fn make_writable(dir: &Path) -> Remedy {
    let open = format!("chmod u+rwx {}", quoted(dir));
    let remount = remount("rw", dir);
    Remedy::said(open)
        .and(Remedy::said(format!("or, if its file system is mounted read-only: {remount}")))
}

/// Changes an option of the file system that a file is on.
fn remount(option: &str, file: &Path) -> String {
    let file = quoted(file);
    format!(
        "sudo mount -o remount,{option} MOUNTPOINT (to find MOUNTPOINT, run: findmnt -T {file})"
    )
}

/// Loads kernel modules. A container has those of its host, and cannot load more.
fn modules(facts: &Facts, names: &[&str], comment: &str) -> Remedy {
    if facts.host.container.is_none() {
        return facts.distro.modules(names, comment);
    }
    let commands: Vec<String> = names.iter().map(|name| format!("modprobe {name}")).collect();
    Remedy::said(format!("as root, on this container's host: {}", commands.join(" && ")))
}

/// Makes a device usable. One that is closed to the user may also be closed to the container: `then` begins what to do about
/// that.
fn device(facts: &Facts, state: Device, path: &str, module: &str, then: &str) -> Remedy {
    match state {
        Device::Fine => Remedy::default(),
        Device::Driverless => modules(facts, &[module], &format!("load the module of {path}")),
        Device::Missing => {
            modules(facts, &[module], &format!("create {path}")).and(passed_in(facts, path, "then"))
        }
        Device::Closed => Remedy::admin(
            &format!("make {path} accessible to all users (the usual default)"),
            [format!("chmod 0666 {path}")],
        )
        .and(passed_in(facts, path, then)),
    }
}

/// Gives a device of the host to the container that this is, or may be.
fn passed_in(facts: &Facts, device: &str, then: &str) -> Remedy {
    Remedy::said(match &facts.host.container {
        Some(container) => format!("{then} {}", container.with_device(device)),
        None => format!("if this machine is a container, start it with --device {device}"),
    })
}

/// Whether the daemon has to do without iptables, which the user allowed.
pub fn without_iptables(findings: &[Finding], wish: Wish) -> bool {
    wish.skip_iptables && findings.iter().any(|finding| finding.about_iptables)
}
