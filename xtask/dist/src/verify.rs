//! `--verify`: everything is built and packed a second time, by a copy of the sources in another folder, and the two
//! results are compared byte by byte.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use xtask_support::{cargo, command};

use crate::SUMS;
use crate::binaries;
use crate::programs;
use crate::release::Release;

/// Compares what lies in `build_dir` and `out` with what a second run with the same arguments makes.
///
/// # Errors
/// The second run fails, or a file differs: the first one is named, and the second run's files stay.
pub(crate) fn run(release: &Release, args: &[&str], build_dir: &Path, out: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let [sources, again, built] =
        ["sources", "dist", "build"].map(|name| scratch.path().join(name));
    copy(&cargo::workspace()?, &sources)?;
    let mut cargo = cargo::command();
    cargo.args(["run", "--quiet", "--package", "dist", "--"]).args(kept(args));
    cargo.arg("--out").arg(&again).arg("--build-dir").arg(&built);
    cargo
        .current_dir(&sources)
        .env("CARGO_TARGET_DIR", scratch.path().join("target"))
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        // Trees of compilers are tools, not results.
        .env(::tests::paths::CACHE_VARIABLE, ::tests::paths::cache()?);
    command::visibly(&mut cargo)?;
    let (first, second) = (binaries::folder(release, build_dir), binaries::folder(release, &built));
    // Programs before packages: they say more.
    let compared = programs::PROGRAMS
        .iter()
        .try_for_each(|program| same(&first.join(program.name), &second.join(program.name)))
        .and_then(|()| artifacts(out, &again));
    if let Err(error) = compared {
        return Err(error.context(format!(
            "the second build differs; it stays in {}",
            scratch.keep().display()
        )));
    }
    Ok(())
}

/// Arguments that the second run shares with the first.
fn kept<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut rest = args.iter();
    while let Some(&arg) = rest.next() {
        match arg {
            "--out" | "--build-dir" => drop(rest.next()),
            "--verify" | "--no-build" => {}
            _ => kept.push(arg),
        }
    }
    kept
}

/// Copies sources: neither their history nor what cargo made.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if entry.file_name() == ".git" || path.join("CACHEDIR.TAG").exists() {
            continue;
        }
        let copied = if kind.is_dir() {
            copy(&path, &to)
        } else if kind.is_symlink() {
            fs::read_link(&path).and_then(|text| symlink(text, &to)).map_err(Into::into)
        } else {
            fs::copy(&path, &to).map(drop).map_err(Into::into)
        };
        copied.with_context(|| format!("copying {}", path.display()))?;
    }
    Ok(())
}

/// Compares all files that the checksums of either run list.
fn artifacts(first: &Path, second: &Path) -> Result<()> {
    let list = fs::read_to_string(first.join(SUMS))?;
    for name in list.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name) {
        same(&first.join(name), &second.join(name))?;
    }
    same(&first.join(SUMS), &second.join(SUMS))?;
    eprintln!("{} artifacts have the same bytes", list.lines().count());
    Ok(())
}

/// Names the first byte that differs.
fn same(first: &Path, second: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let (a, b) = (read(first)?, read(second)?);
    let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    ensure!(
        a.len() == b.len() && common == a.len(),
        "{} ({} bytes) and {} ({}) differ from byte {common} on",
        first.display(),
        a.len(),
        second.display(),
        b.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        for folder in [&one, &two] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(SUMS), "00  a\n00  b\n").unwrap();
            fs::write(folder.join("a"), "same").unwrap();
            fs::write(folder.join("b"), "same").unwrap();
        }
        artifacts(&one, &two).unwrap();
        for other in ["sane", "sam", "samex"] {
            fs::write(two.join("b"), other).unwrap();
            let error = artifacts(&one, &two).unwrap_err().to_string();
            assert!(error.contains("two/b") && error.contains("from byte "), "{error}");
        }
        fs::remove_file(two.join("b")).unwrap();
        assert!(artifacts(&one, &two).is_err());
    }

    #[test]
    fn sources_are_copied_without_what_was_made_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        for folder in [".git", "target", "src"] {
            fs::create_dir_all(from.join(folder)).unwrap();
        }
        for file in [".git/HEAD", "target/CACHEDIR.TAG", "src/a.rs", ".hidden"] {
            fs::write(from.join(file), file).unwrap();
        }
        symlink("a.rs", from.join("src/link")).unwrap();
        let to = dir.path().join("to");
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("src/link")).unwrap(), b"src/a.rs");
        assert!(
            to.join(".hidden").exists() && !to.join(".git").exists() && !to.join("target").exists()
        );
    }

    #[test]
    fn folders_are_the_second_runs_own() {
        let args = ["--deb", "--out", "/x", "--target", "t", "--verify", "--no-build"];
        assert_eq!(kept(&args), ["--deb", "--target", "t"]);
    }
}
