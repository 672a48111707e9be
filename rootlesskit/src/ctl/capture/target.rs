//! The namespaces of a running rootlesskit, and the way into them.
//!
//! Whoever owns a user namespace may join it and has all capabilities there (user_namespaces(7)). So nothing of
//! rootlesskit has to help: its state directory says where the namespaces are. The mount namespace is not joined,
//! because files are those of the caller.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hostenv::file::is_same;
use hostenv::state_dir;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use nix::unistd::Pid;
use sys::pidfd::PidFd;

/// A rootlesskit to look into.
#[derive(Debug)]
pub(super) struct Target {
    /// Its child, whose end is that of the namespaces.
    child: PidFd,
    user: File,
    net: File,
}

/// Finds the rootlesskit whose API is at `socket`.
pub(super) fn find(socket: &Path) -> anyhow::Result<Target> {
    let foreign = |path: &Path, error: &io::Error| {
        anyhow::anyhow!(
            "cannot read {}: {error}\nhint: run rootlessctl as the user who started RootlessKit",
            path.display()
        )
    };
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let dir = match fs::canonicalize(socket) {
        Ok(socket) => socket.parent().unwrap_or(Path::new("/")).to_owned(),
        Err(error) if refused(&error) => return Err(foreign(socket, &error)),
        Err(error) => bail!(
            "no RootlessKit API socket at {}: {error}\n\
             hint: check that RootlessKit is running with that --state-dir",
            socket.display()
        ),
    };
    let proc = Path::new("/proc");
    let Some(child) = state_dir::child(&dir, proc) else {
        let file = dir.join("child_pid");
        let text = match hostenv::file::text(&file) {
            Err(error) if refused(&error) => return Err(foreign(&file, &error)),
            text => text.unwrap_or_default(),
        };
        // Whoever owns the directory may have written anything.
        let Ok(pid) = text.trim().parse::<u32>() else { return Err(gone(&dir)) };
        let environ = proc.join(pid.to_string()).join("environ");
        return Err(match File::open(&environ) {
            Err(error) if refused(&error) => foreign(&environ, &error),
            _ => gone(&dir),
        });
    };
    let namespaces = proc.join(child.pid.to_string()).join("ns");
    // A detached network namespace is mounted there, in the child's mount namespace only.
    // Behind a link could be the namespace of somebody else; those of /proc are links that the kernel makes.
    let by_kernel = OFlag::empty();
    let (net, follow) = if dir.join("netns").exists() {
        let inside = dir.strip_prefix("/").unwrap_or(&dir);
        let root = proc.join(child.pid.to_string()).join("root");
        (root.join(inside).join("netns"), OFlag::O_NOFOLLOW)
    } else {
        (namespaces.join("net"), by_kernel)
    };
    let open = |path: PathBuf, follow| match namespace(&path, follow) {
        Ok(file) => Ok(file),
        Err(error) if refused(&error) => Err(foreign(&path, &error)),
        Err(error) => Err(anyhow::anyhow!("cannot read {}: {error}", path.display())),
    };
    let pid = Pid::from_raw(i32::try_from(child.pid).context("the child's PID")?);
    let watched = PidFd::open(pid).with_context(|| format!("cannot watch process {pid}"))?;
    let user = open(namespaces.join("user"), by_kernel)?;
    let target = Target { child: watched, user, net: open(net, follow)? };
    // What was opened by number is of the child that is watched only if it still is the child.
    match state_dir::child(&dir, proc) {
        Some(still) if still.pid == child.pid => Ok(target),
        _ => Err(gone(&dir)),
    }
}

/// Opens a namespace, and nothing else: whoever owns the path can put a device or a FIFO there.
fn namespace(path: &Path, follow: OFlag) -> io::Result<File> {
    let flags = (OFlag::O_PATH | follow).bits();
    let place = File::options().read(true).custom_flags(flags).open(path)?;
    if fstatfs(&place)?.filesystem_type() != NSFS_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a namespace"));
    }
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

fn gone(dir: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "RootlessKit is not running: it has no child in {}\nhint: start the daemon",
        dir.display()
    )
}

impl Target {
    /// Its child. The namespaces are closed: nobody is to join them any more.
    pub(super) fn into_child(self) -> PidFd {
        self.child
    }

    /// Moves this process, which must have one thread only, into both namespaces. There is no way back.
    pub(super) fn join(&self) -> anyhow::Result<()> {
        if is_same(&self.net, fs::metadata("/proc/self/ns/net")) {
            bail!(
                "RootlessKit uses the host's network (--net=host)\n\
                 hint: to capture packets of the host, run tcpdump as root"
            );
        }
        // The kernel does not let a process join the user namespace that it is in.
        if !is_same(&self.user, fs::metadata("/proc/self/ns/user")) {
            setns(&self.user, CloneFlags::CLONE_NEWUSER).map_err(io::Error::from).with_context(
                || format!("cannot join the user namespace of process {}", self.child.pid()),
            )?;
        }
        setns(&self.net, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).with_context(|| {
            format!("cannot join the network namespace of process {}", self.child.pid())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(socket: &Path) -> String {
        format!("{:#}", find(socket).unwrap_err())
    }

    #[test]
    fn a_rootlesskit_that_does_not_run_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let text = error(&socket);
        assert!(
            text.contains("no RootlessKit API socket at /") && text.contains("hint: "),
            "{text}"
        );
        // What a crash leaves: a socket without a server, the PID of nobody or of somebody else.
        File::create(&socket).unwrap();
        let nobody =
            format!("RootlessKit is not running: it has no child in {}", dir.path().display());
        for pid in [
            None,
            Some("4194304".to_owned()),
            Some(std::process::id().to_string()),
            Some("x".into()),
        ] {
            if let Some(pid) = &pid {
                fs::write(dir.path().join("child_pid"), pid).unwrap();
            }
            let text = error(&socket);
            assert!(text.contains(&nobody) && text.contains("hint: "), "{pid:?}: {text}");
        }
    }
}
