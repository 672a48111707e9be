//! Datagrams of overlay networks: Ethernet frames in UDP, as VXLAN (RFC 7348) and Geneve (RFC 8926) carry them.
//!
//! They differ from other datagrams in two ways, and the kernel that makes them is not the one that has to be asked:
//!
//! * **They go one way.** The sender puts a hash of the inner connection into the source port, and the receiver ignores
//!   it: answers go to the receiver's well-known port. A flow for each source port would be one for each connection in
//!   the overlay. So all datagrams from one address to one port share a flow, which has the source port of the first.
//! * **They can be unfinished.** Between network namespaces, the kernel leaves the checksum of the inner packet, and
//!   the cutting of a long one, to whoever receives the frame. A socket gets the bytes as they are. The gateway has
//!   them finished before it reads them (`gateway::namespace`). What comes from another host was finished by its network
//!   card; what comes from another namespace of this machine was not, and is passed on as it is.
//!
//! An overlay may use any port, so the content decides: eight bytes whose reserved bits are zero and an Ethernet header.
//! Something else may look like it by chance, or speak VXLAN and answer to the port it was asked from. An answer shows
//! that: from then on other ports have flows of their own ([`joins`]).

use std::net::SocketAddr;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
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
    let Some(start) = datagram.first_chunk::<8>() else { return false };
    let options = if GENEVE.fits(*start) {
        4 * usize::from(start[0] & 0x3f)
    } else if VXLAN.fits(*start) || VXLAN_GBP.fits(*start) {
        0
    } else {
        return false;
    };
    let frame = datagram.get(8 + options..).and_then(|rest| rest.first_chunk::<ETHERNET>());
    frame.is_some_and(|frame| u16::from_be_bytes([frame[12], frame[13]]) >= FIRST_ETHERTYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: [u8; 8], options: usize, ethertype: u16) -> Vec<u8> {
        let mut datagram = header.to_vec();
        datagram.resize(8 + options + 12, 0xee);
        datagram.extend(ethertype.to_be_bytes());
        datagram
    }

    #[test]
    fn vxlan_and_geneve_are_recognised() {
        for (header, options) in [
            ([0x08, 0, 0, 0, 0, 0, 42, 0], 0),
            ([0x88, 0x08, 0x12, 0x34, 0xff, 0xff, 0xff, 0], 0),
            ([0, 0, 0x65, 0x58, 0, 0, 42, 0], 0),
            ([0x02, 0x40, 0x65, 0x58, 0, 0, 42, 0], 8),
        ] {
            for ethertype in [0x0800, 0x86dd, 0x0806, 0x8100] {
                let whole = frame(header, options, ethertype);
                assert!(is_overlay(&whole), "{whole:02x?}");
                assert!(!is_overlay(&whole[..whole.len() - 1]), "a frame without its end");
                assert!(HEADERS.iter().any(|header| header.fits(*whole.first_chunk().unwrap())));
            }
            assert!(!is_overlay(&frame(header, options, 0x05ff)), "a length in place of a type");
        }
    }

    #[test]
    fn a_shared_flow_is_for_overlays_until_it_is_answered() {
        let [first, other] = ["10.0.2.100:1", "10.0.2.100:2"].map(|text| text.parse().unwrap());
        let overlay = frame([0x08, 0, 0, 0, 0, 0, 42, 0], 0, 0x0800);
        let flow = |answered| Some(SharedFlow { first, answered });
        assert!(joins(other, &overlay, None) && !joins(other, b"hello", None));
        assert!(joins(other, &overlay, flow(false)) && !joins(other, b"hello", flow(false)));
        assert!(!joins(other, &overlay, flow(true)));
        assert!(joins(first, b"hello", flow(false)) && joins(first, &overlay, flow(true)));
    }

    #[test]
    fn other_protocols_are_not() {
        for header in [
            // Without a network; something in the reserved bits; another payload of Geneve; its next version.
            [0x00, 0, 0, 0, 0, 0, 42, 0],
            [0x08, 0, 0, 1, 0, 0, 42, 0],
            [0x08, 0, 0, 0, 0, 0, 42, 1],
            [0, 0, 0x08, 0, 0, 0, 42, 0],
            [0x40, 0, 0x65, 0x58, 0, 0, 42, 0],
            // WireGuard, STUN, a query for a name, the long header of QUIC.
            [1, 0, 0, 0, 7, 7, 7, 7],
            [0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],
            [0x12, 0x34, 1, 0, 0, 1, 0, 0],
            [0xc3, 0, 0, 0, 1, 8, 9, 9],
        ] {
            assert!(!is_overlay(&frame(header, 0, 0x0800)), "{header:02x?}");
        }
        assert!(!is_overlay(&[]));
    }
}
