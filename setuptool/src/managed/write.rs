//! Writing files without replacing links, copies of what was there, and taking files away without losing any.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::State;
use crate::place::dir_of;
use crate::ui::Ui;

/// Writes a file atomically. A link stays, and its target is written.
pub(super) fn through(path: &Path, text: &str, executable: bool) -> anyhow::Result<()> {
    let dir = dir_of(path);
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let target = target(path)?;
    let failed = || {
        if target == path {
            format!("cannot write {}", path.display())
        } else {
            format!("cannot write {}, the target of the link {}", target.display(), path.display())
        }
    };
    // The user may have let others read it, or nobody.
    let mode = match fs::metadata(&target) {
        Ok(found) => found.permissions().mode() & 0o777,
        Err(_) => 0o644,
    };
    let mode = if executable { mode | 0o111 } else { mode };
    let written = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir_of(&target))
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.persist(&target).map_err(|failed| failed.error)
        });
    written.map(drop).with_context(failed)
}

/// The file to which a path leads, there or not.
///
/// # Errors
/// The path is a link to itself, or into a directory that is not there.
pub(super) fn target(path: &Path) -> anyhow::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(target) => return Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot follow {}", path.display()));
        }
    }
    let mut target = path.to_owned();
    // What is not there leads nowhere in the end: the kernel has refused loops above.
    while let Ok(next) = fs::read_link(&target) {
        target = dir_of(&target).join(next);
    }
    if target != path && !dir_of(&target).is_dir() {
        let (shown, to) = (path.display(), target.display());
        anyhow::bail!(
            "{shown} is a link to {to}, whose directory does not exist\n\
             hint: restore the directory, or remove the link"
        );
    }
    Ok(target)
}

/// Copies a file to the first free name of `FILE.bak`, `FILE.bak.1` … beside it; the name.
pub(super) fn copy(path: &Path, end: &str) -> anyhow::Result<PathBuf> {
    let copy = free_name(path, end);
    fs::copy(path, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

/// The first free name for a copy. A number comes before an end that programs know, and behind ours.
pub(crate) fn free_name(path: &Path, end: &str) -> PathBuf {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        let end: OsString = match number {
            0 => format!(".{end}"),
            _ if end == "bak" => format!(".{end}.{number}"),
            _ => format!(".{number}.{end}"),
        }
        .into();
        name.push(end);
        PathBuf::from(name)
    };
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    (0..).map(name).find(free).unwrap_or_else(|| name(0))
}

/// What became of a file that was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Away {
    /// There was none, or it stays because systemd is not to start it.
    Nothing,
    /// It was as this tool wrote it, and is gone.
    Removed,
    /// It was the user's, and is this file now.
    Kept(PathBuf),
}

impl Away {
    /// Says where the user's file is.
    pub(crate) fn tell(&self, ui: &mut Ui, path: &Path) {
        if let Self::Kept(name) = self {
            let name = name.display();
            ui.info(&format!(
                "{} was your own or was edited; it is kept as {name}",
                path.display()
            ));
        }
    }
}

/// Takes a file away: what this tool wrote is removed, all else, links too, gets another name.
///
/// # Errors
/// It cannot be removed or renamed.
pub(crate) fn put_away(path: &Path) -> io::Result<Away> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Away::Nothing),
        found => found?,
    };
    let state = super::state(path);
    if matches!(state, Ok(State::Masked)) {
        return Ok(Away::Nothing);
    }
    // One of an older release has no checksum, so it may have been edited in part.
    if matches!(state, Ok(State::Outdated)) && found.is_file() {
        return fs::remove_file(path).map(|()| Away::Removed);
    }
    let name = free_name(path, "bak");
    fs::rename(path, &name).map(|()| Away::Kept(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::managed::{HEADER, Managed, Policy, Put};
    use crate::ui::Ui;

    fn file(dir: &Path, body: &str) -> Managed {
        Managed::new(dir.join("docker.service"), &format!("{HEADER}{body}\n"))
    }

    fn put(file: &Managed, force: bool) -> anyhow::Result<Put> {
        file.put(&mut Ui::silent(), &Policy { force, printer: String::new() })
    }

    #[test]
    fn links_are_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let dotfiles = dir.path().join("dotfiles");
        let file = file(dir.path(), "one");
        symlink("dotfiles/docker.service", &file.path).unwrap();
        let error = format!("{:#}", put(&file, false).unwrap_err());
        assert!(error.contains("whose directory does not exist"), "{error}");
        assert!(fs::read_link(&file.path).is_ok());

        fs::create_dir(&dotfiles).unwrap();
        let target = dotfiles.join("docker.service");
        let text = || fs::read_to_string(&target).unwrap();
        assert_eq!(put(&file, false).unwrap(), Put::Created);
        assert_eq!(text(), file.text);

        fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        let next = super::tests::file(dir.path(), "two");
        assert_eq!(put(&next, false).unwrap(), Put::Replaced);
        assert_eq!(text(), next.text);
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&target, "[Service]\n").unwrap();
        assert_eq!(put(&next, false).unwrap(), Put::Kept);
        assert_eq!(text(), "[Service]\n");
        assert_eq!(put(&next, true).unwrap(), Put::Replaced);
        assert_eq!(text(), next.text);
        assert!(fs::read_link(&next.path).is_ok());
        let copy = fs::read_to_string(dir.path().join("docker.service.bak")).unwrap();
        assert_eq!(copy, "[Service]\n");

        // At the end the link has another name, and leads where it did.
        let away = put_away(&next.path).unwrap();
        let kept = dir.path().join("docker.service.bak.1");
        assert_eq!(away, Away::Kept(kept.clone()));
        assert_eq!(fs::read_link(kept).unwrap(), Path::new("dotfiles/docker.service"));
        assert_eq!(text(), next.text);
    }

    #[test]
    fn only_what_was_not_edited_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "one");
        assert_eq!(put_away(&file.path).unwrap(), Away::Nothing);
        file.write().unwrap();
        assert_eq!(put_away(&file.path).unwrap(), Away::Removed);
        fs::write(&file.path, file.text.replace("one", "two")).unwrap();
        let kept = dir.path().join("docker.service.bak");
        assert_eq!(put_away(&file.path).unwrap(), Away::Kept(kept.clone()));
        assert!(fs::read_to_string(kept).unwrap().ends_with("two\n"));
        symlink("/dev/null", &file.path).unwrap();
        assert_eq!(put_away(&file.path).unwrap(), Away::Nothing);
    }

    #[test]
    fn copies_have_names_that_nobody_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (end, names) in [("bak", ["x.bak", "x.bak.1"]), ("orig", ["x.orig", "x.1.orig"])] {
            for name in names {
                fs::write(&path, name).unwrap();
                assert_eq!(copy(&path, end).unwrap(), dir.path().join(name));
            }
        }
    }
}
