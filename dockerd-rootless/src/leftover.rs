//! Containers of a daemon that was killed.
//!
//! They end with dockerd's cgroup if a service manager looks after it. Without one a killed dockerd leaves its
//! `containerd-shim` processes behind, each with its container, in network namespaces that nothing leads to any more. The
//! next dockerd cannot adopt them: the shims' sockets were in the file systems that rootlesskit made. It kills those that run
//! as root, gives up on the others, which it may not kill from its own user namespace, and cannot start these again
//! ("container with given ID already exists"). So the launcher ends all of them first.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hostenv::socket::connect;
use nix::errno::Errno;
use nix::unistd::getuid;

use crate::report::Note;

/// Ends such processes with `end`, if there are any, and tells. `exec_root` is dockerd's directory for its runtime state,
/// which they have on their command line. Nothing happens while somebody uses it.
pub(crate) fn clean_up(
    proc: &Path,
    exec_root: &Path,
    end: impl Fn(&[u32]) -> Result<(), String>,
) -> Option<Note> {
    if in_use(exec_root) {
        return None;
    }
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut shims = Vec::new();
    for entry in fs::read_dir(proc).ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let number = |field: &str| -> Option<u32> {
            let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        if let Some(parent) = number("PPid:") {
            children.entry(parent).or_default().push(pid);
        }
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if number("Uid:") == Some(getuid().as_raw())
            && is_shim(&command, exec_root)
            && same_directory(exec_root, &entry.path().join("root"))
        {
            shims.push(pid);
        }
    }
    shims.sort_unstable();
    let list = |pids: &[u32]| pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let names = list(&shims);
    let (mut failures, mut commands) = (Vec::new(), Vec::new());
    for tree in trees(proc, &shims, &children) {
        let Err(why) = end(&tree) else { continue };
        let (shim, all) = (tree.first().copied().unwrap_or_default(), list(&tree));
        failures.push(why);
        commands
            .push(format!("nsenter -U --preserve-credentials -t {shim} sh -c 'kill -KILL {all}'"));
    }
    (!shims.is_empty()).then(|| {
        Note::warn(if failures.is_empty() {
            format!(
                "a killed dockerd left containers behind (containerd-shim {names}); killed them, because they had no network \
                 and no other dockerd could take them over"
            )
        } else {
            format!(
                "cannot kill the containers that a killed dockerd left behind (containerd-shim {names}): {}. They have no \
                 network, and the new dockerd can neither take them over nor restart them. hint: stop the new dockerd, run: \
                 {}; then start dockerd again",
                failures.join("; "),
                commands.join("; ")
            )
        })
    })
}

/// Whether a containerd below `exec_root` answers, or may be there.
fn in_use(exec_root: &Path) -> bool {
    let answer = connect(&exec_root.join("containerd/containerd.sock"));
    !matches!(answer, Err(Errno::ENOENT | Errno::ECONNREFUSED))
}

/// Whether the directory is the same one for a process with this root directory, `/proc/PID/root`. A daemon in a container
/// whose user has the same id may have one of the same name.
fn same_directory(exec_root: &Path, root: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let ours = id(exec_root);
    let inside = exec_root.strip_prefix("/").unwrap_or(exec_root);
    ours.is_some() && id(&root.join(inside)) == ours
}

/// The shims of each user namespace with all their descendants, a shim first. Processes of other ids than the user's can be
/// killed from inside their namespace only.
fn trees(proc: &Path, shims: &[u32], children: &BTreeMap<u32, Vec<u32>>) -> Vec<Vec<u32>> {
    let mut trees: BTreeMap<Option<PathBuf>, Vec<u32>> = BTreeMap::new();
    for pid in shims {
        let namespace = fs::read_link(proc.join(pid.to_string()).join("ns/user")).ok();
        trees.entry(namespace).or_default().push(*pid);
    }
    for tree in trees.values_mut() {
        let mut at = 0;
        while let Some(pid) = tree.get(at) {
            let more = children.get(pid).into_iter().flatten().filter(|pid| !shims.contains(pid));
            tree.extend(more.copied().collect::<Vec<_>>());
            at += 1;
        }
    }
    trees.into_values().collect()
}

/// Whether this is the command line of a shim of the containerd that dockerd keeps below `exec_root`.
fn is_shim(command: &[u8], exec_root: &Path) -> bool {
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    name.starts_with("containerd-shim")
        && words.any(|word| Path::new(&*word).starts_with(exec_root.join("containerd")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn process(proc: &Path, pid: u32, parent: u32, command: &str) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let uid = getuid();
        fs::write(dir.join("status"), format!("Name:\tx\nPPid:\t{parent}\nUid:\t{uid}\t0\n"))
            .unwrap();
        fs::write(dir.join("cmdline"), command.replace(' ', "\0")).unwrap();
        symlink("/", dir.join("root")).unwrap();
    }

    /// A `/proc` and dockerd's directory, and what a shim has on its command line.
    fn place() -> (tempfile::TempDir, PathBuf, PathBuf, String) {
        let dir = tempfile::tempdir().unwrap();
        let (proc, exec_root) = (dir.path().join("proc"), dir.path().join("docker"));
        fs::create_dir_all(exec_root.join("containerd")).unwrap();
        let shim = format!(
            "/usr/bin/containerd-shim-runc-v2 -namespace moby -id x -address {}",
            exec_root.join("containerd/containerd.sock").display()
        );
        (dir, proc, exec_root, shim)
    }

    #[test]
    fn shims_of_a_killed_daemon_are_named_with_their_containers() {
        let (dir, proc, exec_root, shim) = place();
        let (at, exec_root) = (proc.as_path(), exec_root.as_path());
        process(at, 70, 1, &shim);
        process(at, 80, 70, "/pause");
        process(at, 81, 80, "sleep 1000");
        process(
            at,
            90,
            1,
            "/usr/bin/containerd-shim-runc-v2 -address /run/containerd/containerd.sock",
        );
        process(at, 91, 1, &format!("less {}/containerd/containerd.toml", exec_root.display()));
        fs::create_dir(at.join("self")).unwrap();
        let text = clean_up(at, exec_root, |pids| {
            assert_eq!(pids, [70, 80, 81]);
            Ok(())
        })
        .unwrap()
        .text;
        assert!(text.contains("; killed them") && text.contains("(containerd-shim 70)"), "{text}");
        let text = clean_up(at, exec_root, |_| Err("process 70: EPERM".to_owned())).unwrap().text;
        assert!(text.contains("(containerd-shim 70): process 70: EPERM"), "{text}");
        let hint = "run: nsenter -U --preserve-credentials -t 70 sh -c 'kill -KILL 70 80 81'; then start dockerd again";
        assert!(text.ends_with(hint), "{text}");
        let never = |_: &[u32]| panic!("nothing is to be ended");
        let another = dir.path().join("another");
        fs::create_dir(&another).unwrap();
        assert_eq!(clean_up(at, &another, never), None);
        assert_eq!(clean_up(Path::new("/nonexistent"), exec_root, never), None);
    }

    #[test]
    fn shims_of_several_killed_daemons_are_ended_from_inside_each_namespace() {
        let (_dir, at, exec_root, shim) = place();
        for (pid, namespace) in [(70, "user:[1]"), (75, "user:[2]"), (78, "user:[1]")] {
            process(&at, pid, 1, &shim);
            fs::create_dir(at.join(format!("{pid}/ns"))).unwrap();
            symlink(namespace, at.join(format!("{pid}/ns/user"))).unwrap();
        }
        process(&at, 80, 75, "/pause");
        let text = clean_up(&at, &exec_root, |_| Err(String::new())).unwrap().text;
        assert!(text.contains("(containerd-shim 70 75 78)"), "{text}");
        let hint = "-t 70 sh -c 'kill -KILL 70 78'; nsenter -U --preserve-credentials -t 75 sh -c 'kill -KILL 75 80'; ";
        assert!(text.contains(hint), "{text}");
    }

    #[test]
    fn containers_of_a_containerd_that_answers_are_left_alone() {
        let (_dir, proc, exec_root, shim) = place();
        process(&proc, 70, 1, &shim);
        let socket = exec_root.join("containerd/containerd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(clean_up(&proc, &exec_root, |_| panic!("it is in use")), None);
        drop(listener);
        assert!(clean_up(&proc, &exec_root, |_| Ok(())).is_some());
    }

    #[test]
    fn containers_of_a_daemon_in_a_container_are_left_alone() {
        let (dir, proc, exec_root, shim) = place();
        process(&proc, 70, 1, &shim);
        // Its directory of that name is another one.
        let root = dir.path().join("image");
        let inside = root.join(exec_root.strip_prefix("/").unwrap());
        fs::create_dir_all(&inside).unwrap();
        fs::remove_file(proc.join("70/root")).unwrap();
        symlink(&root, proc.join("70/root")).unwrap();
        assert_eq!(clean_up(&proc, &exec_root, |_| panic!("it is somebody else's")), None);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(clean_up(&proc, &exec_root, |_| panic!("it is out of sight")), None);
    }
}
