//! Whose queries make room for others.

use std::ops::Range;

use super::*;
use crate::dns::pending::ATTEMPTS;

#[test]
fn the_oldest_of_whoever_has_the_most_goes_when_there_are_too_many() {
    let mut test = Test::new(1);
    let (quiet, _) = test.ask(999, &query(0, "a"));
    let (oldest, _) = test.ask(0, &query(0, "a"));
    for id in 1..=1023 {
        test.forwarder.query(test.now, client(0), None, holder(0), &query(id, "a"));
        test.outcome();
    }
    assert!(test.open.contains(&quiet));
    assert_eq!(test.open.len(), SOCKETS);
    assert!(!test.open.contains(&oldest));
    assert_eq!(test.forwarder.counters().evicted, 1);
    // Their fail-over has to keep within the same number.
    test.forwarder.set_resolvers(&[server(1), server(2)]);
    test.at(1500).tick();
    assert_eq!(test.open.len(), SOCKETS);
    assert_eq!(
        test.forwarder.counters().evicted,
        2,
        "one for the quiet one's, and none for their own"
    );
}

#[test]
fn one_query_with_many_sockets_makes_room_for_many_with_one() {
    let mut test = Test::new(3);
    test.forwarder.limit(10);
    let asked = query(1, "a");
    // Each repetition asks another server.
    let mut many: Vec<Key> = (0..ATTEMPTS).map(|_| test.ask(100, &asked).0).collect();
    let few: Vec<Key> = (0..5).map(|id| test.ask(200, &query(id, "b")).0).collect();
    assert!(few.iter().all(|key| test.open.contains(key)), "of whoever has fewer");
    let own = many.split_off(3);
    assert!(own.iter().all(|key| test.open.contains(key)), "its latest");
    assert!(!many.iter().any(|key| test.open.contains(key)));
    assert_eq!(test.forwarder.counters().evicted, 0);
    assert_eq!(test.answer(own[4], &response(&asked, 0)).replies.len(), 1);
    assert_eq!(test.open, few);
}

#[test]
fn whose_a_query_is_may_be_found_later() {
    let mut test = Test::new(1);
    test.forwarder.limit(4);
    let mut ask = |id, holder| {
        let number = test.forwarder.query(test.now, client(id), None, holder, &query(id, "a"));
        let sent = test.outcome().sent[0].0;
        (number.unwrap(), sent, test.open.len())
    };
    let (known, first, _) = ask(1, Holder::Pending);
    let (_, second, _) = ask(2, Holder::Pending);
    let flood = [3, 4].map(|id| ask(id, holder(200)).1);
    test.forwarder.reassign(known, holder(200));
    assert!(test.forwarder.is_full());
    test.ask(5, &query(5, "a"));
    assert!(!test.open.contains(&first), "it is the oldest of three");
    assert!(test.open.contains(&second) && flood.iter().all(|key| test.open.contains(key)));
    test.forwarder.reassign(known, holder(300));
    assert_eq!(test.forwarder.counters().evicted, 1, "it is gone");
}

#[test]
fn a_query_takes_the_place_of_another_one_even_where_everybody_has_one() {
    let mut test = Test::new(1);
    test.forwarder.limit(2);
    for id in [100, 200, 300] {
        let (key, _) = test.ask(id, &query(id, "a"));
        assert!(test.open.contains(&key));
    }
    assert_eq!((test.open.len(), test.forwarder.counters().evicted), (2, 1));
}

#[test]
fn a_holder_replaces_its_own_queries_at_a_limited_rate() {
    let mut test = Test::new(1);
    test.forwarder.limit(10);
    let ask = |test: &mut Test, ids: Range<u16>, of| {
        let ask = |id| {
            let number =
                test.forwarder.query(test.now, client(id), None, holder(of), &query(id, "a"));
            assert!(number.is_some(), "it is a query");
            test.outcome().sent.len()
        };
        ids.map(ask).sum::<usize>()
    };
    let (flood, quiet) = (100, 200);
    assert_eq!(ask(&mut test, 0..500, flood), 10 + 100, "10 find room, 100 replace others");
    assert_eq!(test.forwarder.counters().evicted, 490, "100 replaced, 390 ignored");
    assert_eq!(ask(&mut test, 600..601, quiet), 1, "another holder is not limited");
    assert_eq!(ask(&mut test, 700..800, flood), 0, "no token is left");
    test.at(20);
    assert_eq!(ask(&mut test, 800..900, flood), 20, "one a millisecond");
    assert_eq!(test.open.len(), 10);
}

#[test]
fn repeated_queries_replace_others_at_a_limited_rate() {
    let mut test = Test::new(3);
    test.forwarder.limit(10);
    let ask = |test: &mut Test| {
        let ask = |id| test.query(id, &query(id, "a")).sent.len();
        (0..100).map(ask).sum::<usize>()
    };
    let sent: usize = (0..5).map(|_| ask(&mut test)).sum();
    assert_eq!(sent, 10 + 100, "10 find room, 100 replace others");
}
