//! Answers that come when nobody waits for them, and requests that never end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// The numbers of the ports that the gateway is offered or told to withdraw, as they come.
fn offers(seen: &Seen) -> impl Iterator<Item = (&'static str, u64)> {
    std::iter::from_fn(|| seen.recv_timeout(PATIENCE).ok()).filter_map(|(request, _)| match request
    {
        Request::Publish { id, .. } => Some(("publish", id)),
        Request::Withdraw { id } => Some(("withdraw", id)),
        _ => None,
    })
}

#[test]
fn a_port_that_is_refused_too_late_is_offered_again_until_it_is_served() {
    let (go, wait) = channel::<()>();
    let mut times = 0;
    let (mut gateway, seen, thread) = up(move |request| {
        if !matches!(request, Request::Publish { .. }) {
            return Some(handle_request(request));
        }
        times += 1;
        if times == 1 {
            wait.recv_timeout(PATIENCE).unwrap();
        }
        let served = times == 3;
        Some(if served { Reply::Done } else { Reply::Failed("no descriptor left".into()) })
    });
    next(&seen);
    // Known as published, since nobody waits for long.
    publish(&mut gateway, 1, marked().0).unwrap();
    go.send(()).unwrap();
    let mut offers = offers(&seen);
    for _ in 0..3 {
        assert_eq!(offers.next(), Some(("publish", 1)));
    }
    drop(offers);
    // It is served now, and can be withdrawn.
    withdraw(&mut gateway, 1).unwrap();
    assert!(matches!(next(&seen).0, Request::Withdraw { id: 1 }));
    drop(gateway);
    thread.join().unwrap();
}

#[test]
fn a_port_that_one_gateway_refuses_is_not_served_by_the_next_one() {
    let refused = |_: &Request| Some(Reply::Failed("no descriptor left".into()));
    let (mut gateway, _, _thread) = up(refused);
    let (listener, address) = listener();
    let name = "port 1".to_owned();
    let answer = gateway.publish(1, false, target(), Vec::new(), name, listener.into()).unwrap();
    // On a busy machine, the refusal may come after the time that it is waited for.
    let _ = answer.wait();
    // It has ended meanwhile, and its successor has learned which ports are known.
    let (seen, _successor) =
        serve(gateway.renew().unwrap(), |request| Some(handle_request(request)));
    configure(&mut gateway).unwrap();
    gateway.forget(1);
    let told: Vec<_> = offers(&seen).take(2).collect();
    assert_eq!(told, [("publish", 1), ("withdraw", 1)]);
    drop(seen);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_port_that_a_new_gateway_refuses_is_offered_again_unless_it_is_withdrawn() {
    let (mut gateway, _) = handle(plan(false));
    publish(&mut gateway, 1, marked().0).unwrap();
    let (listener, address) = listener();
    publish(&mut gateway, 2, listener.into()).unwrap();
    let refused = |request: &Request| match request {
        Request::Publish { .. } => Some(Reply::Failed("no descriptor left".into())),
        other => Some(handle_request(other)),
    };
    let (seen, _thread) = serve(gateway.renew().unwrap(), refused);
    configure(&mut gateway).unwrap();
    withdraw(&mut gateway, 2).unwrap();
    let begin: Vec<_> = offers(&seen).take(3).collect();
    assert_eq!(begin, [("publish", 1), ("publish", 2), ("withdraw", 2)]);
    // What waits to be offered again does not keep a listener open.
    assert!(TcpStream::connect(address).is_err());
    let later: Vec<_> = offers(&seen).take(2).collect();
    assert_eq!(later, [("publish", 1); 2]);
}

#[test]
fn the_health_is_checked_although_somebody_always_asks_for_something() {
    let pings = Arc::new(AtomicUsize::new(0));
    let (mut gateway, _) = handle(plan(false));
    let (count, sock) = (Arc::clone(&pings), gateway.renew().unwrap());
    std::thread::spawn(move || {
        let channel = Channel::new(sock).unwrap();
        // It answers when the next one asks, so that an answer is always outstanding.
        let mut last = None;
        while let Ok(Some((request, _))) = channel.request() {
            count.fetch_add(usize::from(request == Request::Ping), Ordering::Relaxed);
            let mut replies: Vec<Request> = last.take().into_iter().collect();
            if request == Request::Stats {
                last = Some(request);
            } else {
                replies.push(request);
            }
            for request in replies {
                let _ = channel.reply(&handle_request(&request));
            }
        }
    });
    configure(&mut gateway).unwrap();
    let first = pings.load(Ordering::Relaxed);
    let begin = Instant::now();
    let (done, answers) = channel();
    let mut outstanding = 0;
    while pings.load(Ordering::Relaxed) == first {
        assert!(begin.elapsed() < PATIENCE, "no ping");
        while outstanding < 3 {
            outstanding += 1;
            let done = done.clone();
            gateway.stats(move |stats| done.send(stats).unwrap());
        }
        answers.recv_timeout(PATIENCE).unwrap().unwrap();
        outstanding -= 1;
    }
}

#[test]
fn nobody_needs_the_handle_to_learn_why_a_gateway_ended() {
    let (mut gateway, _seen, thread) = up(|_| Some(Reply::Done));
    let ending = gateway.ending().unwrap();
    let asking = std::thread::spawn(move || ending.why());
    // Meanwhile it is used by somebody else, who is told nonsense.
    publish(&mut gateway, 1, marked().0).unwrap();
    assert!(error(stats(&gateway)).contains("not running"));
    assert!(gateway.ending().unwrap().why().unwrap().contains("out of turn"));
    drop(asking.join().unwrap());
    thread.join().unwrap();
}
