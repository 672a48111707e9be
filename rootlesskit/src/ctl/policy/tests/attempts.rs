//! Attempts from addresses, and at addresses that may have names.

use super::*;

#[test]
fn the_address_of_the_namespace_is_judged_as_the_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let text = "default = \"deny\"\n[[rule]]\nname = \"d\"\naction = \"allow\"\nfrom = { daemon = true }\n";
    let path = file(&dir, "e.toml", text);
    let policy = egress::File::parse(text).unwrap().resolve(&path, &Directory::default());
    let rule = |rule: &egress::Rule| PolicyRule { rule: rule.clone(), senders: None, matched: 0 };
    let files = vec![PolicyFile {
        file: policy.file,
        default: policy.default,
        rules: policy.rules.iter().map(rule).collect(),
        ..PolicyFile::default()
    }];
    let [child, gateway, dns] =
        ["10.9.0.100", "10.9.0.2", "10.9.0.3"].map(|ip| ip.parse().unwrap());
    let v4 = GatewayNetwork { child, gateway, dns, prefix: 16 };
    let [child, gateway, dns] = ["fd00::64", "fd00::2", "fd00::3"].map(|ip| ip.parse().unwrap());
    let networks = vec![v4, GatewayNetwork { child, gateway, dns, prefix: 64 }];
    let gateway = Some(PolicyGateway { networks, loopback_tcp: vec![], loopback_udp: vec![] });
    let in_force = PolicyStatus { files, gateway, ..PolicyStatus::default() };
    let with_policy = Server::with_policy(Some(in_force));
    // One whose network has other addresses than usual, and no policy.
    let without = Server::with_network(api::NetworkDriverInfo {
        driver: "gateway".into(),
        dns: vec!["10.9.0.3".parse().unwrap(), "fd00::3".parse().unwrap()],
        child_ip: Some("10.9.0.100".parse().unwrap()),
        ipv6: true,
        ..api::NetworkDriverInfo::default()
    });
    let nobody = dir.path().join(api::SOCKET_NAME);
    let in_file = format!("--file {path} ");
    for (socket, file, namespace, container, gateway) in [
        (with_policy.socket(), "", "10.9.0.100", "10.0.2.100", "10.9.0.2"),
        (without.socket(), &*in_file, "10.9.0.100", "10.0.2.100", "10.9.0.3"),
        (nobody, &in_file, "10.0.2.100", "10.9.0.100", "10.0.2.2"),
    ] {
        let tried = |from: &str| tried(&socket, &format!("{file}--from {from} --to 192.0.2.7:443"));
        for from in [namespace, "fd00::64"] {
            let note = format!(
                "note: {from} is the address of the namespace, so this is the same as --from daemon\n"
            );
            assert_eq!(tried(from), (0, format!("allowed by rule \"d\" of {path}\n"), note));
        }
        let denied = format!("denied by the default of {path}\n");
        assert_eq!(tried(container), (1, denied, String::new()));
        for from in [gateway, "fd00::3", "127.0.0.1"] {
            let (code, text, error) = tried(from);
            assert!(code == 2 && text.is_empty(), "{from}: {text}");
            assert!(error.starts_with(&format!("error: invalid value {from:?} for --from")));
        }
    }
}

#[test]
fn a_rule_with_a_host_name_that_may_decide_on_an_address_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        &dir,
        "e.toml",
        r#"
default = "deny"
[[rule]]
name = "also denied"
action = "deny"
to = "example.net"
[[rule]]
name = "registry"
action = "allow"
from = { daemon = true }
to = ["192.0.2.7", "*.example.org"]
ports = 443
[[rule]]
name = "late"
action = "allow"
to = "example.com"
"#,
    );
    let test = |words: &str| tried(dir.path(), &format!("--file {path} {words}"));
    let denied = |rule: &str| {
        let text = format!(
            "denied by the default of {path}\nnote: rule \"{rule}\" of {path} decides instead if the sender got this \
             address by looking up a name that the rule matches\n"
        );
        (1, text, String::new())
    };
    assert_eq!(test("--from daemon --to 192.0.2.8:443"), denied("registry"));
    // For another sender, and another port, the next one.
    assert_eq!(test("--from 172.18.0.9 --to 192.0.2.8:443"), denied("late"));
    assert_eq!(test("--from daemon --to 192.0.2.8:80"), denied("late"));
    let (code, text, _) = test("--from daemon --to 192.0.2.7:443");
    let note = format!("\nnote: rule \"also denied\" of {path} decides instead if ");
    assert!(code == 0 && text.contains(&note), "{text}");
    // With a name, nothing is open.
    let allowed = format!("allowed by rule \"late\" of {path}\n");
    assert_eq!(
        tried(dir.path(), &format!("--file {path} --from daemon --to example.com:80")),
        (0, allowed, String::new())
    );
}
