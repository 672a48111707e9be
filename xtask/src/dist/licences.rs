//! The list of everything that is linked into the programs, with the texts of the licences.
//!
//! cargo metadata tells which crates those are: the normal dependencies, on this target, of the programs' packages.
//! Texts are taken from the crates' own files; equal texts are printed once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::binaries;
use super::release::Release;
use crate::host;

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
/// cargo metadata fails, or a crate names no licence.
pub(super) fn make(release: &Release, made: &Path) -> Result<()> {
    let mut cargo = host::cargo();
    cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform"]);
    cargo.arg(&release.triple).current_dir(host::workspace()?);
    let metadata = serde_json::from_str(&host::quietly(&mut cargo)?)?;
    let text = text(&metadata)?;
    fs::write(made.join("THIRD-PARTY"), text).context("writing THIRD-PARTY")
}

fn text(metadata: &Value) -> Result<String> {
    let mut out = PREFACE.to_owned();
    // Licence text → the crates that have it.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked(metadata)? {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} {}", field("name"), field("version"));
        let licence = match (field("license"), field("license_file")) {
            ("", "") => None,
            ("", file) => Some(file),
            (expression, _) => Some(expression),
        };
        let licence = licence.with_context(|| format!("the crate {name} names no license"))?;
        writeln!(out, "\n{name}: {licence}")?;
        let authors: Vec<&str> =
            package["authors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for line in [field("repository"), authors.join(", ").as_str()] {
            if !line.is_empty() {
                writeln!(out, "  {line}")?;
            }
        }
        let folder = Path::new(field("manifest_path")).parent().context("a crate's folder")?;
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

/// The crates that are linked into the programs, by name and version; not the workspace's own.
fn linked(metadata: &Value) -> Result<Vec<&Value>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo metadata: no resolve")?;
    let dependencies: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, normal_dependencies(node))))
        .collect();
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()
        .context("cargo metadata: no packages")?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let programs = binaries::packages();
    let mut open: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| {
            package["source"].is_null()
                && package["name"].as_str().is_some_and(|name| programs.contains(&name))
        })
        .map(|(id, _)| *id)
        .collect();
    ensure!(open.len() == programs.len(), "cargo metadata does not know all of {programs:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(dependencies.get(id).into_iter().flatten());
        }
    }
    let mut found: Vec<&Value> = seen
        .into_iter()
        .filter_map(|id| packages.get(id).copied())
        .filter(|package| !package["source"].is_null())
        .collect();
    found.sort_by_key(|package| (package["name"].as_str(), package["version"].as_str()));
    Ok(found)
}

/// Dependencies that are neither for build scripts nor for tests.
fn normal_dependencies(node: &Value) -> Vec<&str> {
    let list = node["deps"].as_array().into_iter().flatten();
    list.filter(|dependency| {
        let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
        kinds.any(|kind| kind["kind"].is_null())
    })
    .filter_map(|dependency| dependency["pkg"].as_str())
    .collect()
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

    fn package(name: &str, source: Option<&str>, licence: Option<&str>, dir: &Path) -> Value {
        serde_json::json!({ "id": name, "name": name, "version": "1.0.0", "source": source,
            "license": licence, "manifest_path": dir.join("Cargo.toml"), "authors": [] })
    }

    fn metadata(dir: &Path, licence: Option<&str>) -> Value {
        let mut packages: Vec<Value> = binaries::packages()
            .into_iter()
            .map(|name| package(name, None, Some("Apache-2.0"), dir))
            .collect();
        packages.push(package("used", Some("registry"), licence, dir));
        packages.push(package("tester", Some("registry"), Some("MIT"), dir));
        let dependency = |name: &str, kind: Option<&str>| serde_json::json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let nodes = serde_json::json!([
            { "id": "rootlesskit", "deps": [dependency("used", None), dependency("tester", Some("dev"))] },
            { "id": "used", "deps": [] },
        ]);
        serde_json::json!({ "packages": packages, "resolve": { "nodes": nodes } })
    }

    #[test]
    fn linked_crates_are_listed_with_their_texts_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LICENSE-MIT"), "Permission is hereby\n\n").unwrap();
        fs::write(dir.path().join("lib.rs"), "no license").unwrap();
        let text = text(&metadata(dir.path(), Some("MIT"))).unwrap();
        assert!(text.contains("\nused 1.0.0: MIT\n"), "{text}");
        assert!(text.contains("\nused 1.0.0\n\nPermission is hereby\n"), "{text}");
        assert!(!text.contains("tester") && !text.contains("lib.rs"), "{text}");
    }

    #[test]
    fn a_crate_without_a_licence_stops_the_release() {
        let dir = tempfile::tempdir().unwrap();
        let error = text(&metadata(dir.path(), None)).unwrap_err().to_string();
        assert!(error.contains("used 1.0.0"), "{error}");
    }
}
