//! `supervise`: a small supervisor in the foreground, for hosts that have no better one.
//!
//! # Theory of operation
//! One process, one poll(2): signals, the news that a child ended among them, arrive through a signalfd, and what the
//! daemon prints through a pipe. The daemon is started again after a pause that doubles while it ends soon and begins
//! anew once it has stayed. SIGTERM and SIGINT stop the daemon and then the supervisor; SIGHUP is the daemon's (it reads
//! daemon.json again). If the supervisor is killed the kernel kills rootlesskit, and that the daemon.
//!
//! A daemon that crashes leaves the shims of its containers behind, and the next one then takes a container for running
//! that it has just started a second time. systemd ends them with the unit's control group (`KillMode=mixed`); here the
//! supervisor is their reaper (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so they become its children, and it kills what is
//! left when the daemon has ended. `supervise once` does that alone: it is what the services of runit and s6 run, which
//! have their own ways to start again and to log.

use std::io::{self, IsTerminal as _, PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use sys::pidfd::PidFd;

use super::log::{self, Log};
use super::pidfile::{self, PidFile};
use super::{Files, orphans};
use crate::run::{self, Failed};
use crate::ui::Ui;
use doctor::place::World;

/// How long the daemon may take to stop its containers; then it is killed.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(120);
/// The pause before the second start; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A daemon that ran so long was well.
const STAYED: Duration = Duration::from_secs(60);

/// Runs until it is told to stop, or with `once` until the daemon ends.
pub(crate) fn run(ui: &mut Ui, world: &World, once: bool) -> Result<(), Failed> {
    if world.uid == 0 {
        return Err(Failed::new(
            "refusing to supervise as root: run this as the user who runs the daemon",
        ));
    }
    let files = Files::of(world).ok_or_else(|| Failed::new("HOME is not set"))?;
    let script = files.script();
    if !script.is_file() {
        return Err(Failed::new(format!(
            "{} does not exist\nhint: run dockerd-rootless-setuptool.sh install --supervise=plain",
            script.display()
        )));
    }
    let made = std::fs::create_dir_all(&files.state).and_then(|()| PidFile::take(&files.pid()));
    let mut pid_file = made.map_err(|error| match pidfile::holder(&files.pid()) {
        Some(holder) => {
            Failed::new(format!("a supervisor is already running (pid {})", holder.pid))
        }
        None => Failed::new(format!("cannot lock {}: {error}", files.pid().display())),
    })?;
    let log = if once {
        None
    } else {
        if !io::stdin().is_terminal() {
            // Away from the terminal of whoever started it. A leader of a group already is.
            let _ = nix::unistd::setsid();
        }
        let path = files.log();
        let log = Log::open(&path, log::MAX).map_err(run::cannot("write", &path))?;
        ui.info(&format!("Supervising the daemon; log: {}", path.display()));
        Some(log)
    };
    let mut supervisor = Supervisor::new(log).map_err(|error| system(&error))?;
    let mut command = Command::new(&script);
    command.env_clear().envs(world.env.without_service().iter()).stdin(Stdio::null());
    sys::command::kill_with_parent(sys::command::with_own_signals(&mut command));
    if once {
        pid_file.note(1).map_err(|error| system(&error))?;
        return match supervisor.daemon(&mut command).map_err(|error| system(&error))? {
            End::Asked => Ok(()),
            End::Alone(how, code) => Err(Failed { text: format!("the daemon {how}"), code }),
        };
    }
    supervisor.keep(&mut command, &mut pid_file).map_err(|error| system(&error))
}

fn system(error: &io::Error) -> Failed {
    Failed::new(format!("cannot supervise: {error}"))
}

enum End {
    Asked,
    /// By itself, in these words and with this status.
    Alone(String, u8),
}

struct Supervisor {
    signals: SignalFd,
    /// Without one the daemon prints where we do.
    log: Option<Log>,
}

impl Supervisor {
    fn new(log: Option<Log>) -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block()?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&set, flags)?, log })
    }

    /// Runs the daemon again and again, until we are told to stop.
    fn keep(&mut self, command: &mut Command, pid_file: &mut PidFile) -> io::Result<()> {
        let (mut pause, mut starts) = (FIRST_PAUSE, 0);
        loop {
            starts += 1;
            pid_file.note(starts)?;
            let begun = Instant::now();
            let End::Alone(how, _) = self.daemon(command)? else { return Ok(()) };
            let ran = begun.elapsed();
            if ran >= STAYED {
                (pause, starts) = (FIRST_PAUSE, 0);
            }
            let (ran, rest) = (ran.as_secs(), pause.as_secs());
            self.say(&format!("the daemon {how} after {ran} s; restarting it in {rest} s"));
            if self.rest(pause)? {
                return Ok(());
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn say(&mut self, text: &str) {
        match &mut self.log {
            Some(log) => log.say(text),
            None => eprintln!("[supervise] {text}"),
        }
    }

    /// Runs the daemon once, and ends what it leaves.
    fn daemon(&mut self, command: &mut Command) -> io::Result<End> {
        let mut output = None;
        if self.log.is_some() {
            let (reader, writer) = io::pipe()?;
            fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            command.stdout(writer.try_clone()?).stderr(writer);
            output = Some(reader);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ok(End::Alone(format!("cannot be started: {error}"), 126)),
        };
        if self.log.is_some() {
            // The writing ends have to be the daemon's alone.
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let watched = self.watch(&child, output.as_mut());
        if watched.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let left = orphans::end()?;
        if left > 0 {
            self.say(&format!("killed {left} processes that the daemon left behind"));
        }
        watched
    }

    fn watch(&mut self, child: &Child, mut output: Option<&mut PipeReader>) -> io::Result<End> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let process = PidFd::open(pid)?;
        let mut stopping: Option<Instant> = None;
        loop {
            let left = stopping.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(output.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            retry(|| poll(&mut fds, left.map_or(PollTimeout::NONE, timeout)))?;
            let mut ended = None;
            while let Some(signal) = self.signals.read_signal()? {
                match Signal::try_from(i32::try_from(signal.ssi_signo).unwrap_or_default()) {
                    // One signal may stand for several ends, of orphans too.
                    Ok(Signal::SIGCHLD) => ended = ended.or(collect(pid)?),
                    Ok(Signal::SIGHUP) => process.send(Signal::SIGHUP as i32)?,
                    _ if stopping.is_none() => {
                        process.send(Signal::SIGTERM as i32)?;
                        stopping = Some(Instant::now() + STOP_LIMIT);
                    }
                    _ => {}
                }
                if ended.is_some() {
                    break;
                }
            }
            let open = output.as_mut().is_none_or(|pipe| self.drain(pipe));
            if !open {
                output = None;
            }
            if let Some(status) = ended {
                let (how, code) = words(status);
                return Ok(if stopping.is_some() { End::Asked } else { End::Alone(how, code) });
            }
            if stopping.is_some_and(|deadline| Instant::now() >= deadline) {
                self.say("the daemon did not stop in time; killing it");
                process.kill()?;
                stopping = Some(Instant::now() + STOP_LIMIT);
            }
        }
    }

    /// Moves what is there into the log; false at the end of the stream.
    fn drain(&mut self, output: &mut PipeReader) -> bool {
        let mut buffer = [0; 8192];
        loop {
            match output.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    if let Some(log) = &mut self.log {
                        log.write(&buffer[..length]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn rest(&mut self, pause: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + pause;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            retry(|| poll(&mut fds, timeout(left)))?;
            while let Some(signal) = self.signals.read_signal()? {
                let signal = i32::try_from(signal.ssi_signo).unwrap_or_default();
                if [Signal::SIGTERM as i32, Signal::SIGINT as i32].contains(&signal) {
                    return Ok(true);
                }
            }
        }
    }
}

/// Collects every child that has ended; the status of this one if it is among them.
fn collect(pid: Pid) -> io::Result<Option<ExitStatus>> {
    let mut found = None;
    while let Some((ended, status)) = sys::wait::any()? {
        if ended == pid {
            found = Some(status);
        }
    }
    Ok(found)
}

/// Rounded up, or the last millisecond would be spent spinning.
fn timeout(left: Duration) -> PollTimeout {
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn words(status: ExitStatus) -> (String, u8) {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    (how, crate::run::code_of(status))
}
