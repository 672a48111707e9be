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

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hostenv::shellwords::quoted;
use serde::Serialize;

use crate::header::{HEADER, MARK, OLD_HEADER, head, is_sealed, sealed};
use crate::place::{World, dir_of};
use crate::unit;

/// More than any such file has; what is longer was not written by this tool.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    pub path: PathBuf,
    /// With the checksum.
    pub text: String,
    /// What it was before there were checksums.
    old: Vec<String>,
    /// Everybody may run it.
    pub executable: bool,
    /// What the copies' names end in.
    pub backup: &'static str,
}

/// What there is in the place of such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
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
    pub fn is_users(self) -> bool {
        matches!(self, Self::Edited | Self::Foreign)
    }

    /// What happened to the file, for sentences that begin with its name.
    pub fn words(self) -> &'static str {
        match self {
            Self::Edited => "was edited after this tool wrote it",
            Self::Foreign => "was not written by this tool",
            Self::Masked => "is masked",
            _ => "was written by this tool",
        }
    }
}

impl Managed {
    /// A file with that text, which has the line of [`MARK`] near its beginning.
    pub fn new(path: PathBuf, text: &str) -> Self {
        let old = vec![text.to_owned(), text.replace(HEADER, OLD_HEADER)];
        Self { path, text: sealed(text), old, executable: false, backup: "bak" }
    }

    /// Another text of releases without a checksum.
    pub fn also_old(mut self, text: &str) -> Self {
        self.old.push(text.replace(HEADER, OLD_HEADER));
        self
    }

    /// Programs may be run by everybody.
    pub fn program(mut self) -> Self {
        self.executable = true;
        self
    }

    /// The end of the names of copies, without a dot.
    pub fn backups_end_in(mut self, end: &'static str) -> Self {
        self.backup = end;
        self
    }

    /// The same file in another place.
    pub fn moved_to(mut self, path: PathBuf) -> Self {
        self.path = path;
        self
    }

    /// What is there now.
    ///
    /// # Errors
    /// It cannot be read, or is not a file.
    pub fn state(&self) -> anyhow::Result<State> {
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
    pub fn check(&self) -> anyhow::Result<()> {
        if self.state()? == State::Masked {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy();
            bail!("{} masks the unit\nhint: systemctl --user unmask {name}", self.path.display());
        }
        Ok(())
    }
}

/// This program with a command, for a shell whose PATH may not lead to it.
pub fn command(world: &World, verb: &str) -> String {
    format!("{} {verb}", program(world, "dockerd-rootless-setuptool.sh"))
}

/// The same with sudo(8), whose PATH is another one.
pub fn command_with_sudo(world: &World, verb: &str) -> String {
    format!("sudo {} {verb}", program(world, "\"$(command -v dockerd-rootless-setuptool.sh)\""))
}

/// This program as a word of a shell, `unknown` if nobody knows where it is.
fn program(world: &World, unknown: &str) -> String {
    match world.own_dir {
        Some(_) => quoted(world.own_program()),
        None => unknown.to_owned(),
    }
}

/// The command that shows how a file differs from what would be written.
pub fn compare(printer: &str, file: &Path) -> String {
    let file = quoted(file);
    format!("{printer} --print={file} | diff -u {file} -")
}

/// What is in the place of a file, as far as that can be told without knowing what `install` would write:
/// [`State::Outdated`] if it is as an `install` wrote it.
///
/// # Errors
/// It cannot be read, or is not a file.
pub fn state(path: &Path) -> anyhow::Result<State> {
    let unit = path.extension().is_some_and(|end| end == "service" || end == "socket");
    let failed = || format!("cannot read {}", path.display());
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            target(path)?;
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
    } else if unit && unit::is_unsealed(&text) {
        State::Unsealed
    } else if head(&text).any(|line| line.starts_with(MARK)) {
        State::Edited
    } else {
        State::Foreign
    })
}

/// The file to which a path leads, there or not.
///
/// # Errors
/// The path is a link to itself, or into a directory that is not there.
pub fn target(path: &Path) -> anyhow::Result<PathBuf> {
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

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is(path: &Path, text: &str) -> bool {
    read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}
