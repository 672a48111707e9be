//! Queries to the connection tracking of the target namespace: which container has opened a connection, or answers it.
//!
//! # Theory of operation
//! Docker's masquerade gives all containers the address of the target namespace, and the destination NAT of published
//! ports hides them, too. The connection tracking of that namespace knows both ends. A socket that may ask it could also
//! change packet rules, so the gateway process does not get one. Instead, a thread of the child asks ([`serve`]), and
//! does nothing else, over a `SOCK_SEQPACKET` pair; the gateway process has the other end ([`Client`]).
//!
//! A message carries up to [`BATCH`] queries of [`QUERY_BYTES`] each, and is answered by one with as many replies. Both
//! ends are the same executable, so there is no version to negotiate. A gateway process that takes over from another one
//! may find replies to queries of its predecessor: each carries the mark of whoever asked, a random number.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use netlink::conntrack::{Conntrack, Direction, Protocol, Query, Tuple};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

/// The most queries of a message.
pub(crate) const BATCH: usize = 64;
/// Mark, number, direction, protocol, family, two ports, two addresses.
const QUERY_BYTES: usize = MARK_BYTES + 3 + 2 * (2 + 16);
/// Mark, number, outcome, family, address.
const REPLY_BYTES: usize = MARK_BYTES + 2 + 16;
/// Mark and number.
const MARK_BYTES: usize = 8 + 4;

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The address of the end inside.
    Found(IpAddr),
    /// Nothing is tracked between these ends.
    Unknown,
    /// The kernel cannot be asked.
    Failed,
}

/// The answer to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    mark: u64,
    /// The number that [`Client::ask`] gave to the query.
    pub number: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// IPv4 addresses take the first four bytes.
fn write_address(ip: IpAddr, to: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => to.extend(v4.octets().into_iter().chain([0; 12])),
        IpAddr::V6(v6) => to.extend(v6.octets()),
    }
}

fn read_address(ipv6: bool, octets: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    if ipv6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() }
}

fn read_mark(bytes: &[u8]) -> Option<((u64, u32), &[u8])> {
    let (mark, rest) = bytes.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    Some(((u64::from_ne_bytes(*mark), u32::from_ne_bytes(*number)), rest))
}

fn write_query(mark: u64, number: u32, query: &Query, to: &mut Vec<u8>) {
    to.extend(mark.to_ne_bytes());
    to.extend(number.to_ne_bytes());
    to.push(u8::from(query.direction == Direction::Inbound));
    to.push(query.protocol as u8);
    to.push(u8::from(query.outside.src.is_ipv6()));
    for end in [query.outside.src, query.outside.dst] {
        to.extend(end.port().to_ne_bytes());
        write_address(end.ip(), to);
    }
}

/// The query behind mark and number.
fn read_query(bytes: &[u8]) -> Option<Query> {
    let ([direction, protocol, ipv6], rest) = bytes.split_first_chunk()?;
    let direction = match direction {
        0 => Direction::Outbound,
        1 => Direction::Inbound,
        _ => return None,
    };
    let mut protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Echo].into_iter();
    let protocol = protocols.find(|known| *known as u8 == *protocol)?;
    let end = |bytes: &[u8]| {
        let (port, ip) = bytes.split_first_chunk()?;
        let ip = read_address(*ipv6 == 1, *ip.first_chunk()?);
        Some(SocketAddr::new(ip, u16::from_ne_bytes(*port)))
    };
    let (src, dst) = rest.split_at_checked(rest.len() / 2)?;
    Some(Query { protocol, direction, outside: Tuple { src: end(src)?, dst: end(dst)? } })
}

impl Reply {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.mark.to_ne_bytes());
        to.extend(self.number.to_ne_bytes());
        let (outcome, ip) = match self.outcome {
            Outcome::Found(ip) => (0, ip),
            Outcome::Unknown => (1, Ipv4Addr::UNSPECIFIED.into()),
            Outcome::Failed => (2, Ipv4Addr::UNSPECIFIED.into()),
        };
        to.extend([outcome, u8::from(ip.is_ipv6())]);
        write_address(ip, to);
    }

    fn read(bytes: &[u8; REPLY_BYTES]) -> Option<Self> {
        let ((mark, number), rest) = read_mark(bytes)?;
        let ([outcome, ipv6], rest) = rest.split_first_chunk()?;
        let outcome = match outcome {
            0 => Outcome::Found(read_address(*ipv6 == 1, *rest.first_chunk()?)),
            1 => Outcome::Unknown,
            _ => Outcome::Failed,
        };
        Some(Self { mark, number, outcome })
    }
}

/// The two ends: that of [`Client::new`], and that of [`serve`].
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Answers queries about the network namespace of the calling thread, until nobody can ask any more.
///
/// # Errors
/// The kernel does not answer lookups at all, or the pair fails.
pub fn serve(socket: &OwnedFd) -> io::Result<()> {
    let mut conntrack = Conntrack::open()?;
    // Whether it works; the first lookup loads the kernel's module.
    conntrack.look_up(&[NOTHING]).into_iter().collect::<io::Result<Vec<_>>>()?;
    serve_with(socket, |queries| conntrack.look_up(queries))
}

/// Answers queries with what `look_up` finds, one result for each query in their order: the end inside.
///
/// # Errors
/// The pair fails.
pub fn serve_with(
    socket: &OwnedFd,
    mut look_up: impl FnMut(&[Query]) -> Vec<io::Result<Option<SocketAddr>>>,
) -> io::Result<()> {
    let mut message = [0; BATCH * QUERY_BYTES];
    let mut replies = Vec::with_capacity(BATCH * REPLY_BYTES);
    loop {
        let length = match recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(0) if is_closed(socket)? => return Ok(()),
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            // It has ended without reading all replies (unix_release_sock() in the kernel).
            Err(Errno::ECONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        replies.clear();
        answer(&mut look_up, &message[..length], &mut replies);
        if replies.is_empty() {
            // A message of no bytes would look like the end.
            continue;
        }
        match reply(socket, &replies) {
            // Replies that are lost are not waited for.
            Ok(()) | Err(Errno::ENOBUFS | Errno::ENOMEM) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn reply(socket: &OwnedFd, replies: &[u8]) -> nix::Result<()> {
    loop {
        match send(socket.as_raw_fd(), replies, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map(drop),
        }
    }
}

/// Whether nothing will be received any more: a message of no bytes looks the same.
fn is_closed(socket: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().is_none_or(|events| events.contains(PollFlags::POLLHUP)))
}

/// What nobody has opened.
const NOTHING: Query = {
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let outside = Tuple { src: nowhere, dst: nowhere };
    Query { protocol: Protocol::Udp, direction: Direction::Outbound, outside }
};

/// Writes a reply to each query of a message. One that makes no sense fails.
fn answer(
    look_up: &mut impl FnMut(&[Query]) -> Vec<io::Result<Option<SocketAddr>>>,
    message: &[u8],
    replies: &mut Vec<u8>,
) {
    let all: Vec<_> = message
        .as_chunks::<QUERY_BYTES>()
        .0
        .iter()
        .filter_map(|bytes| read_mark(bytes).map(|(mark, query)| (mark, read_query(query))))
        .collect();
    let queries: Vec<Query> = all.iter().filter_map(|(_, query)| *query).collect();
    let mut found = look_up(&queries).into_iter();
    for ((mark, number), query) in all {
        let outcome = match query.and_then(|_| found.next()) {
            Some(Ok(Some(end))) => Outcome::Found(end.ip()),
            Some(Ok(None)) => Outcome::Unknown,
            Some(Err(error)) => {
                tracing::debug!("connection tracking does not answer: {error}");
                Outcome::Failed
            }
            None => Outcome::Failed,
        };
        Reply { mark, number, outcome }.write(replies);
    }
}

/// How the event loop watches a [`Client`]. Only for what is new: the end of whoever answers stays to be seen, even after
/// the client is closed, because the parent keeps the socket for the next gateway process.
pub(crate) const WATCHED: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// The end that asks, and never waits.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    mark: u64,
    number: u32,
    queries: Vec<u8>,
}

impl Client {
    /// Asks over this end of a pair.
    pub fn new(socket: OwnedFd) -> Self {
        let mark = RandomState::new().build_hasher().finish();
        Self { socket, mark, number: 0, queries: Vec::new() }
    }

    /// Puts a query, which goes out with [`send`](Self::send). Returns the number of its reply.
    pub fn ask(&mut self, query: &Query) -> u32 {
        self.number = self.number.wrapping_add(1);
        write_query(self.mark, self.number, query, &mut self.queries);
        self.number
    }

    /// Queries that were not sent yet.
    pub fn unsent(&self) -> usize {
        self.queries.len() / QUERY_BYTES
    }

    /// Gives up the queries that were not sent yet.
    pub fn discard(&mut self) {
        self.queries.clear();
    }

    /// Sends the queries. Those for which there is no room remain.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        for batch in self.queries.chunks(BATCH * QUERY_BYTES) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), batch, flags) {
                Ok(length) => sent += length,
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.queries.drain(..sent);
        Ok(())
    }

    /// The next replies; `None` if there are none yet.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub fn replies(&mut self) -> io::Result<Option<Vec<Reply>>> {
        let mut bytes = [0; BATCH * REPLY_BYTES];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                let replies = bytes[..length].as_chunks().0.iter().filter_map(Reply::read);
                Ok(Some(replies.filter(|reply| reply.mark == self.mark).collect()))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
