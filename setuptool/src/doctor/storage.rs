//! Where images and containers go.

use super::{Finding, Remedy, Wish};
use crate::distro::Package;
use crate::facts::{Device, Facts};
use crate::probe::{Outcome, Probe};

/// Less free space than this (bytes) is used up by the first image.
const LITTLE_SPACE: u64 = 1 << 30;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    overlay(facts, findings);
    let storage = &facts.storage;
    let data_root = storage.data_root.as_ref();
    let shown = data_root.map(|dir| dir.display().to_string()).unwrap_or_default();
    let elsewhere = || {
        Remedy::said(
            "put {\"data-root\":\"/another/directory\"} into ~/.config/docker/daemon.json, on a local file system",
        )
    };
    if storage.nfs {
        findings.push(
            Finding::class(
                "data-root-nfs",
                format!("{shown} is on NFS"),
                "the server does not know subordinate ids (\"lchown …: operation not permitted\")",
            )
            .remedy(elsewhere()),
        );
    }
    if let Some(free) = storage.free.filter(|free| *free < LITTLE_SPACE) {
        findings.push(
            Finding::advisory(
                "space-low",
                format!("{} MiB are free for {shown}", free >> 20),
                "images and containers are stored there",
            )
            .remedy(elsewhere()),
        );
    }
}

/// What dockerd falls back to costs time and space, but works.
fn overlay(facts: &Facts, findings: &mut Vec<Finding>) {
    let Outcome::Fails(text) = facts.outcome(Probe::Overlay) else { return };
    let kernel = facts.host.kernel;
    let since = if facts.host.selinux { (5, 13) } else { (5, 11) };
    let reason = if kernel.is_some_and(|kernel| kernel < since) {
        let (major, minor) = since;
        format!("Linux {}, and it takes {major}.{minor}", facts.host.release)
    } else {
        text.lines().last().unwrap_or_default().to_owned()
    };
    let finding = Finding::class(
        "overlay",
        format!("overlayfs cannot be mounted in a user namespace: {reason}"),
        "without it, and without fuse-overlayfs, every layer is a full copy",
    );
    if kernel.is_some_and(|kernel| kernel < (4, 18)) {
        findings.push(
            finding.remedy(Remedy::said(
                "use Linux 4.18 or later with fuse-overlayfs, or 5.11 or later",
            )),
        );
    } else if facts.tools.fuse_overlayfs.is_none() {
        findings.push(
            finding.remedy(
                facts.distro.install(
                    Package::FuseOverlayfs,
                    "install fuse-overlayfs in place of overlayfs",
                ),
            ),
        );
    } else if facts.host.fuse != Device::Fine {
        findings.push(
            Finding::class(
                "fuse-closed",
                "neither overlayfs nor /dev/fuse can be used",
                "fuse-overlayfs takes the place of overlayfs, and needs the device",
            )
            .remedy(facts.distro.modules(&["fuse"], "make /dev/fuse"))
            .remedy(Remedy::said("in a container, run that with --device /dev/fuse")),
        );
    }
}
