//! What [`std::process::Command`] cannot say without unsafe code.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigHandler, SigSet, Signal};

/// Kills the program when the *thread* that starts it ends (`PR_SET_PDEATHSIG`, prctl(2)): start
/// long-lived programs from the main thread only. The kernel forgets the wish when the program changes
/// its credentials.
pub fn kill_with_parent(cmd: &mut Command) -> &mut Command {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe {
        cmd.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above.
            if nix::unistd::getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        })
    }
}

/// Gives the program no blocked or ignored signals and a process group of its own. We block ours to read them from a
/// descriptor, and the program would inherit that: `kill PID` would do nothing. nohup(1) ignores SIGHUP for all that
/// descends from it, and a shell cannot catch what was ignored when it began (sh(1p), "trap"). The group keeps what a
/// terminal sends to us (Ctrl-C, Ctrl-Z, its end) from a program that has to outlive it.
pub fn with_own_signals(cmd: &mut Command) -> &mut Command {
    cmd.process_group(0);
    // SAFETY: between fork and exec the closure makes system calls only, and allocates nothing.
    unsafe { cmd.pre_exec(restore_signals) }
}

fn restore_signals() -> io::Result<()> {
    for signal in Signal::iterator() {
        // SIGKILL and SIGSTOP are what they are, which is an error that does not matter.
        // SAFETY: the default action is no handler that could run.
        let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Leaves `fd` open in the program, at its present number, which is returned for the command line. The
/// descriptor is closed here when the command is dropped.
pub fn inherit_fd(cmd: &mut Command, fd: OwnedFd) -> i32 {
    let number = fd.as_raw_fd();
    // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns.
    unsafe {
        cmd.pre_exec(move || {
            use nix::fcntl::{FcntlArg, FdFlag, fcntl};
            fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no processes")]
    fn signals_end_the_program_although_we_block_them() {
        std::thread::spawn(|| {
            SigSet::all().thread_block().unwrap();
            let mut cmd = Command::new("sh");
            cmd.args(["-c", "kill -TERM $$; exit 3"]);
            assert_eq!(cmd.status().unwrap().code(), Some(3), "the mask is inherited otherwise");
            assert_eq!(with_own_signals(&mut cmd).status().unwrap().code(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no processes")]
    fn signals_end_the_program_although_we_ignore_them() {
        // SAFETY: no handler; no other test here has to do with this signal.
        unsafe { nix::sys::signal::signal(Signal::SIGUSR2, SigHandler::SigIgn) }.unwrap();
        let mut cmd = Command::new("sh");
        cmd.args(["-c", "trap 'exit 4' USR2; kill -USR2 $$; exit 3"]);
        assert_eq!(cmd.status().unwrap().code(), Some(3), "a shell cannot catch it otherwise");
        assert_eq!(with_own_signals(&mut cmd).status().unwrap().code(), Some(4));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no processes")]
    fn a_descriptor_is_open_in_the_program_only() {
        let (mut r, w) = std::io::pipe().unwrap();
        let mut cmd = Command::new("sh");
        let n = inherit_fd(&mut cmd, w.into());
        kill_with_parent(&mut cmd);
        assert!(cmd.arg("-c").arg(format!("echo hi >&{n}")).status().unwrap().success());
        drop(cmd);
        let mut s = String::new();
        r.read_to_string(&mut s).unwrap();
        assert_eq!(s, "hi\n");
    }
}
