//! Deleting a directory with all that is in it, and nothing else: no symbolic link is followed and no mount is entered.
//!
//! # Theory of operation
//! One directory is open at a time. A step down opens a name relative to it with openat2(2) (Linux 5.6) and
//! `RESOLVE_NO_XDEV`, so that the kernel itself refuses a mount point, also one of the same file system, which rm(1)
//! cannot tell (`--one-file-system` compares devices), and one that was mounted a moment ago. Where there is no openat2
//! the number of the mount, which `/proc/self/fdinfo` tells of an open directory, is compared. A step up opens `..` and
//! makes sure that this is the directory which the step down came from. So neither the depth of a tree nor the limit of
//! open files matters.
//!
//! A failure does not stop the walk: what can be deleted is.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// So many failures are told in full.
const TOLD: usize = 10;

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// How mounts are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// The kernel refuses to cross.
    Kernel,
    /// By the number of the mount that everything has to be on.
    Number(u64),
}

impl Guard {
    fn for_directory(dir: BorrowedFd<'_>) -> nix::Result<Self> {
        match openat2(dir, ".", how(ResolveFlag::RESOLVE_NO_XDEV)) {
            Ok(_) => Ok(Self::Kernel),
            // Filters of system calls say EPERM for what they do not know.
            Err(Errno::ENOSYS | Errno::EPERM) => Ok(Self::Number(mount_number(dir)?)),
            Err(error) => Err(error),
        }
    }

    /// Opens a directory by its name in another one.
    fn down(self, dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
        let stay = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_SYMLINKS);
        self.step(dir, name, ResolveFlag::RESOLVE_NO_XDEV.union(stay))
    }

    fn up(self, dir: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
        self.step(dir, c"..", ResolveFlag::RESOLVE_NO_XDEV)
    }

    fn step(self, dir: BorrowedFd<'_>, name: &CStr, rules: ResolveFlag) -> nix::Result<OwnedFd> {
        match self {
            Self::Kernel => openat2(dir, name, how(rules)),
            Self::Number(number) => {
                let next = openat(dir, name, DIRECTORY, Mode::empty())?;
                if mount_number(next.as_fd())? == number { Ok(next) } else { Err(Errno::EXDEV) }
            }
        }
    }
}

fn how(rules: ResolveFlag) -> OpenHow {
    OpenHow::new().flags(DIRECTORY).resolve(rules)
}

fn mount_number(dir: BorrowedFd<'_>) -> nix::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", dir.as_raw_fd()));
    let number = info.ok().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
    });
    // Without /proc nobody can tell, and then nothing is deleted.
    number.ok_or(Errno::ENOSYS)
}

/// A directory to delete from.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    fd: OwnedFd,
    guard: Guard,
}

impl Root {
    /// Opens a directory. No part of the path may be a symbolic link, so it has to be a canonical one.
    pub(super) fn open(path: &Path) -> nix::Result<Self> {
        let fd = match openat2(nix::fcntl::AT_FDCWD, path, how(ResolveFlag::RESOLVE_NO_SYMLINKS)) {
            Err(Errno::ENOSYS | Errno::EPERM) => open(path, DIRECTORY, Mode::empty()),
            other => other,
        }?;
        let guard = Guard::for_directory(fd.as_fd())?;
        Ok(Self { path: path.to_owned(), fd, guard })
    }

    /// The open directory, by a path that nobody can exchange.
    pub(super) fn held(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// Deletes what has this name in the directory.
    pub(super) fn delete(&self, name: &OsStr, failures: &mut Failures) {
        let Ok(name) = CString::new(name.as_bytes()) else { return };
        let walk = Walk { root: self, frames: Vec::new(), failures };
        walk.run(&name);
    }
}

#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The first ones, each with its path and the reason.
    pub(super) told: Vec<String>,
    count: usize,
}

impl Failures {
    fn add(&mut self, path: &Path, error: Errno) {
        self.count += 1;
        if self.count <= TOLD {
            self.told.push(format!("cannot delete {}: {}", crate::ui::name(path), reason(error)));
        }
    }

    /// How many there are beyond those told.
    pub(super) fn more(&self) -> usize {
        self.count - self.told.len()
    }

    pub(super) fn any(&self) -> bool {
        self.count > 0
    }
}

fn reason(error: Errno) -> String {
    let hint = match error {
        Errno::EXDEV | Errno::EBUSY => "a file system is mounted there\nhint: unmount it first",
        Errno::EPERM => {
            "operation not permitted\nhint: if lsattr -d shows that the file is immutable, run: sudo chattr -i"
        }
        Errno::EACCES => {
            "permission denied\nhint: the file or its directory belongs to an ID outside your ranges in /etc/subuid \
             and /etc/subgid; ask root to delete it"
        }
        other => return other.desc().to_lowercase(),
    };
    hint.to_owned()
}

/// A directory on the way from the root to where the walk is.
struct Frame {
    name: CString,
    identity: (u64, u64),
    rest: Vec<(CString, Option<Type>)>,
    /// Something in it is left, so it stays, too.
    stays: bool,
}

struct Walk<'a> {
    root: &'a Root,
    frames: Vec<Frame>,
    failures: &'a mut Failures,
}

impl Walk<'_> {
    fn run(mut self, name: &CStr) {
        let root = self.root.fd.as_fd();
        match self.unlink(root, name, None) {
            Ok(true) => {}
            Ok(false) => match self.enter(root, name.to_owned()) {
                Ok(dir) => {
                    if let Err(error) = self.empty(dir) {
                        let path = self.path(None);
                        self.failures.add(&path, error);
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(error) => self.fail(name, error),
            },
            Err(error) => self.fail(name, error),
        }
    }

    /// Deletes the directories on the way, the last one first, and what is in them.
    fn empty(&mut self, mut dir: OwnedFd) -> nix::Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            let Some((name, kind)) = frame.rest.pop() else {
                let above = self.leave(&dir)?;
                match above {
                    Some(above) => dir = above,
                    None => return Ok(()),
                }
                continue;
            };
            match self.unlink(dir.as_fd(), &name, kind) {
                Ok(true) => {}
                Ok(false) => match self.enter(dir.as_fd(), name.clone()) {
                    Ok(below) => dir = below,
                    // Somebody else has deleted it.
                    Err(Errno::ENOENT) => {}
                    Err(error) => self.fail(&name, error),
                },
                Err(error) => self.fail(&name, error),
            }
        }
        Ok(())
    }

    /// Deletes what is no directory; false if it is one.
    fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr, kind: Option<Type>) -> nix::Result<bool> {
        if kind == Some(Type::Directory) {
            return Ok(false);
        }
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(true),
            Err(Errno::EISDIR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a directory and reads it.
    fn enter(&mut self, dir: BorrowedFd<'_>, name: CString) -> nix::Result<OwnedFd> {
        let below = match self.root.guard.down(dir, &name) {
            // Without root's power over it, its owner opens it first.
            Err(Errno::EACCES) => {
                fchmodat(dir, name.as_c_str(), Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)
                    .map_err(|_| Errno::EACCES)?;
                self.root.guard.down(dir, &name)
            }
            other => other,
        }?;
        let stat = fstat(&below)?;
        if !nix::unistd::geteuid().is_root() {
            // It fails for what is somebody else's, and so will the rest.
            let _ = nix::sys::stat::fchmod(&below, Mode::S_IRWXU);
        }
        let mut rest = Vec::new();
        let copy = below.try_clone().map_err(|_| Errno::EMFILE)?;
        for entry in Dir::from_fd(copy)?.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                rest.push((name.to_owned(), entry.file_type()));
            }
        }
        let identity = identity(&stat);
        self.frames.push(Frame { name, identity, rest, stays: false });
        Ok(below)
    }

    /// Goes up from a directory that has been read to its end, and removes it; `None` at the root.
    fn leave(&mut self, dir: &OwnedFd) -> nix::Result<Option<OwnedFd>> {
        let above = match self.frames.len().checked_sub(2).and_then(|at| self.frames.get(at)) {
            Some(frame) => {
                let above = self.root.guard.up(dir.as_fd())?;
                if identity(&fstat(&above)?) != frame.identity {
                    return Err(Errno::ESTALE);
                }
                Some(above)
            }
            None => None,
        };
        let Some(frame) = self.frames.pop() else { return Ok(None) };
        let from = above.as_ref().map_or(self.root.fd.as_fd(), |fd| fd.as_fd());
        if frame.stays {
            self.mark();
        } else {
            match unlinkat(from, frame.name.as_c_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => self.fail(&frame.name, error),
            }
        }
        Ok(above)
    }

    fn fail(&mut self, name: &CStr, error: Errno) {
        let path = self.path(Some(name));
        self.failures.add(&path, error);
        self.mark();
    }

    fn mark(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.stays = true;
        }
    }

    fn path(&self, name: Option<&CStr>) -> PathBuf {
        let names = self.frames.iter().map(|frame| frame.name.as_c_str()).chain(name);
        let mut path = self.root.path.clone();
        path.extend(names.map(|name| OsStr::from_bytes(name.to_bytes())));
        path
    }
}

fn identity(stat: &nix::sys::stat::FileStat) -> (u64, u64) {
    // The types differ between machines.
    #[allow(clippy::useless_conversion, reason = "32 bits on some machines")]
    (u64::from(stat.st_dev), u64::from(stat.st_ino))
}

#[cfg(test)]
mod tests;
