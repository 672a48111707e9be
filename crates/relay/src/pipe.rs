//! Pipes for splice(2), shared by all connections.
//!
//! A half borrows one while it has bytes in flight and gives it back the moment it is empty, so streams
//! whose sinks keep up share a single pipe, which stays warm in the cache. Only halves with a slow sink
//! hold on to theirs. Without a pipe a half copies, so every limit here is soft.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

/// The most pipes at a time. With the sizes below they stay well under the default of
/// `fs.pipe-user-pages-soft` (64 MiB for all pipes of a user, of whom we are one process of many).
const LIMIT: usize = 64;
/// Pipes made while fewer than this many exist are large ones.
const LARGE_ONES: usize = 8;
const LARGE: i32 = 1 << 20;
const SMALL: i32 = 256 << 10;
/// A user over the soft limit gets pipes of one or two pages (pipe(7)): slower than copying.
const USELESS: i32 = 64 << 10;
/// How long to do without after the kernel has refused.
const PENALTY: Duration = Duration::from_secs(5);
/// Pipes kept when nobody uses them.
const IDLE: usize = 2;

#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
    /// Capacity in bytes.
    pub(crate) size: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
    made: usize,
    refused: Option<Instant>,
}

impl Pipes {
    /// An empty pipe, if there is one to be had.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        self.idle.pop().or_else(|| self.make())
    }

    fn make(&mut self) -> Option<Pipe> {
        if self.made >= LIMIT || self.refused.is_some_and(|at| at.elapsed() < PENALTY) {
            return None;
        }
        let made = try_make(if self.made < LARGE_ONES { LARGE } else { SMALL });
        match made {
            Some(_) => self.made += 1,
            None => self.refused = Some(Instant::now()),
        }
        made
    }

    /// Takes back an empty pipe.
    pub(crate) fn put(&mut self, pipe: Pipe) {
        self.idle.push(pipe);
    }

    /// A pipe that was lent goes to another thread's halves …
    pub(crate) fn give_away(&mut self) {
        self.made -= 1;
    }

    /// … and comes with a half from there.
    pub(crate) fn adopt(&mut self) {
        self.made += 1;
    }

    /// Closes a pipe that still holds bytes nobody wants.
    pub(crate) fn discard(&mut self, pipe: Pipe) {
        drop(pipe);
        self.made -= 1;
    }

    /// Closes what a burst has left behind. True while more than the usual number exist.
    pub(crate) fn trim(&mut self) -> bool {
        while self.idle.len() > IDLE {
            if let Some(pipe) = self.idle.pop() {
                self.discard(pipe);
            }
        }
        self.has_slack()
    }

    pub(crate) fn has_slack(&self) -> bool {
        self.made > IDLE
    }

    /// Descriptors held, idle or lent.
    pub(crate) fn descriptors(&self) -> usize {
        self.made * 2
    }
}

fn try_make(size: i32) -> Option<Pipe> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
    let got = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size))
        .or_else(|_| fcntl(&write, FcntlArg::F_SETPIPE_SZ(SMALL)))
        .or_else(|_| fcntl(&write, FcntlArg::F_GETPIPE_SZ))
        .ok()?;
    if got < USELESS {
        return None;
    }
    Some(Pipe { read, write, size: usize::try_from(got).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_shared_bounded_and_closed_after_a_burst() {
        let mut pipes = Pipes::default();
        let lent: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!((lent.len(), pipes.descriptors()), (LIMIT, 2 * LIMIT));
        assert!(lent.iter().all(|p| p.size >= 64 << 10));
        for pipe in lent {
            pipes.put(pipe);
        }
        assert!(pipes.take().is_some_and(|p| {
            pipes.discard(p);
            true
        }));
        assert!(!pipes.trim());
        assert_eq!(pipes.descriptors(), 2 * IDLE);
    }
}
