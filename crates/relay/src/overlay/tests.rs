//! What is recognized as a datagram of an overlay network.

use super::{HEADERS, SharedFlow, is_overlay, joins};

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
