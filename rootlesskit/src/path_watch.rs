//! What is at a path now, and the news that it may be something else.
//!
//! # Theory of operation
//! A file is often a symlink, or a chain of them (`../run/systemd/resolve/stub-resolv.conf`), and is replaced by
//! rename(2), rewritten in place, deleted for a while, or led elsewhere by whoever manages it. So its path is walked as the
//! kernel would, a component at a time, and inotify(7) watches what the walk depended on:
//!
//! * the directory of every symlink, of the file, or of the first component that is missing: what comes, goes or is
//!   written there;
//! * every other directory on the way: that it is moved or deleted itself;
//! * the file: it may be a mount of a file that is written elsewhere, as in containers.
//!
//! Each event leads to a new walk and a new set of watches. What changes between the walk and the watches would be
//! missed, so the walk is repeated until it gives the same twice. Not noticed is what inotify does not tell: mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// More symlinks than these are a loop (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// For each path.
pub(crate) const MAX_WATCHES: usize = 64;
/// How often the walk is repeated before a file system that does not keep still is left to the next event.
const MAX_WALKS: usize = 4;
/// How many buffers of events are read at once; what is left keeps the descriptor readable.
const MAX_READS: usize = 64;

/// A name in this directory matters. Closed, not modified: half a file is of no use; on overlayfs the first writer gets
/// another inode than the one that is watched as the file. Attributes: a file may become readable only after it was
/// written.
const CONTENT: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB);
/// This directory is on the way.
const ITSELF: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);
/// This is the file.
const FILE: AddWatchFlags =
    AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_ATTRIB).union(ITSELF);

/// What following the path came across. All paths are free of symlinks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trail {
    watch: BTreeMap<PathBuf, AddWatchFlags>,
    file: Option<PathBuf>,
}

impl Trail {
    fn add(&mut self, path: &Path, mask: AddWatchFlags) {
        if self.watch.len() < MAX_WATCHES || self.watch.contains_key(path) {
            *self.watch.entry(path.to_owned()).or_insert(AddWatchFlags::empty()) |= mask;
        }
    }
}

/// Follows `path` below `root`, which absolute symlinks do not leave.
fn walk(root: &Path, path: &Path) -> Trail {
    let mut trail = Trail::default();
    let mut at = root.to_owned();
    // The last one is next.
    let mut todo: Vec<_> = components(path).rev().collect();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            if at != root {
                at.pop();
            }
            continue;
        }
        let next = at.join(&name);
        let Ok(meta) = fs::symlink_metadata(&next) else {
            trail.add(&at, CONTENT);
            break;
        };
        if meta.is_symlink() {
            trail.add(&at, CONTENT);
            links += 1;
            let Ok(target) = fs::read_link(&next) else { break };
            if links > MAX_LINKS {
                break;
            }
            if target.is_absolute() {
                root.clone_into(&mut at);
            }
            todo.extend(components(&target).rev());
        } else if todo.is_empty() {
            trail.add(&at, CONTENT);
            trail.add(&next, FILE);
            trail.file = Some(next);
        } else if meta.is_dir() {
            trail.add(&next, ITSELF);
            at = next;
        } else {
            // A file where a directory is wanted.
            trail.add(&at, CONTENT);
            break;
        }
    }
    trail
}

/// The names in a path, and its `..`.
fn components(target: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    target.components().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// The regular file, or whatever else, that `path` below `root` leads to; `None` if it leads nowhere.
pub(crate) fn find(root: &Path, path: &Path) -> Option<PathBuf> {
    walk(root, path).file
}

/// Notices that paths may lead elsewhere, or that what they lead to was written.
#[derive(Debug)]
pub(crate) struct PathWatch {
    root: PathBuf,
    paths: Vec<PathBuf>,
    inotify: Inotify,
    armed: BTreeSet<WatchDescriptor>,
    blind: Vec<Option<Unwatched>>,
}

/// What cannot be watched, and why.
pub(crate) type Unwatched = (PathBuf, Errno);

impl PathWatch {
    /// Watches `paths` below `root`, from the first [`PathWatch::look`] on.
    pub(crate) fn new(root: &Path, paths: Vec<PathBuf>) -> anyhow::Result<Self> {
        let inotify =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).with_context(|| {
                let names: Vec<_> =
                    paths.iter().map(|path| root.join(path).display().to_string()).collect();
                format!(
                    "cannot watch {}\nhint: raise the sysctl fs.inotify.max_user_instances or the limit of open files",
                    names.join(", ")
                )
            })?;
        Ok(Self {
            root: root.to_owned(),
            paths,
            inotify,
            armed: BTreeSet::new(),
            blind: Vec::new(),
        })
    }

    /// Readable when [`PathWatch::look`] may have something else to say.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Where the paths lead now, without waiting. Whoever reads the files after this does not miss a change: one since then
    /// makes the descriptor readable.
    pub(crate) fn look(&mut self) -> Vec<Option<PathBuf>> {
        self.drain();
        let walk = |root: &Path, paths: &[PathBuf]| -> Vec<Trail> {
            paths.iter().map(|path| walk(root, path)).collect()
        };
        let mut trails = walk(&self.root, &self.paths);
        for _ in 0..MAX_WALKS {
            self.arm(&trails);
            let again = walk(&self.root, &self.paths);
            if again == trails {
                break;
            }
            trails = again;
        }
        trails.into_iter().map(|trail| trail.file).collect()
    }

    /// What happened does not matter, everything is looked at anyway.
    fn drain(&self) {
        for _ in 0..MAX_READS {
            match self.inotify.read_events() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(e) => {
                    tracing::debug!("failed to read inotify events for {:?}: {e}", self.paths);
                    return;
                }
            }
        }
    }

    fn arm(&mut self, trails: &[Trail]) {
        let mut wanted = BTreeMap::new();
        for (path, mask) in trails.iter().flat_map(|trail| &trail.watch) {
            *wanted.entry(path).or_insert(AddWatchFlags::empty()) |= *mask;
        }
        let (mut now, mut failed) = (BTreeSet::new(), BTreeMap::new());
        for (path, mask) in wanted {
            match self.inotify.add_watch(path, mask | AddWatchFlags::IN_DONT_FOLLOW) {
                Ok(descriptor) => now.extend([descriptor]),
                // It is gone again, closed to us, or fs.inotify.max_user_watches is reached.
                Err(e) => {
                    tracing::debug!("cannot watch {}: {e}", path.display());
                    failed.insert(path, e);
                }
            }
        }
        for old in self.armed.difference(&now) {
            // Fails if what it watched is gone, and the watch with it.
            let _ = self.inotify.rm_watch(*old);
        }
        self.armed = now;
        let blind = |trail: &Trail| {
            let matters = |mask: &AddWatchFlags| mask.intersects(CONTENT);
            trail.watch.iter().find_map(|(path, mask)| {
                let error = failed.get(path).filter(|_| matters(mask))?;
                Some((path.clone(), *error))
            })
        };
        self.blind = trails.iter().map(blind).collect();
    }

    /// Why changes of each path may not be noticed, if so, since the last [`PathWatch::look`]. That a directory on the way is
    /// moved does not count: many are closed to others.
    pub(crate) fn blind(&self) -> &[Option<Unwatched>] {
        &self.blind
    }

    #[cfg(test)]
    pub(crate) fn armed(&self) -> usize {
        self.armed.len()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn several_paths_are_watched_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a")).unwrap();
        fs::write(at("a/one"), "").unwrap();
        let paths = ["a/one", "b/two", "a/three"].map(PathBuf::from).to_vec();
        let mut watch = PathWatch::new(dir.path(), paths).unwrap();
        let readable = |watch: &PathWatch| {
            poll(&mut [PollFd::new(watch.fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
        };
        assert_eq!(watch.look(), [Some(at("a/one")), None, None]);
        assert!(!readable(&watch));
        for (change, expected) in [
            ("a/three", [true, false, true]),
            ("b", [true, false, true]),
            ("b/two", [true, true, true]),
        ] {
            match change {
                "b" => fs::create_dir(at(change)).unwrap(),
                file => fs::write(at(file), "x").unwrap(),
            }
            assert!(readable(&watch), "{change}");
            let found: Vec<_> = watch.look().iter().map(Option::is_some).collect();
            assert_eq!(found, expected, "{change}");
        }
        fs::write(at("a/one"), "x").unwrap();
        assert!(readable(&watch));
    }
}
