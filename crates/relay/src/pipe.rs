//! Pipes for splice(2), shared by all connections.
//!
//! A direction borrows one while it has bytes in flight and gives it back the moment it is empty, so streams
//! whose sinks keep up share a single pipe, which stays warm in the cache. Only directions with a slow sink
//! hold on to theirs. Without a pipe a direction copies, so every limit here is soft.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::stock::{Counted, Stock};

/// Pipes made while fewer than this many exist are large ones.
const LARGE_ONES: usize = 8;
const LARGE: i32 = 1 << 20;
const SMALL: i32 = 256 << 10;
/// A user over the soft limit gets pipes of one or two pages (pipe(7)): slower than copying.
const USELESS: i32 = 64 << 10;
/// How long to do without after the kernel has refused.
const PENALTY: Duration = Duration::from_secs(5);
/// Pipes that a thread keeps when nobody uses them. They are made before anybody does: other programs of the user, such as
/// proxies written in Go or pasta, may take all that the user can have, and copying costs four times as much.
const IDLE: usize = 2;

#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
    pub(crate) size: usize,
    _counted: Counted,
}

#[derive(Debug)]
pub(crate) struct Pipes {
    stock: Arc<Stock>,
    idle: Vec<Pipe>,
    /// How many of them are kept.
    keep: usize,
    refused: Option<Instant>,
}

impl Pipes {
    /// With the pipes that are kept idle. A small stock is left to those who turn out to need it: no thread keeps what
    /// another one could use.
    pub(crate) fn new(stock: Arc<Stock>) -> Self {
        let keep = IDLE.min(stock.limit() / 16);
        let mut this = Self { stock, idle: Vec::new(), keep, refused: None };
        this.idle = (0..keep).map_while(|_| this.make()).collect();
        this
    }

    pub(crate) fn take(&mut self) -> Option<Pipe> {
        self.idle.pop().or_else(|| self.make())
    }

    fn make(&mut self) -> Option<Pipe> {
        if self.refused.is_some_and(|at| at.elapsed() < PENALTY) {
            return None;
        }
        let (before, counted) = Stock::enter(&self.stock)?;
        let made = try_make(if before < LARGE_ONES { LARGE } else { SMALL }, counted);
        self.refused = made.is_none().then(Instant::now);
        made
    }

    pub(crate) fn put(&mut self, pipe: Pipe) {
        self.idle.push(pipe);
    }

    pub(crate) fn trim(&mut self) {
        self.idle.truncate(self.keep);
    }

    pub(crate) fn has_slack(&self) -> bool {
        self.idle.len() > self.keep
    }
}

fn try_make(size: i32, counted: Counted) -> Option<Pipe> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
    let got = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size))
        .or_else(|_| fcntl(&write, FcntlArg::F_SETPIPE_SZ(SMALL)))
        .or_else(|_| fcntl(&write, FcntlArg::F_GETPIPE_SZ))
        .ok()?;
    if got < USELESS {
        return None;
    }
    Some(Pipe { read, write, size: usize::try_from(got).ok()?, _counted: counted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::MAX_PIPES;

    #[test]
    fn pipes_of_all_threads_together_are_bounded_and_closed_after_a_burst() {
        let stock = Stock::new(usize::MAX);
        let mut threads = [0; 3].map(|_| Pipes::new(Arc::clone(&stock)));
        let mut lent = Vec::new();
        loop {
            let round = threads.iter_mut().filter_map(Pipes::take).collect::<Vec<_>>();
            if round.is_empty() {
                break;
            }
            lent.extend(round);
        }
        assert_eq!((lent.len(), stock.descriptors()), (MAX_PIPES, 2 * MAX_PIPES));
        assert!(lent.iter().all(|p| p.size >= 64 << 10));
        let bytes: usize = lent.iter().map(|p| p.size).sum();
        assert!(bytes <= 22 << 20, "{bytes} bytes of pipes, of 64 MiB that a user may have");
        // It counts where it is, not where it was made.
        for pipe in lent.drain(..) {
            threads[0].put(pipe);
        }
        assert!(threads[1].take().is_none() && threads[0].has_slack());
        drop(threads[0].take());
        assert_eq!(stock.descriptors(), 2 * (MAX_PIPES - 1));
        threads[0].trim();
        assert!(!threads[0].has_slack());
        assert_eq!(stock.descriptors(), 2 * IDLE);
        assert!(threads[1].take().is_some());
    }

    #[test]
    fn pipes_are_there_before_anybody_needs_one_unless_there_are_few() {
        let stock = Stock::new(usize::MAX);
        let mut pipes = Pipes::new(Arc::clone(&stock));
        assert_eq!(stock.descriptors(), 2 * IDLE);
        pipes.trim();
        let lent: Vec<_> = (0..IDLE).filter_map(|_| pipes.take()).collect();
        assert_eq!((lent.len(), stock.descriptors()), (IDLE, 2 * IDLE), "they are used first");
        let few = Stock::new(8);
        let mut pipes = Pipes::new(Arc::clone(&few));
        assert_eq!(few.descriptors(), 0);
        let all: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(all.len(), 8);
        all.into_iter().for_each(|pipe| pipes.put(pipe));
        // Not kept from other threads for longer than a burst.
        assert!(pipes.has_slack());
        pipes.trim();
        assert_eq!(few.descriptors(), 0);
    }

    #[test]
    fn a_budget_without_pipes_has_none() {
        assert!(Pipes::new(Stock::new(0)).take().is_none());
    }
}
