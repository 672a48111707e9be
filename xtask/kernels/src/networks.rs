//! Networks as they are on hosts: name servers and addresses that change, firewalls, tunnels, IPv6 only, and clocks
//! that jump. What a namespace with the gateway meets before, during and after each is compared with what a program on
//! the host meets at the same time.
//!
//! The network is a cable to another machine, which is a network namespace with servers (`trials/networks.sh`).

mod cases;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::{Flavour, Kernel, Machine, Suite, Vm, ensure};

use crate::results::{Attempt, Network, Seen, Tried};
use crate::trial::{self, COMMON};
pub(crate) use cases::CASES;

const NETWORKS: &str = include_str!("trials/networks.sh");

/// How long the machine is paused.
const PAUSE: Duration = Duration::from_secs(60);

/// Something that happens to the network of a host.
pub(crate) struct Case {
    /// What messages call it, and the name in the stored results.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What root does before rootlesskit starts, with the functions of `trials/networks.sh`.
    begin: &'static str,
    /// More options of rootlesskit.
    options: &'static str,
    /// Before, during and after.
    phases: [Phase; 3],
    /// The code with which `check` says why less works in the namespace than on the host.
    pub(crate) why: Option<&'static str>,
    /// Makes the machine what it was.
    end: &'static str,
}

/// What happens, and what is tried then.
struct Phase {
    change: Change,
    /// Functions of `trials/networks.sh` that print rows.
    tries: &'static str,
}

enum Change {
    /// What root does.
    Root(&'static str),
    /// The whole machine is paused for a minute.
    Pause,
}

/// The machine: the packages manage networks.
fn machine() -> Machine {
    let kernel = Kernel { suite: "trixie", flavour: Flavour::Generic };
    Machine {
        kernel,
        packages: &["firewalld", "network-manager", "systemd-resolved", "tayga", "ufw"],
        prepared: false,
        ..Machine::of(Suite::Trixie)
    }
}

/// Boots the machine and tries everything. Returns what was found, and what is wrong with it: the namespace meets what
/// a program on the host does not, and nothing says why.
///
/// # Errors
/// The machine fails.
pub(crate) fn run(
    say: &dyn Fn(&str, &Network),
) -> Result<(BTreeMap<String, Network>, Vec<String>)> {
    let mut vm = Vm::boot(&machine())?;
    root(&mut vm, "network")?;
    let usual = codes(&mut vm)?;
    let (mut all, mut wrong) = (BTreeMap::new(), Vec::new());
    for case in CASES {
        let found = match try_case(&mut vm, case, &usual) {
            Ok(found) => found,
            Err(error) => {
                println!("{}: {error:#}", case.id);
                wrong.push(format!("{}: {error:#}", case.id));
                // As far as that goes.
                vm.root(&[COMMON, NETWORKS, "stop", case.end].join("\n"))?;
                continue;
            }
        };
        wrong
            .extend(found.worse(case.why).into_iter().map(|worse| format!("{}: {worse}", case.id)));
        say(case.id, &found);
        all.insert(case.id.to_owned(), found);
    }
    Ok((all, wrong))
}

fn try_case(vm: &mut Vm, case: &Case, usual: &[String]) -> Result<Network> {
    root(vm, case.begin)?;
    root(vm, &format!("start {}", case.options))?;
    let mut phases = Vec::new();
    for phase in &case.phases {
        match phase.change {
            Change::Root(commands) => root(vm, commands)?,
            Change::Pause => vm.pause(PAUSE)?,
        }
        let mut codes = codes(vm)?;
        codes.retain(|code| !usual.contains(code));
        let attempts = attempts(vm, phase.tries)?;
        let wrong = |tried: &Tried| !tried.works && tried.seen.parse::<IpAddr>().is_ok();
        let astray = attempts.iter().find(|attempt| wrong(&attempt.host));
        ensure!(astray.is_none(), "the change did not happen: {astray:?}");
        phases.push(Seen { codes, attempts });
    }
    let said = vm.root("grep -E 'level=(warning|error)| error: ' /tmp/trial.log || true")?.ok()?;
    root(vm, "stop")?;
    root(vm, case.end)?;
    Ok(Network { phases, said: said.trim().to_owned() })
}

/// What the functions of the script print, in pairs.
fn attempts(vm: &mut Vm, tries: &str) -> Result<Vec<Attempt>> {
    let mut found: Vec<(String, Option<Tried>, Option<Tried>)> = Vec::new();
    for row in trial::rows(vm, &[NETWORKS, tries].join("\n"), &[])? {
        let (who, what) = row.name.split_once(' ').context("a row without a place")?;
        let known = found.iter().position(|(known, ..)| known == what);
        let at = known.unwrap_or_else(|| {
            found.push((what.to_owned(), None, None));
            found.len() - 1
        });
        let tried = Tried { works: row.works, seen: row.seen.trim().to_owned() };
        *(if who == "inside" { &mut found[at].1 } else { &mut found[at].2 }) = Some(tried);
    }
    let pair = |(what, inside, host): (String, Option<Tried>, Option<Tried>)| {
        let inside = inside.with_context(|| format!("{what}: not tried in the namespace"))?;
        let host = host.with_context(|| format!("{what}: not tried on the host"))?;
        Ok(Attempt { what, inside, host })
    };
    found.into_iter().map(pair).collect()
}

/// Runs commands as root with the functions of the script.
fn root(vm: &mut Vm, commands: &str) -> Result<()> {
    let out = vm.root(&[COMMON, NETWORKS, "set -e", commands].join("\n"))?;
    // The script says little about what is wrong with it.
    ensure!(out.code == 0, "{commands}: {}{}", out.stdout, out.stderr);
    Ok(())
}

/// What `check` says.
fn codes(vm: &mut Vm) -> Result<Vec<String>> {
    Ok(trial::seen(&trial::check(vm)?).into_keys().collect())
}
