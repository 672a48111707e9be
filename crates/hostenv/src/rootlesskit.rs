//! The variables that rootlesskit gives to its child and its target, with their types.
//!
//! Clients read [`vars::ROOTLESSKIT_STATE_DIR`] and the parent's ids from `/proc/<child pid>/environ`, so they have to be
//! in the environment at exec time: make them part of the [`Env`] of the new program.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::path::Path;

use crate::{Env, VarError, vars};

/// Which ids the parent has on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentIds {
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
}

/// Sockets passed by a service manager (sd_listen_fds(3)), at descriptors 3 and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenFds {
    /// For whom they were meant.
    pub pid: i32,
    /// How many there are, at least one.
    pub count: u16,
}

/// The state directory, if we run below rootlesskit. An empty value counts as unset.
pub fn state_dir(env: &Env) -> Option<&Path> {
    env.nonempty(vars::ROOTLESSKIT_STATE_DIR).map(Path::new)
}

/// Sets the state directory, which has to be absolute.
pub fn set_state_dir(env: &mut Env, dir: &Path) {
    env.set(vars::ROOTLESSKIT_STATE_DIR, dir);
}

/// Sets the parent's ids.
pub fn set_parent_ids(env: &mut Env, ids: ParentIds) {
    env.set(vars::ROOTLESSKIT_PARENT_EUID, ids.euid.to_string());
    env.set(vars::ROOTLESSKIT_PARENT_EGID, ids.egid.to_string());
}

/// The reading and the writing end of the handshake; `Some` means that this process is the child.
///
/// # Errors
/// The value is not `<read fd>,<write fd>`.
pub fn pipe_fds(env: &Env) -> Result<Option<(RawFd, RawFd)>, VarError> {
    let Some(value) = env.nonempty(vars::ROOTLESSKIT_PIPEFD) else { return Ok(None) };
    let fds = value.to_str().and_then(|text| text.split_once(','));
    match fds.map(|(r, w)| (r.parse::<RawFd>(), w.parse::<RawFd>())) {
        Some((Ok(r), Ok(w))) if r >= 0 && w >= 0 => Ok(Some((r, w))),
        _ => Err(VarError::new(
            vars::ROOTLESSKIT_PIPEFD,
            value,
            "must be two descriptors like `3,4`\nhint: unset this variable, which is internal to rootlesskit",
        )),
    }
}

/// Sets both ends of the handshake.
pub fn set_pipe_fds(env: &mut Env, read: RawFd, write: RawFd) {
    env.set(vars::ROOTLESSKIT_PIPEFD, format!("{read},{write}"));
}

/// Whether the sockets in `LISTEN_FDS` were meant for the parent, so that the target is to get a `LISTEN_PID` of its own.
///
/// # Errors
/// The value is no boolean.
pub fn activation_child_use(env: &Env) -> Result<bool, VarError> {
    boolean(env, vars::ROOTLESSKIT_ACTIVATION_CHILD_USE)
}

/// Tells the child whether the sockets in `LISTEN_FDS` were meant for the parent.
pub fn set_activation_child_use(env: &mut Env, meant_for_parent: bool) {
    env.set(
        vars::ROOTLESSKIT_ACTIVATION_CHILD_USE,
        if meant_for_parent { "true" } else { "false" },
    );
}

/// Removes every variable that is internal to rootlesskit, for the environment of the target.
pub fn remove_internal(env: &mut Env) {
    for name in [
        vars::ROOTLESSKIT_PIPEFD,
        vars::ROOTLESSKIT_ACTIVATION_CHILD_USE,
        vars::ROOTLESSKIT_ACTIVATION_RUN_HELPER,
    ] {
        env.remove(name);
    }
    let counters: Vec<String> = env
        .iter()
        .filter_map(|(name, _)| name.to_str())
        .filter(|name| name.starts_with(vars::ROOTLESSKIT_REEXEC_COUNT_PREFIX))
        .map(str::to_owned)
        .collect();
    for name in counters {
        env.remove(&name);
    }
}

/// The passed sockets: both variables must be integers and the count positive, otherwise there are none. Whether the
/// pid is ours is for the caller to see, because descriptors are passed on either way.
pub fn listen_fds(env: &Env) -> Option<ListenFds> {
    let pid = env.get(vars::LISTEN_PID).and_then(OsStr::to_str)?.parse().ok()?;
    let count = env.get(vars::LISTEN_FDS).and_then(OsStr::to_str)?.parse().ok()?;
    (count > 0).then_some(ListenFds { pid, count })
}

/// The spellings of Go's `strconv.ParseBool`, as the variable may come from a RootlessKit written in Go.
fn boolean(env: &Env, name: &str) -> Result<bool, VarError> {
    let Some(value) = env.nonempty(name) else { return Ok(false) };
    match value.to_str() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        _ => Err(VarError::new(
            name,
            value,
            "must be true or false\nhint: unset this variable, which is internal to rootlesskit",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_set_can_be_read_back() {
        let mut env = Env::default();
        assert_eq!((state_dir(&env), pipe_fds(&env)), (None, Ok(None)));
        assert_eq!(activation_child_use(&env), Ok(false));
        set_state_dir(&mut env, Path::new("/run/user/1000/x y"));
        set_pipe_fds(&mut env, 3, 4);
        set_activation_child_use(&mut env, true);
        assert_eq!(state_dir(&env), Some(Path::new("/run/user/1000/x y")));
        assert_eq!(pipe_fds(&env), Ok(Some((3, 4))));
        assert_eq!(activation_child_use(&env), Ok(true));
    }

    #[test]
    fn the_target_sees_nothing_internal() {
        let mut env: Env =
            [("_ROOTLESSKIT_REEXEC_COUNT_4026531836_7", "1"), ("HOME", "/h")].into_iter().collect();
        set_pipe_fds(&mut env, 3, 4);
        set_activation_child_use(&mut env, false);
        set_state_dir(&mut env, Path::new("/s"));
        remove_internal(&mut env);
        let names: Vec<&OsStr> = env.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["HOME", "ROOTLESSKIT_STATE_DIR"]);
    }

    #[test]
    fn bad_values_are_named_with_a_remedy() {
        for bad in ["3", "3,", ",4", "a,b", "-1,4", "3,4,5", "3, 4"] {
            let env: Env = [(vars::ROOTLESSKIT_PIPEFD, bad)].into_iter().collect();
            let error = pipe_fds(&env).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("hint: "), "{error}");
        }
        let env: Env = [(vars::ROOTLESSKIT_ACTIVATION_CHILD_USE, "yes")].into_iter().collect();
        assert!(activation_child_use(&env).is_err());
    }

    #[test]
    fn passed_sockets_need_both_variables() {
        let listen = |pid: &str, fds: &str| {
            listen_fds(&[(vars::LISTEN_PID, pid), (vars::LISTEN_FDS, fds)].into_iter().collect())
        };
        assert_eq!(listen("7", "2"), Some(ListenFds { pid: 7, count: 2 }));
        for (pid, fds) in
            [("", "2"), ("7", ""), ("7", "0"), ("7", "-1"), ("x", "2"), ("7", "99999999")]
        {
            assert_eq!(listen(pid, fds), None, "{pid} {fds}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_a_reader_panic(value: String) {
            for name in [vars::ROOTLESSKIT_PIPEFD, vars::LISTEN_FDS,
                         vars::ROOTLESSKIT_ACTIVATION_CHILD_USE] {
                let env: Env = [(name, value.as_str()), (vars::LISTEN_PID, "1")].into_iter().collect();
                let _ = (pipe_fds(&env), listen_fds(&env), activation_child_use(&env));
            }
        }
    }
}
