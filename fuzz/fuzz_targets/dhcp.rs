//! Frames of DHCP servers, which may be anybody on a bridge: a whole lease, from the first question to its end.
#![no_main]
#![allow(dead_code, reason = "the program uses all of it")]

#[path = "../../rootlesskit/src/drivers/dhcp/client.rs"]
mod client;
#[path = "../../rootlesskit/src/drivers/dhcp/frame.rs"]
mod frame;
#[path = "../../rootlesskit/src/drivers/dhcp/lease.rs"]
mod lease;
#[path = "../../rootlesskit/src/drivers/dhcp/wire.rs"]
mod wire;

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use client::{Port, Way};
use libfuzzer_sys::fuzz_target;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const LIMIT: Duration = Duration::from_secs(30);

/// The servers: what they send is in the input. A clock that only waiting moves.
struct Servers<'a> {
    rest: &'a [u8],
    now: Duration,
    xid: u32,
}

impl Port for Servers<'_> {
    fn now(&self) -> Duration {
        self.now
    }

    fn wait(&mut self, until: Duration) {
        self.now = self.now.max(until);
    }

    fn random(&mut self) -> u32 {
        self.xid += 1;
        self.xid
    }

    fn send(&mut self, _: Way, message: &[u8]) -> io::Result<()> {
        assert!(message.len() >= 300, "as long as relays expect");
        let frame = frame::broadcast(MAC, message).expect("a message fits");
        assert_eq!(frame::payload(&frame), None, "it is for servers");
        Ok(())
    }

    /// Bit 0 of `kind`: 0 for a message with these options for this conversation, 1 for a frame of anybody. Bit 1: the
    /// length is in units of four bytes.
    fn receive(&mut self, until: Duration) -> io::Result<Option<Vec<u8>>> {
        let Some(([kind, seconds, length], after)) = self.rest.split_first_chunk::<3>() else {
            self.wait(until);
            return Ok(None);
        };
        let length = usize::from(*length) * if *kind & 2 == 0 { 1 } else { 4 };
        let (bytes, next) = after.split_at(length.min(after.len()));
        self.rest = next;
        self.wait(self.now + Duration::from_secs((*seconds).into()));
        if kind % 2 == 1 {
            return Ok(frame::payload(bytes).map(<[u8]>::to_vec));
        }
        let mut message = vec![0; 236];
        message[..4].copy_from_slice(&[2, 1, 6, 0]);
        message[4..8].copy_from_slice(&self.xid.to_be_bytes());
        message[28..34].copy_from_slice(&MAC);
        message[16..20].copy_from_slice(&[10, 0, 3, *seconds]);
        message.extend([99, 130, 83, 99]);
        message.extend(bytes);
        Ok(Some(message))
    }

    fn close(&mut self) {}
}

fuzz_target!(|data: &[u8]| {
    let mut servers = Servers { rest: data, now: Duration::from_secs(1000), xid: 0 };
    let Ok(mut lease) = client::acquire(&mut servers, MAC, LIMIT) else { return };
    // Each extension uses up some of the input; a server that never ends is the keeper's usual life.
    while !servers.rest.is_empty() {
        for address in lease.dns.iter().chain(&lease.router).chain([&lease.address, &lease.server])
        {
            let first = address.octets()[0];
            assert!((1..224).contains(&first) && *address != Ipv4Addr::LOCALHOST, "{lease:?}");
        }
        assert!((1..=32).contains(&lease.prefix), "{lease:?}");
        let Some(times) = lease.times else { return };
        assert!(times.renew <= times.rebind && times.rebind <= times.end, "{times:?}");
        let Ok(next) = client::extend(&mut servers, MAC, &lease, times) else { return };
        lease = next;
    }
});
