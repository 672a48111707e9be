//! The parts of a rule, each compiled to the expressions of the nftables virtual machine.
//!
//! A match loads a value into register 1, may mask it there, and compares it; a set loads a constant into register 1 and
//! stores it. Packet and connection marks and numbers of links are numbers of the host, so they are in native byte order,
//! other than the attributes; fields of packets are in network byte order.
//!
//! The file is long because each kind of statement stands beside its encoding.

use std::fmt;
use std::net::IpAddr;

use super::constants::*;
use crate::Family;
use crate::attribute::Attributes;

/// How a loaded value is compared (`enum nft_cmp_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Comparison {
    Equal = 0,
    Unequal = 1,
}

/// Where the offset of a field counts from (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Base {
    /// The IP header.
    Network = 1,
    /// The header behind it and its extensions.
    Transport = 2,
}

/// An address in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Of the sender.
    Source,
    /// Of the receiver.
    Destination,
    /// Of the receiver of the packet that an ICMP error is about.
    Quoted,
}

impl Address {
    fn place(self, family: Family) -> (Base, u32) {
        match (self, family) {
            (Self::Source, Family::V4) => (Base::Network, 12),
            (Self::Destination, Family::V4) => (Base::Network, 16),
            (Self::Source, Family::V6) => (Base::Network, 8),
            (Self::Destination, Family::V6) => (Base::Network, 24),
            // Behind the eight bytes of the ICMP header.
            (Self::Quoted, Family::V4) => (Base::Transport, 24),
            (Self::Quoted, Family::V6) => (Base::Transport, 32),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Source => "saddr",
            Self::Destination => "daddr",
            Self::Quoted => "quoted daddr",
        }
    }
}

/// One part of a rule; displays in the syntax of nft(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Go on if the packet arrived by the link of this index.
    MatchInput(u32),
    /// Go on if the packet leaves by the link of this index.
    MatchOutput(u32),
    /// Go on if this is the transport protocol (`IPPROTO_*`), also behind IPv6 extension headers.
    MatchL4Proto(u8),
    /// Go on if the packet has this mark.
    MatchMark(u32),
    /// Go on if the connection has this mark.
    MatchCtMark(u32),
    /// Go on if the packet is of the family of this address and is sent to it.
    MatchDestination(IpAddr),
    /// Go on if the packet is of the family of this address and is not sent into the network of this many bits.
    MatchDestinationNotIn(IpAddr, u8),
    /// Go on if the packet is sent to this port; to be had after a match of TCP or UDP.
    MatchDestinationPort(u16),
    /// Go on if the first eight bytes of the datagram have these values in the bits of the mask; to be had after a match
    /// of UDP.
    MatchDatagram {
        /// The bits looked at.
        mask: [u8; 8],
        /// Their values.
        value: [u8; 8],
    },
    /// Go on if this is a packet of IPv4 that must not be cut ("don't fragment").
    MatchDontFragment,
    /// Go on if, of the flags of the mask, exactly these are set; to be had after a match of TCP.
    MatchTcpFlags {
        /// The flags looked at (RFC 9293: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32).
        mask: u8,
        /// Those that are set.
        set: u8,
    },
    /// Go on if this is an ICMP message of the family and has this type.
    MatchIcmpType(Family, u8),
    /// Go on if the packet is of the family of this address and the address in it is in the network of this many bits.
    MatchIn(Address, IpAddr, u8),
    /// Replace the first bits of an address, as many as this, by those of another; checksums follow. To be had after a
    /// match of the family, and for [`Address::Quoted`] of the ICMP message. Nothing remembers it: answers need a rule of
    /// their own.
    Move(Address, IpAddr, u8),
    /// Go on if the ICMP message has this code; to be had after a match of the type.
    MatchIcmpCode(u8),
    /// Mark the packet.
    SetMark(u32),
    /// Mark the connection.
    SetCtMark(u32),
    /// Give the packet to the socket connected to its addresses, or else to the socket that listens on this port of an
    /// own address; without either, do not go on. Sockets count that have `IP_TRANSPARENT` set (ip(7)). The packet has
    /// still to be routed to the namespace itself. For TCP and UDP, in hook prerouting (Linux ≥ 4.19).
    Tproxy(u16),
    /// Let the packet pass; later rules of the chain are not asked.
    Accept,
    /// Forget the packet.
    Drop,
}

impl Statement {
    /// Appends the expressions to the list of a rule.
    pub(super) fn encode(self, list: &mut Attributes) {
        use Comparison::{Equal, Unequal};
        match self {
            Self::MatchInput(index) => meta(list, META_INPUT, &index.to_ne_bytes()),
            Self::MatchOutput(index) => meta(list, META_OUTPUT, &index.to_ne_bytes()),
            Self::MatchL4Proto(protocol) => meta(list, META_L4PROTO, &[protocol]),
            Self::MatchMark(mark) => meta(list, META_MARK, &mark.to_ne_bytes()),
            Self::MatchCtMark(mark) => {
                load(list, "ct", CT_MARK);
                compare(list, Equal, &mark.to_ne_bytes());
            }
            Self::MatchDestination(address) => {
                within(list, Address::Destination, address, full_prefix(address), Equal);
            }
            Self::MatchDestinationNotIn(network, prefix) => {
                within(list, Address::Destination, network, prefix, Unequal);
            }
            Self::MatchIn(field, network, prefix) => within(list, field, network, prefix, Equal),
            Self::Move(field, network, prefix) => move_to(list, field, network, prefix),
            Self::MatchDestinationPort(port) => {
                field(list, Base::Transport, DESTINATION_PORT_OFFSET, 2);
                compare(list, Equal, &port.to_be_bytes());
            }
            Self::MatchDatagram { mask: bits, value } => {
                field(list, Base::Transport, UDP_HEADER_LENGTH, 8);
                mask(list, &bits);
                compare(list, Equal, &value);
            }
            Self::MatchDontFragment => {
                meta(list, META_NFPROTO, &[NFPROTO_IPV4]);
                field(list, Base::Network, IPV4_FRAGMENT_OFFSET, 2);
                mask(list, &IPV4_DONT_FRAGMENT.to_be_bytes());
                compare(list, Unequal, &[0; 2]);
            }
            Self::MatchTcpFlags { mask: bits, set } => {
                field(list, Base::Transport, TCP_FLAGS_OFFSET, 1);
                mask(list, &[bits]);
                compare(list, Equal, &[set]);
            }
            Self::MatchIcmpType(family, kind) => {
                let protocol = if family == Family::V4 { ICMP } else { ICMPV6 };
                meta(list, META_L4PROTO, &[protocol]);
                field(list, Base::Transport, ICMP_TYPE_OFFSET, 1);
                compare(list, Equal, &[kind]);
            }
            Self::MatchIcmpCode(code) => {
                field(list, Base::Transport, ICMP_CODE_OFFSET, 1);
                compare(list, Equal, &[code]);
            }
            Self::SetMark(mark) => {
                constant(list, &mark.to_ne_bytes());
                store(list, "meta", META_MARK, NFTA_META_SREG);
            }
            Self::SetCtMark(mark) => {
                constant(list, &mark.to_ne_bytes());
                store(list, "ct", CT_MARK, NFTA_CT_SREG);
            }
            Self::Tproxy(port) => {
                constant(list, &port.to_be_bytes());
                expression(list, "tproxy", |data| {
                    data.number(NFTA_TPROXY_FAMILY, NFPROTO_UNSPEC);
                    data.number(NFTA_TPROXY_REG_PORT, REGISTER_1);
                });
            }
            Self::Accept => verdict(list, ACCEPT),
            Self::Drop => verdict(list, DROP),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchInput(index) => write!(f, "iif {index}"),
            Self::MatchOutput(index) => write!(f, "oif {index}"),
            Self::MatchL4Proto(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::MatchMark(mark) => write!(f, "meta mark {mark:#x}"),
            Self::MatchCtMark(mark) => write!(f, "ct mark {mark:#x}"),
            Self::MatchDestination(address) => write!(f, "{} daddr {address}", ip(*address)),
            Self::MatchDestinationNotIn(network, prefix) => {
                write!(f, "{} daddr != {network}/{prefix}", ip(*network))
            }
            Self::MatchIn(field, network, prefix) => {
                write!(f, "{} {} {network}/{prefix}", ip(*network), field.name())
            }
            Self::Move(field, network, prefix) => {
                write!(f, "{} {} set prefix {network}/{prefix}", ip(*network), field.name())
            }
            Self::MatchDestinationPort(port) => write!(f, "th dport {port}"),
            Self::MatchDatagram { mask, value } => {
                let bit = 8 * UDP_HEADER_LENGTH;
                let (mask, value) = (u64::from_be_bytes(*mask), u64::from_be_bytes(*value));
                write!(f, "@th,{bit},64 & {mask:#x} == {value:#x}")
            }
            Self::MatchDontFragment => write!(f, "ip frag-off & {IPV4_DONT_FRAGMENT} != 0"),
            Self::MatchTcpFlags { mask, set } => write!(f, "tcp flags & {mask:#x} == {set:#x}"),
            Self::MatchIcmpType(Family::V4, kind) => write!(f, "icmp type {kind}"),
            Self::MatchIcmpType(Family::V6, kind) => write!(f, "icmpv6 type {kind}"),
            Self::MatchIcmpCode(code) => write!(f, "icmp code {code}"),
            Self::SetMark(mark) => write!(f, "meta mark set {mark:#x}"),
            Self::SetCtMark(mark) => write!(f, "ct mark set {mark:#x}"),
            Self::Tproxy(port) => write!(f, "tproxy to :{port}"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// The name of the IP header of the family of `address`.
fn ip(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn full_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The family, without which a rule of family `inet` would look for one header in the other, and then the address.
fn within(
    list: &mut Attributes,
    address: Address,
    network: IpAddr,
    prefix: u8,
    comparison: Comparison,
) {
    meta(list, META_NFPROTO, &[if network.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 }]);
    let octets = octets(network);
    let (base, offset) = address.place(Family::of(network));
    // An address has 16 bytes at most.
    field(list, base, offset, u32::try_from(octets.len()).unwrap_or(u32::MAX));
    if prefix < full_prefix(network) {
        mask(list, &netmask(prefix, octets.len()));
    }
    compare(list, comparison, &octets);
}

/// Loads an address, replaces its first bits, and writes it back.
fn move_to(list: &mut Attributes, address: Address, network: IpAddr, prefix: u8) {
    /// `NFT_PAYLOAD_CSUM_INET`; `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`: TCP and UDP sum up the addresses as well.
    const CSUM_INET: u32 = 1;
    const PSEUDO_HEADER: u32 = 1;
    let family = Family::of(network);
    let octets = octets(network);
    let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
    let kept: Vec<u8> = netmask(prefix, octets.len()).iter().map(|bits| !bits).collect();
    let set: Vec<u8> = octets.iter().zip(&kept).map(|(octet, kept)| octet & !kept).collect();
    let (base, offset) = address.place(family);
    field(list, base, offset, length);
    bitwise(list, &kept, &set);
    expression(list, "payload", |data| {
        data.number(NFTA_PAYLOAD_SREG, REGISTER_1);
        data.number(NFTA_PAYLOAD_BASE, base as u32);
        data.number(NFTA_PAYLOAD_OFFSET, offset);
        data.number(NFTA_PAYLOAD_LEN, length);
        match (base, family) {
            (Base::Network, Family::V4) => {
                data.number(NFTA_PAYLOAD_CSUM_TYPE, CSUM_INET);
                data.number(NFTA_PAYLOAD_CSUM_OFFSET, IPV4_CHECKSUM_OFFSET);
                data.number(NFTA_PAYLOAD_CSUM_FLAGS, PSEUDO_HEADER);
            }
            (Base::Network, Family::V6) => data.number(NFTA_PAYLOAD_CSUM_FLAGS, PSEUDO_HEADER),
            // The checksum of the ICMP message; nobody checks that of the header that it quotes.
            (Base::Transport, _) => {
                data.number(NFTA_PAYLOAD_CSUM_TYPE, CSUM_INET);
                data.number(NFTA_PAYLOAD_CSUM_OFFSET, ICMP_CHECKSUM_OFFSET);
            }
        }
    });
}

/// `length` bytes, of which the first `prefix` bits are set.
fn netmask(prefix: u8, length: usize) -> Vec<u8> {
    let prefix = usize::from(prefix);
    (0..length)
        .map(|at| match prefix.saturating_sub(8 * at) {
            0 => 0,
            bits @ 1..8 => !(u8::MAX >> bits),
            _ => u8::MAX,
        })
        .collect()
}

/// Appends one expression of the nftables virtual machine to the list of a rule.
fn expression(list: &mut Attributes, name: &str, fill: impl FnOnce(&mut Attributes)) {
    list.nested(NFTA_LIST_ELEM, |element| {
        element.string(NFTA_EXPR_NAME, name);
        element.nested(NFTA_EXPR_DATA, fill);
    });
}

/// Something the kernel knows about the packet, compared.
fn meta(list: &mut Attributes, key: u32, value: &[u8]) {
    load(list, "meta", key);
    compare(list, Comparison::Equal, value);
}

/// Loads a value into register 1. `meta` and `ct` have the same attributes here (`NFTA_META_*`, `NFTA_CT_*`).
fn load(list: &mut Attributes, name: &str, key: u32) {
    expression(list, name, |data| {
        data.number(NFTA_META_KEY, key);
        data.number(NFTA_META_DREG, REGISTER_1);
    });
}

/// Stores register 1. `meta` and `ct` have different attributes for the source register.
fn store(list: &mut Attributes, name: &str, key: u32, source_register: u16) {
    expression(list, name, |data| {
        data.number(NFTA_META_KEY, key);
        data.number(source_register, REGISTER_1);
    });
}

/// Loads a field of the packet; `offset` and `length` are in bytes.
fn field(list: &mut Attributes, base: Base, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        data.number(NFTA_PAYLOAD_DREG, REGISTER_1);
        data.number(NFTA_PAYLOAD_BASE, base as u32);
        data.number(NFTA_PAYLOAD_OFFSET, offset);
        data.number(NFTA_PAYLOAD_LEN, length);
    });
}

fn mask(list: &mut Attributes, bits: &[u8]) {
    bitwise(list, bits, &vec![0; bits.len()]);
}

/// Replaces register 1 by `(register & mask) ^ xor`.
fn bitwise(list: &mut Attributes, mask: &[u8], xor: &[u8]) {
    expression(list, "bitwise", |data| {
        data.number(NFTA_BITWISE_SREG, REGISTER_1);
        data.number(NFTA_BITWISE_DREG, REGISTER_1);
        data.number(NFTA_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
        data.nested(NFTA_BITWISE_MASK, |inner| inner.raw(NFTA_DATA_VALUE, mask));
        data.nested(NFTA_BITWISE_XOR, |inner| inner.raw(NFTA_DATA_VALUE, xor));
    });
}

/// Ends the rule for packets for which the comparison of register 1 with `value` fails.
fn compare(list: &mut Attributes, comparison: Comparison, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.number(NFTA_CMP_SREG, REGISTER_1);
        data.number(NFTA_CMP_OP, comparison as u32);
        data.nested(NFTA_CMP_DATA, |inner| inner.raw(NFTA_DATA_VALUE, value));
    });
}

fn constant(list: &mut Attributes, value: &[u8]) {
    immediate(list, REGISTER_1, |data| data.raw(NFTA_DATA_VALUE, value));
}

fn verdict(list: &mut Attributes, code: u32) {
    immediate(list, REGISTER_VERDICT, |value| {
        value.nested(NFTA_DATA_VERDICT, |verdict| verdict.number(NFTA_VERDICT_CODE, code));
    });
}

fn immediate(list: &mut Attributes, register: u32, fill: impl FnOnce(&mut Attributes)) {
    expression(list, "immediate", |data| {
        data.number(NFTA_IMMEDIATE_DREG, register);
        data.nested(NFTA_IMMEDIATE_DATA, fill);
    });
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_a_load_and_a_comparison() {
        let mut list = Attributes::default();
        Statement::MatchMark(101).encode(&mut list);
        let load: &[u8] = &[
            36, 0, 1, 0x80, 9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0, 20, 0, 2, 0x80, 8, 0,
            2, 0, 0, 0, 0, 3, 8, 0, 1, 0, 0, 0, 0, 1,
        ];
        let compare: &[u8] = &[
            44, 0, 1, 0x80, 8, 0, 1, 0, b'c', b'm', b'p', 0, 32, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0,
            1, 8, 0, 2, 0, 0, 0, 0, 0, 12, 0, 3, 0x80, 8, 0, 1, 0, 101, 0, 0, 0,
        ];
        assert_eq!(list.as_bytes(), [load, compare].concat());
    }

    #[test]
    fn a_netmask_has_as_many_bits_as_the_prefix() {
        assert_eq!(netmask(0, 4), [0, 0, 0, 0]);
        assert_eq!(netmask(10, 4), [255, 192, 0, 0]);
        assert_eq!(netmask(16, 4), [255, 255, 0, 0]);
        assert_eq!(netmask(31, 4), [255, 255, 255, 254]);
    }

    #[test]
    fn shows_the_syntax_of_nft() {
        let all = [
            Statement::MatchInput(2),
            Statement::MatchDestination([10, 0, 2, 3].into()),
            Statement::MatchDestinationNotIn("fe80::".parse().unwrap(), 10),
            Statement::MatchDestinationPort(53),
            Statement::MatchTcpFlags { mask: 0x17, set: 2 },
            Statement::MatchIcmpType(Family::V4, 8),
            Statement::MatchIcmpType(Family::V6, 128),
            Statement::MatchIcmpCode(4),
            Statement::MatchDontFragment,
            Statement::MatchDatagram {
                mask: [0x7f, 0, 0, 0, 0, 0, 0, 0xff],
                value: [8, 0, 0, 0, 0, 0, 0, 0],
            },
            Statement::Tproxy(1),
            Statement::MatchOutput(3),
            Statement::MatchIn(Address::Source, [127, 0, 0, 0].into(), 8),
            Statement::Move(Address::Quoted, [247, 0, 0, 0].into(), 8),
            Statement::Accept,
            Statement::Drop,
        ];
        assert_eq!(
            all.map(|statement| statement.to_string()).join(" "),
            "iif 2 ip daddr 10.0.2.3 ip6 daddr != fe80::/10 th dport 53 tcp flags & 0x17 == 0x2 \
             icmp type 8 icmpv6 type 128 icmp code 4 ip frag-off & 16384 != 0 @th,64,64 & 0x7f000000000000ff == 0x800000000000000 tproxy to :1 oif 3 ip saddr 127.0.0.0/8 \
             ip quoted daddr set prefix 247.0.0.0/8 accept drop"
        );
    }
}
