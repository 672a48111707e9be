//! What takes long segments of overlay datagrams into the namespace.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use nix::errno::Errno;
use sys::mmsg::Datagram;
use tracing::debug;

use super::join::Run;
use super::links::Links;
use crate::datagrams::pieces;

/// The address of all ends of the links that overlay datagrams cross (locally administered, IEEE 802). These links do not
/// resolve addresses (ARP is off): a frame carries the sender's own address as its destination.
pub const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// Time to live of what is made here.
const TTL: u8 = 64;
/// The most bytes of a packet that counts its length in 16 bits.
const MAX_PACKET: usize = u16::MAX as usize;

/// A tap device that takes packets with an unfinished packet in them ([`sys::tap::open_offloading`]).
///
/// Only a link of the kernel can take a long packet apart again. A program that reads VXLAN from a socket would get it as
/// one datagram. So segments are joined for a port only once the namespace's kernel has shown that it has a link with that
/// port ([`Writer::learn`]).
#[derive(Debug)]
pub struct Writer {
    tap: OwnedFd,
    /// Of the way into the namespace, in bytes.
    mtu: usize,
    links: Links,
    /// The kernel did not take a packet, and will not take another.
    refused: AtomicBool,
}

impl Writer {
    /// A tap device, and the MTU of the link to the namespace in bytes.
    pub fn new(tap: OwnedFd, mtu: u32) -> Self {
        let mtu = usize::try_from(mtu).unwrap_or(usize::MAX);
        Self { tap, mtu, links: Links::default(), refused: AtomicBool::new(false) }
    }

    /// Remembers that the namespace's kernel has a link that sends to this port, and so receives there: the ends of a link
    /// use the same port.
    pub fn learn(&self, port: u16) {
        self.links.learn(port);
    }

    /// Whether segments for this port may be joined.
    fn joins(&self, port: u16) -> bool {
        self.links.knows(port) && !self.refused.load(Ordering::Relaxed)
    }

    /// Delivers datagrams of an overlay from one address to another in the namespace, in order, and returns the bytes that
    /// went there. Consecutive segments of a connection go as one packet, others by `alone`.
    pub fn deliver<'a>(
        &self,
        ends: (SocketAddr, SocketAddr),
        datagrams: impl Iterator<Item = Datagram<'a>>,
        mut alone: impl FnMut(&[&'a [u8]]) -> u64,
    ) -> u64 {
        let Some(outer) = Outer::new(ends) else { return 0 };
        let joins = self.joins(ends.1.port());
        let mut singles = Vec::new();
        let mut run: Option<Run<'a>> = None;
        let mut bytes = 0;
        let mut end = |run: Run<'a>, singles: &mut Vec<&'a [u8]>| {
            if run.count() == 1 {
                singles.push(run.first());
                return 0;
            }
            let before = if singles.is_empty() { 0 } else { alone(singles) };
            singles.clear();
            before + self.send(&outer, &run)
        };
        for piece in datagrams.flat_map(pieces) {
            if run.as_mut().is_some_and(|run| run.push(piece, outer.room)) {
                continue;
            }
            if let Some(run) = run.take() {
                bytes += end(run, &mut singles);
            }
            // One that does not fit would not be cut on its way, and be lost.
            let fits = joins && piece.len() + outer.headers <= self.mtu;
            run = if fits { Run::begin(piece) } else { None };
            if run.is_none() {
                singles.push(piece);
            }
        }
        if let Some(run) = run {
            bytes += end(run, &mut singles);
        }
        if !singles.is_empty() {
            bytes += alone(&singles);
        }
        bytes
    }

    /// The bytes of a run, if it was sent. What a full queue does not take is lost, as on any network.
    fn send(&self, outer: &Outer, run: &Run<'_>) -> u64 {
        let front = outer.to_bytes(run.len());
        let offload = run.offload(front.len(), outer.ends.0.is_ipv4());
        let headers = run.headers();
        let mut parts = vec![IoSlice::new(&offload), IoSlice::new(&front), IoSlice::new(&headers)];
        parts.extend(run.payloads().map(IoSlice::new));
        match nix::sys::uio::writev(&self.tap, &parts) {
            Ok(_) => run.received() as u64,
            Err(e) => {
                debug!("lost {} datagrams of an overlay network: {}", run.count(), e.desc());
                let full =
                    matches!(e, Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR);
                self.refused.fetch_or(!full, Ordering::Relaxed);
                0
            }
        }
    }
}

/// The headers around a datagram.
#[derive(Debug)]
struct Outer {
    ends: (SocketAddr, SocketAddr),
    /// Bytes of IP and UDP headers.
    headers: usize,
    /// The most bytes of a datagram.
    room: usize,
}

impl Outer {
    fn new(ends: (SocketAddr, SocketAddr)) -> Option<Self> {
        // IPv6 does not count its own header.
        let (ip, counted) = match ends {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => (Ipv4Header::MIN_LEN, Ipv4Header::MIN_LEN),
            (SocketAddr::V6(_), SocketAddr::V6(_)) => (Ipv6Header::LEN, 0),
            _ => return None,
        };
        let room = MAX_PACKET - counted - UdpHeader::LEN;
        Some(Self { ends, headers: ip + UdpHeader::LEN, room })
    }

    /// Ethernet, IP and UDP, in front of a datagram of this many bytes.
    fn to_bytes(&self, length: usize) -> Vec<u8> {
        let (src, dst) = self.ends;
        let length = super::frame::narrow(length + UdpHeader::LEN);
        let mut bytes = Vec::with_capacity(Ethernet2Header::LEN + Ipv6Header::LEN + UdpHeader::LEN);
        let mut ethernet = |ether_type| {
            let header = Ethernet2Header { source: MAC, destination: MAC, ether_type };
            bytes.extend(header.to_bytes());
        };
        match (src, dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
                ethernet(EtherType::IPV4);
                let mut header = Ipv4Header {
                    total_len: length.saturating_add(Ipv4Header::MIN_LEN_U16),
                    dont_fragment: false,
                    time_to_live: TTL,
                    protocol: IpNumber::UDP,
                    source: src.ip().octets(),
                    destination: dst.ip().octets(),
                    ..Default::default()
                };
                header.header_checksum = header.calc_header_checksum();
                bytes.extend(header.to_bytes());
            }
            (SocketAddr::V6(src), SocketAddr::V6(dst)) => {
                ethernet(EtherType::IPV6);
                let header = Ipv6Header {
                    payload_length: length,
                    next_header: IpNumber::UDP,
                    hop_limit: TTL,
                    source: src.ip().octets(),
                    destination: dst.ip().octets(),
                    ..Default::default()
                };
                bytes.extend(header.to_bytes());
            }
            _ => {}
        }
        // No checksum: the inner one says all, and it is what the kernel is told to calculate if it has to. IPv6 wants one
        // that is not zero (RFC 8200, section 8.1); nobody looks at it while the inner one is unfinished.
        let checksum = if src.is_ipv4() { 0 } else { u16::MAX };
        let (source_port, destination_port) = (src.port(), dst.port());
        bytes.extend(UdpHeader { source_port, destination_port, length, checksum }.to_bytes());
        bytes
    }
}
