//! What the gateway has to reach, and whether it did.

use super::Place;
use super::rows::{self, Measure, PEERS};
use crate::layout::{times, value};
use crate::sheet::{Sheet, Side, Spread};

/// What a row of the gateway is compared with, measured in the same round.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// The best of [`PEERS`].
    Best,
    /// One other side.
    One(Side),
    /// The same without any namespace, whichever place is measured.
    Raw,
}

/// A goal with its verdict.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) title: String,
    /// One text for each row of the goal.
    pub(super) reached: Vec<String>,
    /// Whether all of its rows reached it.
    pub(super) met: bool,
}

/// A tail is a 99th percentile above so many medians of the same sample.
const TAIL: f64 = 5.0;

const BYTES: &[&str] = &["out1", "out8", "in1", "in8"];
const COST: &[&str] = &["out1.cpu", "out8.cpu", "in1.cpu", "in8.cpu"];
const REQUESTS: &[&str] = &["conn32", "keep1", "keep8", "keep32", "keep256", "udp"];
const ALL: &[&str] =
    &["out1", "out8", "in1", "in8", "conn32", "keep1", "keep8", "keep32", "keep256", "udp"];

/// Every goal of which something was measured.
pub(super) fn judge(sheet: &Sheet) -> Vec<Judged> {
    use Against::{Best, One, Raw};
    use Place::{Container, Namespace, Outside};
    let kernel = One(Side::Kernel);
    let mut all = vec![
        ratio(sheet, "container: TCP ≥ 0.5 of raw", Container, BYTES, Raw, 0.5),
        ratio(sheet, "namespace: TCP out ≥ 2× the best peer", Namespace, &BYTES[..2], Best, 2.0),
        ratio(sheet, "namespace: TCP in ≥ 1.5× the best peer", Namespace, &BYTES[2..], Best, 1.5),
    ];
    for (name, place) in [("namespace", Namespace), ("container", Container)] {
        let title = format!("{name}: connections, requests and packets/s above all peers");
        all.push(ratio(sheet, &title, place, REQUESTS, Best, 1.0));
        all.push(tails(sheet, name, place));
        all.push(failures(sheet, name, place));
        let title = format!("{name}: CPU per GB ≤ half of the best peer's");
        all.push(ratio(sheet, &title, place, COST, Best, 2.0));
        let title = format!("{name}: everything within 2× of the kernel's own");
        all.push(ratio(sheet, &title, place, ALL, kernel, 0.5));
    }
    let title = "published to a container: TCP ≥ 1.5× builtin + docker-proxy";
    all.push(ratio(sheet, title, Outside, BYTES, One(Side::DockerProxy), 1.5));
    all.into_iter().flatten().collect()
}

/// Whether the gateway is so many times better in all rows that were measured.
fn ratio(
    sheet: &Sheet,
    title: &str,
    place: Place,
    ends: &[&str],
    against: Against,
    factor: f64,
) -> Option<Judged> {
    let verdicts = ends.iter().filter_map(|end| {
        let (measure, row) = (rows::find(end)?, rows::row(place, end));
        // A row that nobody has was not asked for.
        rows::COLUMNS.iter().find_map(|side| sheet.spread(&row, *side))?;
        let verdict = better(sheet, measure, &row, end, against);
        Some(match verdict {
            Some((than, ratio)) => {
                // "Above" leaves no room for a draw.
                let met = if factor == 1.0 { ratio.median > 1.0 } else { ratio.median >= factor };
                (met, format!("{end} {}{than}", times(ratio)))
            }
            None => (false, format!("{end} not measured")),
        })
    });
    collect(title.to_owned(), verdicts)
}

fn collect(title: String, verdicts: impl Iterator<Item = (bool, String)>) -> Option<Judged> {
    let (mets, reached): (Vec<bool>, Vec<String>) = verdicts.unzip();
    (!mets.is_empty()).then(|| Judged { title, reached, met: mets.iter().all(|met| *met) })
}

/// How many times better the gateway is, and than whom if that is not clear.
fn better(
    sheet: &Sheet,
    measure: &Measure,
    row: &str,
    end: &str,
    against: Against,
) -> Option<(String, Spread)> {
    let raw = rows::row(Place::Namespace, end);
    let (other, name) = match against {
        Against::One(side) => ((row, side), String::new()),
        Against::Raw => ((&*raw, Side::Loopback), String::new()),
        Against::Best => {
            let side = best(sheet, measure, row)?;
            ((row, side), format!(" {}", rows::head(side)))
        }
    };
    let ours = (row, Side::Gateway);
    let ratio =
        if measure.more { sheet.ratio_of(ours, other) } else { sheet.ratio_of(other, ours) };
    Some((name, ratio?))
}

/// The peer with the best median.
fn best(sheet: &Sheet, measure: &Measure, row: &str) -> Option<Side> {
    let sign = if measure.more { 1.0 } else { -1.0 };
    let medians = PEERS.iter().filter_map(|side| Some((side, sheet.spread(row, *side)?.median)));
    medians.max_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1))).map(|(side, _)| *side)
}

/// No request waits much longer than the others, where many connections share the gateway.
fn tails(sheet: &Sheet, name: &str, place: Place) -> Option<Judged> {
    let verdicts = ["keep32", "keep256"].iter().filter_map(|end| {
        let row = |of: &str| format!("{}{of}", rows::row(place, end));
        let ours = Side::Gateway;
        let (p50, p99) = (row(".p50"), row(".p99"));
        let ratio = sheet.ratio_of((&p99, ours), (&p50, ours))?;
        let p99 = value(sheet.spread(&p99, ours)?, 0);
        let (median, worst) = (ratio.median, ratio.max);
        let text = format!("{end} p99 {p99} µs = {median:.1}× p50 (worst {worst:.1}×)");
        Some((median <= TAIL, text))
    });
    collect(format!("{name}: no tail (p99 ≤ {TAIL}× p50) at 32 and 256"), verdicts)
}

/// Nothing that was asked for is refused, cut or never answered. Every sample counts, not the median.
fn failures(sheet: &Sheet, name: &str, place: Place) -> Option<Judged> {
    let verdicts = REQUESTS.iter().filter_map(|end| {
        let row = format!("{}.failed", rows::row(place, end));
        let failed = sheet.sum(&row, Side::Gateway)?;
        Some((failed == 0.0, format!("{end} {failed:.0}")))
    });
    collect(format!("{name}: no connection or request fails"), verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(samples: &[(&str, Side, f64)]) -> Sheet {
        let mut sheet = Sheet::default();
        for (row, side, value) in samples {
            for round in 0..3 {
                sheet.add(row, *side, round, *value, true);
            }
        }
        sheet
    }

    fn goal(sheet: &Sheet, start: &str) -> Judged {
        let found = judge(sheet).into_iter().find(|goal| goal.title.starts_with(start));
        found.unwrap()
    }

    #[test]
    fn the_best_peer_of_a_row_counts() {
        let sheet = sheet(&[
            ("net.ns.out1", Side::Gateway, 20.0),
            ("net.ns.out1", Side::Slirp, 11.0),
            ("net.ns.out1", Side::PastaNet, 5.0),
            ("net.ns.out1.cpu", Side::Gateway, 0.1),
            ("net.ns.out1.cpu", Side::Slirp, 0.5),
            ("net.ns.out1.cpu", Side::PastaNet, 0.4),
        ]);
        let out = goal(&sheet, "namespace: TCP out");
        assert!(!out.met && out.reached[0].contains("1.82×"), "{out:?}");
        assert!(out.reached[0].ends_with("slirp4netns"), "{out:?}");
        let cost = goal(&sheet, "namespace: CPU");
        assert!(cost.met && cost.reached[0].contains("4.00× (4.00–4.00) pasta"), "{cost:?}");
    }

    #[test]
    fn a_container_is_compared_with_raw() {
        let mut samples = vec![
            ("net.box.out1", Side::Gateway, 20.0),
            ("net.ns.out1", Side::Loopback, 40.0),
            ("net.box.in1", Side::Gateway, 19.0),
            ("net.ns.in1", Side::Loopback, 40.0),
        ];
        assert!(!goal(&sheet(&samples), "container: TCP").met);
        samples[2].2 = 21.0;
        assert!(goal(&sheet(&samples), "container: TCP").met);
        // What the others managed and the gateway did not is a goal that was missed.
        samples.push(("net.box.in8", Side::Slirp, 1.0));
        let goal = goal(&sheet(&samples), "container: TCP");
        assert!(!goal.met && goal.reached[2].contains("not measured"), "{goal:?}");
    }

    #[test]
    fn tails_are_seen() {
        let mut samples = vec![
            ("net.ns.keep32.p50", Side::Gateway, 100.0),
            ("net.ns.keep32.p99", Side::Gateway, 500.0),
        ];
        assert!(goal(&sheet(&samples), "namespace: no tail").met);
        samples[1].2 = 501.0;
        assert!(!goal(&sheet(&samples), "namespace: no tail").met);
    }

    #[test]
    fn a_single_failure_is_seen() {
        let mut sheet = sheet(&[
            ("net.box.conn32.failed", Side::Gateway, 0.0),
            ("net.box.conn32.failed", Side::Slirp, 9.0),
        ]);
        assert!(goal(&sheet, "container: no connection").met);
        sheet.add("net.box.conn32.failed", Side::Gateway, 3, 1.0, false);
        let goal = goal(&sheet, "container: no connection");
        assert!(!goal.met && goal.reached == ["conn32 1"], "{goal:?}");
    }

    #[test]
    fn every_row_of_a_goal_exists() {
        for end in ALL.iter().chain(COST) {
            assert!(rows::find(end).is_some(), "{end}");
        }
    }
}
