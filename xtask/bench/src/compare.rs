//! Two congestion controls of the host in one run: rounds alternate between them, and each has routes of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::instance::{client, serve};
use crate::layout::{self, times, value};
use crate::machine::{ADDRESS, Machine};
use crate::process::{PROCESS_TIMEOUT, Process};
use crate::rounds::{Bench, Values, number};
use crate::route::{self, Route};
use crate::sheet::{Sheet, Side};

/// What the first may cost of the second's figure with the gateway.
const GOAL: f64 = 0.85;

/// What is measured with one stream: the end of its row's name, its title, whether the namespace connects, and which way
/// the bytes go as the client sees it.
const CELLS: [(&str, &str, bool, &str); 4] = [
    ("pub.up", "published, upload", false, "up"),
    ("pub.down", "published, download", false, "down"),
    ("out.up", "egress, upload", true, "up"),
    ("out.down", "egress, download", true, "down"),
];

const COLUMNS: [Side; 6] = [
    Side::Gateway,
    Side::GatewayBuiltin,
    Side::Slirp,
    Side::PastaNet,
    Side::Theirs,
    Side::Loopback,
];

fn row(name: &str, cell: &str) -> String {
    format!("congestion.{name}.{cell}")
}

/// One side under one congestion control. Servers end first.
#[derive(Debug)]
struct Case {
    /// Index of the congestion control.
    of: usize,
    /// In the namespace, for published ports.
    _inner: Process,
    /// On the machine.
    outer: Option<(Process, u16)>,
    route: Route,
}

impl Case {
    fn start(machine: &Machine, side: Side, of: usize) -> Result<Self> {
        let route = Route::start(machine, side, 2 * u16::try_from(of)?)?;
        let inner = serve(machine, route.base, route.netns()?.as_deref())?;
        let outer = match side {
            Side::Loopback => None,
            // Not the ports that the route publishes.
            _ => {
                let base = route.base + 1000;
                Some((serve(machine, base, None)?, base))
            }
        };
        let this = Self { of, _inner: inner, outer, route };
        for out in [false, true] {
            if !out || route::has_way_out(side) {
                this.wait_until_answered(machine, out)?;
            }
        }
        Ok(this)
    }

    fn client(
        &self,
        machine: &Machine,
        out: bool,
        mode: &str,
        options: &[&str],
    ) -> Result<serde_json::Value> {
        let netns = self.route.netns()?;
        let mut all = options.to_vec();
        if out {
            all.extend(["--to", ADDRESS]);
            if let Some(netns) = &netns {
                all.extend(["--netns", netns]);
            }
        }
        let outer = self.outer.as_ref().filter(|_| out).map(|(_, base)| *base);
        client(machine, mode, outer.unwrap_or(self.route.base), &all)
    }

    fn wait_until_answered(&self, machine: &Machine, out: bool) -> Result<()> {
        let end = Instant::now() + PROCESS_TIMEOUT;
        loop {
            let report = self.client(machine, out, "keep", &["--flight", "1", "--ms", "20"]);
            if report.is_ok_and(|report| report["failed"] == 0 && report["done"] != 0) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{}: nothing comes back within {PROCESS_TIMEOUT:?}: {}",
                self.route.side.name(),
                self.route.last_words()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stream(&self, machine: &Machine, out: bool, direction: &str, ms: &str) -> Result<Values> {
        let options =
            ["--direction", direction, "--streams", "1", "--ms", ms, "--patience", "1000"];
        let report = self.client(machine, out, "bulk", &options)?;
        ensure!(number(&report, "bytes")? > 0.0, "nothing arrived");
        Ok(vec![("", number(&report, "rate")? * 8.0 / 1e9)])
    }
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let names = bench.options.congestion.clone();
    let switch = |name: &str| machine.congestion.borrow_mut().switch(name);
    let mut cases = Vec::new();
    for (of, name) in names.iter().enumerate() {
        switch(name)?;
        for side in route::sides(machine) {
            super::go_on()?;
            match Case::start(machine, side, of) {
                Ok(case) => cases.push(case),
                Err(error) if side == Side::Gateway => return Err(error),
                Err(error) => bench.leave_out(side, &error.context(format!("under {name}"))),
            }
        }
    }
    let ms = bench.options.sample_ms(1000).to_string();
    let rounds = bench.options.rounds();
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        cases.rotate_left(1);
        for (cell, _, out, direction) in CELLS {
            let mut order: Vec<usize> = (0..names.len()).collect();
            order.rotate_left(round % names.len());
            for side in COLUMNS.into_iter().filter(|side| !out || route::has_way_out(*side)) {
                // One right after the other: their ratio is what counts.
                for of in &order {
                    switch(&names[*of])?;
                    let mine = cases.iter().find(|case| case.route.side == side && case.of == *of);
                    if let Some(case) = mine {
                        let take = || case.stream(machine, out, direction, &ms);
                        bench.enter(&row(&names[*of], cell), side, round, take)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The table of what was compared; empty if nothing was.
pub(crate) fn report(sheet: &Sheet, names: &[String], markdown: bool) -> String {
    let [first, second] = names else { return String::new() };
    let lines = CELLS.iter().flat_map(|(cell, title, ..)| {
        COLUMNS.iter().filter_map(move |side| {
            let (above, below) = (row(first, cell), row(second, cell));
            let figure = |row| sheet.spread(row, *side).map(|spread| value(spread, 2));
            let ratio = sheet.ratio_of((&above, *side), (&below, *side))?;
            let goal = match side {
                Side::Gateway if ratio.median >= GOAL => format!("reached: ≥ {GOAL}"),
                Side::Gateway => format!("missed: ≥ {GOAL}"),
                _ => String::new(),
            };
            let name = if *side == Side::Loopback { "raw" } else { side.name() };
            let (above, below) = (figure(&above)?, figure(&below)?);
            Some(vec![(*title).to_owned(), name.to_owned(), above, below, times(ratio), goal])
        })
    });
    let lines: Vec<Vec<String>> = lines.collect();
    if lines.is_empty() {
        return String::new();
    }
    let ratio = format!("{first}/{second}");
    let head = ["TCP, 1 stream, Gbit/s", "", first, second, &ratio, "goal"];
    let table = layout::table(&head, &lines, markdown, |column| matches!(column, 2 | 3));
    format!(
        "\n{table}\nMedians; ratios are medians over rounds (min–max). ~ the rest of the machine was busy.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_within_rounds_and_the_gateway_has_a_goal() {
        let names = ["bbr".to_owned(), "cubic".to_owned()];
        let mut sheet = Sheet::default();
        assert_eq!(report(&sheet, &names, false), "");
        for round in 0..3 {
            let machine = 1.0 + f64::from(u8::try_from(round).unwrap());
            for (side, bbr) in [(Side::Gateway, 8.0), (Side::Loopback, 5.0)] {
                sheet.add("congestion.bbr.pub.up", side, round, bbr * machine, true);
                sheet.add("congestion.cubic.pub.up", side, round, 10.0 * machine, true);
            }
            sheet.add("congestion.bbr.out.down", Side::Gateway, round, 9.0, true);
            sheet.add("congestion.cubic.out.down", Side::Gateway, round, 10.0, true);
        }
        let text = report(&sheet, &names, true);
        let line = |start: &str| text.lines().find(|line| line.contains(start)).unwrap();
        assert!(line("upload | gateway").contains("16.00 | 20.00 | 0.80× (0.80–0.80) | missed"));
        assert!(line("upload | raw").contains("0.50×") && !line("raw").contains("missed"));
        assert!(line("egress, download | gateway").contains("| reached: ≥ 0.85"), "{text}");
        assert!(!text.contains("egress, upload"), "{text}");
    }
}
