//! Where images and containers go.

use hostenv::selinux::Selinux;
use hostenv::shellwords::quoted;
use nix::errno::Errno;

use super::storage_driver::{storage_driver, uses_containerd};
use super::{Finding, Wish, device};
use crate::distro::Package;
use crate::facts::{Device, Facts, Home, LITTLE_SPACE, Owner, Room};
use crate::probe::{Outcome, Probe};
use crate::remedy::Remedy;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    overlay(facts, findings);
    selinux(facts, findings);
    data_root(facts, findings);
    snapshotter(facts, findings);
}

/// Storage drivers with which the containerd image store mounts file systems of kinds that only the host's root may mount.
/// The classic drivers of the same names do not.
const MOUNTING: [&str; 4] = ["blockfile", "btrfs", "devmapper", "zfs"];

fn snapshotter(facts: &Facts, findings: &mut Vec<Finding>) {
    let driver = facts.tools.storage_driver.as_deref().filter(|driver| MOUNTING.contains(driver));
    let Some(driver) = driver.filter(|_| facts.tools.containerd_store == Some(true)) else {
        return;
    };
    findings.push(
        Finding::class(
            "storage-driver",
            format!("daemon.json sets \"storage-driver\" to {driver:?} for the containerd image store"),
            "this driver mounts file systems that only the host's root can mount (\"failed to mount …: operation not \
             permitted\"), so no image can be unpacked",
        )
        .fix("remove \"storage-driver\" from ~/.config/docker/daemon.json, and restart the daemon"),
    );
}

const ELSEWHERE: &str =
    "in ~/.config/docker/daemon.json, set \"data-root\" to a directory on a local file system";
/// The same for a directory that works, and only lacks room.
const MORE_ROOM: &str = "or, in ~/.config/docker/daemon.json, set \"data-root\" to a directory on another local file \
                         system (existing images, containers and volumes stay in the old directory)";

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
            .fix(ELSEWHERE),
        );
    }
    let why = "images and containers are stored there";
    match storage.room {
        Room::Fine => {}
        Room::Full(errno) => findings.push(
            Finding::fatal(
                if errno == Errno::EDQUOT { "quota-full" } else { "space-full" },
                format!("no room is left below {existing}: {}", errno.desc()),
                why,
            )
            .fix(if errno == Errno::EDQUOT {
                "delete files, or ask the administrator for a larger quota (quota -s shows yours)"
            } else {
                "delete files (df -h and df -i show what has run out)"
            })
            .fix(MORE_ROOM),
        ),
        // The home has a finding of its own.
        Room::Closed(_) if !matches!(facts.account.home, Home::Fine(_)) => {}
        Room::Closed(errno) => {
            let seen =
                format!("{} cannot write below {existing}: {}", facts.account.name, errno.desc());
            let finding = Finding::fatal("data-root-closed", seen, why);
            findings.push(match opened(facts, errno, &shown.to_string()) {
                Some(open) => finding.fix(open).fix(format!("or, {ELSEWHERE}")),
                None => finding.fix(ELSEWHERE),
            });
        }
        Room::Quota => findings.push(
            Finding::advisory(
                "quota-low",
                format!(
                    "this user's quota leaves less than {} MiB for {shown}",
                    LITTLE_SPACE >> 20
                ),
                why,
            )
            .fix("delete files, or ask the administrator for a larger quota (quota -s shows yours)")
            .fix(MORE_ROOM),
        ),
    }
    let full = matches!(storage.room, Room::Full(_));
    if let Some(free) = storage.free.filter(|free| *free < LITTLE_SPACE && !full) {
        findings.push(
            Finding::advisory("space-low", format!("{} MiB are free for {shown}", free >> 20), why)
                .fix("delete files (docker system df shows what docker system prune can delete)")
                .fix(MORE_ROOM),
        );
    }
}

/// How the directory could be made writable. A directory that is there may be needed by whoever has it, and where root may
/// not write either there is nothing to do.
fn opened(facts: &Facts, errno: Errno, dir: &str) -> Option<String> {
    let (name, dir) = (quoted(&facts.account.name), quoted(dir));
    if errno != Errno::EACCES {
        return None;
    }
    match facts.storage.owner {
        Owner::Nobody => Some(format!("sudo install -d -m 0710 -o {name} {dir}")),
        Owner::User => Some(format!("chmod u+rwx {dir}")),
        Owner::Intruder => Some(format!(
            "if no one needs the data that rootful Docker left there: sudo chown {name}: {dir}"
        )),
        Owner::Other => None,
    }
}

/// With SELinux, dockerd does not even try the classic driver. It does not replace one that is named, or that made what the
/// data root holds.
fn selinux(facts: &Facts, findings: &mut Vec<Finding>) {
    if !facts.host.selinux.on() || storage_driver(facts) != Some("overlay2") {
        return;
    }
    let named = facts.tools.storage_driver.is_some();
    let install = "install fuse-overlayfs as a replacement for overlay2";
    let install = match facts.tools.fuse_overlayfs {
        Some(_) => Remedy::default(),
        None => facts.distro.install(Package::FuseOverlayfs, install),
    };
    findings.push(
        Finding::fatal(
            "overlay-selinux",
            if named {
                "daemon.json sets \"storage-driver\" to \"overlay2\", and SELinux is on"
            } else {
                "the data root has images of the storage driver overlay2, and SELinux is on"
            },
            "with SELinux, dockerd does not start with overlay2 in rootless mode (\"overlay is not supported for \
             Rootless with SELinux\")",
        )
        .remedy(install)
        .fix(
            "in ~/.config/docker/daemon.json, set \"storage-driver\" to \"fuse-overlayfs\" (the images and containers of \
             overlay2 stay in the data root, but Docker does not show them)",
        ),
    );
}

/// Why dockerd does not take overlayfs.
fn no_overlay(facts: &Facts) -> Option<String> {
    let Outcome::Fails(text) = facts.outcome(Probe::Overlay) else {
        let named = facts.tools.storage_driver.is_some();
        let copies = facts.host.selinux.on() && storage_driver(facts) == Some("vfs") && !named;
        return copies.then(|| {
            "with SELinux, dockerd does not use its classic storage driver overlay2".to_owned()
        });
    };
    let enforcing = facts.host.selinux == Selinux::Enforcing;
    let since = if enforcing { (5, 13) } else { (5, 11) };
    let reason = if facts.host.kernel.is_some_and(|kernel| kernel < since) {
        let (major, minor) = since;
        format!("Linux {} is running; {major}.{minor} or later is needed", facts.host.release)
    } else {
        text.lines().last().unwrap_or_default().to_owned()
    };
    Some(format!("overlayfs cannot be mounted in a user namespace: {reason}"))
}

const CLASSIC_STORE: &str = "in ~/.config/docker/daemon.json, set \"features\": {\"containerd-snapshotter\": false}, and restart \
                             the daemon: the containerd image store cannot use fuse-overlayfs";

/// What dockerd falls back to costs time and space, but works.
fn overlay(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(seen) = no_overlay(facts) else { return };
    let finding = Finding::class(
        "overlay",
        seen,
        "without overlayfs or fuse-overlayfs, every image layer is a full copy",
    );
    // fuse-overlayfs is no replacement without it.
    let device = device(facts, facts.host.fuse, "/dev/fuse", "fuse", "if that does not help,");
    let classic = facts.tools.storage_driver.is_none() && uses_containerd(facts);
    let finding = if classic { finding.fix(CLASSIC_STORE) } else { finding };
    if facts.tools.fuse_overlayfs.is_none() {
        let install = facts.distro.install(
            Package::FuseOverlayfs,
            "install fuse-overlayfs as a replacement for overlayfs",
        );
        findings.push(finding.remedy(install).remedy(device));
    } else if classic {
        findings.push(finding.remedy(device));
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
