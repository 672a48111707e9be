//! How many descriptors may still be opened, and by whom ([`budget`] has the theory).
//!
//! What is held is counted anew before each batch of events, so that nothing can be forgotten; within a batch whoever
//! opens something takes it from here first.

use std::time::{Duration, Instant};

use budget::Shares;

/// Warnings about one use are at least this far apart.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The listener of a published port.
    Port,
    /// A connection to a published port, one of its two.
    In,
    /// A connection out, made or being made, one of its two.
    Out,
    /// A UDP flow to a published port.
    FlowIn,
    /// A UDP flow out.
    FlowOut,
    /// A ping.
    Ping,
    /// A name query.
    Name,
}

const USES: usize = 7;
/// Uses of which a part is kept for each.
const KEPT: [Use; 5] = [Use::Port, Use::FlowIn, Use::FlowOut, Use::Ping, Use::Name];

/// Descriptors by use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held([usize; USES]);

impl Held {
    /// Adds some.
    #[must_use]
    pub fn with(mut self, what: Use, count: usize) -> Self {
        self.0[what as usize] += count;
        self
    }

    /// Adds those of somebody else.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
        self
    }
}

/// What is held, what is kept for whom, and so what is left.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) shares: Shares,
    held: [usize; USES],
    other: usize,
    warned: [Option<Instant>; USES],
}

impl Room {
    pub(crate) fn new(shares: Shares) -> Self {
        Self { shares, held: [0; USES], other: 0, warned: [None; USES] }
    }

    /// Takes note of what is open now; `other` is ready sockets and pipes.
    pub(crate) fn count(&mut self, held: Held, other: usize) {
        (self.held, self.other) = (held.0, other);
    }

    /// Takes `count` descriptors for something. False if there is no room for them.
    #[must_use = "false means that nothing may be opened"]
    pub(crate) fn take(&mut self, what: Use, count: usize) -> bool {
        let fits = self.fits(what, count);
        if fits {
            self.held[what as usize] += count;
        }
        fits
    }

    /// Whether [`Room::take`] would succeed.
    pub(crate) fn fits(&self, what: Use, count: usize) -> bool {
        let shares = &self.shares;
        let held = self.held[what as usize] + count;
        let cap = match what {
            Use::Port => shares.ports,
            Use::In | Use::Out => shares.one_way,
            Use::FlowIn | Use::FlowOut => shares.flows,
            Use::Ping => shares.pings,
            Use::Name => shares.names,
        };
        let leave = match what {
            _ if held <= self.kept(what) => 0,
            Use::FlowIn | Use::FlowOut => self.unused(what) + shares.headroom,
            _ => self.unused(what),
        };
        held <= cap && self.free() >= count + leave
    }

    pub(crate) fn give(&mut self, what: Use, count: usize) {
        let held = &mut self.held[what as usize];
        *held = held.saturating_sub(count);
    }

    /// How many UDP flows, in and out, have to end so that new connections find room.
    pub(crate) fn excess(&self) -> (usize, usize) {
        let left = self.free().saturating_sub(self.unused(Use::In));
        let short = self.shares.headroom.saturating_sub(left);
        let over = |what| self.held[what as usize].saturating_sub(self.kept(what));
        let (over_in, over_out) = (over(Use::FlowIn), over(Use::FlowOut));
        // In proportion, rounded up.
        let part = |over: usize| (short * over).div_ceil((over_in + over_out).max(1)).min(over);
        (part(over_in), part(over_out))
    }

    /// Whether it is time to say, once more, that there is no room for something.
    pub(crate) fn worth_saying(&mut self, what: Use, now: Instant) -> bool {
        let warned = &mut self.warned[what as usize];
        let due = warned.is_none_or(|at| now.saturating_duration_since(at) >= WARN_EVERY);
        if due {
            *warned = Some(now);
        }
        due
    }

    fn free(&self) -> usize {
        self.shares.data.saturating_sub(self.other + self.held.iter().sum::<usize>())
    }

    fn kept(&self, what: Use) -> usize {
        match what {
            Use::Port => self.shares.ports_kept,
            Use::FlowOut if !self.shares.outward => 0,
            Use::FlowIn | Use::FlowOut => self.shares.flows_kept,
            Use::Ping => self.shares.pings,
            Use::Name => self.shares.names,
            Use::In | Use::Out => 0,
        }
    }

    /// What is kept for others than this and not used by them.
    fn unused(&self, by_others_than: Use) -> usize {
        let others = KEPT.into_iter().filter(|what| *what != by_others_than);
        others.map(|what| self.kept(what).saturating_sub(self.held[what as usize])).sum()
    }
}

#[cfg(test)]
mod tests {
    use budget::{Budget, DataPath};

    use super::*;

    fn room(limit: u64) -> Room {
        Room::new(Budget::new(limit, DataPath::Gateway).shares)
    }

    fn fill(room: &mut Room, what: Use, each: usize) -> usize {
        (0..).take_while(|_| room.take(what, each)).count()
    }

    #[test]
    fn floods_of_datagrams_leave_connections_their_share() {
        for limit in [64, 128, 256, 1024, 2048, 4096] {
            let mut room = room(limit);
            for what in [Use::FlowOut, Use::FlowIn, Use::Ping, Use::Name] {
                fill(&mut room, what, 1);
            }
            // Connections come in batches; after each, flows make room for the next.
            let mut connections = 0;
            for _ in 0..10_000 {
                connections += fill(&mut room, Use::Out, 2) + fill(&mut room, Use::In, 2);
                let (incoming, outgoing) = room.excess();
                room.give(Use::FlowIn, incoming);
                room.give(Use::FlowOut, outgoing);
            }
            let shares = room.shares;
            assert!(connections >= shares.tcp / 2, "{limit}: {connections} of {shares:?}");
            let held = |what| room.held[what as usize];
            for what in [Use::FlowIn, Use::FlowOut] {
                assert!(held(what) >= shares.flows_kept, "{limit}: {:?}", room.held);
            }
            assert_eq!((held(Use::Ping), held(Use::Name)), (shares.pings, shares.names));
        }
    }

    #[test]
    fn floods_of_connections_leave_everybody_else_what_is_kept() {
        for limit in [48, 64, 128, 256, 1024, 2048, 4096] {
            let mut room = room(limit);
            let out = fill(&mut room, Use::Out, 2);
            assert_eq!(out, room.shares.one_way / 2, "one direction leaves something to the other");
            fill(&mut room, Use::In, 2);
            let shares = room.shares;
            for (what, kept) in [
                (Use::Port, shares.ports_kept),
                (Use::FlowIn, shares.flows_kept),
                (Use::FlowOut, shares.flows_kept),
                (Use::Ping, shares.pings),
                (Use::Name, shares.names),
            ] {
                assert!(fill(&mut room, what, 1) >= kept, "{limit}: {what:?}");
            }
        }
    }

    #[test]
    fn an_idle_network_lets_flows_have_half() {
        let mut room = room(4096);
        assert_eq!(fill(&mut room, Use::FlowOut, 1), room.shares.flows);
        assert_eq!(room.excess(), (0, 0));
    }
}
