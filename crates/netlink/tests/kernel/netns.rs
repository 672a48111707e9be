//! Network namespaces, and clients and servers in them.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use netlink::{Rt, transparent};
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Protocol, Socket, Type};

/// A network namespace, alive as long as this value.
pub(crate) struct Netns(File);

impl Netns {
    /// Makes a namespace with `lo` up and moves the calling thread into it. A thread of the test harness runs one test
    /// and ends, so nothing has to be moved back.
    pub(crate) fn enter_new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("this test needs root: it makes network namespaces with unshare(2)");
        let this = Self(File::open("/proc/thread-self/ns/net").unwrap());
        let mut rt = Rt::open().unwrap();
        let lo = rt.link_index("lo").unwrap();
        rt.link_up(lo).unwrap();
        this
    }

    pub(crate) fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// A name of the namespace for other processes.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs a program in the namespace of the calling thread and returns what it printed.
pub(crate) fn run(line: &str, input: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().unwrap();
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "this test needs {program} (apt-get install iproute2 nftables iptables): {error}"
            )
        });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{line}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A link as a network helper would leave it, with a default route into nowhere.
pub(crate) fn add_uplink(rt: &mut Rt) {
    run("ip link add tap0 type veth peer name far0", "");
    let far = rt.link_index("far0").unwrap();
    rt.link_up(far).unwrap();
    let tap = rt.link_index("tap0").unwrap();
    rt.link_up(tap).unwrap();
    rt.add_address(tap, address("10.0.2.100"), 24).unwrap();
    rt.add_default_route(address("10.0.2.2"), tap).unwrap();
    rt.add_address(tap, address("fd00::100"), 64).unwrap();
    rt.add_default_route(address("fd00::2"), tap).unwrap();
}

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dials as the relay does, with the address of a client.
pub(crate) fn dial(client: &str, server: SocketAddr) -> std::io::Result<Socket> {
    dial_within(PATIENCE, client, server)
}

/// [`dial`] for what is expected to get no answer at all.
pub(crate) fn dial_within(
    limit: Duration,
    client: &str,
    server: SocketAddr,
) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    // Level SOL_IP also for IPv6: the kernel keeps one flag for both.
    socket.set_ip_transparent_v4(true)?;
    socket.set_mark(transparent::DIAL_MARK)?;
    // One client may hold connections to several of our ports, and leaves TIME_WAIT behind.
    socket.set_reuse_address(true)?;
    socket.bind(&client.parse::<SocketAddr>().unwrap().into())?;
    socket.connect_timeout(&server.into(), limit)?;
    Ok(socket)
}

/// A listener in the namespace of the calling thread.
pub(crate) fn listen(server: &str) -> Socket {
    let server: SocketAddr = server.parse().unwrap();
    let listener =
        Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP)).unwrap();
    listener.bind(&server.into()).unwrap();
    listener.listen(16).unwrap();
    listener
}

/// Dials `server` as `client` and requires that the listener sees this client and that data passes.
pub(crate) fn assert_transparent(listener: &Socket, client: &str, server: &str) {
    let near = dial(client, server.parse().unwrap())
        .unwrap_or_else(|error| panic!("dial {server} as {client}: {error}"));
    let (far, peer) = listener.accept().unwrap();
    let peer = peer.as_socket().unwrap();
    // A dual-stack listener shows an IPv4 client as a mapped address.
    let seen = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    assert_eq!(seen, client.parse().unwrap(), "the server saw another client");
    pass(&near, &far);
    pass(&far, &near);
}

/// Moves 1 MiB, more than the socket buffers hold: acknowledgements have to find their way as well.
fn pass(mut from: &Socket, mut to: &Socket) {
    let sent: Vec<u8> = (0..1_048_576u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    from.set_write_timeout(Some(PATIENCE)).unwrap();
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut received = Vec::new();
            to.read_to_end(&mut received).map(|_| received)
        });
        from.write_all(&sent).unwrap();
        from.shutdown(std::net::Shutdown::Write).unwrap();
        reader.join().unwrap()
    });
    assert!(received.unwrap() == sent, "data was changed or lost");
}

pub(crate) fn proc_sys() -> &'static Path {
    Path::new("/proc/sys")
}
