mod attempts;

use std::fs;

use api::policy::{GatewayNetwork, PolicyFile, PolicyGateway, PolicyRule, PolicyStatus};
use egress::{Action, Directory};

use super::*;
use crate::ctl::tests::{Server, run_with};

const FILE: &str = r#"
default = "deny"
[[rule]]
name = "registry"
action = "allow"
from = { address = "172.18.0.0/16" }
to = ["*.example.org", "192.0.2.0/24"]
ports = 443
"#;

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What `policy test` prints, with its exit status: on standard output and standard error.
fn tried(socket: &Path, words: &str) -> (u8, String, String) {
    let definition = crate::ctl::command::definition();
    let policy = definition.find_subcommand("policy").unwrap();
    let command = policy.find_subcommand("test").unwrap().clone();
    let arguments = words.split(' ').map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let socket = || Ok(socket.to_owned());
    let code = test(policy, command, arguments, socket, &Env::default(), (&mut out, &mut err));
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn files_are_checked_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let good = file(&dir, "good", FILE);
    let none = file(&dir, "none", "mode = \"dry-run\"");
    let bad = file(&dir, "bad", "mode = 1\n");
    let run = |args: &[&str]| run_with(args, &Env::default());
    let expected = format!(
        "{good}: 1 rule, default deny, enforced\n{none}: 0 rules, default allow, dry run\n"
    );
    assert_eq!(run(&["policy", "check", &good, &none]), (Ok(0), expected.clone()));
    // The others are looked at, too.
    assert_eq!(run(&["policy", "check", &bad, &good, &none]), (Ok(1), expected));

    let default = |vars: &[(&str, &str)]| {
        let mut out = Vec::new();
        let env = vars.iter().copied().collect();
        let code = check(dir.path(), &[], &env, (&mut out, &mut io::sink())).unwrap();
        (code, String::from_utf8(out).unwrap())
    };
    const NAMED: &str = hostenv::vars::DOCKERD_ROOTLESS_EGRESS_POLICY;
    let checked = |file: &str| (0, format!("{file}: 1 rule, default deny, enforced\n"));
    assert_eq!(default(&[(NAMED, &good)]), checked(&good));

    // It says where it has looked, and there it looks.
    let root = dir.path().display();
    let system = format!("{root}/etc/docker-rootless/egress.toml");
    let user = format!("{root}/home/.config/docker-rootless/egress.toml");
    let home = format!("{root}/home");
    let none = |text: String| (0, format!("no egress policy: {text}\n"));
    let vars = [("HOME", &*home)];
    assert_eq!(default(&vars), none(format!("neither {system} nor {user} exists")));
    assert_eq!(
        default(&[(NAMED, "")]),
        none(format!("{system} does not exist, and {NAMED} is empty"))
    );
    let (code, text) = default(&[]);
    let nobody =
        format!("no egress policy: {system} does not exist, and your own file cannot be found: ");
    assert!(code == 0 && text.starts_with(&nobody), "{text}");
    for path in [&user, &system] {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, FILE).unwrap();
        assert_eq!(default(&vars), checked(path));
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn rules_that_never_decide_are_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |name: &str, to: &str| {
        format!("[[rule]]\nname = {name:?}\naction = \"allow\"\nto = {to:?}\n")
    };
    let text = rule("all", "10.0.0.0/8") + &rule("one", "10.1.0.0/16") + &rule("b", "a.org");
    let path = file(&dir, "e.toml", &text);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let files = [OsString::from(&path)];
    let code = check(dir.path(), &files, &Env::default(), (&mut out, &mut err)).unwrap();
    let [out, err] = [out, err].map(|text| String::from_utf8(text).unwrap());
    assert_eq!((code, out), (0, format!("{path}: 3 rules, default allow, enforced\n")));
    let expected = format!(
        "warning: egress policy {path}: line 6: the rule \"one\" never decides, because the rule \"all\" in line 2 matches \
         everything first\nhint: remove the rule, or move it before \"all\"\n"
    );
    assert_eq!(err, expected);
}

#[test]
fn attempts_are_tried_on_files_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "e.toml", FILE);
    let dry = file(&dir, "dry.toml", "mode = \"dry-run\"\ndefault = \"deny\"\n");
    let test = |words: &str| {
        let mut args = vec!["policy", "test", "--file", &path];
        args.extend(words.split(' '));
        run_with(&args, &Env::default())
    };
    let rule = format!("rule \"registry\" of {path}");
    let default = format!("denied by the default of {path}\n");
    for (words, code, text) in [
        ("--from 172.18.0.9 --to 192.0.2.7:443", 0, format!("allowed by {rule}\n")),
        ("--from 172.18.0.9 --to 192.0.2.7:80", 1, default.clone()),
        ("--from 172.18.0.9 --to 192.0.2.7 --protocol icmp", 1, default.clone()),
        ("--from daemon --to 192.0.2.7:443", 1, default),
    ] {
        assert_eq!(test(words), (Ok(code), text), "{words}");
    }
    let named = test("--from 172.18.0.9 --to www.EXAMPLE.org:443");
    assert_eq!(named, (Ok(0), format!("allowed by {rule}\n")));
    let (code, text) = test(&format!("--file {dry} --from 172.18.0.9 --to 192.0.2.7:443"));
    let expected = format!(
        "allowed by {rule}\nnote: without dry-run mode, it would be denied by the default of {dry}\n"
    );
    assert_eq!((code, text), (Ok(0), expected));
    // A wrong question is no denial.
    for words in [
        "--from 172.18.0.9",
        "--to 192.0.2.7:443",
        "--from daemon --to 192.0.2.7",
        "--from daemon --to 192.0.2.7:443 --protocol sctp",
        "--from daemon --to 192.0.2.7:443 more",
        "--from nobody --to 192.0.2.7:443",
        "--unknown",
    ] {
        assert_eq!(test(words).0, Ok(2), "{words}");
    }
}

#[test]
fn wrong_questions_get_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "e.toml", "default = \"allow\"");
    let no_docker = dir.path().join(api::SOCKET_NAME);
    let test = |words: &str| tried(&no_docker, &format!("--file {path} {words}"));
    for (words, part) in [
        (
            "--from daemon --to 192.0.2.7:443 --to 192.0.2.8:443",
            "error: --to can be used only once\nhint: ",
        ),
        (
            "--from daemon --from daemon --to 192.0.2.7:443",
            "error: --from can be used only once\nhint: ",
        ),
        ("--from 172.18.0.0/16 --to 192.0.2.7:443", "this is a network\nhint: use a single"),
        ("--from web --to 192.0.2.7:443", "\nhint: start Docker, or use an address or daemon\n"),
        ("--from Dockerd --to 192.0.2.7:443", "\nhint: did you mean daemon?\n"),
        ("--from daemon --to 300.0.2.2:443", "\nhint: write an address"),
        ("--from daemon --to example.org:0", "0 is not a port\nhint: "),
    ] {
        let (code, text, error) = test(words);
        assert!(code == 2 && text.is_empty() && error.contains(part), "{words}: {text}{error}");
    }
    let allowed = (0, format!("allowed by the default of {path}\n"), String::new());
    assert_eq!(test("--from daemon --to 192.0.2.7:443 --protocol TCP"), allowed);
}

#[test]
fn a_rule_for_addresses_that_may_decide_on_a_name_leaves_the_answer_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        &dir,
        "e.toml",
        r#"
metadata = "deny"
[[rule]]
name = "both"
action = "allow"
from = { daemon = true }
to = ["example.org", "192.0.2.0/24"]
protocol = "tcp"
[[rule]]
name = "denied"
action = "deny"
to = "example.net"
[[rule]]
name = "late"
action = "deny"
to = "192.0.2.0/24"
"#,
    );
    let loose = file(
        &dir,
        "loose.toml",
        r#"
[[rule]]
name = "d"
action = "deny"
to = "192.0.2.0/24"
ports = 443
[[rule]]
name = "n"
action = "allow"
to = "example.org"
"#,
    );
    let test = |file: &str, words: &str| tried(dir.path(), &format!("--file {file} {words}"));
    let open = |file: &str, rule: &str| {
        let text = format!(
            "error: cannot tell: rule \"{rule}\" of {file} has addresses, so the decision depends on the address of the name\n\
             hint: ask again with an address of the name\n"
        );
        (2, String::new(), text)
    };
    let answer = |code: u8, text: String| (code, text, String::new());
    // Before a rule that decides otherwise, for this sender, protocol and port.
    assert_eq!(test(&path, "--from daemon --to example.org:443"), open(&path, "metadata"));
    assert_eq!(test(&path, "--from daemon --to example.net:443"), open(&path, "both"));
    assert_eq!(test(&loose, "--from daemon --to example.org:443"), open(&loose, "d"));
    assert_eq!(test(&loose, "--from daemon --to example.com:443"), open(&loose, "d"));
    // For another sender, another protocol, another port, or with the same answer.
    let denied = answer(1, format!("denied by rule \"denied\" of {path}\n"));
    assert_eq!(test(&path, "--from 172.18.0.9 --to example.net:443"), denied);
    assert_eq!(test(&path, "--from daemon --to example.net:443 --protocol udp"), denied);
    let allowed = answer(0, format!("allowed by rule \"n\" of {loose}\n"));
    assert_eq!(test(&loose, "--from daemon --to example.org:80"), allowed);
    assert_eq!(test(&loose, "--from daemon --to example.org --protocol icmp"), allowed);
}

#[test]
fn the_policy_in_force_is_shown_and_tried() {
    let policy = egress::File::parse(FILE).unwrap().resolve("/e.toml", &Directory::default());
    let rule = |rule: &egress::Rule| PolicyRule { rule: rule.clone(), senders: None, matched: 5 };
    let status = PolicyStatus {
        files: vec![PolicyFile {
            file: policy.file,
            default: policy.default,
            rules: policy.rules.iter().map(rule).collect(),
            ..PolicyFile::default()
        }],
        gateway: Some(gateway()),
        ..PolicyStatus::default()
    };
    assert_eq!(status.files[0].default, Action::Deny);
    let server = Server::with_policy(Some(status.clone()));
    let table = server.ok(&["policy", "show"]);
    assert!(
        table.contains("\n1  /e.toml  registry  allow ") && table.contains("  5\n-  "),
        "{table}"
    );
    assert_eq!(server.ok(&["policy", "show", "--json"]), api::types::to_json(&status) + "\n");
    let test = ["policy", "test", "--from", "172.18.0.9", "--to", "192.0.2.7:443"];
    assert_eq!(server.ok(&test), "allowed by rule \"registry\" of /e.toml\n");
    let test = |to| server.run(&["policy", "test", "--from", "daemon", "--to", to]);
    let (code, text) = test("10.0.2.3:53");
    assert!(code == Ok(0) && text.starts_with("allowed: this is the name server"), "{text}");
    let (error, _) = server.run(&["policy", "show", "more"]);
    assert!(error.unwrap_err().contains("takes no arguments"));

    let mut outdated = status.clone();
    outdated.files[0].error = Some("line 3: no".to_owned());
    let server = Server::with_policy(Some(outdated));
    let warning = "warning: the current version of /e.toml is not in force: line 3: no\n";
    assert!(server.ok(&["policy", "show"]).ends_with(warning));
    let (code, text, said) = tried(&server.socket(), "--from daemon --to 192.0.2.7:443");
    assert_eq!((code, &*text, &*said), (1, "denied by the default of /e.toml\n", warning));

    let server = Server::with_policy(None);
    let (error, _) = server.run(&["policy", "show"]);
    assert!(error.unwrap_err().starts_with("no egress policy is in force\nhint: "));
    let test = ["policy", "test", "--from", "daemon", "--to", "192.0.2.7:443"];
    assert_eq!(server.run(&test).0, Ok(2));
}

/// One that opens two ports of the host's loopback.
fn gateway() -> PolicyGateway {
    let [child, gateway, dns] =
        ["10.0.2.100", "10.0.2.2", "10.0.2.3"].map(|ip| ip.parse().unwrap());
    let port = |port| vec![egress::PortRange { first: port, last: port }];
    PolicyGateway {
        networks: vec![GatewayNetwork { child, gateway, dns, prefix: 24 }],
        loopback_tcp: port(5432),
        loopback_udp: port(53),
    }
}

#[cfg(feature = "gateway")]
#[test]
fn an_attempt_is_denied_by_the_gateway_by_the_policy_or_by_both() {
    let open = "[[rule]]\nname = \"host\"\naction = \"allow\"\nto = \"10.0.2.2\"\n";
    let text = format!("default = \"deny\"\n{open}");
    let policy = egress::File::parse(&text).unwrap().resolve("/e.toml", &Directory::default());
    let rules = policy.rules.into_iter();
    let rules = rules.map(|rule| PolicyRule { rule, senders: None, matched: 0 }).collect();
    let (file, default) = (policy.file, policy.default);
    let files = vec![PolicyFile { file, default, rules, ..PolicyFile::default() }];
    let gateway = Some(gateway());
    let server =
        Server::with_policy(Some(PolicyStatus { files, gateway, ..PolicyStatus::default() }));
    let rule = "allowed by rule \"host\" of /e.toml\n";
    let default = "denied by the default of /e.toml\n";
    let own = |reason: &str| format!("denied by the gateway, whatever the policy says: {reason}\n");
    let some =
        own("the host's loopback is disabled except for some ports, and this is not one of them");
    let by_policy = |said: &str| format!("note: by the policy alone, {said}");
    for (words, code, expected) in [
        ("10.0.2.2:5432", 0, rule.to_owned()),
        ("10.0.2.2:5433", 1, some.clone() + &by_policy(rule)),
        ("10.0.2.2:5432 --protocol udp", 1, some + &by_policy(rule)),
        ("10.0.2.2:53 --protocol udp", 0, rule.to_owned()),
        (
            "10.0.2.2 --protocol icmp",
            0,
            "allowed: the gateway itself answers this ping, and no rule applies to it\n".to_owned(),
        ),
        ("10.0.2.3:54", 1, own("an address of the gateway network itself") + &by_policy(default)),
        ("[2001:db8::7]:443", 1, own("this network has no IPv6") + &by_policy(default)),
        ("192.0.2.7:443", 1, default.to_owned()),
    ] {
        let found = tried(&server.socket(), &format!("--from daemon --to {words}"));
        assert_eq!(found, (code, expected, String::new()), "{words}");
    }
}

#[test]
fn help_is_for_each_command() {
    let run = |args: &[&str]| run_with(args, &Env::default());
    for args in [&["policy"][..], &["policy", "--help"], &["help", "policy"]] {
        let (code, text) = run(args);
        assert!(code == Ok(0) && text.contains("check") && text.contains("show"), "{text}");
    }
    for name in ["check", "show", "test"] {
        let (code, text) = run(&["policy", name, "--help"]);
        assert!(code == Ok(0) && text.contains(&format!("rootlessctl policy {name}")), "{text}");
    }
    assert_eq!(run(&["policy", "other"]).0, Ok(3));
}
