//! nftables transactions, encoded by hand and sent to the kernel over `NETLINK_NETFILTER`.
//!
//! # Theory of operation
//!
//! A [`Batch`] is one datagram: `NFNL_MSG_BATCH_BEGIN`, the changes, `NFNL_MSG_BATCH_END`. The kernel applies all of
//! it or nothing. Each change asks for an acknowledgement; [`Batch::commit`] reads all verdicts and reports the first
//! refusal with the change it belongs to. Numbers are those of `linux/netfilter/nf_tables.h` and
//! `linux/netfilter/nfnetlink.h` (Linux ≥ 3.13; family `inet` ≥ 3.14).

mod constants;
mod statement;

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

pub use self::statement::{Address, Statement};
use crate::Result;
use crate::attribute::Attributes;
use crate::connection::{Connection, message, split};
use crate::error::{During, Error};
use constants::{
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM,
    NFTA_HOOK_PRIORITY, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE, NFTA_TABLE_NAME,
};

/// Priority at which mangling takes place, before destination NAT (-100) and after connection tracking (-200).
pub const PRIORITY_MANGLE: i32 = -150;

/// Priority between the raw table of iptables (-300) and connection tracking (-200): what is changed here is changed before
/// address translation looks, and after rules that drop what comes from outside.
pub const PRIORITY_BEFORE_TRACKING: i32 = -250;
/// Priority behind source NAT (100), which on the way out also undoes destination NAT.
pub const PRIORITY_LAST: i32 = 300;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

/// `struct nfgenmsg`: family, version 0, and in network byte order, for a batch, the subsystem that it is meant for.
const BATCH_HEADER: [u8; 4] = [0, 0, 0, 10];
/// The same for a change: `NFPROTO_INET`, rules for IPv4 and IPv6 at once.
const CHANGE_HEADER: [u8; 4] = [1, 0, 0, 0];

/// Where in the path of a packet a chain is called (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Each packet that arrives, before its route is decided.
    Prerouting = 0,
    /// Each packet made here.
    Output = 3,
    /// Each packet that leaves, after its route was decided.
    Postrouting = 4,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// Changes to tables of family `inet` that the kernel applies together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    datagram: Vec<u8>,
    /// What each change does, for errors; its message has its position + 1 as sequence number.
    changes: Vec<String>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        let none = Attributes::default();
        let datagram = message(BATCH_BEGIN, NLM_F_REQUEST, 0, BATCH_HEADER, &none);
        Self { datagram, changes: Vec::new() }
    }

    /// Makes the table exist and be empty.
    pub fn replace_table(&mut self, table: &str) {
        let mut name = Attributes::default();
        name.string(NFTA_TABLE_NAME, table);
        // Deleting a table that is missing would fail the transaction, hence the first of the three.
        self.change(NEW_TABLE, NLM_F_CREATE, &name, format!("add table inet {table}"));
        self.delete_table(table);
        self.change(NEW_TABLE, NLM_F_CREATE, &name, format!("add table inet {table}"));
    }

    /// Deletes a table that exists, or that this batch has added.
    pub fn delete_table(&mut self, table: &str) {
        let mut name = Attributes::default();
        name.string(NFTA_TABLE_NAME, table);
        self.change(DELETE_TABLE, 0, &name, format!("delete table inet {table}"));
    }

    /// Adds a chain of type `filter` that accepts by default.
    pub fn add_chain(&mut self, table: &str, chain: &str, hook: Hook, priority: i32) {
        let mut attributes = Attributes::default();
        attributes.string(NFTA_CHAIN_TABLE, table);
        attributes.string(NFTA_CHAIN_NAME, chain);
        attributes.nested(NFTA_CHAIN_HOOK, |place| {
            place.number(NFTA_HOOK_HOOKNUM, hook as u32);
            place.number(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
        });
        attributes.string(NFTA_CHAIN_TYPE, "filter");
        let hook = hook.name();
        let text = format!("add chain inet {table} {chain} hook {hook} priority {priority}");
        self.change(NEW_CHAIN, NLM_F_CREATE, &attributes, text);
    }

    /// Appends a rule to a chain; the statements apply from left to right until one does not match.
    pub fn add_rule(&mut self, table: &str, chain: &str, statements: &[Statement]) {
        let mut attributes = Attributes::default();
        attributes.string(NFTA_RULE_TABLE, table);
        attributes.string(NFTA_RULE_CHAIN, chain);
        attributes.nested(NFTA_RULE_EXPRESSIONS, |list| {
            for statement in statements {
                statement.encode(list);
            }
        });
        let text: Vec<_> = statements.iter().map(ToString::to_string).collect();
        let text = format!("add rule inet {table} {chain} {}", text.join(" "));
        self.change(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &attributes, text);
    }

    /// Applies the batch in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel refused first and why: `EOPNOTSUPP` or `ENOENT` where nf_tables, the chain type or an expression
    /// is neither built in nor loadable, `EPERM` without `CAP_NET_ADMIN`, `EPROTONOSUPPORT` without netfilter netlink.
    pub fn commit(mut self) -> Result<()> {
        let (last, none) = (self.sequence(), Attributes::default());
        self.datagram.extend(message(BATCH_END, NLM_F_REQUEST, last, BATCH_HEADER, &none));
        let connection = Connection::open(NETLINK_NETFILTER)
            .during(|| "open a netfilter netlink socket for nftables")?;
        connection.send(&self.datagram).during(|| "send an nftables transaction")?;

        let reading = || "read the verdict on an nftables transaction";
        let mut accepted = vec![false; self.changes.len()];
        while let Some(datagram) = connection.receive().during(reading)? {
            for reply in split(&datagram).during(reading)? {
                let Some(verdict) = reply.verdict() else { continue };
                let position = usize::try_from(reply.sequence).unwrap_or(usize::MAX).checked_sub(1);
                let change = position.and_then(|at| self.changes.get(at));
                verdict.during(|| {
                    // What concerns the transaction as a whole is answered to its begin or end.
                    format!("nftables: {}", change.map_or("transaction", String::as_str))
                })?;
                if let Some(slot) = position.and_then(|at| accepted.get_mut(at)) {
                    *slot = true;
                }
            }
        }
        match accepted.iter().position(|accepted| !accepted) {
            None => Ok(()),
            Some(at) => Err(Error::new(
                format!("nftables: {}", self.changes[at]),
                io::Error::other("the kernel gave no verdict"),
            )),
        }
    }

    fn change(&mut self, kind: u16, flags: u16, attributes: &Attributes, text: String) {
        let sequence = self.sequence();
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.datagram.extend(message(kind, flags, sequence, CHANGE_HEADER, attributes));
        self.changes.push(text);
    }

    /// The number of the next message; the begin has 0.
    fn sequence(&self) -> u32 {
        u32::try_from(self.changes.len() + 1).unwrap_or(u32::MAX)
    }
}
