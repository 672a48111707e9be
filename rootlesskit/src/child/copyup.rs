//! `--copy-up`: a directory becomes a tmpfs full of symlinks to its own old content, so that entries can be
//! replaced without touching the host.
//!
//! # Theory of operation
//! The new directory is finished beside the old one and put over it in one last step:
//! ```text
//!   mount tmpfs  on /tmp/rootlesskit-XXXXXX           the scratch directory, made by us, empty
//!   rbind /etc   on /tmp/rootlesskit-XXXXXX/.roNNNN   the old content, with the mounts in it
//!   symlinks        /tmp/rootlesskit-XXXXXX/NAME -> .roNNNN/NAME
//!   move         /tmp/rootlesskit-XXXXXX to /etc
//!   rmdir        /tmp/rootlesskit-XXXXXX
//! ```
//! A step that fails leaves the directory as it was. Nothing is ever removed recursively: a bind mount of
//! the user's files may lie below. Scratch lies in `/tmp` and not in the state directory, which may be
//! inside of a directory that is copied up.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::mkdtemp;

/// The path without `.`, `..` and doubled slashes, as far as the text tells.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Copies directories up in the given order and returns their clean paths.
pub(crate) fn copy_up<'a>(dirs: impl Iterator<Item = &'a Path>) -> anyhow::Result<Vec<PathBuf>> {
    let mut done = Vec::new();
    for dir in dirs {
        let dir = clean(dir);
        copy_up_one(&dir).with_context(|| format!("failed to copy up {}", dir.display()))?;
        done.push(dir);
    }
    Ok(done)
}

fn copy_up_one(dir: &Path) -> anyhow::Result<()> {
    let mode = fs::metadata(dir)?.mode() & 0o1777;
    let scratch = mkdtemp("/tmp/rootlesskit-bXXXXXX")
        .context("failed to make a scratch directory in /tmp")?;
    let result = fill_and_move(dir, &scratch, mode);
    // Only an empty directory of ours goes; what a failure left mounted keeps it, and is not touched.
    if let Err(e) = fs::remove_dir(&scratch) {
        tracing::warn!("failed to remove {}: {e}", scratch.display());
    }
    result
}

fn fill_and_move(dir: &Path, scratch: &Path, mode: u32) -> anyhow::Result<()> {
    let options = format!("mode={mode:o}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("none"), scratch, Some("tmpfs"), flags, Some(options.as_str()))
        .context("failed to mount a tmpfs")?;
    fill(dir, scratch)
        .and_then(|()| {
            mount(Some(scratch), dir, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                .context("failed to move the tmpfs into place")
        })
        .inspect_err(|_| {
            // Detached, so that the bind in it goes as well; nothing in it is removed.
            if let Err(e) = umount2(scratch, MntFlags::MNT_DETACH) {
                tracing::warn!("failed to unmount {}: {e}", scratch.display());
            }
        })
}

fn fill(dir: &Path, scratch: &Path) -> anyhow::Result<()> {
    let old = free_name(scratch, dir)?;
    let old_path = scratch.join(&old);
    fs::create_dir(&old_path)?;
    mount(Some(dir), &old_path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .context("failed to bind the old content")?;
    for entry in fs::read_dir(&old_path)? {
        let name = entry?.file_name();
        let source = old_path.join(&name);
        let text = match fs::read_link(&source) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Path::new(&old).join(&name),
            // Entries of a directory that others use come and go.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(e).with_context(|| format!("failed to read {}", source.display()));
            }
        };
        symlink(&text, scratch.join(&name))
            .with_context(|| format!("failed to link {}", name.display()))?;
    }
    Ok(())
}

/// `.ro` and a number such that neither the tmpfs nor the old content has an entry of that name.
fn free_name(scratch: &Path, dir: &Path) -> anyhow::Result<String> {
    let seed = std::process::id().wrapping_mul(2_654_435_761);
    for n in 0..1000u32 {
        let name = format!(".ro{:09}", seed.wrapping_add(n) % 1_000_000_000);
        if !scratch.join(&name).exists() && fs::symlink_metadata(dir.join(&name)).is_err() {
            return Ok(name);
        }
    }
    bail!("no free name for the old content of {}", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        for (given, wanted) in [
            ("/etc/", "/etc"),
            ("/run/./x", "/run/x"),
            ("/a/../etc//b", "/etc/b"),
            ("/..", "/"),
            ("/tmp/.", "/tmp"),
        ] {
            assert_eq!(clean(Path::new(given)), Path::new(wanted), "{given}");
        }
    }
}
