//! Datagrams of overlay networks: what containers leave to be finished, and what other hosts send.
#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;

use libfuzzer_sys::fuzz_target;
use relay::overlay::{MAX_FINISHED, Offload, Writer, finish};
use sys::mmsg::Datagram;

fuzz_target!(|data: &[u8]| {
    let Some((offload, datagram)) = data.split_first_chunk::<{ Offload::LEN }>() else { return };
    let mut out = Vec::new();
    let size = finish(Offload::from_bytes(*offload), 42, datagram, &mut out);
    assert!(out.len() <= MAX_FINISHED.max(datagram.len()));
    assert!(size.is_ok() || out.is_empty());
    // What was finished, and what came as it is.
    let writer = Writer::new(OwnedFd::from(File::open("/dev/null").expect("a file")), 1500);
    writer.learn(1);
    let ends = ([10, 0, 0, 1], 1).into();
    let finished = Datagram { segment: size.ok().flatten(), ..Datagram::alone(&out) };
    for datagrams in [finished, Datagram::alone(datagram)] {
        let mut alone = 0;
        writer.deliver((ends, ends), [datagrams].into_iter(), |data| {
            alone += data.iter().map(|data| data.len()).sum::<usize>();
            0
        });
        assert!(alone <= datagrams.data.len());
    }
});
