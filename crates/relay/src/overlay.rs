//! Datagrams of overlay networks: Ethernet frames in UDP, as VXLAN (RFC 7348) and Geneve (RFC 8926) carry them.
//!
//! They differ from other datagrams in two ways:
//!
//! * **They go one way.** The sender puts a hash of the inner connection into the source port, and the receiver ignores
//!   it: answers go to the receiver's well-known port. A flow for each source port would be one for each connection in
//!   the overlay. So all datagrams from one address to one port share a flow, which has the source port of the first.
//! * **They can be unfinished.** Between network namespaces, the kernel leaves the checksum of the inner packet, and
//!   the cutting of a long one, to whoever receives the frame. A datagram socket gets the bytes as they are. So the
//!   gateway reads them from a packet socket, which tells what is left to do ([`Offload`]), and does it itself
//!   ([`finish`]). What comes from another host was finished by its network card; what comes from another namespace of
//!   this machine was not, and is passed on as it is.
//!
//! Where the kernel takes them (Linux ≥ 6.17), the gateway puts consecutive segments of a connection together again for the
//! target namespace ([`Writer::deliver`]), so that its kernel has one packet to look at instead of forty.
//!
//! An overlay may use any port, so the content decides: eight bytes whose reserved bits are zero and an Ethernet header.
//! Something else may look like it by chance, or speak VXLAN and answer to the port it was asked from. An answer shows
//! that: from then on other ports have flows of their own ([`joins`]).

mod cut;
mod frame;
mod join;
mod links;
mod read;
mod write;

use std::net::SocketAddr;

pub use cut::{MAX_FINISHED, Offload, Unfinishable, finish};
pub use read::{Reader, Received};
pub use write::{MAC, Writer};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// The smallest EtherType; a smaller number is a length (IEEE 802.3).
const FIRST_ETHERTYPE: u16 = 0x0600;

/// Eight bytes at the beginning of a datagram: those that count, and their values there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The bits that are compared.
    pub mask: [u8; 8],
    /// Their values.
    pub value: [u8; 8],
}

/// VXLAN: the flag that a network is named, reserved bytes around its number.
const VXLAN: Header =
    Header { mask: [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff], value: [0x08, 0, 0, 0, 0, 0, 0, 0] };

/// The same with the group policy extension (draft-smith-vxlan-group-policy): its flags, and a group in front of the
/// network's number.
const VXLAN_GBP: Header =
    Header { mask: [0xff, 0xb7, 0, 0, 0, 0, 0, 0xff], value: [0x88, 0, 0, 0, 0, 0, 0, 0] };

/// Geneve: version 0, reserved bits, EtherType 0x6558 ("transparent Ethernet bridging"), a reserved last byte.
const GENEVE: Header =
    Header { mask: [0xc0, 0x3f, 0xff, 0xff, 0, 0, 0, 0xff], value: [0, 0, 0x65, 0x58, 0, 0, 0, 0] };

/// The beginnings of overlay datagrams, for packet rules. [`is_overlay`] looks further.
pub const HEADERS: [Header; 3] = [VXLAN, VXLAN_GBP, GENEVE];

impl Header {
    fn fits(self, start: [u8; 8]) -> bool {
        (u64::from_ne_bytes(start) & u64::from_ne_bytes(self.mask))
            == u64::from_ne_bytes(self.value)
    }
}

/// The flow that the datagrams of an overlay network share.
#[derive(Clone, Copy, Debug)]
pub struct SharedFlow {
    /// Who began it and gets the answers.
    pub first: SocketAddr,
    /// Somebody has answered, so it is no overlay's.
    pub answered: bool,
}

/// The key of a shared flow in a table of flows by sender.
pub fn any_port(mut sender: SocketAddr) -> SocketAddr {
    sender.set_port(0);
    sender
}

/// Whether a datagram of a sender that has no flow of its own belongs to the shared one, or begins it if there is none.
pub fn joins(sender: SocketAddr, datagram: &[u8], shared: Option<SharedFlow>) -> bool {
    match shared {
        // What began it may go on with something else.
        Some(flow) if flow.first == sender => true,
        Some(flow) => !flow.answered && is_overlay(datagram),
        None => is_overlay(datagram),
    }
}

/// Whether a datagram carries an Ethernet frame of an overlay network. Looks at the first one of a coalesced run.
pub fn is_overlay(datagram: &[u8]) -> bool {
    let frame = || datagram.get(frame_at(datagram)?..)?.first_chunk::<ETHERNET>();
    frame().is_some_and(|frame| u16::from_be_bytes([frame[12], frame[13]]) >= FIRST_ETHERTYPE)
}

/// Where the Ethernet frame begins, by the header in front of it.
fn frame_at(datagram: &[u8]) -> Option<usize> {
    let start = datagram.first_chunk::<8>()?;
    if GENEVE.fits(*start) {
        Some(8 + 4 * usize::from(start[0] & 0x3f))
    } else if VXLAN.fits(*start) || VXLAN_GBP.fits(*start) {
        Some(8)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
