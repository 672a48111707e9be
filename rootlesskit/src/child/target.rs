//! Running the target: signals on their way to it, orphans, and its end.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::process::ExitStatus;

use anyhow::Context as _;
use hostenv::{Env, vars};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::unistd::{Pid, getpgid, getpgrp};
use sys::rlimit::Nofile;
use sys::spawn::SpawnConfig;

use crate::execve::{c_string, environ};
use crate::exit::Exited;
use crate::signals::{forwardable, from_terminal};

/// Sockets that systemd passed (sd_listen_fds(3)). They stay open at their numbers whatever `LISTEN_PID`
/// says; the variable is set to the target's pid only if it named the parent.
#[derive(Debug, Default)]
pub(crate) struct Activation {
    fds: Vec<RawFd>,
    meant_for_us: bool,
}

impl Activation {
    /// Takes note of the sockets before anything else opens descriptors. `LISTEN_FDS` may promise more than
    /// was passed; then the handshake's descriptor has one of these numbers, and is not for the target.
    pub(crate) fn claim(env: &Env, handshake: RawFd) -> anyhow::Result<Self> {
        let Some(listen) = hostenv::rootlesskit::listen_fds(env) else {
            return Ok(Self::default());
        };
        let mut fds = sys::inherit::claim_listen_fds(listen.count)?;
        fds.retain(|fd| *fd != handshake);
        Ok(Self { fds, meant_for_us: hostenv::rootlesskit::activation_child_use(env)? })
    }
}

/// Runs the target until it ends. With `reaper` it gets a session of its own.
///
/// # Errors
/// It could not be started, or it did not end with success ([`Exited`]).
pub(crate) fn run(
    command: &[OsString],
    reaper: bool,
    mut env: Env,
    activation: &Activation,
    nofile: Nofile,
    signals: &SignalFd,
) -> anyhow::Result<()> {
    let words = command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let name = command.first().context("no command specified")?;
    let program = env.find_program(name).with_context(|| {
        format!(
            "command [{words}] cannot be run: {name:?} was not found as an executable file in $PATH"
        )
    })?;
    let own_pid = take_over(&mut env, activation)?;
    let plan = SpawnConfig {
        program: c_string(program.as_os_str())?,
        argv: command.iter().map(|w| c_string(w)).collect::<anyhow::Result<_>>()?,
        env: environ(&env)?,
        keep: activation.fds.clone(),
        new_session: reaper,
        reset_signals: true,
        nofile: Some(nofile),
        own_pid,
    };
    let target =
        sys::spawn::program(&plan).with_context(|| format!("command [{words}] cannot be run"))?;
    let own_group = getpgid(Some(target.pid())).is_ok_and(|group| group != getpgrp());
    loop {
        let info = match signals.read_signal() {
            Ok(Some(info)) => info,
            Ok(Option::None) | Err(Errno::EINTR) => continue,
            Err(e) => return Err(e).context("failed to read signals"),
        };
        if info.ssi_signo == Signal::SIGCHLD as u32 {
            if let Some(how) = reap(target.pid())? {
                return Exited::check(format!("command [{words}]"), how);
            }
        } else if let Some(signal) = for_target(&info, own_group) {
            // It may have ended; the SIGCHLD that says so is on its way.
            if let Err(e) = target.send(signal) {
                tracing::debug!("failed to forward signal {signal}: {e}");
            }
        }
    }
}

/// The variables of a service manager that are to name the target, since they named the parent. Gone is
/// `LISTEN_PIDFDID`, which named the parent another way: who reads it does without, and `LISTEN_PID` is written by the
/// target's process itself, so nobody else can have that number. The others mean what they say: `NOTIFY_SOCKET`,
/// `LISTEN_FDNAMES` and `WATCHDOG_USEC` are for whoever takes the part, `MANAGERPID` and `MANAGERPIDFDID` name the manager,
/// and `SYSTEMD_EXEC_PID` names the process that it executed, which the target is not.
fn take_over(env: &mut Env, activation: &Activation) -> anyhow::Result<Vec<CString>> {
    let mut names = Vec::new();
    if activation.meant_for_us && !activation.fds.is_empty() {
        env.remove(vars::LISTEN_PID);
        env.remove(vars::LISTEN_PIDFDID);
        names.push(vars::LISTEN_PID);
    }
    // The parent has removed its own number.
    if env.get(vars::WATCHDOG_USEC).is_some() && env.get(vars::WATCHDOG_PID).is_none() {
        names.push(vars::WATCHDOG_PID);
    }
    names.into_iter().map(|name| c_string(name.as_ref())).collect()
}

/// The signal to pass on. What the terminal sends goes to its whole foreground group: a target in our group
/// has it already.
fn for_target(info: &siginfo, own_group: bool) -> Option<i32> {
    let signal = forwardable(info)?;
    (own_group || !from_terminal(info)).then_some(signal)
}

/// Collects everybody who has ended: as pid 1 we inherit orphans. The target's end is the result.
fn reap(target: Pid) -> anyhow::Result<Option<ExitStatus>> {
    while let Some((pid, how)) = sys::wait::any().context("failed to wait for the target")? {
        if pid == target {
            return Ok(Some(how));
        }
    }
    Ok(Option::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_named_the_parent_names_the_target() {
        let all = [
            (vars::LISTEN_PID, "7"),
            (vars::LISTEN_PIDFDID, "4711"),
            (vars::LISTEN_FDS, "1"),
            (vars::LISTEN_FDNAMES, "docker.socket"),
            (vars::WATCHDOG_USEC, "1000000"),
            ("SYSTEMD_EXEC_PID", "7"),
        ];
        let given: Env = all.into_iter().collect();
        let names = |env: &Env| env.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
        for (fds, meant_for_us) in [(vec![3], true), (vec![3], false), (vec![], true)] {
            let ours = meant_for_us && !fds.is_empty();
            let mut env = given.clone();
            let own = take_over(&mut env, &Activation { fds, meant_for_us }).unwrap();
            let own: Vec<_> = own.iter().map(|name| name.to_str().unwrap()).collect();
            if ours {
                assert_eq!(own, [vars::LISTEN_PID, vars::WATCHDOG_PID]);
                let left = ["LISTEN_FDNAMES", "LISTEN_FDS", "SYSTEMD_EXEC_PID", "WATCHDOG_USEC"];
                assert_eq!(names(&env), left);
            } else {
                assert_eq!(own, [vars::WATCHDOG_PID]);
                assert_eq!(names(&env), names(&given));
            }
        }
        // Somebody else is to feed the watchdog.
        let mut env = given.clone();
        env.set(vars::WATCHDOG_PID, "8");
        assert!(take_over(&mut env, &Activation::default()).unwrap().is_empty());
        assert_eq!(env.get(vars::WATCHDOG_PID).unwrap(), "8");
    }
}
