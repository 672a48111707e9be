//! The list of crates in each program (its section `.dep-v0`), so that a scanner can tell from a program alone what is
//! in it: cargo-auditable puts it there (<https://github.com/rust-secure-code/cargo-auditable>).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xtask_support::{cargo, command};

use crate::crates::Crate;
use crate::programs::Programs;

/// The version of cargo-auditable; others may write the lists in another way.
const VERSION: &str = "0.7.7";

/// Its program.
const PROGRAM: &str = "cargo-auditable";

/// The folder with cargo-auditable, which is built when it is not there yet (half a minute, once).
///
/// # Errors
/// It cannot be fetched or built.
pub(crate) fn tool() -> Result<PathBuf> {
    let root = cargo::target()?.join("tools").join(format!("{PROGRAM}-{VERSION}"));
    let folder = root.join("bin");
    if !folder.join(PROGRAM).is_file() {
        let mut cargo = cargo::command();
        cargo.args(["install", "--quiet", "--locked", "--version", VERSION, "--root"]);
        command::quietly(cargo.arg(&root).arg(PROGRAM)).with_context(|| {
            format!("{PROGRAM} {VERSION} is not in {} and cannot be built", folder.display())
        })?;
    }
    Ok(folder)
}

/// Makes `cargo` run rustc through cargo-auditable, which is the first such program in `PATH`. Its own subcommand would name it
/// to cargo by its path, which cargo hashes into all symbols: programs would depend on where it lies.
pub(crate) fn wrap(cargo: &mut Command) {
    cargo.env("RUSTC_WORKSPACE_WRAPPER", PROGRAM).env(
        "CARGO_AUDITABLE_ORIG_ARGS",
        r#"{"offline":false,"locked":true,"frozen":false,"config":[]}"#,
    );
}

/// The crates that programs name, with versions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    /// Parts of the programs.
    linked: BTreeSet<String>,
    /// What only ran at build time, among them macros.
    build: BTreeSet<String>,
}

/// Proves that what the programs name is what the bill of materials has.
///
/// # Errors
/// A program has no list, or the lists and `crates` differ.
pub(crate) fn check(programs: &Programs, crates: &[Crate]) -> Result<()> {
    let mut named = Named::default();
    for path in programs.values() {
        read(path, &mut named)
            .with_context(|| format!("the list of crates in {}", path.display()))?;
    }
    compare(&named, crates)
}

/// A list, as cargo-auditable's JSON has it.
#[derive(Deserialize)]
struct List {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// `local` for the workspace's own.
    source: String,
    /// `build`, or nothing for parts of the program.
    kind: Option<String>,
}

fn read(program: &Path, named: &mut Named) -> Result<()> {
    let file = fs::read(program)?;
    let text = auditable_info::json_from_slice(&file, 1 << 20)?;
    let list: List = serde_json::from_str(&text)?;
    for package in list.packages.into_iter().filter(|package| package.source != "local") {
        let into = if package.kind.is_none() { &mut named.linked } else { &mut named.build };
        into.insert(format!("{} {}", package.name, package.version));
    }
    Ok(())
}

/// Macros count as build time in the programs, and as dependencies like others in the bill of materials.
fn compare(named: &Named, crates: &[Crate]) -> Result<()> {
    let bill: BTreeSet<_> =
        crates.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
    let extra: Vec<_> = named.linked.difference(&bill).collect();
    ensure!(
        extra.is_empty(),
        "the programs name crates that the bill of materials lacks: {extra:?}"
    );
    let lacking: Vec<_> = bill
        .iter()
        .filter(|one| !named.linked.contains(*one) && !named.build.contains(*one))
        .collect();
    ensure!(
        lacking.is_empty(),
        "the bill of materials has crates that no program names: {lacking:?}"
    );
    ensure!(!named.linked.is_empty(), "the programs name no crates");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_one_side_lacks_is_found() {
        let set = |names: &[&str]| names.iter().map(|name| format!("{name} 1.0.0")).collect();
        let one = |name: &str| Crate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            ..Crate::default()
        };
        let named = Named { linked: set(&["a", "b"]), build: set(&["macro", "script"]) };
        compare(&named, &[one("a"), one("b"), one("macro")]).unwrap();
        for (crates, part) in
            [(vec![one("a")], "b 1.0.0"), (vec![one("a"), one("b"), one("c")], "c 1.0.0")]
        {
            let error = compare(&named, &crates).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(compare(&Named::default(), &[]).is_err());
    }

    #[test]
    fn a_program_without_a_list_is_refused() {
        let own = std::env::current_exe().unwrap();
        let error = check(&[("rootlesskit", own)].into(), &[]).unwrap_err();
        assert!(format!("{error:#}").contains("list of crates in "), "{error:#}");
    }
}
