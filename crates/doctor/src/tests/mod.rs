//! Situations of hosts: what the doctor says to each, exactly.
//!
//! A [`Host`] is a directory with the files of a healthy Debian 13 with systemd, which a [`Case`] spoils in one place.
//! All codes that come out are compared, so a situation that causes a second finding fails the test. [`pages`] compares the
//! whole remedies, with the tables of the documentation.

mod account;
mod codes;
mod egress;
mod files;
mod host;
mod ids;
mod kernel;
mod limits;
mod loopback;
mod namespaces;
mod network;
mod networks;
mod pages;
mod session;
mod storage;
mod supervise;
mod swarm;

use crate::facts::Facts;
use crate::findings::{Finding, Severity, Wish, diagnose};
use crate::place::World;
use host::Host;

/// A situation and what is to be said about it.
struct Case {
    name: &'static str,
    host: fn(&mut Host),
    facts: fn(&mut Facts),
    wish: Wish,
    severity: Severity,
    codes: &'static str,
    remedy: &'static str,
}

/// A case; `codes` are all that are expected, the one in question first, and `remedy` occurs in its remedy.
fn case(
    name: &'static str,
    severity: Severity,
    codes: &'static str,
    remedy: &'static str,
    host: fn(&mut Host),
) -> Case {
    Case { name, host, facts: |_| {}, wish: Wish::default(), severity, codes, remedy }
}

impl Case {
    /// Changes what was found out, for what no fixture can be.
    fn facts(mut self, facts: fn(&mut Facts)) -> Self {
        self.facts = facts;
        self
    }

    fn wish(mut self, wish: Wish) -> Self {
        self.wish = wish;
        self
    }

    /// The healthy host, spoiled, and what is the case then.
    fn look(&self) -> (Host, Facts) {
        let mut host = Host::healthy();
        (self.host)(&mut host);
        let mut facts = host.facts();
        (self.facts)(&mut facts);
        (host, facts)
    }

    fn run(&self) {
        let name = self.name;
        let (_host, facts) = self.look();
        let findings = diagnose(&facts, self.wish);
        let mut codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        let mut expected: Vec<&str> = self.codes.split_whitespace().collect();
        let first = expected.first().copied();
        codes.sort_unstable();
        expected.sort_unstable();
        assert_eq!(codes, expected, "{name}: {findings:#?}");
        let Some(finding) = findings.iter().find(|finding| Some(finding.code) == first) else {
            return;
        };
        assert_eq!(finding.severity, self.severity, "{name}");
        let text = remedy(finding).join("\n");
        assert!(text.contains(self.remedy), "{name}: no {:?} in:\n{text}", self.remedy);
        assert!(!finding.seen.is_empty() && !finding.why.is_empty(), "{name}");
    }
}

/// What is to be done, the administrator's commands first.
fn remedy(finding: &Finding) -> Vec<&str> {
    let commands = finding.remedy.admin.iter().flat_map(|step| &step.commands);
    commands.chain(&finding.remedy.said).map(String::as_str).collect()
}

fn all(cases: &[Case]) {
    cases.iter().for_each(Case::run);
}

const INSTALL: Wish = Wish { install: true, force: false, skip_iptables: false };

#[test]
fn a_healthy_host_has_no_findings() {
    case("healthy", Severity::Advisory, "", "", |_| {}).wish(INSTALL).run();
}

#[test]
fn looking_changes_nothing() {
    let host = Host::healthy();
    let before = host.listing();
    let facts = host.facts();
    assert!(diagnose(&facts, INSTALL).is_empty());
    assert_eq!(host.listing(), before);
}

#[test]
fn several_things_at_once_the_worst_first() {
    let host = Host::healthy();
    host.remove("bin/newuidmap");
    host.remove("var/lib/systemd/linger/jo");
    host.write("proc/sys/net/ipv4/ping_group_range", "1\t0\n");
    host.write("etc/subuid", "");
    host.write("etc/subgid", "");
    let findings = diagnose(&host.facts(), Wish::default());
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["newuidmap-missing", "subid-missing", "ping", "linger"]);
    let script = crate::findings::script::script(&findings).unwrap();
    let at = |part: &str| script.find(part).unwrap_or_else(|| panic!("{part}\n{script}"));
    assert!(at("uidmap") < at("usermod") && at("usermod") < at("ping_group_range"));
    assert!(!script.contains("linger"));
}

/// The paths of a world whose variables are these.
fn world(vars: &[(&str, &str)]) -> World {
    World {
        root: "/nonexistent".into(),
        env: vars.iter().copied().collect(),
        uid: 1000,
        own_dir: None,
    }
}

#[test]
fn paths_follow_the_xdg_variables() {
    let plain = world(&[("HOME", "/h")]);
    assert_eq!(plain.unit().unwrap().to_str(), Some("/h/.config/systemd/user/docker.service"));
    assert_eq!(plain.data_root().unwrap().to_str(), Some("/h/.local/share/docker"));
    assert_eq!(plain.runtime_dir().unwrap().to_str(), Some("/h/.docker/run"));
    let set = world(&[
        ("HOME", "/h"),
        ("XDG_CONFIG_HOME", "/c"),
        ("XDG_DATA_HOME", "/d"),
        ("XDG_RUNTIME_DIR", "/r"),
    ]);
    assert_eq!(set.unit().unwrap().to_str(), Some("/c/systemd/user/docker.service"));
    assert_eq!(set.data_root().unwrap().to_str(), Some("/d/docker"));
    assert_eq!(set.state_dir(&set.runtime_dir().unwrap()).to_str(), Some("/r/dockerd-rootless"));
    assert_eq!(world(&[]).unit(), None);
}

#[test]
fn the_data_directory_is_that_of_the_configuration() {
    let host = Host::healthy();
    host.write("home/.config/docker/daemon.json", "{\"data-root\": \"/elsewhere\"}");
    assert_eq!(host.world.data_root().unwrap().to_str(), Some("/elsewhere"));
    let utf16: Vec<u16> = "\u{feff}{\"data-root\": \"/ä/😀\"}".encode_utf16().collect();
    for (bytes, ordered) in
        [(u16::to_le_bytes as fn(u16) -> [u8; 2], "LE"), (u16::to_be_bytes, "BE")]
    {
        let mut text: Vec<u8> = utf16.iter().flat_map(|unit| bytes(*unit)).collect();
        std::fs::write(host.at("home/.config/docker/daemon.json"), &text).unwrap();
        assert_eq!(host.world.data_root().unwrap().to_str(), Some("/ä/😀"), "{ordered}");
        text.push(b'x');
        std::fs::write(host.at("home/.config/docker/daemon.json"), &text).unwrap();
        assert_eq!(host.world.data_root(), host.world.default_data_root(), "{ordered}");
    }
    host.write("home/.config/docker/daemon.json", "no json");
    assert_eq!(host.world.data_root(), host.world.default_data_root());
}
