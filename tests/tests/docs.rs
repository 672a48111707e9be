//! The Markdown pages: every relative link and anchor leads somewhere, every page can be reached from the README, and
//! ARCHITECTURE.md names files and symbols that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use tests::{Context as _, Error, Result, ensure};

/// What a page offers and what it points to.
#[derive(Debug, Default)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

impl Page {
    /// Reads the headings and links of a text. Code blocks and code spans have neither.
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut fenced = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if fenced {
            } else if let Some(heading) = heading(line) {
                page.add_anchor(&anchor(heading));
            } else {
                page.links.extend(links(line));
            }
        }
        page
    }

    /// Adds an anchor as GitHub does: a heading that occurs again gets a number.
    fn add_anchor(&mut self, name: &str) {
        let mut names = (1..).map(|number| format!("{name}-{number}"));
        let mut free = name.to_owned();
        while !self.anchors.insert(free.clone()) {
            free = names.next().unwrap_or_default();
        }
    }
}

/// The text of a line like `## Heading`.
fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    text.strip_prefix(' ').filter(|_| text.len() < line.len()).map(str::trim)
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The targets of the inline links and images of a line.
fn links(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets.map(str::to_owned).collect()
}

/// The folder of the sources.
fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?.to_owned())
}

/// All Markdown files below a folder, except in build folders and in folders with a dot, which have templates.
fn markdown(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.join("CACHEDIR.TAG").exists() || path.ends_with("vendor") {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            found.extend(markdown(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(found)
}

/// `path` without `..` and `.`.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_reachable() -> Result<()> {
    let root = root()?;
    let mut pages = BTreeMap::new();
    for file in markdown(&root)? {
        let page = Page::parse(&fs::read_to_string(&file)?);
        pages.insert(file, page);
    }
    let mut broken = Vec::new();
    let mut targets = BTreeMap::new();
    for (file, page) in &pages {
        let folder = file.parent().context("a file without a folder")?;
        let mut linked = Vec::new();
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if path.is_empty() { file.clone() } else { resolved(&folder.join(path)) };
            let has_anchor = pages.get(&to).is_none_or(|page| page.anchors.contains(anchor));
            if !to.exists() || !(anchor.is_empty() || has_anchor) {
                broken.push(format!("{}: {link}", file.display()));
            }
            linked.push(to);
        }
        targets.insert(file.clone(), linked);
    }
    ensure!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    let mut reached = BTreeSet::new();
    let mut open = vec![root.join("README.md")];
    while let Some(file) = open.pop() {
        if reached.insert(file.clone()) {
            open.extend(targets.get(&file).into_iter().flatten().cloned());
        }
    }
    let lost: Vec<_> = pages.keys().filter(|file| !reached.contains(*file)).collect();
    ensure!(lost.is_empty(), "pages that cannot be reached from README.md: {lost:#?}");
    ensure!(pages.len() > 15, "only {} pages were found", pages.len());
    Ok(())
}

/// The code spans of a table cell.
fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The files and symbols of the table "Where to find answers" in ARCHITECTURE.md.
#[test]
fn the_table_of_where_to_find_things_is_right() -> Result<()> {
    let root = root()?;
    let page = fs::read_to_string(root.join("docs/ARCHITECTURE.md"))?;
    let (_, section) = page.split_once("\n## Where to find answers\n").context("the section")?;
    let rows = section.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let [_, files, symbols] = cells[..] else { return Err(Error::msg(row.to_owned())) };
        let texts: Vec<_> =
            spans(files).into_iter().map(|file| fs::read_to_string(root.join(file))).collect();
        let has = |symbol: &str| texts.iter().flatten().any(|text| text.contains(symbol));
        if texts.iter().any(|text| text.is_err()) || !spans(symbols).into_iter().all(has) {
            wrong.push(row);
        }
        count += 1;
    }
    ensure!(wrong.is_empty(), "files or symbols that do not exist:\n{}", wrong.join("\n"));
    ensure!(count >= 15, "only {count} rows were found");
    Ok(())
}

#[test]
fn anchors_and_links_are_those_of_github() {
    let page = Page::parse(
        "# `check`: A & b\n## Notes\n## Notes\n```\n# no\n[no](no.md)\n```\n\
         See [a](x.md), [`b`](y.md#z), `[no](no.md)` and ![c](z.svg \"title\").\n",
    );
    let anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
    assert_eq!(anchors, ["check-a--b", "notes", "notes-1"]);
    assert_eq!(page.links, ["x.md", "y.md#z", "z.svg"]);
}
