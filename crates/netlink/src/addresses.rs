//! Hearing of addresses that come and go.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`, linux/rtnetlink.h.
const GROUPS: u32 = 0x10 | 0x100;

/// Listens for changes of the addresses in the network namespace of the calling thread (rtnetlink(7)). An IPv6 address
/// counts as changed again when it becomes usable.
#[derive(Debug)]
pub struct AddressChanges(Socket);

impl AddressChanges {
    /// Begins to listen. Changes from here on are heard.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Waits until something changes. False if nothing does within `limit`.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let changed = poll(&mut fds, limit)? > 0;
        // What they were does not matter, nor whether some were too many for the queue.
        let mut buffer = Vec::with_capacity(1 << 16);
        while self.0.recv(&mut buffer, 0).is_ok() {
            buffer.clear();
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rt;
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn a_new_address_is_heard_and_silence_ends() {
        // A thread of the test harness runs one test and ends.
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let changes = AddressChanges::listen().unwrap();
        assert!(!changes.wait(Duration::ZERO).unwrap());
        let mut rt = Rt::open().unwrap();
        let lo = rt.link_index("lo").unwrap();
        rt.add_address(lo, "192.0.2.1".parse().unwrap(), 32).unwrap();
        assert!(changes.wait(Duration::from_secs(60)).unwrap());
        assert!(!changes.wait(Duration::ZERO).unwrap(), "it was heard");
    }
}
