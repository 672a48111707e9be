//! Which crates are linked into the programs: what cargo metadata tells, read into plain data.
//!
//! Those are the normal dependencies, on this target, of the programs' packages; not what build scripts and tests use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xtask_support::{cargo, command};

use crate::programs;
use crate::release::Release;

/// A package as cargo metadata describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) id: String,
    /// Where it comes from; nothing for a package of the workspace.
    pub(crate) source: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) license_file: Option<String>,
    #[serde(default)]
    pub(crate) authors: Vec<String>,
    pub(crate) repository: Option<String>,
    pub(crate) manifest_path: PathBuf,
}

impl Crate {
    /// Its licence: an SPDX expression, or else the name of the file with the text.
    ///
    /// # Errors
    /// It names none.
    pub(crate) fn licence(&self) -> Result<&str> {
        self.license
            .as_deref()
            .or(self.license_file.as_deref())
            .with_context(|| format!("the crate {} {} names no license", self.name, self.version))
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// `build`, `dev`, or nothing for a normal one.
    kind: Option<String>,
}

/// The crates that are linked into the programs, by name and version; not the workspace's own.
///
/// # Errors
/// cargo metadata fails.
pub(crate) fn linked(release: &Release) -> Result<Vec<Crate>> {
    let mut cargo = cargo::command();
    cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform"]);
    cargo.arg(&release.triple).args(programs::features()).current_dir(cargo::workspace()?);
    let text = command::quietly(&mut cargo)?;
    from_metadata(serde_json::from_str(&text).context("cargo metadata")?)
}

fn from_metadata(metadata: Metadata) -> Result<Vec<Crate>> {
    let dependencies: BTreeMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = |one: &&Dependency| one.dep_kinds.iter().any(|kind| kind.kind.is_none());
            (
                node.id.as_str(),
                node.deps.iter().filter(normal).map(|one| one.pkg.as_str()).collect(),
            )
        })
        .collect();
    let programs = programs::packages();
    let mut open: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|one| one.source.is_none() && programs.contains(&one.name.as_str()))
        .map(|one| one.id.as_str())
        .collect();
    ensure!(open.len() == programs.len(), "cargo metadata does not know all of {programs:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id.to_owned()) {
            open.extend(dependencies.get(id).into_iter().flatten());
        }
    }
    let mut found: Vec<Crate> = metadata
        .packages
        .into_iter()
        .filter(|one| one.source.is_some() && seen.contains(&one.id))
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_found() {
        let package = |name: &str, source: Option<&str>| serde_json::json!({ "id": name, "name": name, "version": "1.0.0", "source": source, "manifest_path": "/x/Cargo.toml" });
        let mut packages: Vec<_> =
            programs::packages().into_iter().map(|name| package(name, None)).collect();
        for name in ["deep", "used", "tester", "builder"] {
            packages.push(package(name, Some("registry")));
        }
        let to = |name: &str, kind: Option<&str>| serde_json::json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let nodes = serde_json::json!([
            { "id": "rootlesskit", "deps": [to("used", None), to("tester", Some("dev"))] },
            { "id": "used", "deps": [to("deep", None), to("builder", Some("build"))] },
        ]);
        let whole = serde_json::json!({ "packages": packages, "resolve": { "nodes": nodes } });
        let found = from_metadata(serde_json::from_value(whole.clone()).unwrap()).unwrap();
        let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["deep", "used"]);
        let mut without = whole;
        without["packages"][0]["name"] = "other".into();
        assert!(from_metadata(serde_json::from_value(without).unwrap()).is_err());
    }
}
