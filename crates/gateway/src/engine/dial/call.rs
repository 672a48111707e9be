//! The host's side of a connection, and what the target namespace hears of its failure.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::EpollFlags;
use relay::EventLoop;
use relay::event_handler::Tag;
use relay::room::Use;
use relay::slab::Key;
use socket2::{Domain, Protocol, Socket, Type};

use super::super::answers::errno;
use super::super::{Shared, kind};
use crate::packet::{Original, Syn};

/// Nothing can make room for a connection: all there may be are made. This one's SYN will be repeated.
pub(super) fn full(host: &mut EventLoop) {
    if host.worth_saying(Use::Out) {
        let limit = host.shares().limit;
        tracing::warn!(
            "outbound connections from containers wait for others to end: the limit of open files, {limit}, allows {} at a time\nhint: raise the limit of open files (ulimit -n, LimitNOFILE=)",
            host.shares().one_way / 2
        );
    }
}

pub(super) fn call(to: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    if to.is_ipv6() {
        // A mapped address must not become IPv4 behind the back of the rules.
        socket.set_only_v6(true)?;
    }
    relay::factory::tune_tcp(&socket)?;
    // Its local port must not be in the way of a listener that somebody publishes there.
    socket.set_reuse_address(true)?;
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => {
            relay::congestion::use_local_towards(&socket, to);
            Ok(socket)
        }
    }
}

pub(super) fn watch(host: &EventLoop, socket: &Socket, key: Key) -> io::Result<()> {
    let tag = Tag { kind: kind::DIAL, key };
    host.watch(socket, tag, EpollFlags::EPOLLOUT | EpollFlags::EPOLLET)
}

/// Whether the target namespace hears of it by a reset.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(errno(error), Errno::ECONNREFUSED | Errno::ECONNRESET)
}

/// Tells the target namespace what the network told us.
pub(super) fn refuse(shared: &Shared, packet: &[u8], syn: &Syn, error: &io::Error) {
    let errno = errno(error);
    tracing::debug!("connect to {}: {}", syn.dst, errno.desc());
    if is_refusal(error) {
        return shared.answers.reset(syn);
    }
    // Others have no answer in the protocol: the SYN stays unanswered, as it did for us, and is repeated.
    shared.explain(errno, syn.src.ip(), &Original::Packet(packet));
}
