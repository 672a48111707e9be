//! Whether the daemon's data is in use. Every sign counts, since each of them fails somewhere: a daemon that is started
//! by hand has another state directory, one in another pid namespace no process that could be seen, one that is just
//! starting no socket.

use std::fs;
use std::path::{Path, PathBuf};

use hostenv::socket::connect;
use hostenv::state_dir::{Occupant, while_ending};
use nix::sys::socket::{getsockopt, sockopt};

use super::processes::{self, Process, Search};
use super::settings::Settings;
use doctor::place::World;
use hostenv::shellwords::quoted;

/// Databases that dockerd, its containerd and its BuildKit lock with flock(2) as long as they run (bbolt does).
const DATABASES: &str = "volumes/metadata.db network/files/local-kv.db \
    containerd/daemon/io.containerd.metadata.v1.bolt/meta.db buildkit/containerdmeta.db buildkit/cache.db \
    buildkit/history.db buildkit/snapshots.db";

/// So many processes are named.
const NAMED: usize = 8;

/// Something that shows that the data is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sign {
    pid: Option<u32>,
    text: String,
    /// See [`Process::apart`].
    apart: bool,
}

/// How a refusal begins if nothing has been deleted.
pub(super) const KEPT: &str = "the daemon's data is in use, so it was kept:";

/// How it begins after some of it has been.
pub(super) const CAME_UP: &str =
    "a program started to use the data while it was being deleted, so the rest was kept:";

/// Why the data in these directories (canonical paths) must not be deleted now, with this beginning; `None` if nobody
/// uses it. Rootlesskit runs in the state directories whose lock somebody keeps ([`super::locks::take`]).
pub(super) fn refusal(
    world: &World,
    settings: &Settings,
    kept: &[PathBuf],
    dirs: &[PathBuf],
    head: &str,
) -> Option<String> {
    let mut signs = Vec::new();
    while_ending(|| {
        signs = seen(world, settings, kept, dirs);
        // Whom nobody sees may hold a lock, or was killed and is about to lose it.
        let unseen = signs.is_empty();
        if unseen {
            signs = locked_databases(dirs);
        }
        unseen && !signs.is_empty()
    });
    (!signs.is_empty()).then(|| message(&world.at("proc"), &signs, head))
}

fn seen(world: &World, settings: &Settings, kept: &[PathBuf], dirs: &[PathBuf]) -> Vec<Sign> {
    let proc = world.at("proc");
    let mut signs = Vec::new();
    pid_files(&proc, settings, &mut signs);
    state_directories(&proc, settings, kept, &mut signs);
    if let Some(runtime) = world.runtime_dir() {
        signs.extend(socket(&proc, &runtime.join("docker.sock")));
    }
    match Search::new(&proc, dirs) {
        Ok(search) => signs.extend(search.processes().into_iter().map(of_process)),
        Err(error) => signs.push(Sign {
            pid: None,
            text: format!(
                "/proc/self/mountinfo cannot be read ({error}), so this tool cannot tell which programs use the data"
            ),
            apart: false,
        }),
    }
    signs
}

fn locked_databases(dirs: &[PathBuf]) -> Vec<Sign> {
    dirs.iter()
        .flat_map(|dir| DATABASES.split(' ').map(|name| dir.join(name)))
        .filter(|file| is_locked(file))
        .map(|file| Sign {
            pid: None,
            text: format!("{} is locked by a running daemon", file.display()),
            apart: true,
        })
        .collect()
}

fn of_process(process: Process) -> Sign {
    let Process { pid, command, why, apart } = process;
    Sign { pid: Some(pid), text: format!("{command} (pid {pid}) {why}"), apart }
}

/// A pid in a file may be somebody else's by now, so it has to look like a daemon.
fn pid_files(proc: &Path, settings: &Settings, signs: &mut Vec<Sign>) {
    for file in settings.pid_files.iter().filter(|file| file.is_file()) {
        let pid = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| is_daemon(proc, *pid)) else { continue };
        let command = processes::command(proc, pid);
        let text = format!("{command} (pid {pid}) is named in {}", file.display());
        signs.push(Sign { pid: Some(pid), text, apart: false });
    }
}

fn is_daemon(proc: &Path, pid: u32) -> bool {
    let environ = || fs::read(proc.join(pid.to_string()).join("environ")).unwrap_or_default();
    let of_rootlesskit = || {
        environ().split(|byte| *byte == 0).any(|entry| entry.starts_with(b"ROOTLESSKIT_STATE_DIR="))
    };
    let command = processes::command(proc, pid);
    ["dockerd", "containerd"].iter().any(|name| command.starts_with(name)) || of_rootlesskit()
}

fn state_directories(proc: &Path, settings: &Settings, kept: &[PathBuf], signs: &mut Vec<Sign>) {
    let occupants = settings.state_dirs.iter().map(|dir| (dir, Occupant::of(dir, proc)));
    for (dir, occupant) in
        occupants.filter(|(dir, occupant)| occupant.is_running() || kept.contains(dir))
    {
        let text = format!("rootlesskit{} is running in {}", occupant.pid_text(), dir.display());
        signs.push(Sign { pid: occupant.pid(), text, apart: false });
    }
}

/// Somebody who listens where the daemon does. A listener that `/proc/net/unix` shows is not connected to: it may be
/// systemd, which would start the daemon then. That of a daemon in a network namespace of its own is not shown.
fn socket(proc: &Path, path: &Path) -> Option<Sign> {
    // A link is nobody's socket, but a way to another one.
    path.symlink_metadata().ok().filter(|meta| !meta.is_symlink())?;
    let pid = match listener(proc, path) {
        Some(inode) => processes::holders(proc, &inode).first().copied(),
        None => {
            let stream = connect(path).ok()?;
            let peer = getsockopt(&stream, sockopt::PeerCredentials).ok();
            // 0 is somebody in another pid namespace.
            peer.and_then(|peer| u32::try_from(peer.pid()).ok()).filter(|pid| *pid > 0)
        }
    };
    let who = pid.map(|pid| format!("{} (pid {pid})", processes::command(proc, pid)));
    let text = format!("{} listens on {}", who.as_deref().unwrap_or("a program"), path.display());
    Some(Sign { pid, text, apart: false })
}

/// The inode of a socket that listens at the path (proc_net_unix(5)).
fn listener(proc: &Path, path: &Path) -> Option<String> {
    /// `__SO_ACCEPTCON` in the flags.
    const LISTENS: &str = "00010000";
    let text = fs::read_to_string(proc.join("net/unix")).ok()?;
    let path = path.to_str()?;
    text.lines().find_map(|line| {
        // The inode is padded with blanks; the path may have some.
        let (head, name) = line.split_once(" /")?;
        let mut fields = head.split_whitespace();
        let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
        (flags == LISTENS && path.strip_prefix('/') == Some(name)).then(|| inode.to_owned())
    })
}

/// Whether somebody holds an flock(2) on a database. A link is nobody's.
fn is_locked(path: &Path) -> bool {
    !path.is_symlink() && hostenv::state_dir::is_locked(path)
}

fn message(proc: &Path, signs: &[Sign], head: &str) -> String {
    let mut lines = vec![head.to_owned()];
    let mut seen = Vec::new();
    let mut more = 0;
    for sign in signs {
        if sign.pid.is_some_and(|pid| seen.contains(&pid)) {
            continue;
        }
        seen.extend(sign.pid);
        if lines.len() > NAMED {
            more += 1;
        } else {
            lines.push(format!("  {}", sign.text));
        }
    }
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    let stop = remedies(proc, signs);
    if stop.is_empty() {
        lines.push("hint: stop the programs above, then run this again".to_owned());
    } else {
        lines.push("hint: stop the programs above, then run this again:".to_owned());
        lines.extend(stop.iter().map(|command| format!("  {command}")));
    }
    lines.join("\n")
}

/// The commands that end those who use the data. A daemon is stopped by its service or by its rootlesskit, and takes all
/// its processes with it. Shims and containers that have outlived their daemon heed no other signal than SIGKILL.
fn remedies(proc: &Path, signs: &[Sign]) -> Vec<String> {
    let (mut commands, mut orphans, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |command: String| {
        if !commands.contains(&command) {
            commands.push(command);
        }
    };
    let mut pids: Vec<(u32, bool)> =
        signs.iter().filter_map(|sign| Some((sign.pid?, sign.apart))).collect();
    pids.sort_unstable();
    pids.dedup_by_key(|(pid, _)| *pid);
    let mut daemon = false;
    for (pid, apart) in pids {
        if let Some(kit) = processes::rootlesskit_of(proc, pid) {
            daemon = true;
            add(match processes::service_of(proc, kit) {
                // Started in the terminal of a program that is a service, it is in that one's group.
                Some(service) if service.contains("docker") => {
                    format!("systemctl --user stop {}", quoted(service))
                }
                _ => format!("kill {kit}"),
            });
        } else if processes::command(proc, pid) == "systemd" {
            daemon = true;
            add("systemctl --user stop docker.socket docker.service".to_owned());
        } else if apart {
            orphans.push(pid.to_string());
        } else {
            others.push(pid.to_string());
        }
    }
    if !daemon && !orphans.is_empty() {
        add(format!("kill -KILL {}", orphans.join(" ")));
    }
    if !others.is_empty() {
        add(format!("kill {}", others.join(" ")));
    }
    commands
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;

    use nix::fcntl::{Flock, FlockArg};

    use super::*;
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

    #[test]
    fn a_listener_is_found_by_its_path() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("net")).unwrap();
        fs::write(
            proc.path().join("net/unix"),
            "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000: 00000002 00000000 00010000 0001 01  1234 /run/user/7/docker.sock\n\
             0000: 00000003 00000000 00000000 0001 03 77 /run/user/7/other.sock\n\
             0000: 00000002 00000000 00010000 0001 01 555555 /run/user/7/a b.sock\n",
        )
        .unwrap();
        let of = |path: &str| listener(proc.path(), Path::new(path));
        assert_eq!(of("/run/user/7/docker.sock"), Some("1234".to_owned()));
        assert_eq!(of("/run/user/7/a b.sock"), Some("555555".to_owned()));
        assert_eq!(of("/run/user/7/other.sock"), None);
    }

    #[test]
    fn somebody_whose_backlog_is_full_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        assert!(connect(&path).is_err());
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert!(connect(&path).is_err());
        socket::listen(&listener, socket::Backlog::new(0).unwrap()).unwrap();
        // One connection fits; a blocking one would wait for ever after it.
        let held: Vec<_> = (0..4).map(|_| connect(&path).unwrap()).collect();
        // No /proc/net/unix there: whoever listens is asked.
        let sign = super::socket(dir.path(), &path).unwrap();
        assert!(sign.text.contains("listens on"), "{sign:?}");
        drop((held, listener));
        assert!(super::socket(dir.path(), &path).is_none());
    }

    /// The lock of a rootlesskit that keeps it may be free a moment later, but then it is not ours.
    #[test]
    fn a_lock_that_could_not_be_had_is_a_sign_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { state_dirs: vec![dir.path().into()], ..Settings::default() };
        let signs = |kept: &[PathBuf]| {
            let mut signs = Vec::new();
            state_directories(dir.path(), &settings, kept, &mut signs);
            signs
        };
        assert_eq!(signs(&[]), []);
        let found = signs(&settings.state_dirs);
        assert!(matches!(&found[..], [sign] if sign.text.contains("is running in")), "{found:?}");
    }

    #[test]
    fn a_database_of_a_killed_daemon_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("volumes")).unwrap();
        let lock = || {
            let file = File::create(dir.path().join("volumes/metadata.db")).unwrap();
            Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap()
        };
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), "").unwrap();
        let env = hostenv::Env::default();
        let world = World { root: root.path().to_owned(), env, uid: 7, own_dir: None };
        let refusal =
            || super::refusal(&world, &Settings::default(), &[], &[dir.path().to_owned()], KEPT);
        let held = lock();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        assert_eq!(refusal(), None);
        ends.join().unwrap();
        let _held = lock();
        assert!(refusal().unwrap().contains("is locked by a running daemon"));
    }

    #[test]
    fn a_locked_database_is_a_sign_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.db");
        assert!(!is_locked(&path));
        let file = File::create(&path).unwrap();
        assert!(!is_locked(&path));
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        assert!(is_locked(&path));
        drop(held);
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!is_locked(&fifo));
    }

    #[test]
    fn a_pid_that_somebody_else_has_now_is_no_sign_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (pid, comm, environ) in [
            ("7", "firefox", "A=1\0"),
            ("8", "dockerd", ""),
            ("9", "my-daemon", "ROOTLESSKIT_STATE_DIR=/x\0"),
        ] {
            fs::create_dir(at(pid)).unwrap();
            fs::write(at(pid).join("comm"), comm).unwrap();
            fs::write(at(pid).join("environ"), environ).unwrap();
        }
        let signs = |text: &str| {
            fs::write(at("docker.pid"), text).unwrap();
            let settings = Settings { pid_files: vec![at("docker.pid")], ..Settings::default() };
            let mut signs = Vec::new();
            pid_files(dir.path(), &settings, &mut signs);
            signs.into_iter().filter_map(|sign| sign.pid).collect::<Vec<_>>()
        };
        assert_eq!(
            (signs("7"), signs("8\n"), signs("9"), signs("10"), signs("x")),
            (vec![], vec![8], vec![9], vec![], vec![])
        );
    }

    #[test]
    fn what_is_in_use_is_named_with_the_command_that_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid: u32, comm: &str, parent: u32| {
            let path = dir.path().join(pid.to_string());
            fs::create_dir(&path).unwrap();
            fs::write(path.join("comm"), comm).unwrap();
            fs::write(path.join("status"), format!("PPid:\t{parent}\n")).unwrap();
        };
        process(10, "rootlesskit", 1);
        process(11, "dockerd", 10);
        process(20, "containerd-shim", 1);
        process(21, "sh", 20);
        process(30, "vi", 1);
        let sign = |pid, apart| Sign { pid: Some(pid), text: format!("p{pid}"), apart };
        let all = [sign(11, true), sign(20, true), sign(30, false), sign(11, true)];
        assert_eq!(remedies(dir.path(), &all), ["kill 10", "kill 30"]);
        let left = [sign(21, true), sign(20, true)];
        assert_eq!(remedies(dir.path(), &left), ["kill -KILL 20 21"]);
        let text = message(dir.path(), &all, KEPT);
        assert_eq!(text.matches("p11").count(), 1, "{text}");
        fs::write(
            dir.path().join("10/cgroup"),
            "0::/user.slice/user-7.slice/user@7.service/app.slice/my-docker.service\n",
        )
        .unwrap();
        assert_eq!(remedies(dir.path(), &all)[0], "systemctl --user stop my-docker.service");
    }
}
