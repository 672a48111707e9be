//! Programs that only a few scenarios need, from the packages of this machine's Debian: they are put into a box of the
//! same release, not into every root file system.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use tests::{Context, Result, Suite, TestBox, ensure};

/// The suite of this machine.
pub(crate) fn suite() -> Result<Suite> {
    let text = fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.unwrap_or_default().trim_matches('"').to_owned();
    Suite::from_name(&name)
        .with_context(|| format!("this machine is {name:?}, for which there is no test host"))
}

/// Unpacks packages into a box of [`suite`]. A word that ends with `*` stands for all names that begin so among what the
/// package before it depends on: names of libraries hold their version.
pub(crate) fn unpack(b: &TestBox, packages: &[&str]) -> Result<()> {
    let cache = tests::paths::cache()?.join(format!("packages-{}", suite()?.name()));
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let mut names: Vec<String> = Vec::new();
    for word in packages {
        match word.strip_suffix('*') {
            None => names.push((*word).to_owned()),
            Some(prefix) => {
                let last = names.last().cloned().unwrap_or_default();
                names.extend(dependencies(&last)?.into_iter().filter(|n| n.starts_with(prefix)));
            }
        }
    }
    for name in names {
        let file = match stored(&cache, &name)? {
            Some(file) => file,
            None => download(&cache, &name)?,
        };
        // The box has links in place of /bin and /lib, which dpkg-deb -x would replace.
        let line = "dpkg-deb --fsys-tarfile \"$0\" | tar -x --keep-directory-symlink -C \"$1\"";
        let root = b.path("/");
        let status = Command::new("sh").args(["-c", line]).arg(&file).arg(root).status()?;
        ensure!(status.success(), "unpacking {}: {status}", file.display());
    }
    Ok(())
}

fn dependencies(package: &str) -> Result<Vec<String>> {
    let output = Command::new("apt-cache").args(["depends", package]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.map(str::to_owned).collect())
}

fn stored(cache: &std::path::Path, name: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{name}_");
    let files = fs::read_dir(cache)?.flatten().map(|entry| entry.path());
    Ok(files.into_iter().find(|path| {
        path.extension().is_some_and(|kind| kind == "deb")
            && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
    }))
}

fn download(cache: &std::path::Path, name: &str) -> Result<PathBuf> {
    // To a place of its own first: a file that apt has not finished must not pass for a package.
    let part = tempfile::tempdir_in(cache)?;
    let output =
        Command::new("apt-get").args(["download", "-q", name]).current_dir(part.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "apt-get download {name}: {said}\nhint: apt-get update");
    let file = stored(part.path(), name)?.with_context(|| format!("no package came: {said}"))?;
    let kept = cache.join(file.file_name().unwrap_or_default());
    fs::rename(&file, &kept)?;
    Ok(kept)
}
