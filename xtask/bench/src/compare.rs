//! Two congestion controls of the host in one run: rounds alternate between them, and each has routes of its own.

use anyhow::Result;

use crate::layout::{self, times, value};
use crate::rounds::Bench;
use crate::route;
use crate::sheet::{Sheet, Side};
use crate::streams::{Line, STREAMS};

/// What the first may cost of the second's figure with the gateway.
const GOAL: f64 = 0.85;

const COLUMNS: [Side; 6] = [
    Side::Gateway,
    Side::GatewayBuiltin,
    Side::Slirp,
    Side::PastaNet,
    Side::Theirs,
    Side::Loopback,
];

fn row(name: &str, end: &str) -> String {
    format!("congestion.{name}.{end}")
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let names = bench.options.congestion.clone();
    let switch = |name: &str| machine.congestion.borrow_mut().switch(name);
    // Each with the index of its congestion control.
    let mut cases: Vec<(usize, Line)> = Vec::new();
    for (of, name) in names.iter().enumerate() {
        switch(name)?;
        for side in route::sides(machine) {
            super::go_on()?;
            let variant = 2 * u16::try_from(of)?;
            match Line::start(machine, side, variant, route::has_way_out(side)) {
                Ok(line) => cases.push((of, line)),
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
        for stream in STREAMS {
            let mut order: Vec<usize> = (0..names.len()).collect();
            order.rotate_left(round % names.len());
            let measured = |side: &Side| !stream.outbound || route::has_way_out(*side);
            for side in COLUMNS.into_iter().filter(measured) {
                // One right after the other: their ratio is what counts.
                for of in &order {
                    switch(&names[*of])?;
                    let mine = |(at, line): &&(usize, Line)| at == of && line.route.side == side;
                    if let Some((_, line)) = cases.iter().find(mine) {
                        let take = || line.stream(machine, stream, &ms);
                        bench.enter(&row(&names[*of], stream.end), side, round, take)?;
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
    let lines = STREAMS.iter().flat_map(|stream| {
        COLUMNS.iter().filter_map(move |side| {
            let (above, below) = (row(first, stream.end), row(second, stream.end));
            let figure = |row| sheet.spread(row, *side).map(|spread| value(spread, 2));
            let ratio = sheet.ratio_of((&above, *side), (&below, *side))?;
            let goal = match side {
                Side::Gateway if ratio.median >= GOAL => format!("reached: ≥ {GOAL}"),
                Side::Gateway => format!("missed: ≥ {GOAL}"),
                _ => String::new(),
            };
            let name = if *side == Side::Loopback { "raw" } else { side.name() };
            let (above, below) = (figure(&above)?, figure(&below)?);
            Some(vec![stream.title.to_owned(), name.to_owned(), above, below, times(ratio), goal])
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
        assert!(line("outbound, download | gateway").contains("| reached: ≥ 0.85"), "{text}");
        assert!(!text.contains("outbound, upload"), "{text}");
    }
}
