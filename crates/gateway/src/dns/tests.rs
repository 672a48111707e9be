//! The forwarder, driven by hand.

mod room;

use proptest::prelude::*;

use super::*;

/// A query of type A, class IN.
pub(super) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// An answer without records.
pub(super) fn response(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] |= 0x80;
    bytes[3] = rcode;
    bytes
}

fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 53))
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 100], port))
}

/// Hundreds of ports have a container each.
fn holder(port: u16) -> Holder {
    let [_, last] = (port / 100).to_be_bytes();
    Holder::Sender([172, 17, 0, last].into())
}

/// A forwarder with its time and what it wants done.
struct Test {
    forwarder: Forwarder,
    start: Instant,
    now: Instant,
    /// Sockets that were opened and not closed.
    open: Vec<Key>,
}

/// What one call led to, without the bookkeeping.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    sent: Vec<(Key, SocketAddr)>,
    replies: Vec<(SocketAddr, Vec<u8>)>,
}

impl Test {
    fn new(servers: u8) -> Self {
        let servers: Vec<SocketAddr> = (1..=servers).map(server).collect();
        let now = Instant::now();
        Self { forwarder: Forwarder::new(&servers), start: now, now, open: Vec::new() }
    }

    fn at(&mut self, milliseconds: u64) -> &mut Self {
        self.now = self.start + Duration::from_millis(milliseconds);
        self
    }

    fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(action) = self.forwarder.next_action() {
            match action {
                Action::Send { key, to, .. } => {
                    assert!(!self.open.contains(&key), "{key:?} is used twice");
                    self.open.push(key);
                    outcome.sent.push((key, to));
                }
                Action::Close(key) => {
                    let at = self.open.iter().position(|open| *open == key);
                    self.open.remove(at.expect("an open socket is closed"));
                }
                Action::Reply { client, payload, .. } => outcome.replies.push((client, payload)),
            }
        }
        outcome
    }

    fn query(&mut self, port: u16, payload: &[u8]) -> Outcome {
        self.forwarder.query(self.now, client(port), None, holder(port), payload);
        self.outcome()
    }

    /// A query that goes out to one server.
    fn ask(&mut self, port: u16, payload: &[u8]) -> (Key, SocketAddr) {
        let outcome = self.query(port, payload);
        assert_eq!((outcome.sent.len(), outcome.replies.len()), (1, 0));
        outcome.sent[0]
    }

    fn answer(&mut self, key: Key, payload: &[u8]) -> Outcome {
        self.forwarder.answer(self.now, key, payload);
        self.outcome()
    }

    fn failed(&mut self, key: Key) -> Outcome {
        self.forwarder.failed(self.now, key);
        self.outcome()
    }

    fn tick(&mut self) -> Outcome {
        self.forwarder.tick(self.now);
        self.outcome()
    }
}

#[test]
fn an_answer_goes_back_as_it_came_and_closes_the_socket() {
    let mut test = Test::new(2);
    let asked = query(7, "example.org");
    test.forwarder.query(test.now, client(1), None, holder(1), &asked);
    let Some(Action::Send { key, to, query: sent }) = test.forwarder.next_action() else {
        panic!("nothing is sent");
    };
    assert_eq!((to, &sent), (server(1), &asked));
    test.open.push(key);
    let mut answer = response(&asked, 0);
    answer.extend(b"anything");
    let outcome = test.answer(key, &answer);
    assert_eq!(outcome.replies, [(client(1), answer.clone())]);
    assert!(test.open.is_empty());
    assert_eq!(test.forwarder.deadline(), None);
    assert_eq!(test.answer(key, &answer), Outcome::default(), "once only");
    assert_eq!(
        test.forwarder.counters(),
        Counters { queries: 1, mismatched: 1, ..Counters::default() }
    );
}

#[test]
fn forged_answers_are_ignored() {
    let mut test = Test::new(1);
    let asked = query(7, "example.org");
    let (key, _) = test.ask(1, &asked);
    for wrong in [query(7, "example.org"), response(&query(8, "example.org"), 0), Vec::new()] {
        assert_eq!(test.answer(key, &wrong), Outcome::default());
    }
    assert_eq!(test.forwarder.counters().mismatched, 3);
    assert_eq!(test.answer(key, &response(&asked, 3)).replies.len(), 1);
}

#[test]
fn what_is_no_query_is_counted() {
    let mut test = Test::new(1);
    let mut long = query(1, "a");
    long.resize(LARGEST_QUERY + 1, 0);
    for payload in [b"".as_slice(), b"hello", &response(&query(1, "a"), 0), &long] {
        assert_eq!(test.query(1, payload), Outcome::default());
    }
    assert_eq!(test.forwarder.counters(), Counters { malformed: 4, ..Counters::default() });
    long.truncate(LARGEST_QUERY);
    test.ask(1, &long);
}

#[test]
fn silence_asks_the_next_and_remembers_it() {
    let mut test = Test::new(2);
    let asked = query(7, "a");
    let (first, _) = test.ask(1, &asked);
    assert_eq!(test.forwarder.deadline(), Some(test.start + SILENCE));
    assert_eq!(test.at(1499).tick(), Outcome::default());
    let sent = test.at(1500).tick().sent;
    assert_eq!(sent.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [server(2)]);
    // The next query starts with the second at once.
    assert_eq!(test.ask(2, &query(8, "b")).1, server(2));
    // A late answer counts, and rehabilitates its server.
    assert_eq!(test.at(1600).answer(first, &response(&asked, 0)).replies.len(), 1);
    assert_eq!(test.ask(3, &query(9, "c")).1, server(1));
    assert_eq!(test.open.len(), 2);
}

#[test]
fn a_server_that_failed_is_asked_last_for_30_seconds() {
    let mut test = Test::new(2);
    let (key, to) = test.ask(1, &query(1, "a"));
    assert_eq!(to, server(1));
    let sent = test.failed(key).sent;
    assert_eq!(sent[0].1, server(2));
    assert_eq!(test.at(29_999).ask(2, &query(2, "b")).1, server(2));
    assert_eq!(test.at(30_000).ask(3, &query(3, "c")).1, server(1));
}

#[test]
fn if_all_are_unreachable_the_client_hears_so_at_once() {
    let mut test = Test::new(2);
    let asked = query(1, "a");
    let (key, _) = test.ask(1, &asked);
    let (key, _) = test.failed(key).sent[0];
    let outcome = test.failed(key);
    assert_eq!(outcome.replies, [(client(1), message::server_failure(&asked))]);
    assert!(test.open.is_empty());
    assert_eq!(test.forwarder.counters().failed, 1);
    assert_eq!(test.ask(2, &query(2, "b")).1, server(1), "all rest, so the order is the given one");
    let mut none = Test::new(0);
    assert_eq!(none.query(1, &asked).replies, [(client(1), message::server_failure(&asked))]);
}

#[test]
fn refusals_ask_the_next_and_are_passed_on_for_want_of_better() {
    for rcode in [2, 4, 5] {
        let mut test = Test::new(2);
        let asked = query(1, "a");
        let (key, _) = test.ask(1, &asked);
        let (second, to) = test.answer(key, &response(&asked, rcode)).sent[0];
        assert_eq!(to, server(2));
        assert_eq!(test.ask(2, &query(2, "b")).1, server(1), "it has not failed");
        let outcome = test.failed(second);
        assert_eq!(outcome.replies, [(client(1), response(&asked, rcode))]);
    }
}

#[test]
fn a_refusal_waits_for_those_in_time_but_not_for_the_late() {
    let asked = query(1, "a");
    for (refused_at, replied) in [(2000, false), (4000, true)] {
        let mut test = Test::new(2);
        test.ask(1, &asked);
        let (second, _) = test.at(1500).tick().sent[0];
        if refused_at > 3000 {
            assert_eq!(test.at(3000).tick(), Outcome::default());
        }
        let outcome = test.at(refused_at).answer(second, &response(&asked, 5));
        assert_eq!(!outcome.replies.is_empty(), replied);
        if !replied {
            assert_eq!(test.at(3000).tick().replies, [(client(1), response(&asked, 5))]);
            assert!(test.open.is_empty());
            assert_eq!(test.ask(2, &asked).1, server(2), "it has refused, not failed");
            continue;
        }
        assert!(test.open.is_empty());
    }
}

#[test]
fn a_repeated_query_starts_another_round_of_the_same() {
    let mut test = Test::new(1);
    let asked = query(1, "a");
    let (first, _) = test.ask(1, &asked);
    let (second, to) = test.at(5000).ask(1, &asked);
    assert_eq!(to, server(1));
    assert_ne!(first, second);
    assert_eq!(test.at(14_999).tick(), Outcome::default(), "10 s count from the repetition");
    assert_eq!(test.answer(first, &response(&asked, 0)).replies.len(), 1, "one reply to both");
    assert!(test.open.is_empty());
}

#[test]
fn clients_with_the_same_question_and_id_both_hear() {
    let mut test = Test::new(1);
    let asked = query(1, "a");
    let keys = [1, 2].map(|port| test.ask(port, &asked).0);
    for (key, port) in keys.into_iter().zip([1, 2]) {
        let outcome = test.answer(key, &response(&asked, 0));
        assert_eq!(outcome.replies, [(client(port), response(&asked, 0))]);
    }
}

#[test]
fn repetitions_are_bounded() {
    let mut test = Test::new(3);
    for _ in 0..100 {
        test.query(1, &query(1, "a"));
    }
    assert_eq!(test.open.len(), 8);
}

#[test]
fn after_10_seconds_a_query_is_forgotten() {
    let mut test = Test::new(1);
    test.ask(1, &query(1, "a"));
    assert_eq!(test.at(1500).tick(), Outcome::default());
    assert_eq!(test.forwarder.deadline(), Some(test.start + QUERY_TIMEOUT));
    assert_eq!(test.at(10_000).tick(), Outcome::default());
    assert!(test.open.is_empty());
    assert_eq!(test.forwarder.counters().failed, 1);
    assert_eq!(test.forwarder.deadline(), None);
}

#[test]
fn new_resolvers_are_asked_and_old_ones_may_still_answer() {
    let mut test = Test::new(2);
    let asked = query(1, "a");
    let (key, _) = test.ask(1, &asked);
    test.forwarder.resolver_failed(test.now, server(2));
    test.forwarder.set_resolvers(&[server(2), server(3), server(3)]);
    assert_eq!(test.ask(2, &query(2, "b")).1, server(3), "the second still rests");
    assert_eq!(test.forwarder.resolver(test.now, &[server(3)]), Some(server(2)));
    assert_eq!(test.forwarder.resolver(test.now, &[server(2), server(3)]), None);
    assert_eq!(test.answer(key, &response(&asked, 0)).replies.len(), 1);
}

/// One step of a random run.
#[derive(Debug, Clone)]
enum Step {
    Query(u8, Vec<u8>),
    Answer(usize, u8),
    Garbage(usize, Vec<u8>),
    Failed(usize),
    Wait(u16),
    Resolvers(u8),
    Reassign(u64, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let step = prop_oneof![
        4 => (0..8u8).prop_map(|id| Step::Query(id, query(id.into(), "a.b"))),
        1 => (any::<u8>(), bytes()).prop_map(|(id, bytes)| Step::Query(id, bytes)),
        3 => (any::<usize>(), 0..6u8).prop_map(|(at, rcode)| Step::Answer(at, rcode)),
        1 => (any::<usize>(), bytes()).prop_map(|(at, bytes)| Step::Garbage(at, bytes)),
        2 => any::<usize>().prop_map(Step::Failed),
        3 => (0..4000u16).prop_map(Step::Wait),
        1 => (0..4u8).prop_map(Step::Resolvers),
        1 => (0..20u64, 0..4u8).prop_map(|(number, of)| Step::Reassign(number, of)),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// Every client hears exactly once or its query is counted; every socket is closed exactly once (see `outcome`).
    #[test]
    fn nothing_is_lost(steps in steps(), limit in 1..8usize) {
        let mut test = Test::new(2);
        test.forwarder.limit(limit);
        let mut time = 0;
        for step in steps {
            let pick = |at: usize| test.open.get(at % test.open.len().max(1)).copied();
            match step {
                Step::Query(port, bytes) => { test.query(u16::from(port) * 50, &bytes); }
                Step::Answer(at, rcode) => if let Some(key) = pick(at) {
                    let asked = test.forwarder.pending.get(key).unwrap().1.question.bytes.clone();
                    test.answer(key, &response(&asked, rcode));
                },
                Step::Garbage(at, bytes) => if let Some(key) = pick(at) { test.answer(key, &bytes); },
                Step::Failed(at) => if let Some(key) = pick(at) { test.failed(key); },
                Step::Wait(milliseconds) => {
                    time += u64::from(milliseconds);
                    test.at(time).tick();
                }
                Step::Resolvers(count) => {
                    let servers: Vec<SocketAddr> = (1..=count).map(server).collect();
                    test.forwarder.set_resolvers(&servers);
                }
                Step::Reassign(number, of) => {
                    test.forwarder.reassign(number, holder(u16::from(of) * 100));
                }
            }
            prop_assert!(test.open.len() <= limit);
            let pending = &test.forwarder.pending;
            prop_assert!(test.open.iter().all(|key| pending.get(*key).is_some()));
            prop_assert_eq!(test.forwarder.pending.sockets(), test.open.len());
            prop_assert_eq!(test.forwarder.deadline().is_some(), !test.open.is_empty());
            prop_assert_eq!(test.forwarder.pending.check(), Ok(()));
        }
        test.at(time + 10_000).tick();
        prop_assert!(test.open.is_empty());
        prop_assert_eq!(test.forwarder.deadline(), None);
    }
}
