//! Look-ups in the kernel's connection tracking (nf_conntrack): which end of a translated connection is inside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::NLM_F_REQUEST;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::libc;

use crate::attribute::{Attributes, find};
use crate::connection::{Connection, Message, message, split};

/// Look-ups in one message to the kernel. It queues all answers before it returns from sendmsg(2), each of which takes a
/// page and a half of the socket's buffer (`net.core.rmem_default`, 212,992 bytes); what does not fit is lost.
const BATCH: usize = 16;

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`, linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const GET: u16 = (1 << 8) | 1;

// linux/netfilter/nfnetlink_conntrack.h.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const PROTO_ICMP_ID: u16 = 4;
const PROTO_ICMP_TYPE: u16 = 5;
const PROTO_ICMP_CODE: u16 = 6;
/// The three of ICMPv6 follow those of ICMP in the same order.
const TO_ICMPV6: u16 = 3;

/// What is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
    /// Echo requests (ping) of IPv4 or IPv6. Both ports are their identifier.
    Echo,
}

/// The two ends of a connection, a flow, or a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The sender.
    pub src: SocketAddr,
    /// The receiver.
    pub dst: SocketAddr,
}

impl Tuple {
    /// As the answer has it.
    fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }
}

/// In which direction a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out of the namespace: the source is translated.
    Outbound,
    /// Into the namespace: the destination is translated.
    Inbound,
}

/// A connection, flow, or ping to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// What it is.
    pub protocol: Protocol,
    /// Where it goes.
    pub direction: Direction,
    /// Its ends outside of the namespace: after the translation if it is outbound, before that if it is inbound.
    pub outside: Tuple,
}

impl Query {
    /// The kind of the tuple that has the ends outside, that tuple, and the kind of the one that has the end inside as
    /// its source.
    fn tuples(&self) -> (u16, Tuple, u16) {
        match self.direction {
            Direction::Outbound => (TUPLE_REPLY, self.outside.reversed(), TUPLE_ORIG),
            Direction::Inbound => (TUPLE_ORIG, self.outside, TUPLE_REPLY),
        }
    }

    /// The end inside, from the attributes of an entry. The kernel finds an entry by either of its tuples; one that was
    /// opened in the other direction is not meant.
    fn inside(&self, attributes: &[u8]) -> Option<SocketAddr> {
        let (kind, tuple, inside) = self.tuples();
        let same = decode(attributes, kind, self.protocol)? == tuple;
        same.then(|| decode(attributes, inside, self.protocol))?.map(|tuple| tuple.src)
    }
}

/// A socket for lookups in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Conntrack {
    connection: Connection,
    sequence: u32,
    /// Buffers that are used again.
    requests: Vec<u8>,
    answers: Vec<u8>,
}

impl Conntrack {
    /// Opens it in the network namespace of the calling thread. Looking up takes `CAP_NET_ADMIN` over the user namespace
    /// that this belongs to, of whoever opens the socket and of whoever looks up (`netlink_net_capable()`).
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and connect(2).
    pub fn open() -> io::Result<Self> {
        let connection = Connection::open(NETLINK_NETFILTER)?;
        Ok(Self { connection, sequence: 0, requests: Vec::new(), answers: Vec::new() })
    }

    /// The end inside of each of these, in their order: the source before it was translated of what is outbound, the
    /// destination after it was translated of what is inbound. `None` if the kernel does not track it.
    ///
    /// # Errors
    /// Those of the kernel for each, such as `EPERM`, or `EINVAL` without nf_conntrack_netlink.
    pub fn look_up(&mut self, queries: &[Query]) -> Vec<io::Result<Option<SocketAddr>>> {
        let mut all = Vec::with_capacity(queries.len());
        for batch in queries.chunks(BATCH) {
            let unanswered = || Err(io::Error::other("the kernel gave no answer"));
            let mut ends: Vec<_> = batch.iter().map(|_| unanswered()).collect();
            if let Err(error) = self.look_up_batch(batch, &mut ends)
                && let Some(first) = ends.first_mut()
            {
                *first = Err(error);
            }
            all.append(&mut ends);
        }
        all
    }

    fn look_up_batch(
        &mut self,
        batch: &[Query],
        ends: &mut [io::Result<Option<SocketAddr>>],
    ) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        self.requests.clear();
        for query in batch {
            self.sequence = self.sequence.wrapping_add(1);
            self.requests.extend(request(query, self.sequence));
        }
        self.connection.send(&self.requests)?;
        let mut open = batch.len();
        while open > 0 && self.connection.receive_into(&mut self.answers)? {
            for answer in split(&self.answers)? {
                // Leftovers of lookups that failed carry an older number.
                let place = usize::try_from(answer.sequence.wrapping_sub(first)).ok();
                if let Some((query, end)) =
                    place.and_then(|place| Some((batch.get(place)?, ends.get_mut(place)?)))
                {
                    *end = answer_to(query, &answer);
                    open = open.saturating_sub(1);
                }
            }
        }
        Ok(())
    }
}

fn answer_to(query: &Query, answer: &Message<'_>) -> io::Result<Option<SocketAddr>> {
    match answer.verdict() {
        // Behind `struct nfgenmsg`.
        None => Ok(answer.payload.get(4..).and_then(|attributes| query.inside(attributes))),
        Some(Err(error)) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        Some(verdict) => verdict.map(|()| None),
    }
}

fn request(query: &Query, sequence: u32) -> Vec<u8> {
    let (kind, tuple, _) = query.tuples();
    let family = if tuple.src.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut attributes = Attributes::default();
    attributes.nested(kind, |of| encode(of, query.protocol, tuple, kind == TUPLE_REPLY));
    // `struct nfgenmsg`: family, version, resource.
    let header = [u8::try_from(family).unwrap_or_default(), 0, 0, 0];
    message(GET, NLM_F_REQUEST, sequence, header, &attributes)
}

fn encode(of: &mut Attributes, protocol: Protocol, tuple: Tuple, is_reply: bool) {
    of.nested(TUPLE_IP, |ip| match (tuple.src.ip(), tuple.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ip.raw(IP_V4_SRC, &src.octets());
            ip.raw(IP_V4_DST, &dst.octets());
        }
        (src, dst) => {
            ip.raw(IP_V6_SRC, &v6(src).octets());
            ip.raw(IP_V6_DST, &v6(dst).octets());
        }
    });
    of.nested(TUPLE_PROTO, |proto| {
        let ipv6 = tuple.src.is_ipv6();
        let number = match protocol {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
            Protocol::Echo if ipv6 => libc::IPPROTO_ICMPV6,
            Protocol::Echo => libc::IPPROTO_ICMP,
        };
        proto.raw(PROTO_NUM, &[u8::try_from(number).unwrap_or_default()]);
        let [src, dst] = [tuple.src, tuple.dst].map(|end| end.port().to_be_bytes());
        if protocol == Protocol::Echo {
            // Types of requests and replies, RFC 792 and RFC 4443.
            let (later, request, reply) = if ipv6 { (TO_ICMPV6, 128, 129) } else { (0, 8, 0) };
            let kind = if is_reply { reply } else { request };
            proto.raw(PROTO_ICMP_ID + later, &dst);
            proto.raw(PROTO_ICMP_TYPE + later, &[kind]);
            proto.raw(PROTO_ICMP_CODE + later, &[0]);
        } else {
            proto.raw(PROTO_SRC_PORT, &src);
            proto.raw(PROTO_DST_PORT, &dst);
        }
    });
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn decode(attributes: &[u8], kind: u16, protocol: Protocol) -> Option<Tuple> {
    let tuple = find(attributes, kind)?;
    let (ip, proto) = (find(tuple, TUPLE_IP)?, find(tuple, TUPLE_PROTO)?);
    let address = |v4: u16, v6: u16| {
        let four = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(ip, v4)?).ok()?).into());
        let six = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(find(ip, v6)?).ok()?).into());
        four().or_else(six)
    };
    let (src, dst): (IpAddr, IpAddr) =
        (address(IP_V4_SRC, IP_V6_SRC)?, address(IP_V4_DST, IP_V6_DST)?);
    let port = |kind| Some(u16::from_be_bytes(<[u8; 2]>::try_from(find(proto, kind)?).ok()?));
    let (from, to) = if protocol == Protocol::Echo {
        let id = port(PROTO_ICMP_ID).or_else(|| port(PROTO_ICMP_ID + TO_ICMPV6))?;
        (id, id)
    } else {
        (port(PROTO_SRC_PORT)?, port(PROTO_DST_PORT)?)
    };
    Some(Tuple { src: SocketAddr::new(src, from), dst: SocketAddr::new(dst, to) })
}
