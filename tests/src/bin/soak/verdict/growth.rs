//! Whether a process grows.
//!
//! It is judged for as long as it lives, without its first [`WARM_UP`]: until then, tables and stocks fill, and UDP
//! flows that have ended are kept. What remains must last [`JUDGED_SPAN`] at least. A figure has grown if *both* of
//! two robust measures exceed a bound: the slope of Theil and Sen (the median of the slopes between all pairs of
//! samples) times the span, and the difference between the medians of the last and of the first quarter. A single
//! peak moves neither. The bounds are those of [`Figure`]. UDP flows keep a descriptor for [`FLOW_KEPT`], and on a
//! machine that becomes less busy there are more of them, so that many more descriptors of a process that carries
//! them are no growth. The hash tables of these flows double once at some time that chance decides, if entries come and
//! go while more than half of a table is full: places of removed entries are used up then (hashbrown). They do not
//! double again, so [`TABLES_PER_FLOW`] is no growth either.

use std::collections::BTreeMap;

use crate::record::{GATEWAY_PROCESS, Label, Record, Sample, Traffic};

/// Milliseconds after which a process has everything that it keeps. UDP flows that were answered are kept for three
/// minutes.
pub(crate) const WARM_UP: u64 = 300_000;
/// Milliseconds that a process must have lived after that, to be judged.
pub(crate) const JUDGED_SPAN: u64 = 600_000;
/// Milliseconds for which a UDP flow that was answered is kept.
const FLOW_KEPT: u64 = 180_000;
/// Bytes by which the hash tables of a process grow for each flow if all double. In a gateway process, these are the index
/// (73 bytes), the order (57) and the flows that share a port (65), each with up to 2.3 places for an entry.
const TABLES_PER_FLOW: f64 = 450.0;
/// Points that a slope is computed of, at most: there are half as many pairs as the square of this.
const MAX_POINTS: usize = 500;

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
    /// How much of the difference is the traffic's, or that of the tables for it.
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

    pub(crate) fn is_gateway_process(&self) -> bool {
        self.process == GATEWAY_PROCESS
    }
}

/// Whether a process keeps descriptors for the UDP flows of this way: gateway processes do for all, and for published
/// ports the rootlesskit that serves them itself (`builtin`).
fn carries(instance: Label, process: &str, way: &str) -> bool {
    match process {
        GATEWAY_PROCESS => true,
        "rootlesskit parent" => instance == Label::Slirp4netns && way.starts_with("in,"),
        _ => false,
    }
}

/// By how many KiB the hash tables of a process may double, which has at least a descriptor for each flow.
fn tables(instance: Label, process: &str, samples: &[&Sample]) -> f64 {
    let flows = samples.first().map_or(0.0, |sample| Figure::Descriptors.of(sample));
    let carries = ["in,", "out,"].iter().any(|way| carries(instance, process, way));
    if carries { flows * TABLES_PER_FLOW / 1024.0 } else { 0.0 }
}

/// How many more UDP flows a process carried in the last quarter of `times` than in the first.
fn more_flows(record: &Record, instance: Label, process: &str, times: &[u64]) -> f64 {
    let carried = |traffic: &&Traffic| {
        traffic.instance == instance
            && traffic.kind == "udp"
            && carries(instance, process, &traffic.way)
    };
    let ended = record.traffic.iter().filter(carried);
    let mut ended: Vec<(u64, u64)> = ended.map(|traffic| (traffic.at, traffic.done)).collect();
    ended.sort_unstable();
    // How many had ended at each of these times.
    let sums = ended.iter().scan(0, |sum, (_, done)| {
        *sum += done;
        Some(*sum)
    });
    let sums: Vec<u64> = sums.collect();
    let until = |time: u64| match ended.partition_point(|(at, _)| *at <= time) {
        0 => 0,
        count => sums[count - 1],
    };
    let kept = |at: &u64| (until(*at) - at.checked_sub(FLOW_KEPT).map_or(0, until)) as f64;
    let counts: Vec<f64> = times.iter().map(kept).collect();
    quarters(&counts).map_or(0.0, |[first, last]| (last - first).max(0.0))
}

/// All processes of a soak.
pub(crate) fn lives(record: &Record) -> Vec<Life> {
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
                Figure::Descriptors => more_flows(record, instance, process, &times()),
                Figure::Threads => 0.0,
                Figure::Rss | Figure::Pss => tables(instance, process, &warm),
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

/// The medians of the values in intervals of this width, each at the middle of its interval.
pub(crate) fn medians(points: &[(f64, f64)], width: f64) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for interval in points.chunk_by(|a, b| (a.0 / width).floor() == (b.0 / width).floor()) {
        let values: Vec<f64> = interval.iter().map(|(_, value)| *value).collect();
        let middle = ((interval[0].0 / width).floor() + 0.5) * width;
        out.extend(median(&values).map(|median| (middle, median)));
    }
    out
}

/// The median of the slopes between all pairs of points (Theil 1950, Sen 1968), of medians if there are many points.
pub(super) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let span = points.last()?.0 - points.first()?.0;
    let few;
    let points = if points.len() > MAX_POINTS {
        few = medians(points, span / (MAX_POINTS - 1) as f64);
        &few
    } else {
        points
    };
    let pairs = points.iter().enumerate().flat_map(|(index, from)| {
        points[index + 1..].iter().map(move |to| (to.1 - from.1) / (to.0 - from.0))
    });
    median(&pairs.filter(|slope| slope.is_finite()).collect::<Vec<_>>())
}
