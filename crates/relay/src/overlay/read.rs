//! What reads overlay datagrams of the namespace, long and unfinished.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use etherparse::Ipv6Header;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::ETHERNET;
use super::cut::Offload;

/// Room for a packet of any length with everything in front of it, and a byte more, by which one that is longer is known.
const BUFFER: usize = Offload::LEN + ETHERNET + Ipv6Header::LEN + u16::MAX as usize + 1;

/// A packet socket ([`sys::packet`]).
#[derive(Debug)]
pub struct Reader(OwnedFd);

/// A packet that was received.
#[derive(Debug)]
pub struct Received<'a> {
    /// What is left to do about it.
    pub offload: Offload,
    /// The packet, from the IP header on; [`ETHERNET`] bytes are in front.
    pub packet: &'a [u8],
}

/// Room to receive packets.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER])
    }
}

impl From<OwnedFd> for Reader {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Reader {
    /// The next packet, if there is one; `Err` for one that is lost because it is of a kind that cannot be told, or too
    /// long.
    pub fn receive<'a>(&self, buffer: &'a mut Buffer) -> Option<Result<Received<'a>, Errno>> {
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut buffer.0, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(e) => return Some(Err(e)),
            }
        };
        let received = || {
            let (offload, frame) = buffer.0.get(..length)?.split_first_chunk()?;
            let packet = frame.get(ETHERNET..)?;
            (length < BUFFER).then_some(Received { offload: Offload::from_bytes(*offload), packet })
        };
        Some(received().ok_or(Errno::EMSGSIZE))
    }
}
