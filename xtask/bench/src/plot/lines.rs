//! Charts of figures against a number: a line for each side.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::charts::{self, Lines};
use super::frame::{self, GREY, GRID, INK, SMALL, TEXT, TOP, WIDTH};
use crate::results::{Cell, Results};
use crate::sheet::Side;

const HEIGHT: i32 = 300;
/// For the labels at the ends of the lines.
const RIGHT: i32 = 210;
const LEFT: i32 = 44;
const BOTTOM: i32 = 40;
/// Between the middles of two labels, at least.
const APART: i32 = 16;

/// A side with its points.
struct Line<'a> {
    side: Side,
    label: String,
    points: Vec<(f64, &'a Cell)>,
}

/// The chart, if any of its rows was measured.
pub(super) fn draw(results: &Results, chart: &Lines) -> Result<Option<String>> {
    let line = |(side, label): &(Side, &str)| {
        let points = chart
            .points
            .iter()
            .filter_map(|(number, row)| Some((*number, results.cell(row, *side)?)));
        let points: Vec<(f64, &Cell)> = points.collect();
        let label = charts::label(results, label);
        (!points.is_empty()).then_some(Line { side: *side, label, points })
    };
    let lines: Vec<Line<'_>> = chart.series.iter().filter_map(line).collect();
    let points: Vec<(f64, &Cell)> = lines.iter().flat_map(|line| &line.points).copied().collect();
    if points.is_empty() {
        return Ok(None);
    }
    let cells: Vec<&Cell> = points.iter().map(|(_, cell)| *cell).collect();
    let width = points.iter().map(|(number, _)| *number).fold(0.0, f64::max);
    let height = cells.iter().map(|cell| cell.max).fold(f64::MIN_POSITIVE, f64::max);
    frame::framed(results, chart.title, &cells, HEIGHT, |area| {
        let plot = area.clone().shrink((0, TOP), (WIDTH, HEIGHT - 10));
        let mut axes = ChartBuilder::on(&plot)
            .margin_top(8)
            .margin_right(RIGHT)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
            .build_cartesian_2d(0.0..width, 0.0..height)?;
        let [x, y] = chart.axes;
        axes.configure_mesh()
            .x_labels(6)
            .y_labels(6)
            .max_light_lines(0)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_label_formatter(&|value| frame::tick(*value))
            .y_label_formatter(&|value| frame::tick(*value))
            .label_style(frame::style(SMALL, false, GREY, HPos::Center))
            .axis_desc_style(frame::style(SMALL, false, GREY, HPos::Center))
            .x_desc(x)
            .y_desc(y)
            .draw()?;
        let mut ends = Vec::new();
        for line in &lines {
            let color = charts::color(line.side);
            let medians = line.points.iter().map(|(number, cell)| (*number, cell.median));
            let medians: Vec<(f64, f64)> = medians.collect();
            axes.draw_series([PathElement::new(medians.clone(), color.stroke_width(2))])?;
            axes.draw_series(medians.iter().map(|at| Circle::new(*at, 3, color.filled())))?;
            for (number, cell) in &line.points {
                let at = |value: f64| axes.backend_coord(&(*number, value));
                frame::range(area, [at(cell.min), at(cell.max)])?;
            }
            if let Some((number, cell)) = line.points.last() {
                let text = format!("{}: {} {}", line.label, frame::figure(cell.median), cell.unit);
                ends.push((axes.backend_coord(&(*number, cell.median)), text));
            }
        }
        ends.sort_by_key(|((_, y), _)| *y);
        let mut free = TOP;
        for ((x, y), text) in ends {
            let y = y.max(free);
            free = y + APART;
            frame::write(area, &text, (x + 10, y), &frame::style(TEXT, false, INK, HPos::Left))?;
        }
        Ok(())
    })
    .map(Some)
}
