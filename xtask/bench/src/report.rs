//! The table: what each row is called, which goal it has, and whether that was reached.

use crate::layout::{self, times, value};
use crate::sheet::{Sheet, Side, Spread};

/// What our side has to reach.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// So many times better than the other side, measured in the same round.
    Times(f64, Side),
    /// An absolute bound in the row's unit.
    Below(f64),
}

#[derive(Debug, Clone, Copy)]
struct Row {
    id: &'static str,
    title: &'static str,
    /// Decimals shown.
    decimals: usize,
    /// Whether more is better.
    more: bool,
    goals: &'static [Goal],
}

const fn row(
    id: &'static str,
    title: &'static str,
    decimals: usize,
    more: bool,
    goals: &'static [Goal],
) -> Row {
    Row { id, title, decimals, more, goals }
}

use Goal::{Below, Times};

/// As fast as the splice proxy, and no more processor time per byte.
const SPLICE: &[Goal] = &[Times(1.0, Side::Splice)];

const ROWS: &[Row] = &[
    row("start.host", "start, `--net=host`, ms", 1, false, &[]),
    row("start.none", "start, `--net=none`, ms", 1, false, &[Times(6.0, Side::Theirs)]),
    // "Limited only by the helper's own start": a quarter more than unshare(1) and the helper take.
    row(
        "start.slirp4netns",
        "start, `--net=slirp4netns`, ms",
        1,
        false,
        &[Times(0.8, Side::Floor)],
    ),
    row("start.pasta", "start, `--net=pasta`, ms", 1, false, &[]),
    row("tcp.up1", "TCP, 1 stream in, Gbit/s", 1, true, SPLICE),
    row("tcp.up1.cpu", "– CPU s/GB", 3, false, SPLICE),
    row("tcp.up8", "TCP, 8 streams in, Gbit/s", 1, true, SPLICE),
    row("tcp.up8.cpu", "– CPU s/GB", 3, false, SPLICE),
    row("tcp.down1", "TCP, 1 stream out, Gbit/s", 1, true, SPLICE),
    row("tcp.down1.cpu", "– CPU s/GB", 3, false, SPLICE),
    row("tcp.down8", "TCP, 8 streams out, Gbit/s", 1, true, SPLICE),
    row("tcp.down8.cpu", "– CPU s/GB", 3, false, SPLICE),
    row(
        "conn.32",
        "new connections/s, 32 in flight",
        0,
        true,
        &[Times(2.0, Side::Theirs), Times(1.0, Side::Pasta)],
    ),
    row("conn.32.p50", "– p50, µs", 0, false, &[]),
    row("conn.32.p99", "– p99, µs", 0, false, &[]),
    row("conn.32.cpu", "– CPU µs each", 0, false, &[]),
    row("conn.1", "new connections/s, one by one", 0, true, &[]),
    row("conn.1.p50", "– p50, µs", 0, false, &[]),
    row("conn.1.p99", "– p99, µs", 0, false, &[]),
    row(
        "keepalive.32",
        "keep-alive requests/s, 32 connections",
        0,
        true,
        &[Times(1.2, Side::Theirs)],
    ),
    row("keepalive.32.p50", "– p50, µs", 0, false, &[]),
    row("keepalive.32.p99", "– p99, µs", 0, false, &[]),
    row("keepalive.32.cpu", "– CPU µs each", 1, false, &[]),
    row("udp.flood", "UDP of 64 B, packets/s received", 0, true, &[Times(2.0, Side::Theirs)]),
    row("udp.flood.cpu", "– CPU µs each", 2, false, &[]),
    row("udp.ping.p50", "UDP of 1400 B, round trip p50, µs", 1, false, &[]),
    row("udp.ping.p99", "– p99, µs", 1, false, &[]),
    row("memory.0", "memory (PSS), idle, MB", 1, false, &[Times(4.0, Side::Theirs)]),
    row("memory.1000", "memory, 1,000 ports, MB", 1, false, &[]),
    row("memory.10000", "memory, 10,000 ports, MB", 1, false, &[Below(100.0)]),
    row("memory.removed", "memory, ports removed, MB", 1, false, &[]),
    row("publish.1000", "publish 1,000 ports, s", 3, false, &[]),
    row("remove.1000", "remove 1,000 ports, s", 3, false, &[]),
    row("publish.10000", "publish 10,000 ports, s", 2, false, &[Below(2.0)]),
    row("remove.10000", "remove 10,000 ports, s", 2, false, &[Below(2.0)]),
];

/// The table, as lines for a terminal or in Markdown. Empty if nothing of it was measured. `version` is that of theirs.
pub(crate) fn table(sheet: &Sheet, version: &str, markdown: bool) -> String {
    let rows = ROWS.iter().filter_map(|row| cells(sheet, row));
    let rows: Vec<Vec<String>> = rows.map(Vec::from).collect();
    if rows.is_empty() {
        return String::new();
    }
    let theirs = format!("theirs ({version})");
    let head = ["", "ours", &theirs, "baselines", "better than theirs", "goal"];
    layout::table(&head, &rows, markdown, |column| matches!(column, 1 | 2))
}

/// Names and titles of all rows.
#[cfg(test)]
pub(crate) fn titles() -> impl Iterator<Item = (String, &'static str)> {
    ROWS.iter().map(|row| (row.id.to_owned(), row.title))
}

/// How many goals there are, and how many were reached.
pub(crate) fn reached(sheet: &Sheet) -> (usize, usize) {
    let verdicts = ROWS.iter().flat_map(|row| row.goals.iter().map(move |goal| (row, goal)));
    let verdicts: Vec<bool> =
        verdicts.filter_map(|(row, goal)| Some(verdict(sheet, row, *goal)?.0)).collect();
    (verdicts.iter().filter(|yes| **yes).count(), verdicts.len())
}

/// One line, or nothing if the row was not measured.
fn cells(sheet: &Sheet, row: &Row) -> Option<[String; 6]> {
    let cell = |side| sheet.spread(row.id, side).map(|spread| value(spread, row.decimals));
    let ours = cell(Side::Ours)?;
    let baselines = [Side::Floor, Side::Splice, Side::Pasta, Side::Loopback];
    let baselines: Vec<String> = baselines
        .into_iter()
        .filter_map(|side| Some(format!("{} {}", side.name(), cell(side)?)))
        .collect();
    let goals: Vec<String> = row
        .goals
        .iter()
        .map(|goal| match verdict(sheet, row, *goal) {
            Some((reached, text)) => {
                format!("{} {text}", if reached { "reached:" } else { "missed:" })
            }
            None => format!("{}: not measured", wanted(row, *goal)),
        })
        .collect();
    Some([
        row.title.to_owned(),
        ours,
        cell(Side::Theirs).unwrap_or_default(),
        baselines.join(", "),
        better(sheet, row, Side::Theirs).map(times).unwrap_or_default(),
        goals.join("; "),
    ])
}

/// How many times better we are.
fn better(sheet: &Sheet, row: &Row, than: Side) -> Option<Spread> {
    if row.more {
        sheet.ratio(row.id, Side::Ours, than)
    } else {
        sheet.ratio(row.id, than, Side::Ours)
    }
}

fn wanted(row: &Row, goal: Goal) -> String {
    match goal {
        Times(factor, Side::Theirs) => format!("≥ {factor}×"),
        Times(1.0, side) => {
            format!("{} {}", if row.more { "≥" } else { "≤" }, side.name())
        }
        Times(factor, side) if row.more => format!("≥ {factor}× {}", side.name()),
        Times(factor, side) => format!("≤ {}× {}", 1.0 / factor, side.name()),
        Below(bound) => format!("< {bound}"),
    }
}

fn verdict(sheet: &Sheet, row: &Row, goal: Goal) -> Option<(bool, String)> {
    let wanted = wanted(row, goal);
    match goal {
        Times(factor, than) => {
            let ratio = better(sheet, row, than)?;
            let measured =
                if than == Side::Theirs { String::new() } else { format!(", {}", times(ratio)) };
            Some((ratio.median >= factor, format!("{wanted}{measured}")))
        }
        Below(bound) => {
            let ours = sheet.spread(row.id, Side::Ours)?;
            Some((ours.median < bound, wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let mut sheet = Sheet::default();
        for round in 0..3 {
            sheet.add("start.none", Side::Ours, round, 8.0, true);
            sheet.add("start.none", Side::Theirs, round, 56.0, true);
            sheet.add("tcp.up1.cpu", Side::Ours, round, 0.1, true);
            sheet.add("tcp.up1.cpu", Side::Splice, round, 0.05, true);
            sheet.add("conn.32", Side::Ours, round, 12345.0, false);
            sheet.add("publish.10000", Side::Ours, round, 1.5, true);
        }
        sheet
    }

    #[test]
    fn goals_are_judged_in_the_direction_of_their_row() {
        let text = table(&sheet(), "2.0.2", true);
        assert!(text.starts_with("|  | ours | theirs (2.0.2) |"), "{text}");
        let line = |start: &str| text.lines().find(|line| line.contains(start)).unwrap();
        assert!(line("--net=none").contains("7.00× (7.00–7.00) | reached: ≥ 6×"), "{text}");
        assert!(line("CPU s/GB").contains("missed: ≤ splice, 0.50×"), "{text}");
        assert!(line("32 in flight").contains("| ~12,345 |"), "{text}");
        assert!(
            line("32 in flight").contains("≥ 2×: not measured; ≥ pasta: not measured"),
            "{text}"
        );
        assert!(line("publish 10,000").contains("reached: < 2"), "{text}");
        assert_eq!(reached(&sheet()), (2, 3));
    }

    #[test]
    fn the_plain_table_is_aligned() {
        let text = table(&sheet(), "2.0.2", false);
        let starts = text.lines().skip(1).filter_map(|line| {
            let at = line.find("reached: ").or(line.find("missed: "))?;
            Some(line[..at].chars().count())
        });
        let starts: Vec<usize> = starts.collect();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(starts.len() == 3 && starts.iter().all(|at| *at == starts[0]), "{text}");
    }
}
