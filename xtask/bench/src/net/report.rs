//! The tables of the networks: one a place, one for memory, and the goals.

use std::fmt::Write as _;

use super::rows::{self, Measure};
use super::{Place, goals};
use crate::layout;
use crate::sheet::{Sheet, Side};

/// Everything that was measured of networks; empty if nothing was.
pub(in super::super) fn report(sheet: &Sheet, markdown: bool) -> String {
    let mut out = String::new();
    let places = [
        (Place::Namespace, "From the namespace itself"),
        (Place::Container, "From a container behind a bridge with masquerading, MTU 1500"),
        (Place::Outside, "Published on 127.0.0.1, to a container"),
    ];
    for (place, title) in places {
        section(&mut out, title, place.prefix(), &rows::MEASURES, sheet, markdown);
    }
    section(&mut out, "Memory", "net.mem", &rows::MEMORY, sheet, markdown);
    let goals = goals::judge(sheet);
    if out.is_empty() || goals.is_empty() {
        return out;
    }
    let met = goals.iter().filter(|goal| goal.met).count();
    let lines: Vec<Vec<String>> = goals
        .iter()
        .map(|goal| {
            let verdict = if goal.met { "met" } else { "not met" };
            vec![goal.title.clone(), verdict.to_owned(), goal.reached.join("; ")]
        })
        .collect();
    let table = layout::table(&["goal", "", "reached"], &lines, markdown, |_| false);
    let _ = write!(
        out,
        "\n{table}\n{met} of {} goals of the networks met. Medians; ratios are medians over rounds (min–max); the best \
         peer is the one with the best median of that row. ~ the rest of the machine was busy.\n\
         Sides: peers at an MTU of 65520 unless 1500 is said, gateway 1500; kernel veth, a bridge made by root, which is \
         what lxc-user-nic's setuid helper does; raw, client and server without any namespace. Memory is that of \
         processes; what the kernel holds in sockets and pipes is in no process.\n",
        goals.len()
    );
    out
}

fn section(
    out: &mut String,
    title: &str,
    prefix: &str,
    measures: &[Measure],
    sheet: &Sheet,
    markdown: bool,
) {
    let cell = |measure: &Measure, side| {
        let row = format!("{prefix}.{}", measure.end);
        if measure.end.ends_with(".failed") {
            return Some(format!("{:.0}", sheet.sum(&row, side)?));
        }
        Some(layout::value(sheet.spread(&row, side)?, measure.decimals))
    };
    let has = |side: &Side| measures.iter().any(|measure| cell(measure, *side).is_some());
    let columns: Vec<Side> = rows::COLUMNS.into_iter().filter(has).collect();
    let lines = measures.iter().filter_map(|measure| {
        let cells: Vec<Option<String>> = columns.iter().map(|side| cell(measure, *side)).collect();
        cells.iter().any(Option::is_some).then(|| {
            let values = cells.into_iter().map(Option::unwrap_or_default);
            [measure.title.to_owned()].into_iter().chain(values).collect()
        })
    });
    let lines: Vec<Vec<String>> = lines.collect();
    if lines.is_empty() {
        return;
    }
    let heads = columns.iter().map(|side| rows::head(*side));
    let head: Vec<&str> = [""].into_iter().chain(heads).collect();
    let title = if markdown { format!("### {title}\n") } else { title.to_owned() };
    let table = layout::table(&head, &lines, markdown, |column| column > 0);
    let _ = write!(out, "\n{title}\n{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_shown() {
        let mut sheet = Sheet::default();
        assert_eq!(report(&sheet, false), "");
        for round in 0..2 {
            sheet.add("net.box.out1", Side::Gateway, round, 12.0, true);
            sheet.add("net.box.out1", Side::Loopback, round, 40.0, true);
            sheet.add("net.box.out1", Side::Kernel, round, 20.0, true);
        }
        let text = report(&sheet, false);
        assert!(text.contains("From a container") && !text.contains("Memory\n"), "{text}");
        let head = text.lines().find(|line| line.contains("kernel veth")).unwrap();
        assert!(!head.contains("pasta") && head.ends_with("raw"), "{text}");
        assert!(text.contains("12.00        20.00  40.00"), "{text}");
    }
}
