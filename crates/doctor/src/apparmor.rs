//! The AppArmor profile that rootlesskit needs where AppArmor restricts user namespaces.

use std::fs;
use std::path::{Path, PathBuf};

use crate::managed::Managed;
use crate::place::World;

const HEADER: &str = "# Written by dockerd-rootless-setuptool.sh for rootless Docker.";
/// Signs that a path in a profile means something else by (apparmor.d(5)).
const SPECIAL: &str = "\"\\*?[]{}^@,";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name, and that of its file in `/etc/apparmor.d`.
    pub name: String,
    /// The file's text without its checksum.
    pub text: String,
}

impl Profile {
    /// The profile for the program that really lies there; `None` if no profile can name that path.
    pub fn of(program: &Path) -> Option<Self> {
        let path = program.to_str()?;
        let plain = |c: char| !c.is_control() && !SPECIAL.contains(c);
        if !path.starts_with('/') || !path.chars().all(plain) {
            return None;
        }
        // The name is also a word of shells and of paths.
        let word = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String =
            path.trim_start_matches('/').replace('/', ".").chars().map(word).collect();
        let text = format!(
            "{HEADER}\nabi <abi/4.0>,\ninclude <tunables/global>\n\n\
             profile \"{name}\" \"{path}\" flags=(unconfined) {{\n  userns,\n\n  \
             include if exists <local/{name}>\n}}\n"
        );
        Some(Self { name, text })
    }

    /// Its file. Copies have a name that AppArmor does not load (aa-enforce(8) and its boot script skip it).
    pub fn file(&self, world: &World) -> Managed {
        let path = world.at("etc/apparmor.d").join(&self.name);
        Managed::new(path, &self.text).backups_end_in("orig")
    }
}

pub fn real(program: &Path) -> PathBuf {
    fs::canonicalize(program).unwrap_or_else(|_| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_for_the_path_where_the_program_lies() {
        let profile = Profile::of(Path::new("/home/jo doe/bin/rootlesskit")).unwrap();
        assert_eq!(profile.name, "home.jo_doe.bin.rootlesskit");
        for line in [
            "profile \"home.jo_doe.bin.rootlesskit\" \"/home/jo doe/bin/rootlesskit\" flags=(unconfined) {\n  userns,",
            "  include if exists <local/home.jo_doe.bin.rootlesskit>\n}\n",
            "abi <abi/4.0>,\n",
        ] {
            assert!(profile.text.contains(line), "{line}\n{}", profile.text);
        }
        for path in ["bin/rootlesskit", "/a*/b", "/a\"b", "/a\nb", "/{a,b}", "/@{HOME}/x"] {
            assert_eq!(Profile::of(Path::new(path)), None, "{path:?}");
        }
    }
}
