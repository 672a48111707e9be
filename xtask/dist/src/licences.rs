//! The list of everything that is linked into the programs, with the texts of the licences.
//!
//! Texts are taken from the crates' own files; equal texts are printed once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::crates::Crate;

/// Files of a crate whose names start like this are licence texts.
const TEXTS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// What no crate brings.
const PREFACE: &str = "\
The programs are Copyright of the authors of this repository, under the Apache License 2.0.

Linked into them:
- the Rust standard library: MIT OR Apache-2.0, https://www.rust-lang.org
- the GNU C Library, in static builds: LGPL-2.1-or-later, https://www.gnu.org/software/libc/
  (the sources of the programs allow anybody to link them with another version of it)
- the crates below
";

/// Writes `THIRD-PARTY` into the folder `made`.
///
/// # Errors
/// A crate names no licence.
pub(crate) fn make(crates: &[Crate], made: &Path) -> Result<()> {
    fs::write(made.join("THIRD-PARTY"), text(crates)?).context("writing THIRD-PARTY")
}

fn text(crates: &[Crate]) -> Result<String> {
    let mut out = PREFACE.to_owned();
    // Licence text → the crates that have it.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in crates {
        let name = format!("{} {}", one.name, one.version);
        writeln!(out, "\n{name}: {}", one.licence()?)?;
        for line in [one.repository.as_deref().unwrap_or_default(), &one.authors.join(", ")] {
            if !line.is_empty() {
                writeln!(out, "  {line}")?;
            }
        }
        let folder = one.manifest_path.parent().context("a crate's folder")?;
        for file in texts_in(folder)? {
            let owners = texts.entry(file).or_default();
            owners.push(name.clone());
        }
    }
    for (text, mut owners) in texts {
        owners.dedup();
        writeln!(out, "\n{}\n{}\n\n{text}", "=".repeat(78), owners.join(", "))?;
    }
    Ok(out)
}

/// The licence texts at the top of a crate, in the order of their names.
fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if entry.path().is_file() && TEXTS.iter().any(|start| name.starts_with(start)) {
            files.push(entry.path());
        }
    }
    files.sort();
    files
        .iter()
        .map(|file| {
            let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
            Ok(lines.join("\n").trim_matches('\n').to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_crate(dir: &Path, licence: Option<&str>) -> Crate {
        Crate {
            name: "used".to_owned(),
            version: "1.0.0".to_owned(),
            license: licence.map(str::to_owned),
            manifest_path: dir.join("Cargo.toml"),
            ..Crate::default()
        }
    }

    #[test]
    fn crates_are_listed_with_their_texts() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LICENSE-MIT"), "Permission is hereby\n\n").unwrap();
        fs::write(dir.path().join("lib.rs"), "no license").unwrap();
        let text = text(&[a_crate(dir.path(), Some("MIT"))]).unwrap();
        assert!(text.contains("\nused 1.0.0: MIT\n"), "{text}");
        assert!(text.contains("\nused 1.0.0\n\nPermission is hereby\n"), "{text}");
        assert!(!text.contains("no license"), "{text}");
    }

    #[test]
    fn a_crate_without_a_licence_stops_the_release() {
        let error = text(&[a_crate(Path::new("/"), None)]).unwrap_err().to_string();
        assert!(error.contains("used 1.0.0"), "{error}");
    }
}
