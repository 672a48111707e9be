//! The target and gateway namespaces, and waiting for what happens in them.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use gateway::{
    NetworkConfig,
    namespace::{build, loopback, set_for_target},
    network_config::{HostLoopback, Net},
};
use netlink::{Route, Rt};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sched::{CloneFlags, setns, unshare},
    sys::socket::SockaddrStorage,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Longer than any wait for something that does happen, in milliseconds.
const PATIENCE: u16 = 5000;

pub(crate) const IPV4: &str = "10.0.2.100 10.0.2.2 10.0.2.3";
pub(crate) const IPV6: &str = "fd00::100 fd00::2 fd00::3";

/// `addresses`: those of the child, of the gateway, of DNS.
fn net(addresses: &str, prefix: u8) -> Net {
    let all: Vec<IpAddr> = addresses.split(' ').map(|text| text.parse().unwrap()).collect();
    Net { child: all[0], gateway: all[1], dns: all[2], prefix }
}

pub(crate) fn plan(v4: &str, v6: Option<&str>) -> NetworkConfig {
    NetworkConfig {
        ifname: "tap0".to_owned(),
        mtu: 1500,
        v4: net(v4, 24),
        v6: v6.map(|addresses| net(addresses, 64)),
        host_loopback: HostLoopback::Closed,
    }
}

pub(crate) fn proc_sys() -> &'static Path {
    Path::new("/proc/sys")
}

pub(crate) struct World {
    pub(crate) inside: gateway::Descriptors,
    netns: File,
}

/// Moves the thread into a namespace that is to be A. A thread of the test harness runs one test and ends, so nothing
/// has to be moved back.
pub(crate) fn enter_a() -> File {
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("this test needs root: it makes network namespaces with unshare(2)");
    let mut rt = Rt::open().unwrap();
    let lo = rt.link_index("lo").unwrap();
    rt.link_up(lo).unwrap();
    set_for_target(proc_sys()).unwrap();
    own_netns()
}

fn own_netns() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// A thread that becomes the gateway namespace and ends; its descriptors keep the gateway namespace.
pub(crate) fn build_beside(
    a: &File,
    plan: &NetworkConfig,
    proc_sys: &Path,
) -> anyhow::Result<World> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (conntrack, _) = gateway::conntrack::pair()?;
            let inside = build(plan, a.as_fd(), proc_sys, conntrack)?;
            Ok(World { inside, netns: own_netns() })
        });
        thread.join().unwrap()
    })
}

/// Both namespaces, the target namespace set up as its owner does; the calling thread is in the target namespace.
pub(crate) fn world(plan: &NetworkConfig) -> World {
    let a = enter_a();
    let world = build_beside(&a, plan, proc_sys()).unwrap();
    let mut rt = Rt::open().unwrap();
    let tap = rt.link_index(&plan.ifname).unwrap();
    rt.link_up(tap).unwrap();
    assert!(
        loopback::admit(plan, proc_sys()).unwrap(),
        "this kernel lets only root rewrite packets"
    );
    for net in plan.nets() {
        rt.add_address(tap, net.child, net.prefix).unwrap();
        rt.add_default_route(net.gateway, tap).unwrap();
    }
    world
}

/// Gives an address to the loopback interface of the thread's namespace. The kernel adds the route of an IPv6 address a
/// moment after the address; until then a route that refuses packets is in its place.
pub(crate) fn add_to_loopback(address: IpAddr) {
    let mut rt = Rt::open().unwrap();
    let lo = rt.link_index("lo").unwrap();
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    rt.add_address(lo, address, prefix).unwrap();
    let begin = Instant::now();
    while rt.route(address).ok() != Some(Route::Local) {
        assert!(begin.elapsed() < Duration::from_millis(PATIENCE.into()), "no route to {address}");
        std::thread::yield_now();
    }
}

pub(crate) fn dual_stack() -> World {
    world(&plan(IPV4, Some(IPV6)))
}

impl World {
    /// Runs something in the gateway namespace.
    pub(crate) fn in_g<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            thread.join().unwrap()
        })
    }

    /// Starts a thread in the gateway namespace.
    pub(crate) fn spawn_in_g(&self, action: impl FnOnce() + Send + 'static) {
        let netns = self.netns.try_clone().unwrap();
        std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            action();
        });
    }

    /// A socket of the gateway namespace bound to an address of a client in the world.
    pub(crate) fn foreign(&self, kind: Type, client: &str) -> Socket {
        let client = address(client);
        let socket = self.in_g(|| socket(kind, client));
        socket.set_ip_transparent_v4(true).unwrap();
        socket.bind(&client.into()).unwrap();
        socket
    }

    /// Accepts by the listener of the family.
    pub(crate) fn accept(&self, ipv6: bool) -> Socket {
        let listener = if ipv6 { self.inside.v6.as_ref().unwrap() } else { &self.inside.v4 };
        let listener = Socket::from(listener.try_clone().unwrap());
        wait(&listener, PollFlags::POLLIN);
        listener.accept().unwrap().0
    }

    /// Neither tun has a packet. What is sent has crossed the veth when the sender's call returns, or when its answer
    /// is there.
    pub(crate) fn assert_silent(&self) {
        for (name, tun) in [("dial", &self.inside.dial), ("data", &self.inside.data)] {
            if let Some(packet) = try_read(tun) {
                panic!("unexpected packet on tun {name}: {packet:02x?}");
            }
        }
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A non-blocking socket in the namespace of the thread.
fn socket(kind: Type, family_of: SocketAddr) -> Socket {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(family_of), kind, Some(protocol)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// A socket in the target namespace, bound to `local`.
pub(crate) fn bound(kind: Type, local: &str) -> Socket {
    let local = address(local);
    let socket = socket(kind, local);
    socket.set_reuse_address(true).unwrap();
    socket.bind(&local.into()).unwrap();
    socket
}

/// A listener in the target namespace.
pub(crate) fn listen(local: &str) -> Socket {
    let socket = bound(Type::STREAM, local);
    socket.listen(16).unwrap();
    socket
}

/// Begins to connect.
pub(crate) fn start_connect(socket: &Socket, to: SocketAddr) {
    let outcome = socket.connect(&to.into()).unwrap_err();
    assert_eq!(outcome.raw_os_error(), Some(nix::libc::EINPROGRESS), "{outcome}");
}

/// Waits for the end of [`start_connect`].
pub(crate) fn connected(socket: &Socket) -> std::io::Result<()> {
    loop {
        wait(socket, PollFlags::POLLOUT);
        if let Some(outcome) = relay::connect_outcome(socket) {
            return Ok(outcome?);
        }
    }
}

pub(crate) fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

pub(crate) fn peer(socket: &Socket) -> SocketAddr {
    socket.peer_addr().unwrap().as_socket().unwrap()
}

pub(crate) fn wait(fd: &impl AsFd, event: PollFlags) {
    let mut fds = [PollFd::new(fd.as_fd(), event)];
    assert_eq!(poll(&mut fds, PATIENCE).unwrap(), 1, "nothing happened in {PATIENCE} ms");
}

/// The next packet of a tun.
pub(crate) fn read_tun(tun: &OwnedFd) -> Vec<u8> {
    wait(tun, PollFlags::POLLIN);
    try_read(tun).unwrap()
}

fn try_read(tun: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    match nix::unistd::read(tun, &mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Some(buffer)
        }
        Err(nix::errno::Errno::EAGAIN) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Lets a packet arrive by a tun.
pub(crate) fn write_tun(tun: &OwnedFd, packet: &[u8]) {
    assert_eq!(nix::unistd::write(tun, packet).unwrap(), packet.len());
}

/// Receives one datagram and its sender.
pub(crate) fn receive(socket: &Socket) -> (Vec<u8>, SocketAddr) {
    wait(socket, PollFlags::POLLIN);
    let mut buffer = vec![0; 65_536];
    let socket = UdpSocket::from(socket.try_clone().unwrap());
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, from)
}

/// Moves a few bytes each way over a connection.
pub(crate) fn assert_bytes_pass(one: &Socket, other: &Socket) {
    for (mut from, mut to) in [(one, other), (other, one)] {
        let mut buffer = [0; 16];
        from.write_all(b"hello").unwrap();
        wait(to, PollFlags::POLLIN);
        let length = to.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
    }
}

/// An address of a network namespace.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) link: String,
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u32,
}

/// The addresses of the namespace of the calling thread: IPv4, then IPv6, each by link.
pub(crate) fn addresses() -> Vec<Address> {
    let ip = |address: SockaddrStorage| match address.as_sockaddr_in() {
        Some(v4) => Some(IpAddr::from(v4.ip())),
        None => address.as_sockaddr_in6().map(|v6| v6.ip().into()),
    };
    let found = nix::ifaddrs::getifaddrs().unwrap().filter_map(|found| {
        let prefix = match ip(found.netmask?)? {
            IpAddr::V4(mask) => mask.to_bits().count_ones(),
            IpAddr::V6(mask) => mask.to_bits().count_ones(),
        };
        Some(Address { link: found.interface_name, ip: ip(found.address?)?, prefix })
    });
    found.collect()
}
