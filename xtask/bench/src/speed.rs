//! Published ports and outbound traffic of whole configurations, as users choose them: a network driver with a port
//! driver. Every side is measured from the same two places, so that their figures stand in one table.

use std::fmt::Write as _;

use anyhow::Result;

use crate::layout::{self, value};
use crate::rounds::Bench;
use crate::route;
use crate::sheet::{Sheet, Side};
use crate::streams::{Line, STREAMS};

/// In the order of the columns.
const COLUMNS: [Side; 6] = [
    Side::Gateway,
    Side::GatewayBuiltin,
    Side::Slirp,
    Side::Theirs,
    Side::PastaNet,
    Side::Loopback,
];

/// The name of a stream's row.
pub(crate) fn row(end: &str) -> String {
    format!("speed.{end}")
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let mut lines = Vec::new();
    for side in route::sides(machine) {
        super::go_on()?;
        // The part `apps` has the first variant, whose directories may remain.
        match Line::start(machine, side, 2, true) {
            Ok(line) => lines.push(line),
            Err(error) if side == Side::Gateway => return Err(error),
            Err(error) => bench.leave_out(side, &error),
        }
    }
    let ms = bench.options.sample_ms(700).to_string();
    let rounds = bench.options.net_rounds();
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        lines.rotate_left(1);
        for stream in STREAMS {
            for line in &lines {
                let take = || line.stream(machine, stream, &ms);
                bench.enter(&row(stream.end), line.route.side, round, take)?;
            }
        }
    }
    Ok(())
}

/// The table; empty if nothing was measured.
pub(crate) fn report(sheet: &Sheet, version: &str, markdown: bool) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for stream in STREAMS {
        let kinds =
            [("", format!("{}, Gbit/s", stream.title), 2), (".cpu", "– CPU s/GB".into(), 3)];
        for (end, title, decimals) in kinds {
            let row = row(stream.end) + end;
            let cells: Vec<String> = COLUMNS
                .iter()
                .map(|side| sheet.spread(&row, *side).map(|spread| value(spread, decimals)))
                .map(Option::unwrap_or_default)
                .collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                lines.push([title].into_iter().chain(cells).collect());
            }
        }
    }
    let mut out = String::new();
    if lines.is_empty() {
        return out;
    }
    let theirs = format!("RootlessKit {version}");
    let heads = COLUMNS.iter().map(|side| match side {
        Side::Theirs => &*theirs,
        Side::PastaNet => "pasta",
        Side::Loopback => "raw",
        _ => side.name(),
    });
    let heads: Vec<&str> = ["TCP, 1 stream"].into_iter().chain(heads).collect();
    let table = layout::table(&heads, &lines, markdown, |column| column > 0);
    let _ = write!(
        out,
        "\n{table}\nMedians. ~ the rest of the machine was busy. slirp4netns and pasta: with their own port drivers. \
         RootlessKit: slirp4netns with the port driver builtin. raw: without any namespace.\n"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_that_were_not_measured_have_empty_cells() {
        let mut sheet = Sheet::default();
        assert_eq!(report(&sheet, "2.0.2", true), "");
        for round in 0..2 {
            sheet.add("speed.out.down", Side::Gateway, round, 12.5, true);
            sheet.add("speed.out.down.cpu", Side::Gateway, round, 0.25, true);
            sheet.add("speed.out.down", Side::Theirs, round, 3.0, true);
        }
        let text = report(&sheet, "2.0.2", true);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(line("| TCP, 1 stream | gateway |").contains("| RootlessKit 2.0.2 |"), "{text}");
        assert_eq!(
            line("| outbound, download"),
            "| outbound, download, Gbit/s | 12.50 |  |  | 3.00 |  |  |"
        );
        assert_eq!(line("| – CPU"), "| – CPU s/GB | 0.250 |  |  |  |  |  |");
        assert!(!text.contains("published,"), "{text}");
    }
}
