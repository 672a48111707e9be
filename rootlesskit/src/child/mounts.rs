//! Mounts that follow from the new namespaces: `/proc`, `/sys`, and how mounts propagate.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};

use crate::plan::{Propagation, PropagationKind};

/// No source, no type, no data: the arguments of mount(2) that do not matter.
const NONE: Option<&str> = Option::None;

pub(crate) fn propagate(propagation: Propagation) -> anyhow::Result<()> {
    let kind = match propagation.kind {
        PropagationKind::Private => MsFlags::MS_PRIVATE,
        PropagationKind::Shared => MsFlags::MS_SHARED,
        PropagationKind::Slave => MsFlags::MS_SLAVE,
    };
    let all = if propagation.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    mount(NONE, "/", NONE, kind | all, NONE).context("failed to set the propagation of /")
}

fn mount_new(kind: &str, target: &Path, flags: MsFlags) -> nix::Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount(Some(kind), target, Some(kind), flags | safe, NONE)
}

/// Mounts a file system that the kernel may allow read-only at most, because parts of the host's own
/// instance are masked or read-only (containers do that); not at all is a warning.
fn mount_or_warn(kind: &str, target: &Path) {
    let Err(first) = mount_new(kind, target, MsFlags::empty()) else { return };
    match mount_new(kind, target, MsFlags::MS_RDONLY) {
        Ok(()) => tracing::warn!("mounted {kind} on {} read-only: {first}", target.display()),
        Err(_) => tracing::warn!(
            "failed to mount {kind} on {}: {first}; the target sees the host's {kind}\nhint: in a container, allow the mount with --security-opt systempaths=unconfined",
            target.display()
        ),
    }
}

pub(crate) fn own_proc() {
    mount_or_warn("proc", Path::new("/proc"));
}

/// A `/sys` of our network namespace (`own_view`), with the cgroup tree of the old one still in it; or, when
/// processes were evacuated, with a cgroup2 tree that begins at our cgroup namespace's root.
pub(crate) fn own_sys(own_view: bool, evacuated: bool) -> anyhow::Result<()> {
    let cgroup = Path::new("/sys/fs/cgroup");
    let mount_cgroup = |kind| {
        mount_new(kind, cgroup, MsFlags::empty())
            .with_context(|| format!("failed to mount {kind} on {}", cgroup.display()))
    };
    // A descriptor keeps the old tree in reach; no scratch directory that would have to be removed.
    let old = (own_view && is_mount_point(cgroup)).then(|| File::open(cgroup)).transpose()?;
    if own_view {
        mount_or_warn("sysfs", Path::new("/sys"));
    } else if evacuated {
        // The host's sysfs stays, and without owning it we cannot mount inside; a tmpfs can be.
        mount_cgroup("tmpfs")?;
    }
    if evacuated {
        return mount_cgroup("cgroup2");
    }
    if let Some(old) = old {
        let source = format!("/proc/self/fd/{}", old.as_raw_fd());
        if let Err(e) =
            mount(Some(source.as_str()), cgroup, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        {
            tracing::warn!("failed to bind the cgroup tree to /sys/fs/cgroup: {e}");
        }
    }
    Ok(())
}

fn is_mount_point(path: &Path) -> bool {
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    device(path).is_some() && device(path) != path.parent().and_then(device)
}
