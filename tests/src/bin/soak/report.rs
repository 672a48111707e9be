//! What a soak found, as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use xtask_support::table::{grouped, table};

use crate::record::{Label, Record, What};
use crate::verdict::{self, Figure, Verdict};

/// The tables and the verdict.
pub(crate) fn text(record: &Record, verdict: &Verdict) -> String {
    let machine = &record.machine;
    let mut out = format!(
        "{:.1} minutes on {} processors ({}), Linux {}, {}{}\n{}\n\n",
        record.length as f64 / 60_000.0,
        machine.processors,
        machine.model,
        machine.kernel,
        machine.date,
        load(record),
        machine.versions.join(", ")
    );
    out += &traffic(record);
    out.push('\n');
    out += &processes(verdict);
    let deaths = |label| record.events.iter().filter(|e| e.what == What::Killed(label)).count();
    let longest = |(label, killed): (Label, u64)| {
        let mut replaced = record.events.iter().filter(|e| e.what == What::Replaced(label));
        replaced.find(|e| e.at >= killed).map(|e| e.at - killed)
    };
    let killed = record.events.iter().filter_map(|event| match event.what {
        What::Killed(label) => Some((label, event.at)),
        _ => None,
    });
    let longest = killed.filter_map(longest).max().unwrap_or(0);
    let changes = record.events.iter().filter(|e| matches!(e.what, What::Resolver(_))).count();
    let _ = writeln!(
        out,
        "\nkilled: {} gateway processes, {} slirp4netns, {} gateway processes of Docker; each was replaced within {longest} ms\nname servers changed {changes} times",
        deaths(Label::Gateway),
        deaths(Label::Slirp4netns),
        deaths(Label::Docker)
    );
    let _ = writeln!(
        out,
        "{} failures that a death explains; {} figures judged for growth",
        verdict.excused, verdict.judged
    );
    for complaint in &verdict.complaints {
        let _ = writeln!(out, "FAILED: {complaint}");
    }
    let good = if verdict.is_good() { "passed" } else { "failed" };
    let _ = writeln!(out, "{good}");
    out
}

/// How busy the machine was, if the record says so.
pub(crate) fn load(record: &Record) -> String {
    let averages: Vec<f64> = record.loads.iter().map(|load| load.average).collect();
    let Some(median) = verdict::median(&averages) else { return String::new() };
    let most = averages.into_iter().fold(0.0, f64::max);
    format!(", load average {median:.0} (at most {most:.0})")
}

/// What all intervals of a kind come to.
#[derive(Default)]
struct Sum {
    done: u64,
    bytes: u64,
    repeated: u64,
    failed: usize,
    p50: Vec<f64>,
    p99: Vec<f64>,
    longest: u64,
}

fn traffic(record: &Record) -> String {
    let mut sums: BTreeMap<(Label, &str, &str), Sum> = BTreeMap::new();
    for traffic in &record.traffic {
        let key = (traffic.instance, &*traffic.way, verdict::common(&traffic.kind));
        let sum = sums.entry(key).or_default();
        sum.done += traffic.done;
        sum.bytes += traffic.bytes;
        sum.repeated += traffic.repeated;
        sum.p50.push(traffic.p50_us as f64 / 1e3);
        sum.p99.push(traffic.p99_us as f64 / 1e3);
        sum.longest = sum.longest.max(traffic.max_us);
    }
    for failure in &record.failures {
        let key = (failure.instance, &*failure.way, verdict::common(&failure.kind));
        sums.entry(key).or_default().failed += 1;
    }
    let row = |((instance, way, kind), sum): ((Label, &str, &str), Sum)| {
        let median =
            |values: &[f64]| verdict::median(values).map_or(String::new(), |v| grouped(v, 1));
        vec![
            instance.to_string(),
            way.to_owned(),
            kind.to_owned(),
            grouped(sum.done as f64, 0),
            sum.failed.to_string(),
            grouped(sum.bytes as f64 / 1e6, 0),
            sum.repeated.to_string(),
            median(&sum.p50),
            median(&sum.p99),
            grouped(sum.longest as f64 / 1e3, 0),
        ]
    };
    let rows: Vec<Vec<String>> = sums.into_iter().map(row).collect();
    let head = [
        "instance", "way", "kind", "done", "failed", "MB", "repeated", "p50 ms", "p99 ms", "max ms",
    ];
    table(&head, &rows, false, |column| column > 2)
}

/// One row for each process; those that died too soon to be judged are counted.
fn processes(verdict: &Verdict) -> String {
    let mut rows = Vec::new();
    let mut short: BTreeMap<(Label, &str), BTreeSet<i32>> = BTreeMap::new();
    for life in &verdict.lives {
        let [begin, end] = life.seen.map(|at| at as f64 / 60_000.0);
        if life.trends.is_empty() {
            short.entry((life.instance, &life.process)).or_default().insert(life.pid);
            continue;
        }
        let mut row = vec![
            life.instance.to_string(),
            life.process.clone(),
            format!("{begin:.0}–{end:.0}"),
            grouped(life.cpu_s, 1),
        ];
        for figure in Figure::ALL {
            let trend = life.trends.iter().find(|trend| trend.figure == figure);
            row.push(trend.map_or(String::new(), |trend| {
                let mark = if trend.has_grown() { " grown" } else { "" };
                format!("{}→{}{mark}", grouped(trend.first, 0), grouped(trend.last, 0))
            }));
        }
        rows.push(row);
    }
    let figures = Figure::ALL.map(Figure::name);
    let head: Vec<&str> =
        ["instance", "process", "minutes", "CPU s"].into_iter().chain(figures).collect();
    let mut out = table(&head, &rows, false, |column| column > 2);
    for ((instance, process), pids) in short {
        let _ = writeln!(out, "not judged, too short: {} {process} of {instance}", pids.len());
    }
    out
}
