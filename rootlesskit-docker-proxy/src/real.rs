//! The real `docker-proxy`: where it is, and starting it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::Context as _;
use hostenv::{Env, path, vars};

use crate::status::Status;

const NAME: &str = "docker-proxy";

/// Where dockerd looks for its helpers; recent packages keep `docker-proxy` out of `PATH`.
const LIBEXEC: [&str; 4] = [
    "/usr/local/libexec/docker",
    "/usr/libexec/docker",
    "/usr/local/lib/docker",
    "/usr/lib/docker",
];

/// Finds the program: in `PATH`, as RootlessKit does, then in dockerd's own directories.
pub(crate) fn find(env: &Env) -> anyhow::Result<PathBuf> {
    let ourselves = fs::metadata("/proc/self/exe").ok().map(|file| (file.dev(), file.ino()));
    let path = env.get(vars::PATH).unwrap_or_default();
    find_in(path, &LIBEXEC.map(Path::new), ourselves).with_context(|| {
        format!(
            "{NAME} was not found in PATH ({}) or in {}\nhint: add its directory to PATH; {NAME} is installed with dockerd",
            path.display(),
            LIBEXEC.join(", ")
        )
    })
}

/// The first `docker-proxy` that is not a link to the file `ourselves` (device and inode), as it is where an administrator put us
/// in its place: starting that would never end.
fn find_in(path: &OsStr, libexec: &[&Path], ourselves: Option<(u64, u64)>) -> Option<PathBuf> {
    let dirs = std::env::split_paths(path).chain(libexec.iter().map(PathBuf::from));
    dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join(NAME)).find(|file| {
        let other = || fs::metadata(file).ok().map(|file| (file.dev(), file.ino())) != ourselves;
        path::is_executable(file) && other()
    })
}

/// Replaces this process by the program. Returns only if that fails.
pub(crate) fn become_it(
    program: &Path,
    args: impl Iterator<Item = OsString>,
    status: &mut Status,
) -> anyhow::Error {
    let mut command = Command::new(program);
    command.arg0(NAME).args(args);
    status.pass_to(&mut command);
    let error = command.exec();
    anyhow::Error::new(error).context(format!("cannot execute {}", program.display()))
}

/// Starts the program, to be killed when we die in whatever way.
pub(crate) fn start(program: &Path, args: &[String], status: &mut Status) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.arg0(NAME).args(args);
    status.pass_to(&mut command);
    // Only this thread exists, so its end is the end of the process.
    sys::command::kill_with_parent(&mut command);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn program(dir: &Path) -> PathBuf {
        let file = dir.join(NAME);
        fs::create_dir_all(dir).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn the_real_proxy_is_searched_in_path_then_in_libexec() {
        let dir = tempfile::tempdir().unwrap();
        let [empty, bin, libexec] = ["empty", "bin", "libexec"].map(|name| dir.path().join(name));
        fs::create_dir(&empty).unwrap();
        let in_libexec = program(&libexec);
        let path = std::env::join_paths([&empty, &bin]).unwrap();
        assert_eq!(find_in(&path, &[&empty, &libexec], None), Some(in_libexec.clone()));
        let in_path = program(&bin);
        assert_eq!(find_in(&path, &[&empty, &libexec], None), Some(in_path.clone()));
        fs::set_permissions(&in_path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find_in(&path, &[&libexec], None), Some(in_libexec.clone()));
        assert_eq!(find_in(OsStr::new(""), &[&empty], None), None);

        let shim = fs::metadata(&in_libexec).unwrap();
        fs::remove_file(&in_path).unwrap();
        symlink(&in_libexec, &in_path).unwrap();
        assert_eq!(find_in(&path, &[&libexec], Some((shim.dev(), shim.ino()))), None);
    }
}
