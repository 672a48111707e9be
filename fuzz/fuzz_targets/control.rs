//! What a gateway process tells its supervisor, which must not believe it: whoever takes over the process in its sandbox
//! speaks here. And the other way round.
#![no_main]

use std::time::Instant;

use gateway::control::{Channel, Reply};
use libfuzzer_sys::fuzz_target;
use std::os::fd::AsFd;

/// Bytes of a packet that another one may follow (`crates/gateway/src/control/channel.rs`).
const WHOLE: usize = 32 << 10;
/// The bit of a length that says: the packet is filled with spaces until it is a whole one.
const FILL: u16 = 0x8000;

fuzz_target!(|data: &[u8]| {
    let Some((side, mut rest)) = data.split_first() else { return };
    let (ours, theirs) = Channel::pair().expect("a socket pair");
    // Packets, each behind its length.
    while let Some(([high, low], after)) = rest.split_first_chunk::<2>() {
        let head = u16::from_be_bytes([*high, *low]);
        let (packet, next) = after.split_at(usize::from(head & !FILL).min(after.len()));
        rest = next;
        let mut packet = packet.to_vec();
        if head & FILL != 0 {
            packet.resize(WHOLE, b' ');
        }
        if sys::fdpass::send(theirs.as_fd(), &packet, &[]).is_err() {
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
