//! What is made once and then only read: whole trees, and disks of virtual machines.
//!
//! A finished thing appears in the cache by rename, so one that exists is complete. A lock file for each keeps two test
//! processes, or two threads, from making the same one twice. Names hold a hash of how the thing is made: another
//! recipe is another thing.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::paths;

/// The thing `<what>-<hash of recipe>`, made now if the cache does not hold it: `make` gets the path to make it at.
///
/// # Errors
/// Those of `make`, after which nothing is left of it; or the cache cannot be written.
pub(crate) fn get(
    what: &str,
    recipe: impl Hash,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = paths::cache()?;
    let path = cache.join(format!("{what}-{:016x}", hash(recipe)));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    let lock = fs::File::create(path.with_extension("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if path.exists() {
        return Ok(path);
    }
    let started = Instant::now();
    let part = path.with_extension("part");
    remove(&part)?;
    eprintln!("{what}: making {} (hundreds of megabytes, once)", path.display());
    if let Err(error) = make(&part) {
        remove(&part)?;
        return Err(error);
    }
    fs::rename(&part, &path)?;
    eprintln!("{what}: ready after {:.0?}", started.elapsed());
    Ok(path)
}

/// The same for the same recipe in every run.
pub(crate) fn hash(recipe: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    hasher.finish()
}

/// Runs a step of a recipe.
///
/// # Errors
/// It fails; the message holds the end of its output.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| {
        format!("running {what}\nhint: `cargo xtask test` installs what the harness needs")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(15)..].join("\n");
    anyhow::bail!("{what}: {}\n{end}", output.status)
}

/// Removes a half-made thing with rm(1), which does not leave the file system it starts on.
fn remove(path: &Path) -> Result<()> {
    let status = Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(path).status()?;
    ensure!(status.success(), "rm -rf {}: {status}", path.display());
    Ok(())
}
