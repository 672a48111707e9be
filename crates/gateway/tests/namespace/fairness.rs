//! What all containers share, while one of them floods: what a quiet one has stays, and what is new of it goes on.
//!
//! Each test runs twice: behind a masquerade, where the connection tracking tells containers apart, and with an address for
//! each container in its packets.

mod waiting;

use std::{
    io::Read,
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use api::stats::Events;
use netlink::Rt;
use relay::flow_log::{FlowEnd, FlowRecord};
use socket2::{Socket, Type};

use crate::egress::rig::{
    BLACK_HOLE, DENIED, DNS, ECHO, Gateway, LATE, NEVER, NOW, PATIENCE, PING, SERVER, SILENT,
    Tracking, exchange, pings_from, query, receive,
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

    /// That something of the flood had to make room, and nothing of the quiet container.
    fn assert_only_flood(self, evicted: &[FlowRecord]) {
        let quiet = (0..3).map(|number| self.quiet(number));
        let is_quiet = |record: &&FlowRecord| quiet.clone().any(|end| end == record.start.client);
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

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until so many SYNs have begun a connection, or found no room, since `before`.
fn wait_until_handled(gateway: &Gateway, before: &Events, count: usize) {
    wait_until("SYNs are lost", || {
        let now = gateway.statistics.stats().events;
        now.dialing + now.evicted >= before.dialing + before.evicted + count as u64
    });
}

/// Half-open connections of the container that floods; a few at a time, so that the kernel's queue holds them.
fn flood_with_syns(kind: Kind, gateway: &Gateway, numbers: Range<u16>) -> Vec<Socket> {
    let before = gateway.statistics.stats().events;
    let mut sockets = Vec::new();
    for number in numbers.clone() {
        sockets.push(connecting(kind.flood(number), SILENT));
        if sockets.len() % 50 == 0 || number + 1 == numbers.end {
            wait_until_handled(gateway, &before, sockets.len());
        }
    }
    sockets
}

/// As many half-open connections of the container that floods as there is room for. Nothing of it is sent again that has
/// found none.
fn fill_with_syns(kind: Kind, gateway: &Gateway) -> Vec<Socket> {
    let before = gateway.statistics.stats().events;
    let mut sockets = Vec::new();
    for number in 0.. {
        let new = connecting(kind.flood(number), SILENT);
        wait_until_handled(gateway, &before, sockets.len() + 1);
        if gateway.statistics.stats().events.evicted > before.evicted {
            break;
        }
        sockets.push(new);
    }
    sockets
}

/// For how long nothing of one that floods makes room for more of it (`dial::room::MIN_AGE_TO_ONE`).
const CHANCE: Duration = Duration::from_secs(1);

#[test]
fn a_flood_of_connections_to_one_destination_leaves_others_their_place() {
    on_each_kind(|kind| {
        let gateway = kind.start(4096);
        let events = || gateway.statistics.stats().events;
        let _quiet = connecting(kind.quiet(0), SILENT);
        wait_until("no connection is made", || events().dialing == 1);
        let _flood = flood_with_syns(kind, &gateway, 0..1023);
        assert_eq!((events().dialing, events().evicted), (1024, 0), "all have room");
        let _new = connecting(kind.quiet(1), SILENT);
        let mut evicted = Vec::new();
        wait_until("the new one is ignored", || {
            evicted.extend(gateway.evicted());
            evicted.iter().any(|record| record.start.client == kind.flood(0))
        });
        assert_eq!(events().evicted, 1, "{kind:?}: the new one has been ignored before");
        let _more = flood_with_syns(kind, &gateway, 1023..1100);
        assert_eq!(events().dialing, 1024);
        connected(&connecting(kind.quiet(2), SERVER)).unwrap();
        let by_flood = gateway.evicted();
        for record in &by_flood {
            assert!(record.ended - record.start.began >= CHANCE, "{kind:?}: {record:?}");
        }
        evicted.extend(by_flood);
        kind.assert_only_flood(&evicted);
    });
}

#[test]
fn a_flood_of_connections_leaves_others_descriptors() {
    on_each_kind(|kind| {
        let gateway = kind.start(256);
        let events = || gateway.statistics.stats().events;
        let _quiet = connecting(kind.quiet(0), SILENT);
        wait_until("no connection is made", || events().dialing == 1);
        let _flood = fill_with_syns(kind, &gateway);
        let greet = |number| {
            let new = connecting(kind.quiet(number), SERVER);
            connected(&new).unwrap();
            exchange(&new, b"hello").unwrap();
            new
        };
        // Denied behind everything that the flood has sent.
        let _denied = connecting(kind.flood(5000), DENIED);
        wait_until("nothing is denied", || events().denied == 1);
        let (before, _) = (events().evicted, gateway.evicted());
        let _new = [1, 2].map(greet);
        let mut evicted = Vec::new();
        wait_until("a new one has been ignored at first", || {
            evicted.extend(gateway.evicted());
            evicted.len() as u64 == events().evicted - before
        });
        kind.assert_only_flood(&evicted);
    });
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
        kind.assert_only_flood(&gateway.evicted());
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
        kind.assert_only_flood(&gateway.evicted());
    });
}

/// As in `gateway::shares`.
const REPLACEMENTS_PER_SECOND: f64 = 1000.0;
const REPLACEMENT_BURST: f64 = 100.0;

/// Begins things that nobody answers until more than 100 were ignored. No more were replaced than the rate limit allows.
fn flood_until_some_are_ignored(kind: Kind, gateway: &Gateway, begin: fn(SocketAddr)) {
    let start = Instant::now();
    let events = || gateway.statistics.stats().events;
    let mut replaced = Vec::new();
    let mut number = 0;
    wait_until("nothing is ignored", || {
        (0..500).for_each(|_| {
            number = (number + 1) % 5000;
            begin(kind.flood(number));
        });
        // Behind all of these: no more packets wait for their sender than can wait.
        let before = events().denied;
        wait_until("nothing is denied", || {
            _ = datagrams(kind.flood(5001), DENIED).send(b"hello");
            events().denied > before
        });
        replaced.extend(gateway.evicted());
        // What was replaced is in the flow log as well, what was ignored is only counted.
        events().evicted > replaced.len() as u64 + 100
    });
    replaced.extend(gateway.evicted());
    let most = REPLACEMENT_BURST + REPLACEMENTS_PER_SECOND * start.elapsed().as_secs_f64();
    assert!(replaced.len() as f64 <= most, "{kind:?}: {} of {most}", replaced.len());
    kind.assert_only_flood(&replaced);
}

#[test]
fn flows_that_come_too_fast_are_ignored() {
    on_each_kind(|kind| {
        let gateway = kind.start(256);
        let quiet = datagrams(kind.quiet(0), ECHO);
        exchange(&quiet, b"hello").unwrap();
        flood_until_some_are_ignored(kind, &gateway, |from| {
            _ = datagrams(from, BLACK_HOLE).send(b"hello");
        });
        exchange(&datagrams(kind.quiet(1), ECHO), b"hello").unwrap();
        exchange(&quiet, b"hello").unwrap();
    });
}

#[test]
fn pings_that_come_too_fast_are_ignored() {
    on_each_kind(|kind| {
        let gateway = kind.start(4096);
        let quiet = pings_from(kind.quiet(0), SERVER);
        exchange(&quiet, PING).unwrap();
        flood_until_some_are_ignored(kind, &gateway, |from| {
            _ = pings_from(from, BLACK_HOLE).send(PING);
        });
        exchange(&pings_from(kind.quiet(1), SERVER), PING).unwrap();
        exchange(&quiet, PING).unwrap();
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

/// Queries that can be open when one is begun that no packet waits for (`attribution::MAX_COUNTED`).
const MOST_OPEN: u64 = 3072;

/// What is open is given up 5 s after it was asked for, and this is well before that.
const IN_TIME: Duration = Duration::from_secs(4);

/// Flows that are looked for, and then a flood of others for which there is no room for another query. False if it took
/// too long to say anything.
fn flows_that_are_looked_for_stay_beside_unknown_ones() -> bool {
    let kind = Kind::Masqueraded;
    let gateway = kind.start(256);
    gateway.tracking(Tracking::Waits);
    let begin = Instant::now();
    let quiet = [0, 1, 2].map(|number| datagrams(kind.quiet(number), ECHO));
    quiet.iter().for_each(|flow| _ = exchange(flow, b"hello").unwrap());
    let denied = datagrams(kind.flood(5000), DENIED);
    let events = || gateway.statistics.stats().events;
    let mut sent = 0;
    while events().unattributed == 0 {
        assert!(sent <= MOST_OPEN, "there is room for all queries");
        // Some are answered by an error before, which the next one returns.
        sent += (0..50).filter(|_| denied.send(b"hello").is_ok()).count() as u64;
        wait_until("nothing is denied", || events().denied >= sent);
    }
    for number in 0..400 {
        let mut flow = &datagrams(kind.flood(number), ECHO);
        flow.send(b"hello").unwrap();
        while flow.read(&mut [0; 16]).is_err() {
            if begin.elapsed() > IN_TIME {
                return false;
            }
        }
    }
    let evicted = gateway.evicted();
    let in_time = begin.elapsed() <= IN_TIME;
    if in_time {
        kind.assert_only_flood(&evicted);
    }
    in_time
}

#[test]
fn flows_whose_senders_cannot_be_looked_up_make_room_for_each_other() {
    let attempt = || {
        // Each in a namespace of its own.
        let attempt = std::thread::spawn(flows_that_are_looked_for_stay_beside_unknown_ones);
        attempt.join().unwrap()
    };
    let begin = Instant::now();
    while !attempt() {
        assert!(begin.elapsed() < PATIENCE, "flows wait for queries that nobody answers");
    }
}

#[test]
fn a_ping_whose_sender_cannot_be_looked_up_is_an_unknown_one_that_rules_end() {
    let kind = Kind::Masqueraded;
    let gateway = kind.start(4096);
    gateway.end_tracking();
    let ping = pings_from(kind.quiet(0), SERVER);
    exchange(&ping, PING).unwrap();
    gateway.change(&["default = \"deny\"\n"]);
    let record = gateway.record(kind.quiet(0).port());
    assert_eq!(record.container, Some(kind.quiet(0).ip()), "who the packets name");
    assert_eq!((record.end, record.rule.as_deref()), (FlowEnd::Denied, Some("default")));
}

#[test]
fn name_queries_whose_senders_cannot_be_looked_up_have_one_share() {
    let gateway = Kind::Addressed.start(4096);
    gateway.end_tracking();
    let queries = || gateway.statistics.stats().events.dns_queries;
    let quiet = datagrams(Kind::Addressed.quiet(0), DNS);
    quiet.send(&query(LATE)).unwrap();
    // Fewer than half of what there is room for, and more than a third.
    let room = budget::Shares::gateway(4096).names;
    let own = u16::try_from(room * 2 / 5).unwrap();
    let ends = (1..own).map(|number| Kind::Addressed.quiet(number));
    let flood = (0..600).map(|number| Kind::Masqueraded.flood(number));
    for (number, end) in (2..).zip(ends.chain(flood)) {
        datagrams(end, DNS).send(&query(NEVER)).unwrap();
        wait_until("queries are lost", || queries() == number);
    }
    assert!(gateway.statistics.stats().events.evicted > 0);
    exchange(&datagrams(Kind::Addressed.quiet(own), DNS), &query(NOW)).unwrap();
    receive(&quiet).unwrap();
}
