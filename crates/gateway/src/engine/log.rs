//! What the engine leaves in the flow log ([`relay::flow_log`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use netlink::conntrack::{Protocol, Query};
use relay::RuleName;
use relay::flow_log::{FlowEnd, FlowLog, FlowRecord, FlowStart, Transport};

use crate::dns::KnownNames;
use crate::packet::Unreachable;

/// The flow log, and the names of destinations.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) flows: Arc<FlowLog>,
    /// Kept even while nobody follows: who follows from now on sees names at once, and it costs little.
    pub(super) names: KnownNames,
    /// What was judged last, if a rule would forbid it, were it enforced.
    dry_run: Option<(Query, RuleName)>,
}

impl Log {
    pub(super) fn new(flows: Arc<FlowLog>) -> Self {
        Self { flows, names: KnownNames::default(), dry_run: None }
    }

    /// Notes what may begin now although a rule would forbid it if it were enforced. It begins before anything else is
    /// judged.
    pub(super) fn judged(&mut self, dry_run: Option<(Query, RuleName)>) {
        self.dry_run = dry_run;
    }

    /// Something that begins in the target namespace.
    pub(super) fn start(&self, now: Instant, query: &Query) -> FlowStart {
        let (transport, port) = match query.protocol {
            Protocol::Tcp => (Transport::Tcp, query.outside.dst.port()),
            Protocol::Udp => (Transport::Udp, query.outside.dst.port()),
            // What stands for the port is the identifier.
            Protocol::Echo => (Transport::Icmp, 0),
        };
        let destination = SocketAddr::new(query.outside.dst.ip(), port);
        let (published, client) = (false, query.outside.src);
        let name = self.names.get(now, destination.ip());
        let dry_run = self.dry_run.as_ref().filter(|(judged, _)| judged == query);
        let dry_run_rule = dry_run.map(|(_, rule)| RuleName::clone(rule));
        FlowStart { transport, published, client, destination, name, dry_run_rule, began: now }
    }

    /// The record of an attempt that nothing has come of, perhaps because of a rule, if somebody wants it.
    pub(super) fn attempt(
        &self,
        now: Instant,
        query: &Query,
        end: FlowEnd,
        rule: Option<RuleName>,
    ) -> Option<Box<FlowRecord>> {
        self.flows.is_followed().then(|| {
            let (start, container) = (self.start(now, query), None);
            Box::new(FlowRecord { start, container, up: 0, down: 0, ended: now, end, rule })
        })
    }
}

/// How a flow ends whose socket has reported this error; `None` if it goes on.
pub(super) fn end_of(why: Unreachable) -> Option<FlowEnd> {
    match why {
        Unreachable::Port => Some(FlowEnd::Refused),
        Unreachable::TooBig(_) => None,
        Unreachable::Net
        | Unreachable::Host
        | Unreachable::Protocol
        | Unreachable::Prohibited
        | Unreachable::TimeExceeded => Some(FlowEnd::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::engine::attribution::outbound;

    #[test]
    fn only_what_a_dry_run_has_just_judged_begins_with_its_rule() {
        let end = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let query = |port| outbound(Protocol::Udp, end(port), end(1));
        let mut log = Log::new(Arc::default());
        let rule = |log: &Log, port| log.start(Instant::now(), &query(port)).dry_run_rule;
        log.judged(Some((query(2), "a rule".into())));
        assert_eq!(rule(&log, 2).as_deref(), Some("a rule"));
        assert_eq!(rule(&log, 3), None, "another one, of which nothing is known");
        log.judged(None);
        assert_eq!(rule(&log, 2), None);
    }
}
