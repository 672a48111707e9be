//! Charts of horizontal bars: a panel for each row of the benchmark, a bar for each side.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::charts::{self, Bars, Panel};
use super::frame::{self, Area, GREY, GRID, HEADING, INK, SMALL, TEXT, TOP, WIDTH};
use crate::results::{Cell, Results};
use crate::sheet::Side;

/// For labels, left of the bars.
const LEFT: i32 = 236;
/// For figures, right of the longest bar.
const RIGHT: i32 = 84;
/// Of a panel's title, of one bar with the gap to the next, and of the axis with the gap to the next panel.
const HEAD: i32 = 22;
const BAR: i32 = 20;
const AXIS: i32 = 30;
/// Of the numbers at the axis.
const TICKS: i32 = 18;
/// Of a bar, as a share of [`BAR`].
const THICKNESS: f64 = 0.7;

/// A side of a panel. No cell: it was not measured.
struct Row<'a> {
    side: Side,
    label: String,
    cell: Option<&'a Cell>,
}

/// The chart, if any of its rows was measured.
pub(super) fn draw(results: &Results, chart: &Bars) -> Result<Option<String>> {
    let panels = chart.panels.iter().map(|panel| (panel, rows(results, panel)));
    let panels: Vec<(&Panel, Vec<Row<'_>>)> =
        panels.filter(|(_, rows)| rows.iter().any(|row| row.cell.is_some())).collect();
    let cells: Vec<&Cell> =
        panels.iter().flat_map(|(_, rows)| rows).filter_map(|row| row.cell).collect();
    if cells.is_empty() {
        return Ok(None);
    }
    let shared = chart.shared.then(|| largest(&cells));
    let heights = panels.iter().map(|(_, rows)| height(rows)).collect::<Result<Vec<i32>>>()?;
    frame::framed(results, chart.title, &cells, heights.iter().sum(), |area| {
        let mut top = TOP;
        for ((panel, rows), height) in panels.iter().zip(&heights) {
            draw_panel(area, panel, rows, shared, top, *height)?;
            top += height;
        }
        Ok(())
    })
    .map(Some)
}

/// The sides of a panel that were measured, and those of which the results say why they were not.
fn rows<'a>(results: &'a Results, panel: &Panel) -> Vec<Row<'a>> {
    let row = |(side, label): &(Side, &str)| {
        let cell = results.cell(panel.row, *side);
        // What a sample costs is missing with the sample.
        let sampled = panel.row.strip_suffix(".cpu").unwrap_or(panel.row);
        let known = cell.is_some() || results.reason(panel.part, sampled, *side).is_some();
        known.then(|| Row { side: *side, label: charts::label(results, label), cell })
    };
    panel.series.iter().filter_map(row).collect()
}

fn height(rows: &[Row<'_>]) -> Result<i32> {
    Ok(HEAD + BAR * i32::try_from(rows.len())? + AXIS)
}

/// The end of the scale.
fn largest(cells: &[&Cell]) -> f64 {
    let largest = cells.iter().map(|cell| cell.max).fold(0.0, f64::max);
    if largest > 0.0 { largest } else { 1.0 }
}

fn draw_panel(
    area: &Area<'_>,
    panel: &Panel,
    rows: &[Row<'_>],
    shared: Option<f64>,
    top: i32,
    height: i32,
) -> Result<()> {
    let cells: Vec<&Cell> = rows.iter().filter_map(|row| row.cell).collect();
    let unit = cells.first().map_or("", |cell| cell.unit.as_str());
    let title = format!("{}, {unit}", panel.title);
    let bold = frame::style(HEADING, true, INK, HPos::Left);
    frame::write(area, &title, (14, top + HEAD / 2 - 1), &bold)?;

    let bottom = top + height - AXIS + TICKS;
    let plot = area.clone().shrink((0, top + HEAD), (WIDTH, bottom - top - HEAD));
    let end = shared.unwrap_or_else(|| largest(&cells));
    let count = f64::from(u32::try_from(rows.len())?);
    let mut chart = ChartBuilder::on(&plot)
        .margin_right(RIGHT)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, TICKS)
        .build_cartesian_2d(0.0..end, 0.0..count)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().x_labels(7).y_labels(0).x_max_light_lines(0);
    mesh.bold_line_style(GRID).axis_style(GRID).x_label_formatter(&|value| frame::tick(*value));
    // The axis sets the position itself.
    mesh.x_label_style(frame::style(SMALL, false, GREY, HPos::Center));
    mesh.draw()?;

    let right = frame::style(TEXT, false, INK, HPos::Right);
    let left = frame::style(TEXT, false, INK, HPos::Left);
    for (index, row) in (0_u32..).zip(rows) {
        let y = count - f64::from(index) - 0.5;
        let (x, middle) = chart.backend_coord(&(0.0, y));
        frame::write(area, &row.label, (x - 8, middle), &right)?;
        let Some(cell) = row.cell else {
            let grey = frame::style(SMALL, false, GREY, HPos::Left);
            frame::write(area, "not measured", (x + 6, middle), &grey)?;
            continue;
        };
        let half = THICKNESS / 2.0;
        let corners = [(0.0, y + half), (cell.median, y - half)];
        chart.draw_series([Rectangle::new(corners, charts::color(row.side).filled())])?;
        let at = |value: f64| chart.backend_coord(&(value, y));
        frame::range(area, [at(cell.min), at(cell.max)])?;
        let mark = if cell.disturbed { "~" } else { "" };
        let figure = format!("{mark}{}", frame::figure(cell.median));
        frame::write(area, &figure, (at(cell.max).0 + 8, middle), &left)?;
    }
    Ok(())
}
