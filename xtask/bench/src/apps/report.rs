//! One table a direction, and one of memory.

use std::fmt::Write as _;

use super::{LOADS, prefix};
use crate::layout;
use crate::sheet::{Sheet, Side};

const COLUMNS: [Side; 6] = [
    Side::Loopback,
    Side::Gateway,
    Side::GatewayBuiltin,
    Side::Slirp,
    Side::PastaNet,
    Side::Theirs,
];

fn head(side: Side) -> &'static str {
    match side {
        Side::Loopback => "host",
        Side::PastaNet => "pasta",
        _ => side.name(),
    }
}

/// Everything that was measured of programs; empty if nothing was.
pub(in super::super) fn report(sheet: &Sheet, markdown: bool) -> String {
    let mut out = String::new();
    let titles = ["Programs, published on 127.0.0.1", "Programs, out of the namespace"];
    for (out_of, title) in [false, true].into_iter().zip(titles) {
        let mut lines = Vec::new();
        for (load, title, bytes) in LOADS {
            let row = format!("{}.{load}", prefix(out_of));
            let decimals = |decimals| move |spread| layout::value(spread, decimals);
            line(&mut lines, title, |side| sheet.spread(&row, side).map(decimals(0)));
            line(&mut lines, "– of the host's", |side| {
                let ratio = sheet.ratio(&row, side, Side::Loopback);
                ratio.filter(|_| side != Side::Loopback).map(layout::times)
            });
            for (end, title, digits) in
                [(".mean", "– mean, ms", 2), (".p99", "– p99, ms", 2), (".cpu", "– CPU s/s", 2)]
            {
                let row = format!("{row}{end}");
                line(&mut lines, title, |side| sheet.spread(&row, side).map(decimals(digits)));
            }
            // Processor seconds a second, divided by what went through in it.
            let (unit, factor) =
                if bytes > 0.0 { ("– CPU s/GB", 1e3) } else { ("– CPU µs each", 1e6) };
            let cpu = format!("{row}.cpu");
            line(&mut lines, unit, |side| {
                let mut ratio = sheet.ratio_of((&cpu, side), (&row, side))?;
                ratio.median *= factor;
                Some(layout::value(ratio, if bytes > 0.0 { 3 } else { 1 }))
            });
            let failed = format!("{row}.failed");
            line(&mut lines, "– lost, all samples", |side| {
                sheet.sum(&failed, side).map(|sum| format!("{sum:.0}"))
            });
        }
        table(&mut out, title, &lines, markdown);
    }
    let mut lines = Vec::new();
    line(&mut lines, "memory (PSS) after a round, MB", |side| {
        sheet.spread("apps.memory", side).map(|spread| layout::value(spread, 1))
    });
    table(&mut out, "Memory of the forwarders", &lines, markdown);
    if !out.is_empty() {
        out.push_str(
            "\nMedians; ratios are medians over rounds (min–max). ~ the rest of the machine was busy. host: client and \
             server on the machine itself. gateway + builtin: the network gateway, ports by builtin. slirp4netns and \
             pasta: with their own port drivers. theirs: builtin over slirp4netns; its way out is slirp4netns's. CPU is \
             that of forwarders.\n",
        );
    }
    out
}

/// Adds a line if any side has it.
fn line(lines: &mut Vec<Vec<String>>, title: &str, cell: impl Fn(Side) -> Option<String>) {
    let cells: Vec<Option<String>> = COLUMNS.iter().map(|side| cell(*side)).collect();
    if cells.iter().any(Option::is_some) {
        let cells = cells.into_iter().map(Option::unwrap_or_default);
        lines.push([title.to_owned()].into_iter().chain(cells).collect());
    }
}

fn table(out: &mut String, title: &str, lines: &[Vec<String>], markdown: bool) {
    if lines.is_empty() {
        return;
    }
    let heads = COLUMNS.iter().map(|side| head(*side));
    let heads: Vec<&str> = [""].into_iter().chain(heads).collect();
    let title = if markdown { format!("### {title}\n") } else { title.to_owned() };
    let table = layout::table(&heads, lines, markdown, |column| column > 0);
    let _ = write!(out, "\n{title}\n{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_ratios_and_losses_are_shown() {
        let mut sheet = Sheet::default();
        assert_eq!(report(&sheet, false), "");
        for round in 0..3 {
            sheet.add("apps.pub.udpchurn", Side::Loopback, round, 40_000.0, true);
            sheet.add("apps.pub.udpchurn", Side::Gateway, round, 30_000.0, true);
            sheet.add("apps.pub.udpchurn.cpu", Side::Gateway, round, 0.6, true);
            sheet.add("apps.pub.udpchurn.failed", Side::Gateway, round, 2.0, true);
            sheet.add("apps.memory", Side::Gateway, round, 3.25, true);
        }
        let text = report(&sheet, true);
        let line = |start: &str| text.lines().find(|line| line.contains(start)).unwrap();
        assert!(line("new source port").contains("| 40,000 | 30,000 |"), "{text}");
        assert!(line("of the host's").contains("|  | 0.75× (0.75–0.75) |"), "{text}");
        assert!(line("CPU µs each").contains("| 20.0 |"), "{text}");
        assert!(line("lost").contains("| 6 |") && line("memory").contains("| 3.2 |"), "{text}");
        assert!(!text.contains("out of the namespace") && !text.contains("p99"), "{text}");
    }
}
