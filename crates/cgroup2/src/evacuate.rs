//! Evacuation: the processes of a group move into a new sub-group, so that the group can enable controllers for its
//! sub-groups.
//!
//! `rootlesskit --evacuate-cgroup2=NAME` does this once its child has a cgroup namespace of its own: the old group is the
//! root of that namespace, the target finds itself in `/NAME` and may make other groups beside it (nested Docker and
//! Kubernetes in containers need that). The old group is ours only if somebody delegated it, hence only the sub-group
//! itself is essential: a process that cannot be moved and a controller that cannot be enabled are warnings.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::delegation::words;
use crate::{group, mounts};

const ESRCH: i32 = 3;

/// Processes may fork while they are being moved; this many looks find the children.
const PASSES: usize = 4;

/// What an evacuation did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EvacuationReport {
    /// Directory of the sub-group that has the processes now. `None`: there is no cgroup2 and nothing was done, which is
    /// in the warnings too.
    pub group: Option<PathBuf>,
    /// The processes that were moved.
    pub moved: Vec<u32>,
    /// The controllers that sub-groups have now.
    pub enabled: Vec<String>,
    /// What did not work, one sentence each, for the log.
    pub warnings: Vec<String>,
}

/// An evacuation that did not take place.
#[derive(Debug, thiserror::Error)]
pub enum EvacuationError {
    /// The name cannot be one of a sub-group.
    #[error(
        "invalid cgroup name `{0}`: must be one non-empty path component\nhint: choose a name like `evac`"
    )]
    BadName(String),
    /// The process is in a group that the mount does not show.
    #[error(
        "cgroup {} is not visible below {}\nhint: mount cgroup2 inside the current cgroup namespace",
        .0.display(),
        .1.display()
    )]
    NotVisible(PathBuf, PathBuf),
    /// A file below `/proc` or of the group cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The sub-group cannot be made.
    #[error(
        "cannot create cgroup {}\nhint: run in a cgroup that is delegated to you, for example with \
         `systemd-run --user --scope -p Delegate=yes`",
        .0.display()
    )]
    Make(PathBuf, #[source] io::Error),
}

/// Moves all processes of the group of process `pid` into its sub-group `name`, which is made if needed (mode 0755), and
/// enables every controller of the group for its sub-groups. `proc` is `/proc` outside of tests. On a host without cgroup2
/// there is nothing to do, which is a warning as in RootlessKit.
///
/// # Errors
/// See [`EvacuationError`]. What fails later than making the sub-group is in the report's warnings.
pub fn evacuate(proc: &Path, pid: u32, name: &str) -> Result<EvacuationReport, EvacuationError> {
    check_name(name)?;
    let Some(from) = directory_of(proc, pid)? else {
        let warning =
            "cgroup2 is not mounted or not in use, so there is nothing to evacuate".to_owned();
        return Ok(EvacuationReport { warnings: vec![warning], ..EvacuationReport::default() });
    };
    let to = from.join(name);
    make(&to)?;
    let mut report = EvacuationReport { group: Some(to.clone()), ..EvacuationReport::default() };
    report.move_processes(&from, &to)?;
    report.enable_controllers(&from);
    Ok(report)
}

/// Whether `name` can be the name of a sub-group: one component of a path.
///
/// # Errors
/// [`EvacuationError::BadName`].
pub fn check_name(name: &str) -> Result<(), EvacuationError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0', '\n']) {
        return Err(EvacuationError::BadName(name.to_owned()));
    }
    Ok(())
}

/// Directory of the process's group. `None`: there is no cgroup2, or the process is in no group of it.
fn directory_of(proc: &Path, pid: u32) -> Result<Option<PathBuf>, EvacuationError> {
    let process = proc.join(pid.to_string());
    let mountinfo = process.join("mountinfo");
    let text = fs::read(&mountinfo).map_err(|e| EvacuationError::Read(mountinfo, e))?;
    let Some(mount) = mounts::mountpoint(&text) else { return Ok(None) };
    let group =
        group::group_of(proc, pid).map_err(|e| EvacuationError::Read(process.join("cgroup"), e))?;
    let Some(group) = group else { return Ok(None) };
    let directory = group::directory(&mount, &group);
    directory.map(Some).ok_or(EvacuationError::NotVisible(group, mount.point))
}

fn make(path: &Path) -> Result<(), EvacuationError> {
    match DirBuilder::new().mode(0o755).create(path) {
        // Left over from the last run; anything but a directory would fail later.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(|e| EvacuationError::Make(path.to_owned(), e)),
    }
}

impl EvacuationReport {
    fn move_processes(&mut self, from: &Path, to: &Path) -> Result<(), EvacuationError> {
        let list = from.join("cgroup.procs");
        let target = to.join("cgroup.procs");
        let mut seen = BTreeSet::new();
        for _ in 0..PASSES {
            let text =
                fs::read_to_string(&list).map_err(|e| EvacuationError::Read(list.clone(), e))?;
            // 0 stands for a process of another pid namespace, which nobody here can name.
            let pids = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0);
            let new: Vec<u32> = pids.filter(|pid| seen.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                match write(&target, &pid.to_string()) {
                    Ok(()) => self.moved.push(pid),
                    // It has ended.
                    Err(error) if error.raw_os_error() == Some(ESRCH) => {}
                    Err(error) => {
                        self.warnings.push(format!(
                            "cannot move process {pid} to {}: {error}",
                            to.display()
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn enable_controllers(&mut self, from: &Path) {
        let path = from.join("cgroup.controllers");
        let controllers = match fs::read_to_string(&path) {
            Ok(text) => words(&text),
            Err(error) => {
                return self.warnings.push(format!("cannot read {}: {error}", path.display()));
            }
        };
        // One at a time, since the kernel takes all of a line or nothing.
        for controller in controllers {
            match write(&from.join("cgroup.subtree_control"), &format!("+{controller}")) {
                Ok(()) => self.enabled.push(controller),
                Err(error) => self.warnings.push(format!(
                    "cannot enable controller {controller} for the sub-groups of {}: {error}",
                    from.display()
                )),
            }
        }
    }
}

/// One write(2) to a file that exists. The kernel ignores `O_APPEND`; in a test it keeps what was written before.
fn write(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
#[path = "evacuate_tests.rs"]
mod tests;
