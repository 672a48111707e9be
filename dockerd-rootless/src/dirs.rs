//! The two directories without which a rootless dockerd cannot work: `XDG_RUNTIME_DIR` and `HOME`.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hostenv::Env;
use hostenv::vars;
use nix::unistd::{AccessFlags, eaccess, geteuid};

use crate::report::{Failure, Note};

const RUNTIME_DIR_HINT: &str = "open a login session with ssh USER@localhost or sudo machinectl shell USER@ (su and sudo do not \
     open one), so that systemd creates the directory (pam_systemd); without systemd, run: mkdir -p -m 700 $HOME/.docker/run && export \
     XDG_RUNTIME_DIR=$HOME/.docker/run";

/// Checks that `XDG_RUNTIME_DIR` is a writable directory and that `HOME` is a directory. It need not be
/// writable: data and configuration may be elsewhere.
pub(crate) fn check(env: &Env, notes: &mut Vec<Note>) -> Result<(), Failure> {
    let name = vars::XDG_RUNTIME_DIR;
    let value = env.get(name).unwrap_or_default();
    if let Some(why) = unusable(value) {
        return Err(Failure::new(format!(
            "{name} needs to be set to a writable directory, but {why}"
        ))
        .hint(RUNTIME_DIR_HINT));
    }
    notes.extend(public(Path::new(value)));
    let home = env.get(vars::HOME).unwrap_or_default();
    if home.is_empty() || !Path::new(home).is_dir() {
        let why = if home.is_empty() {
            "it is not set".to_owned()
        } else {
            format!("{home:?} is not a directory")
        };
        return Err(Failure::new(format!(
            "{} needs to be set to a directory, but {why}",
            vars::HOME
        ))
        .hint("set and export HOME; dockerd stores images and configuration below it"));
    }
    Ok(())
}

fn unusable(value: &OsStr) -> Option<String> {
    let dir = Path::new(value);
    if value.is_empty() {
        Some("it is not set".to_owned())
    } else if !dir.is_absolute() {
        Some(format!("{value:?} is not an absolute path"))
    } else if !dir.is_dir() {
        Some(format!("{value:?} is not a directory"))
    } else if let Err(e) = eaccess(dir, AccessFlags::W_OK | AccessFlags::X_OK) {
        Some(format!("{value:?} is not writable: {}", e.desc()))
    } else {
        None
    }
}

/// Sockets in this directory give control over the daemon.
fn public(dir: &Path) -> Option<Note> {
    let meta = dir.metadata().ok()?;
    let why = if meta.uid() != geteuid().as_raw() {
        format!("belongs to UID {}", meta.uid())
    } else if meta.mode() & 0o022 != 0 {
        format!("has mode {:o}", meta.mode() & 0o7777)
    } else {
        return None;
    };
    Some(Note::warn(format!(
        "{} {} {why}, so other users can replace the daemon's socket. hint: run chmod 700 on it, or use your own directory",
        vars::XDG_RUNTIME_DIR,
        dir.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::env_of;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn checked(runtime: &str, home: &str) -> Result<usize, String> {
        let mut notes = Vec::new();
        let env = env_of(&[("XDG_RUNTIME_DIR", runtime), ("HOME", home)]);
        check(&env, &mut notes).map(|()| notes.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn both_directories_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().to_str().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let file = format!("{good}/file");
        assert_eq!(checked(good, good), Ok(0));
        for (runtime, home, token) in [
            (
                "",
                good,
                "XDG_RUNTIME_DIR needs to be set to a writable directory, but it is not set",
            ),
            ("run", good, "\"run\" is not an absolute path"),
            (&file, good, "is not a directory"),
            (good, "", "HOME needs to be set to a directory, but it is not set"),
            (good, &file, "HOME needs"),
        ] {
            let e = checked(runtime, home).unwrap_err();
            assert!(e.contains(token) && e.contains("\nhint: "), "{e}");
        }
    }

    #[test]
    fn a_runtime_directory_for_everybody_is_warned_about() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(checked(path, path), Ok(1));
    }
}
