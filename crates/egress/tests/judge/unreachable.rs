//! Rules that are said never to decide.

use std::collections::BTreeMap;

use egress::{Attempt, File, Policies, Protocol, RuleId, Source, Unreachable};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{container, directory, in_force};

/// The rule of each name, and the one that it stands behind.
fn unreachable(text: &str) -> Vec<(String, String)> {
    let all = File::parse(text).expect(text).unreachable();
    all.into_iter().map(|of| (of.rule, of.behind)).collect()
}

/// Whether the second one of two rules never decides.
fn is_behind(first: &str, second: &str) -> bool {
    let rule = |name: &str, rest: &str| {
        let action = if rest.contains("action") { "" } else { "action = \"deny\"" };
        format!("[[rule]]\nname = {name:?}\n{action}\n{rest}\n")
    };
    !unreachable(&(rule("a", first) + &rule("b", second))).is_empty()
}

#[test]
fn a_rule_behind_one_that_matches_more_never_decides() {
    for (first, second) in [
        ("", "to = \"a.org\""),
        ("", "from = { daemon = true }"),
        ("ports = [443, \"444-500\"]", "ports = \"443-450\"\nprotocol = \"tcp\""),
        ("protocol = [\"tcp\", \"udp\"]", "ports = 80"),
        ("to = [\"10.0.0.0/9\", \"10.128.0.0/9\"]", "to = [\"10.0.0.0/8\", \"10.1.1.1\"]"),
        ("to = [\"*.a.org\", \"a.org\"]", "to = [\"b.a.org\", \"*.b.a.org\", \"a.org\"]"),
        ("from = { container = \"web-*\" }", "from = { container = [\"web-1\", \"web-a-*\"] }"),
        ("from = { container = \"a\" }", "from = { container = \"a\", network = \"back\" }"),
        ("from = { label = \"tier\" }", "from = { label = \"tier=front\" }"),
        ("from = { address = \"fd00::/64\" }", "from = { address = \"fd00::1\", label = \"a\" }"),
        ("from = { daemon = true }", "from = { daemon = true }\nto = \"a.org\""),
        ("from = { network = [\"a\", \"b\"] }", "from = { network = \"a\" }\naction = \"allow\""),
    ] {
        assert!(is_behind(first, second), "{first}\n{second}");
    }
}

#[test]
fn a_rule_that_can_decide_is_not_said_never_to() {
    for (first, second) in [
        ("to = \"a.org\"", ""),
        ("to = \"a.org\"", "to = \"*.a.org\""),
        ("to = \"*.a.org\"", "to = \"a.org\""),
        ("to = \"*.a.org\"", "to = [\"b.a.org\", \"b.org\"]"),
        ("to = \"10.0.0.0/8\"", "to = \"a.org\""),
        ("to = [\"0.0.0.0/0\", \"::/0\"]", "to = \"a.org\""),
        ("ports = \"1-65535\"", "protocol = [\"tcp\", \"icmp\"]"),
        ("ports = [80, 82]", "ports = \"80-82\""),
        ("protocol = \"tcp\"", "ports = 80"),
        ("from = { daemon = true }", ""),
        ("from = { container = \"*\" }", "from = { network = \"back\" }"),
        ("from = { container = \"web-1\" }", "from = { container = \"web-*\" }"),
        ("from = { label = \"tier=front\" }", "from = { label = \"tier\" }"),
        ("from = { container = \"a\", label = \"b\" }", "from = { container = \"a\" }"),
        // Nobody can say who sends something, or Docker does not list the container.
        ("from = { daemon = true }\naction = \"allow\"", "from = { daemon = true }"),
        ("from = { container = \"a\" }\naction = \"allow\"", "from = { container = \"a\" }"),
    ] {
        assert!(!is_behind(first, second), "{first}\n{second}");
    }
}

#[test]
fn names_and_lines_of_both_rules_are_told() {
    let text = "metadata = \"deny\"\n[[rule]]\nname = \"a\"\naction = \"allow\"\nto = \"169.254.169.254\"\n\
                [[rule]]\nname = \"b\"\naction = \"deny\"\n[[rule]]\nname = \"c\"\naction = \"deny\"\n";
    let found = File::parse(text).unwrap().unreachable();
    let one = |rule: &str, line, behind: &str, behind_line| {
        let (rule, behind) = (rule.to_owned(), behind.to_owned());
        Unreachable { rule, line, behind, behind_line }
    };
    assert_eq!(found, [one("a", 3, "metadata", None), one("c", 10, "b", Some(7))]);
    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "line 3: the rule \"a\" never decides, because `metadata = \"deny\"` matches everything first\n\
             hint: remove the rule, or remove `metadata` and write rules instead",
            "line 10: the rule \"c\" never decides, because the rule \"b\" in line 7 matches everything first\n\
             hint: remove the rule, or move it before \"b\"",
        ]
    );
}

/// `key = [some of these]`, or nothing.
fn list(key: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    subsequence(values, 0..=values.len().min(3)).prop_map(move |some| match &some[..] {
        [] => String::new(),
        some => format!("{key} = {some:?}\n"),
    })
}

fn senders() -> impl Strategy<Value = String> {
    let keys = (
        list("container", &["web-1", "web-*", "*", "db", "w*"]),
        list("label", &["tier", "tier=front", "team"]),
        list("network", &["bridge", "back", "none", "gone"]),
        list(
            "address",
            &["172.17.0.0/16", "172.18.0.0/24", "172.18.0.3", "fd00::/64", "10.0.0.0/8"],
        ),
    );
    let keys = keys.prop_map(|(container, label, network, address)| {
        match container + &label + &network + &address {
            keys if keys.is_empty() => String::new(),
            keys => format!("[rule.from]\n{keys}"),
        }
    });
    prop_oneof![Just(String::new()), Just("[rule.from]\ndaemon = true\n".to_owned()), keys]
}

fn rule() -> impl Strategy<Value = String> {
    const TO: [&str; 7] =
        ["10.0.0.0/8", "10.0.0.0/9", "10.1.0.0/16", "fd00::/8", "a.org", "*.a.org", "*.b.a.org"];
    let parts = (
        select(&["allow", "deny"][..]),
        list("to", &TO),
        list("protocol", &["tcp", "udp", "icmp"]),
        list("ports", &["80", "80-90", "85-443", "443"]),
        senders(),
    );
    parts.prop_map(|(action, to, protocol, ports, from)| {
        let ports = if protocol == "protocol = [\"icmp\"]\n" { String::new() } else { ports };
        format!("action = {action:?}\n{to}{protocol}{ports}{from}")
    })
}

fn attempts() -> Vec<Attempt> {
    let sources =
        ["172.17.0.2", "172.18.0.2", "172.18.0.3", "172.18.7.7", "fd00::2", "fd00::9", "10.9.9.9"];
    let sources = sources.iter().map(|ip| Source::Container(ip.parse().unwrap()));
    let mut all = Vec::new();
    for source in sources.chain([Source::Namespace, Source::Unknown]) {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            for destination in ["10.1.0.1", "10.200.0.1", "192.0.2.1", "fd00::1"] {
                let destination = destination.parse().unwrap();
                let ports = [0, 79, 80, 85, 90, 91, 443, 444];
                all.extend(ports.map(|port| Attempt { source, protocol, destination, port }));
            }
        }
    }
    all
}

proptest! {
    #[test]
    fn what_is_said_never_to_decide_never_decides(
        rules in proptest::collection::vec(rule(), 2..5), metadata: bool, few_containers: bool,
    ) {
        let mut text = if metadata { "metadata = \"deny\"\n" } else { "" }.to_owned();
        for (name, rule) in rules.iter().enumerate() {
            text += &format!("[[rule]]\nname = \"{name}\"\n{rule}");
        }
        let file = File::parse(&text).expect(&text);
        let found = file.unreachable();
        let mut directory = directory();
        if few_containers {
            directory.containers = vec![container("web-2", &[], &[("back", "172.18.0.2")])];
            directory.networks.retain(|network| network.name != "bridge");
        }
        let policy = file.resolve("a.toml", &directory);
        let place: BTreeMap<_, _> =
            policy.rules.iter().enumerate().map(|(place, rule)| (rule.name.clone(), place)).collect();
        let places: Vec<usize> = found.iter().map(|of| place[&of.rule]).collect();
        let in_force: Policies = in_force(&[policy], &directory);
        for attempt in if found.is_empty() { Vec::new() } else { attempts() } {
            for names in [&[][..], &["a.org"], &["x.a.org"], &["x.b.a.org", "c.org"]] {
                let (RuleId { rule, .. }, _) = in_force.judge(&attempt, names).verdicts[0];
                prop_assert!(!rule.is_some_and(|rule| places.contains(&rule)), "{text}\n{found:?}\n{attempt:?} {names:?}");
            }
        }
    }
}
