//! Several rules, several policies, and what they depend on.

use egress::{Action, Directory, File, Mode, Policies, Policy, Protocol, RuleId};

use crate::{attempt, container, directory, in_force, policy};

#[test]
fn the_first_rule_that_matches_decides() {
    let text = r#"
default = "deny"
[[rule]]
name = "one"
action = "deny"
to = "192.0.2.7"
[[rule]]
name = "many"
action = "allow"
to = "192.0.2.0/24"
[[rule]]
name = "never"
action = "deny"
to = "192.0.2.8"
"#;
    let policies = in_force(&[policy(text, &directory())], &directory());
    for (to, allowed, name) in
        [("192.0.2.7", false, "one"), ("192.0.2.8", true, "many"), ("192.0.3.1", false, "default")]
    {
        let decision = policies.judge(&attempt(&format!("172.17.0.2 tcp {to}:443")), &[]);
        assert_eq!(decision.is_allowed(), allowed, "{to}");
        assert_eq!(policies.name_of(decision.verdicts[0].0), name);
    }
}

#[test]
fn each_policy_has_to_allow_and_the_first_denial_counts() {
    let rule = |default: &str, action: &str, to: &str| {
        let text = format!(
            "default = \"{default}\"\n[[rule]]\nname = \"{action} {to}\"\naction = \"{action}\"\nto = \"{to}\"\n"
        );
        policy(&text, &directory())
    };
    let administrator = rule("allow", "deny", "192.0.2.0/24");
    let user = rule("deny", "allow", "192.0.0.0/16");
    let policies = in_force(&[administrator, user], &directory());
    let id = |policy, rule| RuleId { policy, rule };
    for (to, verdicts, denied_by) in [
        ("192.0.3.1", [(None, Action::Allow), (Some(0), Action::Allow)], None),
        // The user cannot loosen it.
        ("192.0.2.1", [(Some(0), Action::Deny), (Some(0), Action::Allow)], Some(id(0, Some(0)))),
        ("198.51.100.1", [(None, Action::Allow), (None, Action::Deny)], Some(id(1, None))),
    ] {
        let decision = policies.judge(&attempt(&format!("172.17.0.2 tcp {to}:443")), &[]);
        let expected: Vec<_> = verdicts
            .iter()
            .enumerate()
            .map(|(index, (rule, action))| (id(index, *rule), *action))
            .collect();
        assert_eq!(decision.verdicts, expected, "{to}");
        assert_eq!(decision.denied_by, denied_by, "{to}");
    }
    let both =
        in_force(&[rule("deny", "allow", "::1"), rule("deny", "allow", "::1")], &directory());
    let decision = both.judge(&attempt("172.17.0.2 tcp 192.0.2.1:443"), &[]);
    assert_eq!(decision.denied_by, Some(id(0, None)));
}

#[test]
fn a_dry_run_says_what_it_would_deny_and_denies_nothing() {
    let deny = "default = \"deny\"\n";
    let dry = policy(&format!("mode = \"dry-run\"\n{deny}"), &directory());
    assert_eq!(dry.mode, Mode::DryRun);
    let tcp = attempt("172.17.0.2 tcp 192.0.2.1:443");
    let id = |policy| RuleId { policy, rule: None };

    let decision = in_force(std::slice::from_ref(&dry), &directory()).judge(&tcp, &[]);
    assert!(decision.is_allowed());
    assert_eq!(decision.verdicts, [(id(0), Action::Deny)]);

    let enforced = policy(deny, &directory());
    let decision = in_force(&[dry, enforced], &directory()).judge(&tcp, &[]);
    assert_eq!(decision.denied_by, Some(id(1)));
    assert_eq!(decision.verdicts, [(id(0), Action::Deny), (id(1), Action::Deny)]);
}

#[test]
fn metadata_services_are_closed_by_a_rule_before_all_others() {
    let text = r#"
metadata = "deny"
[[rule]]
name = "everything"
action = "allow"
"#;
    let policies = in_force(&[policy(text, &directory())], &directory());
    assert_eq!(File::parse(text).unwrap().senders(), [None, None]);
    for (to, name) in [
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("169.254.170.23", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:ec2::23", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        // Azure's wire server, which also is its DHCP and DNS server.
        ("168.63.129.16", "everything"),
        ("169.254.169.253", "everything"),
    ] {
        for source in ["172.17.0.2", "172.30.0.2", "daemon"] {
            for protocol in ["tcp", "udp", "icmp"] {
                let decision = policies.judge(&attempt(&format!("{source} {protocol} {to}")), &[]);
                assert_eq!(policies.name_of(decision.verdicts[0].0), name, "{to}");
                assert_eq!(decision.is_allowed(), name == "everything", "{to}");
            }
        }
    }
}

#[test]
fn without_policies_everything_is_allowed_and_nothing_is_judged() {
    let policies = Policies::default();
    assert!(policies.is_empty() && !policies.depends_on_sender() && !policies.uses_names());
    let decision = policies.judge(&attempt("172.17.0.2 tcp 192.0.2.1:443"), &[]);
    assert!(decision.is_allowed() && decision.verdicts.is_empty());
    let unknown = RuleId { policy: 7, rule: Some(7) };
    assert_eq!(policies.name_of(unknown), "default");
}

#[test]
fn what_a_policy_depends_on_is_known() {
    for (rule, sender, names, docker) in [
        ("to = '192.0.2.0/24'", false, false, false),
        ("to = ['192.0.2.0/24', 'example.org']", true, true, false),
        ("from.daemon = true", true, false, false),
        ("from.address = '172.17.0.2'", true, false, false),
        ("from.container = 'web'", true, false, true),
        ("from.label = 'web'", true, false, true),
        ("from.network = 'web'", true, false, true),
        ("from = { address = '172.17.0.2', network = 'web' }", true, false, true),
    ] {
        let text = format!("[[rule]]\nname = \"r\"\naction = \"deny\"\n{rule}\n");
        let file = File::parse(&text).unwrap();
        assert_eq!(file.names_containers(), docker, "{rule}");
        let policies = in_force(&[file.resolve("f", &directory())], &directory());
        assert!(!policies.is_empty());
        assert_eq!(policies.depends_on_sender(), sender, "{rule}");
        assert_eq!(policies.uses_names(), names, "{rule}");
    }
}

#[test]
fn only_a_rule_that_may_match_makes_a_decision_depend_on_the_sender() {
    for (rules, may_have_names, decided) in [
        (&["to = '192.0.2.0/24'"][..], true, true),
        (&["to = ['192.0.2.0/24', 'example.org']"], true, true),
        (&["to = ['198.51.100.0/24', 'example.org']"], true, false),
        (&["to = ['198.51.100.0/24', 'example.org']"], false, true),
        (&["from.container = 'web'"], false, false),
        (&["from.container = 'web'\nto = '198.51.100.0/24'"], true, true),
        (&["from.container = 'web'\nports = 81"], true, true),
        (&["from.container = 'web'\nprotocol = 'udp'"], true, true),
        (&["from.daemon = true\nto = '192.0.2.1'"], false, false),
        (&["to = '192.0.2.1'", "from.container = 'web'"], false, true),
        (&["from.container = 'web'", "to = '192.0.2.1'"], false, false),
    ] {
        let rule = |(number, rule): (usize, &&str)| {
            format!("[[rule]]\nname = \"{number}\"\naction = \"deny\"\n{rule}\n")
        };
        let text: String = rules.iter().enumerate().map(rule).collect();
        let policies = in_force(&[policy(&text, &directory())], &directory());
        let to = "192.0.2.1".parse().unwrap();
        let decision = policies.judge_for_all(Protocol::Tcp, to, 80, may_have_names);
        assert_eq!(decision.is_some(), decided, "{rules:?} {may_have_names}");
    }
}

#[test]
fn policies_are_the_same_after_a_way_through_json() {
    let text = r#"
mode = "dry-run"
default = "deny"
metadata = "deny"
[[rule]]
name = "a \"rule\""
action = "allow"
from = { container = "*", address = "172.18.0.0/24" }
to = ["*.example.org", "10.0.0.0/8", "::1"]
protocol = ["tcp", "udp", "icmp"]
ports = [1, "8000-8100"]
[[rule]]
name = "daemon"
action = "deny"
from.daemon = true
"#;
    let policies = in_force(&[policy(text, &directory()), Policy::default()], &directory());
    assert_eq!(policies.policies[0].rules.len(), 3);
    let json = serde_json::to_string(&policies).unwrap();
    assert_eq!(serde_json::from_str::<Policies>(&json).unwrap(), policies, "{json}");
}

#[test]
fn addresses_that_make_a_network_take_one_entry() {
    let mut directory = Directory::default();
    for last in 0..=255 {
        directory.containers.push(container(
            &format!("web-{last}"),
            &[],
            &[("bridge", &format!("172.17.1.{last}"))],
        ));
    }
    let text = "[[rule]]\nname = \"r\"\naction = \"deny\"\nfrom.container = \"web-*\"\n";
    let senders = policy(text, &directory).rules[0].from.clone().unwrap();
    assert_eq!(senders.addresses, ["172.17.1.0/24".parse().unwrap()]);
}

#[test]
fn the_words_of_files_are_those_of_the_api() {
    for (word, action) in Action::WORDS {
        assert_eq!(serde_json::to_value(action).unwrap(), word);
    }
    for (word, protocol) in Protocol::WORDS {
        assert_eq!(serde_json::to_value(protocol).unwrap(), word);
    }
}
