//! Collecting child processes that have ended (waitpid(2)).
//!
//! nix's `waitpid` does not serve here: for a process that a real-time signal ended it answers `EINVAL`, and
//! by then the process has been collected and its status is lost.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::unistd::Pid;

/// Collects a child process that has ended, whichever it is. `None` while there is none.
///
/// # Errors
/// Those of waitpid(2), except that having no children at all is `None` too.
pub fn any() -> io::Result<Option<(Pid, ExitStatus)>> {
    any_with(0)
}

/// As [`any`], but only children that this thread has started or inherited (`__WNOTHREAD`). Orphans are given to the main
/// thread of pid 1.
///
/// # Errors
/// Those of [`any`].
pub fn any_of_this_thread() -> io::Result<Option<(Pid, ExitStatus)>> {
    any_with(libc::__WNOTHREAD)
}

fn any_with(flags: libc::c_int) -> io::Result<Option<(Pid, ExitStatus)>> {
    match wait(-1, libc::WNOHANG | flags) {
        Ok((0, _)) => Ok(None),
        Ok((pid, status)) => Ok(Some((Pid::from_raw(pid), status))),
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Waits for the end of one child process and collects it.
///
/// # Errors
/// `ECHILD` if it is no child of ours or was collected already.
pub fn one(pid: Pid) -> io::Result<ExitStatus> {
    wait(pid.as_raw(), 0).map(|(_, status)| status)
}

fn wait(pid: libc::pid_t, flags: libc::c_int) -> io::Result<(libc::pid_t, ExitStatus)> {
    let mut status = 0;
    loop {
        // SAFETY: the status pointer is to a live integer.
        let ret = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        match Errno::result(ret) {
            Err(Errno::EINTR) => {}
            other => return Ok((other?, ExitStatus::from_raw(status))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no processes")]
    fn children_of_another_thread_are_left_to_it() {
        let (started, wait_for_it) = std::sync::mpsc::channel();
        let (go, may_go) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            let fd = crate::pidfd::PidFd::open(Pid::from_raw(child.id().cast_signed())).unwrap();
            assert!(fd.wait_ended(std::time::Duration::from_secs(20)).unwrap());
            started.send(()).unwrap();
            may_go.recv().unwrap();
            child.wait().unwrap()
        });
        wait_for_it.recv().unwrap();
        assert!(any_of_this_thread().unwrap().is_none());
        go.send(()).unwrap();
        assert!(thread.join().unwrap().success());
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no processes")]
    fn every_way_to_end_is_a_status() {
        for (script, code, signal) in [("exit 42", Some(42), None), ("kill -40 $$", None, Some(40))]
        {
            let plan = crate::spawn::SpawnConfig {
                program: c"/bin/sh".to_owned(),
                argv: ["sh", "-c", script].map(|w| std::ffi::CString::new(w).unwrap()).to_vec(),
                reset_signals: true,
                ..Default::default()
            };
            let pid = crate::spawn::program(&plan).unwrap().pid();
            let status = one(pid).unwrap();
            assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
            assert_eq!(one(pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        }
    }
}
