//! The column of the newest Docker as the page has it, for runs without such a Docker.

use tests::{Context as _, Result, paths};

use super::NEWEST;

/// The cells of the last column, in the order of the page.
///
/// # Errors
/// The page is not there.
pub(super) fn cells() -> Result<Vec<String>> {
    let path = paths::docs().join("address-matrix.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(cells_in(&text))
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
    let page = "| a | Docker 28.5 | Docker 29 |\n|---|---|---|\n| TCP | own | gateway |\n| UDP | own | *wrong:* x |\n\n\
                | a | Docker 28.5 |\n|---|---|\n| TCP | own |\n";
    assert_eq!(cells_in(page), ["gateway", "*wrong:* x"]);
}
