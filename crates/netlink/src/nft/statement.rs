//! The parts of a rule, each compiled to the expressions of the nftables virtual machine.
//!
//! A match loads a value into register 1 and compares it, a set loads a constant into register 1 and stores it.
//! Packet and connection marks are numbers of the host, so they are in native byte order, other than the attributes.

use std::fmt;

use super::attribute::Attributes;

const REGISTER_1: u32 = 1;
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
const CT_MARK: u32 = 3;
const COMPARE_EQUAL: u32 = 0;

/// One part of a rule; displays in the syntax of nft(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Go on if this is the transport protocol (`IPPROTO_*`), also behind IPv6 extension headers.
    MatchL4Proto(u8),
    /// Go on if the packet has this mark.
    MatchMark(u32),
    /// Go on if the connection has this mark.
    MatchCtMark(u32),
    /// Mark the packet.
    SetMark(u32),
    /// Mark the connection.
    SetCtMark(u32),
}

impl Statement {
    /// Appends the expressions to the list of a rule.
    pub(super) fn encode(self, list: &mut Attributes) {
        match self {
            Self::MatchL4Proto(protocol) => {
                load(list, "meta", META_L4PROTO);
                compare(list, &[protocol]);
            }
            Self::MatchMark(mark) => {
                load(list, "meta", META_MARK);
                compare(list, &mark.to_ne_bytes());
            }
            Self::MatchCtMark(mark) => {
                load(list, "ct", CT_MARK);
                compare(list, &mark.to_ne_bytes());
            }
            Self::SetMark(mark) => {
                constant(list, &mark.to_ne_bytes());
                // NFTA_META_SREG
                store(list, "meta", META_MARK, 3);
            }
            Self::SetCtMark(mark) => {
                constant(list, &mark.to_ne_bytes());
                // NFTA_CT_SREG
                store(list, "ct", CT_MARK, 4);
            }
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchL4Proto(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::MatchMark(mark) => write!(f, "meta mark {mark:#x}"),
            Self::MatchCtMark(mark) => write!(f, "ct mark {mark:#x}"),
            Self::SetMark(mark) => write!(f, "meta mark set {mark:#x}"),
            Self::SetCtMark(mark) => write!(f, "ct mark set {mark:#x}"),
        }
    }
}

/// `NFTA_LIST_ELEM` { `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA` }
fn expression(list: &mut Attributes, name: &str, fill: impl FnOnce(&mut Attributes)) {
    list.nested(1, |element| {
        element.string(1, name);
        element.nested(2, fill);
    });
}

/// `meta` and `ct` agree in the numbers of key (2) and destination register (1).
fn load(list: &mut Attributes, name: &str, key: u32) {
    expression(list, name, |data| {
        data.number(2, key);
        data.number(1, REGISTER_1);
    });
}

/// They do not agree in the number of the source register.
fn store(list: &mut Attributes, name: &str, key: u32, source_register: u16) {
    expression(list, name, |data| {
        data.number(2, key);
        data.number(source_register, REGISTER_1);
    });
}

/// `NFTA_CMP_SREG`, `NFTA_CMP_OP`, `NFTA_CMP_DATA` { `NFTA_DATA_VALUE` }
fn compare(list: &mut Attributes, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.number(1, REGISTER_1);
        data.number(2, COMPARE_EQUAL);
        data.nested(3, |inner| inner.raw(1, value));
    });
}

/// `NFTA_IMMEDIATE_DREG`, `NFTA_IMMEDIATE_DATA` { `NFTA_DATA_VALUE` }
fn constant(list: &mut Attributes, value: &[u8]) {
    expression(list, "immediate", |data| {
        data.number(1, REGISTER_1);
        data.nested(2, |inner| inner.raw(1, value));
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
}
