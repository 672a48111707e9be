//! What all containers share, while one of them floods: what a quiet one has stays, and what is new of it goes on.
//!
//! Each test runs twice: behind a masquerade, where the connection tracking tells containers apart, and with an address for
//! each container in its packets.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use netlink::Rt;
use socket2::{Socket, Type};

use crate::egress::rig::{
    DNS, ECHO, Gateway, LATE, NEVER, NOW, PATIENCE, PING, SERVER, SILENT, Tracking, exchange,
    pings_from, query, receive,
};
use crate::world::{address, bound, connected, start_connect};

/// How containers are told apart.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Masqueraded,
    Addressed,
}

impl Kind {
    /// The end of the container that floods, or of the quiet one.
    fn end(self, floods: bool, number: u16) -> SocketAddr {
        match self {
            Self::Masqueraded => {
                let first = if floods { 40_000 } else { 50_000 };
                SocketAddr::from(([10, 0, 2, 100], first + number))
            }
            Self::Addressed => {
                SocketAddr::from(([10, 0, 2, if floods { 111 } else { 112 }], 10_000 + number))
            }
        }
    }

    fn flood(self, number: u16) -> SocketAddr {
        self.end(true, number)
    }

    fn quiet(self, number: u16) -> SocketAddr {
        self.end(false, number)
    }

    /// A gateway that may have so many files open, and no policy.
    fn start(self, limit: u64) -> Gateway {
        let gateway = Gateway::start_with(&[], limit);
        if let Self::Addressed = self {
            let mut rt = Rt::open().unwrap();
            let tap = rt.link_index("tap0").unwrap();
            for end in [self.flood(0), self.quiet(0)] {
                rt.add_address(tap, end.ip(), 32).unwrap();
            }
        }
        gateway
    }

    /// That something of the flood had to make room since the last call, and nothing of the quiet container.
    fn assert_only_flood_evicted(self, gateway: &Gateway) {
        let evicted = gateway.evicted();
        let is_quiet = |end: &&SocketAddr| [0, 1, 2].iter().any(|n| self.quiet(*n) == **end);
        assert_eq!(evicted.iter().find(is_quiet), None, "{self:?}");
        assert!(!evicted.is_empty(), "{self:?}: nothing had to make room");
    }
}

fn on_each_kind(test: fn(Kind)) {
    for kind in [Kind::Masqueraded, Kind::Addressed] {
        // Each in a namespace of its own.
        std::thread::spawn(move || test(kind)).join().unwrap();
    }
}

fn datagrams(from: SocketAddr, to: &str) -> Socket {
    let socket = bound(Type::DGRAM, &from.to_string());
    socket.connect(&address(to).into()).unwrap();
    socket
}

fn connecting(from: SocketAddr, to: &str) -> Socket {
    let socket = bound(Type::STREAM, &from.to_string());
    start_connect(&socket, address(to));
    socket
}

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Half-open connections of the container that floods; a few at a time, so that the kernel's queue holds them.
fn flood_with_syns(kind: Kind, gateway: &Gateway, count: u16) -> Vec<Socket> {
    let events = || gateway.statistics.stats().events;
    let before = events();
    let mut sockets = Vec::new();
    for number in 0..count {
        sockets.push(connecting(kind.flood(number), SILENT));
        if sockets.len() % 50 == 0 || number + 1 == count {
            wait_until("SYNs are lost", || {
                let now = events();
                let handled = now.dialing + now.evicted - before.dialing - before.evicted;
                handled >= sockets.len() as u64
            });
        }
    }
    sockets
}

#[test]
fn a_flood_of_connections_to_one_destination_leaves_others_their_place() {
    on_each_kind(|kind| {
        let gateway = kind.start(4096);
        let _quiet = connecting(kind.quiet(0), SILENT);
        wait_until("no connection is made", || gateway.statistics.stats().events.dialing == 1);
        let _flood = flood_with_syns(kind, &gateway, 1100);
        assert_eq!(gateway.statistics.stats().events.dialing, 1024);
        assert_eq!(gateway.evicted(), [], "the flood gives itself time");
        let _new = connecting(kind.quiet(1), SILENT);
        wait_until("the new one is ignored", || {
            let evicted = gateway.evicted();
            assert!(!evicted.contains(&kind.quiet(0)), "{kind:?}");
            evicted == [kind.flood(0)]
        });
        connected(&connecting(kind.quiet(2), SERVER)).unwrap();
    });
}

#[test]
fn a_flood_of_connections_leaves_others_descriptors() {
    on_each_kind(|kind| {
        let gateway = kind.start(256);
        let _quiet = connecting(kind.quiet(0), SILENT);
        wait_until("no connection is made", || gateway.statistics.stats().events.dialing == 1);
        let _flood = flood_with_syns(kind, &gateway, 300);
        for number in [1, 2] {
            let begin = Instant::now();
            let new = connecting(kind.quiet(number), SERVER);
            connected(&new).unwrap();
            // As soon as it is sent again, others have had their time, too.
            assert!(
                begin.elapsed() < Duration::from_millis(900),
                "{kind:?}: {:?}",
                begin.elapsed()
            );
            exchange(&new, b"hello").unwrap();
        }
        kind.assert_only_flood_evicted(&gateway);
    });
}

/// As many SYNs as may wait for their sender (`parked::MAX_WAITING`).
const MOST_THAT_WAIT: u16 = 1024;

#[test]
fn a_connection_goes_on_when_no_more_can_wait_for_their_sender() {
    let kind = Kind::Masqueraded;
    let gateway = kind.start(256);
    let _flood = flood_with_syns(kind, &gateway, 300);
    gateway.tracking(Tracking::Waits);
    let waiting = 300..300 + MOST_THAT_WAIT;
    let _waiting: Vec<Socket> = waiting.map(|n| connecting(kind.flood(n), SILENT)).collect();
    let begin = Instant::now();
    connected(&connecting(kind.quiet(0), SERVER)).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    gateway.tracking(Tracking::Answers);
}

#[test]
fn a_flood_of_flows_leaves_others_their_place() {
    on_each_kind(|kind| {
        let gateway = kind.start(256);
        let quiet = datagrams(kind.quiet(0), ECHO);
        exchange(&quiet, b"hello").unwrap();
        for number in 0..400 {
            exchange(&datagrams(kind.flood(number), ECHO), b"hello").unwrap();
        }
        exchange(&datagrams(kind.quiet(1), ECHO), b"hello").unwrap();
        exchange(&quiet, b"hello").unwrap();
        kind.assert_only_flood_evicted(&gateway);
        assert!(gateway.statistics.stats().events.evicted > 0);
    });
}

#[test]
fn a_flood_of_pings_leaves_others_their_place() {
    on_each_kind(|kind| {
        let gateway = kind.start(4096);
        let quiet = pings_from(kind.quiet(0), SERVER);
        exchange(&quiet, PING).unwrap();
        for number in 0..300 {
            exchange(&pings_from(kind.flood(number), SERVER), PING).unwrap();
        }
        exchange(&pings_from(kind.quiet(1), SERVER), PING).unwrap();
        exchange(&quiet, PING).unwrap();
        kind.assert_only_flood_evicted(&gateway);
    });
}

#[test]
fn a_flood_of_name_queries_leaves_others_their_place() {
    on_each_kind(|kind| {
        let gateway = kind.start(4096);
        let queries = || gateway.statistics.stats().events.dns_queries;
        let quiet = datagrams(kind.quiet(0), DNS);
        quiet.send(&query(LATE)).unwrap();
        wait_until("no query arrives", || queries() == 1);
        for number in 0..600 {
            datagrams(kind.flood(number), DNS).send(&query(NEVER)).unwrap();
            if number % 50 == 49 {
                wait_until("queries are lost", || queries() == u64::from(number) + 2);
            }
        }
        assert!(gateway.statistics.stats().events.evicted > 0);
        exchange(&datagrams(kind.quiet(1), DNS), &query(NOW)).unwrap();
        receive(&quiet).unwrap();
    });
}
