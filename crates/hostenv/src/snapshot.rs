//! The environment variables as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::{path, vars};

/// Environment variables, taken from the process once or made up by a test.
///
/// ```
/// let env: hostenv::Env = [("HOME", "/home/me")].into_iter().collect();
/// assert_eq!(env.get("HOME").unwrap(), "/home/me");
/// assert_eq!(env.get("USER"), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env {
    vars: BTreeMap<OsString, OsString>,
}

/// A variable whose value cannot be what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}={}: {reason}", value.to_string_lossy())]
pub struct VarError {
    /// Name of the variable.
    pub name: String,
    /// Its value.
    pub value: OsString,
    /// What a valid value looks like.
    pub reason: String,
}

impl VarError {
    /// An error about the variable `name`; `reason` says what a valid value looks like.
    pub fn new(name: &str, value: &OsStr, reason: impl Into<String>) -> Self {
        VarError { name: name.to_owned(), value: value.to_owned(), reason: reason.into() }
    }
}

impl Env {
    /// The environment of this process.
    pub fn current() -> Self {
        Env { vars: std::env::vars_os().collect() }
    }

    /// The value of a variable, which may be empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The value of a variable; an empty one counts as unset, as in the shell's `${NAME:-…}`.
    pub fn nonempty(&self, name: &str) -> Option<&OsStr> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// The value of a variable as text; empty counts as unset.
    ///
    /// # Errors
    /// The value is no UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, VarError> {
        let Some(value) = self.nonempty(name) else { return Ok(None) };
        value.to_str().map(Some).ok_or_else(|| VarError::new(name, value, "must be valid UTF-8"))
    }

    /// The same without the variables that tie a process to its service manager: a probe must not tell systemd that the
    /// service is ready (sd_notify(3)), nor take its sockets (sd_listen_fds(3)).
    #[must_use]
    pub fn without_service(&self) -> Self {
        let mut env = self.clone();
        for name in [
            vars::NOTIFY_SOCKET,
            vars::LISTEN_PID,
            vars::LISTEN_PIDFDID,
            vars::LISTEN_FDS,
            vars::LISTEN_FDNAMES,
            vars::WATCHDOG_USEC,
            vars::WATCHDOG_PID,
        ] {
            env.remove(name);
        }
        env
    }

    /// Sets a variable in this copy.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.vars.insert(name.into(), value.into());
    }

    /// Removes a variable from this copy.
    pub fn remove(&mut self, name: &str) {
        self.vars.remove(OsStr::new(name));
    }

    /// All variables, sorted by name, for the environment of a new program.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Looks a program up in `$PATH`; see [`path::find_in_path`].
    pub fn find_program(&self, name: impl AsRef<OsStr>) -> Option<PathBuf> {
        path::find_in_path(name, self.get(vars::PATH).unwrap_or_default())
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(vars: I) -> Self {
        Env { vars: vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn empty_is_unset_where_it_says_so() {
        let env: Env = [("A", ""), ("B", "x")].into_iter().collect();
        assert_eq!(env.get("A"), Some(OsStr::new("")));
        assert_eq!(env.nonempty("A"), None);
        assert_eq!(env.nonempty("B"), Some(OsStr::new("x")));
        assert_eq!(env.text("C"), Ok(None));
    }

    #[test]
    fn bad_values_are_named() {
        let mut env = Env::default();
        env.set("N", OsStr::from_bytes(b"\xff"));
        assert!(env.text("N").unwrap_err().to_string().ends_with("must be valid UTF-8"));
        env.remove("N");
        assert_eq!(env.iter().count(), 0);
    }

    #[test]
    fn current_has_what_the_process_has() {
        let path = std::env::var_os("PATH");
        assert_eq!(Env::current().get("PATH"), path.as_deref());
    }
}
