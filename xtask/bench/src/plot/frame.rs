//! What all charts of the benchmark have at the bottom: the run that the figures come from.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::results::{Cell, Results};

pub(super) use chart::{
    Area, GREY, GRID, HEADING, INK, SMALL, TEXT, TOP, WIDTH, figure, range, style, tick, write,
};

/// An SVG of this height between title and footer, which `body` draws.
pub(super) fn framed(
    results: &Results,
    title: &str,
    cells: &[&Cell],
    height: i32,
    body: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    chart::framed(title, &footer(results, cells), height, body)
}

/// The run, in sentences.
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
    vec![
        format!("Medians of {rounds} rounds; thin lines from minimum to maximum.{disturbed}"),
        format!(
            "{} processors ({}){pinned}, Linux {}, {}{short}",
            machine.processors, machine.model, release, results.date
        ),
        versions(results),
        congestion(results),
    ]
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
