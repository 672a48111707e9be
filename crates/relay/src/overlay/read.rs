//! What reads overlay datagrams of the namespace, long and unfinished.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use etherparse::Ipv6Header;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::ETHERNET;
use super::cut::Offload;

/// Room for a packet of any length with everything in front of it, and a byte more, by which one that is longer is known.
const BUFFER: usize = Offload::LEN + ETHERNET + Ipv6Header::LEN + u16::MAX as usize + 1;

/// A packet socket ([`sys::packet`]), with room for what it receives.
#[derive(Debug)]
pub struct Reader {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// A packet that was received.
#[derive(Debug)]
pub struct Received<'a> {
    /// What is left to do about it.
    pub offload: Offload,
    /// The packet, from the IP header on; [`ETHERNET`] bytes are in front.
    pub packet: &'a [u8],
}

impl From<OwnedFd> for Reader {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; BUFFER] }
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Reader {
    /// The next packet, if there is one; `Err` for one that is lost because it is of a kind that cannot be told, or too
    /// long.
    pub fn receive(&mut self) -> Option<Result<Received<'_>, Errno>> {
        let length = loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(e) => return Some(Err(e)),
            }
        };
        let received = || {
            let (offload, frame) = self.buffer.get(..length)?.split_first_chunk()?;
            let packet = frame.get(ETHERNET..)?;
            (length < BUFFER).then_some(Received { offload: Offload::from_bytes(*offload), packet })
        };
        Some(received().ok_or(Errno::EMSGSIZE))
    }
}
