//! The sandbox as a process feels it. There is no way out of it, so each test body runs in a process of its own: the
//! test runs this binary again, and names the ignored test that is to be run there.
//!
//! The file is long because its tests share that way to run.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use caps::CapSet;
use gateway::sandbox::{self, Report};
use netlink::conntrack::Direction;
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::{Pid, pipe};
use socket2::{Domain, Protocol, Socket, Type};

/// Somebody without privileges.
const NOBODY: u32 = 65534;
/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs an ignored test of this binary in a process of its own.
fn alone(command: Command, test: &str) {
    let out = output(command, test);
    let text = text(&out);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

fn output(mut command: Command, test: &str) -> Output {
    let args = ["--exact", test, "--ignored", "--nocapture", "--test-threads=1"];
    command.args(args).output().unwrap()
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

fn myself() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Enters; everything has to hold on the kernels that tests run on.
fn enter() -> Report {
    let report = sandbox::enter().unwrap();
    eprintln!("{report}");
    assert_eq!(report.seccomp, Ok(()));
    assert!(matches!(report.landlock, Ok(1..)), "{report}");
    report
}

#[test]
fn what_a_gateway_does_not_need_is_refused() {
    alone(myself(), "refused_alone");
}

#[test]
#[ignore = "run in a process of its own by what_a_gateway_does_not_need_is_refused"]
fn refused_alone() {
    let file = File::open("/etc/passwd").unwrap();
    let namespace = File::open("/proc/self/ns/net").unwrap();
    let mut memory = memmap2::MmapMut::map_anon(4096).unwrap();
    memory[0] = 0xc3;
    enter();

    // Landlock would say EACCES; seccomp comes first.
    let opened = |path| File::open(path).map_err(|e| e.raw_os_error()).err();
    assert_eq!(opened("/etc/passwd"), Some(Some(Errno::EPERM as i32)));
    assert_eq!(opened("/proc/self/mem"), Some(Some(Errno::EPERM as i32)));
    assert!(std::fs::metadata("/").is_err() && std::fs::remove_file("/nothing").is_err());
    assert!(file.metadata().is_err());

    assert!(UnixDatagram::unbound().is_err());
    assert!(UnixDatagram::pair().is_err());
    assert!(netlink::conntrack::Conntrack::open().is_err(), "it could change packet rules");
    for (domain, kind) in [(Domain::IPV4, Type::RAW), (Domain::PACKET, Type::DGRAM)] {
        let error = Socket::new(domain, kind, Some(Protocol::ICMPV4)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EPERM as i32));
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = socket2::SockRef::from(&socket);
    socket.set_tos_v4(0).unwrap();
    assert!(socket.attach_filter(&[socket2::SockFilter::new(6, 0, 0, 1)]).is_err());
    assert!(TcpListener::bind("127.0.0.1:0").is_err(), "listen(2)");

    assert!(Command::new("/bin/true").spawn().is_err());
    let argv = [c"true"];
    assert_eq!(nix::unistd::execve(c"/bin/true", &argv, &argv), Err(Errno::EPERM));
    assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
    assert_eq!(setns(&namespace, CloneFlags::CLONE_NEWNET), Err(Errno::EPERM));
    assert_eq!(kill(Pid::this(), None), Err(Errno::EPERM));
    assert_eq!(kill(Pid::parent(), Some(Signal::SIGCONT)), Err(Errno::EPERM));
    assert_eq!(nix::sys::prctl::set_dumpable(true), Err(Errno::EPERM));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(setrlimit(Resource::RLIMIT_NOFILE, soft, hard), Err(Errno::EPERM));
    assert!(memory.make_exec().is_err());

    // Threads are no way out.
    let thread = std::thread::spawn(move || File::open("/etc/passwd").is_err());
    assert!(thread.join().unwrap());
}

#[test]
fn no_privilege_and_no_way_to_one_is_left() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root, to have capabilities");
    alone(myself(), "privileges_alone");
}

#[test]
#[ignore = "run in a process of its own by no_privilege_and_no_way_to_one_is_left"]
fn privileges_alone() {
    assert!(!caps::read(None, CapSet::Effective).unwrap().is_empty());
    // One that would outlive an exec.
    caps::raise(None, CapSet::Inheritable, caps::Capability::CAP_NET_BIND_SERVICE).unwrap();
    caps::raise(None, CapSet::Ambient, caps::Capability::CAP_NET_BIND_SERVICE).unwrap();
    let mut status = File::open("/proc/thread-self/status").unwrap();
    let report = enter();
    assert!(report.bounding);
    let mut text = String::new();
    status.read_to_string(&mut text).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn an_unprivileged_process_is_locked_up_as_well_and_not_dumpable() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root, to become somebody else");
    let mut command = myself();
    command.args(["--exact", "dumpable_alone", "--ignored", "--nocapture", "--test-threads=1"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stdin = child.stdin.take().unwrap();
    // The files in /proc of a process that is not dumpable are root's (proc_pid(5)).
    for (word, owner) in [("before", NOBODY), ("after", 0)] {
        assert!(lines.any(|line| line.unwrap().ends_with(word)), "{word}");
        let found = std::fs::metadata(format!("/proc/{}/maps", child.id())).unwrap().uid();
        assert_eq!(found, owner, "{word}");
        stdin.write_all(b"go on\n").unwrap();
    }
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "run in a process of its own by an_unprivileged_process_is_locked_up_as_well_and_not_dumpable"]
fn dumpable_alone() {
    let nobody = nix::unistd::Uid::from_raw(NOBODY);
    nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
    nix::sys::prctl::set_dumpable(true).unwrap();
    let wait = |word| {
        println!("{word}");
        let mut line = String::new();
        assert!(std::io::stdin().read_line(&mut line).unwrap() > 0);
    };
    wait("before");
    assert!(!enter().bounding);
    wait("after");
}

#[test]
fn what_a_gateway_does_still_works() {
    alone(myself(), "working_alone");
}

/// A server that sends back what it gets, made before the sandbox is entered.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = patient(stream.unwrap());
            std::thread::spawn(move || {
                let mut buf = vec![0; 64 << 10];
                while let Ok(n @ 1..) = stream.read(&mut buf) {
                    stream.write_all(&buf[..n]).unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
            });
        }
    });
    address
}

#[test]
#[ignore = "run in a process of its own by what_a_gateway_does_still_works"]
fn working_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (conntrack, queries) = gateway::conntrack::pair().unwrap();
    enter();

    // Queries to the child; what makes no sense is no reply.
    let mut client = gateway::conntrack::Client::new(conntrack);
    let [src, dst] = ["10.0.2.100:1", "192.0.2.1:80"].map(|end| end.parse().unwrap());
    let outside = netlink::conntrack::Tuple { src, dst };
    let (protocol, direction) = (netlink::conntrack::Protocol::Tcp, Direction::Outbound);
    client.ask(&netlink::conntrack::Query { protocol, direction, outside });
    client.send().unwrap();
    let mut query = [0; 64];
    let length = recv(queries.as_raw_fd(), &mut query, MsgFlags::empty()).unwrap();
    assert!(length > 32 && client.replies().unwrap().is_none());
    send(queries.as_raw_fd(), b"nonsense", MsgFlags::empty()).unwrap();
    assert_eq!(client.replies().unwrap(), Some(Vec::new()));

    // TCP, one end in another thread; a name is a prctl(2).
    let builder = std::thread::Builder::new().name("server".into());
    let server = builder.spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let mut client = patient(TcpStream::connect(address).unwrap());
    client.set_nodelay(true).unwrap();
    client.set_nonblocking(false).unwrap();

    // Through a pipe, as the relay does.
    let (read, write) = pipe().unwrap();
    let mut write = File::from(write);
    write.write_all(b"spliced").unwrap();
    let moved = splice(&read, None, &client, None, 64, SpliceFFlags::SPLICE_F_MOVE).unwrap();
    assert_eq!(moved, 7);
    client.write_all(b" and written").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.unwrap().join().unwrap(), "spliced and written");

    // UDP and epoll.
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
    socket.send_to(b"datagram", socket.local_addr().unwrap()).unwrap();
    let mut events = [EpollEvent::empty()];
    assert_eq!(epoll.wait(&mut events, 20_000u16), Ok(1));
    let mut receiver = sys::mmsg::Receiver::new();
    assert_eq!(receiver.recv(socket.as_fd(), 8), Ok(1));
    assert_eq!(receiver.get(0).unwrap().data, b"datagram");

    // Memory, clocks, hash tables, limits, waiting.
    let begin = Instant::now();
    let mut memory = vec![1u8; 64 << 20];
    memory.resize(128 << 20, 2);
    assert_eq!(memory.iter().rev().step_by(4096).filter(|&&byte| byte == 2).count(), 16384);
    drop(memory);
    std::thread::sleep(Duration::from_millis(1));
    assert!(begin.elapsed() >= Duration::from_millis(1));
    assert!(std::time::SystemTime::now().elapsed().is_ok());
    assert_eq!(HashMap::from([(1, 2)]).get(&1), Some(&2));
    assert!(getrlimit(Resource::RLIMIT_NOFILE).is_ok());
    assert!(std::thread::available_parallelism().is_ok());
    eprintln!("standard error works");
}

#[test]
fn a_panic_and_an_abort_end_the_process() {
    let out = output(myself(), "abort_alone");
    assert_eq!(out.status.signal(), Some(Signal::SIGABRT as i32), "{}", text(&out));
    assert!(text(&out).contains("about to abort"), "{}", text(&out));
}

#[test]
#[ignore = "run in a process of its own by a_panic_and_an_abort_end_the_process"]
fn abort_alone() {
    enter();
    let thread = std::thread::spawn(|| panic!("about to abort"));
    assert!(thread.join().is_err());
    std::process::abort();
}

#[test]
fn the_relay_works() {
    alone(myself(), "relay_alone");
}

#[test]
#[ignore = "run in a process of its own by the_relay_works"]
fn relay_alone() {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    std::thread::spawn(move || relay::factory::serve(theirs, || false));
    let backend = echo();
    let loopback = Some("127.0.0.1".parse().unwrap());
    let listeners: Vec<relay::Listener> = [relay::Proto::Tcp, relay::Proto::Udp]
        .into_iter()
        .map(|proto| relay::listen::bind(proto, loopback, 0).unwrap())
        .collect();
    let address = |listener: &relay::Listener| {
        let (relay::Listener::Tcp(fd) | relay::Listener::Udp(fd)) = listener;
        let socket = Socket::from(fd.try_clone().unwrap());
        socket.local_addr().unwrap().as_socket().unwrap()
    };
    let ports: Vec<SocketAddr> = listeners.iter().map(address).collect();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = server.local_addr().unwrap();
    enter();

    let engine = relay::Engine::start(ours, relay::Options::default()).unwrap();
    for (id, (listener, target)) in (1..).zip(listeners.into_iter().zip([backend, udp])) {
        engine.add(id, listener, relay::Service::to(target)).unwrap();
    }
    // Enough for several streams to become bulk ones and to be dealt out to other threads.
    let streams: Vec<_> = (0..3)
        .map(|_| {
            let mut reader = patient(TcpStream::connect(ports[0]).unwrap());
            let mut writer = reader.try_clone().unwrap();
            std::thread::spawn(move || {
                let feed = std::thread::spawn(move || {
                    let block = vec![7u8; 1 << 20];
                    (0..16).for_each(|_| writer.write_all(&block).unwrap());
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut back = Vec::new();
                reader.read_to_end(&mut back).unwrap();
                feed.join().unwrap();
                back.len()
            })
        })
        .collect();
    for stream in streams {
        assert_eq!(stream.join().unwrap(), 16 << 20);
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"question", ports[1]).unwrap();
    let mut buf = [0; 64];
    let (n, from) = server.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"question");
    server.send_to(b"answer", from).unwrap();
    let (n, from) = client.recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..n], from), (&b"answer"[..], ports[1]));
    drop(engine);
}

#[test]
fn the_owner_of_a_namespace_needs_no_capability_for_its_sockets() {
    alone(myself(), "owner_alone");
}

#[test]
#[ignore = "run in a process of its own by the_owner_of_a_namespace_needs_no_capability_for_its_sockets"]
fn owner_alone() {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    // It is not single-threaded, so it cannot enter a user namespace itself.
    let mut command = Command::new("unshare");
    command.args(["--user", "--net"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "giver_alone", "--ignored", "--nocapture"]);
    let mut giver = command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn().unwrap();
    let mut fds = Vec::new();
    while fds.len() < 2 {
        let mut poll = [nix::poll::PollFd::new(ours.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut poll, 20_000u16), Ok(1));
        let (n, came) = sys::fdpass::recv(ours.as_fd(), &mut [0; 16]).unwrap();
        assert!(n > 0, "the giver has ended");
        fds.extend(came);
    }
    giver.wait().unwrap();
    let here = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    enter();
    let mut sockets = fds.into_iter().map(Socket::from);
    let (v4, v6) = (sockets.next().unwrap(), sockets.next().unwrap());
    v4.set_ip_transparent_v4(true).unwrap();
    v4.set_mark(1).unwrap();
    v6.set_ip_transparent_v6(true).unwrap();
    // Any address, and a port that takes a privilege.
    v4.bind(&"203.0.113.77:80".parse::<SocketAddr>().unwrap().into()).unwrap();
    // The filter lets the call pass; the kernel refuses it for a socket of a namespace that is not ours.
    let error = here.set_ip_transparent_v4(true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
#[ignore = "run in a user namespace of its own by the_owner_of_a_namespace_needs_no_capability_for_its_sockets"]
fn giver_alone() {
    let stdin = std::io::stdin();
    for domain in [Domain::IPV4, Domain::IPV6] {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        sys::fdpass::send(stdin.as_fd(), b"socket", &[socket.as_fd()]).unwrap();
    }
}
