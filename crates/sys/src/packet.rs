//! Packet sockets with the header of virtio: frames of one link as the kernel has them, checksums unfinished and segments
//! uncut (packet(7), `PACKET_VNET_HDR` of linux/if_packet.h).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libc::{c_int, socklen_t};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::sockopt;

/// From linux/if_packet.h; libc has neither.
const PACKET_VNET_HDR: c_int = 15;
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// Opens a socket that gets each frame that arrives at a link of the thread's network namespace, and sends frames out by
/// that link. In front of the Ethernet header is a `struct virtio_net_hdr` of 10 bytes in the byte order of this machine.
/// The socket is non-blocking.
///
/// # Errors
/// `EPERM` without `CAP_NET_RAW` over the namespace, `EAFNOSUPPORT` if the kernel has no packet sockets, `ENODEV` if there
/// is no such link.
pub fn open(link: u32) -> io::Result<OwnedFd> {
    // Without a protocol it gets nothing until it is bound to the link.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    sockopt::set(socket.as_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
    // Linux ≥ 4.20. Before, somebody else's frames that leave by the link are read as well.
    let _ = sockopt::set(socket.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    bind(&socket, link)?;
    Ok(socket)
}

/// Binds to a link, from which on frames of all protocols come in.
pub(crate) fn bind(socket: &OwnedFd, link: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    address.sll_ifindex = c_int::try_from(link).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of `address`, which outlives the call.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len::<libc::sockaddr_ll>())
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sizes of these types fit.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const fn len<T>() -> socklen_t {
    size_of::<T>() as socklen_t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri knows no packet sockets")]
    fn a_link_that_is_not_there_is_said() {
        let error = open(u32::MAX >> 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
    }
}
