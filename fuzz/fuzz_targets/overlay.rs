//! Datagrams of overlay networks: what containers leave to be finished, and what other hosts send.
#![no_main]

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use libfuzzer_sys::fuzz_target;
use relay::overlay::{MAX_FINISHED, Offload, Writer, finish};
use sys::mmsg::Datagram;

/// Delivers them by a device that takes everything, and returns how many bytes it was given by itself.
fn deliver<'a>(datagrams: impl Iterator<Item = Datagram<'a>>, v4: bool) {
    let writer = Writer::new(OwnedFd::from(File::create("/dev/null").expect("a file")), 1500);
    writer.learn(1);
    let end: SocketAddr =
        if v4 { ([10, 0, 0, 1], 1).into() } else { ([0xfd00_u16, 0, 0, 0, 0, 0, 0, 1], 1).into() };
    let mut whole = 0;
    let datagrams = datagrams.inspect(|datagram| whole += datagram.data.len() as u64);
    let delivered = writer
        .deliver((end, end), datagrams, |alone| alone.iter().map(|data| data.len() as u64).sum());
    assert_eq!(delivered, whole, "each byte goes one way");
}

fuzz_target!(|data: &[u8]| {
    let Some((offload, rest)) = data.split_first_chunk::<{ Offload::LEN }>() else { return };
    let Some(([v4], datagram)) = rest.split_first_chunk::<1>() else { return };
    let mut out = Vec::new();
    let size = finish(Offload::from_bytes(*offload), 42, datagram, &mut out);
    assert!(out.len() <= MAX_FINISHED.max(datagram.len()));
    assert!(size.is_ok() || out.is_empty());
    // What was finished, and what came as it is.
    let finished = Datagram { segment: size.ok().flatten(), ..Datagram::alone(&out) };
    deliver([finished].into_iter(), v4 & 1 == 0);
    deliver([Datagram::alone(datagram), finished, finished].into_iter(), v4 & 1 == 0);
    // Several, each behind its length.
    let mut rest = datagram;
    let datagrams = std::iter::from_fn(|| {
        let ([high, low], after) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (one, next) = after.split_at(length);
        rest = next;
        Some(Datagram::alone(one))
    });
    deliver(datagrams, v4 & 1 == 0);
});
