//! Which files of an egress policy the launcher gives to rootlesskit.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Env, dirs, vars};

/// The administrator's file, below the root directory.
pub const SYSTEM: &str = "etc/docker-rootless/egress.toml";
/// The user's file, below the directory for configuration.
pub const USER: &str = "docker-rootless/egress.toml";

/// The administrator's file and the user's, in this order, as far as there are such. A file that cannot be looked at counts
/// as one that is there, and so does a file that [`vars::DOCKERD_ROOTLESS_EGRESS_POLICY`] names.
pub fn files(root: &Path, env: &Env) -> Vec<PathBuf> {
    let user = match env.get(vars::DOCKERD_ROOTLESS_EGRESS_POLICY) {
        Some(named) => (!named.is_empty()).then(|| named.into()),
        None => dirs::config_home(env).ok().map(|dir| dir.join(USER)).filter(|file| is_there(file)),
    };
    let system = Some(root.join(SYSTEM)).filter(|file| is_there(file));
    system.into_iter().chain(user).collect()
}

fn is_there(file: &Path) -> bool {
    // Not what a symlink leads to: whoever made one wanted a policy.
    let absent = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
    fs::symlink_metadata(file).map_or_else(|e| !absent(e.kind()), |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_there_or_named_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let at = |path: &str| root.join(path);
        let home = at("home").display().to_string();
        let config = at("config").display().to_string();
        let found = |vars: &[(&str, &str)]| {
            let vars = [&[("HOME", &*home)], vars].concat();
            files(root, &vars.into_iter().collect())
        };
        assert_eq!(found(&[]), [""; 0].map(PathBuf::from));
        let named = (vars::DOCKERD_ROOTLESS_EGRESS_POLICY, "/nonexistent/e.toml");
        assert_eq!(found(&[named]), [named.1].map(PathBuf::from));

        let (system, user) = (at(SYSTEM), at("home/.config").join(USER));
        for file in [&system, &user] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        fs::write(&user, "").unwrap();
        std::os::unix::fs::symlink("nowhere", &system).unwrap();
        assert_eq!(found(&[]), [system.clone(), user]);
        assert_eq!(found(&[named]), [system.clone(), named.1.into()]);
        for vars in [(named.0, ""), ("XDG_CONFIG_HOME", &*config)] {
            assert_eq!(found(&[vars]), [&*system], "{vars:?}");
        }
    }
}
