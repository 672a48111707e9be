//! The system calls that are left (seccomp(2)).
//!
//! Whatever is not listed fails with `EPERM`; it does not kill the process. The list serves several C libraries and
//! their future versions, which try optional calls and cope with a refusal. To an attacker a refusal is no gain, while
//! a call forgotten here would cost all connections of all containers, again and again. There are two filters, because
//! one has one answer for what it refuses: clone3(2), whose flags no filter can see, says `ENOSYS`, so that the C
//! library falls back to clone(2). Of the answers of several filters the kernel takes the strictest, and `ENOSYS` is
//! stricter than "allowed".
//!
//! A system call of another ABI (32-bit) kills the process.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

const CALLS: &[libc::c_long] = &[
    // Bytes and datagrams.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_splice,
    libc::SYS_close,
    // Sockets and pipes.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_pipe2,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Memory; mmap and mprotect are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and their end; clone is below.
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Clocks without a vDSO, and keys of hash tables.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];

/// The same by their older names, which the other two architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[libc::c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_gettimeofday, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[libc::c_long] = &[];

/// Sockets that may be made: family, type, protocols. Datagrams of ICMP are echo requests (icmp(7)).
const SOCKETS: &[(i32, i32, &[i32])] = &[
    (libc::AF_INET, libc::SOCK_STREAM, &[0, libc::IPPROTO_TCP]),
    (libc::AF_INET, libc::SOCK_DGRAM, &[0, libc::IPPROTO_UDP, libc::IPPROTO_ICMP]),
    (libc::AF_INET6, libc::SOCK_STREAM, &[0, libc::IPPROTO_TCP]),
    (libc::AF_INET6, libc::SOCK_DGRAM, &[0, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6]),
];

/// Socket options that may be set, by level. Over sockets of the gateway namespace we have the rights of an
/// administrator, so the options that load packet filters or IPsec policies, attach programs and turn sockets into
/// other things are out of reach this way.
const OPTIONS: &[(i32, &[i32])] = &[
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_REUSEADDR,
            libc::SO_REUSEPORT,
            libc::SO_BROADCAST,
            libc::SO_SNDBUF,
            libc::SO_RCVBUF,
            libc::SO_KEEPALIVE,
            libc::SO_LINGER,
            libc::SO_OOBINLINE,
            libc::SO_RCVLOWAT,
            libc::SO_RCVTIMEO,
            libc::SO_SNDTIMEO,
            libc::SO_MARK,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_CORK,
            libc::TCP_CONGESTION,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_SYNCNT,
            libc::TCP_QUICKACK,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_NOTSENT_LOWAT,
        ],
    ),
    (libc::SOL_UDP, &[libc::UDP_SEGMENT, libc::UDP_GRO]),
    (
        libc::IPPROTO_IP,
        &[
            libc::IP_TOS,
            libc::IP_TTL,
            libc::IP_PKTINFO,
            libc::IP_MTU_DISCOVER,
            libc::IP_RECVERR,
            libc::IP_RECVFRAGSIZE,
            libc::IP_RECVTTL,
            libc::IP_RECVTOS,
            libc::IP_FREEBIND,
            libc::IP_TRANSPARENT,
            libc::IP_BIND_ADDRESS_NO_PORT,
        ],
    ),
    (
        libc::IPPROTO_IPV6,
        &[
            libc::IPV6_V6ONLY,
            libc::IPV6_UNICAST_HOPS,
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_DONTFRAG,
            libc::IPV6_RECVERR,
            libc::IPV6_RECVFRAGSIZE,
            libc::IPV6_RECVHOPLIMIT,
            libc::IPV6_RECVTCLASS,
            libc::IPV6_TCLASS,
            libc::IPV6_FREEBIND,
            libc::IPV6_TRANSPARENT,
        ],
    ),
];

/// Operations of fcntl(2). Not among them: whom signals go to (`F_SETOWN`), leases, locks.
const FCNTL: &[i32] = &[
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
];

const THREAD: i32 =
    libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
/// Flags that it may have; `CLONE_DETACHED` means nothing, but musl sets it.
const THREAD_OPTIONAL: i32 = libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_SETTID
    | libc::CLONE_CHILD_CLEARTID
    | libc::CLONE_DETACHED;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(super) fn install() -> Result<(), seccompiler::Error> {
    for program in programs(std::process::id())? {
        seccompiler::apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// In the order in which they are installed; the second one does not allow to install another.
fn programs(pid: u32) -> Result<[BpfProgram; 2], BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = |errno: i32| SeccompAction::Errno(errno.cast_unsigned());
    let hidden = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let hide = SeccompFilter::new(hidden, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    let allow = SeccompFilter::new(allowed(pid)?, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    Ok([hide.try_into()?, allow.try_into()?])
}

fn allowed(pid: u32) -> Result<Rules, BackendError> {
    let mut rules: Rules = CALLS.iter().chain(OLD_CALLS).map(|&call| (call, Vec::new())).collect();
    // The other filter refuses it in another way.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_setsockopt, options()?);
    rules.insert(libc::SYS_fcntl, each(1, FCNTL)?);
    rules.insert(libc::SYS_ioctl, ioctls()?);
    // No memory that can be executed, so no code but ours.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let plain = SeccompCondition::new(2, Dword, MaskedEq(bits(libc::PROT_EXEC)), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![plain])?]);
    }
    // The kernel looks at 32 bits of the flags of clone(2).
    let decisive = MaskedEq(bits(!THREAD_OPTIONAL));
    let thread = SeccompCondition::new(0, Dword, decisive, bits(THREAD))?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![thread])?]);
    // abort(3) raises its signal this way.
    let own = SeccompCondition::new(0, Dword, Eq, u64::from(pid))?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    // Limits may be read.
    let read = SeccompCondition::new(2, Qword, Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![equals(0, 0)?, read])?]);
    rules.insert(libc::SYS_prctl, each(0, &[libc::PR_SET_NAME])?);
    Ok(rules)
}

fn sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let mut rules = Vec::new();
    for &(family, kind, protocols) in SOCKETS {
        for &protocol in protocols {
            rules.push(SeccompRule::new(vec![
                equals(0, family)?,
                SeccompCondition::new(1, Dword, MaskedEq(bits(!flags)), bits(kind))?,
                equals(2, protocol)?,
            ])?);
        }
    }
    Ok(rules)
}

fn options() -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = Vec::new();
    for &(level, options) in OPTIONS {
        for &option in options {
            rules.push(SeccompRule::new(vec![equals(1, level)?, equals(2, option)?])?);
        }
    }
    Ok(rules)
}

/// `FIONBIO` is how std makes sockets non-blocking; `TIOCOUTQ` is `SIOCOUTQ` (tcp(7)).
fn ioctls() -> Result<Vec<SeccompRule>, BackendError> {
    #[allow(clippy::unnecessary_cast, reason = "musl declares these as int")]
    [libc::FIONBIO as u64, libc::TIOCOUTQ as u64]
        .into_iter()
        .map(|request| SeccompRule::new(vec![SeccompCondition::new(1, Dword, Eq, request)?]))
        .collect()
}

fn each(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|&value| SeccompRule::new(vec![equals(argument, value)?])).collect()
}

fn equals(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, Eq, bits(value))
}

/// A C int as a register holds it; only the lower half is compared.
fn bits(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
