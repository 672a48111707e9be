//! Where things lie: cargo's target folder, the binaries under test, the cache of root file systems.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Variable that moves the cache of root file systems; default: `testhosts` in cargo's target folder.
pub const CACHE_VARIABLE: &str = "TESTHOSTS_DIR";

/// Cargo's target folder, found from the running program (which lies in it), so that `CARGO_TARGET_DIR` and
/// `--target-dir` need no special case.
///
/// # Errors
/// The running program is not below a folder that cargo marked with `CACHEDIR.TAG`.
pub fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("path of the running program")?;
    exe.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map(PathBuf::from)
        .with_context(|| format!("{} is not below a cargo target folder", exe.display()))
}

/// The folder of the documents.
#[must_use]
pub fn docs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))
}

/// The folder that keeps root file systems.
///
/// # Errors
/// See [`target`].
pub fn cache() -> Result<PathBuf> {
    match std::env::var_os(CACHE_VARIABLE) {
        Some(dir) if !dir.is_empty() => Ok(std::path::absolute(PathBuf::from(dir))?),
        _ => Ok(target()?.join("testhosts")),
    }
}

/// Variable that names another folder of binaries to test, such as `target/debug`; default: `release` in cargo's target
/// folder.
pub const BINARIES_VARIABLE: &str = "TEST_BINARIES";

/// One of the binaries under test.
///
/// # Errors
/// It was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os(BINARIES_VARIABLE) {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => target()?.join("release"),
    };
    let path = folder.join(name);
    anyhow::ensure!(
        path.is_file(),
        "{} is missing\nhint: run `cargo xtask test`, or `cargo build --release` first",
        path.display()
    );
    Ok(path)
}

/// The helper program of the scenarios (`tests/src/bin/fixture.rs`), built with the tests themselves.
///
/// # Errors
/// It was not built.
pub fn fixture() -> Result<PathBuf> {
    let path = target()?.join("debug").join("fixture");
    anyhow::ensure!(
        path.is_file(),
        "{} is missing\nhint: run `cargo build -p tests`",
        path.display()
    );
    Ok(path)
}

/// Variable that names a dockerd to test, with its `docker-proxy` beside it. It takes the place of Debian's in the boxes of
/// [`Suite::Sid`](crate::Suite::Sid).
pub const DOCKERD_VARIABLE: &str = "DOCKERD_UNDER_TEST";

/// The dockerd that [`DOCKERD_VARIABLE`] names.
///
/// # Errors
/// It is not there, or has no `docker-proxy` beside it.
pub fn dockerd_under_test() -> Result<Option<PathBuf>> {
    let Some(value) = std::env::var_os(DOCKERD_VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let dockerd = std::path::absolute(PathBuf::from(value))?;
    for file in [dockerd.clone(), dockerd.with_file_name("docker-proxy")] {
        anyhow::ensure!(
            file.is_file(),
            "{} is missing\nhint: {DOCKERD_VARIABLE} names a dockerd with its docker-proxy beside it",
            file.display()
        );
    }
    Ok(Some(dockerd))
}
