//! One tun device: a packet a read, a packet a write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

/// The largest IP packet in bytes.
const PACKET: usize = 65_535;

#[derive(Debug)]
pub(super) struct Tun {
    device: OwnedFd,
    buffer: Vec<u8>,
}

impl Tun {
    pub(super) fn new(device: OwnedFd) -> Self {
        Self { device, buffer: Vec::new() }
    }

    /// Room for a packet, for as long as the packet is used together with everything else.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(PACKET, 0);
        buffer
    }

    pub(super) fn give_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// The length of the next packet, if there is one.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match nix::unistd::read(&self.device, buffer) {
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
        if let Err(e) = nix::unistd::write(&self.device, packet) {
            tracing::debug!("lost a packet of {} bytes: {}", packet.len(), e.desc());
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
