//! One tun device: a packet a read, a packet a write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

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
