//! Processes that use a directory: by an open file, their working or root directory, their program, or a mount.
//!
//! # Who can be seen
//! The links in `/proc/PID` may be read by whoever may trace the process (ptrace(2), "access mode checking"). That is
//! more than it seems: who made a user namespace has all capabilities in it (user_namespaces(7)), so a user may look at
//! every process of their daemon and its containers, those with subordinate ids included. Only `/proc/PID/fd` of these is
//! closed, since it belongs to their id; what such a process uses shows in the mounts of its namespace, which the
//! whole container has in common. (From within the user's namespace of another rootlesskit less can be seen, not more.)

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount};

/// A process that uses a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Its name, as ps(1) shows it.
    pub(super) command: String,
    /// What it has to do with the directory.
    pub(super) why: String,
    /// It lives in another mount namespace than we do, as everything of a daemon does.
    pub(super) apart: bool,
}

pub(super) struct Search<'a> {
    proc: &'a Path,
    own_mounts: Vec<Mount>,
    /// Canonical.
    dirs: &'a [PathBuf],
    own_pid: u32,
}

impl<'a> Search<'a> {
    /// Prepares to look for users of these directories, the paths of which are canonical.
    pub(super) fn new(proc: &'a Path, dirs: &'a [PathBuf]) -> std::io::Result<Self> {
        let own_mounts = mounts::of(&proc.join("self"))?;
        Ok(Self { proc, own_mounts, dirs, own_pid: std::process::id() })
    }

    /// All of them, by pid.
    pub(super) fn processes(&self) -> Vec<Process> {
        let own = fs::read_link(self.proc.join("self/ns/mnt")).ok();
        // The verdict on each mount namespace.
        let mut known: HashMap<OsString, Option<String>> = HashMap::new();
        let mut found = Vec::new();
        for pid in pids(self.proc) {
            let dir = self.proc.join(pid.to_string());
            let namespace = fs::read_link(dir.join("ns/mnt")).ok();
            let apart = namespace.is_some() && namespace != own;
            let by_mounts = || {
                let namespace = namespace.clone().filter(|_| apart)?;
                let verdict = known
                    .entry(namespace.into())
                    .or_insert_with(|| self.mount(&mounts::of(&dir).unwrap_or_default()));
                verdict.clone()
            };
            if pid == self.own_pid {
                continue;
            }
            if let Some(why) = self.links(&dir).or_else(by_mounts) {
                found.push(Process { pid, command: command(self.proc, pid), why, apart });
            }
        }
        found
    }

    fn is_inside(&self, path: &Path) -> bool {
        self.dirs.iter().any(|dir| path.starts_with(dir))
    }

    fn links(&self, dir: &Path) -> Option<String> {
        let target = |link: PathBuf| fs::read_link(link).ok().filter(|path| self.is_inside(path));
        for (name, what) in [
            ("cwd", "has its working directory at"),
            ("root", "has its root directory at"),
            ("exe", "runs"),
        ] {
            if let Some(path) = target(dir.join(name)) {
                return Some(format!("{what} {}", crate::ui::name(path)));
            }
        }
        let files = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
        let open = files.filter_map(|file| target(file.path())).next()?;
        Some(format!("has {} open", crate::ui::name(open)))
    }

    /// A mount of another namespace that has to do with the directories. A copy of one of ours has not: every sandbox
    /// of a desktop has those.
    fn mount(&self, theirs: &[Mount]) -> Option<String> {
        let news = |mount: &&Mount| !self.own_mounts.iter().any(|own| own.is_same(mount));
        let of = |mount: &Mount| {
            self.dirs.iter().any(|dir| {
                let place = mounts::in_file_system(&self.own_mounts, dir);
                let from = place.is_some_and(|(device, path)| {
                    mount.device == device && mount.root.starts_with(path)
                });
                from || mount.point.starts_with(dir) || mounts::options_name(mount, dir)
            })
        };
        let mount = theirs.iter().filter(news).find(|mount| of(mount))?;
        Some(format!("has {} mounted ({})", crate::ui::name(&mount.point), mount.kind))
    }
}

fn pids(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// The name of a process, `?` if there is none.
pub(super) fn command(proc: &Path, pid: u32) -> String {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("comm"));
    let name = text.map(|text| text.trim().to_owned()).unwrap_or_default();
    if name.is_empty() { "?".to_owned() } else { crate::ui::name(name) }
}

/// The rootlesskit above a process, or itself: the topmost one, to which signals go.
pub(super) fn rootlesskit_of(proc: &Path, pid: u32) -> Option<u32> {
    let mut found = None;
    let mut next = Some(pid);
    // As many as a chain of processes can reasonably have.
    for _ in 0..64 {
        let Some(pid) = next else { break };
        let name = command(proc, pid);
        // The kernel keeps 15 bytes of a name.
        if name == "rootlesskit" || name == "docker-rootless" {
            found = Some(pid);
        }
        next = hostenv::state_dir::parent_of(pid, proc);
    }
    found
}

/// The service of the user's systemd that a process belongs to (cgroups(7)).
pub(super) fn service_of(proc: &Path, pid: u32) -> Option<String> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    text.lines().find_map(|line| {
        let (_, inside) = line.split_once("/user@")?;
        inside.split('/').skip(1).find(|name| name.ends_with(".service")).map(str::to_owned)
    })
}

/// The processes that have a socket open, by the number of its inode.
pub(super) fn holders(proc: &Path, inode: &str) -> Vec<u32> {
    let link = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let files = fs::read_dir(proc.join(pid.to_string()).join("fd")).into_iter().flatten();
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|to| to.as_os_str().as_bytes() == link.as_bytes())
        })
    };
    pids(proc).into_iter().filter(holds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const OWN: &str = "\
21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
22 21 8:2 / /home/u/docker rw - ext4 /dev/sdb1 rw\n";

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Self { dir: tempfile::tempdir().unwrap() };
            fixture.process("self", "x", "mnt:[1]", OWN);
            fixture
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn process(&self, pid: &str, comm: &str, namespace: &str, mounts: &str) {
            fs::create_dir_all(self.at(pid).join("fd")).unwrap();
            fs::create_dir_all(self.at(pid).join("ns")).unwrap();
            fs::write(self.at(pid).join("comm"), format!("{comm}\n")).unwrap();
            fs::write(self.at(pid).join("mountinfo"), mounts).unwrap();
            symlink(namespace, self.at(pid).join("ns/mnt")).unwrap();
        }

        fn found(&self) -> Vec<(u32, String)> {
            let dirs = [PathBuf::from("/home/u/docker")];
            let search = Search::new(self.dir.path(), &dirs).unwrap();
            search
                .processes()
                .into_iter()
                .map(|p| (p.pid, format!("{} {}", p.command, p.why)))
                .collect()
        }
    }

    #[test]
    fn open_files_directories_and_programs_are_signs_of_life() {
        let f = Fixture::new();
        for (pid, link, to) in [
            ("10", "cwd", "/home/u/docker"),
            ("11", "root", "/home/u/docker/vfs/dir/x"),
            ("12", "exe", "/home/u/docker/x"),
            ("13", "fd/3", "/home/u/docker/volumes/metadata.db"),
            ("14", "fd/4", "/home/u/docker-backup"),
            ("15", "cwd", "/home/u"),
        ] {
            f.process(pid, "p", "mnt:[1]", OWN);
            symlink(to, f.at(pid).join(link)).unwrap();
        }
        assert_eq!(
            f.found(),
            [
                (10, "p has its working directory at /home/u/docker".to_owned()),
                (11, "p has its root directory at /home/u/docker/vfs/dir/x".to_owned()),
                (12, "p runs /home/u/docker/x".to_owned()),
                (13, "p has /home/u/docker/volumes/metadata.db open".to_owned()),
            ]
        );
    }

    #[test]
    fn mounts_of_other_namespaces_are_signs_of_life_and_copies_of_ours_are_not() {
        let f = Fixture::new();
        for (pid, namespace, more) in [
            (
                "10",
                "mnt:[2]",
                "30 21 0:9 / /home/u/docker/overlay2/x/merged rw - overlay overlay rw\n",
            ),
            ("11", "mnt:[3]", "30 21 8:2 /containers/x/hosts /etc/hosts rw - ext4 /dev/sdb1 rw\n"),
            (
                "12",
                "mnt:[4]",
                "30 21 0:9 / / rw - overlay overlay rw,upperdir=/home/u/docker/overlay2/x\n",
            ),
            ("13", "mnt:[5]", ""),
            ("14", "mnt:[6]", "30 21 8:1 /home /home rw - ext4 /dev/sda1 rw\n"),
            ("15", "mnt:[2]", ""),
        ] {
            f.process(pid, "p", namespace, &format!("{OWN}{more}"));
        }
        let found = f.found();
        let pids: Vec<u32> = found.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(pids, [10, 11, 12, 15]);
        assert_eq!(found[1].1, "p has /etc/hosts mounted (ext4)");
    }

    #[test]
    fn what_to_stop_is_found() {
        let f = Fixture::new();
        for (pid, comm, parent) in [
            ("10", "systemd", 1),
            ("11", "rootlesskit", 10),
            ("12", "rootlesskit", 11),
            ("13", "dockerd", 12),
        ] {
            f.process(pid, comm, "mnt:[1]", OWN);
            fs::write(f.at(pid).join("status"), format!("PPid:\t{parent}\n")).unwrap();
        }
        assert_eq!(rootlesskit_of(f.dir.path(), 13), Some(11));
        assert_eq!(rootlesskit_of(f.dir.path(), 10), None);
        let unit = "0::/user.slice/user-7.slice/user@7.service/app.slice/my.service/x\n";
        fs::write(f.at("11/cgroup"), unit).unwrap();
        fs::write(f.at("10/cgroup"), "0::/user.slice/user-7.slice/user@7.service/init.scope\n")
            .unwrap();
        assert_eq!(service_of(f.dir.path(), 11), Some("my.service".to_owned()));
        assert_eq!(service_of(f.dir.path(), 10), None);
        symlink("socket:[77]", f.at("12/fd/5")).unwrap();
        assert_eq!(holders(f.dir.path(), "77"), [12]);
    }
}
