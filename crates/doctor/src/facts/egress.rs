//! The files that say what containers may reach.

use std::path::{Path, PathBuf};

use ::egress::{File, Mode};
use hostenv::vars;

use super::variables::{UserSetting, UserSettings};
use crate::place::World;

/// A file of an egress policy that the daemon would use.
#[derive(Debug, Clone)]
pub struct PolicyFile {
    pub path: PathBuf,
    /// The setting that names it; none for the files that the launcher looks for.
    pub setting: Option<UserSetting>,
    /// Whether it is enforced, or why it is no policy.
    pub content: Result<Mode, String>,
    /// A daemon runs without it.
    pub unused: bool,
}

pub(super) fn gather(world: &World, settings: &UserSettings<'_>) -> Vec<PolicyFile> {
    let mut env = world.env.clone();
    let name = vars::DOCKERD_ROOTLESS_EGRESS_POLICY;
    let variable = settings.variable_or_empty(name);
    if let Some(setting) = &variable {
        env.set(name, &setting.value);
    }
    let launchers = hostenv::egress_policy::files(&world.root, &env);
    let launchers = launchers.into_iter().map(|path| {
        let named = variable.clone().filter(|setting| Path::new(&setting.value) == path);
        (path, named)
    });
    let flags = settings.flags.all("egress-policy");
    let flags = flags.map(|setting| (PathBuf::from(&setting.value), Some(setting)));
    let files: Vec<_> = launchers.chain(flags).collect();
    if files.is_empty() {
        return Vec::new();
    }
    let running = arguments(world);
    let file = |(path, setting): (PathBuf, Option<UserSetting>)| PolicyFile {
        content: content(&path),
        unused: running.as_deref().is_some_and(|running| !names(running, &path)),
        path,
        setting,
    };
    files.into_iter().map(file).collect()
}

fn content(path: &Path) -> Result<Mode, String> {
    let limit = u64::try_from(File::MAX_LENGTH).unwrap_or(u64::MAX);
    let bytes = hostenv::file::read_at_most(path, limit).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|e| format!("the file is not UTF-8: {e}"))?;
    let file = File::parse(&text).map_err(|e| format!("line {}: {}", e.line, e.problem))?;
    Ok(file.mode())
}

/// The arguments of a rootlesskit that runs, with NUL behind each.
fn arguments(world: &World) -> Option<Vec<u8>> {
    let pid = world.occupant().pid()?;
    hostenv::file::read(&world.at(&format!("proc/{pid}/cmdline"))).ok()
}

/// Whether these arguments have this file for a policy.
fn names(arguments: &[u8], path: &Path) -> bool {
    let words: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let words: Vec<std::ffi::OsString> = words.iter().map(|word| (&**word).into()).collect();
    let values = hostenv::flags::all(words.get(1..).unwrap_or_default(), "egress-policy");
    values.iter().flat_map(|value| value.split(',')).any(|value| Path::new(value) == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_uses_the_files_that_it_was_started_with() {
        let arguments =
            b"rootlesskit\0--net=gateway\0--egress-policy=/a,/b\0--egress-policy\0/c\0x\0";
        for (path, used) in [("/a", true), ("/b", true), ("/c", true), ("/d", false)] {
            assert_eq!(names(arguments, Path::new(path)), used, "{path}");
        }
        assert!(!names(b"", Path::new("/a")));
    }
}
