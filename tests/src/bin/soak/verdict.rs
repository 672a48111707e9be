//! Whether the product has stood the soak: it must not have grown ([`growth`]), and nothing must have failed without a
//! reason.
//!
//! An operation may fail if it depends on a helper and if any part of it lies between the death of this helper and
//! [`RECOVERY`] after another took its place. A wrong answer is always a failure. So is an answer from a name server
//! that the host has not named for [`RECOVERY`], a kind of traffic that nobody answers any more, and a gateway
//! process that ended without being killed.

pub(crate) mod growth;

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Event, Failure, Label, Record, Traffic, What};
pub(crate) use growth::{Figure, Life, median, medians};
use growth::{Trend, lives};

/// Milliseconds after the replacement of a helper, or after a change of name servers, in which failures are excused.
/// The helper serves by then, but TCP repeats a SYN after 1, 3, 7 and 15 seconds.
pub(crate) const RECOVERY: u64 = 20_000;
/// Milliseconds without any answer of a kind, at the end of the soak, that are too many.
const SILENCE: u64 = 90_000;
/// The shortest soak, in milliseconds, in which the first gateway process is judged for growth: it is killed after 55%
/// ([`crate::provoke`]).
const LONG: u64 = 28 * 60_000;

/// What has to be answered.
const EXPECTED: [(&[Label], &[&str], &[&str]); 8] = {
    use Label::{Docker, Gateway, Slirp4netns};
    const OUT_V4: &str = "out, IPv4";
    const OUT_V6: &str = "out, IPv6";
    [
        (
            &[Gateway, Slirp4netns],
            &[OUT_V4, OUT_V6, "in, IPv4", "in, IPv6"],
            &["bulk", "short", "keep-alive", "udp"],
        ),
        (&[Gateway, Slirp4netns], &[OUT_V4], &["ping", "dns"]),
        (&[Gateway], &[OUT_V6], &["ping", "dns"]),
        (&[Gateway, Slirp4netns], &["API"], &["publish and remove"]),
        (&[Gateway, Slirp4netns], &["both"], &["killed client"]),
        (
            &[Docker],
            &["to a container, IPv4", "from a container, IPv4"],
            &["bulk", "short", "keep-alive", "udp"],
        ),
        (&[Docker], &["from a container, IPv4"], &["ping", "dns"]),
        (&[Docker], &["containers"], &["run and remove", "one page"]),
    ]
};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) lives: Vec<Life>,
    /// How many figures of the product's processes were judged.
    pub(crate) judged: usize,
    /// One sentence for each thing that must not be.
    pub(crate) complaints: Vec<String>,
    /// How many failures were within the time after a death.
    pub(crate) excused: usize,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.complaints.is_empty()
    }
}

/// Judges a soak.
pub(crate) fn of(record: &Record) -> Verdict {
    let lives = lives(record);
    let (excused, inexcusable): (Vec<&Failure>, Vec<&Failure>) =
        record.failures.iter().partition(|failure| is_excused(failure, &record.events));
    let mut complaints = Vec::new();
    complaints.extend(record.aborted.iter().map(|why| format!("the soak was aborted: {why}")));
    complaints.extend(record.panics.iter().map(|line| format!("a panic: {line}")));
    complaints.extend(inexcusable.into_iter().map(failed));
    complaints.extend(not_replaced(&record.events));
    complaints.extend(died(record));
    complaints.extend(grown(&lives));
    let judged_gateway = |life: &Life| {
        life.instance == Label::Gateway && life.is_gateway_process() && !life.trends.is_empty()
    };
    if record.length >= LONG && !lives.iter().any(judged_gateway) {
        complaints.push("no gateway process was seen for long enough to be judged".to_owned());
    }
    complaints.extend(stale(record));
    complaints.extend(silent(record));
    let own = lives.iter().filter(|life| life.is_own());
    let judged = own.map(|life| life.trends.len()).sum();
    Verdict { judged, complaints, excused: excused.len(), lives }
}

fn grown(lives: &[Life]) -> Vec<String> {
    let describe = |life: &Life, trend: &Trend| {
        let Trend { figure, first, last, drift, .. } = trend;
        let Life { instance, process, pid, .. } = life;
        format!(
            "{} of {process} ({instance}, pid {pid}) grew from {first:.0} to {last:.0}, {drift:.0} by the slope",
            figure.name(),
        )
    };
    let own = lives.iter().filter(|life| life.is_own());
    let trends = own.flat_map(|life| life.trends.iter().map(move |trend| (life, trend)));
    let grown = trends.filter(|(_, trend)| trend.has_grown());
    grown.map(|(life, trend)| describe(life, trend)).collect()
}

/// Deaths after which no other helper served before the next one.
fn not_replaced(events: &[Event]) -> Vec<String> {
    let mut waiting: BTreeMap<Label, u64> = BTreeMap::new();
    let mut complaints = Vec::new();
    let describe = |label: Label, at: u64| {
        format!(
            "{label}: the helper that was killed after {:.1} s was not replaced",
            at as f64 / 1e3
        )
    };
    for event in events {
        match event.what {
            What::Killed(label) => {
                let earlier = waiting.insert(label, event.at);
                complaints.extend(earlier.map(|at| describe(label, at)));
            }
            What::Replaced(label) => drop(waiting.remove(&label)),
            What::Resolver(_) => {}
        }
    }
    complaints.extend(waiting.into_iter().map(|(label, at)| describe(label, at)));
    complaints
}

/// Gateway processes that ended though nobody killed them.
fn died(record: &Record) -> Vec<String> {
    let too_many = |label: Label| {
        let of = record.samples.iter().filter(|s| s.instance == label && s.is_gateway_process());
        let seen = of.map(|sample| sample.pid).collect::<BTreeSet<i32>>().len();
        let killed = record.events.iter().filter(|e| e.what == What::Killed(label)).count();
        (seen > killed + 1).then(|| {
            format!("{label}: {seen} gateway processes were seen, though only {killed} were killed")
        })
    };
    [Label::Gateway, Label::Docker].into_iter().filter_map(too_many).collect()
}

/// How much of an error is shown, in characters.
const SHOWN: usize = 600;

fn failed(failure: &Failure) -> String {
    let Failure { since, at, instance, way, kind, error, .. } = failure;
    let [since, at] = [since, at].map(|time| *time as f64 / 1e3);
    let error: String = error.chars().take(SHOWN).collect();
    format!("{instance}, {way}: {kind} failed after {at:.1} s (begun after {since:.1} s): {error}")
}

fn is_excused(failure: &Failure, events: &[Event]) -> bool {
    let times = |what: What| events.iter().filter(move |e| e.what == what).map(|event| event.at);
    let mut deaths = times(What::Killed(failure.instance));
    let recovered = |death: u64| {
        let replaced = times(What::Replaced(failure.instance)).find(|at| *at >= death);
        replaced.unwrap_or(death) + RECOVERY
    };
    !failure.wrong
        && needs_helper(failure)
        && deaths.any(|death| failure.since <= recovered(death) && failure.at >= death)
}

/// Ports that rootlesskit itself serves (`builtin`) do without the helper.
fn needs_helper(failure: &Failure) -> bool {
    let published = failure.way.starts_with("in,") || failure.way == "API";
    failure.instance != Label::Slirp4netns || !published
}

/// Answers of a name server that the host did not name any more. slirp4netns is a program of others.
fn stale(record: &Record) -> Vec<String> {
    let changes: Vec<(u64, &str)> = record
        .events
        .iter()
        .filter_map(|event| match &event.what {
            What::Resolver(tag) => Some((event.at, tag.as_str())),
            What::Killed(_) | What::Replaced(_) => None,
        })
        .collect();
    let is_stale = |traffic: &&Traffic| {
        let Some(tag) = traffic.kind.strip_prefix("dns ") else { return false };
        let before = changes.iter().rev().find(|(at, _)| at + RECOVERY < traffic.since);
        let during =
            changes.iter().any(|(at, _)| at + RECOVERY >= traffic.since && *at <= traffic.at);
        traffic.instance != Label::Slirp4netns
            && !during
            && before.is_some_and(|(_, named)| *named != tag)
    };
    let describe = |Traffic { instance, way, kind, done, at, .. }: &Traffic| {
        let at = *at as f64 / 1e3;
        format!(
            "{instance}, {way}: {done} answers of {kind}, which the host does not name, up to {at:.1} s"
        )
    };
    record.traffic.iter().filter(is_stale).map(describe).collect()
}

/// Kinds of traffic that nobody answered at the end, or ever. The answers to one kind come from several servers in
/// turn.
fn silent(record: &Record) -> Vec<String> {
    let mut last: BTreeMap<(Label, &str, &str), Option<u64>> = BTreeMap::new();
    for (instances, ways, kinds) in EXPECTED {
        for instance in instances {
            for way in ways {
                last.extend(kinds.iter().map(|kind| ((*instance, *way, *kind), None)));
            }
        }
    }
    for failure in &record.failures {
        last.entry((failure.instance, &failure.way, common(&failure.kind))).or_default();
    }
    for traffic in &record.traffic {
        let at = last.entry((traffic.instance, &traffic.way, common(&traffic.kind))).or_default();
        *at = (*at).max(Some(traffic.at));
    }
    let describe = |((instance, way, kind), at): ((Label, &str, &str), Option<u64>)| match at {
        None => Some(format!("{instance}, {way}: no answer to {kind}")),
        Some(at) if at + SILENCE < record.length => {
            let seconds = at as f64 / 1e3;
            Some(format!("{instance}, {way}: no answer to {kind} after {seconds:.0} s"))
        }
        Some(_) => None,
    };
    last.into_iter().filter_map(describe).collect()
}

/// A kind without the name of who answered.
pub(crate) fn common(kind: &str) -> &str {
    if kind.starts_with("dns ") { "dns" } else { kind }
}

#[cfg(test)]
mod tests;
