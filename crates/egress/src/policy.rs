//! What is enforced: rules with addresses, and the decision about an attempt.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names;

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It goes on.
    #[default]
    Allow,
    /// It is refused at once, as administratively prohibited.
    Deny,
}

impl Action {
    /// All, by their words.
    pub const WORDS: [(&'static str, Self); 2] =
        [(Self::Allow.word(), Self::Allow), (Self::Deny.word(), Self::Deny)];

    /// The word in files, in the API and for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Whether what is denied is refused, or only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Refused.
    #[default]
    Enforce,
    /// Counted.
    DryRun,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// A flow of datagrams.
    Udp,
    /// A ping.
    Icmp,
}

impl Protocol {
    /// All, by their words.
    pub const WORDS: [(&'static str, Self); 3] = [
        (Self::Tcp.word(), Self::Tcp),
        (Self::Udp.word(), Self::Udp),
        (Self::Icmp.word(), Self::Icmp),
    ];

    /// The word in files, in the API and for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// Ports from the first to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// As in a file: `443`, or `8000-8100`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The namespace itself: dockerd, and containers with `--network=host`.
    Namespace,
    /// A container with this address.
    Container(IpAddr),
    /// Nobody could be asked who it is.
    Unknown,
}

/// Something that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who sends.
    pub source: Source,
    /// What is sent.
    pub protocol: Protocol,
    /// The destination, as the target namespace sees it.
    pub destination: IpAddr,
    /// The destination's port; of a ping, anything.
    pub port: u16,
}

/// Whom a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Senders {
    /// Containers with an address in one of these networks.
    pub addresses: Vec<IpNet>,
    /// The namespace itself.
    pub namespace: bool,
    /// The rule names containers, or networks of Docker, so it may be for an address that Docker does not list.
    pub named: bool,
    /// With `named`: where an address that Docker does not list has to be for that. Empty is anywhere.
    pub within: Vec<IpNet>,
}

/// Where a rule leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Addresses.
    Network(IpNet),
    /// A name in lower case without a final dot, or `*.` and the end of names. `*.example.org` is for all names below
    /// `example.org`, at any depth, and not for `example.org` itself.
    Name(String),
}

/// As in a file: a network of one address without its length.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "{}", network.addr())
            }
            Self::Network(network) => write!(f, "{network}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Target {
    /// Whether this is where an attempt leads that the sender has begun with this address, by one of these names.
    fn matches(&self, destination: IpAddr, names: &[&str]) -> bool {
        match self {
            Self::Network(network) => network.contains(&destination),
            Self::Name(pattern) => names.iter().any(|name| names::covers(pattern, name)),
        }
    }
}

impl Senders {
    /// Whether a rule with this action is for this sender. `listed` is whether Docker lists its address.
    fn matches(&self, source: Source, listed: bool, action: Action) -> bool {
        let address = match source {
            Source::Namespace => return self.namespace,
            Source::Container(address) => address,
            Source::Unknown => return action == Action::Deny,
        };
        let in_one = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        let may_be = || self.within.is_empty() || in_one(&self.within);
        in_one(&self.addresses) || (self.named && !listed && action == Action::Deny && may_be())
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What people call it.
    pub name: String,
    /// What becomes of what it matches.
    pub action: Action,
    /// Whom it is for; `None` is everybody.
    pub from: Option<Senders>,
    /// Where to; empty is everywhere.
    pub to: Vec<Target>,
    /// Which protocols; empty is all.
    pub protocols: Vec<Protocol>,
    /// Which ports, of TCP and UDP; empty is all. A rule with ports matches no ping.
    pub ports: Vec<PortRange>,
}

impl Rule {
    /// The addresses of `attempt` are canonical: IPv4 is not mapped into IPv6.
    fn matches(&self, attempt: &Attempt, names: &[&str], listed: bool) -> bool {
        let Attempt { source, destination, .. } = *attempt;
        self.has_service(attempt)
            && (self.to.is_empty() || self.to.iter().any(|to| to.matches(destination, names)))
            && self.from.as_ref().is_none_or(|from| from.matches(source, listed, self.action))
    }

    /// Whether protocol and port are this rule's.
    fn has_service(&self, attempt: &Attempt) -> bool {
        let Attempt { protocol, port, .. } = *attempt;
        let of_port = |range: &PortRange| (range.first..=range.last).contains(&port);
        (self.protocols.is_empty() || self.protocols.contains(&protocol))
            && (self.ports.is_empty()
                || (protocol != Protocol::Icmp && self.ports.iter().any(of_port)))
    }

    /// Whether it matches for some sender.
    fn may_match(&self, attempt: &Attempt, may_have_names: bool) -> bool {
        let may_lead = |to: &Target| match to {
            Target::Network(network) => network.contains(&attempt.destination),
            Target::Name(_) => may_have_names,
        };
        self.has_service(attempt) && (self.to.is_empty() || self.to.iter().any(may_lead))
    }

    /// Whether it may match for one sender and not for another, if it may match at all.
    fn depends_on_sender(&self, attempt: &Attempt) -> bool {
        let leads = |to: &Target| to.matches(attempt.destination, &[]);
        self.from.is_some() || !(self.to.is_empty() || self.to.iter().any(leads))
    }
}

/// What one file wants, with addresses instead of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The file, for people.
    pub file: String,
    /// Whether it is enforced.
    pub mode: Mode,
    /// What becomes of what no rule matches.
    pub default: Action,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
}

/// Everything that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// The administrator's before the user's.
    pub policies: Vec<Policy>,
    /// The addresses of containers that Docker lists, each with the one that stands for all of its container
    /// ([`Directory::known`](crate::Directory::known)).
    pub known: BTreeMap<IpAddr, IpAddr>,
    /// Docker has networks of IPv4. So its masquerade is there, and the connection tracking knows whoever sends.
    #[serde(default)]
    pub has_docker_ipv4: bool,
    /// The same of IPv6.
    #[serde(default)]
    pub has_docker_ipv6: bool,
}

/// A rule, or a default, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleId {
    /// Which of the policies.
    pub policy: usize,
    /// Which of its rules; `None` is its default.
    pub rule: Option<usize>,
}

/// What becomes of an attempt, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What each policy says, in their order: which rule, or the default, and its action.
    pub verdicts: Vec<(RuleId, Action)>,
    /// The first verdict that denies and is enforced.
    pub denied_by: Option<RuleId>,
    /// The first verdict that denies in a dry run.
    pub dry_run: Option<RuleId>,
}

impl Decision {
    /// Whether the attempt goes on.
    pub fn is_allowed(&self) -> bool {
        self.denied_by.is_none()
    }

    /// Adds what a policy says.
    fn add(&mut self, policy: &Policy, id: RuleId) {
        let rule = id.rule.and_then(|rule| policy.rules.get(rule));
        let action = rule.map_or(policy.default, |rule| rule.action);
        if action == Action::Deny {
            let denied_by = match policy.mode {
                Mode::Enforce => &mut self.denied_by,
                Mode::DryRun => &mut self.dry_run,
            };
            denied_by.get_or_insert(id);
        }
        self.verdicts.push((id, action));
    }
}

impl Policies {
    /// Judges an attempt. `names` are those that the sender was given the destination for.
    pub fn judge(&self, attempt: &Attempt, names: &[&str]) -> Decision {
        let mut attempt = Attempt { destination: attempt.destination.to_canonical(), ..*attempt };
        let listed = match &mut attempt.source {
            Source::Namespace | Source::Unknown => true,
            Source::Container(address) => {
                *address = address.to_canonical();
                self.known.contains_key(address)
            }
        };
        let mut decision = Decision::default();
        for (index, policy) in self.policies.iter().enumerate() {
            let rule = policy.rules.iter().position(|rule| rule.matches(&attempt, names, listed));
            decision.add(policy, RuleId { policy: index, rule });
        }
        decision
    }

    /// The decision about an attempt if it is the same for all senders, `None` if it depends on the sender. `may_have_names` is
    /// whether somebody may have been given the destination for a name.
    pub fn judge_for_all(
        &self,
        protocol: Protocol,
        destination: IpAddr,
        port: u16,
        may_have_names: bool,
    ) -> Option<Decision> {
        let attempt = Attempt {
            source: Source::Unknown,
            protocol,
            destination: destination.to_canonical(),
            port,
        };
        let mut decision = Decision::default();
        for (index, policy) in self.policies.iter().enumerate() {
            let rules = policy.rules.iter().enumerate();
            let mut of_interest =
                rules.filter(|(_, rule)| rule.may_match(&attempt, may_have_names));
            let rule = match of_interest.next() {
                Some((_, rule)) if rule.depends_on_sender(&attempt) => return None,
                found => found.map(|(rule, _)| rule),
            };
            decision.add(policy, RuleId { policy: index, rule });
        }
        Some(decision)
    }

    /// Whether nothing can be denied or counted, so that nothing has to be judged.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.policies.iter().flat_map(|policy| &policy.rules)
    }

    /// Whether a verdict can depend on who sends, so that the sender has to be found before the packet goes on.
    pub fn depends_on_sender(&self) -> bool {
        self.rules().any(|rule| rule.from.is_some()) || self.uses_names()
    }

    /// Whether a rule may be for an address that Docker does not list.
    pub fn has_rules_for_unlisted(&self) -> bool {
        self.rules().filter_map(|rule| rule.from.as_ref()).any(|from| from.named)
    }

    /// Whether a rule leads to this name.
    pub fn have_name(&self, name: &str) -> bool {
        self.rules().flat_map(|rule| &rule.to).any(|target| match target {
            Target::Name(pattern) => names::covers(pattern, name),
            Target::Network(_) => false,
        })
    }

    /// Whether a rule leads to a name, so that answers of the resolver count.
    pub fn uses_names(&self) -> bool {
        self.rules().flat_map(|rule| &rule.to).any(|target| matches!(target, Target::Name(_)))
    }

    /// What people call a rule: its name, or `default`.
    pub fn name_of(&self, id: RuleId) -> &str {
        let policy = self.policies.get(id.policy);
        let rule = id.rule.and_then(|rule| policy?.rules.get(rule));
        rule.map_or("default", |rule| &rule.name)
    }
}
