//! What the rules say about an attempt, and in which words.

use std::net::Ipv4Addr;

use anyhow::bail;
use egress::{Action, Attempt, Decision, Policies, Protocol, RuleId, Source, Target};

use super::destination::Destination;
use crate::visible::visible;

/// A decision, and what could decide otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) decision: Decision,
    /// The first rule with a host name that decides instead if the sender was given the address for that name.
    by_name: Option<RuleId>,
}

/// Judges an attempt.
///
/// # Errors
/// The decision on a name depends on its address.
pub(super) fn judge(
    policies: &Policies,
    source: Source,
    protocol: Protocol,
    destination: &Destination,
    port: u16,
) -> anyhow::Result<Judged> {
    let (address, name) = match destination {
        Destination::Address(address) => (*address, None),
        Destination::Name(name) => (Ipv4Addr::UNSPECIFIED.into(), Some(&**name)),
    };
    let attempt = Attempt { source, protocol, destination: address, port };
    let names: Vec<&str> = name.into_iter().collect();
    let open = if name.is_some() { is_network } else { is_name };
    let decision = matching(policies, open, |_, _| false).judge(&attempt, &names);
    // What would decide otherwise if the name had such an address, or the address such a name.
    let contrary = |policy: usize, action| {
        decision.verdicts.get(policy).is_some_and(|(_, decided)| *decided != action)
    };
    let other = matching(policies, open, contrary).judge(&attempt, &names);
    let mut both = decision.verdicts.iter().zip(&other.verdicts);
    let other = both.find(|(decided, other)| decided != other).map(|(_, (id, _))| *id);
    if let (Some(_), Some(id)) = (name, other) {
        bail!(
            "cannot tell: {} has addresses, so the decision depends on the address of the name\n\
             hint: ask again with an address of the name",
            visible(&called(policies, id))
        );
    }
    Ok(Judged { decision, by_name: other })
}

fn is_network(target: &Target) -> bool {
    matches!(target, Target::Network(_))
}

fn is_name(target: &Target) -> bool {
    matches!(target, Target::Name(_))
}

/// The same rules, by their places, but those that have an `open` target match either every destination by it or none, as
/// `all` says for the place of the policy and the action.
fn matching(
    policies: &Policies,
    open: fn(&Target) -> bool,
    all: impl Fn(usize, Action) -> bool,
) -> Policies {
    let mut policies = policies.clone();
    for (index, policy) in policies.policies.iter_mut().enumerate() {
        for rule in policy.rules.iter_mut().filter(|rule| rule.to.iter().any(open)) {
            if all(index, rule.action) {
                rule.to.clear();
            }
            for target in rule.to.iter_mut().filter(|target| open(target)) {
                // No name is empty.
                *target = Target::Name(String::new());
            }
        }
    }
    policies
}

/// A rule, or a default, and its file.
fn called(policies: &Policies, id: RuleId) -> String {
    let file = policies.policies.get(id.policy).map_or("", |policy| &policy.file);
    match id.rule {
        Some(_) => format!("rule {:?} of {file}", policies.name_of(id)),
        None => format!("the default of {file}"),
    }
}

/// The decision in words, on lines.
pub(super) fn told(policies: &Policies, judged: &Judged) -> String {
    let by = |id: &RuleId| called(policies, *id);
    let decision = &judged.decision;
    let allowing = decision.verdicts.iter().filter(|(_, action)| *action == Action::Allow);
    let allowing: Vec<_> = allowing.map(|(id, _)| by(id)).collect();
    let mut text = match (&decision.denied_by, &allowing[..]) {
        (Some(id), _) => format!("denied by {}\n", by(id)),
        (None, []) => "allowed\n".to_owned(),
        (None, allowing) => format!("allowed by {}\n", allowing.join(" and ")),
    };
    if let Some(id) = &decision.dry_run {
        text += &format!("note: without dry-run mode, it would be denied by {}\n", by(id));
    }
    if let Some(id) = &judged.by_name {
        text += &format!(
            "note: {} decides instead if the sender got this address by looking up a name that the rule matches\n",
            by(id)
        );
    }
    text
}
