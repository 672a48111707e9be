//! Judgements about random policies, against a plain reading of the documentation.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress::{
    Action, Attempt, Mode, Policies, Policy, PortRange, Protocol, Rule, RuleId, Senders, Source,
    Target,
};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Addresses of few hosts, so that many of them meet.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..8_u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        (0..4_u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
    ]
}

fn network() -> impl Strategy<Value = IpNet> {
    (address(), 0..=3_u8).prop_map(|(address, host)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, longest - host).expect("a length").trunc()
    })
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a.org", "b.a.org", "c.b.a.org", "ba.org", "org"])
}

fn action() -> impl Strategy<Value = Action> {
    prop::sample::select(vec![Action::Allow, Action::Deny])
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp])
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        network().prop_map(Target::Network),
        name().prop_map(|name| Target::Name(name.to_owned())),
        name().prop_map(|name| Target::Name(format!("*.{name}"))),
    ]
}

fn senders() -> impl Strategy<Value = Senders> {
    (vec(network(), 0..3), any::<bool>(), any::<bool>(), vec(network(), 0..2)).prop_map(
        |(addresses, namespace, named, within)| Senders { addresses, namespace, named, within },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let ports =
        (1..6_u16, 0..3_u16).prop_map(|(first, more)| PortRange { first, last: first + more });
    let what = (vec(protocol(), 0..3), vec(ports, 0..3));
    (action(), option::of(senders()), vec(target(), 0..3), what).prop_map(
        |(action, from, to, (protocols, ports))| Rule {
            name: "rule".to_owned(),
            action,
            from,
            to,
            protocols,
            ports,
        },
    )
}

fn policies() -> impl Strategy<Value = Policies> {
    let mode = prop::sample::select(vec![Mode::Enforce, Mode::DryRun]);
    let policy = (mode, action(), vec(rule(), 0..5)).prop_map(|(mode, default, rules)| Policy {
        file: "file".to_owned(),
        mode,
        default,
        rules,
    });
    (vec(policy, 0..3), vec(address(), 0..6)).prop_map(|(policies, known)| Policies {
        policies,
        known: known.into_iter().map(|ip| (ip, ip)).collect(),
        ..Policies::default()
    })
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let source = prop_oneof![
        Just(Source::Namespace),
        Just(Source::Unknown),
        address().prop_map(Source::Container),
        address().prop_map(Source::Container),
    ];
    (source, protocol(), address(), 1..8_u16).prop_map(|(source, protocol, destination, port)| {
        Attempt { source, protocol, destination, port }
    })
}

/// Every address of some small networks.
fn all(networks: &[IpNet]) -> BTreeSet<IpAddr> {
    let last = |network: &IpNet| (network.network(), network.broadcast());
    let mut found = BTreeSet::new();
    for (first, last) in networks.iter().map(last) {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                found
                    .extend((first.to_bits()..=last.to_bits()).map(|bits| IpAddr::V4(bits.into())));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                found
                    .extend((first.to_bits()..=last.to_bits()).map(|bits| IpAddr::V6(bits.into())));
            }
            _ => unreachable!("one family"),
        }
    }
    found
}

fn is_for(rule: &Rule, source: Source, known: impl Fn(IpAddr) -> bool) -> bool {
    let Some(from) = &rule.from else { return true };
    let address = match source {
        Source::Namespace => return from.namespace,
        Source::Unknown => return rule.action == Action::Deny,
        Source::Container(address) => address,
    };
    if all(&from.addresses).contains(&address) {
        return true;
    }
    if known(address) || rule.action == Action::Allow || !from.named {
        return false;
    }
    from.within.is_empty() || all(&from.within).contains(&address)
}

fn leads_to(rule: &Rule, destination: IpAddr, names: &[&str]) -> bool {
    let mut matches = rule.to.is_empty();
    for target in &rule.to {
        match target {
            Target::Network(network) => matches |= all(&[*network]).contains(&destination),
            Target::Name(pattern) => {
                for name in names {
                    matches |= match pattern.strip_prefix("*") {
                        Some(end) => name.ends_with(end),
                        None => name == pattern,
                    };
                }
            }
        }
    }
    matches
}

fn judged(policies: &Policies, attempt: &Attempt, names: &[&str]) -> Vec<(RuleId, Action)> {
    let mut verdicts = Vec::new();
    'policies: for (policy, file) in policies.policies.iter().enumerate() {
        for (index, rule) in file.rules.iter().enumerate() {
            let protocols = &rule.protocols;
            if !(protocols.is_empty() || protocols.contains(&attempt.protocol)) {
                continue;
            }
            let ports: BTreeSet<u16> =
                rule.ports.iter().flat_map(|ports| ports.first..=ports.last).collect();
            let without_port = attempt.protocol == Protocol::Icmp;
            if !ports.is_empty() && (without_port || !ports.contains(&attempt.port)) {
                continue;
            }
            if leads_to(rule, attempt.destination, names)
                && is_for(rule, attempt.source, |ip| policies.known.contains_key(&ip))
            {
                verdicts.push((RuleId { policy, rule: Some(index) }, rule.action));
                continue 'policies;
            }
        }
        verdicts.push((RuleId { policy, rule: None }, file.default));
    }
    verdicts
}

proptest! {
    #[test]
    fn judgements_are_as_documented(
        policies in policies(),
        attempts in vec((attempt(), vec(name(), 0..3)), 1..20),
    ) {
        for (attempt, names) in attempts {
            let decision = policies.judge(&attempt, &names);
            let verdicts = judged(&policies, &attempt, &names);
            let mut denied_by = None;
            for (id, action) in verdicts.iter().rev() {
                if *action == Action::Deny && policies.policies[id.policy].mode == Mode::Enforce {
                    denied_by = Some(*id);
                }
            }
            prop_assert_eq!(&decision.verdicts, &verdicts);
            prop_assert_eq!(decision.denied_by, denied_by);
            prop_assert_eq!(decision.is_allowed(), denied_by.is_none());
        }
    }

    #[test]
    fn what_is_decided_for_all_senders_is_decided_for_each(
        policies in policies(),
        attempts in vec((attempt(), vec(name(), 0..3)), 1..20),
    ) {
        for (attempt, names) in attempts {
            let Attempt { protocol, destination, port, .. } = attempt;
            let for_all = policies.judge_for_all(protocol, destination, port, !names.is_empty());
            if let Some(decision) = for_all {
                prop_assert_eq!(decision, policies.judge(&attempt, &names));
            }
        }
    }
}
