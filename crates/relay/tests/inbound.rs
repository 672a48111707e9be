//! What an event handler hears of published ports, and that it may say later whose a connection or flow was.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use relay::event_handler::Tag;
use relay::room::Held;
use relay::slab::Key;
use relay::{
    Engine, EventHandler, EventLoop, Inbound, Listener, Options, Proto, Service, Traffic, factory,
    listen,
};
use socket2::Socket;

/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The container's address.
const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Passes on what it hears.
struct Ear(Sender<Inbound>);

impl EventHandler for Ear {
    fn start(&mut self, _: &mut EventLoop) -> io::Result<()> {
        Ok(())
    }

    fn event(&mut self, _: &mut EventLoop, _: Tag, _: EpollFlags) {}

    fn socket(&mut self, _: &mut EventLoop, _: Key, _: Option<Socket>) {}

    fn inbound(&mut self, _: &mut EventLoop, inbound: Inbound) {
        // The test may have ended.
        let _ = self.0.send(inbound);
    }

    fn turn(&mut self, _: &mut EventLoop) {}

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn held(&self) -> Held {
        Held::default()
    }

    fn give_way(&mut self, _: &mut EventLoop, _: usize) {}
}

struct Rig {
    engine: Engine,
    heard: Receiver<Inbound>,
    traffic: Arc<Traffic>,
}

impl Rig {
    fn start() -> Self {
        let (ours, theirs) = factory::pair().unwrap();
        std::thread::spawn(move || factory::serve(theirs, || false));
        let (ear, heard) = channel();
        let handler = Some(Box::new(Ear(ear)) as Box<dyn EventHandler>);
        let engine = Engine::start_with(ours, Options::default(), handler).unwrap();
        Self { engine, heard, traffic: Arc::default() }
    }

    fn publish(&self, proto: Proto, target: SocketAddr) -> SocketAddr {
        let listener = listen::bind(proto, Some([127, 0, 0, 1].into()), 0).unwrap();
        let (Listener::Tcp(fd) | Listener::Udp(fd)) = &listener;
        let address = Socket::from(fd.try_clone().unwrap()).local_addr().unwrap();
        let service = Service { traffic: Arc::clone(&self.traffic), ..Service::to(target) };
        self.engine.add(1, listener, service).unwrap();
        address.as_socket().unwrap()
    }

    fn hear(&self) -> Inbound {
        self.heard.recv_timeout(PATIENCE).unwrap()
    }
}

fn numbers(traffic: &Traffic) -> [u64; 5] {
    let Traffic { active, opened, failed, up, down, .. } = traffic;
    [active, opened, failed, up, down].map(|number| number.load(Ordering::Relaxed))
}

fn eventually(traffic: &Traffic, expected: [u64; 5]) {
    let begin = Instant::now();
    while numbers(traffic) != expected {
        assert!(begin.elapsed() < PATIENCE, "{:?}, not {expected:?}", numbers(traffic));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_connection_is_attributed_while_it_is_open_or_after_its_end() {
    let rig = Rig::start();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    let port = rig.publish(Proto::Tcp, target);
    for open in [true, false] {
        let container = Arc::new(Traffic::default());
        let mut client = TcpStream::connect(port).unwrap();
        let (mut accepted, from) = server.accept().unwrap();
        let heard = rig.hear();
        assert_eq!((heard.udp, heard.client, heard.server), (false, from, target));
        if open {
            heard.attribution.to(IP, Arc::clone(&container));
        }
        client.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        accepted.write_all(b"hi").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        if open {
            eventually(&container, [1, 1, 0, 5, 2]);
        }
        drop((client, accepted));
        let ended = if open { [0, 1, 0, 5, 2] } else { [0, 2, 0, 10, 4] };
        eventually(&rig.traffic, ended);
        heard.attribution.to(IP, Arc::clone(&container));
        eventually(&container, [0, 1, 0, 5, 2]);
    }
}

#[test]
fn a_server_that_refuses_is_heard_of_once() {
    let rig = Rig::start();
    // Nobody else gets this address.
    let target = {
        let server = TcpListener::bind("127.77.0.9:0").unwrap();
        server.local_addr().unwrap()
    };
    let port = rig.publish(Proto::Tcp, target);
    let mut client = TcpStream::connect(port).unwrap();
    let heard = rig.hear();
    assert_eq!((heard.udp, heard.server), (false, target));
    assert!(heard.client.ip().is_loopback() && heard.client.port() != 0, "{heard:?}");
    assert!(client.read(&mut [0; 1]).is_err(), "it is reset");
    let container = Arc::new(Traffic::default());
    heard.attribution.to(IP, Arc::clone(&container));
    eventually(&container, [0, 1, 1, 0, 0]);
    assert!(rig.heard.try_recv().is_err());
}

#[test]
fn a_flow_is_heard_of_once_with_its_first_datagram() {
    let rig = Rig::start();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    let port = rig.publish(Proto::Udp, target);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let container = Arc::new(Traffic::default());
    for round in 0..3 {
        client.send_to(b"ask", port).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"answer", from).unwrap();
        client.recv_from(&mut [0; 8]).unwrap();
        if round == 0 {
            let heard = rig.hear();
            assert_eq!((heard.udp, heard.client, heard.server), (true, from, target));
            heard.attribution.to(IP, Arc::clone(&container));
        }
    }
    eventually(&container, [1, 1, 0, 9, 18]);
    assert!(rig.heard.try_recv().is_err());
    drop(rig.engine);
    assert_eq!(numbers(&container), [0, 1, 0, 9, 18]);
}
