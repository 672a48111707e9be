//! Looking programs up like Go's `exec.LookPath`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

/// Finds the program `name` in `path`, the value of `$PATH`.
///
/// A name with a slash is not searched for: it is returned as it is if it can be executed. Relative and empty entries
/// of `path` are skipped, as Go refuses to run what it finds there.
pub fn find_in_path(name: impl AsRef<OsStr>, path: &OsStr) -> Option<PathBuf> {
    let name = name.as_ref();
    if name.is_empty() {
        return None;
    }
    if name.as_bytes().contains(&b'/') {
        return is_executable(Path::new(name)).then(|| PathBuf::from(name));
    }
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether `file` is a regular file that the effective user may execute.
pub fn is_executable(file: &Path) -> bool {
    file.is_file() && faccessat(AT_FDCWD, file, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn first_executable_regular_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        for sub in [&a, &b, &c] {
            fs::create_dir(sub).unwrap();
        }
        fs::create_dir(a.join("tool")).unwrap();
        file(&b.join("tool"), 0o644);
        file(&c.join("tool"), 0o755);
        let path = std::env::join_paths([&a, &b, &c]).unwrap();
        assert_eq!(find_in_path("tool", &path), Some(c.join("tool")));
        assert_eq!(find_in_path("other", &path), None);
        assert_eq!(find_in_path("", &path), None);
        assert_eq!(find_in_path("tool", OsStr::new("")), None);
    }

    #[test]
    fn a_name_with_a_slash_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("tool");
        file(&tool, 0o755);
        assert_eq!(find_in_path(&tool, OsStr::new("")), Some(tool.clone()));
        file(&tool, 0o600);
        assert_eq!(find_in_path(&tool, OsStr::new("")), None);
    }

    #[test]
    fn relative_entries_are_skipped() {
        assert_eq!(find_in_path("sh", OsStr::new(".:../../../../../../bin:")), None);
        assert!(find_in_path("sh", OsStr::new("bin:/bin:/usr/bin")).is_some());
    }
}
