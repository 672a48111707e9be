//! The socket between supervisor and gateway process.
//!
//! A message is sent as packets of at most [`MAX_PACKET_BYTES`] bytes, the first of which says whether another one follows. (A
//! packet of the kernel's cannot be longer than the send buffer, which an unprivileged process may not choose freely,
//! and long ones need memory in one piece.) Both ends are this crate in the same executable, so there is no version to
//! negotiate.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use socket2::{Socket, Type};

use super::{MAX, Reply, Request, WAIT, fit};
use crate::descriptors;

/// Bytes of one packet.
const MAX_PACKET_BYTES: usize = 32 << 10;
/// First byte of a packet that ends a message …
const LAST: u8 = 0;
/// … and of one that does not.
const MORE: u8 = 1;
/// What the send buffer should hold, in bytes. Only a wish: `net.core.wmem_max` bounds it (socket(7)).
const BUFFER: usize = 8 * MAX_PACKET_BYTES;
/// The most descriptors that a request has.
const MAX_FDS: usize = descriptors::count(true, descriptors::MOST_OF_OVERLAYS);
/// Why a request fails whose descriptors did not fit.
const NO_ROOM: &str = "the gateway process has no file descriptors left\nhint: raise the limit of open files (ulimit -n, LimitNOFILE=)";
/// Characters that are left of a reason which is too long.
const REASON: usize = 4 << 10;

/// Body and descriptors of a message, `None` if there was no room for those.
type Message = (Vec<u8>, Option<Vec<OwnedFd>>);

/// One end of the socket.
#[derive(Debug)]
pub struct Channel {
    sock: OwnedFd,
}

impl AsFd for Channel {
    /// To be watched for the end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}

impl Channel {
    /// Our end, and the other one as a descriptor for a process.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Takes a socket that [`Channel::pair`] has made.
    ///
    /// # Errors
    /// `ENOTSOCK`, or `InvalidInput` for another kind of socket: somebody else than a supervisor started this process.
    pub fn new(sock: OwnedFd) -> io::Result<Self> {
        let sock = Socket::from(sock);
        if sock.r#type()? != Type::SEQPACKET {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no SOCK_SEQPACKET socket"));
        }
        sock.set_nonblocking(true)?;
        let _ = sock.set_send_buffer_size(BUFFER);
        let _ = sock.set_recv_buffer_size(BUFFER);
        Ok(Self { sock: sock.into() })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the number of descriptors is wrong, the gateway has ended, or it does not read.
    pub fn send(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> anyhow::Result<()> {
        check(request, fds.len())?;
        let body = serde_json::to_vec(request)?;
        self.write(&body, fds, deadline)
            .map_err(|e| explain(e, "the gateway process"))
            .with_context(|| format!("sending {}", request.name()))
    }

    /// Waits for the next reply; `None` is the end of the gateway.
    ///
    /// # Errors
    /// When the gateway is silent until `deadline`, and for anything that is no reply.
    pub fn answer(&self, deadline: Instant) -> anyhow::Result<Option<Reply>> {
        let message = self.read(Some(deadline)).map_err(|e| explain(e, "the gateway process"))?;
        let Some((body, fds)) = message else { return Ok(None) };
        let fds = fds.context("the gateway process sent descriptors in a reply")?;
        ensure!(fds.is_empty(), "the gateway process sent {} descriptors in a reply", fds.len());
        serde_json::from_slice(&body).map(Some).context("the gateway process sent an invalid reply")
    }

    /// Whether the other side has closed its end.
    pub fn ended(&self) -> bool {
        let mut fds = [PollFd::new(self.sock.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
            && fds[0].revents().is_some_and(|revents| revents.intersects(gone))
    }

    /// The gateway's side: waits for the next request, for ever if need be. `None` is the end: the supervisor has
    /// closed its end. A request for whose descriptors this process has no room is answered here: it has failed.
    ///
    /// # Errors
    /// For anything that is no request or has another number of descriptors, and when the rest of a request does not
    /// come. The gateway ends then.
    pub fn request(&self) -> anyhow::Result<Option<(Request, Vec<OwnedFd>)>> {
        loop {
            let message = self.read(None).map_err(|e| explain(e, "the supervisor"))?;
            let Some((body, fds)) = message else { return Ok(None) };
            let request: Request =
                serde_json::from_slice(&body).context("the supervisor sent an invalid request")?;
            if let Some(fds) = fds {
                check(&request, fds.len())?;
                return Ok(Some((request, fds)));
            }
            self.reply(&Reply::Failed(NO_ROOM.to_owned()))?;
        }
    }

    /// The gateway's side: answers the oldest request, within [`WAIT`]. Statistics are made to fit, a long reason is
    /// cut.
    ///
    /// # Errors
    /// When the supervisor has ended or does not read.
    pub fn reply(&self, reply: &Reply) -> anyhow::Result<()> {
        let mut body = serde_json::to_vec(reply)?;
        if body.len() > MAX {
            let mut shorter = reply.clone();
            match &mut shorter {
                Reply::Stats(stats) => fit(stats),
                Reply::Failed(why) => *why = why.chars().take(REASON).collect(),
                // Records are bounded by their number.
                Reply::Done | Reply::Flows { .. } => {}
            }
            body = serde_json::to_vec(&shorter)?;
        }
        self.write(&body, &[], Instant::now() + WAIT)
            .map_err(|e| explain(e, "the supervisor"))
            .with_context(|| format!("answering {}", reply.name()))
    }

    fn write(&self, body: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<()> {
        let mut fds = fds;
        let mut packet = Vec::with_capacity(body.len().min(MAX_PACKET_BYTES) + 1);
        let mut parts = body.chunks(MAX_PACKET_BYTES - 1).peekable();
        while let Some(part) = parts.next() {
            packet.clear();
            packet.push(if parts.peek().is_some() { MORE } else { LAST });
            packet.extend_from_slice(part);
            self.write_packet(&packet, fds, deadline)?;
            fds = &[];
        }
        Ok(())
    }

    fn write_packet(
        &self,
        packet: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> io::Result<()> {
        loop {
            match sys::fdpass::send_until(self.sock.as_fd(), packet, fds, deadline) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT, Some(deadline))?;
                }
                other => return other.map(drop),
            }
        }
    }

    /// The next message; `None` is the end of the stream. Without a deadline it waits for the beginning of a message
    /// for ever, and for the rest within [`WAIT`].
    fn read(&self, mut deadline: Option<Instant>) -> io::Result<Option<Message>> {
        let mut packet = vec![0; MAX_PACKET_BYTES];
        let (mut body, mut fds) = (Vec::new(), Some(Vec::<OwnedFd>::new()));
        let mut reset = false;
        loop {
            let received = match sys::fdpass::recv_what_fits(self.sock.as_fd(), &mut packet) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, deadline)?;
                    continue;
                }
                // It has ended without reading all that we sent. That is said once, and before what it has sent.
                Err(e) if e.kind() == ErrorKind::ConnectionReset && !reset => {
                    reset = true;
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
                other => other?,
            };
            let n = received.bytes;
            fds = fds.zip(received.fds).map(|(mut fds, came)| {
                fds.extend(came);
                fds
            });
            let Some((&kind, part)) = packet[..n].split_first() else { return Ok(None) };
            body.extend_from_slice(part);
            // Only whole packets may precede the last, so that nobody can keep us here with small ones.
            let many = fds.as_ref().is_some_and(|fds| fds.len() > MAX_FDS);
            if kind != LAST && n < MAX_PACKET_BYTES || body.len() > MAX || many {
                return Err(io::Error::new(ErrorKind::InvalidData, "invalid message"));
            }
            if kind == LAST {
                return Ok(Some((body, fds)));
            }
            deadline = deadline.or_else(|| Instant::now().checked_add(WAIT));
        }
    }

    fn wait(&self, what: PollFlags, deadline: Option<Instant>) -> io::Result<()> {
        loop {
            let left = deadline.map(|when| when.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(PollTimeout::NONE, poll_timeout);
            let mut fds = [PollFd::new(self.sock.as_fd(), what)];
            match poll(&mut fds, timeout) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Ok(0) | Err(Errno::EINTR) => {}
                other => return other.map(drop).map_err(io::Error::from),
            }
        }
    }
}

/// A time as poll(2) takes it, rounded up: zero would end the wait too early, again and again.
pub(crate) fn poll_timeout(left: Duration) -> PollTimeout {
    PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}

fn check(request: &Request, count: usize) -> anyhow::Result<()> {
    let expected = request.descriptors();
    ensure!(
        count == expected,
        "{} came with {count} descriptors instead of {expected}",
        request.name()
    );
    Ok(())
}

/// The usual errors of the socket in terms of who is at its other end.
fn explain(error: io::Error, peer: &str) -> anyhow::Error {
    match error.kind() {
        ErrorKind::TimedOut => anyhow::anyhow!("{peer} is not responding"),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => anyhow::anyhow!("{peer} has exited"),
        _ => anyhow::Error::new(error).context(format!("talking to {peer}")),
    }
}
