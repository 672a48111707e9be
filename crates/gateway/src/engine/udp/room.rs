//! How many flows there may be, and whose makes room for another one.

use std::time::Instant;

use relay::EventLoop;
use relay::flow_log::FlowEnd;
use relay::room::Use;
use relay::slab::Key;

use super::{Flow, Flows};
use crate::engine::Shared;
use crate::shares::{ALL, Holder, Lookup};

/// Flows at a time. Beyond that the one of whoever has the most that is least likely to be missed makes room.
const MAX_FLOWS: usize = 8192;
/// Batches each way that are passed on for a flow that has to go; more than that is a stream, which will break anyway.
const MAX_LAST_BATCHES: usize = 4;

impl Flows {
    /// Makes room for another flow of `newcomer`, if there is none. False if that cannot be done.
    pub(super) fn has_room(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        newcomer: Holder,
    ) -> bool {
        let many = self.table.len() >= MAX_FLOWS;
        if !many && host.take(Use::FlowOut, 1) {
            return true;
        }
        let made_room = self.make_room(host.now(), shared, newcomer);
        if !many {
            few(host);
        }
        made_room
    }

    /// Whether another flow takes the place of one that is there.
    fn is_full(&self, host: &EventLoop) -> bool {
        self.table.len() >= MAX_FLOWS || !host.fits(Use::FlowOut, 1)
    }

    /// Whether a new flow waits until its sender is known: flows of senders that are not known yet have the most, or it would
    /// need a token as one of those and there is none.
    pub(in crate::engine) fn must_wait(&mut self, host: &EventLoop, shared: &Shared) -> bool {
        let pending = |this: &Self| {
            let first = this.occupancy.victim(Holder::Pending);
            first.is_some_and(|(of, _)| of == Holder::Pending)
        };
        if !self.is_full(host) {
            return false;
        }
        if pending(self) {
            self.reassign_next(shared, ALL);
        }
        let now = host.now();
        pending(self) || !self.rate_limit.has_token(now) && self.needs_token(Holder::Pending, now)
    }

    /// Whether the rate limit allows a new flow of `newcomer` ([`RateLimit::allows`](crate::shares::RateLimit::allows)).
    pub(super) fn may_begin(&mut self, host: &EventLoop, newcomer: Holder) -> bool {
        let needs_token = self.is_full(host) && self.needs_token(newcomer, host.now());
        self.rate_limit.allows(needs_token, newcomer, host.now())
    }

    /// Whether a new flow of `newcomer` needs a token: one that nobody has answered would make room for it.
    fn needs_token(&self, newcomer: Holder, now: Instant) -> bool {
        let Some((of, slot)) = self.occupancy.victim(newcomer) else { return false };
        let first = self.order.first_of_group_to_go(slot.index(), now);
        let flow = first.and_then(|key| self.table.get(key));
        flow.is_some_and(|flow| !flow.answered) && self.occupancy.needs_token(of, newcomer)
    }

    /// Ends a flow in favour of a new one of `newcomer`, behind everything that has come for it. False if there is none.
    fn make_room(&mut self, now: Instant, shared: &Shared, newcomer: Holder) -> bool {
        self.reassign_next(shared, ALL);
        let group = self.occupancy.victim(newcomer).map(|(_, slot)| slot.index());
        let Some(key) = group.and_then(|group| self.order.first_of_group_to_go(group, now)) else {
            return false;
        };
        for _ in 0..MAX_LAST_BATCHES {
            let (out, back) = (self.carry_out(key), self.bring_in(shared, key));
            if !(out || back) {
                break;
            }
        }
        self.end(key, FlowEnd::Evicted);
        shared.statistics.events().evicted += 1;
        true
    }

    /// Ends flows until `count` descriptors are free, or none is left.
    pub(in crate::engine) fn give_way(&mut self, count: usize, now: Instant, shared: &Shared) {
        let before = self.descriptors();
        while before - self.descriptors() < count && self.make_room(now, shared, Holder::Pending) {}
    }

    /// Counts the next flows whose sender has been found for it, at most `most`.
    pub(super) fn reassign_next(&mut self, shared: &Shared, most: usize) {
        let opened_by = |flow: &Flow| shared.lookup(flow.counted.opened_by());
        for _ in 0..most {
            let lookup = |key| self.table.get(key).map_or(Lookup::Gone, opened_by);
            let Some((key, holder)) = self.lookups.next(lookup) else { break };
            self.reassign(key, holder);
        }
    }

    /// Notes whose a flow is.
    pub(super) fn reassign(&mut self, key: Key, holder: Holder) {
        let holder = self.occupancy.counts_for(holder);
        let Some(flow) = self.table.get_mut(key).filter(|flow| flow.holder != holder) else {
            return;
        };
        self.occupancy.leave(flow.holder);
        let (holder, slot) = self.occupancy.join(holder);
        flow.holder = holder;
        self.order.regroup(slot.index(), key);
    }
}

/// Flows make room for others although there are not many.
fn few(host: &mut EventLoop) {
    if host.worth_saying(Use::FlowOut) {
        let limit = host.shares().limit;
        tracing::warn!(
            "UDP flows from containers expire early: the limit of open files, {limit}, allows {} to {} at a time\nhint: raise the limit of open files (ulimit -n, LimitNOFILE=)",
            host.shares().flows_kept,
            host.shares().flows
        );
    }
}
