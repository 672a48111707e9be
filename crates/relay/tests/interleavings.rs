//! What threads share, in every order in which they could run and with every value that a relaxed read may return.
//!
//! The files below are those of the library, compiled once more with the primitives of loom, a model checker, in place of
//! std's. They take them from `crate::sync` for that reason. The eventfd is a locked flag here.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers as well")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the library uses all of these files, each test a part"
)]

#[path = "../src/flow_log.rs"]
mod flow_log;
#[path = "../src/overlay/links.rs"]
mod links;
#[path = "../src/mailbox.rs"]
mod mailbox;
#[path = "../src/stock.rs"]
mod stock;
#[path = "../src/total.rs"]
mod total;
#[path = "../src/traffic.rs"]
mod traffic;
#[path = "interleavings/wake.rs"]
mod wake;

mod room {
    pub(crate) use relay::room::Held;
}

mod sync {
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic};
    pub(crate) use std::sync::PoisonError;
}

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use flow_log::{FlowEnd, FlowLog, FlowStart, Transport};
use links::Links;
use loom::thread;
use mailbox::Mailbox;
use relay::room::{Held, Use};
use stock::Stock;
use sync::Arc;
use sync::atomic::Ordering;
use traffic::{Attribution, Counted, Opened, Traffic};

const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Two descriptors of a connection to a published port.
fn one() -> Held {
    Held::default().with(Use::In, 2)
}

#[test]
fn no_command_is_lost_and_none_waits_for_a_thread_that_sleeps() {
    loom::model(|| {
        let mailbox = Mailbox::new().unwrap();
        let theirs = Arc::clone(&mailbox);
        let poster = thread::spawn(move || {
            theirs.post(1).unwrap();
            theirs.post(2).unwrap();
        });
        let mut taken = Vec::new();
        while taken.len() < 2 {
            mailbox.wake.wait();
            taken.extend(mailbox.take());
        }
        poster.join().unwrap();
        assert_eq!(taken, [1, 2]);
    });
}

#[test]
fn a_command_to_a_thread_that_ends_is_refused_or_dropped() {
    loom::model(|| {
        let mailbox = Mailbox::new().unwrap();
        let theirs = Arc::clone(&mailbox);
        // Whoever waits for an answer waits for the other one of these.
        let (ours, sent) = (Arc::new(()), Arc::new(()));
        let asks = Arc::clone(&sent);
        let poster = thread::spawn(move || theirs.post_with(asks, one()).is_ok());
        drop(mailbox.take());
        mailbox.close();
        poster.join().unwrap();
        assert_eq!(Arc::strong_count(&sent), 1);
        assert_eq!(mailbox.held(), Held::default());
        assert!(mailbox.post(ours).is_err());
    });
}

#[test]
fn a_connection_is_counted_on_its_way_to_another_thread() {
    loom::model(|| {
        let mailbox = Mailbox::new().unwrap();
        let helper = Arc::clone(&mailbox);
        let thread = thread::spawn(move || {
            helper.report(Held::default());
            helper.wake.wait();
            // It adopts what comes.
            let adopted = helper.take().len();
            helper.report(Held::default().with(Use::In, 2 * adopted));
        });
        mailbox.post_with((), one()).unwrap();
        assert_eq!(mailbox.held(), one());
        assert_eq!(mailbox.held(), one());
        thread.join().unwrap();
        assert_eq!(mailbox.held(), one());
    });
}

#[test]
fn threads_have_no_more_pipes_than_there_may_be() {
    loom::model(|| {
        let stock = Stock::new(1);
        let theirs = Arc::clone(&stock);
        let thread = thread::spawn(move || {
            let lent = Stock::enter(&theirs);
            assert!(theirs.descriptors() <= 2);
            lent.is_some()
        });
        let lent = Stock::enter(&stock);
        assert!(stock.descriptors() <= 2);
        let ours = lent.is_some();
        drop(lent);
        let theirs = thread.join().unwrap();
        assert!(ours || theirs, "nobody goes without one for nothing");
        assert_eq!(stock.descriptors(), 0);
        assert!(Stock::enter(&stock).is_some());
    });
}

#[test]
fn bytes_that_one_thread_keeps_and_another_one_frees_are_counted_once() {
    loom::model(|| {
        let stock = Stock::new(0);
        let mailbox = Mailbox::new().unwrap();
        let (theirs, kept) = (Arc::clone(&mailbox), stock.kept.clone());
        let helper = thread::spawn(move || {
            theirs.wake.wait();
            theirs.take().into_iter().for_each(|bytes| kept.subtract(bytes));
        });
        let kept = stock.kept.clone();
        let other = thread::spawn(move || kept.add(3));
        stock.kept.add(5);
        mailbox.post(5).unwrap();
        assert!([0, 3, 5, 8].contains(&stock.kept.bytes()));
        helper.join().unwrap();
        other.join().unwrap();
        assert_eq!(stock.kept.bytes(), 3);
    });
}

#[test]
fn traffic_of_a_connection_that_moves_to_another_thread_adds_up() {
    loom::model(|| {
        let traffic = Arc::new(Traffic::default());
        let mailbox = Mailbox::new().unwrap();
        let theirs = Arc::clone(&mailbox);
        let helper = thread::spawn(move || {
            theirs.wake.wait();
            for counted in theirs.take() {
                Counted::up(&counted, 3);
            }
        });
        let watched = Arc::clone(&traffic);
        let api = thread::spawn(move || {
            // Below zero it would be a very large number.
            assert!(watched.active.load(Ordering::Relaxed) <= 1);
        });
        let counted = Counted::open(Arc::clone(&traffic));
        counted.up(2);
        mailbox.post(counted).unwrap();
        assert!([2, 5].contains(&traffic.up.load(Ordering::Relaxed)));
        helper.join().unwrap();
        api.join().unwrap();
        let counters = [&traffic.active, &traffic.opened, &traffic.up, &traffic.down];
        assert_eq!(counters.map(|counter| counter.load(Ordering::Relaxed)), [0, 1, 5, 0]);
    });
}

#[test]
fn traffic_that_is_attributed_while_another_thread_counts_is_counted_once_at_both_places() {
    loom::model(|| {
        let [port, container] = [(); 2].map(|()| Arc::new(Traffic::default()));
        let mut counted = Counted::open(Arc::clone(&port));
        counted.up(1);
        let attribution = counted.attribute();
        let helper = thread::spawn(move || {
            counted.up(10);
            counted.fail();
            counted.down(100);
            drop(counted);
        });
        attribution.to(IP, Arc::clone(&container));
        attribution.to(IP, Arc::new(Traffic::default()));
        helper.join().unwrap();
        for (traffic, up) in [(port, 11), (container, 10)] {
            let Traffic { active, opened, failed, up: sent, down, .. } = &*traffic;
            let counters = [active, opened, failed, sent, down];
            let counters = counters.map(|counter| counter.load(Ordering::Relaxed));
            assert_eq!(counters, [0, 1, 1, up, 100]);
        }
    });
}

fn start() -> FlowStart {
    let [client, destination] = [1, 2].map(|port| SocketAddr::new(IP, port));
    let (transport, published, began) = (Transport::Tcp, false, Instant::now());
    let (name, dry_run_rule) = (None, None);
    FlowStart { transport, published, client, destination, name, dry_run_rule, began }
}

/// One thread ends it, one finds its container, one takes records.
#[test]
fn a_flow_is_recorded_once_with_its_container_and_all_bytes() {
    loom::model(|| {
        let log = Arc::new(FlowLog::default());
        log.follow();
        let attribution = Attribution::logged(&log, start());
        let traffic = Arc::new(Traffic::default());
        let mut counted = Counted::open(Arc::clone(&traffic)).attributed(attribution.clone());
        let helper = thread::spawn(move || {
            counted.up(3);
            counted.end(FlowEnd::Closed);
        });
        let theirs = Arc::clone(&log);
        let follower = thread::spawn(move || theirs.take().0);
        attribution.to(IP, traffic);
        helper.join().unwrap();
        let taken = [follower.join().unwrap(), log.take().0].concat();
        let [record] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((record.container, record.up, record.end), (Some(IP), 3, FlowEnd::Closed));
    });
}

/// One thread finds the container, one asks whether the connection may go on: it learns all or nothing.
#[test]
fn whoever_asks_who_has_opened_a_connection_hears_nothing_or_everything() {
    loom::model(|| {
        let log = Arc::new(FlowLog::default());
        log.follow();
        let attribution = Attribution::logged(&log, start());
        let mut counted = Counted::open(Arc::default()).attributed(attribution.clone());
        let asking = thread::spawn(move || {
            let opened = counted.opened_by();
            if opened.is_some() {
                counted.deny("a rule".into());
                counted.end(FlowEnd::Closed);
            }
            opened
        });
        attribution.doubt();
        attribution.to(IP, Arc::default());
        let opened = asking.join().unwrap();
        let known = Opened { container: IP, is_guess: true, destination: start().destination };
        assert!(opened.is_none_or(|opened| opened == known), "{opened:?}");
        let records = log.take().0;
        let [record] = &records[..] else { panic!("{records:?}") };
        let denied = (FlowEnd::Denied, Some("a rule"));
        let ended = if opened.is_some() { denied } else { (FlowEnd::Failed, None) };
        assert_eq!((record.end, record.rule.as_deref()), ended);
    });
}

/// Whoever comes first: nothing is left behind for the next follower.
#[test]
fn a_flow_log_that_nobody_follows_keeps_nothing() {
    loom::model(|| {
        let log = Arc::new(FlowLog::default());
        log.follow();
        let attribution = Attribution::logged(&log, start());
        attribution.to(IP, Arc::new(Traffic::default()));
        let helper = thread::spawn(move || attribution.fail(FlowEnd::Refused));
        log.stop();
        helper.join().unwrap();
        log.follow();
        assert_eq!(log.take(), (Vec::new(), 0));
    });
}

#[test]
fn links_that_two_threads_learn_are_known_and_take_one_place_each() {
    loom::model(|| {
        let links = Arc::new(Links::default());
        let theirs = Arc::clone(&links);
        let thread = thread::spawn(move || {
            theirs.learn(4789);
            assert!(theirs.knows(4789) && !theirs.knows(1));
        });
        links.learn(4789);
        links.learn(6081);
        assert!(links.knows(4789) && links.knows(6081) && !links.knows(0));
        thread.join().unwrap();
        // The others are still free.
        for port in (1..).take(links::MAX_LINKS - 2) {
            links.learn(port);
            assert!(links.knows(port));
        }
        links.learn(9999);
        assert!(!links.knows(9999) && links.knows(4789) && links.knows(6081));
    });
}
