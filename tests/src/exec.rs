//! Running commands in a box, in the foreground with a limit or in the background.
//!
//! Output goes to unnamed files, not to pipes: a daemon that keeps them open cannot hold up the test.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::TestBox;
use crate::wait::{self, PATIENCE};

/// Who runs a command in a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// root of the box.
    Root,
    /// `tester`, uid 1001, with the environment of a login session.
    User,
    /// root in the network of the machine at the other end of the wire, 10.77.0.2.
    Peer,
}

/// A command to run in a box; made by [`TestBox::user`], [`TestBox::root`], [`TestBox::peer`] and [`TestBox::argv`].
#[derive(Debug, Clone)]
pub struct Cmd<'b> {
    tb: &'b TestBox,
    who: As,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    input: Vec<u8>,
    limit: Duration,
    dir: Option<String>,
}

impl<'b> Cmd<'b> {
    pub(crate) fn new(tb: &'b TestBox, who: As, argv: &[&str]) -> Self {
        let argv = argv.iter().map(|&a| a.to_owned()).collect();
        Self { tb, who, argv, env: Vec::new(), input: Vec::new(), limit: PATIENCE, dir: None }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the command reads from its standard input; nothing by default.
    #[must_use]
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// How long it may run before it is killed and the call fails; [`PATIENCE`] by default.
    #[must_use]
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// The working directory; the home directory by default.
    #[must_use]
    pub fn dir(mut self, dir: &str) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Runs to the end, whatever the exit status.
    ///
    /// # Errors
    /// It cannot be started, or the limit passed (the message holds what it printed until then).
    pub fn run(self) -> Result<Output> {
        let limit = self.limit;
        self.spawn_raw(None)?.wait(limit)
    }

    /// Runs to the end and gives the standard output.
    ///
    /// # Errors
    /// As [`run`](Self::run), or an exit status other than 0.
    pub fn ok(self) -> Result<String> {
        self.run()?.ok()
    }

    /// Runs to the end, expects `code`, and gives everything it printed.
    ///
    /// # Errors
    /// As [`run`](Self::run), or another exit status.
    pub fn fails_with(self, code: i32) -> Result<String> {
        let output = self.run()?;
        ensure!(output.code == code, "expected exit status {code}: {output}");
        Ok(format!("{}{}", output.stdout, output.stderr))
    }

    /// Starts it in the background. It keeps running until it ends by itself, is killed, or the box goes.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(self) -> Result<Running<'b>> {
        let file = format!("/run/box/{}.pid", self.tb.next_number());
        let mut running = self.spawn_raw(Some(&file))?;
        let path = running.tb.path(&file);
        let pid = wait::until("a background command starts", PATIENCE, || {
            if let Some(status) = running.child.try_wait()? {
                bail!("ended at once: {status}: {}", running.output(status)?);
            }
            Ok(std::fs::read_to_string(&path).unwrap_or_default().trim().parse::<i32>().ok())
        })?;
        running.pid = pid;
        Ok(running)
    }

    fn spawn_raw(self, pid_file: Option<&str>) -> Result<Running<'b>> {
        let (home, user, path) = match self.who {
            As::User => ("/home/tester", "tester", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            As::Root | As::Peer => {
                ("/root", "root", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            }
        };
        let mut command = Command::new("sh");
        // A process enters a cgroup by its own number; after that the cgroup namespace of the box shows it as "/".
        command.args(["-c", r#"echo $$ > "$1/cgroup.procs" && shift && exec "$@""#, "sh"]);
        command.arg(self.tb.group_path());
        command.args(["nsenter", "-t", &self.tb.init_pid().to_string(), "-a", "-r"]);
        command.arg(format!("--wdns={}", self.dir.as_deref().unwrap_or(home)));
        command.arg("--");
        match self.who {
            As::User => {
                command.args("setpriv --reuid=1001 --regid=1001 --init-groups env -i".split(' '));
                command.arg("XDG_RUNTIME_DIR=/run/user/1001");
                command.arg("DOCKER_HOST=unix:///run/user/1001/docker.sock");
            }
            As::Root => {
                command.args(["env", "-i"]);
            }
            As::Peer => {
                command.args(["ip", "netns", "exec", "peer", "env", "-i"]);
            }
        }
        command.args(["TERM=dumb", "LC_ALL=C.UTF-8"]);
        command.args([format!("HOME={home}"), format!("USER={user}"), format!("PATH={path}")]);
        command.args(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        if let Some(file) = pid_file {
            command.args(["sh", "-c", r#"echo $$ > "$0" && exec "$@""#, file]);
        } else {
            // Kills what a hanging command leaves inside; the limit on this side only ends nsenter.
            command.args(["timeout", "-s", "KILL", &self.limit.as_secs().to_string()]);
        }
        command.args(&self.argv);

        let stdout = tempfile::tempfile()?;
        let stderr = tempfile::tempfile()?;
        if self.input.is_empty() {
            command.stdin(Stdio::null());
        } else {
            let mut file = tempfile::tempfile()?;
            file.write_all(&self.input)?;
            file.seek(SeekFrom::Start(0))?;
            command.stdin(file);
        }
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let child = command.spawn().with_context(|| format!("starting {:?}", self.argv))?;
        Ok(Running { tb: self.tb, child, argv: self.argv, pid: 0, stdout, stderr })
    }
}

/// What a finished command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub argv: Vec<String>,
    /// Exit status; 128 + signal number if a signal ended it.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
    /// Time from start to end.
    pub took: Duration,
}

impl Output {
    /// The standard output of what ended well.
    ///
    /// # Errors
    /// An exit status other than 0.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == 0, "{self}");
        Ok(self.stdout)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { argv, code, stdout, stderr, took } = self;
        write!(
            f,
            "{argv:?}: exit status {code} after {took:.1?}\n--- stdout\n{stdout}--- stderr\n{stderr}---"
        )
    }
}

/// A command in the background. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Running<'b> {
    tb: &'b TestBox,
    child: Child,
    argv: Vec<String>,
    pid: i32,
    stdout: File,
    stderr: File,
}

impl Running<'_> {
    /// Its pid as the box numbers it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal, named as kill(1) does: `TERM`, `KILL`, `USR1`.
    ///
    /// # Errors
    /// It is gone already.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.tb.signal(self.pid, name)
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it printed so far, standard output then standard error.
    ///
    /// # Errors
    /// The capture files cannot be read.
    pub fn printed(&self) -> Result<String> {
        Ok(format!("{}{}", whole(&self.stdout)?, whole(&self.stderr)?))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `limit` passed: it is killed, and the message holds what it printed.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let started = Instant::now();
        let ended =
            wait::until("", limit + Duration::from_secs(1), || Ok(self.child.try_wait()?));
        let Ok(status) = ended else {
            let printed = self.printed()?;
            bail!("{:?} still runs after {limit:?}; it printed:\n{printed}", self.argv);
        };
        let mut output = self.output(status)?;
        output.took = started.elapsed();
        Ok(output)
    }

    fn output(&self, status: ExitStatus) -> Result<Output> {
        Ok(Output {
            argv: self.argv.clone(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: whole(&self.stdout)?,
            stderr: whole(&self.stderr)?,
            took: Duration::ZERO,
        })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            if self.pid > 0 {
                let _ = self.tb.signal(self.pid, "KILL");
                // nsenter ends after it: then its locks and ports are free for the next one.
                let _ = wait::until("", PATIENCE, || Ok(self.child.try_wait()?));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// All of a capture file, read with pread(2): the position belongs to the writers, who share the file description.
fn whole(file: &File) -> Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = file.read_at(&mut buffer, bytes.len() as u64)?;
        if n == 0 {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
}
