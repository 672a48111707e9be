//! What a gateway process tells its supervisor, which must not believe it: whoever takes over the process in its sandbox
//! speaks here. And the other way round.
#![no_main]

use std::time::Instant;

use gateway::control::{Channel, MAX, Reply, fit};
use libfuzzer_sys::fuzz_target;
use std::os::fd::AsFd;

fuzz_target!(|data: &[u8]| {
    // As it is, without the socket.
    if let Ok(Reply::Stats(mut stats)) = serde_json::from_slice(data) {
        let before = stats.ports.len();
        fit(&mut stats);
        let text = serde_json::to_vec(&Reply::Stats(stats.clone())).expect("plain data");
        assert!(text.len() <= MAX && stats.ports.len() == before);
        assert_eq!(serde_json::from_slice::<Reply>(&text).expect("our own"), Reply::Stats(stats));
    }
    let Some((side, mut rest)) = data.split_first() else { return };
    let (ours, theirs) = Channel::pair().expect("a socket pair");
    // Packets, each behind its length.
    while let Some(([high, low], after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (packet, next) = after.split_at(length);
        rest = next;
        if sys::fdpass::send(theirs.as_fd(), packet, &[]).is_err() {
            break;
        }
    }
    drop(theirs);
    // The other side has ended, so nothing is waited for.
    let deadline = Instant::now();
    if side % 2 == 0 {
        while let Ok(Some(reply)) = ours.answer(deadline) {
            let text = serde_json::to_vec(&reply).expect("plain data");
            assert_eq!(serde_json::from_slice::<Reply>(&text).expect("our own"), reply);
        }
    } else {
        while let Ok(Some((_, fds))) = ours.request() {
            assert!(fds.is_empty(), "none were sent");
        }
    }
});
