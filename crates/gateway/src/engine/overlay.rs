//! Datagrams of overlay networks, as the target namespace sends them: long segments with checksums to be completed
//! ([`relay::overlay`]).
//!
//! This is a fast path for existing flows. A datagram without a flow is finished and written to the tun device "dial", so
//! the packet rules and the policy decide about it as about any other (see `gateway::namespace`).

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use relay::overlay::{ETHERNET, MAX_FINISHED, Offload, Reader, Received, Writer, finish};
use sys::mmsg::Datagram;

use super::Shared;
use crate::packet::{self, Packet, Reassembly, Udp};

/// Bytes that are read at a time. Then other descriptors have their turn.
const BATCH_BYTES: usize = 4 * MAX_FINISHED;
/// Packets that are read at a time: most are short, if they acknowledge.
const BATCH_PACKETS: usize = 64;
/// Datagrams that are made at a time, or a few more: a hostile container can have short packets cut very small.
const BATCH_DATAGRAMS: usize = 1024;

/// The packet socket, and what has been read from it.
#[derive(Debug)]
pub(super) struct Overlay {
    reader: Reader,
    /// Learns which ports links use.
    writer: Option<Arc<Writer>>,
    /// Finished datagrams one after the other.
    bytes: Vec<u8>,
    batch: Vec<Finished>,
}

/// One or several datagrams of equal size; the last may be shorter.
#[derive(Clone, Copy, Debug)]
struct Finished {
    src: SocketAddr,
    dst: SocketAddr,
    /// Its end in the bytes, where the next one begins.
    end: usize,
    size: Option<usize>,
}

impl Overlay {
    pub(super) fn new(socket: OwnedFd, writer: Option<Arc<Writer>>) -> Self {
        Self { reader: socket.into(), writer, bytes: Vec::new(), batch: Vec::new() }
    }

    /// Reads what is there, up to a limit, in place of what was read before.
    pub(super) fn read(&mut self, now: Instant, reassembly: &mut Reassembly, shared: &Shared) {
        self.bytes.clear();
        self.batch.clear();
        let mut datagrams = 0;
        for _ in 0..BATCH_PACKETS {
            if self.bytes.len() >= BATCH_BYTES || datagrams >= BATCH_DATAGRAMS {
                break;
            }
            match self.reader.receive() {
                Some(Ok(received)) => {
                    let before = self.bytes.len();
                    let writer = self.writer.as_deref();
                    let mut out = Out { writer, bytes: &mut self.bytes, batch: &mut self.batch };
                    if out.take(&received, now, reassembly).is_none() {
                        shared.drop_packet();
                    }
                    let size = self.batch.last().and_then(|last| last.size).unwrap_or(usize::MAX);
                    datagrams += (self.bytes.len() - before).div_ceil(size.max(1));
                }
                Some(Err(e)) => {
                    tracing::debug!("cannot read a packet of an overlay network: {}", e.desc());
                    shared.drop_packet();
                }
                None => break,
            }
        }
    }

    /// What was read, in its order: neighbours with the same source and destination together.
    pub(super) fn batches(
        &self,
    ) -> impl Iterator<Item = (SocketAddr, SocketAddr, Vec<Datagram<'_>>)> {
        let mut begin = 0;
        self.batch.chunk_by(|a, b| (a.src, a.dst) == (b.src, b.dst)).map(move |alike| {
            let datagram = |one: &Finished| {
                let data = &self.bytes[begin..one.end];
                begin = one.end;
                Datagram { segment: one.size, ..Datagram::alone(data) }
            };
            (alike[0].src, alike[0].dst, alike.iter().map(datagram).collect())
        })
    }
}

impl AsFd for Overlay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// Where finished datagrams go.
struct Out<'a> {
    writer: Option<&'a Writer>,
    bytes: &'a mut Vec<u8>,
    batch: &'a mut Vec<Finished>,
}

impl Out<'_> {
    /// Finishes a packet. `None` if it cannot be.
    fn take(
        &mut self,
        received: &Received<'_>,
        now: Instant,
        reassembly: &mut Reassembly,
    ) -> Option<()> {
        match packet::parse(received.packet).ok()? {
            Packet::Udp(udp) => self.finish(received.offload, received.packet, &udp),
            // What is cut is finished.
            Packet::Fragment(fragment) => {
                let Some(whole) = reassembly.add(now, &fragment) else { return Some(()) };
                match packet::parse(whole).ok()? {
                    Packet::Udp(udp) => self.finish(Offload::default(), whole, &udp),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn finish(&mut self, offload: Offload, packet: &[u8], udp: &Udp<'_>) -> Option<()> {
        // The end of the packet may be padding, so the place is counted from the front.
        let before = udp.payload.as_ptr().addr() - packet.as_ptr().addr();
        if let Some(writer) = self.writer
            && offload.is_encapsulated(ETHERNET + before)
        {
            writer.learn(udp.dst.port());
        }
        let size = finish(offload, ETHERNET + before, udp.payload, self.bytes).ok()?;
        let end = self.bytes.len();
        self.batch.push(Finished { src: udp.src, dst: udp.dst, end, size });
        Some(())
    }
}
