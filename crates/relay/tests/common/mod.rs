//! An engine whose factory runs in a thread of the same namespace, and backends to talk to.

#![allow(dead_code, reason = "each test binary uses its own part of these helpers")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use budget::{Budget, DataPath, Shares};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use relay::{Engine, Listener, Options, Proto, Service};
use socket2::{Domain, Socket, Type};

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) factory: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

pub(crate) fn rig_with(opts: Options) -> Rig {
    let (ours, theirs) = pair();
    let factory = std::thread::spawn(move || relay::factory::serve(theirs, || false));
    Rig { engine: Engine::start(ours, opts).unwrap(), factory }
}

/// What a parent with this limit of open files lets its engine do.
pub(crate) fn shares(limit: u64) -> Shares {
    Budget::new(limit, DataPath::Parent).shares
}

pub(crate) fn rig() -> Rig {
    rig_with(Options {
        shares: shares(sys::rlimit::raise_nofile().map_or(1024, |limit| limit.hard)),
        ..Options::default()
    })
}

pub(crate) fn port_of(listener: &Listener) -> u16 {
    let (Listener::Tcp(fd) | Listener::Udp(fd)) = listener;
    let sock = Socket::from(fd.as_fd().try_clone_to_owned().unwrap());
    sock.local_addr().unwrap().as_socket().unwrap().port()
}

impl Rig {
    /// Publishes `target` on a port of the kernel's choice at `ip`.
    pub(crate) fn publish(
        &self,
        id: u64,
        proto: Proto,
        ip: &str,
        target: SocketAddr,
    ) -> SocketAddr {
        self.serve(id, proto, ip, Service::to(target))
    }

    /// The same for a service that is not for everybody, or whose counters are looked at.
    pub(crate) fn serve(&self, id: u64, proto: Proto, ip: &str, service: Service) -> SocketAddr {
        let ip: IpAddr = ip.parse().unwrap();
        let listener = relay::listen::bind(proto, Some(ip), 0).unwrap();
        let port = port_of(&listener);
        self.engine.add(id, listener, service).unwrap();
        SocketAddr::new(ip, port)
    }

    pub(crate) fn tcp(&self, target: SocketAddr) -> SocketAddr {
        self.publish(1, Proto::Tcp, "127.0.0.1", target)
    }
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    patient(stream)
}

pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A listener that hands each connection to `serve` on a thread of its own.
pub(crate) fn backend(serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    // Room for all that come before this thread may run again: the kernel drops what is beyond, and a client asks again
    // after ever longer pauses.
    listener.listen(4096).unwrap();
    let listener = TcpListener::from(listener);
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A test may take the descriptors away for a while.
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            std::thread::spawn(move || serve(patient(stream)));
        }
    });
    addr
}

pub(crate) fn echo(mut stream: TcpStream) {
    let mut buf = vec![0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        if stream.write_all(&buf[..n]).is_err() {
            return;
        }
    }
}

pub(crate) fn udp(addr: &str) -> UdpSocket {
    let sock = UdpSocket::bind(addr).unwrap();
    sock.set_read_timeout(Some(PATIENCE)).unwrap();
    sock
}

/// Answers each datagram with itself.
pub(crate) fn udp_echo(addr: &str) -> SocketAddr {
    let sock = UdpSocket::bind(addr).unwrap();
    let addr = sock.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buf = vec![0; 65_536];
        while let Ok((n, peer)) = sock.recv_from(&mut buf) {
            let _ = sock.send_to(&buf[..n], peer);
        }
    });
    addr
}

/// Waits for something that happens on another thread.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A stream of bytes that shows any loss, repetition or disorder.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Writes `len` bytes of noise (a multiple of 8 KiB), then ends this direction.
pub(crate) fn pour(stream: &TcpStream, seed: u64, len: usize) {
    let (mut noise, mut buf) = (Noise::new(seed), vec![0; 8 << 10]);
    for _ in 0..len / buf.len() {
        noise.fill(&mut buf);
        (&*stream).write_all(&buf).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
}

/// Reads to the end and compares with what [`pour`] writes.
pub(crate) fn expect_noise(mut stream: &TcpStream, seed: u64, len: usize) {
    let (mut noise, mut want, mut got) = (Noise::new(seed), vec![0; 8 << 10], vec![0; 8 << 10]);
    for at in 0..len / want.len() {
        noise.fill(&mut want);
        stream.read_exact(&mut got).unwrap_or_else(|e| panic!("after {at} blocks: {e}"));
        assert!(want == got, "block {at} differs");
    }
    assert_eq!(stream.read(&mut got).unwrap(), 0, "more than was written");
}
