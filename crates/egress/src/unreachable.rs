//! Rules that can never decide, because one before them matches whatever they match.
//!
//! Only pairs of rules are compared, and by what is written: what is said here is true whatever containers Docker has. Several
//! rules that match everything of another one together are not found.

use std::fmt;

use ipnet::IpNet;

use crate::file::{File, Keys, Who, Written};
use crate::names;
use crate::policy::{Action, PortRange, Protocol, Target};
use crate::resolve::metadata;

/// A rule that never decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Its name.
    pub rule: String,
    /// Its line, from 1.
    pub line: usize,
    /// The name of the rule before it that matches everything that it matches.
    pub behind: String,
    /// The line of that one; `None` if `metadata = "deny"` adds it.
    pub behind_line: Option<usize>,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, line, behind, behind_line } = self;
        write!(f, "line {line}: the rule {rule:?} never decides, because ")?;
        match behind_line {
            Some(line) => write!(f, "the rule {behind:?} in line {line} matches everything first")?,
            None => write!(f, "`metadata = \"deny\"` matches everything first")?,
        }
        write!(f, "\nhint: remove the rule, or ")?;
        match behind_line {
            Some(_) => write!(f, "move it before {behind:?}"),
            None => write!(f, "remove `metadata` and write rules instead"),
        }
    }
}

/// A rule, prepared for many comparisons.
struct Compared<'f> {
    name: &'f str,
    line: Option<usize>,
    action: Action,
    from: Option<&'f Who>,
    everywhere: bool,
    networks: Vec<IpNet>,
    names: Vec<&'f str>,
    protocols: Vec<Protocol>,
    ports: Vec<PortRange>,
}

impl File {
    /// The rules that never decide, in their order, each with the first one that it stands behind.
    pub fn unreachable(&self) -> Vec<Unreachable> {
        let metadata = (self.metadata == Action::Deny).then(metadata);
        let added = metadata.as_ref().map(|rule| Compared {
            name: &rule.name,
            line: None,
            action: rule.action,
            from: None,
            ..Compared::leading(&rule.to)
        });
        let rules: Vec<_> = added.into_iter().chain(self.rules.iter().map(Compared::of)).collect();
        let behind = |(index, rule): (usize, &Compared<'_>)| {
            let behind = rules[..index].iter().find(|before| before.covers(rule))?;
            Some(Unreachable {
                rule: rule.name.to_owned(),
                line: rule.line?,
                behind: behind.name.to_owned(),
                behind_line: behind.line,
            })
        };
        rules.iter().enumerate().filter_map(behind).collect()
    }
}

impl<'f> Compared<'f> {
    /// One for everybody, all protocols and all ports.
    fn leading(to: &'f [Target]) -> Self {
        let networks = to.iter().filter_map(|target| match target {
            Target::Network(network) => Some(*network),
            Target::Name(_) => None,
        });
        let names = to.iter().filter_map(|target| match target {
            Target::Name(name) => Some(&**name),
            Target::Network(_) => None,
        });
        Self {
            name: "",
            line: None,
            action: Action::Deny,
            from: None,
            everywhere: to.is_empty(),
            networks: IpNet::aggregate(&networks.collect()),
            names: names.collect(),
            protocols: Protocol::WORDS.map(|(_, protocol)| protocol).to_vec(),
            ports: Vec::new(),
        }
    }

    fn of(rule: &'f Written) -> Self {
        let written = |protocol: &Protocol| {
            let is_written = rule.protocols.is_empty() || rule.protocols.contains(protocol);
            // A rule with ports matches no ping.
            is_written && (rule.ports.is_empty() || *protocol != Protocol::Icmp)
        };
        let all = Self::leading(&rule.to);
        Self {
            name: &rule.name,
            line: Some(rule.line),
            action: rule.action,
            from: rule.from.as_ref(),
            protocols: all.protocols.iter().copied().filter(written).collect(),
            ports: merged(&rule.ports),
            ..all
        }
    }

    /// Whether it matches every attempt that the other one matches.
    fn covers(&self, other: &Self) -> bool {
        self.protocols_cover(other)
            && self.ports_cover(other)
            && self.targets_cover(other)
            && self.senders_cover(other)
    }

    fn protocols_cover(&self, other: &Self) -> bool {
        other.protocols.iter().all(|protocol| self.protocols.contains(protocol))
    }

    fn ports_cover(&self, other: &Self) -> bool {
        let covered = |PortRange { first, last }: &PortRange| {
            self.ports.iter().any(|range| range.first <= *first && *last <= range.last)
        };
        self.ports.is_empty() || (!other.ports.is_empty() && other.ports.iter().all(covered))
    }

    fn targets_cover(&self, other: &Self) -> bool {
        let network = |to: &IpNet| self.networks.iter().any(|network| network.contains(to));
        // A pattern covers another one as it covers a name: a star is no name, but is below the rest.
        let name = |name: &&str| self.names.iter().any(|pattern| names::covers(pattern, name));
        self.everywhere
            || (!other.everywhere
                && other.networks.iter().all(network)
                && other.names.iter().all(name))
    }

    fn senders_cover(&self, other: &Self) -> bool {
        let Some(from) = self.from else { return true };
        // If nobody can say who sends, rules for some senders match exactly if they deny.
        if self.action == Action::Allow && other.action == Action::Deny {
            return false;
        }
        match (from, other.from) {
            (Who::Daemon, Some(Who::Daemon)) => true,
            (Who::Containers(keys), Some(Who::Containers(other))) => keys.cover(other),
            _ => false,
        }
    }
}

impl Keys {
    /// Whether each container for which the other keys hold is one for which these hold.
    fn cover(&self, other: &Self) -> bool {
        // A star in the name is matched only by a star, which stands for whatever the other one stands for.
        let container = |pattern: &String, name: &String| names::glob(pattern, name);
        let label = |of: &(String, Option<String>), other: &(String, Option<String>)| {
            of.0 == other.0 && (of.1.is_none() || of.1 == other.1)
        };
        all_covered(&self.containers, &other.containers, container)
            && all_covered(&self.labels, &other.labels, label)
            && all_covered(&self.networks, &other.networks, |of, other| of == other)
            && all_covered(&self.addresses, &other.addresses, |of, other| of.contains(other))
    }
}

/// Whether one of these values covers each of the others. Without values, a key is not there, and everything is covered.
fn all_covered<T>(values: &[T], others: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    let covered = |other: &T| values.iter().any(|value| covers(value, other));
    values.is_empty() || (!others.is_empty() && others.iter().all(covered))
}

/// The same ports, as few ranges as possible.
fn merged(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut ranges = ranges.to_vec();
    ranges.sort_by_key(|range| range.first);
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}
