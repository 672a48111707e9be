//! Nothing is left behind: what a box looked like before the test, and what differs from that.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{PATIENCE, TestBox, wait};

/// What a clean box looks like.
#[derive(Debug, Default, Clone)]
pub(crate) struct Baseline {
    mounts: Vec<String>,
    files: Vec<String>,
}

impl Baseline {
    /// Looks at the mounts of the box's host and at the files where programs leave things.
    pub(crate) fn of(tb: &TestBox) -> Result<Self> {
        // From field 4 of mountinfo on: root, mount point, options. The ids before them are handed out anew.
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", tb.init_pid()))?;
        let mounts = mounts
            .lines()
            .map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" "))
            .collect();
        let find = "find /run /tmp /var/tmp /home/tester -xdev -path /home/tester/.local/share/docker -prune -o -print";
        let files = tb.root(find).ok()?;
        let files = files
            .lines()
            .filter(|path| !path.starts_with("/run/box/") && !is_stack_dump(path))
            .map(str::to_owned)
            .collect();
        Ok(Self { mounts, files })
    }
}

/// On a busy machine, containerd may not answer dockerd in time. Then dockerd has it write the stacks of its threads (by
/// SIGUSR1), and starts it anew.
pub(crate) fn is_stack_dump(path: &str) -> bool {
    path.starts_with("/tmp/containerd.") && path.ends_with(".stacks.log")
}

impl TestBox {
    /// Fails unless the box is as it was before the test: no process of the user, no mount, no new file below
    /// `/run`, `/tmp`, `/var/tmp` and the home folder but those in `allowed` and below.
    ///
    /// # Errors
    /// Something is left.
    pub fn assert_clean(&self, allowed: &[&str]) -> Result<()> {
        self.assert_no_processes()?;
        let now = Baseline::of(self)?;
        let kept = |path: &String| allowed.iter().any(|prefix| Path::new(path).starts_with(prefix));
        let mounts: Vec<_> =
            now.mounts.iter().filter(|line| !self.baseline().mounts.contains(line)).collect();
        ensure!(mounts.is_empty(), "mounts are left behind: {mounts:#?}");
        let files: Vec<_> = now
            .files
            .iter()
            .filter(|path| !self.baseline().files.contains(path) && !kept(path))
            .collect();
        ensure!(files.is_empty(), "files are left behind: {files:#?}");
        Ok(())
    }

    /// Fails unless every process of the user ends.
    ///
    /// # Errors
    /// Processes are left; the message lists them.
    pub fn assert_no_processes(&self) -> Result<()> {
        let end = wait::until_true("all processes of the user end", PATIENCE, || {
            Ok(self.user_processes().is_empty())
        });
        end.with_context(|| format!("left behind: {:#?}", self.user_processes()))
    }
}
