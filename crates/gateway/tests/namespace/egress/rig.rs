//! The engine of the gateway process, a host with servers, and the connection tracking, which the test stands in for.
//!
//! The file is long because the host has a server for each kind of traffic.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use egress::{Container, Directory, File, Policies};
use gateway::{
    Descriptors,
    conntrack::{pair, serve_with},
    engine::{Engine, SharedPolicies, Sources, Statistics},
};
use netlink::{Rt, sysctl};
use nix::{
    poll::PollFlags,
    sched::{CloneFlags, unshare},
    sys::socket::{Shutdown, shutdown},
};
use relay::{
    Options, Transparent,
    flow_log::{FlowEnd, FlowLog, FlowRecord},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{
    IPV4, IPV6, World, add_to_loopback, address, bound, connected, plan, proc_sys, start_connect,
    wait,
};

/// What takes longer than this hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const WEB: &str = "172.17.0.2";
const DB: &str = "172.17.0.3";
pub(crate) const NEW: &str = "172.17.0.4";
pub(crate) const WEB_V6: &str = "fd12::2";
const DB_V6: &str = "fd12::3";
/// Ports behind which the container "web" is, "db", and "new", which Docker does not list yet. All others are of the
/// namespace.
const WEB_PORTS: std::ops::RangeInclusive<u16> = 40_000..=49_999;
const DB_PORTS: std::ops::RangeInclusive<u16> = 50_000..=59_999;
const NEW_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Ports of which the connection tracking knows nothing.
const FORGOTTEN_PORTS: std::ops::RangeInclusive<u16> = 60_000..=60_999;

pub(crate) const SERVER: &str = "192.0.2.1:80";
pub(crate) const ECHO: &str = "192.0.2.1:9";
pub(crate) const SERVER_V6: &str = "[2001:db8::1]:80";
pub(crate) const ECHO_V6: &str = "[2001:db8::1]:9";
/// A listener whose queue is full: the kernel drops what comes.
pub(crate) const SILENT: &str = "192.0.2.1:81";
/// Packets to this address get no answer: they end on the loopback device, because the namespace does not forward.
pub(crate) const BLACK_HOLE: &str = "198.51.100.1:9";
/// An address of the gateway network itself, where nobody gets.
pub(crate) const DENIED: &str = "10.0.2.3:80";
const RESOLVER: &str = "192.0.2.53:53";
pub(crate) const DNS: &str = "10.0.2.3:53";

/// What the connection tracking does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    Answers,
    Waits,
    Fails,
    /// As if each of the two containers had the ports of the other one now.
    Swapped,
}

/// The gateway, and the host that it runs on.
pub(crate) struct Gateway {
    engine: relay::Engine,
    policies: SharedPolicies,
    pub(crate) statistics: Arc<Statistics>,
    flow_log: Arc<FlowLog>,
    tracking: Arc<(Mutex<Tracking>, Condvar)>,
    /// The end of the connection tracking.
    asked: OwnedFd,
    seen: Mutex<VecDeque<FlowRecord>>,
    _world: World,
}

/// A container, and its addresses.
type Named<'a> = (&'a str, &'a [&'a str]);

/// The containers that Docker lists.
pub(crate) const LISTED: &[Named<'_>] = &[("web", &[WEB, WEB_V6]), ("db", &[DB, DB_V6])];

pub(super) fn policies(files: &[&str], listed: &[Named<'_>]) -> Policies {
    let address = |ip: &&str| ("bridge".to_owned(), ip.parse().unwrap());
    let container = |(name, ips): &Named<'_>| Container {
        name: (*name).to_owned(),
        addresses: ips.iter().map(address).collect(),
        ..Container::default()
    };
    let containers = listed.iter().map(container).collect();
    let directory = Directory { containers, ..Directory::default() };
    let known = directory.known();
    let resolve = |text: &&str| File::parse(text).unwrap().resolve("a.toml", &directory);
    Policies { policies: files.iter().map(resolve).collect(), known, ..Policies::default() }
}

/// Whose something is: that of a container, or nobody's that is translated.
fn owner(end: SocketAddr, is_swapped: bool) -> Option<SocketAddr> {
    let port = end.port();
    let web = WEB_PORTS.contains(&port);
    if NEW_PORTS.contains(&port) {
        return Some(SocketAddr::new(NEW.parse().unwrap(), port));
    }
    if FORGOTTEN_PORTS.contains(&port) {
        return None;
    }
    if !web && !DB_PORTS.contains(&port) {
        return Some(end);
    }
    let (web_ip, db_ip) = if end.is_ipv4() { (WEB, DB) } else { (WEB_V6, DB_V6) };
    let ip = if web == is_swapped { db_ip } else { web_ip };
    Some(SocketAddr::new(ip.parse().unwrap(), port))
}

impl Gateway {
    /// With these files in force from the start.
    pub(crate) fn start(files: &[&str]) -> Self {
        Self::start_with(files, 4096)
    }

    /// The same with so many open files.
    pub(crate) fn start_with(files: &[&str], limit: u64) -> Self {
        let plan = plan(IPV4, Some(IPV6));
        let world = crate::world::world(&plan);
        sysctl::write(proc_sys(), "net.ipv4.ping_group_range", "0 0").unwrap();
        let (ours, theirs) = pair().unwrap();
        let asked = theirs.try_clone().unwrap();
        let tracking = Arc::new((Mutex::new(Tracking::Answers), Condvar::new()));
        let state = Arc::clone(&tracking);
        std::thread::spawn(move || {
            serve_with(&theirs, |queries| {
                let (state, changed) = &*state;
                let waits = |state: &mut Tracking| *state == Tracking::Waits;
                let state = *changed.wait_while(state.lock().unwrap(), waits).unwrap();
                let answer = |end| match state {
                    Tracking::Fails => Err(ErrorKind::Other.into()),
                    state => Ok(owner(end, state == Tracking::Swapped)),
                };
                queries.iter().map(|query| answer(query.outside.src)).collect()
            })
        });
        let (factory, maker) = relay::factory::pair().unwrap();
        world.spawn_in_g(move || relay::factory::serve(maker, || false).unwrap());
        // Docker is asked only for rules.
        let listed = if files.is_empty() { &[] } else { LISTED };
        let policies: SharedPolicies = Arc::new(Mutex::new(Some(policies(files, listed))));
        let statistics = Arc::new(Statistics::default());
        let flow_log = Arc::new(FlowLog::default());
        flow_log.follow();
        let Descriptors { dial, data, v4, v6, .. } = &world.inside;
        let v6 = v6.as_ref().unwrap();
        let [dial, data, v4, v6] = [dial, data, v4, v6].map(|fd| fd.try_clone().unwrap());
        let sources =
            Sources { dial, data, listeners: vec![v4, v6], conntrack: ours, overlay: None };
        let resolvers = Arc::new(Mutex::new(Some(vec![address(RESOLVER)])));
        let handler = Engine::new(
            plan,
            sources,
            resolvers,
            Arc::clone(&policies),
            Arc::clone(&statistics),
            Arc::clone(&flow_log),
        );
        let options = Options {
            transparent: Transparent::Mark(0),
            tproxy: true,
            flow_log: Some(Arc::clone(&flow_log)),
            shares: budget::Shares::gateway(limit),
            ..Options::default()
        };
        let host = std::thread::spawn(move || {
            become_host();
            relay::Engine::start_with(factory, options, Some(Box::new(handler))).unwrap()
        });
        let engine = host.join().unwrap();
        let seen = Mutex::default();
        Self { engine, policies, statistics, flow_log, tracking, asked, seen, _world: world }
    }

    /// Puts other files in force.
    pub(crate) fn change(&self, files: &[&str]) {
        self.change_with(files, LISTED);
    }

    /// The same, while Docker lists these containers.
    pub(crate) fn change_with(&self, files: &[&str], listed: &[Named<'_>]) {
        *self.policies.lock().unwrap() = Some(policies(files, listed));
        self.engine.change().unwrap();
    }

    pub(crate) fn tracking(&self, state: Tracking) {
        let (before, changed) = &*self.tracking;
        *before.lock().unwrap() = state;
        changed.notify_all();
    }

    /// Ends the connection tracking. Nobody can be asked any more when this returns.
    pub(crate) fn end_tracking(&self) {
        shutdown(self.asked.as_raw_fd(), Shutdown::Both).unwrap();
        let begin = Instant::now();
        let denied = bound(Type::DGRAM, &from(0, DENIED));
        denied.connect(&address(DENIED).into()).unwrap();
        while self.statistics.stats().events.unattributed == 0 {
            // It is answered by an error, which the next one returns.
            drop(denied.send(b"hello"));
            assert!(begin.elapsed() < PATIENCE, "the connection tracking goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The record of the flow from this port of the target namespace, once there is one.
    pub(crate) fn record(&self, port: u16) -> FlowRecord {
        let begin = Instant::now();
        loop {
            let mut seen = self.seen.lock().unwrap();
            seen.extend(self.flow_log.take().0);
            let place = seen.iter().position(|record| record.start.client.port() == port);
            if let Some(record) = place.and_then(|place| seen.remove(place)) {
                return record;
            }
            drop(seen);
            assert!(begin.elapsed() < PATIENCE, "no record of port {port}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The records of what had to make room, of what has ended since the last call.
    pub(crate) fn evicted(&self) -> Vec<FlowRecord> {
        let ended = self.flow_log.take().0.into_iter();
        ended.filter(|record| record.end == FlowEnd::Evicted).collect()
    }

    /// How often each rule and at last the default decided, of one file.
    pub(crate) fn matched(&self) -> Vec<(String, u64)> {
        let policy = self.statistics.stats().policy.unwrap();
        let [file] = &policy.files[..] else { panic!("{policy:?}") };
        let all = file.rules.iter().chain([&file.default]);
        all.map(|rule| (rule.name.clone(), rule.matched)).collect()
    }
}

/// Moves the thread into a namespace that has servers.
pub(super) fn become_host() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sysctl::write(proc_sys(), "net.ipv4.ping_group_range", "0 0").unwrap();
    let mut rt = Rt::open().unwrap();
    let lo = rt.link_index("lo").unwrap();
    rt.link_up(lo).unwrap();
    for server in [SERVER, RESOLVER, SERVER_V6] {
        add_to_loopback(address(server).ip());
    }
    let route = ["route", "add", "198.51.100.1", "dev", "lo"];
    assert!(Command::new("ip").args(route).status().unwrap().success());
    let full = bound(Type::STREAM, SILENT);
    full.listen(0).unwrap();
    // Both live as long as the test.
    std::mem::forget((TcpStream::connect(SILENT).unwrap(), full));
    for (server, datagrams) in [(SERVER, ECHO), (SERVER_V6, ECHO_V6)] {
        let listener = TcpListener::bind(server).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || echo(stream.unwrap()));
            }
        });
        answer_datagrams(datagrams, <[u8]>::to_vec);
    }
    resolve();
}

/// A name server that answers queries for [`LATE`] only when it is asked for [`NOW`], and those for [`NEVER`] never.
fn resolve() {
    let socket = UdpSocket::bind(RESOLVER).unwrap();
    std::thread::spawn(move || {
        let (mut buffer, mut late) = ([0; 2048], Vec::new());
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let asked = &buffer[..length];
            let is_for = |name: &str| asked[12..] == query(name)[12..];
            if is_for(NEVER) {
                continue;
            }
            late.push((asked.to_vec(), from));
            if is_for(LATE) {
                continue;
            }
            let all = if is_for(NOW) {
                std::mem::take(&mut late)
            } else {
                late.pop().into_iter().collect()
            };
            for (asked, from) in all {
                socket.send_to(&response(asked), from).unwrap();
            }
        }
    });
}

pub(crate) const LATE: &str = "late.example";
pub(crate) const NOW: &str = "now.example";
pub(crate) const NEVER: &str = "never.example";

/// A response with an address of each family for a minute (RFC 1035, section 4.1).
fn response(query: Vec<u8>) -> Vec<u8> {
    let mut answer = query;
    answer[2] |= 0x80;
    answer[7] = 2;
    answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    answer.extend(b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8");
    answer.extend([[0; 11].as_slice(), &[1]].concat());
    answer
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn answer_datagrams(at: &str, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&answer(&buffer[..length]), from).unwrap();
        }
    });
}

/// The end in the target namespace of what goes to `to`.
fn from(port: u16, to: &str) -> String {
    if address(to).is_ipv4() { format!("10.0.2.100:{port}") } else { format!("[fd00::100]:{port}") }
}

/// A connection from a port of the target namespace, or why there is none. After one that was made, the port is in
/// TIME_WAIT and makes no other to the same destination.
pub(crate) fn connect(port: u16, to: &str) -> Result<Socket, ErrorKind> {
    let socket = bound(Type::STREAM, &from(port, to));
    start_connect(&socket, address(to));
    connected(&socket).map(|()| socket).map_err(|error| error.kind())
}

/// A socket from a port of the target namespace.
pub(crate) fn datagrams(port: u16, to: &str) -> Socket {
    let socket = bound(Type::DGRAM, &from(port, to));
    socket.connect(&address(to).into()).unwrap();
    socket
}

/// A socket for pings with this identifier.
pub(crate) fn pings(id: u16, to: &str) -> Socket {
    pings_from(address(&from(id, to)), to)
}

/// The same from any address, with the identifier in the place of its port.
pub(crate) fn pings_from(from: SocketAddr, to: &str) -> Socket {
    let to = address(to);
    let protocol = if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&SocketAddr::new(to.ip(), 0).into()).unwrap();
    socket
}

/// The answer to a datagram, or the error that comes instead.
pub(crate) fn exchange(socket: &Socket, message: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    socket.send(message).map_err(|error| error.kind())?;
    receive(socket)
}

pub(crate) fn receive(mut socket: &Socket) -> Result<Vec<u8>, ErrorKind> {
    wait(socket, PollFlags::POLLIN);
    let mut buffer = [0; 2048];
    let length = socket.read(&mut buffer).map_err(|error| error.kind())?;
    Ok(buffer[..length].to_vec())
}

/// An echo request; the kernel sets checksum and identifier.
pub(crate) const PING: &[u8] = &[8, 0, 0, 0, 0, 0, 0, 1, b'x'];
pub(crate) const PING_V6: &[u8] = &[128, 0, 0, 0, 0, 0, 0, 1, b'x'];

/// A query for an IPv4 address.
pub(crate) fn query(name: &str) -> Vec<u8> {
    let mut query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend(b"\0\0\x01\0\x01");
    query
}
