use netlink::conntrack::{Direction, Tuple};
use proptest::prelude::*;

use super::*;

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn query(protocol: Protocol, port: u16) -> Query {
    let end = |port| SocketAddr::new(address(1), port);
    let outside = Tuple { src: end(port), dst: end(1) };
    Query { protocol, direction: Direction::Outbound, outside }
}

fn packet(bytes: &[u8]) -> Packet {
    Packet { bytes: bytes.into(), is_reassembled: false }
}

/// Has a datagram wait that counts for an address.
fn add(parked: &mut Parked, port: u16, last: u8) -> Added {
    parked.add(&query(Protocol::Udp, port), address(last), b"a", false)
}

#[test]
fn packets_between_the_same_ends_wait_together_in_their_order() {
    let mut parked = Parked::new(2, true);
    let [one, other] = [1, 2].map(|port| query(Protocol::Udp, port));
    assert_eq!(parked.add(&one, address(1), b"a", false), Added::First);
    assert_eq!(parked.add(&other, address(1), b"x", false), Added::First);
    assert_eq!(parked.add(&one, address(2), b"b", true), Added::Another);
    assert!(parked.has(&one) && !parked.has(&query(Protocol::Tcp, 1)));
    let reassembled = Packet { is_reassembled: true, ..packet(b"b") };
    assert_eq!(parked.take(&one), [packet(b"a"), reassembled]);
    assert_eq!((parked.take(&one), parked.free), (Vec::new(), 1));
    assert_eq!(parked.add(&one, address(1), b"c", false), Added::First, "asked anew");
}

#[test]
fn a_syn_that_is_repeated_takes_the_place_of_the_one_before() {
    let mut parked = Parked::new(3, true);
    let syn = query(Protocol::Tcp, 1);
    let [long, short] = [BYTES_PER_PLACE + 1, BYTES_PER_PLACE].map(|length| vec![0; length]);
    assert_eq!(parked.add(&syn, address(1), &long, false), Added::First);
    assert_eq!(parked.free, 1);
    assert_eq!(parked.add(&syn, address(1), &short, false), Added::Another);
    assert_eq!(parked.free, 2);
    let too_long = vec![0; 3 * BYTES_PER_PLACE + 1];
    assert_eq!(parked.add(&syn, address(1), &too_long, false), Added::Lost);
    assert_eq!(parked.take(&syn), [packet(&short)]);
    assert_eq!(parked.free, 3);
}

#[test]
fn what_waits_has_bounds() {
    let mut parked = Parked::new(10, true);
    let added = [(); MAX_PACKETS + 1].map(|()| add(&mut parked, 0, 1));
    assert_eq!(added[MAX_PACKETS - 1..], [Added::Another, Added::Lost]);
    for port in 1..=10 {
        let expected = if port < 10 { Added::First } else { Added::Lost };
        assert_eq!(add(&mut parked, port, 1), expected);
    }
    let mut parked = Parked::new(10, true);
    let large = vec![0; 5 * BYTES_PER_PLACE];
    let mut add = |port| parked.add(&query(Protocol::Udp, port), address(1), &large, false);
    assert_eq!([1, 2, 3].map(&mut add), [Added::First, Added::First, Added::Lost]);
    assert_eq!(add(2), Added::Lost, "there is no room for its next packet");
    parked.take(&query(Protocol::Udp, 1));
    assert_eq!(parked.add(&query(Protocol::Udp, 3), address(1), &large, false), Added::First);
}

#[test]
fn what_goes_on_without_waiting_pushes_out_nothing() {
    let mut parked = Parked::new(8, false);
    (0..8).for_each(|port| assert_eq!(add(&mut parked, port, 1), Added::First));
    assert_eq!(add(&mut parked, 8, 2), Added::Lost);
    parked.is_lossy = true;
    assert_eq!(add(&mut parked, 8, 2), Added::First);
    assert_eq!(parked.take_pushed_out(), 1);
    assert_eq!(parked.take_pushed_out(), 0);
    assert!(!parked.has(&query(Protocol::Udp, 7)), "the newest has made room");
}

#[test]
fn a_flood_of_one_address_leaves_others_their_places() {
    let mut parked = Parked::new(MAX_WAITING, true);
    let all = u16::try_from(MAX_WAITING).unwrap();
    (0..10 * all).for_each(|port| _ = add(&mut parked, port, 1));
    for port in 0..all / 2 {
        assert_eq!(add(&mut parked, 20_000 + port, 2), Added::First);
    }
    (0..10 * all).for_each(|port| _ = add(&mut parked, port, 1));
    assert!((0..all / 2).all(|port| parked.has(&query(Protocol::Udp, 20_000 + port))));
    assert!((0..all / 2).all(|port| parked.has(&query(Protocol::Udp, port))), "its oldest");
    assert_eq!(parked.take_pushed_out(), u64::from(all / 2), "and nothing else of it");
}

const PLACES: usize = 12;

/// Something that happens: a packet comes with these ends, address and length, or those between these ends wait no longer.
#[derive(Clone, Copy, Debug)]
enum Event {
    Add(Protocol, u16, u8, usize),
    Take(Protocol, u16),
}

fn event() -> impl Strategy<Value = Event> {
    let protocol = || prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let bytes = prop_oneof![4 => 1..BYTES_PER_PLACE, 1 => 1..4 * BYTES_PER_PLACE];
    let add = (protocol(), 0..30u16, 0..4u8, bytes);
    prop_oneof![
        4 => add.prop_map(|(protocol, port, last, bytes)| Event::Add(protocol, port, last, bytes)),
        1 => (protocol(), 0..30u16).prop_map(|(protocol, port)| Event::Take(protocol, port)),
    ]
}

/// A list of what waits, in the order in which it came, which is counted anew each time.
#[derive(Debug, Default)]
struct Reference(Vec<(Protocol, u16, u8, Vec<usize>)>);

impl Reference {
    fn places(&self, is_one: impl Fn(u8) -> bool) -> usize {
        let of = |bytes: &[usize]| bytes.iter().sum::<usize>().div_ceil(BYTES_PER_PLACE);
        self.0.iter().filter(|one| is_one(one.2)).map(|one| of(&one.3)).sum()
    }

    fn add(&mut self, protocol: Protocol, port: u16, last: u8, bytes: usize) -> Added {
        // What it would be like with room for everything.
        let at = self.0.iter().position(|one| (one.0, one.1) == (protocol, port));
        let mut with = Self(self.0.clone());
        let last = match at {
            Some(at) => {
                let (_, _, last, packets) = &mut with.0[at];
                if protocol == Protocol::Tcp {
                    packets.clear();
                }
                packets.push(bytes);
                if packets.len() > MAX_PACKETS {
                    return Added::Lost;
                }
                *last
            }
            None => {
                with.0.push((protocol, port, last, vec![bytes]));
                last
            }
        };
        let excess = with.places(|_| true).saturating_sub(PLACES);
        if excess > 0 {
            let (most, largest) =
                (0..4).map(|of| (self.places(|other| other == of), of)).max().unwrap();
            // Nobody has less afterwards than whoever has it instead.
            if most < with.places(|other| other == last) + excess {
                return Added::Lost;
            }
            while with.places(|_| true) > PLACES {
                let newest = with.0.iter().rposition(|one| one.2 == largest).unwrap();
                with.0.remove(newest);
            }
        }
        *self = with;
        if at.is_some() { Added::Another } else { Added::First }
    }
}

proptest! {
    #[test]
    fn what_waits_is_what_a_list_says_that_is_counted(
        events in proptest::collection::vec(event(), 1..200)
    ) {
        let (mut parked, mut reference) = (Parked::new(PLACES, true), Reference::default());
        for event in events {
            match event {
                Event::Add(protocol, port, last, bytes) => {
                    let query = query(protocol, port);
                    let added = parked.add(&query, address(last), &vec![0; bytes], false);
                    prop_assert_eq!(added, reference.add(protocol, port, last, bytes));
                }
                Event::Take(protocol, port) => {
                    let lengths = |taken: Vec<Packet>| -> Vec<usize> {
                        taken.iter().map(|packet| packet.bytes.len()).collect()
                    };
                    let at = reference.0.iter().position(|one| (one.0, one.1) == (protocol, port));
                    let expected = at.map(|at| reference.0.remove(at).3).unwrap_or_default();
                    prop_assert_eq!(lengths(parked.take(&query(protocol, port))), expected);
                }
            }
            prop_assert_eq!(parked.free, PLACES - reference.places(|_| true));
            prop_assert_eq!(parked.waiting.len(), reference.0.len());
            for (protocol, port, ..) in &reference.0 {
                prop_assert!(parked.has(&query(*protocol, *port)));
            }
            prop_assert_eq!(parked.order.len(), reference.0.len());
            prop_assert_eq!(parked.places.len(), parked.ranking.len());
        }
    }
}
