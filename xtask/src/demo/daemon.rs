//! The daemon of the demo and its client.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xtask_support::{command, host};

use super::go_on;
use super::user::User;

/// A running rootless dockerd; [`stop`](Self::stop) ends it, dropping kills it.
#[derive(Debug)]
pub(super) struct Daemon<'u> {
    user: &'u User,
    launcher: Child,
}

impl<'u> Daemon<'u> {
    /// Starts it and waits until it answers.
    pub(super) fn start(user: &'u User) -> Result<Self> {
        let log = fs::File::create(user.path("dockerd.log"))?;
        let started = Instant::now();
        let launcher = user
            .command("dockerd-rootless.sh")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting dockerd-rootless.sh")?;
        let mut daemon = Self { user, launcher };
        let up = wait("dockerd answers", Duration::from_secs(60), || {
            if let Some(status) = daemon.launcher.try_wait()? {
                bail!("dockerd-rootless.sh ended: {status}");
            }
            let asked = user.path("run/docker.sock").exists() && daemon.docker("version").is_ok();
            Ok(asked.then_some(()))
        });
        up.with_context(|| format!("the daemon's log ends with:\n{}", user.log_tail()))?;
        println!(
            "started:   dockerd-rootless.sh, answering after {:.1} s",
            started.elapsed().as_secs_f64()
        );
        Ok(daemon)
    }

    /// Runs `docker ARGS` (no argument holds a space).
    pub(super) fn docker(&self, args: &str) -> Result<String> {
        go_on()?;
        command::quietly(self.user.command("docker").args(args.split(' ')))
    }

    pub(super) fn docker_with_input(&self, args: &str, input: &str) -> Result<String> {
        go_on()?;
        let mut child = self
            .user
            .command("docker")
            .args(args.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("docker's input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "docker {args}: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Who the daemon is on this machine, from `/proc`.
    pub(super) fn identity(&self) -> Result<String> {
        let pid = fs::read_to_string(self.user.path("run/docker.pid"))?.trim().to_owned();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let uid = uid.split_whitespace().next().unwrap_or_default();
        ensure!(uid == self.user.uid().to_string(), "dockerd runs as uid {uid}");
        Ok(format!("pid {pid} on this machine, running as uid {uid}"))
    }

    /// What rootlesskit says about itself.
    pub(super) fn rootlesskit(&self) -> Result<String> {
        let socket = self.user.path("run/dockerd-rootless/api.sock");
        let text = command::quietly(
            self.user.command("rootlessctl").arg("--socket").arg(socket).arg("info"),
        )?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
            line.map(|value| value.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
        };
        let (version, net) = (value("- Implementation version"), value("- Network Driver"));
        Ok(format!("rootlesskit {version}, network {net}, ports {}", value("- Port Driver")))
    }

    /// Makes an image of the machine's static busybox and a page, and imports it as `demo`.
    pub(super) fn import_image(&self) -> Result<()> {
        let tree = self.user.path("image");
        for dir in ["bin", "www", "etc", "tmp"] {
            fs::create_dir_all(tree.join(dir))?;
        }
        let busybox = host::find("busybox").context("busybox is gone")?;
        fs::copy(busybox, tree.join("bin/busybox"))?;
        for applet in ["sh", "httpd", "nc"] {
            symlink("busybox", tree.join("bin").join(applet))?;
        }
        fs::write(tree.join("www/index.html"), "hello from a container of an ordinary user\n")?;
        let archive = self.user.path("image.tar");
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "--numeric-owner", "--mode=a+rX", "-C"])
            .arg(&tree)
            .arg("-cf")
            .arg(&archive)
            .arg(".");
        command::quietly(&mut tar)?;
        let mut import = self.user.command("docker");
        command::quietly(import.args(["import", "-", "demo"]).stdin(fs::File::open(&archive)?))?;
        Ok(())
    }

    /// Stops it as a service manager does, and expects a clean end.
    pub(super) fn stop(mut self) -> Result<()> {
        let status = self.end(Duration::from_secs(30))?;
        ensure!(status.success(), "the daemon did not stop cleanly: {status}");
        println!("stopped:   {status}");
        Ok(())
    }

    fn end(&mut self, limit: Duration) -> Result<ExitStatus> {
        command::quietly(Command::new("kill").args(["-TERM", &self.launcher.id().to_string()]))?;
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.launcher.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < end, "the daemon does not stop within {} s", limit.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if matches!(self.launcher.try_wait(), Ok(None)) {
            let _ = self.end(Duration::from_secs(15));
            let _ = self.launcher.kill();
            let _ = self.launcher.wait();
        }
    }
}

/// Calls `probe` until it gives a value.
pub(super) fn wait<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        go_on()?;
        if let Some(value) = probe()? {
            return Ok(value);
        }
        ensure!(Instant::now() < end, "{what}: not within {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
