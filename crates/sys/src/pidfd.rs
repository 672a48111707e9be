//! Process file descriptors: a handle on a process that cannot be confused with a later process of
//! the same number (pidfd_open(2), Linux 5.3; pidfd_send_signal(2), Linux 5.1).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A process, held by descriptor. Readable (poll(2)) once the process has ended.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: Pid,
}

impl PidFd {
    /// Opens a process by number. For a child of ours that nobody has waited for yet this is free of
    /// races: the number stays taken while the child is a zombie.
    ///
    /// # Errors
    /// `ESRCH` if there is no such process, `ENOSYS` before Linux 5.3.
    pub fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = RawFd::try_from(Errno::result(ret)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just returned this descriptor (close-on-exec), nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, pid })
    }

    /// Wraps a descriptor that clone(2) returned through `CLONE_PIDFD`.
    pub(crate) fn from_clone(fd: OwnedFd, pid: Pid) -> Self {
        Self { fd, pid }
    }

    /// The number of the process in our pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; real-time signals are numbers, hence no [`Signal`].
    ///
    /// # Errors
    /// `ESRCH` if the process has ended and was waited for, `EPERM` if it is not ours.
    pub fn send(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the info pointer may be null (pidfd_send_signal(2)); the rest are integers.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        Errno::result(ret)?;
        Ok(())
    }

    /// Kills the process; one that has already ended is no error.
    ///
    /// # Errors
    /// As [`PidFd::send`], except `ESRCH`.
    pub fn kill(&self) -> io::Result<()> {
        match self.send(Signal::SIGKILL as i32) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Waits until the process has ended, without reaping it. `Ok(false)` means that the time is up.
    ///
    /// # Errors
    /// Those of poll(2); `EINTR` is retried with the full time.
    pub fn wait_ended(&self, timeout: Duration) -> io::Result<bool> {
        let millis = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        loop {
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, millis) {
                Ok(n) => return Ok(n > 0),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no processes")]
    fn a_process_that_ends_becomes_readable() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let fd = PidFd::open(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
        assert!(!fd.wait_ended(Duration::from_millis(20)).unwrap());
        fd.kill().unwrap();
        assert!(fd.wait_ended(Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
        fd.kill().unwrap();
        assert_eq!(fd.send(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
