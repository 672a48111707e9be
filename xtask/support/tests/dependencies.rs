//! The crates that the workspace depends on: each is used, and `deny.toml` allows it.
//!
//! cargo-machete and cargo-deny find the same. Building them takes some 300 crates, twice what the whole workspace takes, and
//! minutes on two processors. `deny.toml` has cargo-deny's format, so whoever has that program gets the same answers, and
//! advisories besides.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers as well")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xtask_support::{cargo, command};

/// What cargo says of every package that this machine needs, and of the workspace's own.
struct Packages {
    own: Vec<Value>,
    foreign: Vec<Value>,
}

impl Packages {
    fn read() -> Self {
        let mut metadata = cargo::command();
        metadata.args(["metadata", "--format-version=1", "--locked", "--filter-platform"]);
        metadata.arg(cargo::host_triple().unwrap()).current_dir(cargo::workspace().unwrap());
        let text = command::quietly(&mut metadata).unwrap();
        let mut metadata: Value = serde_json::from_str(&text).unwrap();
        let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
        let (own, foreign) = packages.into_iter().partition(|package| package["source"].is_null());
        Self { own, foreign }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The quoted words of a list in `deny.toml`.
fn allowed(key: &str) -> BTreeSet<String> {
    let config = fs::read_to_string(cargo::workspace().unwrap().join("deny.toml")).unwrap();
    let list = config.split(&format!("\n{key} = [")).nth(1).expect(key);
    let words = list.split(']').next().unwrap().split('"');
    words.skip(1).step_by(2).map(str::to_owned).collect()
}

fn sources(dir: &Path, others: &[PathBuf], found: &mut String) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !others.contains(&path) && entry.file_name() != "target" {
                sources(&path, others, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            code.for_each(|line| found.push_str(&format!("{line}\n")));
        }
    }
}

/// Whether the source has the crate's name in front of `::` or behind `use`.
fn names(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let (before, behind) = (&source[..at], &source[at + name.len()..]);
        let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        whole && (behind.starts_with("::") || before.ends_with("use ") && !behind.starts_with('_'))
    })
}

#[test]
fn every_dependency_is_used() {
    let packages = Packages::read();
    let folder = |package| Path::new(text(package, "manifest_path")).parent().unwrap().to_owned();
    let folders: Vec<PathBuf> = packages.own.iter().map(folder).collect();
    let mut unused = Vec::new();
    for (package, folder) in packages.own.iter().zip(&folders) {
        let mut source = String::new();
        sources(folder, &folders, &mut source);
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["rename"].as_str().unwrap_or(text(dependency, "name"));
            if !names(&source, &name.replace('-', "_")) {
                unused.push(format!("{}: {name}", text(package, "name")));
            }
        }
    }
    assert!(unused.is_empty(), "remove these from Cargo.toml: {unused:?}");
}

#[test]
fn every_dependency_of_the_workspace_is_one_of_a_member() {
    let packages = Packages::read();
    let members =
        packages.own.iter().flat_map(|package| package["dependencies"].as_array().unwrap());
    let used: BTreeSet<&str> = members.map(|dependency| text(dependency, "name")).collect();
    let manifest = fs::read_to_string(cargo::workspace().unwrap().join("Cargo.toml")).unwrap();
    let lines = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let names = lines.take_while(|line| !line.starts_with('[')).filter_map(|l| l.split_once(" = "));
    let unused: Vec<&str> =
        names.map(|(name, _)| name).filter(|name| !used.contains(name)).collect();
    assert!(unused.is_empty(), "remove these from [workspace.dependencies]: {unused:?}");
}

#[test]
fn licences_and_sources_are_allowed() {
    let packages = Packages::read();
    let (licences, registries) = (allowed("allow"), allowed("allow-registry"));
    for package in &packages.foreign {
        let (name, license) = (text(package, "name"), text(package, "license"));
        // SPDX, in the forms that crates use: all parts of an AND, one of an OR. A slash is an old OR.
        let parts = license.replace(" / ", " OR ").replace('/', " OR ").replace(['(', ')'], "");
        let fine =
            parts.split(" AND ").all(|part| part.split(" OR ").any(|l| licences.contains(l)));
        assert!(fine, "the licence {license:?} of {name} is not in deny.toml");
        let source = text(package, "source").trim_start_matches("registry+");
        assert!(registries.contains(source), "the source {source} of {name} is not in deny.toml");
    }
}

#[test]
fn there_is_one_version_of_each_crate() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in &Packages::read().foreign {
        let all = versions.entry(text(package, "name").to_owned()).or_default();
        all.insert(text(package, "version").to_owned());
    }
    let skipped = allowed("skip");
    let is_skipped = |name: &str, version: &str| {
        skipped.contains(&format!("{name}@{}", version.split('.').next().unwrap()))
    };
    for (name, all) in &mut versions {
        all.retain(|version| !is_skipped(name, version));
        assert!(all.len() <= 1, "{name} has the versions {all:?}, of which deny.toml skips none");
    }
}

#[test]
fn every_dependency_from_elsewhere_has_a_version() {
    for package in &Packages::read().own {
        for dependency in package["dependencies"].as_array().unwrap() {
            let wild = text(dependency, "req") == "*" && dependency["path"].is_null();
            assert!(!wild, "{}: {}", text(package, "name"), text(dependency, "name"));
        }
    }
}
