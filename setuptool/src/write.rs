//! Writing files without replacing links, copies of what was there, and taking files away without losing any.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use doctor::managed::{Managed, State, compare, state, target};
use doctor::place::dir_of;

use crate::run;
use crate::ui::Ui;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) force: bool,
    /// The command that prints what would be written, except for its option `--print`.
    pub(crate) printer: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Unchanged,
    Replaced,
    /// It is the user's, and stays.
    Kept,
}

/// Writes the file if that loses nothing of the user's, and says what became of it.
pub(crate) fn put(file: &Managed, ui: &mut Ui, policy: &Policy) -> anyhow::Result<Put> {
    let shown = file.path.display();
    file.check()?;
    let state = file.state()?;
    match state {
        State::Current => {
            ui.info(&format!("{shown} is up to date"));
            return Ok(Put::Unchanged);
        }
        State::Absent => {
            ui.info(&format!("Creating {shown}"));
            write(file)?;
            return Ok(Put::Created);
        }
        State::Outdated => {
            write(file)?;
            ui.info(&format!("Updated {shown}"));
        }
        State::Edited | State::Foreign if !policy.force => {
            tell_kept(ui, &file.path, state, policy);
            return Ok(Put::Kept);
        }
        State::Edited | State::Foreign | State::Unsealed | State::Masked => {
            let copy = free_name(&file.path, file.backup);
            let old = copy.display();
            fs::copy(&file.path, &copy).with_context(|| format!("cannot write {old}"))?;
            write(file)?;
            ui.warning(&format!("Replaced {shown}; the old version is {old}"));
        }
    }
    Ok(Put::Replaced)
}

/// Says that a file of the user's stays, and what to do about that.
pub(crate) fn tell_kept(ui: &mut Ui, path: &Path, state: State, policy: &Policy) {
    ui.warning(&format!(
        "{} {} and was kept; to compare it, run: {}; to replace it, use --force",
        path.display(),
        state.words(),
        compare(&policy.printer, path)
    ));
}

/// Writes a file atomically. A link stays, and its target is written.
pub(crate) fn write(file: &Managed) -> anyhow::Result<()> {
    let path = file.path.as_path();
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
    let mode = if file.executable { mode | 0o111 } else { mode };
    let written = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir_of(&target))
        .and_then(|mut new| {
            new.write_all(file.text.as_bytes())?;
            new.persist(&target).map_err(|failed| failed.error)
        });
    written.map(drop).with_context(failed)
}

/// The first free name for a copy: `FILE.bak`, `FILE.bak.1` … beside it. A number comes before an end that programs know,
/// and behind ours.
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

pub(crate) fn backups(file: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else { return Vec::new() };
    let prefix = format!("{}.bak", name.to_string_lossy());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(&prefix);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('.').is_some_and(|n| n.parse::<u32>().is_ok())
        })
    });
    ours.map(|entry| entry.path()).collect()
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

/// [`put_away`], with a word about what is kept or failed.
pub(crate) fn put_away_or_note(ui: &mut Ui, path: &Path, problems: &mut Vec<String>) {
    match put_away(path) {
        Ok(away) => away.tell(ui, path),
        Err(error) => run::note(problems, path, Err(error)),
    }
}

/// Takes a file away: what this tool wrote is removed, all else, links too, gets another name.
pub(crate) fn put_away(path: &Path) -> io::Result<Away> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Away::Nothing),
        found => found?,
    };
    let state = state(path);
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

    use doctor::header::{HEADER, OLD_HEADER};

    use super::*;

    fn file(dir: &Path, body: &str) -> Managed {
        Managed::new(dir.join("docker.service"), &format!("{HEADER}{body}\n"))
    }

    fn put(file: &Managed, force: bool) -> anyhow::Result<Put> {
        super::put(file, &mut Ui::silent(), &policy(force))
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
        write(&file).unwrap();
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
                let copy = free_name(&path, end);
                fs::copy(&path, &copy).unwrap();
                assert_eq!(copy, dir.path().join(name));
            }
        }
    }

    fn policy(force: bool) -> Policy {
        Policy { force, printer: "tool install".to_owned() }
    }

    fn unit(dir: &Path, body: &str) -> Managed {
        Managed::new(dir.join("docker.service"), &format!("{HEADER}{body}"))
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_file_of_this_tool_is_updated_and_one_that_was_edited_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (unit(dir.path(), "one\n"), unit(dir.path(), "two\n"));
        let mut ui = Ui::silent();
        let mut put = |file: &Managed, force| super::put(file, &mut ui, &policy(force)).unwrap();
        assert_eq!(put(&one, false), Put::Created);
        assert_eq!(put(&one, false), Put::Unchanged);
        assert_eq!(put(&two, false), Put::Replaced);
        assert_eq!(text(&two.path), two.text);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing of a user's, no copy");

        let edited = two.text.clone() + "Environment=A=1\n";
        fs::write(&two.path, &edited).unwrap();
        for file in [&one, &two] {
            assert_eq!((file.state().unwrap(), put(file, false)), (State::Edited, Put::Kept));
        }
        assert_eq!(text(&two.path), edited);
        assert_eq!(put(&one, true), Put::Replaced);
        assert_eq!(text(&one.path), one.text);
        assert_eq!(text(&dir.path().join("docker.service.bak")), edited);

        fs::write(&one.path, "[Service]\n").unwrap();
        assert_eq!((one.state().unwrap(), put(&one, false)), (State::Foreign, Put::Kept));
        assert_eq!(put(&one, true), Put::Replaced);
        assert_eq!(text(&dir.path().join("docker.service.bak.1")), "[Service]\n");
    }

    #[test]
    fn what_releases_without_a_checksum_wrote_is_updated_with_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let file = unit(dir.path(), "one\n");
        let old = format!("{OLD_HEADER}one\n");
        fs::write(&file.path, &old).unwrap();
        assert_eq!(file.state().unwrap(), State::Unsealed);
        assert_eq!(super::put(&file, &mut Ui::silent(), &policy(false)).unwrap(), Put::Replaced);
        assert_eq!(text(&file.path), file.text);
        assert_eq!(text(&dir.path().join("docker.service.bak")), old);
        fs::write(&file.path, old + "two\n").unwrap();
        assert_eq!(file.state().unwrap(), State::Edited);
    }

    #[test]
    fn masked_units_and_what_is_no_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = unit(dir.path(), "one\n");
        let refused = |file: &Managed| {
            let error = super::put(file, &mut Ui::silent(), &policy(true)).unwrap_err();
            format!("{error:#}")
        };
        symlink("/dev/null", &file.path).unwrap();
        assert!(refused(&file).contains("systemctl --user unmask docker.service"));
        fs::remove_file(&file.path).unwrap();
        fs::write(&file.path, "").unwrap();
        assert_eq!(file.state().unwrap(), State::Masked);
        fs::remove_file(&file.path).unwrap();
        fs::create_dir(&file.path).unwrap();
        assert!(refused(&file).contains("is not a file"));
        fs::remove_dir(&file.path).unwrap();
        symlink("docker.service", &file.path).unwrap();
        assert!(refused(&file).contains("docker.service"));
    }

    #[test]
    fn only_copies_are_backups() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("docker.service");
        for name in [
            "docker.service",
            "docker.service.bak",
            "docker.service.bak.1",
            "docker.service.bakery",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let mut found = backups(&file);
        found.sort();
        assert_eq!(
            found,
            ["docker.service.bak", "docker.service.bak.1"].map(|n| dir.path().join(n))
        );
    }
}
