//! `GET /v1/flows`: an answer that goes on, from the server to the client.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use api::client::{Client, ClientError};
use api::flows::FlowEvent;
use api::server::{Backend, BackendError, LineWriter, Lines, MAX_LINES, line, serve};
use api::{Info, PortId, PortSpec, PortStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gives each follower this many lines, or refuses it, and keeps what makes more lines.
struct Fake {
    lines: Option<u64>,
    writers: Rc<RefCell<Vec<LineWriter>>>,
}

impl Backend for Fake {
    fn info(&self) -> Result<Info, BackendError> {
        Ok(Info::default())
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        Err(BackendError::NoPortDriver)
    }

    async fn add(&self, _: PortSpec) -> Result<PortStatus, BackendError> {
        Err(BackendError::NoPortDriver)
    }

    async fn remove(&self, _: PortId) -> Result<(), BackendError> {
        Err(BackendError::NoPortDriver)
    }

    async fn flows(&self) -> Result<Lines, BackendError> {
        let count = self.lines.ok_or(BackendError::ManyFollowers)?;
        let (writer, lines) = Lines::new();
        for count in 1..=count {
            writer.write(&line(&FlowEvent::Missed { count }));
        }
        self.writers.borrow_mut().push(writer);
        Ok(lines)
    }
}

/// A server that ends when told; it says when a follower is gone.
struct Server {
    dir: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    gone: Receiver<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Server {
    fn start(lines: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (say, gone) = channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(async {
                let listener = UnixListener::from_std(listener).unwrap();
                let writers = Rc::<RefCell<Vec<LineWriter>>>::default();
                let backend = Rc::new(Fake { lines, writers: Rc::clone(&writers) });
                let watch = async {
                    loop {
                        let all = writers.borrow().len();
                        writers.borrow_mut().retain(|writer| !writer.is_closed());
                        (writers.borrow().len()..all).for_each(|_| say.send(()).unwrap());
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                let shutdown = async {
                    let _ = stopped.await;
                    // Answers that go on end here.
                    writers.borrow_mut().clear();
                };
                tokio::select! {
                    () = serve(listener, backend, shutdown) => {}
                    () = watch => {}
                }
            });
        });
        Self { dir, stop, gone, thread }
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path().join("s")).with_timeout(PATIENCE)
    }
}

#[test]
fn lines_come_until_the_client_or_the_server_has_enough() {
    let server = Server::start(Some(3));
    let mut one = server.client().flows().unwrap();
    let mut two = server.client().flows().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match one.next_event().unwrap() {
            Some(event) => seen.push(event),
            None => assert!(one.fill().unwrap()),
        }
    }
    assert_eq!(seen, [1, 2, 3].map(|count| FlowEvent::Missed { count }));
    // The server answers others meanwhile, and sees who has gone.
    assert_eq!(server.client().info().unwrap(), Info::default());
    drop(one);
    server.gone.recv_timeout(PATIENCE).unwrap();
    let before = Instant::now();
    server.stop.send(()).unwrap();
    while two.fill().unwrap() {}
    while two.next_event().unwrap().is_some() {}
    server.thread.join().unwrap();
    assert!(before.elapsed() < PATIENCE);
}

#[test]
fn a_client_that_hangs_up_while_much_waits_for_it_is_noticed() {
    let server = Server::start(Some(MAX_LINES as u64));
    drop(server.client().flows().unwrap());
    server.gone.recv_timeout(PATIENCE).unwrap();
    server.stop.send(()).unwrap();
    server.thread.join().unwrap();
}

#[test]
fn a_refusal_is_told_as_ever() {
    let server = Server::start(None);
    let refused = server.client().flows().unwrap_err();
    let ClientError::Refused { status: 503, message } = refused else { panic!("{refused}") };
    assert!(message.starts_with("too many clients follow"), "{message}");
    server.stop.send(()).unwrap();
    server.thread.join().unwrap();
}

async fn read_until(client: &mut UnixStream, end: &[u8]) {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        seen.push(client.read_u8().await.unwrap());
    }
}

/// Some send a byte behind their request, which nobody reads, and some do not read what they get.
#[tokio::test]
async fn followers_that_go_are_noticed_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let writers = Rc::<RefCell<Vec<LineWriter>>>::default();
    let backend = Rc::new(Fake { lines: Some(0), writers: Rc::clone(&writers) });
    let write = |line: &'static [u8]| {
        writers.borrow().iter().for_each(|writer| writer.write(&line.into()));
    };
    let gone = || writers.borrow().iter().map(LineWriter::is_closed).collect::<Vec<_>>();
    let test = async {
        let mut clients = Vec::new();
        for more in ["", "x", "", "x"] {
            let mut client = UnixStream::connect(&socket).await.unwrap();
            let request = format!("GET /v1/flows HTTP/1.1\r\nHost: x\r\n\r\n{more}");
            client.write_all(request.as_bytes()).await.unwrap();
            write(b"line\n");
            read_until(&mut client, b"\r\n\r\n").await;
            clients.push(client);
        }
        clients.drain(..2);
        while gone() != [true, true, false, false] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        write(b"last\n");
        for client in &mut clients {
            read_until(client, b"last\n").await;
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, backend, async { drop(stopped.await) });
    let test = async {
        tokio::time::timeout(PATIENCE, test).await.expect("in time");
        drop(stop);
    };
    tokio::join!(server, test);
}
