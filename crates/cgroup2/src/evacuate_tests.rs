//! Tests of evacuation, in a directory that looks like a host's `/proc` and cgroup2, and with the real one.

use proptest::prelude::*;

use super::*;

/// `proc` and `cgroup` below one directory; process 7 is in group `/user/me`.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.proc().join("7")).unwrap();
        fs::create_dir_all(host.group()).unwrap();
        let point = host.dir.path().join("cgroup");
        let line = format!("30 22 0:26 / {} rw - cgroup2 cgroup2 rw\n", point.display());
        fs::write(host.proc().join("7/mountinfo"), line).unwrap();
        fs::write(host.proc().join("7/cgroup"), "0::/user/me\n").unwrap();
        fs::write(host.group().join("cgroup.procs"), "7\n0\n\n8\n").unwrap();
        fs::write(host.group().join("cgroup.controllers"), "memory pids\n").unwrap();
        fs::write(host.group().join("cgroup.subtree_control"), "").unwrap();
        host
    }

    fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    fn group(&self) -> PathBuf {
        self.dir.path().join("cgroup/user/me")
    }

    /// The kernel makes this file together with the directory; here somebody has to.
    fn with_evac(self) -> Host {
        fs::create_dir(self.group().join("evac")).unwrap();
        fs::write(self.group().join("evac/cgroup.procs"), "").unwrap();
        self
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.group().join(file)).unwrap()
    }
}

#[test]
fn moves_every_process_and_enables_every_controller() {
    let host = Host::new().with_evac();
    let report = evacuate(&host.proc(), 7, "evac").unwrap();
    assert_eq!(report.moved, [7, 8]);
    assert_eq!(report.enabled, ["memory", "pids"]);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(report.group, Some(host.group().join("evac")));
    assert_eq!(host.read("evac/cgroup.procs"), "7\n8\n");
    assert_eq!(host.read("cgroup.subtree_control"), "+memory\n+pids\n");
}

#[test]
fn a_new_group_has_mode_0755() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::new();
    evacuate(&host.proc(), 7, "evac").unwrap();
    let mode = fs::metadata(host.group().join("evac")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7755, 0o755);
}

#[test]
fn what_cannot_be_moved_or_enabled_is_a_warning_that_names_it() {
    let host = Host::new();
    fs::remove_file(host.group().join("cgroup.subtree_control")).unwrap();
    let report = evacuate(&host.proc(), 7, "evac").unwrap();
    assert!(report.moved.is_empty() && report.enabled.is_empty());
    assert_eq!(report.warnings.len(), 4);
    for (warning, part) in report.warnings.iter().zip(["process 7", "process 8", "memory", "pids"])
    {
        assert!(warning.contains(part), "{warning}");
    }
    fs::remove_file(host.group().join("cgroup.controllers")).unwrap();
    let report = evacuate(&host.proc(), 7, "evac").unwrap();
    assert!(report.warnings[2].contains("cgroup.controllers"), "{:?}", report.warnings);
}

#[test]
fn names_are_one_path_component() {
    let host = Host::new();
    for name in ["", "a/b", "/", ".", "..", "a\0"] {
        let error = evacuate(&host.proc(), 7, name).unwrap_err();
        assert!(matches!(error, EvacuationError::BadName(_)), "{name:?}: {error}");
    }
    assert!(check_name("evac").is_ok());
}

#[test]
fn hosts_without_cgroup2_are_only_warned() {
    let host = Host::new();
    let only_a_warning = || {
        let report = evacuate(&host.proc(), 7, "evac").unwrap();
        assert_eq!((report.group, report.moved.len(), report.warnings.len()), (None, 0, 1));
        assert!(report.warnings[0].contains("cgroup2 is not mounted"));
    };
    fs::write(host.proc().join("7/cgroup"), "5:memory:/x\n").unwrap();
    only_a_warning();
    fs::write(host.proc().join("7/mountinfo"), "").unwrap();
    only_a_warning();
}

#[test]
fn groups_that_are_out_of_reach_are_errors_with_a_remedy() {
    let host = Host::new();
    fs::write(host.proc().join("7/cgroup"), "0::/../outside\n").unwrap();
    let error = evacuate(&host.proc(), 7, "evac").unwrap_err().to_string();
    assert!(error.contains("/../outside") && error.contains("hint: "), "{error}");
    fs::write(host.proc().join("7/cgroup"), "0::/missing\n").unwrap();
    let error = evacuate(&host.proc(), 7, "evac").unwrap_err().to_string();
    assert!(error.contains("missing/evac") && error.contains("hint: "), "{error}");
    assert!(matches!(evacuate(&host.proc(), 8, "evac"), Err(EvacuationError::Read { .. })));
}

/// A group of the machine's own cgroup2 that is removed again.
struct RealGroup(PathBuf);

impl Drop for RealGroup {
    fn drop(&mut self) {
        for dir in [self.0.join("evac"), self.0.clone()] {
            // A dead process leaves its group a moment later.
            for _ in 0..1000 {
                match fs::remove_dir(&dir) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Needs root and a cgroup2 mount that can be written; without them it fails and says so.
#[test]
fn a_real_process_moves() {
    let mount = mounts::mountpoint(&fs::read("/proc/self/mountinfo").unwrap()).unwrap();
    let group = RealGroup(mount.point.join(format!("evacuation-test-{}", std::process::id())));
    fs::create_dir(&group.0).expect("this test needs root and a cgroup2 mount");
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let moved = write(&group.0.join("cgroup.procs"), &child.id().to_string());
    let report = evacuate(Path::new("/proc"), child.id(), "evac");
    let now = group::group_of(Path::new("/proc"), child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    moved.unwrap();
    let report = report.unwrap();
    assert_eq!(report.moved, [child.id()]);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert!(now.unwrap().unwrap().ends_with("evac"));
}

proptest! {
    #[test]
    fn no_process_list_makes_it_panic(procs: String, controllers: String, name: String) {
        let host = Host::new().with_evac();
        fs::write(host.group().join("cgroup.procs"), procs).unwrap();
        fs::write(host.group().join("cgroup.controllers"), controllers).unwrap();
        let _ = evacuate(&host.proc(), 7, "evac");
        let _ = check_name(&name);
    }
}
