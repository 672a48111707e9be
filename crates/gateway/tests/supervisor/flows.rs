//! The flow log of a gateway and of its successor.

use api::flows::FlowEvent;

use super::*;

/// Answers as a gateway in which so many flows find no room between two looks.
fn log(sock: OwnedFd, missed: u64) -> (Seen, JoinHandle<()>) {
    serve(sock, move |request| match request {
        Request::Flows { .. } => Some(Reply::Flows { flows: Vec::new(), missed }),
        _ => Some(Reply::Done),
    })
}

fn flows(gateway: &mut Supervisor, follow: bool) -> anyhow::Result<Vec<FlowEvent>> {
    let (done, answer) = channel();
    gateway.flows(follow, move |events| done.send(events).unwrap());
    answer.recv_timeout(PATIENCE).unwrap()
}

/// Requests about the flow log since the last call.
fn asked(seen: &Seen) -> Vec<bool> {
    let follow = |(request, _)| match request {
        Request::Flows { follow } => Some(follow),
        _ => None,
    };
    seen.try_iter().filter_map(follow).collect()
}

#[test]
fn whoever_follows_hears_of_a_successor_that_records_from_its_start() {
    let (mut gateway, _ends) = handle(plan(false));
    let error = flows(&mut gateway, true).unwrap_err().to_string();
    assert!(error.contains("not running\nhint: "), "{error}");
    assert_eq!(flows(&mut gateway, false).map_err(|e| e.to_string()), Err(error));

    let (seen, _thread) = log(gateway.renew().unwrap(), 7);
    configure(&mut gateway).unwrap();
    assert!(asked(&seen).is_empty());
    for _ in 0..2 {
        let events = flows(&mut gateway, true).unwrap();
        assert_eq!(events, [FlowEvent::Missed { count: 7 }]);
    }
    assert_eq!(asked(&seen), [true, true]);

    let (seen, _thread) = log(gateway.renew().unwrap(), 0);
    flows(&mut gateway, true).unwrap_err();
    configure(&mut gateway).unwrap();
    assert_eq!(asked(&seen), [true], "before anybody asks");
    let events = flows(&mut gateway, true).unwrap();
    assert!(matches!(&events[..], [FlowEvent::Restarted { .. }]), "{events:?}");
    assert_eq!(flows(&mut gateway, true).unwrap(), [], "once");
    assert_eq!(flows(&mut gateway, false).unwrap(), []);

    // Nobody follows any more, and nobody hears of the next one.
    let (seen, _thread) = log(gateway.renew().unwrap(), 0);
    configure(&mut gateway).unwrap();
    assert!(asked(&seen).is_empty());
    assert_eq!(flows(&mut gateway, true).unwrap(), []);
}
