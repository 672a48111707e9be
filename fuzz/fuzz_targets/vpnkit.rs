//! The stream from vpnkit: frames, the same in any pieces; and back into a stream.
#![no_main]
#![allow(dead_code, reason = "the program uses all of it")]

#[path = "../../rootlesskit/src/drivers/vpnkit/pump/frames.rs"]
mod frames;

use std::io;

use frames::{Incoming, Outgoing};
use libfuzzer_sys::fuzz_target;

/// The frames of a stream that comes in pieces, up to its end or what is none.
fn taken(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (mut incoming, mut got) = (Incoming::default(), Vec::new());
    for piece in bytes.chunks(size) {
        let filled = incoming.fill(|buffer| {
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        });
        filled.expect("nothing ends here");
        loop {
            match incoming.next() {
                Ok(Some(frame)) => got.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return got,
            }
        }
    }
    got
}

fuzz_target!(|data: &[u8]| {
    let Some(([size, room], bytes)) = data.split_first_chunk::<2>() else { return };
    let whole = taken(bytes, 64 << 10);
    assert_eq!(whole, taken(bytes, usize::from(*size) + 1));
    let mut outgoing = Outgoing::default();
    for frame in &whole {
        outgoing.push(frame);
    }
    let mut stream = Vec::new();
    while !outgoing.is_empty() {
        let mut waits = false;
        let sent = outgoing.flush(|bytes| {
            waits = !waits;
            if !waits {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = bytes.len().min(usize::from(*room) + 1);
            stream.extend_from_slice(&bytes[..length]);
            Ok(length)
        });
        sent.expect("a slow reader is no error");
    }
    assert!(bytes.starts_with(&stream), "the frames are those of the stream");
});
