use proptest::prelude::*;

use super::*;

fn query(direction: Direction, protocol: Protocol, src: &str, dst: &str) -> Query {
    let outside = Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap() };
    Query { protocol, direction, outside }
}

fn some_query() -> Query {
    query(Direction::Outbound, Protocol::Udp, "10.0.2.100:1", "192.0.2.1:1")
}

#[test]
fn queries_and_replies_arrive_as_they_were_sent() {
    for query in [
        query(Direction::Outbound, Protocol::Tcp, "10.0.2.100:40000", "192.0.2.1:443"),
        query(Direction::Inbound, Protocol::Udp, "[2001:db8::1]:5353", "[fd00::100]:53"),
        query(Direction::Outbound, Protocol::Echo, "10.0.2.100:7", "192.0.2.1:7"),
        // Not an address of IPv4, though it is written as one.
        query(Direction::Outbound, Protocol::Udp, "[fd00::100]:7", "[::ffff:192.0.2.1]:7"),
    ] {
        let mut bytes = Vec::new();
        write_query(u64::MAX, 7, &query, &mut bytes);
        assert_eq!(bytes.len(), QUERY_BYTES);
        let (mark, rest) = read_mark(&bytes).unwrap();
        assert_eq!((mark, read_query(rest)), ((u64::MAX, 7), Some(query)));
    }
    for outcome in [
        Outcome::Unknown,
        Outcome::Failed,
        Outcome::Found("172.17.0.2".parse().unwrap()),
        Outcome::Found("::ffff:172.17.0.2".parse().unwrap()),
    ] {
        let reply = Reply { mark: 1, number: u32::MAX, outcome };
        let mut bytes = Vec::new();
        reply.write(&mut bytes);
        assert_eq!(Reply::read(bytes.first_chunk().unwrap()), Some(reply));
        assert_eq!(bytes.len(), REPLY_BYTES);
    }
}

/// Has another thread do this in an empty network namespace.
fn in_a_namespace<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        run()
    })
}

#[test]
fn every_query_of_any_message_has_a_reply() {
    let run = || {
        let conntrack = std::cell::RefCell::new(Conntrack::open().unwrap());
        proptest!(|(mut message in proptest::collection::vec(any::<u8>(), 0..4 * QUERY_BYTES),
                    sensible in any::<bool>())| {
            if sensible {
                for query in message.chunks_mut(QUERY_BYTES) {
                    query.iter_mut().skip(MARK_BYTES).take(3).for_each(|byte| *byte %= 2);
                }
            }
            // One that makes sense is answered whatever stands beside it.
            message.truncate(message.len() / QUERY_BYTES * QUERY_BYTES);
            write_query(7, 7, &some_query(), &mut message);
            let mut replies = Vec::new();
            let mut look_up = |queries: &[Query]| conntrack.borrow_mut().look_up(queries);
            answer(&mut look_up, &message, &mut replies);
            let (replies, rest) = replies.as_chunks::<REPLY_BYTES>();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(replies.len(), message.len() / QUERY_BYTES);
            let last = Reply::read(replies.last().unwrap()).unwrap();
            prop_assert_eq!((last.mark, last.outcome), (7, Outcome::Unknown));
            for (reply, query) in replies.iter().zip(message.chunks(QUERY_BYTES)) {
                let reply = Reply::read(reply).unwrap();
                prop_assert_eq!((reply.mark, reply.number), read_mark(query).unwrap().0);
                let sense = read_query(&query[MARK_BYTES..]).is_some();
                let expected = if sense { Outcome::Unknown } else { Outcome::Failed };
                // The kernel refuses some addresses.
                prop_assert!(reply.outcome == expected || reply.outcome == Outcome::Failed);
            }
        });
    };
    in_a_namespace(run).join().unwrap();
}

fn crowd(client: &mut Client) {
    for _ in 0..BATCH {
        client.ask(&some_query());
    }
}

#[test]
fn every_query_of_a_crowd_is_answered() {
    let (ours, theirs) = pair().unwrap();
    let thread = in_a_namespace(move || serve(&theirs));
    let mut client = Client::new(ours);
    let mut open: std::collections::HashSet<u32> =
        (0..3 * BATCH).map(|_| client.ask(&some_query())).collect();
    assert_eq!(client.unsent(), 3 * BATCH);
    while !open.is_empty() {
        client.send().unwrap();
        for reply in client.replies().unwrap().into_iter().flatten() {
            assert_eq!(reply.outcome, Outcome::Unknown);
            assert!(open.remove(&reply.number));
        }
        std::thread::yield_now();
    }
    assert_eq!(client.unsent(), 0);
    drop(client);
    thread.join().unwrap().unwrap();
}

/// Asks until both queues are full, and whoever answers waits for somebody who reads.
fn fill(client: &mut Client) {
    while client.unsent() < BATCH {
        crowd(client);
        client.send().unwrap();
    }
}

#[test]
fn replies_to_a_predecessor_are_none_and_keep_nobody_from_asking() {
    let (ours, theirs) = pair().unwrap();
    let kept = ours.try_clone().unwrap();
    let thread = in_a_namespace(move || serve(&theirs));
    let mut first = Client::new(ours);
    fill(&mut first);
    drop(first);
    let mut second = Client::new(kept);
    let number = second.ask(&some_query());
    let reply = loop {
        second.send().unwrap();
        match second.replies().unwrap().unwrap_or_default()[..] {
            [] => std::thread::yield_now(),
            [reply] => break reply,
            ref many => panic!("{many:?}"),
        }
    };
    assert_eq!((reply.number, reply.outcome), (number, Outcome::Unknown));
    drop(second);
    thread.join().unwrap().unwrap();
}

#[test]
fn whoever_answers_ends_with_whoever_asks_even_in_the_middle() {
    let (ours, theirs) = pair().unwrap();
    let thread = in_a_namespace(move || serve(&theirs));
    let mut client = Client::new(ours);
    fill(&mut client);
    drop(client);
    thread.join().unwrap().unwrap();
}

#[test]
fn nobody_who_answers_is_an_error() {
    let (ours, theirs) = pair().unwrap();
    let mut client = Client::new(ours);
    client.ask(&some_query());
    drop(theirs);
    assert!(client.send().is_err());
    assert!(client.replies().is_err());
}

#[test]
fn an_empty_message_is_not_the_end() {
    let (ours, theirs) = pair().unwrap();
    let thread = in_a_namespace(move || serve(&theirs));
    let mut client = Client::new(ours);
    send(client.socket.as_raw_fd(), &[], MsgFlags::empty()).unwrap();
    let number = client.ask(&some_query());
    client.send().unwrap();
    let reply = loop {
        if let Some(reply) = client.replies().unwrap().unwrap_or_default().pop() {
            break reply;
        }
        std::thread::yield_now();
    };
    assert_eq!(reply.number, number);
    drop(client);
    thread.join().unwrap().unwrap();
}
