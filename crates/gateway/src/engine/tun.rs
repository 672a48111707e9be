//! One tun device: a packet a read, a packet a write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(super) const MAX_PACKET: usize = 65_535;

#[derive(Debug)]
pub(super) struct Tun(pub(super) OwnedFd);

impl Tun {
    /// The length of the next packet, if there is one.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match nix::unistd::read(&self.0, buffer) {
                Ok(length) => return Some(length),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(e) => {
                    // EBADFD, EIO: somebody has deleted the device or set it down. Without it there is no network.
                    tracing::error!(
                        "the gateway network is broken: cannot read a tun device: {}",
                        e.desc()
                    );
                    std::process::exit(1);
                }
            }
        }
    }

    /// Whether [`Tun::read`] would give a packet.
    pub(super) fn has_packet(&self) -> bool {
        let mut tun = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut tun, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Sends a packet into the gateway namespace. One that the kernel does not take is lost, as on any network.
    pub(super) fn write(&self, packet: &[u8]) {
        if let Err(e) = nix::unistd::write(&self.0, packet) {
            tracing::debug!("lost a packet of {} bytes: {}", packet.len(), e.desc());
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn the_last_packet_leaves_none() {
        let (unix, packets) = (AddressFamily::Unix, SockType::SeqPacket);
        let (ours, theirs) = socketpair(unix, packets, None, SockFlag::SOCK_NONBLOCK).unwrap();
        let (tun, mut buffer) = (Tun(ours), [0; 8]);
        assert!(!tun.has_packet());
        for packet in [b"one", b"two"] {
            nix::unistd::write(&theirs, packet).unwrap();
        }
        assert_eq!((tun.read(&mut buffer), tun.has_packet()), (Some(3), true));
        assert_eq!((tun.read(&mut buffer), tun.has_packet()), (Some(3), false));
    }
}
