//! Congestion control: every network namespace that is measured in runs the same one, whatever the machine's default is.
//!
//! A new network namespace inherits the default of the initial one, which the benchmark leaves alone. It writes the
//! default of its own namespaces instead, and reads each back for the report. What is emulated is a host whose default
//! is the chosen algorithm:
//!
//! - On the machine's own default nothing is written: everything is what the programs make of it.
//! - Otherwise, every namespace gets the chosen one as soon as its program is ready, except where our program replaces
//!   it on such a host (`relay::congestion`): its own namespace then has Reno.
//!
//! What cannot be emulated: sockets keep the algorithm they were made with. Those made while a program starts have the
//! machine's. In the gateway these are the listeners, and so every connection in the namespace of its own: on a machine
//! with BBR they have Reno instead of CUBIC, and on one with CUBIC keep that instead of Reno; both send as fast as the
//! receiver takes it while nothing is lost. That namespace is not in the report, since no process is in it. pasta keeps
//! a few sockets ready, which its first connections use.
//!
//! Linux lets a namespace have as its default only what `net.ipv4.tcp_allowed_congestion_control` lists, root's writes
//! included. That list belongs to the machine, so the benchmark does not extend it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use crate::process::Process;
use crate::procs;

/// Of the network namespace of the thread that opens it (tcp(7)).
const DEFAULT: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// What distributions have.
const USUAL: &str = "cubic";
/// What stands in for it where it is not allowed: built into every kernel and open to everybody.
const STAND_IN: &str = "reno";

/// Congestion control of every network namespace that a process is in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CongestionFacts {
    /// The default of the machine.
    pub(crate) default: String,
    /// For each host that was emulated, by its congestion control: namespaces and theirs.
    pub(crate) hosts: BTreeMap<String, BTreeMap<String, String>>,
}

/// The names in a value of `--congestion`: one, or two to compare.
pub(crate) fn parse(text: &str) -> Result<Vec<String>> {
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    let hint = "hint: --congestion cubic, or two to compare, as in --congestion bbr,cubic";
    for name in &names {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        ensure!(
            !name.is_empty() && name.chars().all(word),
            "--congestion {text:?}: {name:?} is not the name of a congestion control\n{hint}"
        );
    }
    ensure!(names.len() <= 2, "--congestion {text:?} has more than two names\n{hint}");
    ensure!(
        names.len() == 1 || names[0] != names[1],
        "--congestion {text:?} compares {} with itself\n{hint}",
        names[0]
    );
    Ok(names)
}

/// The default of the calling thread's network namespace.
fn read() -> Result<String> {
    let text = fs::read_to_string(DEFAULT).with_context(|| format!("reading {DEFAULT}"))?;
    Ok(text.trim().to_owned())
}

fn write(name: &str) -> Result<()> {
    let Err(error) = fs::write(DEFAULT, name) else { return Ok(()) };
    let list = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let allowed = list(ALLOWED);
            Err(anyhow!(
                "network namespaces cannot have the congestion control {name:?} as their default: it is not in \
                 net.ipv4.tcp_allowed_congestion_control ({allowed})\n\
                 hint: sudo sysctl -w net.ipv4.tcp_allowed_congestion_control=\"{allowed} {name}\" allows it until the \
                 next boot, or choose another one with --congestion"
            ))
        }
        io::ErrorKind::NotFound => Err(anyhow!(
            "this kernel does not have the congestion control {name:?}, only {}\nhint: sudo modprobe tcp_{name}",
            list(AVAILABLE)
        )),
        _ => Err(error).with_context(|| format!("writing {name:?} to {DEFAULT}")),
    }
}

/// Runs something in a network namespace, on a thread of its own.
pub(crate) fn inside<T: Send>(netns: &str, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || {
        let file = File::open(netns).with_context(|| format!("opening {netns}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {netns}"))?;
        action()
    };
    std::thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|_| bail!("the thread in {netns} has panicked"))
}

/// What is emulated, and what each namespace has.
#[derive(Debug)]
pub(crate) struct Congestion {
    /// The machine's own default.
    inherited: String,
    /// The chosen ones.
    pub(crate) names: Vec<String>,
    current: String,
    found: BTreeMap<String, String>,
}

impl Congestion {
    /// Sets the first of `wanted` in this process's namespace, which no socket has been made in yet. Also returns what the
    /// report has to say.
    pub(crate) fn begin(wanted: &[String]) -> Result<(Self, Option<String>)> {
        let inherited = read()?;
        let (mut names, mut note) = (wanted.to_vec(), None);
        if names.is_empty() {
            names.push(USUAL.to_owned());
            if let Err(error) = write(USUAL) {
                names = vec![STAND_IN.to_owned()];
                note = Some(format!("{STAND_IN} stands in for {USUAL}: {error:#}"));
            }
        }
        let current = names.first().cloned().context("no congestion control")?;
        let mut this = Self { inherited, names: Vec::new(), current, found: BTreeMap::new() };
        // Each is tried, so that what is missing is said before anything is measured.
        for name in names.iter().rev() {
            this.switch(name)?;
        }
        this.names = names;
        Ok((this, note))
    }

    /// From now on, this is the host's default: of its new sockets and of namespaces that are settled.
    pub(crate) fn switch(&mut self, name: &str) -> Result<()> {
        write(name)?;
        let found = read()?;
        ensure!(found == name, "{DEFAULT} reads {found:?} after {name:?} was written");
        name.clone_into(&mut self.current);
        self.found.insert(format!("{name}: host"), found);
        Ok(())
    }

    /// Gives one namespace, in which our program may replace the host's default by its own, what it would have.
    fn give(&mut self, netns: &str, label: &str, replaced: bool) -> Result<()> {
        if self.current != self.inherited {
            let replaced =
                replaced && relay::congestion::is_replaceable_name(self.current.as_bytes());
            let name = if replaced { relay::congestion::LOCAL } else { &self.current };
            inside(netns, || write(name)).with_context(|| label.to_owned())?;
        }
        let found = inside(netns, read)?;
        self.found.insert(format!("{}: {label}", self.current), found);
        Ok(())
    }

    /// The namespace of a container, which has the host's default.
    pub(crate) fn settle_container(&mut self, netns: &str) -> Result<()> {
        self.give(netns, "containers", false)
    }

    /// The namespaces that stand for two hosts, before anything runs in them.
    pub(crate) fn settle_host(&mut self, netns: &str) -> Result<()> {
        self.give(netns, "two hosts", false)
    }

    /// Every namespace of a program that has started its target. `ours` replaces the host's default.
    pub(crate) fn settle(&mut self, side: &str, holder: &Process, ours: bool) -> Result<()> {
        let path = |pid: i32| format!("/proc/{pid}/ns/net");
        let inode = |pid: i32| fs::metadata(path(pid)).map(|meta| meta.ino()).ok();
        let target = procs::target(holder.pid()).context("the target has gone")?;
        let mut seen = vec![fs::metadata("/proc/thread-self/ns/net")?.ino()];
        // What the program is on may be a host of its own, which is settled by now.
        seen.extend(inode(target).into_iter().chain(inode(holder.pid())));
        self.give(&path(target), &format!("{side} namespace"), ours)?;
        for pid in procs::everything(holder.pid()) {
            // A process may have ended since.
            let Some(inode) = inode(pid).filter(|inode| !seen.contains(inode)) else { continue };
            seen.push(inode);
            self.give(&path(pid), &format!("{side} helper's"), false)?;
        }
        Ok(())
    }

    /// For the results: what each namespace has.
    pub(crate) fn facts(&self) -> CongestionFacts {
        let host = |name: &String| {
            let start = format!("{name}: ");
            let mine = self.found.iter().filter_map(|(label, found)| {
                Some((label.strip_prefix(&start)?.to_owned(), found.clone()))
            });
            (name.clone(), mine.collect())
        };
        let hosts = self.names.iter().map(host).collect();
        CongestionFacts { default: self.inherited.clone(), hosts }
    }

    /// For the report: one line for each host that was emulated.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |name: &String| {
            let start = format!("{name}: ");
            let mine = self.found.iter().filter_map(|(label, found)| {
                Some(format!("{} {found}", label.strip_prefix(&start)?))
            });
            let mine: Vec<String> = mine.collect();
            format!(
                "congestion control: {} (machine's default {})",
                mine.join(", "),
                self.inherited
            )
        };
        self.names.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_bad_ones_named() {
        assert_eq!(parse("cubic").unwrap(), ["cubic"]);
        assert_eq!(parse("bbr,cubic").unwrap(), ["bbr", "cubic"]);
        for (bad, reason) in [
            ("", "not the name"),
            ("bbr,", "not the name"),
            ("../bbr", "not the name"),
            ("bbr cubic", "not the name"),
            ("a,b,c", "more than two"),
            ("bbr,bbr", "with itself"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            let named = error.contains(&format!("--congestion {bad:?}"));
            assert!(named && error.contains(reason) && error.contains("\nhint: "), "{error}");
        }
    }

    #[test]
    fn the_report_has_a_line_for_each_host() {
        let mut found = BTreeMap::new();
        for (label, name) in [("bbr: host", "bbr"), ("bbr: gateway namespace", "reno")] {
            found.insert(label.to_owned(), name.to_owned());
        }
        found.insert("cubic: host".to_owned(), "cubic".to_owned());
        let names = vec!["bbr".to_owned(), "cubic".to_owned()];
        let (current, inherited) = ("bbr".to_owned(), "bbr".to_owned());
        let congestion = Congestion { inherited, names, current, found };
        let facts = congestion.facts();
        assert_eq!((&*facts.default, &*facts.hosts["bbr"]["gateway namespace"]), ("bbr", "reno"));
        assert_eq!(facts.hosts["cubic"].keys().collect::<Vec<_>>(), ["host"]);
        assert_eq!(
            congestion.lines(),
            [
                "congestion control: gateway namespace reno, host bbr (machine's default bbr)",
                "congestion control: host cubic (machine's default bbr)"
            ]
        );
    }
}
