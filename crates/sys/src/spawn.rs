//! Making processes with clone3(2): the namespaced child, and the target that it runs.
//!
//! # Theory of operation
//! std's `Command` can neither create namespaces nor hold the child back until its id maps are written,
//! and its `pre_exec` hangs when the closure waits for its own parent. So the clone is made here. All
//! memory that the new process needs is prepared before; between clone and exec it makes raw system
//! calls only: it may be a copy of one thread of a threaded program, whose allocator lock another thread
//! holds for ever. One exec follows at once, so libc's stale idea of its thread id never matters.
//!
//! ```text
//!   parent                         new process
//!   clone3 ─────────────────────►  die with the parent; be dumpable (newuidmap checks who owns /proc/PID)
//!   write the id maps              read(gate): a byte opens it, EOF means that the parent has died
//!   open(gate) ──────────────────► become uid 0, gid 0; die with the parent (forgotten by the line before)
//!   read(status): EOF = exec'ed ◄─ execve, or write errno and exit
//! ```

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;

use crate::pidfd::PidFd;
use crate::rlimit::Nofile;

/// What is needed to start a program. Everything is NUL-terminated and allocated beforehand.
#[derive(Debug, Default)]
pub struct SpawnConfig {
    /// The file to execute, an absolute path.
    pub program: CString,
    /// The argument vector, `argv[0]` included.
    pub argv: Vec<CString>,
    /// The whole environment, `NAME=value` each.
    pub env: Vec<CString>,
    /// Descriptors that stay open over the exec, at their numbers.
    pub keep: Vec<RawFd>,
    /// Make the program the leader of a new session (setsid(2)).
    pub new_session: bool,
    /// Unblock all signals and give SIGPIPE its default action back.
    pub reset_signals: bool,
    /// The limit of open files to set.
    pub nofile: Option<Nofile>,
    /// Variables to add to the environment with the new process's own number, such as `LISTEN_PID` (sd_listen_fds(3)).
    pub own_pid: Vec<CString>,
}

/// A process that waits for its id maps.
#[derive(Debug)]
pub struct Gated {
    /// The process.
    pub process: PidFd,
    gate: io::PipeWriter,
    status: io::PipeReader,
}

impl Gated {
    /// Lets the process become root of its user namespace and execute the program.
    ///
    /// # Errors
    /// What setresuid(2) or execve(2) said in the new process, or `EPIPE` when it is dead.
    pub fn open(mut self) -> io::Result<PidFd> {
        self.gate.write_all(b"g").map_err(|_| io::Error::from_raw_os_error(libc::EPIPE))?;
        drop(self.gate);
        exec_result(self.status)?;
        Ok(self.process)
    }
}

/// Starts a program in new namespaces (`CLONE_NEWUSER` and others) behind a gate. SIGKILL reaches it when
/// the calling *thread* ends.
///
/// # Errors
/// Those of clone3(2): `EPERM`, `EACCES`, `ENOSPC` and `EUSERS` mean that the system does not allow user
/// namespaces, or no more of them. `EBUSY` when this process has more than one thread.
pub fn namespaced(plan: &SpawnConfig, namespaces: nix::sched::CloneFlags) -> io::Result<Gated> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let (gate_r, gate) = io::pipe()?;
    let (status, status_w) = io::pipe()?;
    let mut raw = Raw::new(plan)?;
    let flags = u64::try_from(namespaces.bits()).map_err(io::Error::other)?;
    let gate_fds = Some((gate_r.as_raw_fd(), gate.as_raw_fd()));
    let process = start(flags, &mut raw, gate_fds, status_w.as_raw_fd())?;
    Ok(Gated { process, gate, status })
}

/// Starts a program in our namespaces. SIGKILL reaches it when the calling *thread* ends.
///
/// # Errors
/// Those of clone3(2) and execve(2).
pub fn program(plan: &SpawnConfig) -> io::Result<PidFd> {
    let (status, status_w) = io::pipe()?;
    let mut raw = Raw::new(plan)?;
    let process = start(0, &mut raw, None, status_w.as_raw_fd())?;
    drop(status_w);
    match exec_result(status) {
        Ok(()) => Ok(process),
        Err(e) => {
            nix::sys::wait::waitpid(process.pid(), None).ok();
            Err(e)
        }
    }
}

/// EOF means that the exec closed the other end; otherwise the process left its errno.
fn exec_result(mut status: io::PipeReader) -> io::Result<()> {
    let mut errno = [0u8; 4];
    match status.read(&mut errno)? {
        4 => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
        _ => Ok(()),
    }
}

/// Room for the digits of a pid (at most 2^22, proc_sys_kernel(5)) and NUL.
const PID: usize = 12;

struct Raw<'a> {
    plan: &'a SpawnConfig,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// `NAME=` and room for a pid, each.
    own_pid: Vec<Vec<u8>>,
    /// This process, as the new one has to see its parent.
    parent: libc::c_long,
}

impl<'a> Raw<'a> {
    fn new(plan: &'a SpawnConfig) -> io::Result<Self> {
        if plan.argv.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let variable = |name: &CString| [name.to_bytes(), b"=", &[0; PID]].concat();
        let own_pid: Vec<Vec<u8>> = plan.own_pid.iter().map(variable).collect();
        let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (mut argv, mut env) = (pointers(&plan.argv), pointers(&plan.env));
        env.extend(own_pid.iter().map(|variable| variable.as_ptr().cast::<libc::c_char>()));
        argv.push(std::ptr::null());
        env.push(std::ptr::null());
        let parent = nix::unistd::getpid().as_raw().into();
        Ok(Self { plan, argv, env, own_pid, parent })
    }

    /// Completes the variables, to which `env` points.
    fn write_own_pid(&mut self, pid: libc::c_long) {
        for variable in &mut self.own_pid {
            if let Some(room) = variable.last_chunk_mut::<PID>() {
                write_pid(room, pid);
            }
        }
    }
}

fn start(
    namespaces: u64,
    raw: &mut Raw<'_>,
    gate: Option<(RawFd, RawFd)>,
    status: RawFd,
) -> io::Result<PidFd> {
    // Signals must not run a handler of ours in the copy.
    let old = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let cloned = clone_process(namespaces);
    if let Ok((0, _)) = cloned {
        // SAFETY: this is the new process; everything that `raw` points to was copied with it.
        unsafe { in_child(raw, gate, status, old.as_ref()) }
    }
    old.thread_set_mask()?;
    let (pid, fd) = cloned?;
    if fd < 0 {
        // Linux before 5.2 takes no notice of CLONE_PIDFD. The child is ours and was not waited for: its pid is no one else's.
        let pid = Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    // SAFETY: CLONE_PIDFD has just installed it (close-on-exec); nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(PidFd::from_clone(fd, Pid::from_raw(pid)))
}

/// `struct clone_args` of clone3(2), as long as Linux 5.3 knew it; libc has none for 32-bit ARM.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// clone3(2) without shared memory, like fork(2). Where a seccomp filter hides clone3 behind `ENOSYS`
/// (container engines do), the older clone(2) serves: same flags, the exit signal in the low byte.
fn clone_process(namespaces: u64) -> io::Result<(libc::pid_t, RawFd)> {
    let flags = namespaces | u64::try_from(libc::CLONE_PIDFD).map_err(io::Error::other)?;
    let mut pidfd: libc::c_int = -1;
    let exit_signal = u64::try_from(libc::SIGCHLD).map_err(io::Error::other)?;
    let mut args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal,
        ..CloneArgs::default()
    };
    let size = size_of::<CloneArgs>();
    // SAFETY: without CLONE_VM this is fork(2): the child runs on a copy of our memory. The caller makes
    // it go on with raw system calls only. The kernel writes to `pidfd`, which is live.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) };
    let pid = match Errno::result(ret) {
        Err(Errno::ENOSYS) => {
            // One register, also where that has 32 bits.
            let flags = libc::c_ulong::try_from(flags | exit_signal).map_err(io::Error::other)?;
            Errno::result(legacy_clone(flags, &raw mut pidfd))?
        }
        other => other?,
    };
    Ok((libc::pid_t::try_from(pid).map_err(io::Error::other)?, pidfd))
}

/// The argument order differs on s390x (clone(2), "C library/kernel differences").
fn legacy_clone(flags: libc::c_ulong, pidfd: *mut libc::c_int) -> libc::c_long {
    let none = std::ptr::null_mut::<libc::c_void>();
    #[cfg(target_arch = "s390x")]
    // SAFETY: as in `clone_process`; a null stack means a copy of ours.
    return unsafe { libc::syscall(libc::SYS_clone, none, flags, pidfd, none, none) };
    #[cfg(not(target_arch = "s390x"))]
    // SAFETY: as in `clone_process`; a null stack means a copy of ours.
    return unsafe { libc::syscall(libc::SYS_clone, flags, none, pidfd, none, none) };
}

/// Everything between clone and exec.
///
/// # Safety
/// Only in a process that clone has just made.
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of raw system calls")]
unsafe fn in_child(
    raw: &mut Raw<'_>,
    gate: Option<(RawFd, RawFd)>,
    status: RawFd,
    old: &libc::sigset_t,
) -> ! {
    // SAFETY: raw system calls on memory that was prepared before the clone.
    unsafe {
        let err = until_exec(raw, gate, old);
        let bytes = err.to_ne_bytes();
        libc::syscall(libc::SYS_write, status, bytes.as_ptr(), bytes.len());
        loop {
            libc::syscall(libc::SYS_exit_group, 127);
        }
    }
}

/// Returns the errno of the step that failed.
///
/// # Safety
/// As for [`in_child`].
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of raw system calls")]
unsafe fn until_exec(raw: &mut Raw<'_>, gate: Option<(RawFd, RawFd)>, old: &libc::sigset_t) -> i32 {
    // SAFETY: raw system calls on memory that was prepared before the clone; a failure that matters is
    // returned at once, while errno still belongs to it.
    unsafe {
        let errno = || *libc::__errno_location();
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if let Some((gate_r, gate_w)) = gate {
            libc::syscall(libc::SYS_close, gate_w);
            // With file capabilities on our binary this process is not dumpable, and /proc/PID would
            // belong to root: newuidmap would refuse.
            libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            let mut byte = 0u8;
            if libc::syscall(libc::SYS_read, gate_r, &raw mut byte, 1usize) != 1 {
                return libc::EPIPE;
            }
            if libc::syscall(libc::SYS_setresgid, 0, 0, 0) == -1
                || libc::syscall(libc::SYS_setresuid, 0, 0, 0) == -1
            {
                return errno();
            }
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        } else if libc::syscall(libc::SYS_getppid) != raw.parent {
            // It died before the wish to die with it was made, and nobody else would end us. (With a gate,
            // the death shows there, and a parent in another pid namespace has no number.)
            return libc::ESRCH;
        }
        if raw.plan.new_session && libc::syscall(libc::SYS_setsid) == -1 {
            return errno();
        }
        for &fd in &raw.plan.keep {
            if libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, 0) == -1 {
                return errno();
            }
        }
        if let Some(limit) = raw.plan.nofile {
            let rlimit = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
            let none = std::ptr::null_mut::<libc::rlimit64>();
            libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &raw const rlimit, none);
        }
        raw.write_own_pid(libc::syscall(libc::SYS_getpid));
        let mut mask = *old;
        if raw.plan.reset_signals {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::sigemptyset(&raw mut mask);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        libc::syscall(
            libc::SYS_execve,
            raw.plan.program.as_ptr(),
            raw.argv.as_ptr(),
            raw.env.as_ptr(),
        );
        errno()
    }
}

/// Decimal digits in front of NULs. Formatting a number takes no memory from the allocator.
fn write_pid(mut to: &mut [u8], pid: libc::c_long) {
    // There is room for every number.
    let _ = write!(to, "{pid}");
}

#[cfg(test)]
mod tests;
