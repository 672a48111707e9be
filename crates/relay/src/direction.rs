//! One direction of a TCP connection: from a source to a sink.
//!
//! Readiness is remembered here, because epoll (edge-triggered) says it only once: `readable` is true and
//! `full` is false until a call has proved the contrary. A receive that returns less than it could
//! has emptied the source (epoll(7), "Questions and answers"), unless the end of the stream or urgent
//! data is pending, which `drain` records.
//!
//! Nothing is read while the sink is full, so at most one buffer or one pipe of bytes is held, and
//! end-of-stream is passed on only after they have gone out. A source that was reset is read to the end
//! first: the kernel keeps what arrived before the reset.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::Socket;

use crate::kept::Kept;
use crate::pipe::{Pipe, Pipes};
use crate::stock::Stock;
use crate::total::Total;

/// The shared copy buffer, and thereby the most that is kept for a sink that takes no more.
const BUFFER_SIZE: usize = 64 << 10;
/// Bytes kept for all sinks together before what is read at a time, and thereby kept for each further one, becomes
/// less …
const MANY_BYTES_KEPT: usize = 16 << 20;
/// … namely this.
const SMALL_READ: usize = 4 << 10;
/// A receive of this size says that the stream is bulk and worth a pipe.
const BULK_READ: usize = 32 << 10;
/// Splices smaller than this, several in a row, say that it is not bulk any more.
const SMALL_SPLICE: usize = 8 << 10;
const MAX_SMALL_SPLICES: u8 = 8;
/// How much all directions together may move between two looks at epoll, roughly …
const ROUND_BYTES: usize = 8 << 20;
/// … and what each one's turn is at most and at least.
const TURN_BYTES: std::ops::RangeInclusive<usize> = 128 << 10..=1 << 20;

const SPLICE_FLAGS: SpliceFFlags =
    SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);

/// What all directions of a thread share.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) pipes: Pipes,
    turn: usize,
    kept: Total,
}

impl Tools {
    pub(crate) fn new(pipes: Arc<Stock>) -> Self {
        let buffer = vec![0; BUFFER_SIZE].into_boxed_slice();
        let kept = pipes.kept.clone();
        Self { buffer, pipes: Pipes::new(pipes), turn: *TURN_BYTES.end(), kept }
    }

    /// How much is read at a time: sinks that take nothing have what was read kept for them.
    fn portion(&self) -> usize {
        if self.kept.bytes() < MANY_BYTES_KEPT { BUFFER_SIZE } else { SMALL_READ }
    }

    /// Shares out one round among so many directions.
    pub(crate) fn share(&mut self, among: usize) {
        self.turn = (ROUND_BYTES / among.max(1)).clamp(*TURN_BYTES.start(), *TURN_BYTES.end());
    }
}

/// Why [`Direction::pump`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do until one of the sockets reports something.
    Wait,
    /// It has had its turn and could go on.
    Again,
    /// The source has ended and everything has gone out. Reported once.
    Ended,
    /// As `Ended`, but the source was reset. Reported once.
    Broken,
    /// The sink takes nothing any more; what was held for it is gone. Reported once.
    SinkGone,
}

#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) readable: bool,
    /// The sink has said that it takes no more for now.
    pub(crate) full: bool,
    /// Read until the source says that there is no more, however short the reads are.
    pub(crate) drain: bool,
    /// Urgent data was announced, at which splice(2) would stop for good; recv(2) steps over it.
    pub(crate) urgent: bool,
    /// The source was reset: its end is no orderly one.
    pub(crate) broken: bool,
    /// The source has vanished: it acknowledged nothing any more.
    pub(crate) timed_out: bool,
    /// The sink was reset, or its host is gone.
    pub(crate) gone: bool,
    ended: bool,
    /// Nothing will ever move this way again.
    pub(crate) done: bool,
    bulk: bool,
    trickles: u8,
    kept: Kept,
    pipe: Option<Pipe>,
    piped: usize,
    /// Bytes that have moved by splice(2).
    pub(crate) spliced: u64,
    /// Bytes read since [`Direction::take_moved`].
    moved: u64,
    /// Bytes that the sink has taken.
    pub(crate) delivered: u64,
}

impl Direction {
    /// A direction to a new backend: nothing has moved yet, but the client may have sent something.
    pub(crate) fn renewed(&self) -> Self {
        let Self { readable, drain, urgent, .. } = *self;
        Self { readable, drain, urgent, ..Self::default() }
    }

    /// Bytes read from the source since the last call.
    pub(crate) fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    pub(crate) fn pump(&mut self, source: &Socket, sink: &Socket, tools: &mut Tools) -> Outcome {
        if self.done {
            return Outcome::Wait;
        }
        if self.gone {
            self.abandon(tools);
            return Outcome::SinkGone;
        }
        let mut moved = 0;
        loop {
            match self.flush(sink) {
                Ok(true) => {}
                Ok(false) => return Outcome::Wait,
                Err(_) => {
                    self.abandon(tools);
                    return Outcome::SinkGone;
                }
            }
            let rest = self.ended || !self.readable || self.full || moved >= tools.turn;
            if let Some(pipe) = self.pipe.take_if(|_| rest || !self.bulk || self.urgent) {
                tools.pipes.put(pipe);
            }
            if self.ended {
                self.done = true;
                return if self.broken { Outcome::Broken } else { Outcome::Ended };
            }
            if rest {
                return if self.readable && !self.full { Outcome::Again } else { Outcome::Wait };
            }
            if self.bulk && !self.urgent && self.pipe.is_none() {
                self.pipe = tools.pipes.take();
            }
            let portion = tools.portion();
            let read = match &self.pipe {
                Some(pipe) => splice_in(source, pipe, tools.turn),
                None => copy(source, &mut tools.buffer[..portion]),
            };
            match read {
                // At urgent data splice(2) says "end" as soon as the source has ended, whatever lies behind
                // it; only recv(2) knows.
                Ok(Some(0)) if self.pipe.is_some() => self.urgent = true,
                Ok(Some(0)) => self.ended = true,
                Ok(Some(n)) => {
                    moved += n;
                    self.moved += n as u64;
                    if self.pipe.is_some() {
                        self.piped = n;
                        self.spliced += n as u64;
                        self.note_splice(n);
                    } else {
                        self.readable = self.drain || n == portion;
                        self.bulk = n >= BULK_READ;
                        self.pass_on(sink, &tools.buffer[..n], &tools.kept);
                    }
                }
                Ok(None) => self.readable = false,
                Err(e) => {
                    (self.ended, self.broken) = (true, true);
                    self.timed_out = e == Errno::ETIMEDOUT;
                }
            }
        }
    }

    /// Reads what has nowhere to go. True if it has had its turn and there may be more.
    pub(crate) fn discard(&mut self, source: &Socket, tools: &mut Tools) -> bool {
        let mut moved = 0;
        while self.readable && moved < tools.turn {
            match copy(source, &mut tools.buffer) {
                Ok(Some(n)) if n > 0 => moved += n,
                _ => self.readable = false,
            }
        }
        self.readable
    }

    /// Forgets what is held, and that there ever was anything to do.
    pub(crate) fn abandon(&mut self, tools: &mut Tools) {
        // One that holds bytes which nobody wants is closed.
        if let Some(pipe) = self.pipe.take().filter(|_| self.piped == 0) {
            tools.pipes.put(pipe);
        }
        self.kept.clear();
        (self.piped, self.done) = (0, true);
    }

    /// Copies have no failures of their own: what cannot be sent now is kept, and [`Self::flush`] will
    /// meet the error again if it was one.
    fn pass_on(&mut self, sink: &Socket, data: &[u8], total: &Total) {
        let sent = send(sink.as_raw_fd(), data, MsgFlags::MSG_NOSIGNAL).unwrap_or(0);
        self.delivered += sent as u64;
        if sent < data.len() {
            self.kept.push(&data[sent..], total);
        }
    }

    fn note_splice(&mut self, n: usize) {
        self.trickles = if n < SMALL_SPLICE { self.trickles + 1 } else { 0 };
        if self.trickles >= MAX_SMALL_SPLICES {
            (self.bulk, self.trickles) = (false, 0);
        }
    }

    /// Sends what is held. True when nothing is left.
    fn flush(&mut self, sink: &Socket) -> nix::Result<bool> {
        while self.piped > 0 || !self.kept.rest().is_empty() {
            if self.full {
                return Ok(false);
            }
            let kept = self.kept.rest();
            let sent = match &self.pipe {
                _ if !kept.is_empty() => send(sink.as_raw_fd(), kept, MsgFlags::MSG_NOSIGNAL),
                Some(pipe) => splice(&pipe.read, None, sink, None, self.piped, SPLICE_FLAGS),
                None => break,
            };
            match sent {
                Ok(n) => {
                    self.delivered += n as u64;
                    if kept.is_empty() {
                        self.piped -= n.min(self.piped);
                    } else {
                        self.kept.advance(n);
                    }
                }
                Err(Errno::EAGAIN) => self.full = true,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

fn copy(source: &Socket, buffer: &mut [u8]) -> nix::Result<Option<usize>> {
    moved(|| recv(source.as_raw_fd(), buffer, MsgFlags::empty()))
}

/// Fills an empty pipe, so that "would block" can only be about the source.
fn splice_in(source: &Socket, pipe: &Pipe, most: usize) -> nix::Result<Option<usize>> {
    let most = pipe.size.min(most);
    moved(|| splice(source, None, &pipe.write, None, most, SPLICE_FLAGS))
}

/// How many bytes a call has moved; `None` if there are none at present.
fn moved(mut call: impl FnMut() -> nix::Result<usize>) -> nix::Result<Option<usize>> {
    loop {
        match call() {
            Ok(n) => return Ok(Some(n)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}
