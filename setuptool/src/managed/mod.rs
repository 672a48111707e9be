//! Files that `install` writes: units, service scripts, AppArmor profiles. Whatever a user changed in them stays.
//!
//! # Theory of operation
//! The first lines of such a file say that this tool wrote it, and hold a checksum of all other lines. A file whose
//! checksum is right contains nothing of the user's: it may be updated and removed. Every other file is the user's: it was
//! edited, or somebody else wrote it (an Ansible role, cloud-init, Docker's own set-up tool). `install` leaves it alone,
//! says so with a command that shows the difference, and goes on with it; `--force` replaces it and keeps a copy.
//!
//! Releases without the checksum wrote the same texts otherwise. What equals such a text is updated too, with a copy,
//! because a value that was changed in it (a directory in PATH) cannot be told from what the tool wrote.
//!
//! A symbolic link, as into a folder of dotfiles, stays: its target is written. A link to `/dev/null` and an empty unit are
//! how systemd.unit(5) masks a unit.

mod write;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;

pub(crate) use write::{free_name, put_away};

use crate::place::World;
use crate::ui::Ui;

/// The start of the line that every file of this tool has, whatever its release.
const MARK: &str = "# Written by dockerd-rootless-setuptool.sh";
/// That line, where the form of the file leaves the words to us.
pub(crate) const HEADER: &str =
    "# Written by dockerd-rootless-setuptool.sh, which leaves this file alone once it is edited.\n";
/// That line in releases without a checksum.
const OLD_HEADER: &str =
    "# Written by dockerd-rootless-setuptool.sh, which replaces it at the next install.\n";
/// The start of the line behind it.
const CHECKSUM: &str = "# Checksum of all other lines: ";
/// How far down these lines are looked for.
const HEAD: usize = 4;
/// More than any such file has; what is longer was not written by this tool.
const LONGEST: u64 = 1 << 20;

/// A file as `install` wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Managed {
    pub(crate) path: PathBuf,
    /// With the checksum.
    pub(crate) text: String,
    /// What it was before there were checksums.
    old: Vec<String>,
    executable: bool,
    /// What the copies' names end in.
    backup: &'static str,
}

/// What there is in the place of such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nothing, or a link whose target can be made.
    Absent,
    /// Just what `install` would write.
    Current,
    /// What an earlier `install` wrote.
    Outdated,
    /// The same, by a release that wrote no checksum.
    Unsealed,
    /// It was edited since this tool wrote it.
    Edited,
    /// This tool did not write it.
    Foreign,
    /// A unit that systemd is not to start.
    Masked,
}

impl State {
    /// Whether the file is the user's.
    pub(crate) fn is_users(self) -> bool {
        matches!(self, Self::Edited | Self::Foreign)
    }

    /// What happened to the file, for sentences that begin with its name.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Edited => "was edited after this tool wrote it",
            Self::Foreign => "was not written by this tool",
            Self::Masked => "is masked",
            _ => "was written by this tool",
        }
    }
}

/// What to do with files of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Replace them, and keep a copy.
    pub(crate) force: bool,
    /// The command that prints what would be written, except for its option `--print`.
    pub(crate) printer: String,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Unchanged,
    Replaced,
    /// It is the user's, and stays.
    Kept,
}

impl Managed {
    /// A file with that text, which has the line of [`MARK`] near its beginning.
    pub(crate) fn new(path: PathBuf, text: &str) -> Self {
        let old = vec![text.to_owned(), text.replace(HEADER, OLD_HEADER)];
        Self { path, text: sealed(text), old, executable: false, backup: "bak" }
    }

    /// Another text of releases without a checksum.
    pub(crate) fn also_old(mut self, text: &str) -> Self {
        self.old.push(text.replace(HEADER, OLD_HEADER));
        self
    }

    /// Programs may be run by everybody.
    pub(crate) fn program(mut self) -> Self {
        self.executable = true;
        self
    }

    /// The end of the names of copies, without a dot.
    pub(crate) fn backups_end_in(mut self, end: &'static str) -> Self {
        self.backup = end;
        self
    }

    /// The same file in another place.
    pub(crate) fn moved_to(mut self, path: PathBuf) -> Self {
        self.path = path;
        self
    }

    /// What is there now.
    ///
    /// # Errors
    /// It cannot be read, or is not a file.
    pub(crate) fn state(&self) -> anyhow::Result<State> {
        Ok(match state(&self.path)? {
            State::Outdated if read(&self.path)? == self.text.as_bytes() => State::Current,
            State::Edited if self.old.iter().any(|old| is(&self.path, old)) => State::Unsealed,
            state => state,
        })
    }

    /// Whether [`Managed::put`] can go on.
    ///
    /// # Errors
    /// The unit is masked, or something that is not a file is there.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.state()? == State::Masked {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy();
            bail!("{} masks the unit\nhint: systemctl --user unmask {name}", self.path.display());
        }
        Ok(())
    }

    /// Writes the file if that loses nothing of the user's, and says what became of it.
    ///
    /// # Errors
    /// The unit is masked, something that is not a file is there, or it cannot be written.
    pub(crate) fn put(&self, ui: &mut Ui, policy: &Policy) -> anyhow::Result<Put> {
        let shown = self.path.display();
        self.check()?;
        let state = self.state()?;
        match state {
            State::Current => {
                ui.info(&format!("{shown} is up to date"));
                return Ok(Put::Unchanged);
            }
            State::Absent => {
                ui.info(&format!("Creating {shown}"));
                self.write()?;
                return Ok(Put::Created);
            }
            State::Outdated => {
                self.write()?;
                ui.info(&format!("Updated {shown}"));
            }
            State::Edited | State::Foreign if !policy.force => {
                ui.warning(&format!(
                    "{shown} {} and was kept; to compare it, run: {}; to replace it, use --force",
                    state.words(),
                    compare(&policy.printer, &self.path)
                ));
                return Ok(Put::Kept);
            }
            State::Edited | State::Foreign | State::Unsealed | State::Masked => {
                let copy = write::copy(&self.path, self.backup)?;
                self.write()?;
                ui.warning(&format!("Replaced {shown}; the old version is {}", copy.display()));
            }
        }
        Ok(Put::Replaced)
    }

    /// Writes the file without looking.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        write::through(&self.path, &self.text, self.executable)
    }
}

/// This program with a command, for a shell whose PATH may not lead to it.
pub(crate) fn command(world: &World, verb: &str) -> String {
    let program = match world.own_dir {
        Some(_) => world.own_program(),
        None => "dockerd-rootless-setuptool.sh".into(),
    };
    format!("{} {verb}", crate::doctor::quoted(&program.to_string_lossy()))
}

/// The command that shows how a file differs from what would be written.
pub(crate) fn compare(printer: &str, file: &Path) -> String {
    let file = crate::doctor::quoted(&file.to_string_lossy());
    format!("{printer} --print={file} | diff -u {file} -")
}

/// What is in the place of a file, as far as that can be told without knowing what `install` would write:
/// [`State::Outdated`] if it is as an `install` wrote it.
///
/// # Errors
/// It cannot be read, or is not a file.
pub(crate) fn state(path: &Path) -> anyhow::Result<State> {
    let unit = path.extension().is_some_and(|end| end == "service" || end == "socket");
    let failed = || format!("cannot read {}", path.display());
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write::target(path)?;
            return Ok(State::Absent);
        }
        Err(error) => return Err(error).with_context(failed),
    };
    if unit && (found.file_type().is_char_device() || found.is_file() && found.len() == 0) {
        return Ok(State::Masked);
    }
    if !found.is_file() {
        bail!("{} is not a file\nhint: remove it or move it away", path.display());
    }
    let bytes = read(path).with_context(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(if is_sealed(&text) {
        State::Outdated
    } else if unit && crate::unit::is_unsealed(&text) {
        State::Unsealed
    } else if head(&text).any(|line| line.starts_with(MARK)) {
        State::Edited
    } else {
        State::Foreign
    })
}

/// The text in the form of releases without a checksum.
pub(crate) fn without_checksum(text: &str) -> String {
    text.replace(HEADER, OLD_HEADER)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is(path: &Path, text: &str) -> bool {
    read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

fn head(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take(HEAD)
}

/// The text with the line of its checksum.
fn sealed(text: &str) -> String {
    let line = format!("{CHECKSUM}{:016x}\n", fnv1a(text.as_bytes()));
    let Some(mark) = text.find(MARK) else { return text.to_owned() };
    let end = text[mark..].find('\n').map_or(text.len(), |length| mark + length + 1);
    format!("{}{line}{}", &text[..end], &text[end..])
}

/// Whether the checksum is that of the text.
fn is_sealed(text: &str) -> bool {
    let Some(line) = head(text).find(|line| line.starts_with(CHECKSUM)) else { return false };
    sealed(&text.replacen(&format!("{line}\n"), "", 1)) == text
}

/// The hash FNV-1a of 64 bits (RFC 9923): it tells edits, not attacks, and no dependency is worth that.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

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
    fn the_hash_is_that_of_the_rfc() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_file_of_this_tool_is_updated_and_one_that_was_edited_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (unit(dir.path(), "one\n"), unit(dir.path(), "two\n"));
        let mut ui = Ui::silent();
        let mut put = |file: &Managed, force| file.put(&mut ui, &policy(force)).unwrap();
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
        assert_eq!(file.put(&mut Ui::silent(), &policy(false)).unwrap(), Put::Replaced);
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
            let error = file.put(&mut Ui::silent(), &policy(true)).unwrap_err();
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

    proptest! {
        #[test]
        fn any_change_of_a_sealed_text_is_seen(
            body in "[ -~\n]{0,80}",
            at: prop::sample::Index,
            byte in b' '..b'~',
        ) {
            let text = sealed(&format!("#!/bin/sh\n{HEADER}{body}"));
            prop_assert!(is_sealed(&text));
            let mut other = text.clone().into_bytes();
            let at = at.index(other.len());
            prop_assume!(other[at] != byte);
            other[at] = byte;
            prop_assert!(!is_sealed(&String::from_utf8(other).unwrap()));
            prop_assert!(!is_sealed(&(text.clone() + "\n")));
            prop_assert!(!is_sealed(&text[..text.len() - 1]));
        }
    }
}
