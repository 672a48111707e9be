//! Datagrams of clients and name servers, in any order and at any time.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateway::dns::{Action, Forwarder, Key, KnownNames, addresses};
use gateway::shares::Holder;
use libfuzzer_sys::fuzz_target;

fn learn(known: &mut KnownNames, now: Instant, answer: &[u8]) {
    if let Some((name, addresses)) = addresses(answer) {
        known.learn(now, &name, &addresses);
    }
}

fuzz_target!(|data: &[u8]| {
    let servers = [SocketAddr::from(([192, 0, 2, 1], 53)), SocketAddr::from(([192, 0, 2, 2], 53))];
    let mut forwarder = Forwarder::new(&servers);
    let mut known = KnownNames::default();
    let mut now = Instant::now();
    let mut sockets: Vec<(Key, Vec<u8>)> = Vec::new();
    let mut rest = data;
    // A sequence of steps: what, which, a length, and as many bytes.
    while let Some(([what, which, length], after)) = rest.split_first_chunk::<3>() {
        let (payload, next) = after.split_at(usize::from(*length).min(after.len()));
        rest = next;
        learn(&mut known, now, payload);
        let socket = sockets.get(usize::from(*which) % sockets.len().max(1)).cloned();
        match (what % 6, socket) {
            (0, _) => {
                forwarder.query(
                    now,
                    SocketAddr::from(([10, 0, 2, 100], u16::from(*which))),
                    None,
                    Holder::Sender([172, 17, 0, which % 4].into()),
                    payload,
                );
            }
            (1, Some((key, _))) => forwarder.answer(now, key, payload),
            // The query itself, with a few bytes changed, which an answer is.
            (2, Some((key, mut answer))) => {
                for (byte, change) in answer.iter_mut().zip(payload) {
                    *byte ^= change;
                }
                forwarder.answer(now, key, &answer);
            }
            (3, Some((key, _))) => forwarder.failed(now, key),
            (4, _) => {
                now += Duration::from_millis(u64::from(*which) * 32);
                forwarder.tick(now);
            }
            (5, _) => forwarder.set_resolvers(&servers[..usize::from(which % 3)]),
            _ => {}
        }
        while let Some(action) = forwarder.next_action() {
            match action {
                Action::Send { key, to: _, query } => sockets.push((key, query)),
                Action::Close(key) => {
                    let at = sockets.iter().position(|(open, _)| *open == key);
                    sockets.swap_remove(at.expect("an open socket is closed"));
                }
                Action::Reply { payload, .. } => {
                    assert!(payload.len() >= 12, "at least a header");
                    learn(&mut known, now, &payload);
                }
            }
        }
        assert_eq!(forwarder.deadline().is_some(), !sockets.is_empty());
    }
});
