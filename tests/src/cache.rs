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
    let lock = fs::File::create(beside(&path, "lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if path.exists() {
        return Ok(path);
    }
    let started = Instant::now();
    let part = beside(&path, "part");
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

/// Keeps a thing in the cache as long as it lives, whoever makes another one.
pub(crate) type InUse = Flock<fs::File>;

/// Like [`get`], for things of which only one recipe is right at a time: when it is made, those of other recipes are
/// removed, unless they are in use.
///
/// # Errors
/// As [`get`].
pub(crate) fn get_latest(
    what: &str,
    recipe: impl Hash,
    make: impl Fn(&Path) -> Result<()>,
) -> Result<(PathBuf, InUse)> {
    loop {
        let mut is_new = false;
        let path = get(what, &recipe, |path| {
            is_new = true;
            make(path)
        })?;
        let lock = fs::File::create(beside(&path, "lock"))?;
        let in_use = Flock::lock(lock, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
        // Somebody may have removed it before it was in use.
        if path.exists() {
            if is_new && let Err(error) = remove_others(what, &path) {
                eprintln!("{what}: cannot remove what is of other recipes: {error:#}");
            }
            return Ok((path, in_use));
        }
    }
}

/// Removes the things of the same name that are not in use, whole or half-made, and not their lock files, which somebody
/// may wait for.
fn remove_others(what: &str, latest: &Path) -> Result<()> {
    let cache = latest.parent().context("the cache")?;
    for entry in fs::read_dir(cache)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let thing = name.strip_suffix(".part").unwrap_or(name);
        let hash = thing.strip_prefix(what).and_then(|rest| rest.strip_prefix('-'));
        let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let path = cache.join(thing);
        if !hash.is_some_and(is_hash) || path == latest {
            continue;
        }
        let lock = fs::File::create(beside(&path, "lock"))?;
        if let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            let path = cache.join(name);
            eprintln!("{what}: removing {}, of another recipe", path.display());
            remove(&path)?;
        }
    }
    Ok(())
}

/// The path with a dot and this after its name, which may have dots of its own (`python3.11-<hash>`).
fn beside(path: &Path, extension: &str) -> PathBuf {
    format!("{}.{extension}", path.display()).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_other_recipes_go_unless_they_are_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let [latest, old, used] = ["0", "1", "a"].map(|digit| format!("v1.2-{}", digit.repeat(16)));
        let [old_part, used_part] = [&old, &used].map(|name| format!("{name}.part"));
        let others = [
            format!("v1.2-more-{}", "1".repeat(16)),
            format!("v1.3-{}", "1".repeat(16)),
            format!("{old}.lock.part"),
            "v1.2-notes".to_owned(),
        ];
        for name in [&latest, &old, &old_part, &used, &used_part].into_iter().chain(&others) {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("disk"), "").unwrap();
        }
        let lock = fs::File::create(dir.path().join(format!("{used}.lock"))).unwrap();
        let in_use = Flock::lock(lock, FlockArg::LockShared).unwrap();
        let is_there = |name: &String| dir.path().join(name).join("disk").exists();

        remove_others("v1.2", &dir.path().join(&latest)).unwrap();
        assert!(!is_there(&old) && !is_there(&old_part) && is_there(&latest));
        assert!(is_there(&used) && is_there(&used_part));
        assert!(others.iter().all(is_there));
        drop(in_use);
        remove_others("v1.2", &dir.path().join(&latest)).unwrap();
        assert!(!is_there(&used) && !is_there(&used_part));
        assert!(is_there(&latest) && others.iter().all(is_there));
    }
}
