//! What is only worth knowing: the kernel, security modules, limits of this process.

use budget::{Budget, DataPath, MINIMUM};
use hostenv::selinux::Selinux;

use super::{Finding, Wish, session};
use crate::distro::Family;
use crate::facts::Facts;
use crate::probe::Probe;
use crate::remedy::Remedy;

/// The oldest kernel that rootlesskit runs on: clone3(2) and pidfd_open(2) came with it.
const OLDEST: (u32, u32) = (5, 3);
/// dockerd and busy containers need more open files than this.
const FEW_FILES: u64 = 65536;
/// What a Linux without much memory starts with; dockerd itself takes two instances, and systemd in a container several.
const FEW_INSTANCES: u64 = 128;
const FEW_WATCHES: u64 = 8192;

/// Before everything that fails for that reason.
pub(super) fn oldest(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let host = &facts.host;
    // Distributions add to old kernels.
    if host.kernel.is_some_and(|kernel| kernel < OLDEST) && !facts.works(Probe::Namespaces) {
        findings.push(
            Finding::fatal(
                "kernel-old",
                format!("Linux {}", host.release),
                "rootlesskit needs Linux 5.3 or later (clone3(2), pidfd_open(2))",
            )
            .fix(
                "upgrade the kernel, if possible to 5.11 or later (5.13 with SELinux), so that containers can use overlayfs",
            )
            .forcible(),
        );
    }
}

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let host = &facts.host;
    findings.extend(selinux(facts));
    if host.apparmor_restricts_unconfined {
        findings.push(Finding::advisory(
            "apparmor-unconfined",
            "kernel.apparmor_restrict_unprivileged_unconfined is 1",
            "starting rootlesskit with aa-exec does not lift the restriction of user namespaces; only an AppArmor profile for \
             rootlesskit does",
        ));
    }
    for (key, value, few, (usual, number)) in [
        ("fs.inotify.max_user_instances", host.inotify_instances, FEW_INSTANCES, ("1024", "54")),
        ("fs.inotify.max_user_watches", host.inotify_watches, FEW_WATCHES, ("524288", "55")),
    ] {
        if let Some(value) = value.filter(|value| *value < few) {
            findings.push(
                Finding::advisory(
                    "inotify-low",
                    format!("{key} is {value}"),
                    "all of the user's containers share this limit (\"too many open files\", \"no space left on \
                     device\")",
                )
                .remedy(facts.distro.sysctl(
                    &format!("{number}-rootless-inotify.conf"),
                    key,
                    usual,
                )),
            );
        }
    }
    if let Some(files) = host.nofile.filter(|files| *files < FEW_FILES) {
        findings.push(few_files(facts, files));
    }
}

/// Some distributions have Docker's rules in the policy, and no package of their own for them.
fn selinux(facts: &Facts) -> Option<Finding> {
    let in_the_policy =
        matches!(facts.distro.family, Family::Debian | Family::Arch | Family::Alpine | Family::Nix);
    let (seen, why) = match facts.host.selinux {
        Selinux::Off => return None,
        Selinux::Permissive => (
            "SELinux is permissive",
            "with SELinux, dockerd does not use its classic storage driver overlay2, even in permissive mode",
        ),
        Selinux::Enforcing => (
            "SELinux is enforcing",
            "with SELinux, dockerd does not use its classic storage driver overlay2, and old policies do not let iptables \
             open /run/xtables.lock",
        ),
    };
    let finding = Finding::advisory("selinux", seen, why);
    Some(if facts.host.selinux == Selinux::Enforcing && !in_the_policy {
        finding.fix("install the latest version of the package container-selinux")
    } else {
        finding
    })
}

/// What the network that the launcher would choose can do with the limit; dockerd and each container have the same limit
/// for themselves.
fn few_files(facts: &Facts, files: u64) -> Finding {
    let seen = format!("the open-file limit is {files} (hard limit)");
    let finding = if files < MINIMUM {
        Finding::fatal("nofile-low", seen, "rootlesskit needs at least 48 open files")
    } else {
        let room = Budget::new(files, DataPath::Gateway).words();
        let why = "each published port, connection and container uses some of them";
        Finding::advisory("nofile-low", format!("{seen}: {room}"), why)
    };
    finding.remedy(more_files(facts))
}

/// Raises the hard limit for sessions that begin later (limits.conf(5)). In a container, root may not raise it, and
/// pam_limits(8) would refuse every session.
fn more_files(facts: &Facts) -> Remedy {
    if facts.host.container.is_some() {
        return Remedy::said(format!(
            "start this container with a higher limit: --ulimit nofile={FEW_FILES}:{FEW_FILES} (Docker, Podman) or \
             lxc.prlimit.nofile = {FEW_FILES} (LXC)"
        ));
    }
    let again = Remedy::said(session::again(facts));
    if facts.distro.family == Family::Alpine && !facts.account.systemd {
        return Remedy::said(format!(
            "as root, set rc_ulimit=\"-n {FEW_FILES}\" in /etc/rc.conf, and restart the service that you log in with (sshd)"
        ))
        .and(again);
    }
    let (name, uid) = (&facts.account.name, facts.account.uid);
    // A range of one ID stands for a name with signs that mean something there.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let domain = if name.chars().all(plain) { name.clone() } else { format!("{uid}:{uid}") };
    if facts.distro.family == Family::Nix {
        return Remedy::said(format!(
            "in configuration.nix, add {{ domain = \"{domain}\"; type = \"hard\"; item = \"nofile\"; value = \
             \"{FEW_FILES}\"; }} to security.pam.loginLimits"
        ))
        .and(again);
    }
    Remedy::admin(
        &format!("raise the limit of open files for {name}"),
        [
            "mkdir -p /etc/security/limits.d".to_owned(),
            format!(
                "echo '{domain} hard nofile {FEW_FILES}' > /etc/security/limits.d/rootless-{uid}.conf"
            ),
        ],
    )
    .and(again)
}
