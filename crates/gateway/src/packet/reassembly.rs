//! Fragments become datagrams again.
//!
//! Bounded in datagrams, bytes, gaps and time, so that whoever sends fragments without end only pushes out their own
//! and their neighbours' oldest. Fragments that overlap lose their datagram (RFC 5722 for IPv6; the same for IPv4,
//! since which of two overlapping bytes counts is what evasion of filters is made of); one that was only sent twice
//! does not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6Header};

use super::Bad;

/// Datagrams that are incomplete at one time.
const DATAGRAMS: usize = 64;
/// Bytes kept for all of them.
const BYTES: usize = 1024 * 1024;
/// Separate stretches of one datagram; fragments in any ordinary order need two or three.
const STRETCHES: usize = 64;
/// How long a datagram may take, from its first fragment on (Linux: `ipfrag_time`, 30 s).
const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for the header of IPv6, or of IPv4 in its second half.
const HEADROOM: usize = Ipv6Header::LEN;

/// A part of a UDP datagram or an echo message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Sender of the datagram.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Identification: the same in all fragments of a datagram.
    pub id: u32,
    /// Number of the protocol that the datagram carries.
    pub protocol: u8,
    /// Time to live or hop limit that is left.
    pub ttl: u8,
    /// Where `data` belongs, in bytes behind the IP headers.
    pub offset: usize,
    /// Whether this is not the last one.
    pub more: bool,
    /// The part itself.
    pub data: &'a [u8],
}

impl Fragment<'_> {
    /// Refuses what cannot be a part of any packet.
    pub(super) fn check(self) -> Result<Self, Bad> {
        let largest = match self.src {
            IpAddr::V4(_) => usize::from(u16::MAX) - Ipv4Header::MIN_LEN,
            IpAddr::V6(_) => usize::from(u16::MAX),
        };
        let aligned =
            self.offset.is_multiple_of(8) && (!self.more || self.data.len().is_multiple_of(8));
        let fits = self.offset.checked_add(self.data.len()).is_some_and(|end| end <= largest);
        if aligned && fits && !self.data.is_empty() && self.src.is_ipv4() == self.dst.is_ipv4() {
            Ok(self)
        } else {
            Err(Bad::Fragment)
        }
    }
}

/// Datagrams of which some fragments have come.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// The oldest first.
    incomplete: Vec<Datagram>,
    /// Sum of what `incomplete` keeps.
    bytes: usize,
    /// The datagram that was completed last.
    whole: Vec<u8>,
    given_up: u64,
}

#[derive(Debug)]
struct Datagram {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    protocol: u8,
    ttl: u8,
    since: Instant,
    /// Overlapped; what else comes of it is swallowed.
    spoilt: bool,
    /// Bytes behind the IP headers, once the last fragment has come.
    length: Option<usize>,
    /// What has come: start and end in bytes, in order, never touching each other.
    stretches: Vec<(usize, usize)>,
    /// [`HEADROOM`], then the data as far as it is known.
    bytes: Vec<u8>,
}

impl Reassembly {
    /// Nothing is there yet, and no memory either.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Datagrams that were never completed: too late, overlapping, or pushed out by newer ones.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Takes in a fragment; if its datagram is complete with it, gives the whole packet for [`super::parse`].
    ///
    /// The packet has a plain header: IPv4 options and IPv6 extension headers are gone.
    pub fn add(&mut self, now: Instant, fragment: &Fragment<'_>) -> Option<&[u8]> {
        self.expire(now);
        let fragment = fragment.check().ok()?;
        let index = match self.incomplete.iter().position(|datagram| datagram.owns(&fragment)) {
            Some(index) => index,
            None => self.start(now, &fragment),
        };
        let datagram = self.incomplete.get_mut(index)?;
        let before = datagram.bytes.len();
        if !datagram.put(&fragment) {
            self.given_up += 1;
        }
        self.bytes = self.bytes + datagram.bytes.len() - before;
        if datagram.is_complete() {
            let complete = self.incomplete.remove(index);
            self.bytes -= complete.bytes.len();
            self.whole = complete.bytes;
            return finish(&mut self.whole, &fragment, complete.ttl);
        }
        self.make_room(BYTES, DATAGRAMS);
        None
    }

    /// Forgets what has waited for 30 s. [`Self::add`] does this as well; call it now and then to free memory.
    pub fn expire(&mut self, now: Instant) {
        while self
            .incomplete
            .first()
            .is_some_and(|first| now.saturating_duration_since(first.since) >= REASSEMBLY_TIMEOUT)
        {
            self.drop_oldest();
        }
    }

    fn start(&mut self, now: Instant, fragment: &Fragment<'_>) -> usize {
        self.make_room(BYTES, DATAGRAMS - 1);
        self.bytes += HEADROOM;
        self.incomplete.push(Datagram {
            src: fragment.src,
            dst: fragment.dst,
            id: fragment.id,
            protocol: fragment.protocol,
            ttl: fragment.ttl,
            since: now,
            spoilt: false,
            length: None,
            stretches: Vec::new(),
            bytes: vec![0; HEADROOM],
        });
        self.incomplete.len() - 1
    }

    fn make_room(&mut self, bytes: usize, datagrams: usize) {
        while self.bytes > bytes || self.incomplete.len() > datagrams {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let dropped = self.incomplete.remove(0);
        self.bytes -= dropped.bytes.len();
        // A spoilt one was counted when it was spoilt.
        self.given_up += u64::from(!dropped.spoilt);
    }
}

impl Datagram {
    fn owns(&self, fragment: &Fragment<'_>) -> bool {
        self.id == fragment.id
            && self.protocol == fragment.protocol
            && self.src == fragment.src
            && self.dst == fragment.dst
    }

    fn is_complete(&self) -> bool {
        self.length.is_some_and(|length| self.stretches == [(0, length)])
    }

    /// Takes in a fragment; false if that has spoilt the datagram.
    fn put(&mut self, fragment: &Fragment<'_>) -> bool {
        if self.spoilt || self.repeats(fragment) {
            return true;
        }
        if self.fits(fragment)
            && self.insert(fragment.offset, fragment.offset + fragment.data.len())
        {
            let (start, end) =
                (HEADROOM + fragment.offset, HEADROOM + fragment.offset + fragment.data.len());
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            self.bytes[start..end].copy_from_slice(fragment.data);
            if !fragment.more {
                self.length = Some(end - HEADROOM);
            }
            if fragment.offset == 0 {
                self.ttl = fragment.ttl;
            }
            return true;
        }
        self.spoilt = true;
        self.stretches = Vec::new();
        self.length = None;
        self.bytes = Vec::new();
        false
    }

    /// Whether all of the fragment is there already, byte for byte: it was only sent twice.
    fn repeats(&self, fragment: &Fragment<'_>) -> bool {
        let end = fragment.offset + fragment.data.len();
        let inside = self.stretches.iter().any(|(from, to)| *from <= fragment.offset && end <= *to);
        let ends_alike = fragment.more || self.length == Some(end);
        inside
            && ends_alike
            && self.bytes[HEADROOM + fragment.offset..HEADROOM + end] == *fragment.data
    }

    /// Whether the datagram's end, known from this fragment or an earlier one, lies behind everything.
    fn fits(&self, fragment: &Fragment<'_>) -> bool {
        let end = fragment.offset + fragment.data.len();
        let so_far = self.stretches.last().map_or(0, |(_, to)| *to);
        match (self.length, fragment.more) {
            (Some(length), true) => end <= length,
            (Some(_), false) => false,
            (None, true) => true,
            (None, false) => so_far <= end,
        }
    }

    /// Adds a stretch; false if it overlaps another or there are too many.
    fn insert(&mut self, start: usize, end: usize) -> bool {
        let at = self.stretches.partition_point(|(from, _)| *from < start);
        let before = at.checked_sub(1).and_then(|before| self.stretches.get(before)).copied();
        let after = self.stretches.get(at).copied();
        if before.is_some_and(|(_, to)| to > start) || after.is_some_and(|(from, _)| from < end) {
            return false;
        }
        let joins_before = before.is_some_and(|(_, to)| to == start);
        let joins_after = after.is_some_and(|(from, _)| from == end);
        match (joins_before, joins_after) {
            (true, true) => {
                self.stretches[at - 1].1 = self.stretches[at].1;
                self.stretches.remove(at);
            }
            (true, false) => self.stretches[at - 1].1 = end,
            (false, true) => self.stretches[at].0 = start,
            (false, false) => self.stretches.insert(at, (start, end)),
        }
        self.stretches.len() <= STRETCHES
    }
}

/// Writes the header in front of a complete datagram.
fn finish<'a>(whole: &'a mut [u8], fragment: &Fragment<'_>, ttl: u8) -> Option<&'a [u8]> {
    let length = whole.len().checked_sub(HEADROOM)?;
    match (fragment.src, fragment.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = Ipv4Header {
                total_len: u16::try_from(Ipv4Header::MIN_LEN + length).ok()?,
                identification: u16::try_from(fragment.id).ok()?,
                dont_fragment: false,
                more_fragments: false,
                fragment_offset: IpFragOffset::ZERO,
                time_to_live: ttl,
                protocol: IpNumber(fragment.protocol),
                source: src.octets(),
                destination: dst.octets(),
                ..Default::default()
            };
            header.header_checksum = header.calc_header_checksum();
            let start = HEADROOM - Ipv4Header::MIN_LEN;
            whole[start..HEADROOM].copy_from_slice(&header.to_bytes());
            whole.get(start..)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = Ipv6Header {
                payload_length: u16::try_from(length).ok()?,
                next_header: IpNumber(fragment.protocol),
                hop_limit: ttl,
                source: src.octets(),
                destination: dst.octets(),
                ..Default::default()
            };
            whole[..HEADROOM].copy_from_slice(&header.to_bytes());
            Some(whole)
        }
        _ => None,
    }
}
