//! Connections of an event handler that may not go on, whichever thread has them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::sys::epoll::EpollFlags;
use socket2::Socket;

use super::*;
use crate::event_handler::{EventLoop, Tag};
use crate::flow_log::{FlowEnd, FlowLog, FlowStart, Transport};
use crate::slab::Key;
use crate::traffic::{Attribution, Counted};
use crate::{Inbound, Judge};

const CONTAINER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Both sockets of a connection, and how it is counted.
type Pair = (Socket, Socket, Counted);

/// Takes over pairs of sockets, and then has connections to even ports ended.
struct Handler(Arc<Mutex<Vec<Pair>>>);

impl EventHandler for Handler {
    fn start(&mut self, _: &mut EventLoop) -> io::Result<()> {
        Ok(())
    }

    fn event(&mut self, _: &mut EventLoop, _: Tag, _: EpollFlags) {}

    fn socket(&mut self, _: &mut EventLoop, _: Key, _: Option<Socket>) {}

    fn inbound(&mut self, _: &mut EventLoop, _: Inbound) {}

    fn changed(&mut self, host: &mut EventLoop) {
        let pairs = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if pairs.is_empty() {
            let even = |port: u16| port.is_multiple_of(2);
            host.end_denied(Judge::new(move |opened| {
                assert_eq!((opened.container, opened.is_guess), (CONTAINER, false));
                even(opened.destination.port()).then(|| "no even ports".into())
            }));
        }
        for (client, backend, counted) in pairs {
            let tag = Tag { kind: 0, key: Key::NONE };
            host.watch(&backend, tag, EpollFlags::EPOLLOUT | EpollFlags::EPOLLET).unwrap();
            host.relay(client, backend, counted).unwrap();
        }
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

/// Both ends of a new connection.
fn connection() -> (TcpStream, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = patient(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let theirs = Socket::from(listener.accept().unwrap().0);
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn start(port: u16) -> FlowStart {
    let [client, destination] = [1, port].map(|port| SocketAddr::new(CONTAINER, port));
    let (transport, published, began) = (Transport::Tcp, false, Instant::now());
    let (name, dry_run_rule) = (None, None);
    FlowStart { transport, published, client, destination, name, dry_run_rule, began }
}

#[test]
fn connections_that_may_not_go_on_are_reset_in_every_thread_and_others_go_on() {
    let (ours, _theirs) = crate::factory::pair().unwrap();
    let (pairs, log) = (Arc::default(), Arc::new(FlowLog::default()));
    log.follow();
    let opts = Options { threads: THREADS, ..Options::default() };
    let handler = Box::new(Handler(Arc::clone(&pairs)));
    let pipes = Stock::new(PIPES);
    let engine = Engine::start_on(THREADS, &pipes, ours, opts, Some(handler)).unwrap();
    let target = server();
    let traffic = Arc::new(Traffic::default());
    let stop = AtomicBool::new(false);
    // The last one's container is not known, so nobody can say whether it may go on.
    let unknown = u16::try_from(STREAMS).unwrap();
    let clients: Vec<_> = (0..=unknown)
        .map(|port| {
            let (client, theirs) = connection();
            let backend = Socket::from(TcpStream::connect(target).unwrap());
            backend.set_nonblocking(true).unwrap();
            let attribution = Attribution::logged(&log, start(port));
            if port != unknown {
                attribution.to(CONTAINER, Arc::default());
            }
            let counted = Counted::open(Arc::clone(&traffic)).attributed(attribution);
            pairs.lock().unwrap().push((theirs, backend, counted));
            client
        })
        .collect();
    engine.change().unwrap();
    std::thread::scope(|scope| {
        let streams: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(|| pour(client, &stop).map_err(|error| error.kind())))
            .collect();
        let _stop = Stop(&stop);
        eventually(PATIENCE, "each thread has streams", || {
            let held = engine.threads[1..].iter().map(|(mailbox, _)| mailbox.held());
            held.into_iter().all(|held| held != Held::default())
        });
        engine.change().unwrap();
        let left = (STREAMS / 2 + 1) as u64;
        assert_eq!(traffic.active.load(Ordering::Relaxed), left, "when the call returns");
        stop.store(true, Ordering::Relaxed);
        for (port, stream) in streams.into_iter().enumerate() {
            let lives = port % 2 == 1 || port == STREAMS;
            assert_eq!(stream.join().unwrap().is_ok(), lives, "{port}");
        }
    });
    let records = log.take().0;
    let denied = records.iter().filter(|record| record.end == FlowEnd::Denied);
    assert!(denied.clone().all(|record| record.rule.as_deref() == Some("no even ports")));
    let ports: BTreeSet<_> = denied.map(|record| record.start.destination.port()).collect();
    assert_eq!(ports, (0..unknown).step_by(2).collect());
}
