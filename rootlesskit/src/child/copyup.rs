//! `--copy-up`: a directory becomes a tmpfs full of symlinks to its own old content, so that entries can be
//! replaced without touching the host.
//!
//! # Theory of operation
//! ```text
//!   hold the mounts at and below /etc            a detached copy, open_tree(2)
//!   mount a tmpfs on /etc
//!   attach the copy to /etc/.roNNNN              the old content, with the mounts in it
//!   symlinks           /etc/NAME -> .roNNNN/NAME
//! ```
//! Nothing is made outside of the mount namespace, so a child that dies in between leaves nothing, and a
//! step that fails takes the tmpfs away again. Nothing is ever removed recursively: the user's files lie
//! below.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sys::mount::Tree;

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
    let old =
        Tree::copy(dir).context("failed to keep the old content available (requires Linux 5.2)")?;
    let name = free_name(dir)?;
    let options = format!("mode={mode:o}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("none"), dir, Some("tmpfs"), flags, Some(options.as_str()))
        .context("failed to mount a tmpfs")?;
    fill(dir, old, &name).inspect_err(|_| {
        // Detached, so that the old content in it goes as well; nothing in it is removed.
        if let Err(e) = umount2(dir, MntFlags::MNT_DETACH) {
            tracing::warn!("failed to unmount {}: {e}", dir.display());
        }
    })
}

fn fill(dir: &Path, old: Tree, name: &str) -> anyhow::Result<()> {
    let old_path = dir.join(name);
    fs::create_dir(&old_path)?;
    old.attach(&old_path).context("failed to attach the old content")?;
    for entry in fs::read_dir(&old_path)? {
        let entry = entry?.file_name();
        let source = old_path.join(&entry);
        let text = match fs::read_link(&source) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Path::new(name).join(&entry),
            // Entries of a directory that others use come and go.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(e).with_context(|| format!("failed to read {}", source.display()));
            }
        };
        symlink(&text, dir.join(&entry))
            .with_context(|| format!("failed to link {}", entry.display()))?;
    }
    Ok(())
}

/// `.ro` and a number such that the old content has no entry of that name.
fn free_name(dir: &Path) -> anyhow::Result<String> {
    let seed = std::process::id().wrapping_mul(2_654_435_761);
    (0..1000)
        .map(|n| format!(".ro{:09}", seed.wrapping_add(n) % 1_000_000_000))
        .find(|name| fs::symlink_metadata(dir.join(name)).is_err())
        .with_context(|| format!("found no unused name for the old content of {}", dir.display()))
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
