//! The table, and the goals.

use std::fmt::Write as _;

use super::{COLUMNS, ROWS, row};
use crate::layout::{self, times, value};
use crate::sheet::{Sheet, Side};

/// What a gateway with a policy keeps of the speed of another one, in the same round, in every one of [`ROWS`].
const SHARE: f64 = 0.98;

/// The gateways with a policy that goals compare with others, and what such a goal is called.
const GOALS: [(Side, Side, &str); 4] = [
    (Side::GatewayRules, Side::Gateway, "with 100 rules: of the gateway"),
    (Side::GatewayRules, Side::GatewayBefore, "with 100 rules: of the earlier build"),
    (Side::GatewaySenders, Side::Gateway, "with 100 rules, one by sender: of the gateway"),
    (
        Side::GatewaySenders,
        Side::GatewayBefore,
        "with 100 rules, one by sender: of the earlier build",
    ),
];

/// Ratios in the table, and what they are called there.
const RATIOS: [(Side, Side, &str); 5] = [
    (Side::GatewayRules, Side::Gateway, "100 rules ÷ gateway"),
    (Side::GatewaySenders, Side::Gateway, "by sender ÷ gateway"),
    (Side::Gateway, Side::GatewayBefore, "gateway ÷ earlier"),
    (Side::GatewayRules, Side::GatewayBefore, "100 rules ÷ earlier"),
    (Side::GatewaySenders, Side::GatewayBefore, "by sender ÷ earlier"),
];

/// The titles of [`ROWS`], decimals shown, and what their processor time is for with its decimals.
const TITLES: [(&str, usize, &str, usize); 4] = [
    ("new connections/s, 16 in flight", 0, "– CPU µs each", 0),
    ("keep-alive requests/s, 32 connections", 0, "– CPU µs each", 1),
    ("TCP, 1 stream out, Gbit/s", 2, "– CPU s/GB", 3),
    ("UDP flows/s of one query each, 16 in flight", 0, "– CPU µs each", 0),
];

/// Every line of the table: the end of its row's name, its title, and decimals shown.
fn lines() -> impl Iterator<Item = (String, &'static str, usize)> {
    ROWS.iter().zip(TITLES).flat_map(|(end, (title, decimals, cpu, cpu_decimals))| {
        [
            ((*end).to_owned(), title, decimals),
            (format!("{end}.cpu"), cpu, cpu_decimals),
            (format!("{end}.memory_mb"), "– memory (PSS), MB", 1),
            (format!("{end}.failed"), "– failed, all samples", 0),
        ]
    })
}

/// Names and titles of all rows.
#[cfg(test)]
pub(crate) fn titles() -> impl Iterator<Item = (String, &'static str)> {
    lines().map(|(end, title, _)| (row(&end), title))
}

/// Everything that was measured of a policy; empty if nothing was.
pub(crate) fn report(sheet: &Sheet, markdown: bool) -> String {
    let has = |side: &Side| ROWS.iter().any(|end| sheet.spread(&row(end), *side).is_some());
    let sides: Vec<Side> = COLUMNS.into_iter().filter(has).collect();
    if sides.is_empty() {
        return String::new();
    }
    let ratios = RATIOS.iter().filter(|(above, below, _)| has(above) && has(below));
    let ratios: Vec<_> = ratios.collect();
    let lines = lines().filter_map(|(end, title, decimals)| {
        let row = row(&end);
        let failed = end.ends_with(".failed");
        let cell = |side: &Side| match failed {
            true => sheet.sum(&row, *side).map(|sum| format!("{sum:.0}")),
            false => sheet.spread(&row, *side).map(|spread| value(spread, decimals)),
        };
        let ratio = |(above, below, _): &&(Side, Side, &str)| {
            sheet.ratio(&row, *above, *below).filter(|_| !failed).map(times)
        };
        let figures: Vec<Option<String>> = sides.iter().map(cell).collect();
        figures.iter().find_map(Option::as_ref)?;
        let cells = figures.into_iter().chain(ratios.iter().map(ratio));
        Some([title.to_owned()].into_iter().chain(cells.map(Option::unwrap_or_default)).collect())
    });
    let lines: Vec<Vec<String>> = lines.collect();
    let heads = sides.iter().map(|side| side.name()).chain(ratios.iter().map(|(_, _, name)| *name));
    let heads: Vec<&str> = [""].into_iter().chain(heads).collect();
    let table = layout::table(&heads, &lines, markdown, |column| column > 0);
    let verdicts: Vec<(bool, Vec<String>)> =
        GOALS.iter().filter_map(|(side, than, name)| judge(sheet, (*side, *than), name)).collect();
    let met = verdicts.iter().filter(|(met, _)| *met).count();
    let count = verdicts.len();
    let verdicts: Vec<Vec<String>> = verdicts.into_iter().map(|(_, line)| line).collect();
    let goals = layout::table(&["goal", "", "reached"], &verdicts, markdown, |_| false);
    let title = "Egress policy, from a container behind a bridge with masquerading";
    let title = if markdown { format!("### {title}\n") } else { title.to_owned() };
    let mut out = String::new();
    let _ = write!(
        out,
        "\n{title}\n{table}\n{goals}\n{met} of {count} goals of the egress policy met. Medians; ratios are medians \
         over rounds (min–max). ~ the rest of the machine was busy.\n\
         gateway: without a policy. gateway with 100 rules: none of them matches, so each new connection and flow is \
         tried against all. one by sender: one of them would match if another container sent it, so the sender of \
         each new connection and flow is looked up before it begins. CPU and memory: all processes of rootlesskit.\n"
    );
    out
}

/// Whether a gateway with a policy is fast enough beside another one, if anything was measured of both.
fn judge(sheet: &Sheet, (side, than): (Side, Side), name: &str) -> Option<(bool, Vec<String>)> {
    ROWS.iter().find(|end| sheet.spread(&row(end), side).is_some())?;
    let verdicts = ROWS.iter().filter_map(|end| {
        let row = row(end);
        sheet.spread(&row, than)?;
        Some(match sheet.ratio(&row, side, than) {
            Some(ratio) => (ratio.median >= SHARE, format!("{end} {}", times(ratio))),
            None => (false, format!("{end} not measured")),
        })
    });
    let (mets, reached): (Vec<bool>, Vec<String>) = verdicts.unzip();
    let met = mets.iter().all(|met| *met);
    let verdict = if met { "met" } else { "not met" };
    let title = format!("{name}, everything ≥ {SHARE}");
    (!reached.is_empty()).then(|| (met, vec![title, verdict.to_owned(), reached.join("; ")]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(samples: &[(&str, Side, f64)]) -> Sheet {
        let mut sheet = Sheet::default();
        for (end, side, value) in samples {
            for round in 0..3 {
                // Each round is on a faster machine, which ratios do not show.
                let round_value = value * (1.0 + f64::from(u8::try_from(round).unwrap()));
                sheet.add(&row(end), *side, round, round_value, true);
            }
        }
        sheet
    }

    #[test]
    fn sides_without_figures_have_no_columns() {
        assert_eq!(report(&Sheet::default(), true), "");
        let mut samples = vec![
            ("conn16", Side::Gateway, 2000.0),
            ("conn16", Side::GatewayRules, 1980.0),
            ("conn16.memory_mb", Side::Gateway, 2.0),
            ("conn16.failed", Side::Gateway, 0.0),
        ];
        let text = report(&sheet(&samples), true);
        let line = |text: &str, start: &str| {
            text.lines().find(|line| line.starts_with(start)).unwrap().to_owned()
        };
        assert_eq!(
            line(&text, "|  |"),
            "|  | gateway | gateway with 100 rules | 100 rules ÷ gateway |"
        );
        assert_eq!(
            line(&text, "| new connections"),
            "| new connections/s, 16 in flight | 4,000 | 3,960 | 0.99× (0.99–0.99) |"
        );
        assert_eq!(line(&text, "| – memory"), "| – memory (PSS), MB | 4.0 |  |  |");
        assert_eq!(line(&text, "| – failed"), "| – failed, all samples | 0 |  |  |");
        assert!(!text.contains("TCP") && !text.contains("earlier"), "{text}");
        samples.push(("conn16", Side::GatewayBefore, 1600.0));
        let text = report(&sheet(&samples), true);
        assert!(line(&text, "| new connections").contains("| 1.25× (1.25–1.25) | 1.24×"), "{text}");
    }

    #[test]
    fn the_goal_is_met_if_every_row_keeps_98_percent() {
        let mut samples = vec![
            ("conn16", Side::Gateway, 100.0),
            ("conn16", Side::GatewayRules, 98.0),
            ("conn16", Side::GatewayBefore, 101.0),
        ];
        let goal = |samples: &[(&str, Side, f64)], than| {
            judge(&sheet(samples), (Side::GatewayRules, than), "it").unwrap()
        };
        let (met, line) = goal(&samples, Side::Gateway);
        assert!(met && line[1] == "met" && line[2] == "conn16 0.98× (0.98–0.98)", "{line:?}");
        let (met, line) = goal(&samples, Side::GatewayBefore);
        assert!(!met && line[1] == "not met" && line[2].starts_with("conn16 0.97×"), "{line:?}");
        // What the gateway without a policy managed and the one with it did not is a goal that was missed.
        samples.push(("out1", Side::Gateway, 5.0));
        let (met, line) = goal(&samples, Side::Gateway);
        assert!(!met && line[2].ends_with("; out1 not measured"), "{line:?}");
        samples.retain(|(_, side, _)| *side != Side::GatewayBefore);
        let of = |side, than| judge(&sheet(&samples), (side, than), "it");
        assert!(of(Side::GatewayRules, Side::GatewayBefore).is_none());
        assert!(of(Side::GatewaySenders, Side::Gateway).is_none(), "it was not measured at all");
    }
}
