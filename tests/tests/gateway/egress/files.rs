//! Files that are no policy, and what `rootlesskit` and `rootlessctl policy` say about them.

use tests::egress::write;
use tests::{Result, ensure};

use super::{FILE, flags};
use crate::kit::{self, FLAGS, Net};

/// A file, the line of its error, and words that the message has.
const BROKEN: &[(&str, usize, &[&str])] = &[
    ("default = 'maybe'\n", 1, &["maybe", "deny"]),
    ("\n\n[[rule]]\naction = 'deny'\n", 3, &["name"]),
    ("[[rule]]\nname = 'a'\n\n[[rule]]\nname = 'b'\naction = 'deny'\n", 1, &["action"]),
    ("[[rule]]\nname = 'a'\naction = 'deny'\nprot = 'tcp'\n", 4, &["prot", "protocol"]),
    ("[[rule]]\nname = 'a'\naction = 'deny'\nports = [80, '90-70']\n", 4, &["90-70"]),
    ("[[rule]]\nname = 'a'\naction = 'deny'\nto = '10.0.0.0/33'\n", 4, &["10.0.0.0/33"]),
    ("[[rule]]\nname = 'a'\naction = 'deny'\nto = 'a.*.test'\n", 4, &["a.*.test"]),
    ("[[rule]]\nname = 'a'\naction = 'deny'\nprotocol = 'icmp'\nports = 80\n", 5, &["icmp"]),
    (
        "[[rule]]\nname = 'a'\naction = 'deny'\nfrom = { daemon = true, container = 'x' }\n",
        4,
        &["daemon"],
    ),
    (
        "[[rule]]\nname = 'a'\naction = 'deny'\n[[rule]]\nname = 'a'\naction = 'deny'\n",
        5,
        &["\"a\""],
    ),
    ("mode = 'enforce'\ndefault = \n", 2, &[]),
];

#[test]
fn egress_a_start_with_a_broken_file_fails_with_the_line_and_the_remedy() -> Result<()> {
    let b = kit::boot()?;
    for (text, line, words) in BROKEN {
        write(&b, FILE, text)?;
        let started =
            b.user(&format!("exec rootlesskit {} echo started", flags(""))).fails_with(1)?;
        let checked = b.user(&format!("rootlessctl policy check {FILE}")).fails_with(1)?;
        for said in [&started, &checked] {
            ensure!(said.contains(FILE) && said.contains("hint: "), "{text}: {said}");
            ensure!(said.contains(&format!("line {line}")), "{text}: not line {line}: {said}");
            ensure!(words.iter().all(|word| said.contains(word)), "{text}: {said}");
            ensure!(!said.contains("started\n"), "{text}: {said}");
        }
    }
    b.user(&format!("rm {FILE}")).ok()?;
    b.assert_clean(&[])
}

#[test]
fn egress_a_start_without_the_file_or_the_gateway_fails_with_the_remedy() -> Result<()> {
    let b = kit::boot()?;
    let missing = b.user(&format!("exec rootlesskit {} echo started", flags(""))).fails_with(1)?;
    ensure!(missing.contains(FILE) && missing.contains("hint: "), "{missing}");
    ensure!(!missing.contains("started\n"), "{missing}");
    let missing = b.user(&format!("rootlessctl policy check {FILE}")).fails_with(1)?;
    ensure!(missing.contains(FILE), "{missing}");
    write(&b, FILE, "default = 'deny'\n")?;
    for driver in ["slirp4netns", "none", "host"] {
        let command =
            format!("exec rootlesskit --net={driver} --egress-policy={FILE} echo started");
        let refused = b.user(&command).fails_with(1)?;
        ensure!(refused.contains("--egress-policy") && refused.contains("gateway"), "{refused}");
        ensure!(!refused.contains("started\n"), "{refused}");
    }
    // Without a policy, there is none to show.
    let net = Net::with(&b, FLAGS)?;
    let show = net.ctl("policy show").run()?;
    ensure!(format!("{show}").contains("--egress-policy"), "{show}");
    b.user(&format!("rm {FILE}")).ok()?;
    net.stop()
}

#[test]
fn egress_rootlessctl_checks_and_tries_files_without_a_daemon() -> Result<()> {
    let b = kit::boot()?;
    let policy = r#"
        metadata = "deny"
        default = "deny"
        [[rule]]
        name = "registry"
        action = "allow"
        from = { address = "172.17.0.0/24" }
        to = ["registry.example.org", "10.0.0.0/8"]
        protocol = "tcp"
        ports = [443, "5000-5010"]
    "#;
    write(&b, FILE, policy)?;
    let said = b.user(&format!("rootlessctl policy check {FILE}")).ok()?;
    assert_eq!(said, format!("{FILE}: 1 rule, default deny, enforced\n"));
    // The files that the launcher uses.
    b.user("mkdir -p ~/.config/docker-rootless && cp egress.toml ~/.config/docker-rootless")
        .ok()?;
    let said = b.user("rootlessctl policy check").ok()?;
    ensure!(said.contains("/home/tester/.config/docker-rootless/egress.toml"), "{said}");
    b.root("mkdir -p /etc/docker-rootless && echo 'mode = 3' >/etc/docker-rootless/egress.toml")
        .ok()?;
    let said = b.user("rootlessctl policy check").fails_with(1)?;
    ensure!(said.contains("/etc/docker-rootless/egress.toml"), "{said}");
    for (args, code) in [
        // Its address could be one of the metadata service.
        ("--from 172.17.0.7 --to registry.example.org:443", 2),
        ("--from 172.17.0.7 --to registry.example.org:80", 1),
        ("--from 172.17.0.7 --to 10.1.2.3:5003", 0),
        ("--from 172.17.0.7 --to 10.1.2.3:5003 --protocol udp", 1),
        ("--from 172.18.0.7 --to registry.example.org:443", 1),
        ("--from daemon --to 10.1.2.3:443", 1),
        ("--from 172.17.0.7 --to 169.254.169.254:80", 1),
        ("--from 172.17.0.7 --to 10.1.2.3", 2),
        ("--from 172.17.0.7 --to 10.1.2.3:443 --protocol sctp", 2),
    ] {
        let out = b.user(&format!("rootlessctl policy test {args} --file {FILE}")).run()?;
        ensure!(out.code == code, "{args}: {out}");
    }
    Ok(())
}
