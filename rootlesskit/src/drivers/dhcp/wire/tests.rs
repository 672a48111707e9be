//! Tests of DHCP messages, and the answers of servers for those of the client.

use super::*;

pub(in super::super) const TALK: Talk = Talk { mac: [2, 0, 0, 0, 0, 7], xid: 0x1234_5678 };

/// An answer as a server would write it.
pub(in super::super) fn answer(talk: Talk, kind: u8, ip: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out[0] = TO_CLIENT;
    out[1..3].copy_from_slice(&ETHERNET);
    out[4..8].copy_from_slice(&talk.xid.to_be_bytes());
    out[YIADDR..YIADDR + 4].copy_from_slice(&ip);
    out[CHADDR..CHADDR + 6].copy_from_slice(&talk.mac);
    out.extend(COOKIE);
    out.extend([option::KIND, 1, kind, option::SERVER, 4, 10, 0, 3, 1]);
    out.extend(options);
    out.push(option::END);
    out
}

#[test]
fn questions_have_the_documented_form() {
    let bytes = encode(TALK, Ask::Discover, 3);
    assert_eq!(bytes.len(), SHORTEST);
    assert_eq!(bytes[..12], [1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 3, 0, 0]);
    assert_eq!(bytes[28..34], TALK.mac);
    assert_eq!(bytes[236..243], [99, 130, 83, 99, 53, 1, 1]);
    let (address, server) = (Ipv4Addr::new(10, 0, 3, 9), Ipv4Addr::new(10, 0, 3, 1));
    let bytes = encode(TALK, Ask::Request { address, server }, 0);
    assert_eq!(bytes[12..16], [0; 4], "the address is not in use yet");
    assert!(bytes.windows(12).any(|w| w == [50, 4, 10, 0, 3, 9, 54, 4, 10, 0, 3, 1]));
    let bytes = encode(TALK, Ask::Extend { address }, 0);
    assert_eq!(bytes[12..16], [10, 0, 3, 9]);
    assert!(!bytes.windows(2).any(|w| w == [50, 4] || w == [54, 4]), "RFC 2131, table 4");
}

#[test]
fn answers_are_read() {
    let options = [
        &[0, 0, 1, 4, 255, 255, 254, 0][..],
        &[3, 8, 10, 0, 3, 1, 10, 0, 3, 2],
        &[6, 8, 0, 0, 0, 0, 9, 9, 9, 9],
        &[51, 4, 0, 0, 2, 88, 58, 4, 0, 0, 0, 60, 59, 3, 1, 1, 1],
        &[56, 3, b'n', 27, b'o'],
    ]
    .concat();
    let reply = decode(TALK, &answer(TALK, 5, [10, 0, 3, 9], &options)).unwrap();
    assert_eq!((reply.kind, reply.address), (Kind::Ack, Ipv4Addr::new(10, 0, 3, 9)));
    assert_eq!((reply.prefix, reply.router), (Some(23), Some(Ipv4Addr::new(10, 0, 3, 1))));
    assert_eq!(reply.dns, [Ipv4Addr::new(9, 9, 9, 9)]);
    assert_eq!((reply.lease, reply.renew, reply.rebind), (Some(600), Some(60), None));
    assert_eq!(reply.message.as_deref(), Some("no"));
}

#[test]
fn options_go_on_in_the_header() {
    let mut bytes = answer(TALK, 2, [10, 0, 3, 9], &[52, 1, 3]);
    bytes[FILE.start..FILE.start + 7].copy_from_slice(&[3, 4, 10, 0, 3, 1, 255]);
    bytes[SNAME.start..SNAME.start + 6].copy_from_slice(&[6, 4, 9, 9, 9, 9]);
    let reply = decode(TALK, &bytes).unwrap();
    assert_eq!(reply.router, Some(Ipv4Addr::new(10, 0, 3, 1)));
    assert_eq!(reply.dns, [Ipv4Addr::new(9, 9, 9, 9)]);
}

#[test]
fn what_is_not_for_us_is_left_alone() {
    let good = answer(TALK, 2, [10, 0, 3, 9], &[]);
    assert!(decode(TALK, &good).is_some());
    assert!(decode(Talk { xid: 1, ..TALK }, &good).is_none());
    assert!(decode(Talk { mac: [0; 6], ..TALK }, &good).is_none());
    for at in [0, 1, 2, 236] {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        assert!(decode(TALK, &bad).is_none(), "byte {at}");
    }
    assert!(decode(TALK, &answer(TALK, 1, [10, 0, 3, 9], &[])).is_none(), "a client's");
}

#[test]
fn masks_are_prefixes_or_nothing() {
    let of = |a, b, c, d| prefix(Ipv4Addr::new(a, b, c, d));
    assert_eq!((of(255, 255, 255, 255), of(255, 0, 0, 0)), (Some(32), Some(8)));
    assert_eq!((of(255, 0, 255, 0), of(0, 0, 0, 0), of(0, 0, 0, 255)), (None, None, None));
}

proptest::proptest! {
    #[test]
    fn bytes_from_elsewhere_never_panic(bytes in proptest::collection::vec(0u8.., 0..400)) {
        let _ = decode(TALK, &bytes);
        let _ = decode(TALK, &answer(TALK, 5, [1, 2, 3, 4], &bytes));
    }
}
