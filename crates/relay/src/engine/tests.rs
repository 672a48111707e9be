//! With four threads, however many processors there are.

mod denied;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::listen::{Proto, bind};
use crate::room::{Held, Use};
use crate::testing::eventually;
use crate::traffic::Traffic;

/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const THREADS: usize = 4;
/// Two for each thread.
const STREAMS: usize = 2 * THREADS;
/// Enough for all of them: only what is spliced is dealt out.
const PIPES: usize = 2 * STREAMS;
const BLOCK: usize = 64 << 10;

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Writes blocks that show their place in the stream until `stop`; returns the bytes.
fn pour(mut stream: &TcpStream, stop: &AtomicBool) -> std::io::Result<u64> {
    let mut bytes = 0;
    for number in (0..251).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[number; BLOCK])?;
        bytes += BLOCK as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(bytes)
}

/// A server that takes such blocks, and at their end answers how many bytes came.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = patient(stream.unwrap());
            std::thread::spawn(move || {
                let (mut block, mut bytes) = (vec![0; BLOCK], 0u64);
                for number in (0..251).cycle() {
                    if stream.read_exact(&mut block).is_err() {
                        break;
                    }
                    assert!(block == [number; BLOCK], "after {bytes} bytes");
                    bytes += BLOCK as u64;
                }
                let _ = stream.write_all(&bytes.to_le_bytes());
            });
        }
    });
    addr
}

/// Ends what [`pour`] writes when it is dropped, so that a test that fails does not wait for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Rig {
    engine: Engine,
    pipes: Arc<Stock>,
    target: SocketAddr,
}

impl Rig {
    fn start() -> Self {
        let (ours, theirs) = crate::factory::pair().unwrap();
        std::thread::spawn(move || crate::factory::serve(theirs, || false));
        let opts = Options { threads: THREADS, ..Options::default() };
        let pipes = Stock::new(PIPES);
        let engine = Engine::start_on(THREADS, &pipes, ours, opts, None).unwrap();
        assert_eq!(engine.threads.len(), THREADS);
        Self { engine, pipes, target: server() }
    }

    fn publish(&self, id: u64, traffic: &Arc<Traffic>) -> SocketAddr {
        let listener = bind(Proto::Tcp, Some([127, 0, 0, 1].into()), 0).unwrap();
        let (Listener::Tcp(fd) | Listener::Udp(fd)) = &listener;
        let socket = socket2::Socket::from(fd.try_clone().unwrap());
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let service = Service { traffic: Arc::clone(traffic), ..Service::to(self.target) };
        self.engine.add(id, listener, service).unwrap();
        addr
    }

    /// Connections that each of the other threads has.
    fn dealt(&self) -> Vec<Held> {
        self.engine.threads[1..].iter().map(|(mailbox, _)| mailbox.held()).collect()
    }
}

#[test]
fn bulk_streams_are_dealt_out_to_all_threads_arrive_intact_and_keep_nobody_waiting() {
    let rig = Rig::start();
    let traffic = Arc::new(Traffic::default());
    let addr = rig.publish(1, &traffic);
    let stop = AtomicBool::new(false);
    let connect = || patient(TcpStream::connect(addr).unwrap());
    let sent: u64 = std::thread::scope(|scope| {
        let clients = [(); STREAMS].map(|()| {
            scope.spawn(|| {
                let mut stream = connect();
                let sent = pour(&stream, &stop).unwrap();
                let mut answer = [0; 8];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(u64::from_le_bytes(answer), sent);
                sent
            })
        });
        let stop = Stop(&stop);
        let two = Held::default().with(Use::In, 2 * 2);
        eventually(PATIENCE, "each thread has its streams", || {
            assert!(rig.pipes.descriptors() <= 2 * PIPES);
            rig.dealt() == [two; THREADS - 1]
        });
        // All threads are busy; commands and new connections get their turn.
        rig.engine.ping().unwrap();
        let mut short = connect();
        short.shutdown(std::net::Shutdown::Write).unwrap();
        short.read_exact(&mut [0; 8]).unwrap();
        drop(stop);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    eventually(PATIENCE, "all connections have ended", || {
        traffic.active.load(Ordering::Relaxed) == 0
    });
    eventually(PATIENCE, "nobody holds one", || rig.dealt() == [Held::default(); THREADS - 1]);
    let counted = [&traffic.opened, &traffic.up, &traffic.down].map(|n| n.load(Ordering::Relaxed));
    let streams = STREAMS as u64 + 1;
    assert_eq!(counted, [streams, sent, 8 * streams]);
    drop(rig.engine);
    assert_eq!((rig.pipes.descriptors(), rig.pipes.kept.bytes()), (0, 0));
}

#[test]
fn a_port_that_is_removed_while_streams_change_threads_leaves_none() {
    let rig = Rig::start();
    for round in 0..6 {
        let traffic = Arc::new(Traffic::default());
        let addr = rig.publish(round, &traffic);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients = [(); STREAMS]
                .map(|()| scope.spawn(|| pour(&patient(TcpStream::connect(addr).unwrap()), &stop)));
            let _stop = Stop(&stop);
            // From before the first hand-over to after the last one.
            let moved = round * STREAMS as u64 * (3 << 20);
            eventually(PATIENCE, "so much has moved", || {
                traffic.up.load(Ordering::Relaxed) >= moved
            });
            eventually(PATIENCE, "all are there", || {
                traffic.opened.load(Ordering::Relaxed) == STREAMS as u64
            });
            assert!(rig.engine.remove(round));
            assert_eq!(traffic.active.load(Ordering::Relaxed), 0);
            for client in clients {
                let error = client.join().unwrap().unwrap_err();
                assert!(error.raw_os_error().is_some_and(|n| n != nix::libc::EAGAIN), "{error}");
            }
        });
    }
    eventually(PATIENCE, "nobody holds one", || rig.dealt() == [Held::default(); THREADS - 1]);
}
