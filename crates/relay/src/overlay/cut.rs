//! Finishing what the kernel left to a network card: checksums, and the cutting of long segments.

use etherparse::checksum::Sum16BitWords;

use super::frame::{CHECKSUM, CWR, FIN, FLAGS, PSH, SEQUENCE, Segment, narrow, put, put16};

/// From linux/virtio_net.h.
pub(super) const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
pub(super) const GSO_TCPV4: u8 = 1;
pub(super) const GSO_TCPV6: u8 = 4;
/// A flag beside the kind: the segment is about congestion.
const GSO_ECN: u8 = 0x80;

/// The most bytes that [`finish`] makes of one packet. A segment of 64 KiB that is cut as small as Linux cuts (a payload of
/// 88 bytes, `TCP_MIN_MSS`) has this with all headers.
pub const MAX_FINISHED: usize = 1 << 17;

/// Smaller segments than these, in bytes of payload, are not cut if they are many: nobody needs them, and their headers would
/// be work for nothing.
const MIN_SIZE: usize = 32;
const MANY: usize = 64;

/// What is left to do about a packet (`struct virtio_net_hdr`, linux/virtio_net.h). Sizes and places are in bytes; places
/// count from the beginning of the Ethernet header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    pub(super) flags: u8,
    pub(super) kind: u8,
    /// Payload of each segment.
    pub(super) size: u16,
    pub(super) checksum_start: u16,
    pub(super) checksum_offset: u16,
}

/// A packet that cannot be finished: it contradicts itself, or is of a kind that the link is told to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of an overlay network cannot be finished")]
pub struct Unfinishable;

impl Offload {
    /// Length in front of a packet.
    pub const LEN: usize = 10;

    /// Whether the kernel left a packet inside the datagram unfinished: a link encapsulated it, and no program. `before`
    /// bytes were in front of the datagram.
    pub fn is_encapsulated(self, before: usize) -> bool {
        self.flags & NEEDS_CSUM != 0 && usize::from(self.checksum_start) >= before
    }

    /// Reads it.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            kind: bytes[1],
            size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }
}

/// Appends what a network card would make of an overlay datagram to `out`: the datagram with its checksum, or several. If
/// there are several, the size of each but the last, which may be shorter. `before` bytes were in front of the datagram,
/// from the Ethernet header on.
///
/// # Errors
/// See [`Unfinishable`]; nothing is appended then.
pub fn finish(
    offload: Offload,
    before: usize,
    datagram: &[u8],
    out: &mut Vec<u8>,
) -> Result<Option<usize>, Unfinishable> {
    match offload.kind & !GSO_ECN {
        GSO_NONE => {
            let at = out.len();
            out.extend_from_slice(datagram);
            if offload.flags & NEEDS_CSUM != 0 && complete(offload, before, &mut out[at..]).is_err()
            {
                out.truncate(at);
                return Err(Unfinishable);
            }
            Ok(None)
        }
        GSO_TCPV4 | GSO_TCPV6 => cut(usize::from(offload.size), datagram, out).map(Some),
        _ => Err(Unfinishable),
    }
}

/// Completes the checksum that the kernel has begun. One of the outer headers, which are not in the datagram, is the
/// business of whoever sends it on.
fn complete(offload: Offload, before: usize, datagram: &mut [u8]) -> Result<(), Unfinishable> {
    let Some(start) = usize::from(offload.checksum_start).checked_sub(before) else {
        return Ok(());
    };
    let field = start + usize::from(offload.checksum_offset);
    if field + 2 > datagram.len() {
        return Err(Unfinishable);
    }
    // The field holds the sum of the pseudo header. A sum of zero is sent as ones in UDP, where zero is no checksum; to
    // TCP they are the same.
    let sum = Sum16BitWords::new().add_slice(&datagram[start..]);
    put(datagram, field, sum.to_ones_complement_with_no_zero().to_ne_bytes());
    Ok(())
}

/// Cuts a TCP segment into ones with `size` bytes of payload.
fn cut(size: usize, datagram: &[u8], out: &mut Vec<u8>) -> Result<usize, Unfinishable> {
    let segment = Segment::locate(datagram).ok_or(Unfinishable)?;
    let (headers, payload) = datagram.split_at(segment.payload);
    let count = if size == 0 { 0 } else { payload.len().div_ceil(size) };
    if count == 0
        || (size < MIN_SIZE && count > MANY)
        || count * headers.len() + payload.len() > MAX_FINISHED
    {
        return Err(Unfinishable);
    }
    for (index, piece) in payload.chunks(size).enumerate() {
        let at = out.len();
        out.extend_from_slice(headers);
        out.extend_from_slice(piece);
        let one = &mut out[at..];
        segment.write_ip(one, one.len(), narrow(index));
        let sequence = segment.sequence(one).wrapping_add(narrow(index * size).into());
        put(one, segment.tcp + SEQUENCE, sequence.to_be_bytes());
        let (first, last) = (index == 0, index + 1 == count);
        let not_here = if last { 0 } else { FIN | PSH } | if first { 0 } else { CWR };
        one[segment.tcp + FLAGS] &= !not_here;
        put16(one, segment.tcp + CHECKSUM, 0);
        let sum = segment.pseudo_header(one, one.len()).add_slice(&one[segment.tcp..]);
        put(one, segment.tcp + CHECKSUM, sum.ones_complement().to_ne_bytes());
    }
    Ok(headers.len() + size)
}
