//! Whether the product has stood the soak.
//!
//! # Growth
//! Each process of the product is judged for as long as it lives, without its first [`WARM_UP`]: until then, tables and
//! stocks fill, and UDP flows that have ended are kept. What remains must last [`JUDGED_SPAN`] at least. A figure has grown
//! if *both* of two robust measures exceed a bound: the slope of Theil and Sen (the median of the slopes between all pairs
//! of samples) times the span, and the difference between the medians of the last and of the first quarter. A single peak
//! moves neither. The bounds are those of [`Figure`]. UDP flows keep a descriptor for [`FLOW_KEPT`], and on a machine that
//! becomes less busy there are more of them, so that many more descriptors are no growth.
//!
//! # Failures
//! An operation may fail if it depends on a helper and if any part of it lies between the death of this helper and
//! [`RECOVERY`] after another took its place. A wrong answer is always a failure. So is an answer from a name server that the host has not named for
//! [`RECOVERY`], and a kind of traffic that nobody answers any more.

use std::collections::BTreeMap;

use crate::record::{Event, Failure, Label, Record, Sample, Traffic, What};

/// Milliseconds after which a process has everything that it keeps. UDP flows that were answered are kept for three
/// minutes.
pub(crate) const WARM_UP: u64 = 300_000;
/// Milliseconds that a process must have lived after that, to be judged.
pub(crate) const JUDGED_SPAN: u64 = 600_000;
/// Milliseconds after the replacement of a helper, or after a change of name servers, in which failures are excused. The
/// helper has to start, and TCP repeats a SYN after one second and after three.
pub(crate) const RECOVERY: u64 = 5_000;
/// Milliseconds for which a UDP flow that was answered is kept.
const FLOW_KEPT: u64 = 180_000;
/// Milliseconds for which a kept connection of the former helper may wait for its turn to be used, and so to fail: the
/// one before it may wait so long for its answer.
const TURN: u64 = 20_000;
/// Milliseconds without any answer of a kind, at the end of the soak, that are too many.
const SILENCE: u64 = 90_000;

/// A figure that must not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Descriptors,
    Threads,
    Rss,
    Pss,
}

impl Figure {
    pub(crate) const ALL: [Self; 4] = [Self::Descriptors, Self::Threads, Self::Rss, Self::Pss];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
            Self::Rss => "RSS, KiB",
            Self::Pss => "PSS, KiB",
        }
    }

    /// The value in a sample.
    pub(crate) fn of(self, sample: &Sample) -> f64 {
        let value = match self {
            Self::Descriptors => sample.descriptors,
            Self::Threads => sample.threads,
            Self::Rss => sample.rss_kib,
            Self::Pss => sample.pss_kib,
        };
        value as f64
    }

    /// By how much it may be larger at the end than `first`: a share for what varies with the traffic, and a constant
    /// for what is small.
    pub(crate) fn bound(self, first: f64) -> f64 {
        match self {
            Self::Descriptors => 16.0 + first * 0.1,
            // A stream of bulk data may still have its thread.
            Self::Threads => 1.5,
            Self::Rss | Self::Pss => 512.0 + first * 0.1,
        }
    }
}

/// How a figure of a process developed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trend {
    pub(crate) figure: Figure,
    /// Medians of the first and of the last quarter.
    pub(crate) first: f64,
    pub(crate) last: f64,
    /// The slope of Theil and Sen times the span.
    pub(crate) drift: f64,
    /// How much of the difference is the traffic's.
    pub(crate) explained: f64,
}

impl Trend {
    fn of(figure: Figure, points: &[(f64, f64)], explained: f64) -> Option<Self> {
        let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
        let [first, last] = quarters(&values)?;
        let span = points.last()?.0 - points.first()?.0;
        Some(Self { figure, first, last, drift: slope(points)? * span, explained })
    }

    /// Whether both measures say so.
    pub(crate) fn has_grown(&self) -> bool {
        let bound = self.figure.bound(self.first) + self.explained;
        self.last - self.first > bound && self.drift > bound
    }
}

/// A process from its first sample to its last.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Life {
    pub(crate) instance: Label,
    pub(crate) process: String,
    pub(crate) pid: i32,
    /// When it was seen first and last, in milliseconds.
    pub(crate) seen: [u64; 2],
    /// Processor seconds meanwhile.
    pub(crate) cpu_s: f64,
    /// Empty if it did not live long enough.
    pub(crate) trends: Vec<Trend>,
}

impl Life {
    /// Whether it is a program of the product, rather than one that it starts.
    pub(crate) fn is_own(&self) -> bool {
        self.process.starts_with("rootlesskit")
    }
}

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
    let mut complaints: Vec<String> = inexcusable.into_iter().map(failed).collect();
    let own = || lives.iter().filter(|life| life.is_own());
    for life in own() {
        let grown = life.trends.iter().filter(|trend| trend.has_grown());
        complaints.extend(grown.map(|trend| {
            let Trend { figure, first, last, drift, .. } = trend;
            format!(
                "{} of {} ({}, pid {}) grew from {first:.0} to {last:.0}, {drift:.0} by the slope",
                figure.name(),
                life.process,
                life.instance,
                life.pid
            )
        }));
    }
    complaints.extend(stale(record));
    complaints.extend(silent(record));
    let judged = own().map(|life| life.trends.len()).sum();
    Verdict { judged, complaints, excused: excused.len(), lives }
}

fn failed(failure: &Failure) -> String {
    let Failure { since, at, instance, way, kind, error, .. } = failure;
    let [since, at] = [since, at].map(|time| *time as f64 / 1e3);
    let error = error.lines().next().unwrap_or_default();
    format!("{instance}, {way}: {kind} failed after {at:.1} s (begun after {since:.1} s): {error}")
}

fn is_excused(failure: &Failure, events: &[Event]) -> bool {
    let times = |what: What| events.iter().filter(move |e| e.what == what).map(|event| event.at);
    let mut deaths = times(What::Killed(failure.instance));
    let recovered = |death: u64| {
        let replaced = times(What::Replaced(failure.instance)).find(|at| *at >= death);
        let turn = if failure.kind == "keep-alive" { TURN } else { 0 };
        replaced.unwrap_or(death) + RECOVERY + turn
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

/// Kinds of traffic without an answer at the end. The answers to one kind come from several servers in turn.
fn silent(record: &Record) -> Vec<String> {
    let mut last: BTreeMap<(Label, &str, &str), u64> = BTreeMap::new();
    for failure in &record.failures {
        last.entry((failure.instance, &failure.way, common(&failure.kind))).or_default();
    }
    for traffic in &record.traffic {
        let at = last.entry((traffic.instance, &traffic.way, common(&traffic.kind))).or_default();
        *at = traffic.at.max(*at);
    }
    let silent = last.into_iter().filter(|(_, at)| at + SILENCE < record.length);
    let describe = |((instance, way, kind), at): ((Label, &str, &str), u64)| {
        format!("{instance}, {way}: no answer to {kind} after {:.0} s", at as f64 / 1e3)
    };
    silent.map(describe).collect()
}

/// A kind without the name of who answered.
pub(crate) fn common(kind: &str) -> &str {
    if kind.starts_with("dns ") { "dns" } else { kind }
}

/// How many more UDP flows there were for an instance in the last quarter of `times` than in the first.
fn more_flows(record: &Record, instance: Label, times: &[u64]) -> f64 {
    let udp = |traffic: &&Traffic| traffic.instance == instance && traffic.kind == "udp";
    let flows: Vec<&Traffic> = record.traffic.iter().filter(udp).collect();
    let kept = |at: &u64| {
        let recent = flows.iter().filter(|flow| flow.at <= *at && flow.at + FLOW_KEPT > *at);
        recent.map(|flow| flow.done).sum::<u64>() as f64
    };
    let counts: Vec<f64> = times.iter().map(kept).collect();
    quarters(&counts).map_or(0.0, |[first, last]| (last - first).max(0.0))
}

fn lives(record: &Record) -> Vec<Life> {
    let mut series: BTreeMap<(Label, &str, i32), Vec<&Sample>> = BTreeMap::new();
    for sample in &record.samples {
        series.entry((sample.instance, &sample.process, sample.pid)).or_default().push(sample);
    }
    let life = |((instance, process, pid), samples): ((Label, &str, i32), Vec<&Sample>)| {
        let (begin, end) = (samples.first()?, samples.last()?);
        let warm: Vec<&Sample> =
            samples.iter().copied().filter(|sample| sample.at >= begin.at + WARM_UP).collect();
        let judged = end.at.saturating_sub(begin.at + WARM_UP) >= JUDGED_SPAN;
        let trend = |figure: Figure| {
            let times = || warm.iter().map(|sample| sample.at).collect::<Vec<_>>();
            let explained = match figure {
                Figure::Descriptors => more_flows(record, instance, &times()),
                _ => 0.0,
            };
            let point = |sample: &&Sample| (sample.at as f64, figure.of(sample));
            Trend::of(figure, &warm.iter().map(point).collect::<Vec<_>>(), explained)
        };
        Some(Life {
            instance,
            process: process.to_owned(),
            pid,
            seen: [begin.at, end.at],
            cpu_s: end.cpu_s - begin.cpu_s,
            trends: Figure::ALL.into_iter().filter(|_| judged).filter_map(trend).collect(),
        })
    };
    series.into_iter().filter_map(life).collect()
}

/// The medians of the first and of the last quarter.
fn quarters(values: &[f64]) -> Option<[f64; 2]> {
    let quarter = values.len() / 4;
    Some([median(&values[..quarter])?, median(&values[values.len() - quarter..])?])
}

/// The median; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let above = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], above)
    } else {
        above
    })
}

/// The median of the slopes between all pairs of points (Theil 1950, Sen 1968).
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let pairs = points.iter().enumerate().flat_map(|(index, from)| {
        points[index + 1..].iter().map(move |to| (to.1 - from.1) / (to.0 - from.0))
    });
    median(&pairs.filter(|slope| slope.is_finite()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
