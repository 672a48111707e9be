//! The table, and the goal.

use std::fmt::Write as _;

use super::{FLOODS, SIDES, row};
use crate::layout::{self, times, value};
use crate::sheet::{Sheet, Side, Spread};

/// How many times as long the slowest hundredth of new connections may take beside a flood.
const MOST: f64 = 2.0;

/// What [`FLOODS`] are called.
const TITLES: [&str; 4] = ["half-open connections", "UDP flows", "pings", "DNS queries"];

/// The ends of the rows' names, and what they are called.
const FIGURES: [(&str, &str); 2] = [(".p50", "median"), (".p99", "99th percentile")];

/// How many times as long a connection takes beside the flood as in another part of a sample.
fn ratio_to(sheet: &Sheet, side: Side, flood: &str, figure: &str, part: &str) -> Option<Spread> {
    let [during, other] = ["flood", part].map(|end| format!("{}.{end}{figure}", row(flood)));
    sheet.ratio_of((&during, side), (&other, side))
}

/// The same of connections that nothing disturbs.
fn ratio(sheet: &Sheet, side: Side, flood: &str, figure: &str) -> Option<Spread> {
    ratio_to(sheet, side, flood, figure, "alone")
}

/// Everything that was measured beside floods of `flood_rate` packets/s; empty if nothing was.
pub(crate) fn report(sheet: &Sheet, flood_rate: u32, markdown: bool) -> String {
    let spread = |side: Side, flood: &str, end: &str, figure: &str| {
        sheet.spread(&format!("{}.{end}{figure}", row(flood)), side)
    };
    let has = |side: &Side| FLOODS.iter().any(|flood| ratio(sheet, *side, flood, ".p99").is_some());
    let sides: Vec<Side> = SIDES.into_iter().filter(has).collect();
    if sides.is_empty() {
        return String::new();
    }
    let heads = sides.iter().flat_map(|side| {
        [
            format!("{}: alone, µs", side.name()),
            "beside a flood that is discarded before the gateway, µs".to_owned(),
            "beside the flood, µs".to_owned(),
            "beside ÷ alone".to_owned(),
            "beside ÷ discarded".to_owned(),
        ]
    });
    let heads: Vec<String> =
        ["new connections beside a flood of".to_owned()].into_iter().chain(heads).collect();
    let lines = FLOODS.iter().zip(TITLES).flat_map(|(flood, title)| {
        FIGURES.map(|(figure, name)| {
            let cells = sides.iter().flat_map(|side| {
                let of = |end| spread(*side, flood, end, figure).map(|spread| value(spread, 0));
                let to = |part| ratio_to(sheet, *side, flood, figure, part).map(times);
                [of("alone"), of("discarded"), of("flood"), to("alone"), to("discarded")]
            });
            let cells = cells.map(Option::unwrap_or_default);
            [format!("{title}: {name}")].into_iter().chain(cells).collect()
        })
    });
    let lines: Vec<Vec<String>> = lines.collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let table = layout::table(&heads, &lines, markdown, |column| column > 0);
    let verdicts: Vec<_> =
        FLOODS.iter().zip(TITLES).map(|(flood, title)| judge(sheet, flood, title)).collect();
    let met = verdicts.iter().filter(|(met, _)| *met).count();
    let lines: Vec<Vec<String>> = verdicts.into_iter().map(|(_, line)| line).collect();
    let goals = layout::table(&["goal", "", "reached"], &lines, markdown, |_| false);
    let failed = sides.iter().flat_map(|side| {
        FLOODS.iter().filter_map(|flood| sheet.sum(&format!("{}.flood.failed", row(flood)), *side))
    });
    let title = format!(
        "A container beside another one that floods at {flood_rate} packets/s, behind a bridge with masquerading"
    );
    let title = if markdown { format!("### {title}\n") } else { title };
    let mut out = String::new();
    let _ = write!(
        out,
        "\n{title}\n{table}\n{goals}\n{met} of {} goals of fairness met; {:.0} connections failed. Medians; ratios are \
         medians over rounds (min–max), below 1 is better. ~ the rest of the machine was busy.\n\
         A container opens one connection after another to a server that answers: alone, beside a container whose flood \
         a device discards before the gateway, and beside the same flood through the gateway.\n",
        FLOODS.len(),
        failed.sum::<f64>()
    );
    out
}

/// Whether a container beside a flood is fast enough.
fn judge(sheet: &Sheet, flood: &str, title: &str) -> (bool, Vec<String>) {
    let ratio = ratio(sheet, Side::Gateway, flood, ".p99");
    let met = ratio.is_some_and(|ratio| ratio.median < MOST);
    let reached = ratio.map_or_else(|| "not measured".to_owned(), times);
    let verdict = if met { "met" } else { "not met" };
    (met, vec![format!("{title}: 99th percentile < {MOST} of alone"), verdict.to_owned(), reached])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(p99: f64) -> Sheet {
        let mut sheet = Sheet::default();
        for round in 0..3 {
            for (end, value) in [("alone", 100.0), ("discarded", 120.0), ("flood", p99)] {
                for figure in [".p50", ".p99"] {
                    let row = format!("{}.{end}{figure}", row("udp"));
                    sheet.add(&row, Side::Gateway, round, value, true);
                }
            }
            sheet.add("fairness.udp.flood.failed", Side::Gateway, round, 1.0, true);
        }
        sheet
    }

    #[test]
    fn the_goal_is_met_below_twice_the_time() {
        for (p99, met) in [(199.0, true), (200.0, false)] {
            assert_eq!(judge(&sheet(p99), "udp", "UDP flows").0, met, "{p99}");
        }
        assert!(!judge(&Sheet::default(), "udp", "UDP flows").0, "not measured");
    }

    #[test]
    fn the_table_has_what_was_measured() {
        assert_eq!(report(&Sheet::default(), 10_000, true), "");
        let text = report(&sheet(150.0), 10_000, true);
        let line = text.lines().find(|line| line.starts_with("| UDP flows: 99th")).unwrap();
        assert_eq!(
            line,
            "| UDP flows: 99th percentile | 100 | 120 | 150 | 1.50× (1.50–1.50) | 1.25× (1.25–1.25) |"
        );
        assert!(text.contains("1 of 4 goals") && text.contains("3 connections failed"), "{text}");
        assert!(!text.contains("earlier"), "{text}");
    }
}
