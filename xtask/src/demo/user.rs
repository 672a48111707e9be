//! Whose Docker it is: the invoking user's, or, for root without `sudo`, a throw-away account's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xtask_support::account::{self, Entry};
use xtask_support::{cargo, command, host};

/// An ordinary user and the one folder in which the demo happens.
#[derive(Debug)]
pub(super) struct User {
    name: String,
    uid: u32,
    gid: u32,
    /// Made by the demo, to be removed by it.
    throw_away: bool,
    /// Whether this process is another user (root) and has to change.
    switch: bool,
    folder: tempfile::TempDir,
}

impl User {
    pub(super) fn choose() -> Result<Self> {
        let own = host::euid()?;
        let sudo =
            std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty() && name != "root");
        let (name, throw_away) = match (own, sudo) {
            (0, Some(name)) => (name, false),
            (0, None) => {
                let name = format!("rk-demo-{}", std::process::id());
                account::add(&name)?;
                (name, true)
            }
            (uid, _) => (Entry::of_uid(uid)?.name, false),
        };
        let made = Self::prepare(&name, throw_away, own == 0);
        if made.is_err() && throw_away {
            let _ = account::delete(&name);
        }
        made
    }

    fn prepare(name: &str, throw_away: bool, switch: bool) -> Result<Self> {
        let entry = Entry::of_name(name)?;
        entry.ensure_subids()?;
        let (uid, gid) = (entry.uid, entry.gid);
        // A short path: sockets below it have to fit into 108 bytes.
        let folder = tempfile::Builder::new().prefix("rk-demo-").tempdir_in("/var/tmp")?;
        let this = Self { name: name.to_owned(), uid, gid, throw_away, switch, folder };
        let root = this.folder.path();
        for dir in ["", "home", "run", "bin", "image"] {
            fs::create_dir_all(root.join(dir))?;
            fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o700))?;
            chown(root.join(dir), Some(uid), Some(gid))?;
        }
        let (built, bin) = (cargo::programs(super::PROFILE)?, root.join("bin"));
        for binary in super::BINARIES {
            fs::copy(built.join(binary), bin.join(binary))
                .with_context(|| format!("copying {binary}"))?;
        }
        symlink("dockerd-rootless", bin.join("dockerd-rootless.sh"))?;
        Ok(this)
    }

    pub(super) fn description(&self) -> String {
        let kind = if self.throw_away { ", a throw-away account" } else { "" };
        format!("{} (uid {}{kind})", self.name, self.uid)
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command with the user's ids and a clean environment.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(if self.switch { "setpriv" } else { "env" });
        if self.switch {
            let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.gid));
            command.args([&uid, &gid, "--init-groups", "env"]);
        }
        let run = self.path("run");
        command.args(["-i", "TERM=dumb", &format!("USER={}", self.name)]);
        command.arg(format!("HOME={}", self.path("home").display()));
        command.arg(format!("XDG_RUNTIME_DIR={}", run.display()));
        command.arg(format!("DOCKER_HOST=unix://{}/docker.sock", run.display()));
        let path =
            format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.path("bin").display());
        command.arg(format!("PATH={path}")).arg(program);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Makes sure that the user can open `/dev/net/tun`, without changing the machine.
    pub(super) fn ensure_tun(&self) -> Result<()> {
        let opens = || {
            Ok::<_, anyhow::Error>(
                self.command("sh").args(["-c", ": <>/dev/net/tun"]).output()?.status.success(),
            )
        };
        if opens()? {
            return Ok(());
        }
        ensure!(
            self.switch && Path::new("/dev/net").is_dir(),
            "{} cannot open /dev/net/tun, which every user-space network needs\n\
             hint: sudo modprobe tun; sudo chmod 0666 /dev/net/tun; or run this demo as root",
            self.name
        );
        // This process has a mount namespace of its own.
        command::quietly(
            Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/dev/net"]),
        )?;
        command::quietly(Command::new("mknod").args("-m 666 /dev/net/tun c 10 200".split(' ')))?;
        ensure!(
            opens()?,
            "/dev/net/tun cannot be opened\nhint: does the kernel have the tun driver (modprobe tun)?"
        );
        println!(
            "tun:       ordinary users cannot open /dev/net/tun here; the demo has a node of its own"
        );
        Ok(())
    }

    /// The end of the daemon's log.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.path("dockerd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Removes everything and checks that it is gone.
    pub(super) fn remove(self) -> Result<()> {
        self.end_processes()?;
        let data = self.path("home/.local");
        if data.exists() && !self.switch {
            // Files of containers belong to subordinate ids, which only a user namespace can remove.
            command::quietly(self.command("rootlesskit").args(["rm", "-rf"]).arg(&data))?;
        }
        let path = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("removing {}", path.display()))?;
        if self.throw_away {
            account::delete(&self.name)?;
            for file in ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"] {
                let text = fs::read_to_string(file)?;
                let start = format!("{}:", self.name);
                ensure!(
                    !text.lines().any(|line| line.starts_with(&start)),
                    "{} is still in {file}",
                    self.name
                );
            }
        }
        Ok(())
    }

    /// Waits until no process of the demo is left, and says so if some had to be killed.
    fn end_processes(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        let left = self.processes();
        if left.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = left.iter().map(|(pid, what)| format!("{pid} {what}")).collect();
        for (pid, _) in left {
            let _ = command::quietly(Command::new("kill").args(["-KILL", &pid.to_string()]));
        }
        bail!("processes were left behind and had to be killed: {}", list.join("; "));
    }

    /// Processes that name the demo's folder in their arguments, and all of a throw-away account.
    fn processes(&self) -> Vec<(u32, String)> {
        let folder = self.folder.path().display().to_string();
        let own = std::process::id();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
        pids.filter(|pid| *pid != own)
            .filter_map(|pid| {
                let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let text = String::from_utf8_lossy(&raw).replace('\0', " ");
                let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                let uid = status
                    .lines()
                    .find_map(|line| line.strip_prefix("Uid:"))?
                    .split_whitespace()
                    .next()?
                    .to_owned();
                let is = text.contains(&folder) || self.throw_away && uid == self.uid.to_string();
                is.then(|| (pid, text.trim_end().to_owned()))
            })
            .collect()
    }
}
