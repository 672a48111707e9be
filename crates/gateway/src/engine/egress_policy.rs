//! The egress policy: what may begin, and whether what has begun may go on.
//!
//! What [`crate::policy`] allows is judged by [`egress::Policies`] when it begins: a connection by its SYN, a flow by its
//! first datagram, a ping by its first echo request. If a verdict can depend on who sends, the packet waits until the
//! connection tracking has told ([`super::parked`]). Answers of the resolver are taken in before the sender gets them, so
//! whatever it sends to their addresses finds them there.
//!
//! When the policy changes, everything that goes on is judged once more, by the names that its sender was ever given the
//! address for. What is not allowed any more ends. What is in force is shared with the threads that move bytes, which
//! judge their own connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use egress::{Attempt, Decision, Openings, Policies, Protocol, Source};
use netlink::conntrack::{self, Query};
use relay::{Opened, RuleName};

use crate::conntrack::Outcome;
use crate::network_config::NetworkConfig;
use crate::policy::DNS;

/// A policy that the engine has not taken over yet.
pub type SharedPolicies = Arc<Mutex<Option<Policies>>>;

/// Who has sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// Its address: of a container, or of the target namespace.
    pub(super) container: IpAddr,
    /// Whether that is only whom the packets name, because nobody could be asked.
    pub(super) is_guess: bool,
}

impl Sender {
    /// Whom the connection tracking has found for packets with this source. `is_masquerade` says that the source stands
    /// for containers, too. What the connection tracking does not know then may be any container's: one that may send raw
    /// packets can have it forget a connection by a reset.
    pub(super) fn found(outcome: Outcome, source: IpAddr, is_masquerade: bool) -> Self {
        match outcome {
            Outcome::Found(container) => Self { container, is_guess: false },
            Outcome::Unknown => Self { container: source, is_guess: is_masquerade },
            Outcome::Failed => Self { container: source, is_guess: true },
        }
    }
}

impl From<Opened> for Sender {
    fn from(Opened { container, is_guess, .. }: Opened) -> Self {
        Self { container, is_guess }
    }
}

/// The policy in force, and the one that comes next.
#[derive(Debug)]
pub(super) struct EgressPolicy {
    next: SharedPolicies,
    in_force: Arc<InForce>,
}

/// What is judged by.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) policies: Policies,
    /// Whether everything may go on, and nothing is counted.
    pub(super) is_empty: bool,
    /// Whether packets wait for their sender to be known.
    pub(super) depends_on_sender: bool,
    /// Whether answers of the resolver count.
    pub(super) uses_names: bool,
    has_rules_for_unlisted: bool,
    /// All addresses of each container, by the one that stands for them.
    containers: HashMap<IpAddr, Vec<IpAddr>>,
    openings: Arc<Mutex<Openings>>,
    plan: NetworkConfig,
}

impl EgressPolicy {
    /// No policy until [`EgressPolicy::follow`].
    pub(super) fn new(next: SharedPolicies, plan: NetworkConfig) -> Self {
        let in_force = InForce::new(Policies::default(), Arc::default(), plan);
        Self { next, in_force: Arc::new(in_force) }
    }

    /// Puts the next policy in force. `None` if there is none. Otherwise the addresses whose containers are gone.
    pub(super) fn follow(&mut self) -> Option<Vec<IpAddr>> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        // Docker is asked only while something depends on it.
        let is_asked = !next.known.is_empty() || next.has_rules_for_unlisted();
        let before = self.in_force.policies.known.keys().copied();
        let gone = before.filter(|address| is_asked && !next.known.contains_key(address));
        let gone: Vec<IpAddr> = gone.collect();
        for address in &gone {
            // Another container may get it.
            self.in_force.openings().forget_sender(Source::Container(*address));
        }
        let openings = Arc::clone(&self.in_force.openings);
        self.in_force = Arc::new(InForce::new(next, openings, self.in_force.plan.clone()));
        Some(gone)
    }

    /// What is in force, for other threads.
    pub(super) fn shared(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force)
    }
}

impl std::ops::Deref for EgressPolicy {
    type Target = InForce;

    fn deref(&self) -> &InForce {
        &self.in_force
    }
}

impl InForce {
    fn new(policies: Policies, openings: Arc<Mutex<Openings>>, plan: NetworkConfig) -> Self {
        let mut containers: HashMap<IpAddr, Vec<IpAddr>> = HashMap::new();
        for (address, container) in &policies.known {
            containers.entry(*container).or_default().push(*address);
        }
        Self {
            is_empty: policies.is_empty(),
            depends_on_sender: policies.depends_on_sender(),
            uses_names: policies.uses_names(),
            has_rules_for_unlisted: policies.has_rules_for_unlisted(),
            containers,
            policies,
            openings,
            plan,
        }
    }

    /// Whether rules name containers, and Docker does not list this sender.
    pub(super) fn is_unlisted(&self, sender: Sender) -> bool {
        let known = &self.policies.known;
        self.has_rules_for_unlisted
            && matches!(self.source(sender), Source::Container(_))
            && !known.contains_key(&sender.container.to_canonical())
    }

    /// The decision about something that begins if it is the same for all senders, `None` if it depends on the sender.
    pub(super) fn judge_for_all(&self, attempt: &Query) -> Option<Decision> {
        let (ip, port) = (attempt.outside.dst.ip(), attempt.outside.dst.port());
        let may_have_names = self.uses_names && self.openings().may_have(ip);
        self.policies.judge_for_all(protocol(attempt.protocol), ip, port, may_have_names)
    }

    /// Judges something that begins.
    pub(super) fn judge(&self, now: Instant, sender: Sender, attempt: &Query) -> Decision {
        let (protocol, dst) = (protocol(attempt.protocol), attempt.outside.dst);
        let source = self.source(sender);
        let attempt = Attempt { source, protocol, destination: dst.ip(), port: dst.port() };
        if !self.uses_names {
            return self.policies.judge(&attempt, &[]);
        }
        let openings = self.openings();
        let names = self.names(attempt, |who, address| openings.names(now, who, address));
        self.policies.judge(&attempt, &names)
    }

    /// The names of an attempt's destination, for whichever of its addresses its sender has asked with.
    fn names<'a>(
        &self,
        attempt: Attempt,
        names: impl Fn(Source, IpAddr) -> Vec<&'a str>,
    ) -> Vec<&'a str> {
        let Attempt { source, destination, .. } = attempt;
        let known = &self.policies.known;
        let container = match source {
            Source::Container(address) => known.get(&address.to_canonical()),
            Source::Namespace | Source::Unknown => None,
        };
        let all = container.and_then(|container| self.containers.get(container));
        let Some(all) = all else { return names(source, destination) };
        all.iter().flat_map(|address| names(Source::Container(*address), destination)).collect()
    }

    /// The rule that forbids something to go on that has begun before, perhaps under another policy. Names that its
    /// sender was given the address for count even if they are too old for something new, where they allow it.
    pub(super) fn denied_by(&self, protocol: Protocol, opened: &Opened) -> Option<RuleName> {
        let (ip, port) = (opened.destination.ip(), opened.destination.port());
        // A connection to our name server.
        let dns = self.plan.nets().any(|net| net.dns == ip) && port == DNS;
        if self.is_empty || dns {
            return None;
        }
        let source = self.source(Sender::from(*opened));
        let attempt = Attempt { source, protocol, destination: ip, port };
        let denied_by = if self.uses_names {
            let (now, openings) = (Instant::now(), self.openings());
            let new = self.names(attempt, |who, address| openings.names(now, who, address));
            let old = self.names(attempt, |who, address| openings.remembered(who, address));
            let denied_by = self.policies.judge(&attempt, &new).denied_by?;
            self.policies.judge(&attempt, &old).denied_by.and(Some(denied_by))
        } else {
            self.policies.judge(&attempt, &[]).denied_by
        };
        Some(self.policies.name_of(denied_by?).into())
    }

    /// Takes in an answer of the resolver for somebody.
    pub(super) fn learn(
        &self,
        now: Instant,
        who: Source,
        name: &str,
        addresses: &[(IpAddr, Duration)],
    ) {
        // A container that asks for many names leaves room for those that rules have.
        if self.policies.have_name(name) {
            self.openings().learn(now, who, name, addresses);
        }
    }

    /// Whom rules see.
    pub(super) fn source(&self, sender: Sender) -> Source {
        let own = self.plan.is_child(sender.container);
        if sender.is_guess {
            Source::Unknown
        } else if own {
            Source::Namespace
        } else {
            Source::Container(sender.container)
        }
    }

    fn openings(&self) -> MutexGuard<'_, Openings> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn protocol(protocol: conntrack::Protocol) -> Protocol {
    match protocol {
        conntrack::Protocol::Tcp => Protocol::Tcp,
        conntrack::Protocol::Udp => Protocol::Udp,
        conntrack::Protocol::Echo => Protocol::Icmp,
    }
}

#[cfg(test)]
mod tests {
    use egress::{Directory, File};

    use super::*;
    use crate::network_config::{HostLoopback, Net};

    fn in_force(text: &str) -> InForce {
        let [child, gateway, dns] =
            ["10.0.2.100", "10.0.2.2", "10.0.2.3"].map(|ip| ip.parse().unwrap());
        let v4 = Net { child, gateway, dns, prefix: 24 };
        let (ifname, host_loopback) = ("tap0".to_owned(), HostLoopback::Closed);
        let plan = NetworkConfig { ifname, mtu: 1500, v4, v6: None, host_loopback };
        let policy = File::parse(text).unwrap().resolve("a.toml", &Directory::default());
        let policies = Policies { policies: vec![policy], ..Policies::default() };
        InForce::new(policies, Arc::default(), plan)
    }

    #[test]
    fn names_that_are_too_old_for_something_new_keep_what_goes_on_and_end_nothing() {
        let rule =
            |action| format!("[[rule]]\nname = \"a\"\naction = \"{action}\"\nto = \"a.org\"\n");
        let address = IpAddr::from([192, 0, 2, 1]);
        let container = IpAddr::from([172, 17, 0, 2]);
        let opened = Opened { container, is_guess: false, destination: (address, 80).into() };
        let (day, hour) = (Duration::from_secs(86_400), Duration::from_secs(3600));
        for (text, learnt, denied_by) in [
            (format!("default = \"deny\"\n{}", rule("allow")), Some(day), None),
            (format!("default = \"deny\"\n{}", rule("allow")), None, Some("default")),
            (rule("deny"), Some(day), None),
            (rule("deny"), Some(Duration::ZERO), Some("a")),
        ] {
            let in_force = in_force(&text);
            if let Some(ago) = learnt
                && let Some(then) = Instant::now().checked_sub(ago)
            {
                let who = Source::Container(container);
                in_force.learn(then, who, "a.org", &[(address, hour)]);
                in_force.learn(then, who, "b.org", &[(address, hour)]);
                let remembered = in_force.openings().remembered(who, address).len();
                assert_eq!(remembered, 1, "no rule has the other name");
            }
            let found = in_force.denied_by(Protocol::Tcp, &opened);
            assert_eq!(found.as_deref(), denied_by, "{text}");
        }
    }
}
