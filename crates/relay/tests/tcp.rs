//! Connections through the engine: bytes, ends, resets, refusals.
//!
//! The file is long because it has a short test for each way in which a connection begins, goes on and ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{
    PATIENCE, backend, connect, echo, eventually, expect_noise, patient, pour, rig, rig_with,
};
use relay::{Options, Proto, Service, Traffic};
use socket2::{Domain, SockRef, Socket, Type};

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn bulk_both_ways_at_once_arrives_intact() {
    const LEN: usize = 64 << 20;
    let rig = rig();
    let addr = rig.tcp(backend(|stream| {
        std::thread::scope(|s| {
            s.spawn(|| pour(&stream, 2, LEN));
            expect_noise(&stream, 1, LEN);
        });
        // The verdict of this side, for the other one to see.
        drop(stream);
    }));
    let client = connect(addr);
    std::thread::scope(|s| {
        s.spawn(|| pour(&client, 1, LEN));
        expect_noise(&client, 2, LEN);
    });
}

#[test]
fn echoes_of_every_size_arrive_before_the_end() {
    let rig = rig();
    let addr = rig.tcp(backend(echo));
    for len in [8 << 10, 24 << 10, 64 << 10, 200 << 10, 4 << 20] {
        for _ in 0..20 {
            let client = connect(addr);
            std::thread::scope(|s| {
                s.spawn(|| pour(&client, 3, len));
                expect_noise(&client, 3, len);
            });
        }
    }
}

#[test]
fn either_side_may_end_first() {
    let rig = rig();
    // The server ends at once, then reads on.
    let addr = rig.tcp(backend(|mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got, "still here");
    }));
    let mut client = connect(addr);
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "bye");
    client.write_all(b"still here").unwrap();
    drop(client);
    // The client ends first; the server answers what it got.
    let addr = rig.publish(
        2,
        Proto::Tcp,
        "127.0.0.1",
        backend(|mut stream| {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        }),
    );
    let mut client = connect(addr);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "question");
}

#[test]
fn a_reset_of_the_server_reaches_the_client() {
    let rig = rig();
    let addr = rig.tcp(backend(|mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        reset(stream);
    }));
    let mut client = connect(addr);
    client.write_all(b"x").unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_of_the_client_reaches_the_server() {
    let rig = rig();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = rig.tcp(listener.local_addr().unwrap());
    let client = connect(addr);
    let mut server = patient(listener.accept().unwrap().0);
    reset(client);
    assert_eq!(server.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// A server that answers as it reads waits for room to write when its client dies, and does not read what is left.
#[test]
fn a_client_that_dies_with_both_directions_full_is_not_kept() {
    let rig = rig();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = rig.tcp(listener.local_addr().unwrap());
    let client = connect(addr);
    let server = patient(listener.accept().unwrap().0);
    let ended = std::thread::spawn(move || echo(server));
    client.set_nonblocking(true).unwrap();
    let block = vec![1; 1 << 20];
    let mut last = Instant::now();
    // It never reads; everything is full when nothing has gone out for a while.
    while last.elapsed() < Duration::from_millis(300) {
        if (&client).write(&block).is_ok() {
            last = Instant::now();
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let begin = Instant::now();
    reset(client);
    ended.join().unwrap();
    // A server that is not told writes until its socket gives up.
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

#[test]
fn a_reset_does_not_overtake_what_was_sent_before() {
    const LEN: usize = 6 << 20;
    let rig = rig();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = rig.tcp(listener.local_addr().unwrap());
    let mut client = connect(addr);
    let mut server = patient(listener.accept().unwrap().0);
    // The client starts to read only when the reset has happened, so bytes are held everywhere.
    let writer = std::thread::spawn(move || {
        server.write_all(&vec![5; LEN]).unwrap();
        eventually("the engine has taken everything", || {
            sys::mmsg::unacknowledged(std::os::fd::AsFd::as_fd(&server)).unwrap() == 0
        });
        // Unread bytes here are none, so the kernel resets because of the linger option only. What the
        // engine's kernel side has received stays readable to it.
        reset(server);
    });
    std::thread::sleep(Duration::from_millis(200));
    let mut got = 0;
    let mut buf = vec![0; 64 << 10];
    let end = loop {
        match client.read(&mut buf) {
            Ok(0) => break None,
            Ok(n) => got += n,
            Err(e) => break Some(e.kind()),
        }
    };
    writer.join().unwrap();
    assert_eq!((got, end), (LEN, Some(ErrorKind::ConnectionReset)));
}

#[test]
fn a_refused_client_is_let_go_after_several_tries_long_before_the_connect_timeout() {
    let rig = rig();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = rig.tcp(gone);
    let mut times: Vec<Duration> = (0..3)
        .map(|_| {
            let mut client = connect(port);
            let start = Instant::now();
            assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            start.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[0] > Duration::from_millis(150), "{times:?}");
    assert!(times[1] < Options::default().connect_timeout / 2, "{times:?}");
}

#[test]
fn a_server_that_comes_late_is_found() {
    let rig = rig();
    // Tries end after 0.18 s, in which a busy machine may not let this thread run: then another client asks.
    let found = (1..=50).any(|id| {
        // Bound it keeps the port from others; connections are refused until it listens.
        let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        late.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let target = late.local_addr().unwrap().as_socket().unwrap();
        let mut client = connect(rig.publish(id, Proto::Tcp, "127.0.0.1", target));
        client.write_all(b"early").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        late.listen(1).unwrap();
        let server = std::thread::spawn(move || {
            let Ok((server, _)) = late.accept() else { return Vec::new() };
            let mut got = vec![0; 5];
            patient(server.into()).read_exact(&mut got).unwrap();
            got
        });
        // The end: of the server, which has read, or of a client that is refused.
        let refused = client.read(&mut [0; 1]).is_err();
        if refused {
            // Nobody else knows the port.
            connect(target).write_all(b"never").unwrap();
        }
        let got = server.join().unwrap();
        assert_eq!(got, if refused { b"never" } else { b"early" });
        !refused
    });
    assert!(found, "no client has waited for its server");
}

#[test]
fn a_backend_that_never_answers_is_given_up() {
    // A full backlog drops further handshakes.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let target = full.local_addr().unwrap().as_socket().unwrap();
    let _filler = TcpStream::connect(target).unwrap();
    let opts = Options { connect_timeout: Duration::from_millis(300), ..Options::default() };
    let rig = rig_with(opts);
    let mut client = connect(rig.tcp(target));
    let start = Instant::now();
    assert!(client.read(&mut [0; 8]).is_err());
    assert!(start.elapsed() < Options::default().connect_timeout / 2, "{:?}", start.elapsed());
}

#[test]
fn removal_closes_listener_and_live_connections() {
    let rig = rig();
    let target = backend(echo);
    // At an address of its own the port is not taken by another test as soon as it is free.
    let one = rig.publish(1, Proto::Tcp, "127.98.76.1", target);
    let other = rig.publish(2, Proto::Tcp, "127.0.0.1", target);
    let mut clients: Vec<TcpStream> = (0..10).map(|_| connect(one)).collect();
    let mut bystander = connect(other);
    for client in clients.iter_mut().chain([&mut bystander]) {
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    assert!(rig.engine.remove(1));
    assert!(!rig.engine.remove(1));
    for mut client in clients {
        assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
    assert_eq!(TcpStream::connect(one).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    bystander.write_all(b"ping").unwrap();
    bystander.read_exact(&mut [0; 4]).unwrap();
}

/// Enough for a stream to be handed to another thread on the way, several times over.
const BULK: usize = 48 << 20;

#[test]
fn bulk_streams_side_by_side_arrive_intact_and_end_in_order() {
    let rig = rig_with(Options { threads: 4, ..Options::default() });
    let addr = rig.tcp(backend(|stream| {
        expect_noise(&stream, 7, BULK);
        // The client has ended its direction; this one still works.
        pour(&stream, 8, BULK);
    }));
    std::thread::scope(|s| {
        for _ in 0..6 {
            s.spawn(|| {
                let client = connect(addr);
                pour(&client, 7, BULK);
                expect_noise(&client, 8, BULK);
            });
        }
    });
}

#[test]
fn removal_closes_bulk_streams_and_spares_those_of_other_ports() {
    let rig = rig();
    let target = backend(echo);
    let (one, other) = (rig.tcp(target), rig.publish(2, Proto::Tcp, "127.0.0.1", target));
    let bulky = |addr| {
        let client = connect(addr);
        let block = vec![b'x'; BULK];
        std::thread::scope(|s| {
            s.spawn(|| (&client).write_all(&block).unwrap());
            (&client).read_exact(&mut vec![0; BULK]).unwrap();
        });
        client
    };
    let clients: Vec<TcpStream> = (0..4).map(|_| bulky(one)).collect();
    let mut bystanders: Vec<TcpStream> = (0..4).map(|_| bulky(other)).collect();
    assert!(rig.engine.remove(1));
    for mut client in clients {
        assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
    for bystander in &mut bystanders {
        bystander.write_all(b"ping").unwrap();
        bystander.read_exact(&mut [0; 4]).unwrap();
    }
    assert!(rig.engine.remove(2));
    for mut client in bystanders {
        assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
}

#[test]
fn families_may_differ_on_the_two_sides() {
    let rig = rig();
    let v4 = backend(echo);
    let v6 = TcpListener::bind("[::1]:0").unwrap();
    let through = |addr: SocketAddr| {
        let mut client = connect(addr);
        client.write_all(b"ping").unwrap();
        client
    };
    through(rig.publish(1, Proto::Tcp, "::1", v4)).read_exact(&mut [0; 4]).unwrap();
    let wild = rig.publish(2, Proto::Tcp, "::", v4);
    for ip in ["127.0.0.1", "::1"] {
        let addr = SocketAddr::new(ip.parse().unwrap(), wild.port());
        through(addr).read_exact(&mut [0; 4]).unwrap();
    }
    let _client = through(rig.publish(3, Proto::Tcp4, "127.0.0.1", v6.local_addr().unwrap()));
    patient(v6.accept().unwrap().0).read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn a_slow_reader_is_bounded_and_stalls_nobody() {
    static GIVEN_UP: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let rig = rig();
    let target = backend(|mut stream| {
        let mut kind = [0];
        stream.read_exact(&mut kind).unwrap();
        if kind == *b"f" {
            // As much as will fit between here and a client that does not read.
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut sent = 0;
            while let Ok(n) = stream.write(&[1; 64 << 10]) {
                sent += n;
            }
            MOST.fetch_max(sent, Ordering::SeqCst);
            GIVEN_UP.fetch_add(1, Ordering::SeqCst);
        } else {
            echo(stream);
        }
    });
    let addr = rig.tcp(target);
    let slow: Vec<TcpStream> = (0..70).map(|_| connect(addr)).collect();
    for mut stream in &slow {
        stream.write_all(b"f").unwrap();
    }
    let mut quick = connect(addr);
    quick.write_all(b"e").unwrap();
    for _ in 0..200 {
        quick.write_all(b"ping").unwrap();
        quick.read_exact(&mut [0; 4]).unwrap();
    }
    eventually("every server gives up", || GIVEN_UP.load(Ordering::SeqCst) == slow.len());
    let most = MOST.load(Ordering::SeqCst);
    assert!(most < 64 << 20, "{most} bytes went to someone who reads nothing");
    // What was held for the slow ones is all there.
    let (mut buf, ones) = (vec![0; 1 << 20], vec![1; 1 << 20]);
    for mut stream in &slow {
        let mut got = 0;
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            assert!(buf[..n] == ones[..n]);
            got += n;
        }
        assert!(got > 64 << 10, "{got}");
    }
}

#[test]
fn urgent_data_does_not_stall_the_stream() {
    let rig = rig();
    let mut client = connect(rig.tcp(backend(echo)));
    for _ in 0..50 {
        client.write_all(b"ab").unwrap();
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        client.write_all(b"cd").unwrap();
        // The urgent byte itself is not forwarded, as with any reader that does not ask for it.
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abcd");
    }
}

#[test]
fn urgent_data_does_not_stall_a_bulk_stream() {
    const LEN: usize = 4 << 20;
    let rig = rig();
    let addr = rig.tcp(backend(echo));
    let client = connect(addr);
    std::thread::scope(|s| {
        s.spawn(|| {
            (&client).write_all(&vec![1; LEN]).unwrap();
            SockRef::from(&client).send_out_of_band(b"!").unwrap();
            (&client).write_all(&vec![1; LEN]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        (&client).read_to_end(&mut got).unwrap();
        assert!(got == vec![1; 2 * LEN], "{} bytes", got.len());
    });
}

/// Waits until a connection is over in both directions, without reading or writing.
fn hung_up(stream: &TcpStream) {
    use nix::poll::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLHUP)];
    let n = poll(&mut fds, u16::try_from(common::PATIENCE.as_millis()).unwrap()).unwrap();
    assert_eq!(n, 1, "the reset was not passed on");
}

#[test]
fn a_reset_behind_an_orderly_end_is_passed_on() {
    let rig = rig();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let traffic = std::sync::Arc::<relay::Traffic>::default();
    let listener = relay::listen::bind(Proto::Tcp4, None, 0).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], common::port_of(&listener)));
    let target = server.local_addr().unwrap();
    rig.engine
        .add(1, listener, Service { traffic: Arc::clone(&traffic), ..Service::to(target) })
        .unwrap();
    for client_first in [true, false] {
        let client = connect(addr);
        let backend = patient(server.accept().unwrap().0);
        let (mut first, mut other) =
            if client_first { (client, backend) } else { (backend, client) };
        first.write_all(b"last words").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        other.read_to_string(&mut got).unwrap();
        assert_eq!(got, "last words");
        // The other side keeps its connection and says nothing.
        reset(first);
        hung_up(&other);
        eventually("both sockets are closed", || {
            traffic.active.load(std::sync::atomic::Ordering::Relaxed) == 0
        });
    }
}

#[test]
fn a_reset_is_passed_on_to_a_side_that_takes_no_bytes() {
    let rig = rig();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = rig.tcp(server.local_addr().unwrap());
    let client = connect(addr);
    let backend = patient(server.accept().unwrap().0);
    client.set_nonblocking(true).unwrap();
    let block = vec![0; 64 << 10];
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(300) {
        match (&client).write(&block) {
            Ok(_) => last = Instant::now(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => panic!("{e}"),
        }
    }
    reset(client);
    hung_up(&backend);
}

#[test]
fn clients_that_are_not_allowed_are_reset_before_the_server_hears_of_them() {
    let rig = rig();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let traffic = Arc::new(Traffic::default());
    let allowed = vec!["127.0.0.2/32".parse().unwrap()].into();
    let target = server.local_addr().unwrap();
    let service = Service { target, allowed, traffic: Arc::clone(&traffic) };
    let addr = rig.serve(1, Proto::Tcp, "127.0.0.1", service);
    let from = |client: &str| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&format!("{client}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        patient(socket.into())
    };
    for _ in 0..3 {
        let error = from("127.0.0.1").read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    from("127.0.0.2").write_all(b"hello").unwrap();
    let mut said = String::new();
    server.accept().unwrap().0.read_to_string(&mut said).unwrap();
    assert_eq!(said, "hello");
    assert_eq!(traffic.refused.load(Ordering::Relaxed), 3);
    assert_eq!(traffic.opened.load(Ordering::Relaxed), 1);
}
