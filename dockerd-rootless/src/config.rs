//! What dockerd was told before the launcher adds anything: on the command line and in its configuration file. dockerd
//! refuses to start with an option in both places, so the launcher adds none that is in either.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use hostenv::{Env, dirs};
use serde_json::Value;

use crate::extra;

const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Config<'a> {
    given: Vec<&'a [OsString]>,
    file: File,
}

#[derive(Debug, PartialEq)]
enum File {
    Absent,
    Read(Value),
    /// It cannot be read or understood, about which dockerd will have something to say.
    Unclear,
}

impl<'a> Config<'a> {
    /// Reads the configuration file that dockerd will read: the one that is named last, or the one of rootless mode.
    /// `given` are its arguments, from `$DOCKERD` and from the user.
    pub(crate) fn read(env: &Env, given: &[&'a [OsString]]) -> Self {
        let named = given.iter().rev().find_map(|args| extra::last(args, "config-file"));
        let default = || Some(dirs::config_home(env).ok()?.join("docker/daemon.json"));
        let path = named.map(PathBuf::from).or_else(default);
        Self { given: given.to_vec(), file: path.map_or(File::Absent, |path| parse(&path)) }
    }

    /// Whether one of these options is set, or may be: a conflict of ours should not come on top of another error.
    pub(crate) fn sets(&self, flag: &str, keys: &[&str]) -> bool {
        let configured = match &self.file {
            File::Absent => false,
            File::Read(config) => keys.iter().any(|key| config.get(key).is_some()),
            File::Unclear => true,
        };
        configured || self.given.iter().any(|args| extra::last(args, flag).is_some())
    }

    /// The value of an option, if it is set in either place.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let given = self.given.iter().rev().find_map(|args| extra::last(args, name));
        let configured = || match &self.file {
            File::Read(config) => config.get(name).and_then(Value::as_str).map(str::to_owned),
            File::Absent | File::Unclear => None,
        };
        given.or_else(configured)
    }

    /// The value of a boolean option, if it is set in either place.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        let given = self.given.iter().rev().find_map(|args| extra::last_bool(args, name));
        let configured = || match &self.file {
            File::Read(config) => config.get(name).and_then(Value::as_bool),
            File::Absent | File::Unclear => None,
        };
        given.or_else(configured)
    }
}

fn parse(path: &Path) -> File {
    let bytes = match hostenv::file::read_at_most(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return File::Absent,
        Err(_) => return File::Unclear,
    };
    // dockerd accepts marks of byte order, and an empty file.
    let text = hostenv::file::without_byte_order_mark(bytes);
    let text = text.trim_ascii();
    if text.is_empty() {
        return File::Absent;
    }
    serde_json::from_slice(text).map_or(File::Unclear, File::Read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostenv::vars;
    use std::fs;

    fn config(text: Option<&str>, args: &[&str], check: impl FnOnce(&Config<'_>)) {
        let home = tempfile::tempdir().unwrap();
        let mut env = Env::default();
        env.set(vars::HOME, home.path());
        if let Some(text) = text {
            fs::create_dir_all(home.path().join(".config/docker")).unwrap();
            fs::write(home.path().join(".config/docker/daemon.json"), text).unwrap();
        }
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        check(&Config::read(&env, &[&args]));
    }

    #[test]
    fn a_switch_is_found_in_either_place() {
        config(Some("{\"live-restore\": true}"), &[], |c| {
            assert_eq!((c.switch("live-restore"), c.switch("debug")), (Some(true), None));
        });
        config(None, &["--live-restore"], |c| assert_eq!(c.switch("live-restore"), Some(true)));
        config(None, &["--userland-proxy=false"], |c| {
            assert_eq!(c.switch("userland-proxy"), Some(false));
        });
        config(Some("{"), &[], |c| assert_eq!(c.switch("live-restore"), None));
    }

    #[test]
    fn a_file_that_is_not_understood_may_set_everything() {
        let keys = ["host-gateway-ip", "host-gateway-ips"];
        for (text, sets) in [
            (None, false),
            (Some(""), false),
            (Some("{}"), false),
            (Some("{"), true),
            (Some("{\"host-gateway-ips\": []}"), true),
        ] {
            config(text, &[], |c| assert_eq!(c.sets("host-gateway-ip", &keys), sets, "{text:?}"));
        }
        config(None, &["--host-gateway-ip", "10.0.0.1"], |c| {
            assert!(c.sets("host-gateway-ip", &keys));
        });
    }
}
