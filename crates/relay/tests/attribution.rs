//! For which container a connection or flow counts that may go on for another one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use relay::flow_log::{FlowEnd, FlowLog, FlowStart, MAX_RECORDS, Transport};
use relay::{Attribution, Counted, Traffic};

const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn numbers(traffic: &Traffic) -> [u64; 5] {
    let Traffic { active, opened, failed, up, down, .. } = traffic;
    [active, opened, failed, up, down].map(|number| number.load(Ordering::Relaxed))
}

#[test]
fn what_goes_on_for_another_container_leaves_the_first_one_what_it_had() {
    let [port, first, second] = [(); 3].map(|()| Arc::new(Traffic::default()));
    let attribution = Attribution::default();
    let counted = Counted::open(Arc::clone(&port)).attributed(attribution.clone());
    attribution.to(IP, Arc::clone(&first));
    counted.up(1);
    attribution.to(IP, Arc::clone(&second));
    assert_eq!((numbers(&first), numbers(&second)), ([1, 1, 0, 1, 0], [0; 5]), "nobody asked");

    // It may be the same one.
    let again = counted.attribute_again().unwrap();
    counted.up(10);
    assert_eq!(numbers(&first), [1, 1, 0, 1, 0]);
    again.to(IP, Arc::clone(&first));
    assert_eq!(numbers(&first), [1, 1, 0, 11, 0]);
    // Or nobody knows.
    let again = counted.attribute_again().unwrap();
    counted.up(100);
    assert!(again.stay());
    assert_eq!(numbers(&first), [1, 1, 0, 111, 0]);

    let again = counted.attribute_again().unwrap();
    counted.down(1000);
    again.to(IP, Arc::clone(&second));
    assert_eq!(numbers(&first), [0, 1, 0, 111, 0]);
    assert_eq!(numbers(&second), [1, 1, 0, 0, 1000]);
    // It ends before the next answer.
    let again = counted.attribute_again().unwrap();
    drop(counted);
    again.to(IP, Arc::clone(&first));
    assert_eq!((numbers(&first), numbers(&second)), ([0, 2, 0, 111, 0], [0, 1, 0, 0, 1000]));
    assert_eq!(numbers(&port), [0, 1, 0, 111, 1000]);
}

#[test]
fn a_flow_that_never_had_a_container_has_none_to_stay_with() {
    let attribution = Attribution::default();
    let _counted = Counted::open(Arc::default()).attributed(attribution.clone());
    assert!(!attribution.stay());
    let container = Arc::new(Traffic::default());
    attribution.to(IP, Arc::clone(&container));
    assert_eq!(numbers(&container), [1, 1, 0, 0, 0]);
}

fn start() -> FlowStart {
    let [client, destination] = [1, 2].map(|port| SocketAddr::new(IP, port));
    let (transport, published, began) = (Transport::Tcp, false, Instant::now());
    let (name, dry_run_rule) = (None, None);
    FlowStart { transport, published, client, destination, name, dry_run_rule, began }
}

#[test]
fn a_record_waits_for_its_container_and_has_all_bytes() {
    let log = Arc::new(FlowLog::default());
    log.follow();
    let attribution = Attribution::logged(&log, start());
    let mut counted = Counted::open(Arc::default()).attributed(attribution.clone());
    counted.up(1);
    counted.end(FlowEnd::Refused);
    counted.end(FlowEnd::Closed);
    counted.down(10);
    drop(counted);
    assert_eq!(log.take(), (Vec::new(), 0), "its container is not known");
    attribution.to(IP, Arc::default());
    let (records, _) = log.take();
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.container, record.up, record.down), (Some(IP), 1, 10));
    assert_eq!((record.end, record.start.transport), (FlowEnd::Closed, Transport::Tcp));
    assert!(record.ended >= record.start.began);

    // A container that is known before, and other ones in between.
    let attribution = Attribution::logged(&log, start());
    attribution.to(IP, Arc::default());
    let counted = Counted::open(Arc::default()).attributed(attribution);
    counted.up(1);
    let again = counted.attribute_again().unwrap();
    counted.up(1);
    drop(counted);
    assert_eq!(log.take().0, []);
    assert!(again.stay());
    assert_eq!(log.take().0.iter().map(|record| record.up).collect::<Vec<_>>(), [2]);

    // What never came about.
    let attribution = Attribution::logged(&log, start());
    attribution.fail(FlowEnd::Unreachable);
    attribution.to(IP, Arc::default());
    assert_eq!(log.take().0.iter().map(|of| of.end).collect::<Vec<_>>(), [FlowEnd::Unreachable]);
}

#[test]
fn what_finds_no_room_is_counted_and_nothing_is_kept_for_nobody() {
    let log = Arc::new(FlowLog::default());
    let end = || {
        let attribution = Attribution::logged(&log, start());
        attribution.to(IP, Arc::default());
        drop(Counted::open(Arc::default()).attributed(attribution));
    };
    end();
    assert_eq!(log.take(), (Vec::new(), 0));
    log.follow();
    (0..MAX_RECORDS + 3).for_each(|_| end());
    let (records, missed) = log.take();
    assert_eq!((records.len(), missed), (MAX_RECORDS, 3));
    end();
    assert_eq!((log.take().0.len(), log.take()), (1, (Vec::new(), 0)));
    // One that ended before somebody followed is none of theirs.
    log.stop();
    let attribution = Attribution::logged(&log, start());
    drop(Counted::open(Arc::default()).attributed(attribution.clone()));
    log.follow();
    attribution.to(IP, Arc::default());
    end();
    log.stop();
    assert_eq!(log.take(), (Vec::new(), 0));
}
