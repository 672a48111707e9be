//! `cargo xtask bench --plot FILE`: charts of a stored run ([`crate::results`]), as SVG.
//!
//! Equal files give equal charts. Each chart names the machine, the versions and the congestion control of its run, and
//! has a white background, so that it can be read on a dark page too. Texts are SVG texts in the viewer's sans-serif font.

mod bars;
mod charts;
mod frame;
mod lines;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::results::Results;
use charts::{BARS, Bars, PUBLISH};

/// Draws all charts of which `file` has figures into the directory `out`.
pub(crate) fn run(file: &Path, out: &Path) -> Result<()> {
    let charts = draw(&Results::read(file)?)?;
    ensure!(
        !charts.is_empty(),
        "{} has no figures that a chart shows\nhint: cargo xtask bench without --only measures all of them",
        file.display()
    );
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    for (name, svg) in charts {
        let path = out.join(name);
        std::fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// File names and contents.
fn draw(results: &Results) -> Result<Vec<(&'static str, String)>> {
    let bars = BARS.iter().map(|chart: &Bars| Ok((chart.file, bars::draw(results, chart)?)));
    let lines = [&PUBLISH].into_iter().map(|chart| Ok((chart.file, lines::draw(results, chart)?)));
    let all = bars.chain(lines).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter_map(|(file, svg)| Some((file, svg?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with round numbers, which nobody has measured.
    const SMALL: &str = include_str!("small.json");

    fn results() -> Results {
        Results::parse(SMALL).unwrap()
    }

    /// All texts of a chart, which must be well-formed XML.
    fn texts(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        texts.map(|node| node.text().unwrap_or_default().trim().to_owned()).collect()
    }

    #[test]
    fn charts_are_well_formed_and_name_every_series_and_their_run() {
        let charts = draw(&results()).unwrap();
        let files: Vec<&str> = charts.iter().map(|(file, _)| *file).collect();
        let all: Vec<&str> = BARS.iter().map(|chart| chart.file).chain([PUBLISH.file]).collect();
        assert_eq!(files, all);
        for (file, svg) in &charts {
            let texts = texts(svg);
            let has = |wanted: &str| {
                assert!(
                    texts.iter().any(|text| text.contains(wanted)),
                    "{file}: {wanted}: {texts:?}"
                );
            };
            let own = BARS.iter().filter(|chart| chart.file == *file);
            let panels = own.flat_map(|chart| chart.panels).flat_map(|panel| panel.series);
            let series = if *file == PUBLISH.file { PUBLISH.series } else { &[] };
            for (_, label) in panels.chain(series) {
                has(&charts::label(&results(), label));
            }
            for wanted in ["4 processors (Test & Co. <fast>)", "RootlessKit 3.1.4", "2026-02-03"] {
                has(wanted);
            }
            has("Congestion control: cubic (");
            has("reno (gateway namespace)");
            let document = roxmltree::Document::parse(svg).unwrap();
            if *file == "speed.svg" {
                // Three strokes for each of four sides in four panels, one of which was not measured.
                let ink =
                    |node: &roxmltree::Node<'_, '_>| node.attribute("stroke") == Some("#1F2328");
                assert_eq!(document.descendants().filter(ink).count(), 45);
            }
            let first = document.root_element().first_element_child().unwrap();
            assert_eq!(
                (first.tag_name().name(), first.attribute("fill")),
                ("rect", Some("#FFFFFF"))
            );
        }
    }

    #[test]
    fn equal_results_give_equal_charts() {
        assert_eq!(draw(&results()).unwrap(), draw(&results()).unwrap());
    }

    #[test]
    fn what_was_not_measured_is_said_or_left_out() {
        let mut results = results();
        results.cells.retain(|cell| cell.row == "speed.out.up" && cell.side == "gateway");
        let charts = draw(&results).unwrap();
        let [(file, svg)] = charts.as_slice() else { panic!("{charts:?}") };
        let texts = texts(svg);
        assert_eq!(*file, "speed.svg");
        // The stored run says why pasta has no figure; nobody says why RootlessKit has none.
        assert_eq!(texts.iter().filter(|text| *text == "not measured").count(), 1, "{texts:?}");
        assert!(!texts.iter().any(|text| text.contains(": slirp4netns")), "{texts:?}");
        results.cells.clear();
        assert!(draw(&results).unwrap().is_empty());
    }

    #[test]
    fn one_congestion_control_for_all_is_said_once() {
        let mut results = results();
        for namespaces in results.congestion.hosts.values_mut() {
            namespaces.values_mut().for_each(|name| "cubic".clone_into(name));
        }
        for (file, svg) in draw(&results).unwrap() {
            let found = texts(&svg).join(" ");
            assert!(
                found.contains("Congestion control: cubic in every network namespace."),
                "{file}: {found}"
            );
        }
    }

    #[test]
    fn files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, out) = (folder.path().join("run.json"), folder.path().join("docs/images"));
        results().write(&file).unwrap();
        run(&file, &out).unwrap();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), BARS.len() + 1);
        let again = std::fs::read_to_string(out.join("speed.svg")).unwrap();
        assert!(draw(&results()).unwrap().contains(&("speed.svg", again)));
    }
}
