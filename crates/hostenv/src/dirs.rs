//! Directories that follow from the environment (XDG Base Directory Specification).
//!
//! An empty variable counts as unset everywhere, as in the specification. Whether a directory exists and may be written
//! is for the caller to check.

use std::path::PathBuf;

use crate::{Env, vars};

/// A directory that the environment does not name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirError {
    /// `$XDG_RUNTIME_DIR` is unset or empty.
    #[error(
        "XDG_RUNTIME_DIR is not set\nhint: open a login session with ssh USER@localhost or sudo machinectl shell USER@ (su and \
         sudo do not open one), or set XDG_RUNTIME_DIR=/run/user/UID; without systemd, create a directory with mode 0700 \
         outside /tmp, for example $HOME/.docker/run"
    )]
    NoRuntimeDir,
    /// `$HOME` is unset or empty.
    #[error("HOME is not set\nhint: set HOME to your home directory")]
    NoHome,
}

/// `$XDG_RUNTIME_DIR`.
///
/// # Errors
/// The variable is unset or empty; there is no default.
pub fn runtime_dir(env: &Env) -> Result<PathBuf, DirError> {
    env.nonempty(vars::XDG_RUNTIME_DIR).map(PathBuf::from).ok_or(DirError::NoRuntimeDir)
}

/// `$HOME`.
///
/// # Errors
/// The variable is unset or empty.
pub fn home(env: &Env) -> Result<PathBuf, DirError> {
    env.nonempty(vars::HOME).map(PathBuf::from).ok_or(DirError::NoHome)
}

/// `$XDG_CONFIG_HOME`, by default `$HOME/.config`.
///
/// # Errors
/// Neither variable is set.
pub fn config_home(env: &Env) -> Result<PathBuf, DirError> {
    or_below_home(env, vars::XDG_CONFIG_HOME, ".config")
}

/// `$XDG_DATA_HOME`, by default `$HOME/.local/share`.
///
/// # Errors
/// Neither variable is set.
pub fn data_home(env: &Env) -> Result<PathBuf, DirError> {
    or_below_home(env, vars::XDG_DATA_HOME, ".local/share")
}

fn or_below_home(env: &Env, name: &str, default: &str) -> Result<PathBuf, DirError> {
    match env.nonempty(name) {
        Some(dir) => Ok(dir.into()),
        None => Ok(home(env)?.join(default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn defaults_hang_below_home_and_runtime_dir() {
        let env: Env = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "")]
            .into_iter()
            .collect();
        assert_eq!(config_home(&env).unwrap(), Path::new("/h/.config"));
        assert_eq!(data_home(&env).unwrap(), Path::new("/h/.local/share"));
    }

    #[test]
    fn explicit_directories_win() {
        let env: Env = [("XDG_CONFIG_HOME", "/c"), ("XDG_DATA_HOME", "/d")].into_iter().collect();
        assert_eq!(config_home(&env).unwrap(), Path::new("/c"));
        assert_eq!(data_home(&env).unwrap(), Path::new("/d"));
    }

    #[test]
    fn unset_and_empty_are_the_same_error_with_a_remedy() {
        let empty: Env = [("HOME", ""), ("XDG_RUNTIME_DIR", "")].into_iter().collect();
        for env in [Env::default(), empty] {
            assert_eq!(runtime_dir(&env), Err(DirError::NoRuntimeDir));
            assert_eq!(data_home(&env), Err(DirError::NoHome));
        }
        assert!(DirError::NoRuntimeDir.to_string().contains("hint: "));
    }
}
