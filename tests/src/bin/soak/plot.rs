//! The chart of a soak: descriptors, memory, answers and latencies over time.

use std::collections::BTreeMap;

use anyhow::Result;
use chart::{Area, GREY, GRID, HEADING, INK, SMALL, TEXT, TOP, WIDTH};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::record::{Label, Record, Sample, What};
use crate::report;
use crate::verdict::{Verdict, medians};

const PANEL: i32 = 190;
/// Of a panel's title.
const HEAD: i32 = 22;
const LEFT: i32 = 44;
/// For the labels at the ends of the lines.
const RIGHT: i32 = 200;
const BOTTOM: i32 = 22;
/// Between the middles of two labels, at least.
const APART: i32 = 16;
/// At most so many points make a line.
const POINTS: u64 = 120;
const MINUTE: f64 = 60_000.0;

/// One process after the other, as one line with gaps, or one line without.
struct Line {
    label: String,
    color: RGBColor,
    pieces: Vec<Vec<(f64, f64)>>,
}

struct Panel {
    title: &'static str,
    lines: Vec<Line>,
}

/// A process that is drawn: instance, process, label, colour.
const PROCESSES: [(Label, &str, &str, RGBColor); 4] = [
    (Label::Gateway, "rootlesskit-gateway", "gateway process", RGBColor(11, 92, 173)),
    (Label::Docker, "rootlesskit-gateway", "gateway process, Docker", RGBColor(217, 120, 30)),
    (Label::Gateway, "rootlesskit parent", "rootlesskit", RGBColor(91, 155, 213)),
    (Label::Slirp4netns, "rootlesskit parent", "rootlesskit, builtin", RGBColor(142, 107, 191)),
];

const INSTANCES: [(Label, RGBColor); 3] = [
    (Label::Gateway, RGBColor(11, 92, 173)),
    (Label::Slirp4netns, RGBColor(142, 107, 191)),
    (Label::Docker, RGBColor(217, 120, 30)),
];

/// Draws it.
pub(crate) fn draw(record: &Record, verdict: &Verdict) -> Result<String> {
    let panels = [
        Panel { title: "Open descriptors", lines: processes(record, |s| s.descriptors as f64) },
        Panel {
            title: "Memory (PSS), MB",
            lines: processes(record, |s| s.pss_kib as f64 * 1024.0 / 1e6),
        },
        Panel { title: "Answers per second", lines: answers(record) },
        Panel { title: "p99 latency of new connections, ms", lines: latencies(record) },
    ];
    let height = PANEL * i32::try_from(panels.len())?;
    let minutes = record.length as f64 / MINUTE;
    let found = match (verdict.is_good(), verdict.judged > 0) {
        (true, true) => ": nothing leaks, nothing fails unprovoked",
        (true, false) => ": nothing fails unprovoked",
        (false, _) => "",
    };
    let title = format!("Soak of {minutes:.0} minutes{found}");
    chart::framed(&title, &footer(record, verdict), height, |area| {
        let mut top = TOP;
        for panel in &panels {
            draw_panel(area, panel, record, top)?;
            top += PANEL;
        }
        Ok(())
    })
}

fn footer(record: &Record, verdict: &Verdict) -> Vec<String> {
    let machine = &record.machine;
    let answers: u64 = record.traffic.iter().map(|traffic| traffic.done).sum();
    let deaths = record.events.iter().filter(|event| matches!(event.what, What::Killed(_))).count();
    let release = machine.kernel.split('-').next().unwrap_or_default();
    vec![
        format!(
            "{} operations. {} failed while a killed helper or gateway process was replaced (vertical lines, {deaths} \
             times), and {} failed otherwise.",
            chart::figure(answers as f64),
            verdict.excused,
            record.failures.len() - verdict.excused,
        ),
        format!(
            "{} processors ({}), Linux {release}, {}{}",
            machine.processors,
            machine.model,
            machine.date,
            report::load(record)
        ),
        machine.versions.join(", "),
    ]
}

fn draw_panel(area: &Area<'_>, panel: &Panel, record: &Record, top: i32) -> Result<()> {
    let bold = chart::style(HEADING, true, INK, HPos::Left);
    chart::write(area, panel.title, (14, top + HEAD / 2), &bold)?;
    let points = || panel.lines.iter().flat_map(|line| line.pieces.iter().flatten());
    let most = points().map(|(_, y)| *y).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let minutes = record.length as f64 / MINUTE;
    let plot = area.clone().shrink((0, top + HEAD), (WIDTH, PANEL - HEAD));
    let mut axes = ChartBuilder::on(&plot)
        .margin_top(8)
        .margin_right(RIGHT)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
        .build_cartesian_2d(0.0..minutes, 0.0..most * 1.05)?;
    axes.configure_mesh()
        .disable_x_mesh()
        .x_labels(7)
        .y_labels(5)
        .max_light_lines(0)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_label_formatter(&|minutes| format!("{} min", chart::tick(*minutes)))
        .y_label_formatter(&|value| chart::tick(*value))
        .label_style(chart::style(SMALL, false, GREY, HPos::Center))
        .draw()?;
    for event in &record.events {
        let What::Killed(label) = event.what else { continue };
        let color = INSTANCES.into_iter().find(|(of, _)| *of == label).map_or(GREY, |(_, c)| c);
        let x = event.at as f64 / MINUTE;
        axes.draw_series([PathElement::new([(x, 0.0), (x, most * 1.05)], color.mix(0.3))])?;
    }
    let mut ends = Vec::new();
    for line in &panel.lines {
        for piece in &line.pieces {
            axes.draw_series([PathElement::new(piece.clone(), line.color.stroke_width(2))])?;
        }
        if let Some(end) = line.pieces.last().and_then(|piece| piece.last()) {
            ends.push((axes.backend_coord(end).1, axes.backend_coord(&(minutes, 0.0)).0, line));
        }
    }
    ends.sort_by_key(|(y, ..)| *y);
    let mut free = top + HEAD + 8;
    let lowest = top + PANEL - BOTTOM;
    for (index, (y, x, line)) in ends.iter().enumerate() {
        // Those below need their places too.
        let below = i32::try_from(ends.len() - index)? * APART;
        let y = (*y).min(lowest - below + APART / 2).max(free);
        free = y + APART;
        let style = chart::style(TEXT, false, line.color, HPos::Left);
        chart::write(area, &line.label, (x + 10, y), &style)?;
    }
    Ok(())
}

/// Lines of a figure of each process that is drawn, with a gap wherever another took its place.
fn processes(record: &Record, figure: impl Fn(&Sample) -> f64) -> Vec<Line> {
    let line = |(instance, process, label, color): (Label, &str, &str, RGBColor)| {
        let mut lives: BTreeMap<u64, Vec<(u64, f64)>> = BTreeMap::new();
        let mut began = BTreeMap::new();
        for sample in &record.samples {
            if sample.instance == instance && sample.process == process {
                let since = *began.entry(sample.pid).or_insert(sample.at);
                lives.entry(since).or_default().push((sample.at, figure(sample)));
            }
        }
        let pieces = lives.values().map(|points| thinned(points, record.length));
        Line { label: label.to_owned(), color, pieces: pieces.collect() }
    };
    PROCESSES.into_iter().map(line).filter(|line| !line.pieces.is_empty()).collect()
}

/// Operations that ended well, for each instance.
fn answers(record: &Record) -> Vec<Line> {
    let line = |(instance, color): (Label, RGBColor)| {
        let width = (record.length / POINTS).max(10_000);
        // The first and the last interval are cut. One without an answer is an outage.
        let whole = 1..record.length / width;
        let mut sums: BTreeMap<u64, u64> = whole.map(|index| (index, 0)).collect();
        for traffic in record.traffic.iter().filter(|traffic| traffic.instance == instance) {
            if let Some(sum) = sums.get_mut(&(traffic.at / width)) {
                *sum += traffic.done;
            }
        }
        let point = |(index, sum): (u64, u64)| {
            ((index as f64 + 0.5) * width as f64 / MINUTE, sum as f64 * 1e3 / width as f64)
        };
        Line {
            label: instance.to_string(),
            color,
            pieces: vec![sums.into_iter().map(point).collect()],
        }
    };
    INSTANCES.into_iter().map(line).collect()
}

/// The 99th percentile of the time for one request over a new connection, for each instance: the median of its ways.
fn latencies(record: &Record) -> Vec<Line> {
    let line = |(instance, color): (Label, RGBColor)| {
        let own = record.traffic.iter().filter(|t| t.instance == instance && t.kind == "short");
        let points: Vec<(u64, f64)> = own.map(|t| (t.at, t.p99_us as f64 / 1e3)).collect();
        let pieces = vec![thinned(&points, record.length)];
        Line { label: instance.to_string(), color, pieces }
    };
    INSTANCES.into_iter().map(line).collect()
}

/// Medians of values in intervals, over minutes.
fn thinned(points: &[(u64, f64)], length: u64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> =
        points.iter().map(|(at, value)| (*at as f64 / MINUTE, *value)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    medians(&points, length as f64 / POINTS as f64 / MINUTE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Event, Load, Machine, Traffic};

    fn record() -> Record {
        let sample = |at: u64, pid: i32| Sample {
            at,
            instance: Label::Gateway,
            process: "rootlesskit-gateway".to_owned(),
            pid,
            descriptors: 100 + at / 1000,
            threads: 3,
            rss_kib: 5000,
            pss_kib: 3000,
            cpu_s: 0.5,
        };
        let traffic = |at: u64| Traffic {
            since: at - 10_000,
            at,
            instance: Label::Docker,
            way: "to a container, IPv4".to_owned(),
            kind: "short".to_owned(),
            done: 500,
            bytes: 0,
            repeated: 0,
            p50_us: 900,
            p99_us: 9000,
            max_us: 12_000,
        };
        let machine = Machine {
            date: "2026-02-03".to_owned(),
            processors: 4,
            model: "Test & Co. <fast>".to_owned(),
            kernel: "6.1.2-something".to_owned(),
            versions: vec!["rootlesskit version 3.2.0".to_owned(), "Docker 28.5".to_owned()],
        };
        let times = || (10_000..120_000).step_by(10_000);
        Record {
            machine,
            length: 120_000,
            events: vec![Event { at: 60_000, what: What::Killed(Label::Gateway) }],
            samples: times().map(|at| sample(at, if at < 60_000 { 7 } else { 8 })).collect(),
            traffic: times().map(traffic).collect(),
            loads: vec![Load { at: 5000, average: 3.2 }],
            ..Record::default()
        }
    }

    #[test]
    fn a_chart_names_its_series_and_the_machine_and_has_a_gap_at_a_death() {
        let record = record();
        let svg = draw(&record, &crate::verdict::of(&record)).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        let texts: Vec<&str> = texts.filter_map(|node| node.text()).map(str::trim).collect();
        for wanted in [
            "Open descriptors",
            "gateway process",
            "docker",
            "4 processors (Test & Co. <fast>), Linux 6.1.2, 2026-02-03, load average 3",
            "rootlesskit version 3.2.0, Docker 28.5",
        ] {
            assert!(texts.iter().any(|text| text.contains(wanted)), "{wanted}: {texts:?}");
        }
        assert!(texts.iter().any(|text| text.starts_with("5,500 operations.")), "{texts:?}");
        let lines = processes(&record, |sample| sample.descriptors as f64);
        let [line] = lines.as_slice() else { panic!("{} lines", lines.len()) };
        assert_eq!(line.pieces.len(), 2);
        assert_eq!(svg, draw(&record, &crate::verdict::of(&record)).unwrap());
    }

    #[test]
    fn a_line_has_the_medians_of_its_intervals() {
        // Intervals of a second each.
        let points = [(1000, 5.0), (0, 1.0), (100, 3.0), (900, 100.0)];
        let seconds = thinned(&points, POINTS * 1000).into_iter().map(|(x, y)| (x * 60.0, y));
        let rounded: Vec<(f64, f64)> =
            seconds.map(|(x, y)| ((x * 10.0).round() / 10.0, y)).collect();
        assert_eq!(rounded, [(0.5, 3.0), (1.5, 5.0)]);
    }

    #[test]
    fn a_soak_that_was_aborted_at_once_is_drawn_without_praise() {
        let record = Record { aborted: Some("no room".to_owned()), ..Record::default() };
        let svg = draw(&record, &crate::verdict::of(&record)).unwrap();
        assert!(svg.contains("Soak of 0 minutes") && !svg.contains("nothing"), "{svg}");
    }

    #[test]
    fn an_outage_is_drawn_as_no_answers() {
        let mut record = record();
        record.traffic.retain(|traffic| !(50_000..80_000).contains(&traffic.at));
        let lines = answers(&record);
        let line = lines.iter().find(|line| line.label == "docker").unwrap();
        let values: Vec<f64> = line.pieces[0].iter().map(|(_, rate)| *rate).collect();
        assert_eq!(values, [50.0, 50.0, 50.0, 50.0, 0.0, 0.0, 0.0, 50.0, 50.0, 50.0, 50.0]);
    }
}
