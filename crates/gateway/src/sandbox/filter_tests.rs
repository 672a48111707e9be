//! The compiled programs, run by a small interpreter: what they say about calls that no test could make.

use super::*;
use seccompiler::sock_filter;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const PID: u32 = 4242;

/// What the kernel hands to a filter (`struct seccomp_data`, seccomp(2)), as 32-bit words.
fn data(arch: u32, call: i64, args: &[u64]) -> Vec<u32> {
    let call = u32::try_from(call).unwrap();
    let mut words = vec![call, arch, 0, 0];
    for i in 0..6 {
        let arg = args.get(i).copied().unwrap_or(0);
        words.push(u32::try_from(arg & 0xffff_ffff).unwrap());
        words.push(u32::try_from(arg >> 32).unwrap());
    }
    words
}

/// Classic BPF, as much as seccompiler emits.
fn run(program: &[sock_filter], data: &[u32]) -> u32 {
    let (mut pc, mut acc) = (0, 0);
    loop {
        let op = &program[pc];
        pc += 1;
        let jump = |yes: bool| usize::from(if yes { op.jt } else { op.jf });
        match op.code {
            0x20 => acc = data[op.k as usize / 4],
            0x54 => acc &= op.k,
            0x05 => pc += op.k as usize,
            0x15 => pc += jump(acc == op.k),
            0x25 => pc += jump(acc > op.k),
            0x35 => pc += jump(acc >= op.k),
            0x06 => return op.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// `AUDIT_ARCH_*` of this machine.
fn arch() -> u32 {
    match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        "aarch64" => 0xc000_00b7,
        "riscv64" => 0xc000_00f3,
        other => panic!("no filter for {other}"),
    }
}

/// The errno of a call, 0 if it is allowed; of both filters the stricter counts.
fn verdict(call: i64, args: &[u64]) -> i32 {
    let data = data(arch(), call, args);
    let results = programs(PID).unwrap().map(|program| run(&program, &data));
    // Of SECCOMP_RET_*, the numerically smaller action is the stricter one.
    let strictest = results.into_iter().min_by_key(|r| r & 0xffff_0000).unwrap();
    if strictest == ALLOW {
        return 0;
    }
    assert_eq!(strictest & 0xffff_0000, 0x0005_0000, "an errno");
    i32::try_from(strictest & 0xffff).unwrap()
}

fn check(expected: i32, call: i64, table: &[&[i32]]) {
    for args in table {
        let args: Vec<u64> = args.iter().map(|&arg| bits(arg)).collect();
        assert_eq!(verdict(call, &args), expected, "call {call} {args:x?}");
    }
}

#[test]
fn calls_that_reach_out_of_the_process_are_refused() {
    for call in [
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_pidfd_send_signal,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_mount,
        libc::SYS_fsopen,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_userfaultfd,
        libc::SYS_perf_event_open,
        libc::SYS_keyctl,
        libc::SYS_memfd_create,
        libc::SYS_pkey_mprotect,
        libc::SYS_shmat,
        libc::SYS_socketpair,
        libc::SYS_listen,
        libc::SYS_seccomp,
        libc::SYS_personality,
        libc::SYS_setuid,
        libc::SYS_capset,
    ] {
        assert_eq!(verdict(call, &[]), libc::EPERM, "call {call}");
    }
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_open, libc::SYS_fork, libc::SYS_vfork] {
        assert_eq!(verdict(call, &[]), libc::EPERM, "call {call}");
        // The x32 variant of a call that is allowed.
        assert_eq!(verdict(libc::SYS_read | 0x4000_0000, &[]), libc::EPERM);
    }
}

#[test]
fn only_threads_are_cloned() {
    // The flags of glibc and musl.
    check(0, libc::SYS_clone, &[&[0x3d_0f00], &[0x7d_0f00]]);
    check(
        libc::EPERM,
        libc::SYS_clone,
        &[
            &[libc::SIGCHLD],
            &[libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD],
            &[0x3d_0f00 | libc::CLONE_NEWUSER],
            &[0x3d_0f00 | libc::CLONE_NEWNET],
            &[0x3d_0f00 | libc::CLONE_PTRACE],
            &[0x3d_0f00 | libc::CLONE_PIDFD],
            &[0x3d_0f00 & !libc::CLONE_THREAD],
            &[0],
        ],
    );
    assert_eq!(verdict(libc::SYS_clone3, &[1, 88]), libc::ENOSYS);
}

#[test]
fn sockets_are_of_the_internet_only() {
    let (stream, dgram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    check(
        0,
        libc::SYS_socket,
        &[
            &[libc::AF_INET, stream, 0],
            &[libc::AF_INET, stream | flags, libc::IPPROTO_TCP],
            &[libc::AF_INET6, dgram | libc::SOCK_CLOEXEC, libc::IPPROTO_UDP],
            &[libc::AF_INET, dgram | flags, libc::IPPROTO_ICMP],
            &[libc::AF_INET6, dgram | flags, libc::IPPROTO_ICMPV6],
        ],
    );
    check(
        libc::EPERM,
        libc::SYS_socket,
        &[
            &[libc::AF_UNIX, stream, 0],
            &[libc::AF_NETLINK, libc::SOCK_RAW, 0],
            &[libc::AF_PACKET, dgram, 0],
            &[libc::AF_ALG, libc::SOCK_SEQPACKET, 0],
            &[libc::AF_VSOCK, stream, 0],
            &[libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP],
            &[libc::AF_INET, stream, libc::IPPROTO_SCTP],
            &[libc::AF_INET, stream, libc::IPPROTO_MPTCP],
            &[libc::AF_INET, libc::SOCK_DCCP, libc::IPPROTO_DCCP],
            &[libc::AF_INET, dgram, libc::IPPROTO_UDPLITE],
            &[libc::AF_INET, dgram, libc::IPPROTO_TCP],
            &[libc::AF_INET6, dgram, libc::IPPROTO_ICMP],
        ],
    );
}

#[test]
fn options_that_load_rules_or_programs_are_refused() {
    check(
        0,
        libc::SYS_setsockopt,
        &[
            &[3, libc::SOL_SOCKET, libc::SO_MARK],
            &[3, libc::IPPROTO_IP, libc::IP_TRANSPARENT],
            &[3, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT],
            &[3, libc::IPPROTO_TCP, libc::TCP_NODELAY],
            &[3, libc::IPPROTO_TCP, libc::TCP_CONGESTION],
            &[3, libc::SOL_UDP, libc::UDP_GRO],
        ],
    );
    check(
        libc::EPERM,
        libc::SYS_setsockopt,
        &[
            // IPT_SO_SET_REPLACE, IP6T_SO_SET_REPLACE
            &[3, libc::IPPROTO_IP, 64],
            &[3, libc::IPPROTO_IPV6, 64],
            &[3, libc::IPPROTO_IP, libc::IP_XFRM_POLICY],
            &[3, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER],
            &[3, libc::SOL_SOCKET, libc::SO_ATTACH_BPF],
            &[3, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF],
            &[3, libc::IPPROTO_TCP, libc::TCP_ULP],
            &[3, libc::SOL_NETLINK, 1],
        ],
    );
}

#[test]
fn memory_is_not_executable() {
    let (rw, x) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        check(0, call, &[&[0, 4096, 0], &[0, 4096, rw]]);
        check(libc::EPERM, call, &[&[0, 4096, x], &[0, 4096, rw | x]]);
    }
}

#[test]
fn the_rest_that_depends_on_arguments() {
    check(0, libc::SYS_fcntl, &[&[3, libc::F_SETFL], &[3, libc::F_DUPFD_CLOEXEC]]);
    check(libc::EPERM, libc::SYS_fcntl, &[&[3, libc::F_SETOWN], &[3, libc::F_NOTIFY]]);
    check(0, libc::SYS_ioctl, &[&[3, 0x5421], &[3, 0x5411]]);
    // TIOCSTI, TUNSETIFF
    check(libc::EPERM, libc::SYS_ioctl, &[&[3, 0x5412], &[3, 0x4004_54ca]]);
    check(0, libc::SYS_prctl, &[&[libc::PR_SET_NAME]]);
    check(libc::EPERM, libc::SYS_prctl, &[&[libc::PR_SET_DUMPABLE, 1], &[libc::PR_SET_MM]]);
    let pid = PID.cast_signed();
    check(0, libc::SYS_tgkill, &[&[pid, pid, libc::SIGABRT]]);
    check(libc::EPERM, libc::SYS_tgkill, &[&[1, 1, libc::SIGABRT], &[0, 0, 0]]);
    let nofile = 7;
    assert_eq!(verdict(libc::SYS_prlimit64, &[0, nofile, 0, 0x7fff_0000_1000]), 0);
    // A new limit at an address whose lower half is zero.
    assert_eq!(verdict(libc::SYS_prlimit64, &[0, nofile, 0x7fff_0000_0000, 0]), libc::EPERM);
    assert_eq!(verdict(libc::SYS_prlimit64, &[1, nofile, 0, 0x1000]), libc::EPERM);
}

#[test]
fn another_abi_kills() {
    let i386 = 0x4000_0003;
    let [hide, allow] = programs(PID).unwrap();
    for program in [hide, allow] {
        assert_eq!(run(&program, &data(i386, libc::SYS_read, &[])), KILL);
        assert!(program.len() < 4096, "longer than the kernel takes: {}", program.len());
    }
}
