//! Where images and containers go.

use nix::errno::Errno;

use super::{Finding, Wish, modules};
use crate::distro::Package;
use crate::facts::{Device, Facts, Home, LITTLE_SPACE, Owner, Room};
use crate::probe::{Outcome, Probe};
use crate::quote::quoted;
use crate::remedy::Remedy;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    overlay(facts, findings);
    data_root(facts, findings);
}

fn elsewhere() -> Remedy {
    Remedy::said(
        "put {\"data-root\":\"/another/directory\"} into ~/.config/docker/daemon.json; choose a directory on a local \
         file system",
    )
}

fn data_root(facts: &Facts, findings: &mut Vec<Finding>) {
    let storage = &facts.storage;
    let (Some(dir), Some(existing)) = (&storage.data_root, &storage.existing) else { return };
    let (shown, existing) = (dir.display(), existing.display());
    if let Some(kind) = storage.ownerless {
        let nfs = kind == "NFS";
        findings.push(
            Finding::class(
                if nfs { "data-root-nfs" } else { "data-root-fs" },
                format!("{shown} is on {kind}"),
                if nfs {
                    "the NFS server does not support subordinate IDs (\"lchown …: operation not permitted\")"
                } else {
                    "this file system does not store file ownership, which container images need (\"lchown …: \
                     operation not permitted\")"
                },
            )
            .remedy(elsewhere()),
        );
    }
    let why = "images and containers are stored there";
    match storage.room {
        Room::Fine => {}
        Room::Full(errno) => findings.push(
            Finding::fatal(
                if errno == Errno::EDQUOT { "quota-full" } else { "space-full" },
                format!("nothing can be written below {existing}: {}", errno.desc()),
                why,
            )
            .fix(if errno == Errno::EDQUOT {
                "delete files, or ask the administrator for a larger quota (quota -s shows yours)"
            } else {
                "delete files (df -h and df -i show what has run out)"
            })
            .remedy(elsewhere()),
        ),
        // The home has a finding of its own.
        Room::Closed(_) if !matches!(facts.account.home, Home::Fine(_)) => {}
        Room::Closed(errno) => findings.push(
            Finding::fatal(
                "data-root-closed",
                format!("{} cannot write below {existing}: {}", facts.account.name, errno.desc()),
                why,
            )
            .remedy(opened(facts, errno, &shown.to_string()))
            .remedy(elsewhere()),
        ),
        Room::Quota => findings.push(
            Finding::advisory(
                "quota-low",
                format!(
                    "this user's quota leaves less than {} MiB for {shown}",
                    LITTLE_SPACE >> 20
                ),
                why,
            )
            .fix("ask the administrator for a larger quota (quota -s shows yours)")
            .remedy(elsewhere()),
        ),
    }
    let full = matches!(storage.room, Room::Full(_));
    if let Some(free) = storage.free.filter(|free| *free < LITTLE_SPACE && !full) {
        findings.push(
            Finding::advisory("space-low", format!("{} MiB are free for {shown}", free >> 20), why)
                .remedy(elsewhere()),
        );
    }
}

/// How the directory could be made writable. A directory that is there may be needed by whoever has it, and where root may
/// not write either there is nothing to do.
fn opened(facts: &Facts, errno: Errno, dir: &str) -> Remedy {
    let (name, dir) = (quoted(&facts.account.name), quoted(dir));
    if errno != Errno::EACCES {
        return Remedy::default();
    }
    match facts.storage.owner {
        Owner::Nobody => Remedy::said(format!("sudo install -d -m 0710 -o {name} {dir}")),
        Owner::User => Remedy::said(format!("chmod u+rwx {dir}")),
        Owner::Intruder => Remedy::said(format!(
            "if no one needs the data that rootful Docker left there: sudo chown {name}: {dir}"
        )),
        Owner::Other => Remedy::default(),
    }
}

/// What dockerd falls back to costs time and space, but works.
fn overlay(facts: &Facts, findings: &mut Vec<Finding>) {
    let Outcome::Fails(text) = facts.outcome(Probe::Overlay) else { return };
    let kernel = facts.host.kernel;
    let since = if facts.host.selinux { (5, 13) } else { (5, 11) };
    let reason = if kernel.is_some_and(|kernel| kernel < since) {
        let (major, minor) = since;
        format!("Linux {} is running; {major}.{minor} or later is needed", facts.host.release)
    } else {
        text.lines().last().unwrap_or_default().to_owned()
    };
    let finding = Finding::class(
        "overlay",
        format!("overlayfs cannot be mounted in a user namespace: {reason}"),
        "without overlayfs and without fuse-overlayfs, every layer is a full copy",
    );
    // fuse-overlayfs is no replacement without it.
    let device = match facts.host.fuse {
        Device::Fine => Remedy::default(),
        Device::Missing => modules(facts, &["fuse"], "create /dev/fuse")
            .and(Remedy::said("if this host is a container, start it with --device /dev/fuse")),
        Device::Closed => Remedy::admin(
            "make /dev/fuse accessible to all users (the usual default)",
            ["chmod 0666 /dev/fuse"],
        )
        .and(Remedy::said("if this host is a container, start it with --device /dev/fuse")),
    };
    if facts.tools.fuse_overlayfs.is_none() {
        let install = facts.distro.install(
            Package::FuseOverlayfs,
            "install fuse-overlayfs as a replacement for overlayfs",
        );
        findings.push(finding.remedy(install).remedy(device));
    } else if facts.host.fuse != Device::Fine {
        findings.push(
            Finding::class(
                "fuse-closed",
                "neither overlayfs nor /dev/fuse is usable",
                "fuse-overlayfs replaces overlayfs and needs /dev/fuse",
            )
            .remedy(device),
        );
    }
}
