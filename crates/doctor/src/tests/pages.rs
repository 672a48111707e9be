//! The tables of `docs/reference/check-codes.md` and `docs/dev/situations.md`: made from the situations of these tests and from the
//! code, and compared. With `UPDATE=1` they are written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::codes::CODES;
use super::{
    Case, egress, files, ids, kernel, limits, loopback, namespaces, network, networks, remedy,
    session, storage, swarm,
};
use crate::distro::{Distro, Package};
use crate::facts::Facts;
use crate::findings::{Finding, Severity, diagnose};
use crate::remedy::Remedy;
use crate::symptoms::SYMPTOMS;

/// A situation that was looked at.
struct Situation {
    heading: &'static str,
    case: Case,
    /// Where its files were, and whose they were.
    root: String,
    uid: u32,
    facts: Facts,
}

impl Situation {
    fn findings(&self) -> Vec<Finding> {
        diagnose(&self.facts, self.case.wish)
    }
}

/// Looks at each situation once for all tests of this file: that makes thousands of files.
fn situations() -> &'static [Situation] {
    static SEEN: OnceLock<Vec<Situation>> = OnceLock::new();
    SEEN.get_or_init(|| {
        let cases = tables()
            .into_iter()
            .flat_map(|(heading, cases)| cases.into_iter().map(move |case| (heading, case)));
        cases
            .map(|(heading, case)| {
                let (host, facts) = case.look();
                let root = host.at("").to_string_lossy().into_owned();
                Situation { heading, case, root, uid: host.world.uid, facts }
            })
            .collect()
    })
}

/// All situations, with a heading each.
fn tables() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("User and home", session::user_and_home()),
        ("Runtime directory", session::the_runtime_directory()),
        ("Service manager and bus", session::service_manager_and_bus()),
        ("Files of an earlier installation", files::files_of_an_earlier_installation()),
        ("Conflicts with other daemons", session::others_in_the_way()),
        ("newuidmap and newgidmap", ids::the_programs_that_map_ids()),
        ("Subordinate IDs", ids::subordinate_ids()),
        ("Kernel parameters", namespaces::kernel_parameters()),
        ("AppArmor", namespaces::apparmor()),
        ("Other obstacles to namespaces", namespaces::whatever_else_forbids_them()),
        ("Network driver", network::a_network_stack()),
        ("Hosts that need no network helper", network::the_gateway_needs_no_package()),
        (
            "The gateway driver does not work, or works only with restrictions",
            network::why_the_gateway_does_not_work(),
        ),
        ("NAT", network::nat()),
        ("Ports, ping and more", network::ports_ping_and_more()),
        ("Outbound traffic", network::the_ways_out()),
        ("Networks of containers", networks::networks_of_containers()),
        ("A node of a swarm", swarm::a_node_of_a_swarm()),
        ("Ports of the host's loopback", loopback::ports_of_the_hosts_loopback()),
        ("An egress policy", egress::an_egress_policy()),
        ("Storage", storage::storage()),
        ("The data root", kernel::the_data_directory()),
        ("Security modules, containers, limits", kernel::security_modules_containers_and_limits()),
        ("Cgroups", limits::control_groups()),
    ]
}

/// Distributions as their own os-release(5) tells it.
const DISTRIBUTIONS: [(&str, &str); 8] = [
    ("Debian", "ID=debian\nVERSION_ID=\"13\"\n"),
    ("Ubuntu", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n"),
    ("Fedora", "ID=fedora\nVERSION_ID=42\n"),
    ("RHEL family", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n"),
    ("openSUSE", "ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n"),
    ("Arch", "ID=arch\n"),
    ("Alpine", "ID=alpine\nVERSION_ID=3.22.1\n"),
    ("NixOS", "ID=nixos\nVERSION_ID=\"25.05\"\n"),
];

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Fatal => "fatal",
        Severity::Class => "class",
        Severity::Advisory => "advisory",
    }
}

/// Text of a cell. Paths of the fixture are those of the host that it stands for.
fn cell(situation: &Situation, text: &str) -> String {
    let dir = format!("run/user/{}", situation.uid);
    let (root, home) = (&situation.root, format!("{}home", situation.root));
    let text = text.replace(&home, "/home/jo").replace(root, "/").replace(&dir, "run/user/1000");
    let text = text.replace(&format!("rootless-{}.conf", situation.uid), "rootless-1000.conf");
    // Names of AppArmor's profiles are made of paths.
    let dotted = |path: &str| path.trim_start_matches('/').replace('/', ".");
    let text = text.replace(&dotted(&home), "home.jo").replace(&dotted(root), "");
    text.replace('|', "\\|").replace('\n', " ⏎ ")
}

fn to_do(situation: &Situation, finding: &Finding) -> String {
    let admin: Vec<String> = finding
        .remedy
        .admin
        .iter()
        .flat_map(|step| &step.commands)
        .map(|command| format!("`{}`", cell(situation, command)))
        .collect();
    let said = finding.remedy.said.iter().map(|text| cell(situation, text));
    admin.into_iter().chain(said).collect::<Vec<_>>().join("<br>")
}

const SITUATIONS: &str = "\
# `check` findings by situation

Each row starts from a working Debian 13 with systemd and the user `jo`, and changes one thing. Rows for other
distributions name the distribution. [check-codes.md](../reference/check-codes.md) explains the codes.

- An empty cell in the column \"situation\" means the same situation as in the row above.
- A dash in the column \"code\" means that `check` finds nothing to fix.
- In the column \"fix\", a line that is entirely in monospace is a command that an administrator runs as root. `check`
  prints these commands as one block that you can paste. For advisory findings, it prints them after `fix:` instead.
  ⏎ stands for a line break in a command.
- Every other line in that column is advice, which `check` prints after `fix:`. A command in it that needs root begins with
  `sudo`, or the advice says so.
- After you change configuration.nix, run `sudo nixos-rebuild switch`.
- To set a variable that begins with `DOCKERD_ROOTLESS_`, see [check-codes.md](../reference/check-codes.md#variables).

The tests that create these situations also generate and verify this page. Run `cargo test -p doctor pages` to verify it,
or add `UPDATE=1` to regenerate it.
";

#[test]
fn pages_of_situations_with_the_exact_code_and_remedy_of_each() {
    let mut text = SITUATIONS.to_owned();
    let mut last = "";
    for situation in situations() {
        let (heading, wish, name) = (situation.heading, situation.case.wish, situation.case.name);
        if heading != last {
            write!(text, "\n## {heading}\n\n| situation | code | fix |\n|---|---|---|\n").unwrap();
            last = heading;
        }
        let options = [
            (wish.install, "install"),
            (wish.force, "--force"),
            (wish.skip_iptables, "--skip-iptables"),
        ];
        let words = options.into_iter().filter(|(set, word)| *set && *word != name);
        let words: Vec<&str> = words.map(|(_, word)| word).collect();
        let words =
            if words.is_empty() { String::new() } else { format!(" (`{}`)", words.join(" ")) };
        let findings = situation.findings();
        if findings.is_empty() {
            writeln!(text, "| {name}{words} | – | |").unwrap();
        }
        for (index, finding) in findings.iter().enumerate() {
            let name = if index == 0 { format!("{name}{words}") } else { String::new() };
            let (code, severity) = (finding.code, word(finding.severity));
            let todo = to_do(situation, finding);
            writeln!(text, "| {name} | `{code}` ({severity}) | {todo} |").unwrap();
        }
    }
    assert!(situations().len() >= 40);
    compare("dev/situations.md", &text);
}

/// The severities with which each code occurs.
fn severities() -> BTreeMap<&'static str, BTreeSet<Severity>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for situation in situations() {
        for finding in situation.findings() {
            found.entry(finding.code).or_default().insert(finding.severity);
        }
    }
    found
}

#[test]
fn pages_of_codes() {
    let path = docs("reference/check-codes.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let text = [("codes", codes()), ("messages", messages()), ("distributions", distributions())]
        .into_iter()
        .fold(old, |text, (name, table)| between(&text, name, &table));
    compare("reference/check-codes.md", &text);
}

/// The text with another one between the marks of that name.
fn between(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin).expect("a mark where the table begins");
    let (_, after) = rest.split_once(&end).expect("a mark where it ends");
    format!("{before}{begin}\n{table}\n{end}{after}")
}

fn codes() -> String {
    let found = severities();
    let mut text = "| code | when | severity |\n|---|---|---|\n".to_owned();
    for code in CODES {
        let severities = found.get(code.name).unwrap_or_else(|| panic!("no test of {}", code.name));
        let severities: Vec<_> = severities.iter().map(|severity| word(*severity)).collect();
        let severities = severities.join(", ");
        writeln!(text, "| `{}` | {} | {severities} |", code.name, code.when).unwrap();
    }
    let known: BTreeSet<_> = CODES.iter().map(|code| code.name).collect();
    assert_eq!(known.len(), CODES.len(), "a code is listed twice");
    let logged = |code: &&str| SYMPTOMS.iter().any(|symptom| symptom.code == *code);
    let unknown: Vec<_> =
        found.keys().filter(|code| !known.contains(*code) && !logged(code)).collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
    text
}

fn messages() -> String {
    let mut text = "| message | code | cause | fix |\n|---|---|---|---|\n".to_owned();
    for symptom in SYMPTOMS {
        let (token, code) = (symptom.token, symptom.code);
        writeln!(text, "| `{token}` | `{code}` | {} | {} |", symptom.cause, symptom.fix).unwrap();
    }
    text
}

/// The remedy on one line.
fn line(remedy: &Remedy) -> String {
    let admin = remedy.admin.iter().flat_map(|step| &step.commands);
    let words = admin.map(|command| format!("`{command}`")).chain(remedy.said.iter().cloned());
    words.collect::<Vec<_>>().join("<br>")
}

fn distributions() -> String {
    type Ask = fn(&Distro) -> Remedy;
    let asks: [(&str, Ask); 16] = [
        ("newuidmap and newgidmap", |d| d.install(Package::Uidmap, "")),
        ("iptables", |d| d.install(Package::Iptables, "")),
        ("nft", |d| d.install(Package::Nftables, "")),
        ("D-Bus user session", |d| d.install(Package::UserBus, "")),
        ("network helper (only if `gateway` does not work)", |d| d.install(Package::Network, "")),
        ("fuse-overlayfs", |d| d.install(Package::FuseOverlayfs, "")),
        ("nsenter", |d| d.install(Package::UtilLinux, "")),
        ("ps", |d| d.install(Package::Procps, "")),
        ("ip", |d| d.install(Package::Iproute, "")),
        ("machinectl", |d| d.install(Package::Machinectl, "")),
        ("rootlesskit and dockerd-rootless.sh", |d| d.install(Package::Extras, "")),
        ("dockerd", |d| d.install(Package::Engine, "")),
        ("docker", |d| d.install(Package::DockerCli, "")),
        ("kernel parameter", |d| d.sysctl("FILE.conf", "KEY", "VALUE")),
        ("kernel module", |d| d.modules(&["MODULE"], "")),
        ("kernel modules for NAT", |d| d.modules(d.nat_modules(false), "")),
    ];
    let mut text = String::new();
    for (name, os_release) in DISTRIBUTIONS {
        let distro = Distro::parse(os_release);
        write!(text, "### {name}\n\n| requirement | command or setting |\n|---|---|\n").unwrap();
        for (what, ask) in asks {
            writeln!(text, "| {what} | {} |", line(&ask(&distro))).unwrap();
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

/// Nobody is told to use the package manager of another distribution, and whoever is told that something is fatal is told
/// what to do.
#[test]
fn every_situation_has_a_remedy_on_every_distribution() {
    const MANAGERS: [(&str, &[&str]); 6] = [
        ("apt-get", &["Debian", "Ubuntu"]),
        ("dnf ", &["Fedora", "RHEL family"]),
        ("yum ", &[]),
        ("zypper", &["openSUSE"]),
        ("pacman", &["Arch"]),
        ("apk ", &["Alpine"]),
    ];
    for (distribution, os_release) in DISTRIBUTIONS {
        for situation in situations() {
            let case = &situation.case;
            let mut facts = situation.facts.clone();
            facts.distro = Distro::parse(os_release);
            for finding in diagnose(&facts, case.wish) {
                let text = remedy(&finding).join("\n");
                let name = format!("{distribution}, {}: {}", case.name, finding.code);
                assert!(finding.severity != Severity::Fatal || !text.is_empty(), "{name}");
                let commands: Vec<_> =
                    finding.remedy.admin.iter().flat_map(|step| &step.commands).collect();
                for (manager, users) in MANAGERS {
                    let uses = commands.iter().any(|command| command.starts_with(manager));
                    assert!(!uses || users.contains(&distribution), "{name}: {text}");
                }
                assert!(
                    distribution != "NixOS" || !text.contains("> /etc/sysctl.d"),
                    "{name}: {text}"
                );
            }
        }
    }
}

fn docs(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn compare(name: &str, text: &str) {
    let path = docs(name);
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        fs::write(&path, text).unwrap();
    }
    let old = fs::read_to_string(&path).unwrap();
    let differs = old.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(old == text, "docs/{name} is not up to date (UPDATE=1 writes it): {differs:#?}");
}
