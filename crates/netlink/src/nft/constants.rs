//! Numbers of the kernel's nftables interface (linux/netfilter/nf_tables.h) and of packet headers.

pub(super) const REGISTER_VERDICT: u32 = 0;
pub(super) const REGISTER_1: u32 = 1;
pub(super) const META_MARK: u32 = 3;
pub(super) const META_INPUT: u32 = 4;
pub(super) const META_OUTPUT: u32 = 5;
pub(super) const META_NFPROTO: u32 = 15;
pub(super) const META_L4PROTO: u32 = 16;
pub(super) const CT_MARK: u32 = 3;

/// `NFPROTO_UNSPEC`, linux/netfilter.h: for an expression of family `inet`, both families.
pub(super) const NFPROTO_UNSPEC: u32 = 0;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;
/// `NF_ACCEPT`, linux/netfilter.h.
pub(super) const ACCEPT: u32 = 1;
/// `NF_DROP`.
pub(super) const DROP: u32 = 0;
/// `IPPROTO_ICMP` and `IPPROTO_ICMPV6`.
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

// Attributes of tables, chains and rules, and of the hook of a chain.
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;

// Attributes of every expression, and of data.
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;

// Attributes of single expressions.
pub(super) const NFTA_META_DREG: u16 = 1;
pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFTA_META_SREG: u16 = 3;
pub(super) const NFTA_CT_SREG: u16 = 4;
pub(super) const NFTA_TPROXY_FAMILY: u16 = 1;
pub(super) const NFTA_TPROXY_REG_PORT: u16 = 3;
pub(super) const NFTA_PAYLOAD_DREG: u16 = 1;
pub(super) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(super) const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub(super) const NFTA_PAYLOAD_LEN: u16 = 4;
pub(super) const NFTA_PAYLOAD_SREG: u16 = 5;
pub(super) const NFTA_PAYLOAD_CSUM_TYPE: u16 = 6;
pub(super) const NFTA_PAYLOAD_CSUM_OFFSET: u16 = 7;
pub(super) const NFTA_PAYLOAD_CSUM_FLAGS: u16 = 8;
pub(super) const NFTA_BITWISE_SREG: u16 = 1;
pub(super) const NFTA_BITWISE_DREG: u16 = 2;
pub(super) const NFTA_BITWISE_LEN: u16 = 3;
pub(super) const NFTA_BITWISE_MASK: u16 = 4;
pub(super) const NFTA_BITWISE_XOR: u16 = 5;
pub(super) const NFTA_CMP_SREG: u16 = 1;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;

// Offsets in headers, in bytes.
pub(super) const DESTINATION_PORT_OFFSET: u32 = 2;
/// Of the flags and the offset of a fragment, which share two bytes.
pub(super) const IPV4_FRAGMENT_OFFSET: u32 = 6;
pub(super) const IPV4_DONT_FRAGMENT: u16 = 0x4000;
pub(super) const UDP_HEADER_LENGTH: u32 = 8;
pub(super) const TCP_FLAGS_OFFSET: u32 = 13;
pub(super) const ICMP_TYPE_OFFSET: u32 = 0;
pub(super) const ICMP_CODE_OFFSET: u32 = 1;
pub(super) const IPV4_CHECKSUM_OFFSET: u32 = 10;
pub(super) const ICMP_CHECKSUM_OFFSET: u32 = 2;
