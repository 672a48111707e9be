//! The table, and the goals.

use std::fmt::Write as _;

use super::{COLUMNS, row};
use crate::layout::{self, times, value};
use crate::sheet::{Sheet, Side};

/// One line of the table.
struct Measure {
    /// The end of its row's name.
    end: &'static str,
    title: &'static str,
    /// Decimals shown.
    decimals: usize,
}

const fn measure(end: &'static str, title: &'static str, decimals: usize) -> Measure {
    Measure { end, title, decimals }
}

const MEASURES: [Measure; 21] = [
    measure("tcp1", "TCP, 1 stream, Gbit/s", 2),
    measure("tcp1.cpu", "– CPU s/GB, gateways", 3),
    measure("tcp1.sys", "– CPU s/GB, whole machine", 3),
    measure("tcp8", "TCP, 8 streams, Gbit/s", 2),
    measure("tcp8.cpu", "– CPU s/GB, gateways", 3),
    measure("tcp8.sys", "– CPU s/GB, whole machine", 3),
    measure("cut1", "TCP, 1 stream, cut, Gbit/s", 2),
    measure("cut1.cpu", "– CPU s/GB, gateways", 3),
    measure("cut1.sys", "– CPU s/GB, whole machine", 3),
    measure("cut8", "TCP, 8 streams, cut, Gbit/s", 2),
    measure("cut8.cpu", "– CPU s/GB, gateways", 3),
    measure("cut8.sys", "– CPU s/GB, whole machine", 3),
    measure("conn32", "new connections/s, 32 in flight", 0),
    measure("conn32.p50", "– p50, µs", 0),
    measure("conn32.p99", "– p99, µs", 0),
    measure("conn32.cpu", "– CPU µs each, gateways", 0),
    measure("conn32.sys", "– CPU µs each, whole machine", 0),
    measure("conn32.failed", "– failed, all samples", 0),
    measure("udp", "UDP of 64 B, packets/s received", 0),
    measure("udp.cpu", "– CPU µs each, gateways", 2),
    measure("udp.sys", "– CPU µs each, whole machine", 2),
];

/// Names and titles of all rows.
#[cfg(test)]
pub(crate) fn titles() -> impl Iterator<Item = (String, &'static str)> {
    MEASURES.iter().map(|measure| (row(measure.end), measure.title))
}

/// What the overlay has to reach of another side, in the same round, in both rows of a link ([`LINKS`]).
const GOALS: [(&str, Side, f64); 2] =
    [("root's VXLAN", Side::RootVxlan, 0.35), ("the gateway without VXLAN", Side::Gateway, 0.50)];

/// How packets cross the link, and the rows for that.
type Link = (&'static str, [(&'static str, &'static str); 2]);

/// Goals are judged for each of them.
const LINKS: [Link; 2] = [
    ("", [("tcp1", "1 stream"), ("tcp8", "8 streams")]),
    (", cut", [("cut1", "1 stream"), ("cut8", "8 streams")]),
];

/// What is said of each goal.
struct Verdict {
    met: bool,
    line: Vec<String>,
}

/// Everything that was measured between hosts; empty if nothing was.
pub(crate) fn report(sheet: &Sheet, markdown: bool) -> String {
    let lines: Vec<Vec<String>> =
        MEASURES.iter().filter_map(|measure| cells(sheet, measure)).collect();
    if lines.is_empty() {
        return String::new();
    }
    let names = COLUMNS.map(Side::name);
    let of = [Side::RootVxlan, Side::Gateway].map(|side| format!("overlay ÷ {}", side.name()));
    let head: Vec<&str> = [""].into_iter().chain(names).chain(of.iter().map(|s| &**s)).collect();
    let table = layout::table(&head, &lines, markdown, |column| column > 0);
    let judged = LINKS.iter().flat_map(|link| GOALS.map(|goal| judge(sheet, *link, goal)));
    let verdicts: Vec<Verdict> = judged.flatten().collect();
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    let count = verdicts.len();
    let lines: Vec<Vec<String>> = verdicts.into_iter().map(|verdict| verdict.line).collect();
    let goals = layout::table(&["goal", "", "reached"], &lines, markdown, |_| false);
    let title = "From one host to another";
    let title = if markdown { format!("### {title}\n") } else { title.to_owned() };
    let mut out = String::new();
    let _ = write!(
        out,
        "\n{title}\n{table}\n{goals}\n{met} of {count} goals of the overlay met. Medians; ratios are medians over rounds \
         (min–max). ~ the rest of the machine was busy.\n\
         overlay: VXLAN in the namespaces of two rootlesskits, through their gateways. root's VXLAN: on the hosts \
         themselves. gateway: without VXLAN, to a published port. host to host: neither. MTU 1500 between the hosts, 1450 \
         in a VXLAN.\n\
         The link between the hosts is a veth with its offloads: large packets cross it whole, VXLAN's too, and nobody \
         computes their checksums. No network card does that, and root's VXLAN gains most by it. cut: without these offloads; \
         the sender cuts packets and computes checksums, and the receiver merges packets, as with a card.\n\
         CPU, gateways: the processes of both rootlesskits. CPU, whole machine: everything that ran, load and servers too, \
         and what the kernel did for packets outside of any system call.\n"
    );
    out
}

/// One line, or nothing if nobody has the row.
fn cells(sheet: &Sheet, measure: &Measure) -> Option<Vec<String>> {
    let row = row(measure.end);
    let failed = measure.end.ends_with(".failed");
    let cell = |side: Side| match failed {
        true => sheet.sum(&row, side).map(|sum| format!("{sum:.0}")),
        false => sheet.spread(&row, side).map(|spread| value(spread, measure.decimals)),
    };
    let figures = COLUMNS.map(cell);
    figures.iter().find_map(Option::as_ref)?;
    let ratio = |side: Side| sheet.ratio(&row, Side::Overlay, side).filter(|_| !failed).map(times);
    let ratios = [Side::RootVxlan, Side::Gateway].map(ratio);
    let values = figures.into_iter().chain(ratios).map(Option::unwrap_or_default);
    Some([measure.title.to_owned()].into_iter().chain(values).collect())
}

/// Whether a goal is met on a link, if any of its rows was measured.
fn judge(
    sheet: &Sheet,
    (link, rows): Link,
    (of, side, share): (&str, Side, f64),
) -> Option<Verdict> {
    let verdicts = rows.iter().filter_map(|(end, title)| {
        let row = row(end);
        COLUMNS.iter().find_map(|side| sheet.spread(&row, *side))?;
        Some(match sheet.ratio(&row, Side::Overlay, side) {
            Some(ratio) => (ratio.median >= share, format!("{title} {}", times(ratio))),
            None => (false, format!("{title} not measured")),
        })
    });
    let (mets, reached): (Vec<bool>, Vec<String>) = verdicts.unzip();
    let met = mets.iter().all(|met| *met);
    let verdict = if met { "met" } else { "not met" };
    let line = vec![
        format!("overlay: TCP{link} ≥ {share:.2} of {of}"),
        verdict.to_owned(),
        reached.join("; "),
    ];
    (!reached.is_empty()).then_some(Verdict { met, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(samples: &[(&str, Side, f64)]) -> Sheet {
        let mut sheet = Sheet::default();
        for (end, side, value) in samples {
            for round in 0..3 {
                sheet.add(&row(end), *side, round, *value, true);
            }
        }
        sheet
    }

    #[test]
    fn sides_that_were_not_measured_have_empty_cells() {
        assert_eq!(report(&Sheet::default(), true), "");
        let sheet = sheet(&[
            ("tcp1", Side::Overlay, 4.0),
            ("tcp1", Side::RootVxlan, 16.0),
            ("tcp1.cpu", Side::Overlay, 0.5),
            ("conn32.failed", Side::Overlay, 2.0),
        ]);
        let text = report(&sheet, true);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        let head = "|  | overlay | root's VXLAN | gateway | host to host | overlay ÷ root's VXLAN | overlay ÷ gateway |";
        assert_eq!(line("|  |"), head);
        assert_eq!(
            line("| TCP, 1 stream,"),
            "| TCP, 1 stream, Gbit/s | 4.00 | 16.00 |  |  | 0.25× (0.25–0.25) |  |"
        );
        assert_eq!(line("| – CPU"), "| – CPU s/GB, gateways | 0.500 |  |  |  |  |  |");
        assert_eq!(line("| – failed"), "| – failed, all samples | 6 |  |  |  |  |  |");
        assert!(!text.contains("8 streams"), "{text}");
    }

    #[test]
    fn a_goal_is_met_if_all_rows_of_it_are() {
        let mut samples = vec![
            ("tcp1", Side::Overlay, 4.0),
            ("tcp1", Side::RootVxlan, 10.0),
            ("tcp1", Side::Gateway, 8.0),
            ("tcp8", Side::Overlay, 5.0),
            ("tcp8", Side::RootVxlan, 10.0),
            ("tcp8", Side::Gateway, 11.0),
        ];
        let goals = |samples: &[(&str, Side, f64)]| {
            let sheet = sheet(samples);
            GOALS.map(|goal| judge(&sheet, LINKS[0], goal).unwrap())
        };
        let [root, gateway] = goals(&samples);
        assert!(root.met && root.line[2].starts_with("1 stream 0.40×"), "{:?}", root.line);
        assert!(!gateway.met && gateway.line[2].contains("8 streams 0.45×"), "{:?}", gateway.line);
        // What others managed and the overlay did not is a goal that was missed.
        samples.retain(|sample| *sample != ("tcp8", Side::Overlay, 5.0));
        let [root, _] = goals(&samples);
        assert!(!root.met && root.line[2].ends_with("8 streams not measured"), "{:?}", root.line);
        assert!(judge(&Sheet::default(), LINKS[0], GOALS[0]).is_none());
    }
}
