//! The column of the newest Docker as the page has it, for runs without such a Docker.

use tests::{Context as _, Result, paths};

use super::NEWEST;
use super::page::SEEN_WITH;

/// What the page has.
pub(super) struct Kept {
    /// The cells of the last column, in the order of the page.
    pub(super) cells: Vec<String>,
    /// The version that they were made with.
    pub(super) seen_with: Option<String>,
}

/// Reads the page.
///
/// # Errors
/// The page is not there.
pub(super) fn read() -> Result<Kept> {
    let path = paths::docs().join("reference/source-addresses.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(Kept { cells: cells_in(&text), seen_with: seen_with(&text) })
}

fn seen_with(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(SEEN_WITH)?;
    Some(rest.lines().next()?.trim_end_matches('.').to_owned())
}

fn cells_in(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut cells = Vec::new();
    for line in text.lines() {
        let last = line.trim_end_matches(" |").rsplit("| ").next().unwrap_or_default();
        if !line.starts_with('|') {
            inside = false;
        } else if last == format!("Docker {NEWEST}") {
            inside = true;
        } else if inside && !line.starts_with("|---") {
            cells.push(last.to_owned());
        }
    }
    cells
}

#[test]
fn the_last_column_is_read_where_it_is_that_of_the_newest() {
    let page = "| a | Docker 28.5 | Docker 29 |\n|---|---|---|\n| TCP | own | gateway |\n| UDP | own | *bridge* |\n\n\
                | a | Docker 28.5 |\n|---|---|\n| TCP | own |\n";
    assert_eq!(cells_in(page), ["gateway", "*bridge*"]);
}

#[test]
fn the_version_of_the_last_column_is_read() {
    assert_eq!(
        seen_with("as it is. Last generated with: dockerd 29.7.2.\nx"),
        Some("29.7.2".to_owned())
    );
    assert_eq!(seen_with("# a page\n"), None);
}
