//! Where subordinate ids come from: `--subid-source=auto|dynamic|static`.
//!
//! `auto` is dynamic (`getsubids`), and static (`/etc/subuid`, `/etc/subgid`) if that fails or knows no ranges. There is
//! one shortcut, because four processes are a large part of the start-up time: `getsubids` is not run when it could only
//! repeat the files. That is so when `$GETSUBIDS` is unset, `/etc/nsswitch.conf` has no `subid:` line or one that says
//! `files` and nothing else (nsswitch.conf(5), shadow 4.10), and the files do have both kinds of ranges for the user.

use std::path::Path;
use std::str::FromStr;

use hostenv::user::User;
use hostenv::{Env, vars};

use crate::getsubids::{self, GetsubidsError};
use crate::subid::{self, SubidFileError};
use crate::{Kind, Range};

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// `getsubids`, then the files.
    #[default]
    Auto,
    /// `getsubids` only.
    Dynamic,
    /// The files only.
    Static,
}

/// The ranges of a user; neither list is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subids {
    /// Ranges of user ids, in the order found.
    pub uid: Vec<Range>,
    /// Ranges of group ids, in the order found.
    pub gid: Vec<Range>,
}

/// No usable ranges.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The word after `--subid-source` is none of the three.
    #[error("unknown subid source `{0}`\nhint: choose auto, dynamic or static")]
    Unknown(String),
    /// There are no ranges for the user, in words of which clients match the first.
    #[error("{0}")]
    NoRanges(String),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] SubidFileError),
    /// `getsubids` cannot be used, and it was asked for explicitly.
    #[error("cannot look up dynamic subids")]
    Dynamic(#[from] GetsubidsError),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            // As in RootlessKit, nothing is no choice.
            "auto" | "" => Ok(Source::Auto),
            "dynamic" => Ok(Source::Dynamic),
            "static" => Ok(Source::Static),
            _ => Err(SourceError::Unknown(word.to_owned())),
        }
    }
}

/// Finds the ranges of `user`. `root` is `/` outside of tests.
///
/// # Errors
/// See [`SourceError`].
pub fn lookup(source: Source, root: &Path, user: &User, env: &Env) -> Result<Subids, SourceError> {
    match source {
        Source::Static => from_files(root, user),
        Source::Dynamic => {
            let (uid, gid) = getsubids::lookup(user, env)?;
            require(uid, gid, user, " by getsubids", root)
        }
        Source::Auto => auto(root, user, env),
    }
}

fn auto(root: &Path, user: &User, env: &Env) -> Result<Subids, SourceError> {
    if only_files(root, env)
        && let Ok(subids) = from_files(root, user)
    {
        return Ok(subids);
    }
    match getsubids::lookup(user, env) {
        Ok((uid, gid)) if !uid.is_empty() && !gid.is_empty() => return Ok(Subids { uid, gid }),
        Ok(_) => tracing::debug!(
            "getsubids has no ranges for {:?}; falling back to the files",
            user.name
        ),
        Err(error) => tracing::debug!("{error}; falling back to the files"),
    }
    from_files(root, user)
}

/// Whether `getsubids` could only repeat the files.
fn only_files(root: &Path, env: &Env) -> bool {
    if env.nonempty(vars::GETSUBIDS).is_some() {
        return false;
    }
    // No file is a file without the line; a file that cannot be read may say anything.
    match hostenv::file::read(&root.join("etc/nsswitch.conf")) {
        Ok(text) => nsswitch_names_only_files(&String::from_utf8_lossy(&text)),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn nsswitch_names_only_files(text: &str) -> bool {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut databases = lines.filter_map(|line| line.split_once(':'));
    databases
        .all(|(name, services)| name.trim() != "subid" || services.split_whitespace().eq(["files"]))
}

fn from_files(root: &Path, user: &User) -> Result<Subids, SourceError> {
    let uid = subid::read(root, Kind::Uid, user)?;
    let gid = subid::read(root, Kind::Gid, user)?;
    let detail = format!(
        " in {} and {}",
        subid::file(root, Kind::Uid).display(),
        subid::file(root, Kind::Gid).display()
    );
    require(uid, gid, user, &detail, root)
}

fn require(
    uid: Vec<Range>,
    gid: Vec<Range>,
    user: &User,
    detail: &str,
    root: &Path,
) -> Result<Subids, SourceError> {
    let kind = match (uid.is_empty(), gid.is_empty()) {
        (false, false) => return Ok(Subids { uid, gid }),
        (true, _) => Kind::Uid,
        (false, true) => Kind::Gid,
    };
    let hint = subid::free_range_below(root).map(|range| {
        let options = match (uid.is_empty(), gid.is_empty()) {
            (true, true) => format!("--add-subuids {range} --add-subgids {range}"),
            (true, false) => format!("--add-subuids {range}"),
            (false, _) => format!("--add-subgids {range}"),
        };
        format!("\nhint: run `sudo usermod {options} {}`", shell_word(&user.name))
    });
    let User { uid, name, .. } = user;
    let (kind, hint) = (kind.subid(), hint.unwrap_or_default());
    Err(SourceError::NoRanges(format!(
        "No {kind} ranges found for user {uid} ({name:?}){detail}{hint}"
    )))
}

/// The name as one word of a command that a person pastes into a shell.
fn shell_word(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || "._-@".contains(c)) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
