//! What all charts have: size, fonts and colours, the title, and at the bottom the run that the figures come from.

use std::collections::BTreeMap;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::layout::grouped;
use crate::results::{Cell, Results};

/// Of every chart, in pixels. READMEs show images of this width unscaled.
pub(super) const WIDTH: i32 = 700;
/// Above the first panel.
pub(super) const TOP: i32 = 44;
/// Of texts, in pixels.
pub(super) const TEXT: f64 = 12.0;
pub(super) const HEADING: f64 = 14.0;
const TITLE: f64 = 17.0;
pub(super) const SMALL: f64 = 11.0;
const MARGIN: i32 = 14;
const LINE: i32 = 15;
/// Characters that fit into a line of small text. Fonts differ; no common one needs more than 6 pixels each on average.
const COLUMNS: usize = 108;

pub(super) const INK: RGBColor = RGBColor(31, 35, 40);
pub(super) const GREY: RGBColor = RGBColor(89, 96, 105);
pub(super) const GRID: RGBColor = RGBColor(216, 222, 228);

/// plotters divides the size of a font by this for SVG.
const SIZE_OF_FONT: f64 = 1.24;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A style of text, `size` pixels high.
pub(super) fn style(size: f64, bold: bool, color: RGBColor, at: HPos) -> TextStyle<'static> {
    let weight = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::SansSerif, size * SIZE_OF_FONT, weight);
    let mut style = TextStyle::from(font).pos(Pos::new(at, VPos::Center));
    style.color = color.to_backend_color();
    style
}

/// Writes a text whose middle is `at` in height, and in width its beginning, middle or end as the style says.
pub(super) fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    style: &TextStyle<'_>,
) -> Result<()> {
    Ok(area.draw(&Text::new(text, at, style.clone()))?)
}

/// A line from the smallest to the largest value, with a stroke at each end.
pub(super) fn range(area: &Area<'_>, ends: [(i32, i32); 2]) -> Result<()> {
    let [(x0, y0), (x1, y1)] = ends;
    // Across the line, whichever way that runs.
    let (dx, dy) = if y0 == y1 { (0, 4) } else { (4, 0) };
    let strokes = [
        [(x0, y0), (x1, y1)],
        [(x0 - dx, y0 - dy), (x0 + dx, y0 + dy)],
        [(x1 - dx, y1 - dy), (x1 + dx, y1 + dy)],
    ];
    for stroke in strokes {
        area.draw(&PathElement::new(stroke, INK.stroke_width(1)))?;
    }
    Ok(())
}

/// An SVG of this height between title and footer, which `body` draws.
pub(super) fn framed(
    results: &Results,
    title: &str,
    cells: &[&Cell],
    height: i32,
    body: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let footer = footer(results, cells);
    let lines = i32::try_from(footer.len())?;
    let size = (WIDTH.try_into()?, (TOP + height + LINE * lines + MARGIN).try_into()?);
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    write(&area, title, (MARGIN, 24), &style(TITLE, true, INK, HPos::Left))?;
    body(&area)?;
    for (index, line) in (0..).zip(&footer) {
        let y = TOP + height + LINE * index + LINE / 2;
        write(&area, line, (MARGIN, y), &style(SMALL, false, GREY, HPos::Left))?;
    }
    area.present()?;
    drop(area);
    Ok(svg)
}

/// The run, as lines that fit.
fn footer(results: &Results, cells: &[&Cell]) -> Vec<String> {
    let machine = &results.machine;
    // What a distribution adds to the release of Linux says little.
    let release = machine.kernel.split('-').next().unwrap_or_default();
    let pinned = if machine.pinned { ", forwarders and load on separate ones" } else { "" };
    let counts = || cells.iter().map(|cell| cell.samples.len());
    let (few, many) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    let rounds = if few == many { few.to_string() } else { format!("{few} to {many}") };
    let disturbed = if cells.iter().any(|cell| cell.disturbed) {
        " ~ the rest of the machine was busy."
    } else {
        ""
    };
    let short = if results.quick { ", a short run" } else { "" };
    let texts = [
        format!("Medians of {rounds} rounds; thin lines from minimum to maximum.{disturbed}"),
        format!(
            "{} processors ({}){pinned}, Linux {}, {}{short}",
            machine.processors, machine.model, release, results.date
        ),
        versions(results),
        congestion(results),
    ];
    texts.iter().flat_map(|text| wrapped(text)).collect()
}

fn versions(results: &Results) -> String {
    let versions = results.programs.iter().filter_map(|(name, program)| {
        let program = program.as_ref()?;
        Some(match name.as_str() {
            "ours" => format!("rootlesskit {} (this project)", program.number()),
            "theirs" => format!("RootlessKit {}", program.number()),
            // Those of networks have a prefix, as in "networks: slirp4netns".
            _ => match name.split_once(": ") {
                Some((part, tool)) => format!("{tool} {} ({part})", program.number()),
                None => program.version.clone(),
            },
        })
    });
    versions.collect::<Vec<_>>().join(", ")
}

/// Namespaces by what they have.
fn congestion(results: &Results) -> String {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (namespace, name) in results.congestion.hosts.values().flatten() {
        groups.entry(name).or_default().push(namespace);
    }
    let all = groups.len() == 1;
    let groups = groups.iter().map(|(name, of)| {
        if all {
            format!("{name} in every network namespace")
        } else {
            format!("{name} ({})", of.join(", "))
        }
    });
    let groups: Vec<String> = groups.collect();
    let default = &results.congestion.default;
    format!("Congestion control: {}. The machine's default is {default}.", groups.join("; "))
}

/// A text in lines of at most [`COLUMNS`] characters, unless a word has more.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let end = lines.len() - 1;
        let line = &mut lines[end];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= COLUMNS {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A figure with about three digits.
pub(super) fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    grouped(value, decimals)
}

/// A number at an axis, without zeros at its end.
pub(super) fn tick(value: f64) -> String {
    let text = grouped(value, 3);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped() {
        let words = vec!["twelve chars"; 20].join(" ");
        let lines = wrapped(&words);
        assert_eq!(lines.join(" "), words);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= COLUMNS), "{lines:?}");
    }

    #[test]
    fn figures_have_three_digits_and_ticks_no_zeros_at_their_end() {
        let figures = [0.0234, 1.5, 12.345, 123.4, 12_345.0].map(figure);
        assert_eq!(figures, ["0.023", "1.50", "12.3", "123", "12,345"]);
        assert_eq!([0.0, 0.25, 10.0, 20_000.0].map(tick), ["0", "0.25", "10", "20,000"]);
    }
}
