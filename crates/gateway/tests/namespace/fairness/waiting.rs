//! Packets that wait until their sender is known, when no more can wait.

use super::*;
use crate::egress::rig::ECHO_V6;

/// As many attempts as may wait for their sender (`parked::MAX_WAITING`).
const MOST_THAT_WAIT: u16 = 1024;

#[test]
fn a_connection_goes_on_when_no_more_can_wait_for_their_sender() {
    let kind = Kind::Masqueraded;
    let gateway = kind.start(256);
    let dropped = || gateway.statistics.stats().events.dropped;
    let _flood = flood_with_syns(kind, &gateway, 0..300);
    gateway.tracking(Tracking::Waits);
    let waiting = 300..300 + MOST_THAT_WAIT;
    let _waiting: Vec<Socket> = waiting.map(|n| connecting(kind.flood(n), SILENT)).collect();
    let before = dropped();
    // The first ones may find room to wait, if SYNs of the flood were lost.
    let (begin, mut quiet) = (Instant::now(), Vec::new());
    while !quiet.iter().any(|new| relay::connect_outcome(new).is_some_and(|end| end.is_ok())) {
        assert_eq!(dropped(), before, "what can neither wait nor go on is dropped");
        assert!(begin.elapsed() < PATIENCE, "nothing goes on");
        let next = u16::try_from(quiet.len()).unwrap();
        quiet.push(connecting(kind.quiet(next), SERVER));
        std::thread::sleep(Duration::from_millis(10));
    }
    gateway.tracking(Tracking::Answers);
}

/// Rules that depend on who sends, and allow everything.
const BY_SENDER: &str = r#"
    [[rule]]
    name = "these"
    action = "allow"
    from = { address = "172.18.0.0/16" }
"#;

/// Behind a masquerade, the quiet container has another destination. Otherwise, it has an address of its own.
#[test]
fn a_flood_of_attempts_whose_sender_matters_leaves_others_room_to_wait() {
    on_each_kind(|kind| {
        let gateway = kind.start(16_384);
        gateway.change_with(&[BY_SENDER], &[]);
        let events = || gateway.statistics.stats().events;
        let ask = |from, to| {
            let flow = datagrams(from, to);
            flow.send(b"hello").unwrap();
            flow
        };
        // Behind everything that has been sent before.
        let wait_until_handled = || {
            let before = events().denied;
            let _denied = ask(kind.flood(5000), DENIED);
            wait_until("nothing is denied", || events().denied > before);
        };
        gateway.tracking(Tracking::Waits);
        let mut flood = Vec::new();
        while events().dropped == 0 {
            let first = u16::try_from(flood.len()).unwrap();
            assert!(first <= MOST_THAT_WAIT, "everything of the flood waits");
            flood.extend((first..first + 50).map(|number| ask(kind.flood(number), ECHO)));
            wait_until_handled();
        }
        let quiet = match kind {
            Kind::Masqueraded => ask(address("[fd00::100]:50000"), ECHO_V6),
            Kind::Addressed => ask(kind.quiet(0), ECHO),
        };
        wait_until_handled();
        gateway.tracking(Tracking::Answers);
        for waited in [&quiet, &flood[0]] {
            assert_eq!(receive(waited).unwrap(), b"hello", "{kind:?}");
        }
    });
}
