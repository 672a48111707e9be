//! DHCP messages (RFC 2131, section 2; options: RFC 2132). Only what a client of one address needs.
//!
//! Why the format is read here and not by a library: the format is a fixed header and a list, and the libraries cost more than they
//! save. dhcproto 0.15 adds 46 crates to the build, among them tables of Unicode for the names of hickory-proto. mozim 0.3
//! adds 59, with an async runtime interface and a netlink stack of its own. smoltcp 0.14 adds 7, but does not read
//! options in the fields for file and server name (RFC 2131, section 4.1), nor the reason of a refusal, and its client
//! would have to see every packet of the interface for as long as the lease lasts.

use std::net::Ipv4Addr;

/// Behind the fixed header, in front of the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes in front of the cookie.
const HEADER: usize = 236;
/// What BOOTP relays expect at least, in bytes (RFC 1542, section 2.1).
const SHORTEST: usize = 300;

/// `op` of the header.
const TO_SERVER: u8 = 1;
const TO_CLIENT: u8 = 2;
/// `htype` and `hlen` of Ethernet.
const ETHERNET: [u8; 2] = [1, 6];
/// In the fixed header.
const YIADDR: usize = 16;
const CHADDR: usize = 28;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const MESSAGE: u8 = 56;
    pub(super) const RENEW: u8 = 58;
    pub(super) const REBIND: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const END: u8 = 255;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Is there a server?
    Discover,
    /// `address`, which `server` has offered, please.
    Request { address: Ipv4Addr, server: Ipv4Addr },
    /// More time for this address, which is in use.
    Extend { address: Ipv4Addr },
}

/// What all messages of a conversation have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Talk {
    pub(super) mac: [u8; 6],
    pub(super) xid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Offer,
    Ack,
    Nak,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) address: Ipv4Addr,
    pub(super) server: Option<Ipv4Addr>,
    /// Bits of the network part.
    pub(super) prefix: Option<u8>,
    pub(super) router: Option<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    /// Times in seconds.
    pub(super) lease: Option<u32>,
    pub(super) renew: Option<u32>,
    pub(super) rebind: Option<u32>,
    pub(super) message: Option<String>,
}

/// The message for a server; `seconds` since the client began.
pub(super) fn encode(talk: Talk, ask: Ask, seconds: u16) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out[0] = TO_SERVER;
    out[1..3].copy_from_slice(&ETHERNET);
    out[4..8].copy_from_slice(&talk.xid.to_be_bytes());
    out[8..10].copy_from_slice(&seconds.to_be_bytes());
    out[CHADDR..CHADDR + 6].copy_from_slice(&talk.mac);
    out.extend(COOKIE);
    let kind = if ask == Ask::Discover { 1 } else { 3 };
    out.extend([option::KIND, 1, kind]);
    out.extend([option::CLIENT, 7, ETHERNET[0]]);
    out.extend(talk.mac);
    match ask {
        Ask::Discover => {}
        Ask::Request { address, server } => {
            put(&mut out, option::REQUESTED, address);
            put(&mut out, option::SERVER, server);
        }
        Ask::Extend { address } => out[12..16].copy_from_slice(&address.octets()),
    }
    let wanted =
        [option::MASK, option::ROUTER, option::DNS, option::LEASE, option::RENEW, option::REBIND];
    out.extend([option::WANTED, u8::try_from(wanted.len()).unwrap_or_default()]);
    out.extend(wanted);
    out.push(option::END);
    out.resize(out.len().max(SHORTEST), option::PAD);
    out
}

fn put(out: &mut Vec<u8>, number: u8, address: Ipv4Addr) {
    out.extend([number, 4]);
    out.extend(address.octets());
}

/// Reads a server's answer; `None` for what is malformed or meant for somebody else.
pub(super) fn decode(talk: Talk, bytes: &[u8]) -> Option<Reply> {
    let head = bytes.get(..HEADER)?;
    let ours = head[0] == TO_CLIENT
        && head[1..3] == ETHERNET
        && head[4..8] == talk.xid.to_be_bytes()
        && head[CHADDR..CHADDR + 6] == talk.mac;
    let options = bytes.get(HEADER..)?.strip_prefix(&COOKIE)?;
    if !ours {
        return None;
    }
    let mut found = Found::default();
    found.read(options);
    // Long lists go on in fields of the header that are otherwise of no use here (RFC 2131, section 4.1).
    if found.overload & 1 != 0 {
        found.read(&head[FILE]);
    }
    if found.overload & 2 != 0 {
        found.read(&head[SNAME]);
    }
    Some(Reply {
        kind: found.kind?,
        address: first_address(&head[YIADDR..YIADDR + 4])?,
        server: found.server,
        prefix: found.prefix,
        router: found.router,
        dns: found.dns,
        lease: found.lease,
        renew: found.renew,
        rebind: found.rebind,
        message: found.message,
    })
}

#[derive(Default)]
struct Found {
    kind: Option<Kind>,
    server: Option<Ipv4Addr>,
    prefix: Option<u8>,
    router: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    lease: Option<u32>,
    renew: Option<u32>,
    rebind: Option<u32>,
    message: Option<String>,
    overload: u8,
}

impl Found {
    /// Reads a list of options, up to its end or the first that is cut off.
    fn read(&mut self, mut list: &[u8]) {
        while let Some((&number, rest)) = list.split_first() {
            if number == option::END {
                return;
            }
            if number == option::PAD {
                list = rest;
                continue;
            }
            let Some((&length, rest)) = rest.split_first() else { return };
            let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else { return };
            self.take(number, value);
            list = rest;
        }
    }

    /// Takes one option; a value of the wrong length is no value.
    fn take(&mut self, number: u8, value: &[u8]) {
        match number {
            option::KIND => {
                self.kind = match value {
                    [2] => Some(Kind::Offer),
                    [5] => Some(Kind::Ack),
                    [6] => Some(Kind::Nak),
                    _ => None,
                }
            }
            option::OVERLOAD => self.overload = value.first().copied().unwrap_or_default(),
            option::SERVER => self.server = first_address(value),
            option::MASK => self.prefix = first_address(value).and_then(prefix),
            option::ROUTER => self.router = first_address(value).filter(usable),
            option::DNS => {
                let addresses = value.chunks_exact(4).filter_map(first_address);
                self.dns = addresses.filter(usable).collect();
            }
            option::LEASE => self.lease = number_of(value),
            option::RENEW => self.renew = number_of(value),
            option::REBIND => self.rebind = number_of(value),
            option::MESSAGE => {
                // It ends in a terminal or a journal: nothing in it may be taken for a command.
                let text = String::from_utf8_lossy(value);
                self.message = Some(text.chars().filter(|c| !c.is_control()).collect());
            }
            _ => {}
        }
    }
}

fn first_address(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn number_of(value: &[u8]) -> Option<u32> {
    value.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Whether a packet can be sent to the address.
pub(super) fn usable(address: &Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    (1..=223).contains(&first) && !address.is_loopback()
}

/// The length of a mask's prefix, if that is what the mask is.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let length = u8::try_from(bits.leading_ones()).ok()?;
    (length > 0 && bits.leading_ones() == bits.count_ones()).then_some(length)
}

#[cfg(test)]
pub(super) mod tests;
