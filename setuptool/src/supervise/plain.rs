//! Our own supervisor, in the background: starting and stopping it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use sys::pidfd::PidFd;

use super::daemon::STOP_LIMIT;
use super::{Begun, Files, Job, pidfile};
use crate::run::Failed;
use crate::ui::Ui;
use hostenv::shellwords::quoted;

/// It only takes a lock.
const START_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// It kills the daemon at the end of its own limit.
const MARGIN: Duration = Duration::from_secs(15);

pub(super) fn start(ui: &mut Ui, job: &Job<'_>) -> Result<Begun, Failed> {
    let pid_file = job.files.pid();
    let program = job.world.own_program();
    let shown = quoted(&program);
    if let Some(holder) = pidfile::holder(&pid_file) {
        ui.info(&format!("The supervisor is already running (pid {})", holder.pid));
    } else {
        let pid = spawn(job, &program, &pid_file)?;
        ui.info(&format!("Started the supervisor (pid {pid})"));
    }
    let pid = quoted(pid_file);
    let words = vec![
        format!(
            "To stop it, run: `kill $(head -n 1 {pid})`; to start it, run: `setsid {shown} supervise`"
        ),
        format!("Log: {}", job.files.log().display()),
        format!("To start it at boot, add this line with `crontab -e`: @reboot {shown} supervise"),
    ];
    Ok(Begun::Started { words, kept: false })
}

fn spawn(job: &Job<'_>, program: &Path, pid_file: &Path) -> Result<i32, Failed> {
    let failed = |why: &dyn std::fmt::Display| {
        Failed::new(format!("the supervisor {} did not start: {why}", program.display()))
    };
    let mut command = Command::new(program);
    command.arg("supervise").env_clear().envs(job.world.env.iter()).current_dir("/");
    // Its own words go to its log.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Some(holder) = pidfile::holder(pid_file) {
            return Ok(holder.pid);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failed(&status));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(&format!("it was not ready within {} s", START_LIMIT.as_secs())));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Stops the supervisor, and with it the daemon; that there is none is fine.
pub(super) fn stop(ui: &mut Ui, files: &Files) -> Result<(), Failed> {
    let path = files.pid();
    let Some(holder) = pidfile::holder(&path) else { return Ok(()) };
    let failed = |why: &dyn std::fmt::Display| {
        Failed::new(format!("cannot stop the supervisor (pid {}): {why}", holder.pid))
    };
    let process = PidFd::open(Pid::from_raw(holder.pid)).map_err(|error| failed(&error))?;
    // The descriptor is that of the holder if that still holds the file.
    if pidfile::holder(&path).map(|now| now.pid) != Some(holder.pid) {
        return Ok(());
    }
    ui.info(&format!("Stopping the supervisor (pid {})", holder.pid));
    process.send(nix::libc::SIGTERM).map_err(|error| failed(&error))?;
    let limit = STOP_LIMIT + MARGIN;
    match process.wait_ended(limit) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(&format!("it is still running after {} s", limit.as_secs()))),
        Err(error) => Err(failed(&error)),
    }
}
