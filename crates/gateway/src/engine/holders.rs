//! Whose share of the limits something counts for ([`crate::shares`]).

use std::net::IpAddr;

use relay::{Attribution, Opened};

use super::Shared;
use super::egress_policy::Sender;
use crate::shares::{Holder, Lookup};

impl Shared {
    /// Whose something is that packets with this source begin.
    pub(super) fn holder(&self, source: IpAddr, sender: Option<Sender>) -> Holder {
        match sender {
            Some(sender) if sender.is_guess && self.plan.is_child(sender.container) => {
                Holder::Unknown
            }
            Some(sender) => self.holder_at(sender.container),
            // Whom a masquerade may hide.
            None if self.plan.is_child(source) => Holder::Pending,
            None => self.holder_at(source),
        }
    }

    /// The same if the sender has been asked for: known already if that failed at once.
    pub(super) fn holder_of(&self, source: IpAddr, attribution: &Attribution) -> Holder {
        self.holder(source, attribution.opened_by().map(Sender::from))
    }

    /// What is known of something whose sender was asked for.
    pub(super) fn lookup(&self, opened: Option<Opened>) -> Lookup {
        opened.map_or(Lookup::Open, |opened| {
            Lookup::Known(self.holder(opened.container, Some(opened.into())))
        })
    }

    /// Whoever has an address. If Docker has told which ones containers have, others may be forged.
    fn holder_at(&self, address: IpAddr) -> Holder {
        let known = &self.egress.policies.known;
        match known.get(&address.to_canonical()) {
            _ if self.plan.is_child(address) => Holder::Sender(self.plan.v4.child),
            Some(container) => Holder::Sender(*container),
            None if known.is_empty() => Holder::Sender(address),
            None => Holder::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
