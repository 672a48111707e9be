mod hints;

use super::*;

/// A file with a good rule, the fourth line of which is for the test.
fn with(line: &str) -> String {
    format!("default = \"deny\"\n\n[[rule]]\n{line}\nname = \"a\"\naction = \"allow\"\n")
}

/// Checks the line, the problem and the hint.
#[track_caller]
fn refused(text: &str, line: usize, problem: &str, hint: &str) {
    let error = File::parse(text).expect_err(text);
    assert_eq!(error.line, line, "{text}\n{error}");
    assert!(error.problem.contains(problem), "{text}\n{error}");
    assert!(error.hint.contains(hint), "{text}\n{error}");
    assert!(!error.problem.contains(char::is_control), "{error:?}");
}

#[test]
fn the_example_of_the_documentation_means_what_it_says() {
    let text = r#"
mode = "dry-run"
default = "deny"
metadata = "deny"

[[rule]]
name = "registry"
action = "allow"
from = { container = "web" }
to = ["Registry.example.org.", "*.example.org", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::ffff:192.0.2.8"]
protocol = "tcp"
ports = [443, "8000-8100", "22"]

[[rule]]
name = "the rest"
action = "deny"
protocol = ["udp", "icmp"]

[rule.from]
container = ["db-*", "cache"]
label = ["tier", "env=prod=1"]
network = "back"
address = ["172.18.0.0/16", "fd00::7"]

[[rule]]
name = "daemon"
action = "allow"
from.daemon = true
ports = 80
"#;
    let file = File::parse(text).unwrap();
    assert_eq!(
        (file.mode, file.default, file.metadata),
        (Mode::DryRun, Action::Deny, Action::Deny)
    );
    let network = |text: &str| Target::Network(text.parse().unwrap());
    let range = |first, last| PortRange { first, last };
    let registry = Written {
        name: "registry".into(),
        line: 7,
        action: Action::Allow,
        from: Some(Who::Containers(Keys { containers: vec!["web".into()], ..Keys::default() })),
        to: vec![
            Target::Name("registry.example.org".into()),
            Target::Name("*.example.org".into()),
            network("10.0.0.0/8"),
            network("192.0.2.7/32"),
            network("2001:db8::/32"),
            network("192.0.2.8/32"),
        ],
        protocols: vec![Protocol::Tcp],
        ports: vec![range(443, 443), range(8000, 8100), range(22, 22)],
    };
    let rest = Written {
        name: "the rest".into(),
        line: 15,
        action: Action::Deny,
        from: Some(Who::Containers(Keys {
            containers: vec!["db-*".into(), "cache".into()],
            labels: vec![("tier".into(), None), ("env".into(), Some("prod=1".into()))],
            networks: vec!["back".into()],
            addresses: vec!["172.18.0.0/16".parse().unwrap(), "fd00::7/128".parse().unwrap()],
        })),
        to: vec![],
        protocols: vec![Protocol::Udp, Protocol::Icmp],
        ports: vec![],
    };
    let daemon = Written {
        name: "daemon".into(),
        line: 26,
        action: Action::Allow,
        from: Some(Who::Daemon),
        to: vec![],
        protocols: vec![],
        ports: vec![range(80, 80)],
    };
    assert_eq!(file.rules, [registry, rest, daemon]);
    assert_eq!(file.rules(), 3);
    let rest =
        "container db-*,cache label tier,env=prod=1 network back address 172.18.0.0/16,fd00::7";
    let senders = ["container web", rest, "daemon"];
    let senders = std::iter::once(None).chain(senders.map(|text| Some(text.to_owned())));
    assert_eq!(file.senders(), senders.collect::<Vec<_>>());
    let to: Vec<_> = file.rules[0].to.iter().map(Target::to_string).collect();
    let written =
        ["registry.example.org", "*.example.org", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32"];
    assert_eq!(to[..5], written);
    let ports: Vec<_> = file.rules[0].ports.iter().map(PortRange::to_string).collect();
    assert_eq!(ports, ["443", "8000-8100", "22"]);
}

#[test]
fn what_is_not_written_is_allowed_and_enforced() {
    for text in [
        "default = \"allow\"\n",
        "rule = []\n",
        "mode = \"enforce\"\ndefault = \"allow\"\nmetadata = \"allow\"\nrule = []\n",
    ] {
        let file = File::parse(text).unwrap();
        let open = (Mode::Enforce, Action::Allow, Action::Allow);
        assert_eq!((file.mode, file.default, file.metadata), open);
        assert_eq!(file.rules, []);
    }
}

#[test]
fn errors_have_a_line_a_reason_and_a_hint() {
    for (text, line, problem, hint) in [
        ("", 1, "the file is empty", "write `default = \"allow\"` if"),
        ("\n\n# nothing\n \n", 1, "the file is empty", "reach everything"),
        ("\u{feff}", 1, "the file is empty", "reach everything"),
        ("mode = ", 1, "", "[[rule]]"),
        ("\n\ndefault = allow\n", 3, "", "double quotes"),
        ("mode = \"enforce\"\nmode = \"enforce\"\n", 2, "duplicate key", ""),
        ("\nmode = \"enforced\"\n", 2, "\"enforced\" is not a valid value", "write \"enforce\" or"),
        ("mode = \"dry\"\n", 1, "\"dry\"", "write \"enforce\" or \"dry-run\""),
        ("mode = \"x\\ny\"\n", 1, r#""x\ny""#, "write"),
        ("default = true\n", 1, "`default` cannot be of type boolean", "\"allow\" or \"deny\""),
        ("\ndefault = \"Allow\"\n", 2, "\"Allow\"", "write \"allow\""),
        ("metadata = \"block\"\n", 1, "\"block\"", "\"allow\" or \"deny\""),
        (
            "\ndefalt = \"deny\"\n",
            2,
            "\"defalt\" is not a valid key here",
            "did you mean `default`?",
        ),
        ("colour = 1\n", 1, "\"colour\"", "mode, default, metadata, rule"),
        ("z = 1\nb = 1\n", 1, "\"z\"", "mode, default, metadata, rule"),
        ("\n[rule]\nname = \"a\"\n", 2, "`rule` is not a list", "[[rule]]"),
        ("rule = [1]\n", 1, "`rule` cannot be of type integer", "keys and values"),
        ("rule = [\"*\"]\n", 1, "`rule` cannot be of type string", "keys and values"),
        ("[[rules]]\n", 1, "\"rules\"", "write [[rule]]"),
        ("\n[[rule]]\n\naction = \"deny\"\n", 2, "this rule has no `name`", "name ="),
        ("\n\n[[rule]]\nname = \"a\"\n", 3, "this rule has no `action`", "action ="),
        ("[[rule]]\naction = \"deny\"\nname = \"default\"\n", 3, "\"default\" cannot", "another"),
        (
            "[[rule]]\nname = \"a\"\naction = \"deny\"\n[[rule]]\nname = \"a\"\naction = \"deny\"\n",
            5,
            "\"a\" is already the name of the rule in line 2",
            "a unique name",
        ),
        (
            "metadata = \"deny\"\n[[rule]]\nname = \"metadata\"\naction = \"allow\"\n",
            3,
            "adds",
            "another name",
        ),
    ] {
        refused(text, line, problem, hint);
    }
}

#[test]
fn errors_in_a_rule_have_its_line() {
    let long_label = format!("to = \"{}.org\"", "a".repeat(64));
    let long_name = format!("to = \"{}org\"", "abcdefg.".repeat(32));
    for (line, problem, hint) in [
        ("port = 1", "\"port\" is not a valid key here", "did you mean `ports`?"),
        ("protocols = \"tcp\"", "\"protocols\"", "did you mean `protocol`?"),
        ("prot = \"tcp\"", "\"prot\"", "did you mean `protocol`?"),
        ("form = { daemon = true }", "\"form\"", "did you mean `from`?"),
        ("whatever = 1", "\"whatever\"", "valid keys are name, action, from, to"),
        ("protocol = \"TCP\"", "\"TCP\"", "write \"tcp\""),
        ("protocol = \"sctp\"", "\"sctp\"", "\"tcp\""),
        ("protocol = [\"tcp\", 6]", "`protocol` cannot be of type integer", "double quotes"),
        ("protocol = []", "`protocol` is an empty list", "remove `protocol`"),
        ("ports = 0", "\"0\" is neither a port", "1 to 65535"),
        ("ports = 65536", "\"65536\"", "1 to 65535"),
        ("ports = -1", "\"-1\"", "1 to 65535"),
        ("ports = 0x50", "type integer", ""),
        ("ports = 44.3", "type float", ""),
        ("ports = \"https\"", "\"https\"", "443"),
        ("ports = \"1-2-3\"", "\"1-2-3\"", "443"),
        ("ports = [443, \"90-80\"]", "\"90-80\" ends before it begins", "write \"80-90\""),
        ("ports = []", "`ports` is an empty list", "remove `ports`"),
        ("to = []", "`to` is an empty list", "remove `to`"),
        ("to = 1", "`to` cannot be of type integer", "double quotes"),
        ("to = [[\"a.org\"]]", "type array", "double quotes"),
        ("to = { a = 1 }", "type table", "double quotes"),
        ("to = \"\"", "\"\" is not a host name", "1 to 63"),
        ("to = \".\"", "\".\" is not a host name", "1 to 63"),
        ("to = \"*\"", "\"*\" is not a host name", "remove `to`"),
        ("to = \"*.\"", "is not a host name", ""),
        ("to = \"*example.org\"", "can have a * only", "*.example.org"),
        ("to = \"www.*.org\"", "can have a * only", "*.example.org"),
        ("to = \"*.*.org\"", "can have a * only", "*.example.org"),
        ("to = \"a..org\"", "\"a..org\"", "1 to 63"),
        (&long_label, "a label is empty or too long", "1 to 63"),
        (&long_name, "longer than 253", "shorter"),
        ("to = \"a b.org\"", "\"a b.org\" is not a host name", "no spaces"),
        ("to = \"bücher.example\"", "not in ASCII", "xn--"),
        ("to = \"https://example.org/\"", "is a URL", "only the host name"),
        ("to = \"example.org:443\"", "neither an address nor a host name", "`ports = 443`"),
        ("to = \"[::1]\"", "neither an address nor a host name", "without brackets"),
        ("to = \"10.0.0.256\"", "neither an IP address", "192.0.2.7"),
        ("to = \"10.1\"", "neither an IP address", "192.0.2.7"),
        ("to = \"10.0.0.0/33\"", "neither an IP address nor a network", "10.0.0.0/8"),
        ("to = \"example.org/24\"", "neither an IP address nor a network", "10.0.0.0/8"),
        (
            "to = \"10.0.0.5/8\"",
            "an address within a network",
            "write 10.0.0.0/8 for the network, or 10.0.0.5",
        ),
        ("to = \"::ffff:10.0.0.0/104\"", "an IPv4-mapped IPv6 network", "the IPv4 network"),
        ("from = \"web\"", "`from` cannot be of type string", "{ container = \"web\" }"),
        ("from = {}", "`from` is empty", "remove `from`"),
        ("from = { containers = \"web\" }", "\"containers\"", "did you mean `container`?"),
        ("from = { user = \"web\" }", "\"user\"", "container, label, network, address, daemon"),
        ("from = { container = \"/web\" }", "begins with a slash", "write \"web\""),
        ("from = { container = \"a b\" }", "not a valid container name", "web-*"),
        ("from = { container = \"\" }", "not a valid container name", "web-*"),
        ("from = { container = [] }", "`container` is an empty list", "remove `container`"),
        ("from = { label = \"=x\" }", "a label without a key", "key=value"),
        ("from = { network = \"host\" }", "\"host\"", "daemon = true"),
        ("from = { network = \"back*\" }", "\"back*\"", "docker network ls"),
        ("from = { network = \" \" }", "not a network name", "docker network ls"),
        ("from = { address = \"web\" }", "neither an IP address", "192.0.2.7"),
        ("from = { daemon = false }", "`daemon` must be true", "remove the key"),
        ("from = { daemon = \"yes\" }", "`daemon` must be true", "daemon = true"),
        ("from = { daemon = true, container = \"a\" }", "combined with other keys", "another one"),
    ] {
        refused(&with(line), 4, problem, hint);
    }
    let text = "\"\"\"\na\n\n\n\"\"\"";
    refused(&with(&format!("to = [\n  \"a.org\",\n\n  {text},\n]")), 7, "is not a host name", "");
    for protocol in ["\"icmp\"", "[\"icmp\", \"icmp\"]"] {
        let text = with(&format!("protocol = {protocol}\nports = 1"));
        refused(&text, 5, "`ports` with the protocol \"icmp\" matches nothing", "remove `ports`");
    }
    assert!(File::parse(&with("protocol = [\"icmp\", \"udp\"]\nports = 53")).is_ok());
}

#[test]
fn names_of_rules_are_1_to_64_characters_without_control_characters() {
    let named = |name: &str| format!("[[rule]]\naction = \"deny\"\nname = \"{name}\"\n");
    for name in ["ä".repeat(64).as_str(), "a", "Web → registry", "metadata"] {
        assert_eq!(File::parse(&named(name)).unwrap().rules[0].name, name);
    }
    refused(&named(""), 3, "\"\" is empty", "1 to 64");
    refused(&named(&"ä".repeat(65)), 3, "longer than 64", "1 to 64");
    refused(&named("a\\tb"), 3, r#""a\tb" contains a control character"#, "1 to 64");
    refused(&named(&"a".repeat(999)), 3, "…", "1 to 64");
}

#[test]
fn host_names_are_as_long_as_dns_allows() {
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert_eq!(name.len(), 253);
    for name in [&name, "localhost", "_dmarc.a-b.org", "*.org", "1.2.3.4.in-addr.arpa", "3com.com"]
    {
        let file = File::parse(&with(&format!("to = \"{name}.\""))).unwrap();
        assert_eq!(file.rules[0].to, [Target::Name(name.to_owned())]);
    }
}

#[test]
fn sizes_are_bounded() {
    let rules = |count: usize, line: &str| -> String {
        let rule = |index| format!("[[rule]]\nname = \"{index}\"\naction = \"deny\"\n{line}\n");
        (0..count).map(rule).collect()
    };
    assert_eq!(File::parse(&rules(1000, "")).unwrap().rules(), 1000);
    refused(&rules(1001, ""), 4001, "more than 1000 rules", "fewer");

    let list = |count: usize| format!("ports = [{}]", "1,".repeat(count));
    assert!(File::parse(&rules(100, &list(100))).is_ok());
    refused(&rules(1, &list(101)), 4, "101 entries, more than 100", "two rules");
    let more = "[[rule]]\nname = \"more\"\naction = \"deny\"\nto = \"a.org\"\n";
    refused(&(rules(100, &list(100)) + more), 404, "more than 10000 entries", "networks");

    let comment = |length: usize| format!("rule=[]#{}", "x".repeat(length - 8));
    assert!(File::parse(&comment(File::MAX_LENGTH)).is_ok());
    refused(&comment(File::MAX_LENGTH + 1), 1, "1048577 bytes", "fewer");
}

#[test]
fn errors_are_shown_as_two_lines() {
    let error = File::parse("mode = \"dryrun\"\n").unwrap_err();
    let shown = "line 1: \"dryrun\" is not a valid value for this key\n\
                 hint: write \"enforce\" or \"dry-run\"";
    assert_eq!(error.to_string(), shown);
}

/// Pieces that files are made of, so that random ones get further than the first byte.
const PIECES: &[&str] = &[
    "[[rule]]\n",
    "[rule]\n",
    "[rule.from]\n",
    "name",
    "action",
    "from",
    "to",
    "protocol",
    "ports",
    "mode",
    "default",
    "metadata",
    "container",
    "label",
    "network",
    "address",
    "daemon",
    " = ",
    "\"allow\"",
    "\"deny\"",
    "\"a\"",
    "\"*.example.org\"",
    "\"10.0.0.0/8\"",
    "\"1-65535\"",
    "443",
    "true",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ".",
    "\n",
    "\"",
    "'''",
    "\"ä\\u0000\"",
    "1979-05-27",
    "inf",
    "#",
    "\r",
    "\u{feff}",
    "\u{a0}",
    "“",
    "-",
    "0x",
    "*",
];

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(
        text in ".*",
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60),
    ) {
        for text in [text, pieces.concat()] {
            match File::parse(&text) {
                Ok(file) => assert!(file.rules() <= text.len()),
                Err(error) => {
                    assert!((1..=text.matches('\n').count() + 1).contains(&error.line), "{error:?}");
                    assert!(!error.problem.is_empty() && !error.hint.is_empty(), "{error:?}");
                    assert!(!error.problem.contains(char::is_control), "{error:?}");
                }
            }
        }
    }
}
