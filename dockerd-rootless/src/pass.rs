//! Which of the two passes this is.
//!
//! The parent marks the environment for the child. The mark alone proves nothing (a shell inside the
//! namespaces hands it to whatever it starts, and a user may export it), so the child pass also wants to
//! see what only rootlesskit provides: its variables, and uid 0 in a user namespace that it made.

use std::path::Path;

use hostenv::Env;
use hostenv::vars;
use nix::unistd::geteuid;

use crate::report::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Started by the user, becomes rootlesskit.
    Parent,
    /// Started by rootlesskit, becomes dockerd.
    Child,
}

impl Pass {
    /// Tells the pass of the running process.
    pub(crate) fn current(env: &Env) -> Result<Self, Failure> {
        // Only the first mapping matters; a proc that cannot be read proves nothing.
        let map = std::fs::read_to_string(Path::new("/proc/self/uid_map")).unwrap_or_default();
        Self::tell(env, geteuid().as_raw(), &map)
    }

    fn tell(env: &Env, euid: u32, uid_map: &str) -> Result<Self, Failure> {
        match env.nonempty(vars::DOCKERD_ROOTLESS_CHILD) {
            None if euid == 0 => Err(Failure::new("dockerd-rootless refuses to run as root")
                .hint("run it as an ordinary user, without sudo; to run Docker as root, start dockerd directly")),
            None => Ok(Self::Parent),
            Some(marker) if marker == "1" && euid == 0 && made_by_rootlesskit(env, uid_map) => Ok(Self::Child),
            Some(marker) => Err(Failure::new(format!(
                "the environment variable {} is {marker:?}, but rootlesskit did not start this process",
                vars::DOCKERD_ROOTLESS_CHILD
            ))
            .hint(format!("unset {} and start again", vars::DOCKERD_ROOTLESS_CHILD))),
        }
    }
}

fn made_by_rootlesskit(env: &Env, uid_map: &str) -> bool {
    let set = |name| env.nonempty(name).is_some();
    set(vars::ROOTLESSKIT_STATE_DIR) && set(vars::ROOTLESSKIT_PARENT_EUID) && !initial(uid_map)
}

/// The map of the initial user namespace is one line that maps every uid to itself (user_namespaces(7)).
fn initial(uid_map: &str) -> bool {
    let numbers: Vec<&str> = uid_map.split_ascii_whitespace().collect();
    numbers.is_empty() || numbers == ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::env_of;

    const INITIAL: &str = "         0          0 4294967295\n";
    const ROOTLESS: &str = "         0       1000          1\n         1     100000      65536\n";
    const FROM_ROOTLESSKIT: [(&str, &str); 3] = [
        ("_DOCKERD_ROOTLESS_CHILD", "1"),
        ("ROOTLESSKIT_STATE_DIR", "/s"),
        ("ROOTLESSKIT_PARENT_EUID", "1000"),
    ];

    #[test]
    fn root_is_refused_and_the_user_is_not() {
        assert_eq!(Pass::tell(&env_of(&[]), 1000, INITIAL), Ok(Pass::Parent));
        assert_eq!(
            Pass::tell(&env_of(&[("_DOCKERD_ROOTLESS_CHILD", "")]), 1000, INITIAL),
            Ok(Pass::Parent)
        );
        let e = Pass::tell(&env_of(&[]), 0, INITIAL).unwrap_err().to_string();
        assert!(e.contains("refuses to run as root"), "{e}");
    }

    #[test]
    fn a_marker_needs_everything_that_rootlesskit_provides() {
        let all = env_of(&FROM_ROOTLESSKIT);
        assert_eq!(Pass::tell(&all, 0, ROOTLESS), Ok(Pass::Child));
        assert!(Pass::tell(&all, 1000, ROOTLESS).is_err());
        assert!(Pass::tell(&all, 0, INITIAL).is_err());
        assert!(Pass::tell(&all, 0, "").is_err());
        for missing in 1..FROM_ROOTLESSKIT.len() {
            let mut some = FROM_ROOTLESSKIT;
            some[missing].1 = "";
            assert!(Pass::tell(&env_of(&some), 0, ROOTLESS).is_err(), "{}", some[missing].0);
        }
        let mut other = FROM_ROOTLESSKIT;
        other[0].1 = "2";
        let e = Pass::tell(&env_of(&other), 0, ROOTLESS).unwrap_err().to_string();
        assert!(e.contains("_DOCKERD_ROOTLESS_CHILD is \"2\""), "{e}");
    }
}
