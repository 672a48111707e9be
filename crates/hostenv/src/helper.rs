//! External programs with a time limit and captured output.
//!
//! [`Helper::start`] returns at once, so several helpers can run side by side; [`Helper::finish`] collects one. The wait
//! needs no thread: it polls both pipes and a pidfd, so a grandchild that keeps a pipe open delays nothing. A helper that
//! is dropped or runs out of time is killed and reaped.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use sys::pidfd::PidFd;

use crate::Env;

/// More output than this (bytes for each stream) is read and thrown away.
const MAX_OUTPUT: usize = 1 << 20;

/// More of a stream than this, in characters, is not quoted in a message.
const MAX_QUOTED: usize = 2000;

/// The first `max` characters of a text, marked if that is not all of it.
pub fn excerpt(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A running program.
#[derive(Debug)]
pub struct Helper {
    command_line: String,
    child: Child,
    pidfd: PidFd,
    stdout: Stream,
    stderr: Stream,
    deadline: Instant,
    limit: Duration,
    reaped: bool,
}

/// What a program that ended by itself left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// A program that could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The program did not start. Like the others it begins with the program and its arguments.
    #[error("cannot run `{0}`")]
    Start(String, #[source] io::Error),
    /// The program started, but waiting for it failed.
    #[error("cannot wait for `{0}`")]
    Wait(String, #[source] io::Error),
    /// The program was killed because its time was up.
    #[error("`{0}` was killed: it did not exit within {limit} s", limit = .1.as_secs_f32())]
    TimedOut(String, Duration),
}

impl Helper {
    /// Starts `program` (a path, see [`Env::find_program`]) with exactly the variables of `env` and no input. It has
    /// `limit` from now.
    ///
    /// # Errors
    /// The program cannot be executed, or we are out of descriptors.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        args: &[A],
        env: &Env,
        limit: Duration,
    ) -> Result<Self, HelperError> {
        let command_line = command_line(program.as_os_str(), args);
        let deadline = Instant::now() + limit;
        let reaped = false;
        match spawn(program, args, env) {
            Ok((child, pidfd, stdout, stderr)) => {
                Ok(Self { command_line, child, pidfd, stdout, stderr, deadline, limit, reaped })
            }
            Err(source) => Err(HelperError::Start(command_line, source)),
        }
    }

    /// Program and arguments, for messages.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    /// The time is up (the program has been killed), or a system call failed.
    pub fn finish(self) -> Result<Output, HelperError> {
        self.finish_unless(&[])
    }

    /// Waits for the end of the program, but no longer than until one of `interrupts` is readable, for
    /// instance a signalfd(2).
    ///
    /// # Errors
    /// The time is up or the wait was interrupted (the program has been killed), or a system call failed.
    pub fn finish_unless(mut self, interrupts: &[BorrowedFd<'_>]) -> Result<Output, HelperError> {
        let status = self.run_to_end(interrupts);
        let command_line = std::mem::take(&mut self.command_line);
        let status = status.map_err(|source| HelperError::Wait(command_line.clone(), source))?;
        let Some(status) = status else {
            return Err(HelperError::TimedOut(command_line, self.limit));
        };
        let [stdout, stderr] =
            [&mut self.stdout, &mut self.stderr].map(|stream| std::mem::take(&mut stream.data));
        Ok(Output { status, stdout, stderr })
    }

    fn run_to_end(&mut self, interrupts: &[BorrowedFd<'_>]) -> io::Result<Option<ExitStatus>> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let ended = self.wait_for_news(left, interrupts)?;
            self.stdout.drain()?;
            self.stderr.drain()?;
            if ended {
                let status = self.child.wait()?;
                self.reaped = true;
                return Ok(Some(status));
            }
        }
    }

    /// True once the program has ended.
    fn wait_for_news(&self, left: Duration, interrupts: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(interrupts.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
        for pipe in [&self.stdout.pipe, &self.stderr.pipe].into_iter().flatten() {
            fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        }
        // Rounded up, or the last millisecond would be spent spinning.
        let millis =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, millis) {
            Ok(_) => {
                let ready = |at: usize| fds[at].any().unwrap_or(true);
                if !ready(0) && (1..=interrupts.len()).any(ready) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Ok(ready(0))
            }
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.reaped {
            // Both can only fail if the process is gone already, and then there is nothing left to do.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Output {
    /// All of both streams, to look something up in it.
    pub fn all(&self) -> String {
        [&self.stdout, &self.stderr].map(|stream| String::from_utf8_lossy(stream)).join("\n")
    }

    /// Both streams as one trimmed text, for messages; of a stream that goes on and on, only the beginning.
    pub fn text(&self) -> String {
        [&self.stdout, &self.stderr]
            .map(|stream| excerpt(String::from_utf8_lossy(stream).trim(), MAX_QUOTED))
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The reading end of a pipe and what came out of it.
#[derive(Debug)]
struct Stream {
    /// `None` after the end of the stream.
    pipe: Option<PipeReader>,
    data: Vec<u8>,
}

impl Stream {
    fn open() -> io::Result<(Stream, Stdio)> {
        let (pipe, writer) = io::pipe()?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Stream { pipe: Some(pipe), data: Vec::new() }, writer.into()))
    }

    /// Reads what is there without waiting.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    let room = MAX_OUTPUT.saturating_sub(self.data.len());
                    self.data.extend_from_slice(&buffer[..n.min(room)]);
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn spawn<A: AsRef<OsStr>>(
    program: &Path,
    args: &[A],
    env: &Env,
) -> io::Result<(Child, PidFd, Stream, Stream)> {
    let (stdout, child_stdout) = Stream::open()?;
    let (stderr, child_stderr) = Stream::open()?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env.iter());
    command.stdin(Stdio::null()).stdout(child_stdout).stderr(child_stderr);
    // Should we be killed, a helper that hangs must not stay.
    let mut child = sys::command::kill_with_parent(&mut command).spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    match PidFd::open(Pid::from_raw(pid)) {
        Ok(pidfd) => Ok((child, pidfd, stdout, stderr)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// A program and its arguments as one line for messages.
fn command_line<A: AsRef<OsStr>>(program: &OsStr, args: &[A]) -> String {
    let mut line = OsString::from(program);
    for arg in args {
        line.push(" ");
        line.push(arg);
    }
    line.to_string_lossy().into_owned()
}

/// Finds `name` in `$PATH` of `env`, runs it and waits for it.
///
/// # Errors
/// `Ok(None)`: there is no such program. Otherwise as [`Helper::start`] and [`Helper::finish`].
pub fn run<A: AsRef<OsStr>>(
    name: &str,
    args: &[A],
    env: &Env,
    limit: Duration,
) -> Result<Option<Output>, HelperError> {
    env.find_program(name)
        .map(|program| Helper::start(&program, args, env, limit)?.finish())
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::os::unix::process::ExitStatusExt as _;

    /// What takes longer than this hangs.
    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, env: &Env, limit: Duration) -> Helper {
        Helper::start(Path::new("/bin/sh"), &["-c", script], env, limit).unwrap()
    }

    #[test]
    fn captures_both_streams_and_the_status() {
        let _lock = testing::lock();
        let env: Env = [("ONLY", "this"), ("PATH", "/usr/bin:/bin")].into_iter().collect();
        let output = sh("echo $ONLY $HOME; echo bad >&2; exit 3", &env, LONG).finish().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"this\n");
        assert_eq!(output.stderr, b"bad\n");
        assert_eq!(output.text(), "this\nbad");
    }

    #[test]
    fn more_than_a_pipe_of_output_does_not_block() {
        let _lock = testing::lock();
        let output = sh("head -c 3000000 /dev/zero", &Env::current(), LONG).finish().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout.len(), MAX_OUTPUT);
    }

    #[test]
    fn messages_quote_the_beginning() {
        let _lock = testing::lock();
        let output = sh("yes ä | head -c 100000; echo end >&2", &Env::current(), LONG).finish();
        let output = output.unwrap();
        assert!(output.all().ends_with("\nend\n") && output.all().len() > 100_000);
        let text = output.text();
        assert_eq!(text.chars().count(), MAX_QUOTED + "…\nend".chars().count());
        assert!(text.ends_with("…\nend"), "{text}");
        assert_eq!((excerpt("abc", 3), excerpt("abc", 2)), ("abc".to_owned(), "ab…".to_owned()));
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_delays_nothing() {
        let _lock = testing::lock();
        let start = Instant::now();
        let script = format!("sleep {} & echo done", 2 * LONG.as_secs());
        let output = sh(&script, &Env::current(), LONG).finish().unwrap();
        assert_eq!(output.text(), "done");
        assert!(start.elapsed() < LONG);
    }

    #[test]
    fn the_limit_kills() {
        let _lock = testing::lock();
        let helper = sh("exec sleep 60", &Env::current(), Duration::from_millis(200));
        let pid = helper.pidfd.pid();
        let error = helper.finish().unwrap_err();
        assert!(matches!(error, HelperError::TimedOut { .. }));
        assert!(error.to_string().contains("sleep 60"), "{error}");
        assert_eq!(nix::sys::signal::kill(pid, None), Err(Errno::ESRCH));
    }

    #[test]
    fn a_dropped_helper_is_killed_and_reaped() {
        let _lock = testing::lock();
        let helper = sh("exec sleep 60", &Env::current(), LONG);
        let pid = helper.pidfd.pid();
        drop(helper);
        assert_eq!(nix::sys::signal::kill(pid, None), Err(Errno::ESRCH));
    }

    #[test]
    fn death_by_signal_is_a_status() {
        let _lock = testing::lock();
        let output = sh("kill -9 $$", &Env::current(), LONG).finish().unwrap();
        assert_eq!(output.status.signal(), Some(9));
    }

    #[test]
    fn a_missing_program_is_named() {
        let _lock = testing::lock();
        let error = Helper::start(Path::new("/nonexistent/tool"), &["-x"], &Env::default(), LONG)
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot run `/nonexistent/tool -x`");
        assert!(run("tool", &["x"], &Env::default(), LONG).unwrap().is_none());
    }
}
