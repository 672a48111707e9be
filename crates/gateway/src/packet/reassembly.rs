//! Fragments become datagrams again.
//!
//! Bounded in datagrams, bytes, gaps and time, so that whoever sends fragments without end only pushes out their own
//! and their neighbours' oldest. Fragments that overlap lose their datagram (RFC 5722 for IPv6; the same for IPv4,
//! since which of two overlapping bytes counts is what evasion of filters is made of); one that was only sent twice
//! does not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use etherparse::{IpNumber, Ipv6Header};

use super::Bad;
use super::build::Ends;

const MAX_DATAGRAMS: usize = 64;
const MAX_BYTES: usize = 1024 * 1024;
/// Separate stretches of one datagram; fragments in any ordinary order need two or three.
const MAX_STRETCHES: usize = 64;
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

/// What all fragments of a datagram have in common: source, destination, identification, protocol.
type Id = (IpAddr, IpAddr, u32, u8);

impl Fragment<'_> {
    fn datagram(&self) -> Id {
        (self.src, self.dst, self.id, self.protocol)
    }

    /// Refuses what cannot be a part of any packet.
    pub(super) fn check(self) -> Result<Self, Bad> {
        let room = Ends::new(self.src, self.dst).map_err(|_| Bad::Fragment)?.room();
        let aligned =
            self.offset.is_multiple_of(8) && (!self.more || self.data.len().is_multiple_of(8));
        let fits = self.offset.checked_add(self.data.len()).is_some_and(|end| end <= room);
        if aligned && fits && !self.data.is_empty() { Ok(self) } else { Err(Bad::Fragment) }
    }
}

/// Datagrams of which some fragments have come.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// The oldest first.
    incomplete: Vec<Datagram>,
    /// Sum of what `incomplete` keeps.
    bytes: usize,
    whole: Vec<u8>,
    given_up: u64,
}

#[derive(Debug)]
struct Datagram {
    id: Id,
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
    pub fn new() -> Self {
        Self::default()
    }

    /// Datagrams that were never completed: too late, overlapping, or pushed out by newer ones.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Takes in a fragment; if its datagram is complete with it, gives the whole packet for [`super::parse`].
    ///
    /// The packet has a plain header: IPv4 options and IPv6 extension headers are gone.
    pub fn add(&mut self, now: Instant, fragment: &Fragment<'_>) -> Option<&[u8]> {
        self.expire(now);
        let fragment = fragment.check().ok()?;
        let index =
            match self.incomplete.iter().position(|datagram| datagram.id == fragment.datagram()) {
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
        self.make_room(MAX_DATAGRAMS);
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
        self.make_room(MAX_DATAGRAMS - 1);
        self.bytes += HEADROOM;
        self.incomplete.push(Datagram {
            id: fragment.datagram(),
            ttl: fragment.ttl,
            since: now,
            spoilt: false,
            length: None,
            stretches: Vec::new(),
            bytes: vec![0; HEADROOM],
        });
        self.incomplete.len() - 1
    }

    fn make_room(&mut self, datagrams: usize) {
        while self.bytes > MAX_BYTES || self.incomplete.len() > datagrams {
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
    fn is_complete(&self) -> bool {
        self.length.is_some_and(|length| self.stretches == [(0, length)])
    }

    /// Takes in a fragment; false if that has spoilt the datagram.
    fn put(&mut self, fragment: &Fragment<'_>) -> bool {
        if self.spoilt || self.repeats(fragment) {
            return true;
        }
        let end = fragment.offset + fragment.data.len();
        if self.fits(fragment) && self.insert(fragment.offset, end) {
            if self.bytes.len() < HEADROOM + end {
                self.bytes.resize(HEADROOM + end, 0);
            }
            self.bytes[HEADROOM + fragment.offset..HEADROOM + end].copy_from_slice(fragment.data);
            if !fragment.more {
                self.length = Some(end);
            }
            if fragment.offset == 0 {
                self.ttl = fragment.ttl;
            }
            return true;
        }
        self.spoilt = true;
        (self.length, self.stretches, self.bytes) = (None, Vec::new(), Vec::new());
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
        self.stretches.len() <= MAX_STRETCHES
    }
}

fn finish<'a>(whole: &'a mut [u8], fragment: &Fragment<'_>, ttl: u8) -> Option<&'a [u8]> {
    let ends = Ends::new(fragment.src, fragment.dst).ok()?;
    let length = whole.len().checked_sub(HEADROOM)?;
    let start = HEADROOM - ends.header_len();
    let protocol = IpNumber(fragment.protocol);
    ends.write_header(&mut whole[start..HEADROOM], protocol, ttl, fragment.id, length);
    whole.get(start..)
}
