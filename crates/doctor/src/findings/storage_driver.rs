//! The storage driver that dockerd takes if nobody names one.
//!
//! With the classic image store, it is the one that made what the data root holds, or else the first that works of a list
//! (`priority` in daemon/graphdriver of moby). With the containerd image store, which is the default for a new data root since
//! Docker 29, it is overlayfs, or else one that copies: containerd has no fuse-overlayfs of its own.

use crate::facts::{Device, Facts};
use crate::probe::{Outcome, Probe};

/// The first Docker that uses the containerd image store unless it finds images of the classic one.
const CONTAINERD_SINCE: u32 = 29;
/// The first Docker whose list begins with overlay2. On btrfs, earlier ones take that first.
const OVERLAY_FIRST_SINCE: u32 = 23;

pub(super) const FUSE: &str = "fuse-overlayfs";

/// The name in `docker info`; `None` if nobody knows.
pub fn storage_driver(facts: &Facts) -> Option<&str> {
    if let Some(driver) = &facts.tools.storage_driver {
        return Some(driver);
    }
    let [major, ..] = facts.tools.dockerd_version?;
    if uses_containerd(facts) {
        return overlay_works(facts).map(|works| if works { "overlayfs" } else { "native" });
    }
    if facts.storage.btrfs && facts.storage.earlier_driver.is_none() && major < OVERLAY_FIRST_SINCE
    {
        return Some("btrfs");
    }
    classic(facts)
}

/// Whether dockerd is told to use fuse-overlayfs, or falls back to it.
pub(super) fn by_fuse(facts: &Facts) -> bool {
    match &facts.tools.storage_driver {
        Some(driver) => driver == FUSE,
        None => !uses_containerd(facts) && classic(facts) == Some(FUSE),
    }
}

/// Whether dockerd uses the containerd image store. If its version is unknown, it counts as an older one.
pub(super) fn uses_containerd(facts: &Facts) -> bool {
    let tools = &facts.tools;
    let new = tools.dockerd_version.is_some_and(|[major, ..]| major >= CONTAINERD_SINCE);
    tools.containerd_store.unwrap_or_else(|| new && facts.storage.earlier_driver.is_none())
}

fn classic(facts: &Facts) -> Option<&str> {
    if let Some(driver) = facts.storage.earlier_driver {
        return Some(driver);
    }
    // dockerd itself refuses it there (moby's overlayutils), whatever the mode.
    if overlay_works(facts)? && !facts.host.selinux.on() {
        return Some("overlay2");
    }
    Some(if facts.tools.fuse_overlayfs.is_some() && facts.host.fuse == Device::Fine {
        FUSE
    } else if facts.storage.btrfs {
        "btrfs"
    } else {
        "vfs"
    })
}

fn overlay_works(facts: &Facts) -> Option<bool> {
    match facts.outcome(Probe::Overlay) {
        Outcome::Works | Outcome::Warns(_) => Some(true),
        Outcome::Fails(_) => Some(false),
        Outcome::Unknown => None,
    }
}
