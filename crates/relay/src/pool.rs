//! Sockets of the namespace, kept ready (the engine's side of [`crate::factory`]).
//!
//! Each kind has a shelf that is refilled when it is half empty. A shelf starts small and is empty until
//! the first port of its kind, doubles when someone finds it empty, and shrinks again when the burst is
//! over, so that an idle engine holds next to nothing. Whoever finds it empty queues, within a bound.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::Socket;
use tracing::{debug, warn};

use crate::factory::{ARM, ARMED, NOT_ARMED, Reply, SocketKind, request};
use crate::slab::Key;

/// What an idle shelf of each kind holds, at most: TCP sockets live for one connection, UDP sockets for a flow.
const IDLE: [usize; 4] = [16, 16, 8, 8];
/// What a shelf grows to under load: at 20,000 connections a second, 25 ms worth.
const BUSY: usize = 512;
/// Connections and flows that may wait for a socket of one kind.
const WAITING: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    Conn(Key),
    Flow(Key),
    EventHandler(Key),
}

pub(crate) enum Taken {
    Ready(Socket),
    Later,
    /// The factory is gone, or too many wait already.
    Never,
}

#[derive(Debug, Default)]
struct Shelf {
    ready: Vec<Socket>,
    asked: usize,
    want: usize,
    /// What it holds, at most, when it is idle.
    idle: usize,
    /// Sockets taken since the last [`Pool::trim`].
    used: usize,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
pub(crate) struct Pool {
    factory: Option<OwnedFd>,
    /// Sockets of all shelves, and those that are on their way.
    most: usize,
    busy: usize,
    shelves: [Shelf; 4],
    complained: bool,
    /// The factory's answer to [`Pool::arm`], until it is taken.
    pub(crate) armed: Option<bool>,
}

impl Pool {
    /// `most` is how many sockets may be ready. Without a factory it has nothing to give.
    pub(crate) fn new(factory: Option<OwnedFd>, most: usize) -> io::Result<Self> {
        if let Some(factory) = &factory {
            fcntl(factory, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let idle = IDLE.map(|idle| idle.min(most / 8).max(1));
        let shelves = idle.map(|idle| Shelf { want: idle, idle, ..Shelf::default() });
        let busy = most.saturating_sub(idle.iter().sum::<usize>()).clamp(idle[0].min(most), BUSY);
        Ok(Self { factory, most, busy, shelves, complained: false, armed: None })
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.factory.as_ref().map(AsFd::as_fd)
    }

    /// Stocks a shelf that nobody has used yet.
    pub(crate) fn prepare(&mut self, kind: SocketKind) {
        let shelf = &self.shelves[kind as usize];
        if shelf.ready.is_empty() && shelf.asked == 0 {
            self.ask(kind, shelf.want);
        }
    }

    pub(crate) fn take(&mut self, kind: SocketKind, waiter: Waiter) -> Taken {
        let shelf = &mut self.shelves[kind as usize];
        shelf.used += 1;
        if let Some(sock) = shelf.ready.pop() {
            self.refill(kind);
            return Taken::Ready(sock);
        }
        if self.factory.is_none() || shelf.waiting.len() >= WAITING {
            return Taken::Never;
        }
        shelf.want = (shelf.want * 2).min(self.busy);
        shelf.waiting.push_back(waiter);
        self.refill(kind);
        Taken::Later
    }

    pub(crate) fn give_back(&mut self, kind: SocketKind, sock: Socket) {
        self.shelves[kind as usize].ready.push(sock);
    }

    /// The next waiter whose socket has arrived. What it leaves room for is asked for at once: those behind it need not wait
    /// for [`Pool::retry`].
    pub(crate) fn next_served(&mut self) -> Option<(SocketKind, Waiter, Socket)> {
        for kind in SocketKind::ALL {
            let shelf = &mut self.shelves[kind as usize];
            if !shelf.waiting.is_empty()
                && let Some(sock) = shelf.ready.pop()
                && let Some(waiter) = shelf.waiting.pop_front()
            {
                self.refill(kind);
                return Some((kind, waiter, sock));
            }
        }
        None
    }

    /// Everyone who waits, when there is nothing left to wait for.
    pub(crate) fn give_up(&mut self) -> Vec<Waiter> {
        self.shelves.iter_mut().flat_map(|shelf| std::mem::take(&mut shelf.waiting)).collect()
    }

    /// Asks for the namespace to be armed; the answer comes to `armed`. False if there is none to
    /// be expected.
    pub(crate) fn arm(&mut self) -> bool {
        let factory = self.factory.as_ref();
        factory.is_some_and(|fd| sys::fdpass::send(fd.as_fd(), &[ARM], &[]).is_ok())
    }

    /// Takes in what the factory has sent. False when it is gone; the caller gives up the waiters.
    pub(crate) fn receive(&mut self) -> bool {
        let mut buf = [0; 16];
        while let Some(factory) = &self.factory {
            match sys::fdpass::recv(factory.as_fd(), &mut buf) {
                Ok((0, _)) => {
                    // The ordinary end: the child ends before us.
                    debug!("the socket factory has exited");
                    self.factory = None;
                    return false;
                }
                Ok((1, _)) if buf[0] == ARMED => self.armed = Some(true),
                Ok((1, _)) if buf[0] == NOT_ARMED => self.armed = Some(false),
                Ok((n, fds)) => match Reply::decode(&buf[..n]) {
                    Some(reply) => self.stock(reply, fds),
                    None => return self.lost("it sent an invalid reply"),
                },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                    // No room for the descriptors here; those that did not fit are gone.
                    if let Some(kind) = SocketKind::from_byte(buf[0]) {
                        self.shelves[kind as usize].asked = 0;
                    }
                    self.complain("the parent has too many open files");
                }
                Err(e) => return self.lost(&e.to_string()),
            }
        }
        false
    }

    fn stock(&mut self, reply: Reply, fds: Vec<OwnedFd>) {
        let shelf = &mut self.shelves[reply.kind as usize];
        shelf.asked = shelf.asked.saturating_sub(fds.len() + usize::from(reply.failed));
        shelf.ready.extend(fds.into_iter().map(Socket::from));
        if reply.failed == 0 {
            self.complained = false;
        } else {
            self.complain(Errno::from_raw(reply.errno).desc());
        }
    }

    fn complain(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            warn!(
                "cannot create sockets in the network namespace, so new connections to published ports wait: {reason}"
            );
        }
    }

    fn lost(&mut self, reason: &str) -> bool {
        warn!(
            "published ports refuse new connections, because the socket factory has exited: {reason}"
        );
        self.factory = None;
        false
    }

    /// Asks again for what earlier requests failed to get. True if anyone waits.
    pub(crate) fn retry(&mut self) -> bool {
        let mut needed = false;
        for kind in SocketKind::ALL {
            let shelf = &self.shelves[kind as usize];
            if !shelf.waiting.is_empty() {
                needed = true;
                self.refill(kind);
            }
        }
        needed
    }

    /// Shrinks shelves after a burst. True while any is larger than an idle one.
    pub(crate) fn trim(&mut self) -> bool {
        for shelf in &mut self.shelves {
            if std::mem::take(&mut shelf.used) < shelf.want {
                shelf.want = (shelf.want / 2).max(shelf.idle);
            }
            // Also what came for waiters who did not wait for it.
            shelf.ready.truncate(shelf.want);
            shelf.ready.shrink_to(shelf.want);
        }
        self.has_slack()
    }

    pub(crate) fn has_slack(&self) -> bool {
        let slack = |shelf: &Shelf| shelf.want > shelf.idle || shelf.ready.len() > shelf.want;
        self.shelves.iter().any(slack)
    }

    /// Descriptors held, and those that are on their way.
    pub(crate) fn held(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.ready.len() + shelf.asked).sum()
    }

    fn refill(&mut self, kind: SocketKind) {
        let shelf = &self.shelves[kind as usize];
        let coming = shelf.ready.len() + shelf.asked;
        let need = shelf.waiting.len().min(self.busy);
        if coming * 2 < shelf.want || coming < need {
            self.ask(kind, shelf.want.max(need) - coming);
        }
    }

    fn ask(&mut self, kind: SocketKind, count: usize) {
        let Some(factory) = &self.factory else { return };
        // One can always be asked for: somebody may wait for it.
        let left = self
            .most
            .saturating_sub(self.held())
            .max(usize::from(self.shelves[kind as usize].asked == 0));
        let Ok(count @ 1..) = u16::try_from(count.min(left)) else { return };
        // A full queue means that requests are under way; a dead factory shows when it is read.
        if sys::fdpass::send(factory.as_fd(), &request(kind, count), &[]).is_ok() {
            self.shelves[kind as usize].asked += usize::from(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, poll};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn everybody_is_served_in_turn_without_asking_again_however_few_may_be_ready() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        std::thread::spawn(move || crate::factory::serve(theirs, || false));
        let mut pool = Pool::new(Some(ours), 1).unwrap();
        let waiters: Vec<Waiter> =
            (0..20).map(|index| Waiter::Conn(Key { index, generation: 0 })).collect();
        for waiter in &waiters {
            assert!(matches!(pool.take(SocketKind::Tcp4, *waiter), Taken::Later));
        }
        let mut served = Vec::new();
        while served.len() < waiters.len() {
            let mut fds = [PollFd::new(pool.fd().unwrap(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, 20_000u16).unwrap(), 1, "after {}", served.len());
            assert!(pool.receive());
            while let Some((_, waiter, _)) = pool.next_served() {
                served.push(waiter);
                assert!(pool.held() <= 2, "{} are held", pool.held());
            }
        }
        assert_eq!(served, waiters);
    }
}
