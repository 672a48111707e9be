//! Many ports, many connections, too few descriptors, a dead factory.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{backend, connect, echo, eventually, pair, patient, port_of, rig, rig_with, udp_echo};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay::{Engine, Options, Proto};

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
    let exe = std::env::current_exe().unwrap();
    let args = ["--exact", test, "--ignored", "--nocapture", "--test-threads=1"];
    let out = Command::new(exe).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
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
    let rig = rig_with(Options { nofile: 200, ..Options::default() });
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
    let rig = rig_with(Options { nofile: 100_000, ..Options::default() });
    let addr = rig.tcp(backend(echo));
    ping(&connect(addr)).unwrap();
    // The clients' descriptors come first; then accept(2) has next to none.
    let clients: Vec<TcpStream> = (0..60).map(|_| connect(addr)).collect();
    setrlimit(Resource::RLIMIT_NOFILE, open_files() as u64 + 4, hard).unwrap();
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
    let mut samples = Vec::new();
    for id in 0..10_000 {
        let proto = if id % 10 == 9 { Proto::Udp } else { Proto::Tcp };
        let ip = std::net::IpAddr::from([127, 0, (id / 20_000) as u8, 1]);
        let listener = relay::listen::bind(proto, Some(ip), 0).unwrap();
        if id % 1000 == 0 {
            samples.push(std::net::SocketAddr::new(ip, port_of(&listener)));
        }
        rig.engine.add(id, listener, if proto.is_udp() { udp } else { tcp }).unwrap();
    }
    let added = start.elapsed();
    for addr in samples {
        ping(&connect(addr)).unwrap();
    }
    let start = Instant::now();
    assert!((0..10_000).all(|id| rig.engine.remove(id)));
    let removed = start.elapsed();
    println!("added in {added:?}, removed in {removed:?}");
    assert!(added + removed < Duration::from_secs(10), "{added:?} {removed:?}");
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

/// CPU time of the thread "ports".
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
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
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port_of(&listener)));
    engine.add(1, listener, backend(echo)).unwrap();
    // Waits for a factory that is slow, and is let go when it dies.
    let mut client = connect(addr);
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(theirs);
    patient(client).read(&mut [0; 1]).unwrap_err();
    // Later ones too, at once.
    assert!(matches!(connect(addr).read(&mut [0; 1]), Ok(0) | Err(_)));
    let before = cpu_time();
    std::thread::sleep(Duration::from_millis(300));
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(100), "{used:?} of CPU time while nothing happens");
    let (ours, theirs) = pair();
    std::thread::spawn(move || relay::factory::serve(theirs));
    engine.replace_factory(ours).unwrap();
    ping(&connect(addr)).unwrap();
}

#[test]
fn stopping_closes_everything_and_ends_the_factory() {
    let rig = rig();
    let addr = rig.tcp(backend(echo));
    let mut client = connect(addr);
    ping(&client).unwrap();
    let common::Rig { engine, factory } = rig;
    engine.stop();
    factory.join().unwrap().unwrap();
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).is_err());
}
