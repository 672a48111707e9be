//! One rule and one attempt: whether it matches.

use egress::{Action, Directory, Network};

use crate::{attempt, container, directory, in_force, policy};

/// Which rules match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matches {
    Both,
    Neither,
    /// Rules that deny, because nobody knows who it is.
    Deny,
}
use Matches::{Both, Deny, Neither};

#[track_caller]
fn check(directory: &Directory, rule: &str, text: &str, names: &[&str], expected: Matches) {
    let matches = |action: &str, default: &str| {
        let file = format!(
            "default = \"{default}\"\n[[rule]]\nname = \"r\"\naction = \"{action}\"\n{rule}\n"
        );
        let policies = in_force(&[policy(&file, directory)], directory);
        let decision = policies.judge(&attempt(text), names);
        let [(id, verdict)] = decision.verdicts[..] else { panic!("{decision:?}") };
        assert_eq!(id.policy, 0);
        assert_eq!(decision.is_allowed(), verdict == Action::Allow);
        assert_eq!(decision.denied_by, (verdict == Action::Deny).then_some(id));
        let matched = id.rule == Some(0);
        assert_eq!(policies.name_of(id), if matched { "r" } else { "default" });
        let said = if verdict == Action::Allow { "allow" } else { "deny" };
        assert_eq!(said, if matched { action } else { default });
        matched
    };
    let found = match (matches("allow", "deny"), matches("deny", "allow")) {
        (true, true) => Both,
        (false, false) => Neither,
        (false, true) => Deny,
        (true, false) => panic!("{rule} lets {text} pass, but does not deny it"),
    };
    assert_eq!(found, expected, "{rule}: {text} {names:?}");
}

#[test]
fn destinations_protocols_and_ports() {
    let (web, v4, v6) = ("172.17.0.2 tcp 192.0.2.7:443", "192.0.2.7", "2001:db8::1");
    let icmp = &format!("172.17.0.2 icmp {v4}");
    let udp = &format!("172.17.0.2 udp {v4}:443");
    let over_v6 = &format!("172.17.0.2 tcp [{v6}]:443");
    let mapped = &format!("172.17.0.2 tcp [::ffff:{v4}]:443");
    let unknown = "172.17.0.99 tcp 192.0.2.7:443";
    for (rule, text, names, expected) in [
        // Without a key, it is for everything.
        ("", web, &[][..], Both),
        ("", icmp, &[], Both),
        ("", over_v6, &[], Both),
        ("", unknown, &[], Both),
        ("", "daemon udp 192.0.2.7:443", &[], Both),
        ("to = '192.0.2.7'", web, &[], Both),
        ("to = '192.0.2.7'", mapped, &[], Both),
        ("to = '::ffff:192.0.2.7'", web, &[], Both),
        ("to = '192.0.2.7'", icmp, &[], Both),
        ("to = '192.0.2.7'", unknown, &[], Both),
        ("to = '192.0.2.8'", web, &[], Neither),
        ("to = '192.0.2.0/29'", web, &[], Both),
        ("to = '192.0.2.0/30'", web, &[], Neither),
        ("to = '0.0.0.0/0'", web, &[], Both),
        ("to = '0.0.0.0/0'", over_v6, &[], Neither),
        ("to = '::/0'", over_v6, &[], Both),
        ("to = '::/0'", web, &[], Neither),
        ("to = '::/0'", mapped, &[], Neither),
        ("to = '2001:db8::/32'", over_v6, &[], Both),
        ("to = '2001:db8::/128'", over_v6, &[], Neither),
        ("to = ['198.51.100.0/24', '192.0.2.7']", web, &[], Both),
        // Names are those that the sender was given the address for.
        ("to = 'example.org'", web, &[], Neither),
        ("to = 'example.org'", web, &["example.org"], Both),
        ("to = 'example.org'", icmp, &["example.org"], Both),
        ("to = 'example.org'", web, &["EXAMPLE.org."], Both),
        ("to = 'Example.ORG.'", web, &["example.org"], Both),
        ("to = 'example.org'", web, &["www.example.org"], Neither),
        ("to = 'example.org'", web, &["example.com", "example.org"], Both),
        ("to = '*.example.org'", web, &["www.example.org"], Both),
        ("to = '*.example.org'", web, &["a.b.example.org"], Both),
        ("to = '*.example.org'", web, &["example.org"], Neither),
        ("to = '*.example.org'", web, &["wwwexample.org"], Neither),
        ("to = '*.example.org'", web, &["www.example.org.evil.com"], Neither),
        ("to = '192.0.2.7'", web, &["example.org"], Both),
        // Any of them.
        ("to = ['example.org', '192.0.2.0/24']", web, &[], Both),
        ("to = ['example.org', '198.51.100.0/24']", web, &["example.org"], Both),
        ("to = ['example.org', '198.51.100.0/24']", web, &["example.com"], Neither),
        ("protocol = 'tcp'", web, &[], Both),
        ("protocol = 'tcp'", udp, &[], Neither),
        ("protocol = 'tcp'", icmp, &[], Neither),
        ("protocol = ['udp', 'icmp']", udp, &[], Both),
        ("protocol = ['udp', 'icmp']", icmp, &[], Both),
        ("protocol = ['udp', 'icmp']", web, &[], Neither),
        ("ports = 443", web, &[], Both),
        ("ports = 443", udp, &[], Both),
        ("ports = 443", icmp, &[], Neither),
        ("ports = '1-65535'", icmp, &[], Neither),
        ("protocol = ['tcp', 'icmp']\nports = 443", icmp, &[], Neither),
        ("protocol = ['tcp', 'icmp']\nports = 443", web, &[], Both),
        ("ports = 444", web, &[], Neither),
        ("ports = '400-443'", web, &[], Both),
        ("ports = '443-500'", web, &[], Both),
        ("ports = '444-500'", web, &[], Neither),
        ("ports = '400-442'", web, &[], Neither),
        ("ports = [80, '8000-8100', 443]", web, &[], Both),
        // All keys have to hold.
        ("to = '192.0.2.7'\nprotocol = 'udp'", web, &[], Neither),
        ("to = '192.0.2.8'\nports = 443", web, &[], Neither),
        ("to = '192.0.2.7'\nprotocol = 'tcp'\nports = 443", web, &[], Both),
        ("from.container = 'web-1'\nto = '192.0.2.8'", web, &[], Neither),
    ] {
        check(&directory(), rule, text, names, expected);
    }
}

#[test]
fn senders() {
    // In `bridge` and `back`; `db` is in `back` only. The others are none that Docker lists.
    let (web, web_back, web_v6, db) = ("172.17.0.2", "172.18.0.2", "fd00::2", "172.18.0.3");
    let (new_in_bridge, new_in_back, new_v6) = ("172.17.0.99", "172.18.0.99", "fd00::99");
    let (elsewhere, daemon) = ("172.30.0.2", "daemon");
    for (from, source, expected) in [
        ("container = 'web-1'", web, Both),
        ("container = 'web-1'", web_back, Both),
        ("container = 'web-1'", web_v6, Both),
        ("container = 'web-1'", "::ffff:172.17.0.2", Both),
        ("container = 'web-1'", db, Neither),
        ("container = 'web-1'", daemon, Neither),
        ("container = 'web-1'", new_in_bridge, Deny),
        ("container = 'web-1'", elsewhere, Deny),
        ("container = 'web'", web, Neither),
        ("container = 'WEB-1'", web, Neither),
        ("container = 'web-*'", web, Both),
        ("container = '*'", db, Both),
        ("container = '*'", new_v6, Deny),
        ("container = '*'", daemon, Neither),
        ("container = ['x', 'd*b']", db, Both),
        ("container = 'gone'", web, Neither),
        ("container = 'gone'", elsewhere, Deny),
        ("label = 'tier'", web, Both),
        ("label = 'tier'", db, Both),
        ("label = 'tier'", elsewhere, Deny),
        ("label = 'tier=front'", web_v6, Both),
        ("label = 'tier=front'", db, Neither),
        ("label = 'tier='", web, Neither),
        ("label = 'team='", web, Both),
        ("label = 'team='", db, Neither),
        ("label = ['team', 'tier=store']", web, Both),
        ("label = ['team', 'tier=store']", db, Both),
        ("label = 'tie'", web, Neither),
        // An address of the network is in the network, listed or not.
        ("network = 'bridge'", web, Both),
        ("network = 'bridge'", web_back, Neither),
        ("network = 'bridge'", new_in_bridge, Both),
        ("network = 'bridge'", new_in_back, Neither),
        ("network = 'bridge'", elsewhere, Neither),
        ("network = 'bridge'", daemon, Neither),
        ("network = 'back'", web_v6, Both),
        ("network = 'back'", new_v6, Both),
        ("network = ['bridge', 'back']", db, Both),
        ("network = ['bridge', 'back']", elsewhere, Neither),
        // A network that Docker does not list (yet) can have any address.
        ("network = 'new'", web, Neither),
        ("network = 'new'", elsewhere, Deny),
        ("network = 'none'", elsewhere, Deny),
        ("network = ['bridge', 'new']", new_in_bridge, Both),
        ("network = ['bridge', 'new']", new_in_back, Deny),
        ("address = '172.17.0.2'", web, Both),
        ("address = '172.17.0.2'", web_back, Neither),
        ("address = '172.17.0.0/16'", new_in_bridge, Both),
        ("address = '172.17.0.0/16'", new_in_back, Neither),
        ("address = ['172.30.0.2', 'fd00::/64']", web_v6, Both),
        ("address = ['172.30.0.2', 'fd00::/64']", elsewhere, Both),
        ("address = '0.0.0.0/0'", daemon, Neither),
        ("daemon = true", daemon, Both),
        ("daemon = true", web, Neither),
        ("daemon = true", elsewhere, Neither),
        // All keys have to hold.
        ("container = 'web-1', network = 'back'", web_back, Both),
        ("container = 'web-1', network = 'back'", web_v6, Both),
        ("container = 'web-1', network = 'back'", web, Neither),
        ("container = 'web-1', network = 'back'", db, Neither),
        ("container = 'web-1', network = 'back'", new_in_back, Deny),
        ("container = 'web-1', network = 'back'", new_in_bridge, Neither),
        ("container = 'web-1', network = 'new'", web, Neither),
        ("container = 'web-1', network = 'new'", new_in_bridge, Deny),
        ("container = 'web-1', label = 'tier=front'", web, Both),
        ("container = 'web-1', label = 'tier=store'", web, Neither),
        ("container = 'web-1', label = 'tier=store'", db, Neither),
        ("container = '*', address = '172.18.0.0/24'", db, Both),
        ("container = '*', address = '172.18.0.0/24'", web, Neither),
        ("container = '*', address = '172.18.0.0/24'", new_in_back, Deny),
        ("container = '*', address = '172.18.0.0/24'", new_in_bridge, Neither),
        ("network = 'back', address = '172.18.0.0/30'", web_back, Both),
        ("network = 'back', address = '172.18.0.0/30'", "172.18.0.1", Both),
        ("network = 'back', address = '172.18.0.0/30'", new_in_back, Neither),
        ("network = 'back', address = '172.0.0.0/8'", new_in_back, Both),
        ("network = 'back', address = '172.0.0.0/8'", new_in_bridge, Neither),
        ("network = 'back', address = '172.17.0.0/16'", web, Neither),
        ("network = 'back', address = '172.17.0.0/16'", new_in_bridge, Neither),
        ("network = 'new', address = '172.30.0.0/16'", elsewhere, Deny),
        ("network = 'new', address = '172.30.0.0/16'", new_in_back, Neither),
        ("container = 'db', network = 'back', address = '172.17.0.0/16'", new_in_bridge, Neither),
    ] {
        let rule = format!("from = {{ {from} }}");
        check(&directory(), &rule, &format!("{source} tcp 192.0.2.7:443"), &[], expected);
    }
}

#[test]
fn without_an_answer_of_docker_rules_with_names_deny_and_do_not_allow() {
    for (from, expected) in [
        ("container = 'web-1'", Deny),
        ("label = 'tier'", Deny),
        ("network = 'bridge'", Deny),
        ("network = 'bridge', address = '172.17.0.0/16'", Deny),
        ("network = 'bridge', address = '172.18.0.0/16'", Neither),
        ("address = '172.17.0.0/16'", Both),
        ("daemon = true", Neither),
    ] {
        let rule = format!("from = {{ {from} }}");
        check(&Directory::default(), &rule, "172.17.0.2 tcp 192.0.2.7:443", &[], expected);
    }
}

/// A task of a swarm leaves through a bridge that all overlay networks have in common.
#[test]
fn senders_in_networks_that_share_their_subnets() {
    let network = |name: &str, subnet: &str, is_shared| Network {
        name: name.to_owned(),
        subnets: subnet.parse().into_iter().collect(),
        is_shared,
    };
    let (bridge, task, other, new) = ("172.18.0.0/16", "172.18.0.3", "172.18.0.4", "172.18.0.9");
    let directory = Directory {
        containers: vec![
            container("web.1.x", &[("tier", "front")], &[("back", task), ("gw", task)]),
            container("db.1.y", &[], &[("front", other), ("gw", other)]),
        ],
        networks: vec![
            network("back", bridge, true),
            network("front", bridge, true),
            network("gw", bridge, false),
            network("early", "", true),
        ],
    };
    let elsewhere = "172.17.0.2";
    for (from, source, expected) in [
        ("network = 'back'", task, Both),
        ("network = 'back'", other, Neither),
        ("network = 'back'", new, Deny),
        ("network = 'back'", elsewhere, Neither),
        ("network = ['back', 'front']", other, Both),
        ("network = ['back', 'front']", new, Deny),
        ("network = 'gw'", task, Both),
        ("network = 'gw'", new, Both),
        ("network = ['back', 'gw']", new, Both),
        ("network = ['back', 'gw']", elsewhere, Neither),
        ("network = 'early'", task, Neither),
        ("network = 'early'", new, Deny),
        ("network = 'early'", elsewhere, Deny),
        ("network = 'back'\nfrom.address = '172.18.0.0/29'", task, Both),
        ("network = 'back'\nfrom.address = '172.18.0.0/29'", new, Neither),
        ("network = 'back'\nfrom.address = '172.18.0.8/29'", task, Neither),
        ("network = 'back'\nfrom.address = '172.18.0.8/29'", new, Deny),
        ("network = 'back'\nfrom.container = 'web.*'", task, Both),
        ("network = 'front'\nfrom.container = 'web.*'", task, Neither),
        ("network = 'back'\nfrom.container = 'web.*'", other, Neither),
        ("network = 'back'\nfrom.container = 'web.*'", new, Deny),
        ("network = 'back'\nfrom.container = 'web.*'", elsewhere, Neither),
        ("container = 'web.*'", task, Both),
        ("container = 'web.*'", new, Deny),
        ("label = 'tier=front'", task, Both),
        ("label = 'tier=front'", other, Neither),
    ] {
        let text = format!("{source} tcp 192.0.2.7:443");
        check(&directory, &format!("from.{from}"), &text, &[], expected);
    }
}
