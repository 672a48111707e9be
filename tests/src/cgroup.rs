//! The cgroup of a box: a child group of the machine's cgroup v2 mount, which itself is never altered.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::wait::{self, PATIENCE};

/// A group of its own, killed and removed on drop.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    /// The first cgroup v2 mount of the machine: `/sys/fs/cgroup`, or `…/unified` where version 1 is mounted, too.
    pub(crate) fn root() -> Result<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        mountpoint(&mounts)
            .context("no cgroup v2 hierarchy is mounted\nhint: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
    }

    /// Makes the group `name` right below the root.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let root = Self::root()?;
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("making the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Pids (the machine's numbers) of all processes in the group and below it.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        walk(&self.path, &mut |dir| {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(
                text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0),
            );
        });
        pids
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // cgroup.kill (kernel 5.14) takes every process of the subtree at once, also those that are just forking.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let empty = wait::until_true("the box ends", PATIENCE, || {
            let events = fs::read_to_string(self.path.join("cgroup.events"))?;
            Ok(events.lines().any(|line| line == "populated 0"))
        });
        if let Err(error) = empty {
            eprintln!("{}: {error:#}", self.path.display());
        }
        let mut groups = Vec::new();
        walk(&self.path, &mut |dir| groups.push(dir.to_owned()));
        for group in groups.iter().rev() {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Calls `f` for `dir` and every group below, parents first.
fn walk(dir: &Path, f: &mut impl FnMut(&Path)) {
    f(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), f);
        }
    }
}

/// The mount point of the first cgroup2 file system in a mountinfo text (proc_pid_mountinfo(5)).
fn mountpoint(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_next_to_v1() {
        let text = "30 24 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                    31 24 0:27 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(mountpoint(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mountpoint("24 1 0:5 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
