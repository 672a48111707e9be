use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use relay::flow_log::FlowEnd;
use relay::{Counted, Traffic};

use super::*;
use crate::conntrack;
use crate::network_config::{HostLoopback, Net};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct Rig {
    attributions: Attributions,
    statistics: Arc<Statistics>,
    flow_log: Arc<FlowLog>,
    now: Instant,
}

impl Rig {
    /// With the end that answers.
    fn new() -> (Self, OwnedFd) {
        let (ours, theirs) = conntrack::pair().unwrap();
        let [child, gateway, dns] = ["10.0.2.100", "10.0.2.2", "10.0.2.3"].map(ip);
        let v4 = Net { child, gateway, dns, prefix: 24 };
        let (ifname, host_loopback) = ("tap0".to_owned(), HostLoopback::Closed);
        let plan = NetworkConfig { ifname, mtu: 1500, v4, v6: None, host_loopback };
        let statistics = Arc::new(Statistics::default());
        let flow_log = Arc::new(FlowLog::default());
        let attributions = Attributions::new(
            Client::new(ours),
            plan,
            Arc::clone(&statistics),
            Arc::clone(&flow_log),
        );
        (Self { attributions, statistics, flow_log, now: Instant::now() }, theirs)
    }

    fn connection(&mut self) -> Asked {
        let asked = self.attributions.flow(self.now, query(), None);
        let counted = Counted::open(Arc::new(Traffic::default()));
        drop(counted.attributed(asked.attribution.clone()));
        asked
    }

    fn receive(&mut self) -> Attributed {
        self.attributions.receive(self.now)
    }

    /// Takes in replies once there are some.
    fn hear(&mut self) -> Attributed {
        self.now += QUERY_DELAY;
        self.attributions.send(self.now);
        let client = self.attributions.client().unwrap();
        let mut fds = [PollFd::new(client.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, 60_000u16).unwrap(), 1);
        self.receive()
    }

    /// What containers have opened and answered, and how much of it could not be attributed.
    fn counted(&self) -> (Vec<(String, u64)>, u64) {
        let stats = self.statistics.stats();
        let opened = |of: &api::stats::ContainerTraffic| of.counters.total().opened;
        let all = stats.containers.iter().map(|of| (of.ip.to_string(), opened(of))).collect();
        (all, stats.events.unattributed)
    }
}

const PING: Entry = Entry::Ping(Key::NONE);

fn query() -> Query {
    let [src, dst] = ["10.0.2.100:40000", "192.0.2.1:80"].map(|end| end.parse().unwrap());
    outbound(Protocol::Tcp, src, dst)
}

fn syn() -> Syn {
    let Tuple { src, dst } = query().outside;
    Syn { src, dst, seq: 1 }
}

fn namespace(opened: u64) -> Vec<(String, u64)> {
    vec![("10.0.2.100".to_owned(), opened)]
}

/// Something that has gone to a published port, and its counters for the container.
fn inbound(udp: bool) -> Inbound {
    let [client, server] = ["192.0.2.1:1", "247.0.0.1:80"].map(|end| end.parse().unwrap());
    let attribution = Attribution::default();
    drop(Counted::open(Arc::new(Traffic::default())).attributed(attribution.clone()));
    Inbound { udp, port: Key::NONE, client, server, attribution }
}

/// Answers all queries, as a kernel that tracks nothing.
fn know_nothing(queries: OwnedFd) {
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        conntrack::serve(&queries)
    });
}

#[test]
fn queries_of_some_milliseconds_are_sent_together() {
    let (mut rig, _theirs) = Rig::new();
    let begin = rig.now;
    assert_eq!(rig.attributions.wake_at(), None);
    rig.connection();
    rig.now += QUERY_DELAY / 2;
    rig.connection();
    rig.attributions.send(rig.now);
    let unsent = |rig: &Rig| rig.attributions.client().unwrap().unsent();
    assert_eq!((unsent(&rig), rig.attributions.wake_at()), (2, Some(begin + QUERY_DELAY)));
    rig.now = begin + QUERY_DELAY;
    rig.attributions.send(rig.now);
    assert_eq!((unsent(&rig), rig.attributions.wake_at()), (0, Some(begin + REPLY_TIMEOUT)));
    // Many do not wait.
    for _ in 0..BATCH {
        rig.connection();
    }
    rig.attributions.send(rig.now);
    assert_eq!(unsent(&rig), 0);
}

#[test]
fn what_is_not_tracked_is_of_the_address_in_its_packets() {
    let (mut rig, theirs) = Rig::new();
    know_nothing(theirs);
    rig.connection();
    let events = ECHO_REQUEST + DENIED;
    rig.attributions.count(rig.now, query(), events, Some(PING), None);
    let mut entries = Vec::new();
    while rig.attributions.wake_at().is_some() {
        entries.extend(rig.hear().entries);
    }
    let sender = Sender { container: ip("10.0.2.100"), is_guess: false };
    assert_eq!(entries, [(PING, sender)]);
    assert_eq!(rig.counted(), (namespace(1), 0));
    assert_eq!(rig.statistics.stats().containers[0].counters.events, events);
}

#[test]
fn queries_without_a_reply_are_given_up_and_counted() {
    let (mut rig, theirs) = Rig::new();
    rig.connection();
    rig.attributions.count(rig.now, query(), ECHO_REQUEST, Some(PING), None);
    rig.attributions.published(rig.now, inbound(true));
    assert_eq!(rig.receive().entries, []);
    rig.now += REPLY_TIMEOUT;
    let sender = Sender { container: ip("10.0.2.100"), is_guess: true };
    assert_eq!(rig.receive().entries, [(PING, sender)]);
    assert_eq!(rig.counted(), (namespace(2), 3));
    assert_eq!(rig.attributions.due(), None);
    // Nobody answers any more.
    rig.connection();
    drop(theirs);
    rig.receive();
    assert_eq!(rig.connection().query, None);
    assert_eq!(rig.counted(), (namespace(4), 5));
    assert_eq!(rig.attributions.wake_at(), None);
}

#[test]
fn open_queries_have_a_bound() {
    let (mut rig, _theirs) = Rig::new();
    for _ in 0..MAX_COUNTED {
        assert!(rig.connection().query.is_some());
    }
    assert_eq!(rig.connection().query, None);
    assert_eq!(rig.counted(), (namespace(1), 1));
    // There is no room in the kernel for all of them, and nobody makes room.
    let mut most = 0;
    for round in 1..4 {
        rig.now += QUERY_DELAY;
        rig.attributions.send(rig.now);
        most = most.max(rig.attributions.client().unwrap().unsent());
        rig.now += REPLY_TIMEOUT;
        rig.receive();
        let all = round * (MAX_COUNTED as u64 + 1);
        assert_eq!(rig.counted(), (namespace(all), all));
        for _ in 0..=MAX_COUNTED {
            rig.connection();
        }
    }
    assert!((1..=MAX_OPEN).contains(&most), "{most}");
}

#[test]
fn what_packets_wait_for_has_room_however_much_is_only_counted() {
    let (mut rig, _theirs) = Rig::new();
    while rig.connection().query.is_some() {}
    let mut asks = |port: u16| {
        let mut query = query();
        query.outside.src.set_port(port);
        rig.attributions.find_sender(rig.now, &query, (b"a packet", false))
    };
    let all = u16::try_from(MAX_WAITING).unwrap();
    assert!((0..all).all(|port| matches!(asks(port), Asking::Waits)));
    assert!(matches!(asks(all), Asking::Lost));
}

#[test]
fn what_makes_room_for_packets_of_others_is_dropped_and_leaves_them_their_queries() {
    let (mut rig, _theirs) = Rig::new();
    rig.attributions.parked.is_lossy = true;
    while rig.connection().query.is_some() {}
    let asks = |rig: &mut Rig, to: &str, port: u16| {
        let mut query = query();
        query.outside.src.set_port(port);
        query.outside.dst.set_ip(ip(to));
        let asking = rig.attributions.find_sender(rig.now, &query, (b"a packet", false));
        matches!(asking, Asking::Waits)
    };
    let all = u16::try_from(MAX_WAITING).unwrap();
    assert!((0..all).all(|port| asks(&mut rig, "192.0.2.1", port)));
    for last in 2..=255 {
        assert!(asks(&mut rig, &format!("192.0.2.{last}"), 1));
    }
    assert!(!asks(&mut rig, "192.0.2.1", all), "the flood itself");
    rig.attributions.send(rig.now);
    assert_eq!(rig.statistics.stats().events.dropped, 254);
}

#[test]
fn pings_and_name_queries_that_cannot_be_looked_up_are_of_a_guess_at_once() {
    let (mut rig, theirs) = Rig::new();
    let guess = Sender { container: ip("10.0.2.100"), is_guess: true };
    let count = |rig: &mut Rig, of| {
        let sender = rig.attributions.count(rig.now, query(), ECHO_REQUEST, of, None);
        (sender, rig.statistics.stats().events.unattributed)
    };
    assert_eq!(count(&mut rig, Some(PING)), (None, 0));
    for _ in 1..MAX_COUNTED {
        rig.connection();
    }
    assert_eq!(count(&mut rig, Some(PING)), (Some(guess), 1));
    assert_eq!(count(&mut rig, Some(Entry::Name(7))), (Some(guess), 2));
    assert_eq!(count(&mut rig, None), (None, 3), "nothing goes on");
    // Nobody answers any more.
    drop(theirs);
    assert_eq!(rig.receive().entries, [(PING, guess)]);
    let (sender, _) = count(&mut rig, Some(PING));
    assert_eq!(sender, Some(guess));
}

#[test]
fn what_is_open_is_given_up_at_once_when_a_query_cannot_be_sent() {
    let (mut rig, theirs) = Rig::new();
    rig.attributions.find_sender(rig.now, &query(), (b"a packet", false));
    drop(theirs);
    rig.attributions.send(rig.now);
    assert_eq!(rig.attributions.due(), Some(rig.now));
    let guess = Sender { container: ip("10.0.2.100"), is_guess: true };
    assert_eq!(rig.receive().senders, [(query(), guess)]);
    assert_eq!(rig.attributions.wake_at(), None);
}

#[test]
fn whoever_does_not_answer_any_more_is_heard_of_once() {
    let (mut rig, theirs) = Rig::new();
    // As the parent keeps it.
    let _kept = rig.attributions.client().unwrap().as_fd().try_clone_to_owned().unwrap();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let client = rig.attributions.client().unwrap();
    epoll.add(client, EpollEvent::new(conntrack::WATCHED, 0)).unwrap();
    drop(theirs);
    let mut events = [EpollEvent::empty(); 2];
    assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
    rig.receive();
    assert!(rig.attributions.client().is_none());
    assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(0));
}

#[test]
fn a_reset_waits_for_the_reply_for_a_bounded_time() {
    let (mut rig, theirs) = Rig::new();
    let asked = rig.connection();
    assert!(rig.attributions.hold(rig.now, &asked, &syn()));
    assert_eq!(rig.attributions.wake_at(), Some(rig.now), "the query does not wait");
    rig.attributions.send(rig.now);
    assert_eq!(rig.receive().resets, []);
    rig.now += RESET_TIMEOUT;
    assert_eq!(rig.receive().resets, [syn()]);
    know_nothing(theirs);
    rig.hear();
    // In time.
    let mut asked = rig.connection();
    assert!(rig.attributions.hold(rig.now, &asked, &syn()));
    assert_eq!(rig.hear().resets, [syn()]);
    assert!(!rig.attributions.hold(rig.now, &asked, &syn()), "it is known already");
    asked.query = None;
    assert!(!rig.attributions.hold(rig.now, &asked, &syn()));
    rig.now += RESET_TIMEOUT;
    assert_eq!(rig.receive().resets, []);
}

#[test]
fn resets_do_not_wait_for_whoever_did_not_answer_before() {
    let (mut rig, _theirs) = Rig::new();
    let asked = rig.connection();
    assert!(rig.attributions.hold(rig.now, &asked, &syn()));
    rig.now += REPLY_TIMEOUT;
    assert_eq!(rig.receive().resets, [syn()]);
    let asked = rig.connection();
    assert!(!rig.attributions.hold(rig.now, &asked, &syn()));
}

#[test]
fn what_goes_in_is_asked_for_once_or_a_few_times_if_it_is_a_flow() {
    for (udp, attempts) in [(false, 1), (true, PUBLISHED_ATTEMPTS)] {
        let (mut rig, theirs) = Rig::new();
        know_nothing(theirs);
        let inbound = inbound(udp);
        rig.attributions.published(rig.now, inbound.clone());
        let mut asked = 0;
        while let Some(due) = rig.attributions.wake_at() {
            if rig.attributions.open.is_empty() {
                rig.now = due;
                rig.receive();
            } else {
                rig.hear();
                asked += 1;
            }
        }
        assert_eq!((asked, rig.counted()), (attempts, (namespace(1), 0)));
    }
}

#[test]
fn a_port_that_refuses_is_of_the_container_that_answered_there() {
    let (mut rig, _theirs) = Rig::new();
    let port = |udp| Inbound { udp, ..inbound(false) };
    let answered = |rig: &mut Rig, inbound: Inbound, outcome| {
        let subject = Subject::Published { inbound, attempts: 9 };
        rig.attributions.attribute(rig.now, subject, outcome, &mut Attributed::default());
    };
    answered(&mut rig, port(false), Outcome::Found(ip("172.17.0.2")));
    answered(&mut rig, port(false), Outcome::Unknown);
    answered(&mut rig, port(true), Outcome::Unknown);
    // Docker's userland proxy listens in the namespace itself.
    answered(&mut rig, port(true), Outcome::Found(ip("127.0.0.1")));
    let expected = [("10.0.2.100", 2), ("172.17.0.2", 2)];
    let mut counted = rig.counted().0;
    counted.sort();
    assert_eq!(counted, expected.map(|(ip, opened)| (ip.to_owned(), opened)));
}

#[test]
fn a_failed_connection_counts_for_its_container_without_being_opened() {
    let (mut rig, _theirs) = Rig::new();
    rig.attributions.flow(rig.now, query(), None).attribution.fail(FlowEnd::Refused);
    rig.now += REPLY_TIMEOUT;
    rig.receive();
    let tcp = rig.statistics.outbound(ip("10.0.2.100"), false);
    let [failed, opened] = [&tcp.failed, &tcp.opened].map(|of| of.load(Ordering::Relaxed));
    assert_eq!((failed, opened), (1, 0));
}

#[test]
fn records_wait_for_their_containers_and_no_longer_than_for_an_answer() {
    let (mut rig, _silent) = Rig::new();
    rig.flow_log.follow();
    let mut response = b"\0\x01\x81\0\0\x01\0\x01\0\0\0\0\x01a\0\0\x01\0\x01".to_vec();
    response.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    let (name, addresses) = crate::dns::addresses(&response).unwrap();
    rig.attributions.log.names.learn(rig.now, &name, &addresses);
    rig.connection();
    rig.attributions.denied(rig.now, query(), Some("a rule".into()), None);
    rig.attributions.count(rig.now, query(), DNS_QUERY, None, None);
    rig.now += REPLY_TIMEOUT - QUERY_DELAY;
    rig.receive();
    assert_eq!(rig.flow_log.take().0, []);
    rig.now += QUERY_DELAY;
    rig.receive();
    let (records, missed) = rig.flow_log.take();
    assert_eq!((records.len(), missed), (2, 0), "{records:?}");
    for record in &records {
        assert_eq!(record.container, Some(ip("10.0.2.100")), "who the packet names");
        assert_eq!(record.start.name.as_deref(), Some("a"));
        assert_eq!(record.start.destination, query().outside.dst);
    }
    assert_eq!((records[1].end, records[1].rule.as_deref()), (FlowEnd::Denied, Some("a rule")));
}
