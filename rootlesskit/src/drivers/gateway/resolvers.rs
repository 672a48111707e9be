//! The name servers of the host, as `/etc/resolv.conf` has them now, and the news that they are others.
//!
//! # Theory of operation
//! The file is often a symlink, or a chain of them (`../run/systemd/resolve/stub-resolv.conf`), and is replaced by
//! rename(2), rewritten in place, deleted for a while, or led elsewhere by whoever manages the network. So its path is
//! walked as the kernel would, a component at a time, and inotify(7) watches what the walk depended on:
//!
//! * the directory of every symlink, of the file, or of the first component that is missing: what comes, goes or is
//!   written there;
//! * every other directory on the way: that it is moved or deleted itself;
//! * the file: it may be a mount of a file that is written elsewhere, as in containers.
//!
//! Each event leads to a new walk and a new set of watches. What changes between the walk and the watches would be
//! missed, so the walk is repeated until it gives the same twice. Not noticed is what inotify does not tell: mounts.

mod conf;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use conf::{PORT, parse};

const MAX_BYTES: usize = 64 << 10;
/// More symlinks than these are a loop (path_resolution(7)).
const MAX_LINKS: usize = 40;
const MAX_WATCHES: usize = 64;
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

/// The name servers in `etc/resolv.conf` below `root`, in their order, at most three as in glibc. Without any it is the
/// one on this machine (resolv.conf(5)); a file that cannot be read is an empty one.
pub(crate) fn read(root: &Path) -> Vec<SocketAddr> {
    servers_in(walk(root).file.as_deref())
}

fn servers_in(file: Option<&Path>) -> Vec<SocketAddr> {
    let text = file.map(text_of).transpose().unwrap_or_else(|e| {
        tracing::debug!("failed to read the host's resolv.conf: {e}");
        None
    });
    let found = parse(&text.unwrap_or_default());
    if found.is_empty() {
        let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return local.map(|ip| SocketAddr::new(ip, PORT)).to_vec();
    }
    found
}

/// The beginning of a file, to the last full line if that is not all of it: half an address may look like another one.
fn text_of(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    hostenv::file::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        let end = bytes.iter().rposition(|b| *b == b'\n').unwrap_or_default();
        bytes.truncate(end);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

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

/// Follows `etc/resolv.conf` below `root`, which absolute symlinks do not leave.
fn walk(root: &Path) -> Trail {
    let mut trail = Trail::default();
    let mut at = root.to_owned();
    // The last one is next.
    let mut todo = vec![OsString::from("resolv.conf"), OsString::from("etc")];
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

/// The names in a symlink, and its `..`.
fn components(target: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    target.components().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// Notices that the host has other name servers.
#[derive(Debug)]
pub(crate) struct Watch {
    root: PathBuf,
    inotify: Inotify,
    armed: BTreeSet<WatchDescriptor>,
    servers: Vec<SocketAddr>,
}

impl Watch {
    /// Begins to watch `etc/resolv.conf` below `root`; [`Watch::servers`] has what is there now.
    pub(crate) fn new(root: &Path) -> anyhow::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context(
            "cannot watch /etc/resolv.conf\nhint: raise the sysctl fs.inotify.max_user_instances or the \
             limit of open files",
        )?;
        let (root, armed) = (root.to_owned(), BTreeSet::new());
        let mut watch = Self { root, inotify, armed, servers: Vec::new() };
        watch.servers = watch.look();
        Ok(watch)
    }

    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Readable when [`Watch::changed`] has something to look at.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Looks again, without waiting. `None` if the servers are the same.
    pub(crate) fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        self.drain();
        let now = self.look();
        if now == self.servers {
            return None;
        }
        self.servers.clone_from(&now);
        Some(now)
    }

    /// What happened does not matter, everything is looked at anyway.
    fn drain(&self) {
        for _ in 0..MAX_READS {
            match self.inotify.read_events() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(e) => {
                    tracing::debug!("failed to read inotify events for /etc/resolv.conf: {e}");
                    return;
                }
            }
        }
    }

    /// Sets the watches, then reads: a change in between makes the descriptor readable.
    fn look(&mut self) -> Vec<SocketAddr> {
        let mut trail = walk(&self.root);
        for _ in 0..MAX_WALKS {
            self.arm(&trail);
            let again = walk(&self.root);
            if again == trail {
                break;
            }
            trail = again;
        }
        servers_in(trail.file.as_deref())
    }

    fn arm(&mut self, trail: &Trail) {
        let mut now = BTreeSet::new();
        for (path, mask) in &trail.watch {
            match self.inotify.add_watch(path, *mask | AddWatchFlags::IN_DONT_FOLLOW) {
                Ok(descriptor) => now.extend([descriptor]),
                // It is gone again, closed to us, or fs.inotify.max_user_watches is reached.
                Err(e) => tracing::debug!("cannot watch {}: {e}", path.display()),
            }
        }
        for old in self.armed.difference(&now) {
            // Fails if what it watched is gone, and the watch with it.
            let _ = self.inotify.rm_watch(*old);
        }
        self.armed = now;
    }
}

#[cfg(test)]
mod tests;
