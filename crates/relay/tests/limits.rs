//! Many ports, many connections, too few descriptors, a dead factory.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, backend, connect, echo, eventually, pair, patient, port_of, rig, rig_with, shares,
    udp_echo,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay::{Engine, Options, Proto, Service, Transparent};
use socket2::{Domain, Socket, Type};

fn ping(mut client: &TcpStream) -> std::io::Result<()> {
    client.write_all(b"ping")?;
    client.read_exact(&mut [0; 4])
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs one ignored test of this binary in a process of its own, so that limits and descriptor counts
/// are its own too.
fn alone(test: &str) {
    run_alone(Command::new(std::env::current_exe().unwrap()), test);
}

fn run_alone(mut command: Command, test: &str) {
    let args = ["--exact", test, "--ignored", "--nocapture", "--test-threads=1"];
    let out = command.args(args).output().unwrap();
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn two_thousand_connections_at_once() {
    let rig = rig();
    let addr = rig.tcp(backend(echo));
    let clients: Vec<TcpStream> = (0..2000).map(|_| connect(addr)).collect();
    for _ in 0..3 {
        clients.iter().for_each(|client| ping(client).unwrap());
    }
}

#[test]
fn a_capped_engine_makes_clients_wait_and_loses_none() {
    // Room for a few dozen connections at a time.
    let rig = rig_with(Options { shares: shares(200), ..Options::default() });
    let addr = rig.tcp(backend(echo));
    let threads: Vec<_> = (0..400)
        .map(|_| {
            std::thread::spawn(move || {
                let client = connect(addr);
                ping(&client).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                ping(&client).unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_port_survives_running_out_of_descriptors() {
    alone("exhausted_alone");
}

#[test]
#[ignore = "run in a process of its own by a_port_survives_running_out_of_descriptors"]
fn exhausted_alone() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // The engine believes in a high limit, so that it meets the real one.
    let rig = rig_with(Options { shares: shares(100_000), ..Options::default() });
    let addr = rig.tcp(backend(echo));
    ping(&connect(addr)).unwrap();
    // The clients' descriptors come first; then accept(2) has next to none.
    let clients: Vec<TcpStream> = (0..60).map(|_| connect(addr)).collect();
    for client in &clients {
        ping(client).unwrap();
    }
    let few = u64::try_from(open_files() + 40).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, few, hard).unwrap();
    let mut late = Vec::new();
    while let Ok(client) = TcpStream::connect(addr) {
        late.push(patient(client));
    }
    assert!(!late.is_empty());
    std::thread::sleep(Duration::from_millis(300));
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // Nobody was lost, and newcomers are served.
    for client in clients.iter().chain(&late).chain([&connect(addr)]) {
        ping(client).unwrap();
    }
}

#[test]
fn ten_thousand_ports_come_and_go() {
    alone("ten_thousand_alone");
}

#[test]
#[ignore = "run in a process of its own by ten_thousand_ports_come_and_go"]
fn ten_thousand_alone() {
    let rig = rig();
    let (tcp, udp) = (backend(echo), udp_echo("127.0.0.1:0"));
    let before = open_files();
    let start = Instant::now();
    // An address of our own, so that the ports are certainly free.
    let ip = IpAddr::from([127, 98, 76, 54]);
    for id in 0..10_000u16 {
        let (proto, target) = if id % 10 == 9 { (Proto::Udp, udp) } else { (Proto::Tcp, tcp) };
        let listener = relay::listen::bind(proto, Some(ip), 10_000 + id).unwrap();
        rig.engine.add(id.into(), listener, Service::to(target)).unwrap();
    }
    let added = start.elapsed();
    for port in (10_000..20_000).step_by(1000) {
        ping(&connect(SocketAddr::new(ip, port))).unwrap();
    }
    let start = Instant::now();
    assert!((0..10_000).all(|id| rig.engine.remove(id)));
    let removed = start.elapsed();
    println!("added in {added:?}, removed in {removed:?}");
    eventually("every descriptor is closed but the pool's", || open_files() < before + 100);
}

#[test]
fn connections_and_flows_leave_no_descriptor_behind() {
    alone("leaks_alone");
}

#[test]
#[ignore = "run in a process of its own by connections_and_flows_leave_no_descriptor_behind"]
fn leaks_alone() {
    let rig = rig();
    let addr = rig.tcp(backend(|mut stream| {
        let mut buf = vec![0; 256 << 10];
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            let _ = stream.write_all(&buf[..n]);
        }
    }));
    ping(&connect(addr)).unwrap();
    let before = open_files();
    for i in 0..500 {
        let mut client = connect(addr);
        match i % 3 {
            0 => ping(&client).unwrap(),
            // Leaves while bytes are in pipes and buffers.
            1 => drop(client.write_all(&vec![0; 512 << 10])),
            _ => {}
        }
    }
    eventually("every descriptor is closed but the pool's", || open_files() < before + 80);
}

/// Resident memory, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn many_servers_that_do_not_read_cost_little_memory() {
    alone("deaf_servers_alone");
}

#[test]
#[ignore = "run in a process of its own by many_servers_that_do_not_read_cost_little_memory"]
fn deaf_servers_alone() {
    const MANY: usize = 600;
    let rig = rig();
    // Nobody accepts: connections stay in the queue.
    let deaf = relay::listen::bind(Proto::Tcp4, Some([127, 0, 0, 1].into()), 0).unwrap();
    let addr = rig.tcp(SocketAddr::from(([127, 0, 0, 1], port_of(&deaf))));
    let before = memory();
    let clients: Vec<TcpStream> = (0..MANY).map(|_| connect(addr)).collect();
    for client in &clients {
        let client = socket2::SockRef::from(client);
        client.set_send_buffer_size(16 << 10).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let block = vec![7; 64 << 10];
    // Until two rounds in a row find every queue full.
    let mut idle = 0;
    eventually("nobody takes any more", || {
        let write = |mut client: &TcpStream| client.write(&block).unwrap_or(0);
        let written: usize = clients.iter().map(write).sum();
        idle = if written == 0 { idle + 1 } else { 0 };
        idle == 2
    });
    let more = memory().saturating_sub(before);
    println!("{} KiB more", more >> 10);
    assert!(more < 26 << 20, "{} KiB more", more >> 10);
}

#[test]
fn a_stalled_namespace_costs_little_memory_however_many_send() {
    alone("stalled_alone");
}

#[test]
#[ignore = "run in a process of its own by a_stalled_namespace_costs_little_memory_however_many_send"]
fn stalled_alone() {
    let (ours, _stalled) = pair();
    let limit = sys::rlimit::raise_nofile().unwrap().hard;
    let engine = Engine::start(ours, Options { shares: shares(limit), ..Options::default() });
    let engine = engine.unwrap();
    let listener = relay::listen::bind(Proto::Udp4, Some([127, 0, 0, 1].into()), 0).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], port_of(&listener)));
    let traffic = Arc::<relay::Traffic>::default();
    engine
        .add(
            1,
            listener,
            Service { traffic: Arc::clone(&traffic), ..Service::to(udp_echo("127.0.0.1:0")) },
        )
        .unwrap();
    let before = memory();
    let flows = || traffic.opened.load(std::sync::atomic::Ordering::Relaxed);
    // Kept, or a port would be used twice.
    let mut clients = Vec::new();
    for number in 1..=2000 {
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..4 {
            client.send_to(&[7; 30_000], addr).unwrap();
        }
        // So that none is lost on the way.
        eventually("it has a flow", || flows() == number);
        clients.push(client);
    }
    let more = memory().saturating_sub(before);
    println!("{} KiB more", more >> 10);
    // 230 MB were sent; 8 MiB may wait, and batches are received in buffers.
    assert!(more < 24 << 20, "{} KiB more", more >> 10);
}

/// CPU time of the thread "ports".
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let ticks = stats.filter(|stat| stat.contains("(ports)")).map(|stat| {
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    });
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

#[test]
fn a_dead_factory_neither_spins_nor_takes_ports_away() {
    alone("dead_factory_alone");
}

#[test]
#[ignore = "run in a process of its own by a_dead_factory_neither_spins_nor_takes_ports_away"]
fn dead_factory_alone() {
    let (ours, theirs) = pair();
    let engine = Engine::start(ours, Options::default()).unwrap();
    let listener = relay::listen::bind(Proto::Tcp4, Some([127, 0, 0, 1].into()), 0).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], port_of(&listener)));
    engine.add(1, listener, Service::to(backend(echo))).unwrap();
    // Waits for a factory that is slow, and is let go when it dies.
    let mut client = connect(addr);
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(theirs);
    patient(client).read(&mut [0; 1]).unwrap_err();
    // Later ones too, at once.
    let refused = TcpStream::connect(addr).and_then(|client| patient(client).read(&mut [0; 1]));
    assert!(matches!(refused, Ok(0) | Err(_)));
    let before = cpu_time();
    std::thread::sleep(Duration::from_millis(300));
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(100), "{used:?} of CPU time while nothing happens");
}

#[test]
fn stopping_closes_everything_and_ends_the_factory() {
    let rig = rig();
    let addr = rig.tcp(backend(echo));
    let mut client = connect(addr);
    ping(&client).unwrap();
    let common::Rig { engine, factory } = rig;
    drop(engine);
    factory.join().unwrap().unwrap();
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn the_backend_sees_the_client_address_where_it_can() {
    let root = nix::unistd::geteuid().is_root();
    assert!(root, "this test needs root, for a network namespace and foreign addresses");
    let mut unshare = Command::new("unshare");
    unshare.arg("--net").arg(std::env::current_exe().unwrap());
    run_alone(unshare, "transparent_alone");
}

#[test]
#[ignore = "run in a network namespace by the_backend_sees_the_client_address_where_it_can"]
fn transparent_alone() {
    for args in
        ["link set lo up", "addr add 192.0.2.1/32 dev lo", "addr add 2001:db8::1/128 dev lo nodad"]
    {
        assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
    }
    // The kernel adds the route of an IPv6 address later, when it gets the lock that all namespaces share. Until then a route
    // that refuses packets is in its place, and connect(2) of a datagram socket may succeed.
    let end = Instant::now() + PATIENCE;
    let is_local = |line: &str| {
        // Destination, its prefix in hexadecimal, six more, flags (`RTF_LOCAL` is the highest bit).
        let flags = u32::from_str_radix(line.split_whitespace().nth(8).unwrap(), 16).unwrap();
        line.starts_with("20010db8000000000000000000000001 80 ") && flags >> 31 == 1
    };
    while !std::fs::read_to_string("/proc/net/ipv6_route").unwrap().lines().any(is_local) {
        assert!(Instant::now() < end, "there is no route to 2001:db8::1");
        std::thread::yield_now();
    }
    let seen = |transparent, reuse, client: &str, port: &str, server: &str| {
        let rig = rig_with(Options { transparent, ..Options::default() });
        let server = TcpListener::bind((server, 0)).unwrap();
        let at = rig.publish(1, Proto::Tcp, port, server.local_addr().unwrap());
        let from = SocketAddr::new(client.parse().unwrap(), 0);
        let sock = Socket::new(Domain::for_address(from), Type::STREAM, None).unwrap();
        // In one namespace the client's own socket holds the address too, unless both share it.
        sock.set_reuse_address(reuse).unwrap();
        sock.bind(&from.into()).unwrap();
        sock.connect(&SocketAddr::new(client.parse().unwrap(), at.port()).into()).unwrap();
        let client = patient(TcpStream::from(sock));
        let (stream, peer) = server.accept().unwrap();
        let echoing = std::thread::spawn(move || echo(patient(stream)));
        ping(&client).unwrap();
        let same = peer == client.local_addr().unwrap();
        drop(client);
        echoing.join().unwrap();
        same
    };
    let on = Transparent::Mark(100);
    assert!(seen(on, true, "192.0.2.1", "0.0.0.0", "127.0.0.1"));
    assert!(seen(on, true, "2001:db8::1", "::", "::1"));
    assert!(!seen(Transparent::Off, true, "192.0.2.1", "0.0.0.0", "127.0.0.1"));
    // Loopback clients, other families and addresses that are taken go the ordinary way.
    assert!(!seen(on, true, "127.0.0.5", "0.0.0.0", "127.0.0.1"));
    assert!(!seen(on, true, "192.0.2.1", "0.0.0.0", "::1"));
    assert!(!seen(on, false, "192.0.2.1", "0.0.0.0", "127.0.0.1"));
}
