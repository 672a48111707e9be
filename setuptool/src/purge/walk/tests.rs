use super::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn delete(dir: &Path, guard: Option<Guard>, name: &str) -> Failures {
    let mut root = Root::open(dir).unwrap();
    root.guard = guard.unwrap_or(root.guard);
    let mut failures = Failures::default();
    root.delete(OsStr::new(name), &mut failures);
    failures
}

/// Both ways to tell mounts apart.
fn guards(dir: &Path) -> [Option<Guard>; 2] {
    let root = Root::open(dir).unwrap();
    [None, Some(Guard::Number(mount_number(root.fd.as_fd()).unwrap()))]
}

#[test]
fn everything_below_goes_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, elsewhere) = (dir.path().canonicalize().unwrap(), tempfile::tempdir().unwrap());
    fs::write(elsewhere.path().join("precious"), "1").unwrap();
    for guard in guards(&dir) {
        let data = dir.join("data");
        fs::create_dir_all(data.join("a/b/c")).unwrap();
        fs::create_dir_all(data.join("empty")).unwrap();
        for file in ["x", "a/x", "a/b/c/x"] {
            fs::write(data.join(file), "1").unwrap();
        }
        symlink(elsewhere.path(), data.join("a/link")).unwrap();
        symlink("/nowhere", data.join("dangling")).unwrap();
        nix::unistd::mkfifo(&data.join("fifo"), Mode::S_IRWXU).unwrap();
        let failures = delete(&dir, guard, "data");
        assert!(!failures.any() && failures.told.is_empty() && !data.exists());
    }
    assert!(elsewhere.path().join("precious").exists());
    assert!(!delete(&dir, None, "missing").any());
}

#[test]
fn a_link_in_the_path_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    fs::create_dir_all(dir.join("real/data")).unwrap();
    symlink(dir.join("real"), dir.join("link")).unwrap();
    assert_eq!(Root::open(&dir.join("link")).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(Root::open(&dir.join("link/data")).unwrap_err(), Errno::ELOOP);
}

#[test]
fn neither_depth_nor_closed_directories_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    // Far beyond PATH_MAX and the usual limit of open files.
    let mut at = open(&dir, DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..3000 {
        nix::sys::stat::mkdirat(&at, c"deep", Mode::S_IRWXU).unwrap();
        at = openat(&at, c"deep", DIRECTORY, Mode::empty()).unwrap();
    }
    fs::create_dir_all(dir.join("closed/inner")).unwrap();
    fs::write(dir.join("closed/inner/x"), "1").unwrap();
    for (name, mode) in [("closed/inner", 0o555), ("closed", 0o000)] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["deep", "closed"] {
        assert_eq!(delete(&dir, None, name).told, [""; 0]);
        assert!(!dir.join(name).exists());
    }
}

#[test]
fn another_mount_is_not_entered_whatever_tells_them_apart() {
    // /proc is one, and nobody could delete it.
    let root = Root::open(Path::new("/")).unwrap();
    let number = Guard::Number(mount_number(root.fd.as_fd()).unwrap());
    for guard in [Guard::Kernel, number] {
        assert_eq!(guard.down(root.fd.as_fd(), c"proc").unwrap_err(), Errno::EXDEV);
        assert!(guard.down(root.fd.as_fd(), c"etc").is_ok());
    }
}

#[test]
fn a_mount_that_comes_after_every_look_is_not_entered() {
    use nix::mount::{MsFlags, mount};
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    let none = None::<&str>;
    // Of this thread, with which they end.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("this test needs root");
    mount(none, "/", none, private, none).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    fs::create_dir(dir.join("nas")).unwrap();
    fs::write(dir.join("nas/precious"), "1").unwrap();
    fs::create_dir_all(dir.join("data/a/mnt")).unwrap();
    fs::write(dir.join("data/a/x"), "1").unwrap();
    let guards = guards(&dir);
    // The same file system, so that no device number tells.
    let bind = MsFlags::MS_BIND;
    mount(Some(&dir.join("nas")), &dir.join("data/a/mnt"), none, bind, none).unwrap();
    for guard in guards {
        let failures = delete(&dir, guard, "data");
        assert_eq!(failures.count, 1, "{:?}", failures.told);
        assert!(failures.told[0].contains("a/mnt: a file system is mounted there"));
        assert!(dir.join("nas/precious").exists() && !dir.join("data/a/x").exists());
    }
    nix::mount::umount(&dir.join("data/a/mnt")).unwrap();
    assert!(!delete(&dir, None, "data").any());
}

#[test]
fn failures_are_counted_and_the_first_are_told() {
    let mut failures = Failures::default();
    for number in 0..TOLD + 3 {
        failures.add(Path::new(&format!("/x/{number}")), Errno::EXDEV);
    }
    assert_eq!((failures.told.len(), failures.more(), failures.any()), (TOLD, 3, true));
    assert!(failures.told[0].starts_with("cannot delete /x/0: a file system is mounted there"));
}
