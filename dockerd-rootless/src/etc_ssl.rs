//! CA certificates of distributions that link out of `/etc/ssl`.
//!
//! Copying up `/etc` replaces each entry by a symlink into a hidden mount of the original directory. On
//! openSUSE Tumbleweed `/etc/ssl/certs` is a relative link that climbs out of `/etc`, and seen through the
//! hidden mount it leads nowhere, so every registry has an unknown authority
//! (<https://github.com/rootless-containers/rootlesskit/issues/225>). A real directory with the original
//! mounted on it puts the relative links right.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::report::{Failure, Note};

/// Replaces the symlink `ssl` in the copied-up directory `etc` by a recursive bind mount of its target. A
/// real `/etc` (not on tmpfs), a real directory and a link to nowhere are left alone.
pub(crate) fn mount_over_link(etc: &Path) -> Result<Option<Note>, Failure> {
    let ssl = etc.join("ssl");
    let copied_up = statfs(etc).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC);
    if !copied_up || !fs::symlink_metadata(&ssl).is_ok_and(|m| m.is_symlink()) {
        return Ok(None);
    }
    let target = match ssl.canonicalize() {
        Ok(target) if target.is_dir() => target,
        Ok(target) => {
            return Ok(Some(left(&ssl, &format!("{} is not a directory", target.display()))));
        }
        Err(e) => return Ok(Some(left(&ssl, &e.to_string()))),
    };
    replace(&ssl, &target).map_err(|e| {
        Failure::new(format!(
            "cannot mount {} on {} for the CA certificates: {e}",
            target.display(),
            ssl.display()
        ))
    })?;
    Ok(None)
}

fn left(ssl: &Path, why: &str) -> Note {
    Note::warn(format!(
        "{} is kept unchanged, so TLS may not find CA certificates: {why}",
        ssl.display()
    ))
}

fn replace(ssl: &Path, target: &Path) -> io::Result<()> {
    fs::remove_file(ssl)?;
    fs::create_dir(ssl)?;
    // Recursive, because a mount from another user namespace cannot be taken apart (mount_namespaces(7)).
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(target), ssl, None::<&str>, flags, None::<&str>)?;
    Ok(())
}
