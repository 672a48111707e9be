//! What all charts of this repository have: size, fonts and colours, the title, and at the bottom where the figures come
//! from.
//!
//! # Why plotters
//! It is the plotting crate that most others use (criterion among them). With its SVG backend alone, it builds three
//! crates (`plotters`, `plotters-backend`, `plotters-svg`) and `num-traits`, which the workspace had already. Cargo.lock
//! also lists the crates that plotters needs in a browser (`wasm-bindgen` and others); no target of this project builds them.
//! Without its feature `ttf`, plotters reads no font of the machine, so the charts do not depend on it.
//!
//! The alternatives: `poloto` builds two crates, but its last release is of July 2023. `charts-rs` parses fonts. `kuva`
//! depends on `chrono`. `eb_bars` has no dependencies, but draws bars only, without a range.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use xtask_support::table::grouped;

/// Of every chart, in pixels. READMEs show images of this width unscaled.
pub const WIDTH: i32 = 700;
/// Above the first panel.
pub const TOP: i32 = 44;
/// Of texts, in pixels.
pub const TEXT: f64 = 12.0;
/// Of headings.
pub const HEADING: f64 = 14.0;
const TITLE: f64 = 17.0;
/// Of axes and of the footer.
pub const SMALL: f64 = 11.0;
const MARGIN: i32 = 14;
const LINE: i32 = 15;
/// Characters that fit into a line of small text. Fonts differ; no common one needs more than 6 pixels each on average.
const COLUMNS: usize = 108;

/// Of texts.
pub const INK: RGBColor = RGBColor(31, 35, 40);
/// Of texts at axes and in the footer.
pub const GREY: RGBColor = RGBColor(89, 96, 105);
/// Of lines behind the figures.
pub const GRID: RGBColor = RGBColor(216, 222, 228);

/// plotters divides the size of a font by this for SVG.
const SIZE_OF_FONT: f64 = 1.24;

/// What is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A style of text, `size` pixels high.
#[must_use]
pub fn style(size: f64, bold: bool, color: RGBColor, at: HPos) -> TextStyle<'static> {
    let weight = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::SansSerif, size * SIZE_OF_FONT, weight);
    let mut style = TextStyle::from(font).pos(Pos::new(at, VPos::Center));
    style.color = color.to_backend_color();
    style
}

/// Writes a text whose middle is `at` in height, and in width its beginning, middle or end as the style says.
///
/// # Errors
/// Never: a string cannot fail as a target.
pub fn write(area: &Area<'_>, text: &str, at: (i32, i32), style: &TextStyle<'_>) -> Result<()> {
    Ok(area.draw(&Text::new(text, at, style.clone()))?)
}

/// A line from the smallest to the largest value, with a stroke at each end.
///
/// # Errors
/// As [`write`].
pub fn range(area: &Area<'_>, ends: [(i32, i32); 2]) -> Result<()> {
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

/// An SVG with `title` on top, `body` of this height (in pixels, from [`TOP`] on), and at the bottom the texts of `footer`.
///
/// # Errors
/// Those of `body`.
pub fn framed(
    title: &str,
    footer: &[String],
    height: i32,
    body: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let footer: Vec<String> = footer.iter().flat_map(|text| wrapped(text)).collect();
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
#[must_use]
pub fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    grouped(value, decimals)
}

/// A number at an axis, without zeros at its end.
#[must_use]
pub fn tick(value: f64) -> String {
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
