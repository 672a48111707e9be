//! DHCP messages in Ethernet frames, for an interface that has no address yet.

use std::net::Ipv4Addr;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// UDP ports of servers and clients (RFC 2131, section 4.1).
pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
/// The standard's default for IP (RFC 1700).
const TTL: u8 = 64;

pub(super) fn broadcast(mac: [u8; 6], message: &[u8]) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(mac, [0xff; 6])
        .ipv4(Ipv4Addr::UNSPECIFIED.octets(), Ipv4Addr::BROADCAST.octets(), TTL)
        .udp(CLIENT_PORT, SERVER_PORT);
    let mut frame = Vec::with_capacity(builder.size(message.len()));
    builder.write(&mut frame, message).ok()?;
    Some(frame)
}

/// The message for a client in a frame. Checksums are not looked at: frames of the same machine have none yet.
pub(super) fn payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(NetSlice::Ipv4(_)) = packet.net else { return None };
    match packet.transport {
        Some(TransportSlice::Udp(udp))
            if udp.source_port() == SERVER_PORT && udp.destination_port() == CLIENT_PORT =>
        {
            Some(udp.payload())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_is_a_broadcast() {
        let frame = broadcast([2, 0, 0, 0, 0, 1], b"hello").unwrap();
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(frame[26..34], [0, 0, 0, 0, 255, 255, 255, 255]);
        assert!(payload(&frame).is_none(), "it is for servers");
    }

    #[test]
    fn answers_are_taken_with_any_checksum() {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 0, 3, 1], [10, 0, 3, 9], 64)
            .udp(SERVER_PORT, CLIENT_PORT);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"hello").unwrap();
        assert_eq!(payload(&frame), Some(&b"hello"[..]));
        frame[40] ^= 0xff;
        assert_eq!(payload(&frame), Some(&b"hello"[..]));
        assert_eq!(payload(&frame[..41]), None);
    }

    proptest::proptest! {
        #[test]
        fn bytes_from_elsewhere_never_panic(bytes in proptest::collection::vec(0u8.., 0..100)) {
            let _ = payload(&bytes);
        }
    }
}
