//! Containers of a daemon that was killed.
//!
//! They end with dockerd's cgroup if a service manager looks after it. Without one a killed dockerd leaves its
//! `containerd-shim` processes behind, each with its container, in network namespaces that nothing leads to any more. The
//! next dockerd cannot adopt them: it runs in other namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::unistd::getuid;

use crate::report::Note;

/// A warning that names such processes, if there are any. `exec_root` is dockerd's directory for its runtime state, which
/// they have on their command line. To be called while no daemon uses it.
pub(crate) fn note(proc: &Path, exec_root: &Path) -> Option<Note> {
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
        if number("Uid:") == Some(getuid().as_raw()) && is_shim(&command, exec_root) {
            shims.push(pid);
        }
    }
    shims.sort_unstable();
    let mut all = shims.clone();
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let more = children.get(pid).into_iter().flatten().filter(|pid| !shims.contains(pid));
        all.extend(more.copied().collect::<Vec<_>>());
        at += 1;
    }
    let list = |pids: &[u32]| pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    (!shims.is_empty()).then(|| {
        Note::warn(format!(
            "containers of a dockerd that was killed still run without a network (containerd-shim {}), and the new one \
             cannot take them over. hint: end them: kill -KILL {}",
            list(&shims),
            list(&all)
        ))
    })
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

    fn process(proc: &Path, pid: u32, parent: u32, command: &str) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let uid = getuid();
        fs::write(dir.join("status"), format!("Name:\tx\nPPid:\t{parent}\nUid:\t{uid}\t0\n"))
            .unwrap();
        fs::write(dir.join("cmdline"), command.replace(' ', "\0")).unwrap();
    }

    #[test]
    fn shims_of_a_killed_daemon_are_named_with_their_containers() {
        let proc = tempfile::tempdir().unwrap();
        let at = proc.path();
        let shim = "/usr/bin/containerd-shim-runc-v2 -namespace moby -id x -address \
                    /run/user/1000/docker/containerd/containerd.sock";
        process(at, 70, 1, shim);
        process(at, 80, 70, "/pause");
        process(at, 81, 80, "sleep 1000");
        process(
            at,
            90,
            1,
            "/usr/bin/containerd-shim-runc-v2 -address /run/containerd/containerd.sock",
        );
        process(at, 91, 1, "less /run/user/1000/docker/containerd/containerd.toml");
        fs::create_dir(at.join("self")).unwrap();
        let exec_root = Path::new("/run/user/1000/docker");
        let text = note(at, exec_root).unwrap().text;
        assert!(text.contains("(containerd-shim 70)"), "{text}");
        assert!(text.ends_with("kill -KILL 70 80 81"), "{text}");
        assert_eq!(note(at, Path::new("/run/user/1001/docker")), None);
        assert_eq!(note(Path::new("/nonexistent"), exec_root), None);
    }
}
