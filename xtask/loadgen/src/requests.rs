//! Small HTTP requests, each in a connection of its own or many over the same.
//!
//! Client and server are one epoll loop each, so that on few processors the forwarder has its share. Requests carry a
//! number that the answer repeats. Where the connection ends after each answer, it is the server that ends it: the
//! state that TCP keeps for a while afterwards (TIME-WAIT) then takes no port from the clients.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::Args;

/// The number of a request in hexadecimal digits.
const DIGITS: usize = 16;
const REQUEST_HEAD: &[u8] = b"GET /";
const REQUEST_TAIL: &[u8] =
    b" HTTP/1.1\r\nHost: bench\r\nUser-Agent: loadgen\r\nAccept: */*\r\n\r\n";
const REQUEST: usize = REQUEST_HEAD.len() + DIGITS + REQUEST_TAIL.len();
const ANSWER_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n";
const ANSWER_TAIL: &[u8] = &[b'.'; 128 - DIGITS];
const ANSWER: usize = ANSWER_HEAD.len() + DIGITS + ANSWER_TAIL.len();
/// How long answers may take that are due when the time is over.
const GRACE_TIMEOUT: Duration = Duration::from_secs(3);
/// Events taken at once.
const EVENTS: usize = 128;

/// Times from a request to its answer.
#[derive(Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// One line for the benchmark. `done` were answered within `time`.
    pub(crate) fn report(mut self, done: u64, failed: u64, time: Duration) -> Value {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
            self.0.get(index).map(|time| time.as_secs_f64() * 1e6)
        };
        let rate = done as f64 / time.as_secs_f64();
        json!({ "done": done, "failed": failed, "rate": rate, "p50_us": at(50), "p99_us": at(99) })
    }
}

fn watch(epoll: &Epoll, socket: &Socket, flags: EpollFlags, index: usize) -> Result<()> {
    Ok(epoll.add(socket.as_fd(), EpollEvent::new(flags, index as u64))?)
}

/// The places whose sockets have something to say.
fn wait(epoll: &Epoll, timeout: EpollTimeout) -> Result<Vec<usize>> {
    let mut events = [EpollEvent::empty(); EVENTS];
    let count = match epoll.wait(&mut events, timeout) {
        Err(Errno::EINTR) => 0,
        other => other?,
    };
    events[..count].iter().map(|event| Ok(usize::try_from(event.data())?)).collect()
}

// ---- server -------------------------------------------------------------------------------------

struct Peer {
    socket: Socket,
    keep: bool,
    request: [u8; REQUEST],
    have: usize,
}

impl Peer {
    /// Reads and answers; false when the connection is over.
    fn event(&mut self) -> bool {
        match self.socket.read(&mut self.request[self.have..]) {
            Ok(0) => return false,
            Ok(n) => self.have += n,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        if self.have < REQUEST {
            return true;
        }
        self.have = 0;
        let number = &self.request[REQUEST_HEAD.len()..][..DIGITS];
        let answer = [ANSWER_HEAD, number, ANSWER_TAIL].concat();
        // So few bytes always fit; a client that has gone gets none.
        self.socket.write(&answer).is_ok_and(|n| n == ANSWER) && self.keep
    }
}

/// Answers requests on both listeners.
pub(crate) fn serve(close: TcpListener, keep: TcpListener) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let listeners = [Socket::from(close), Socket::from(keep)];
    for (index, listener) in listeners.iter().enumerate() {
        listener.set_nonblocking(true)?;
        // std asks for a backlog of 128; connections come faster.
        listener.listen(4096)?;
        watch(&epoll, listener, EpollFlags::EPOLLIN, index)?;
    }
    let (mut peers, mut free): (Vec<Option<Peer>>, Vec<usize>) = (Vec::new(), Vec::new());
    loop {
        for token in wait(&epoll, EpollTimeout::NONE)? {
            if let Some(listener) = listeners.get(token) {
                let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
                let Ok((socket, _)) = listener.accept4(flags) else { continue };
                socket.set_tcp_nodelay(true)?;
                let place = free.pop().unwrap_or(peers.len());
                watch(&epoll, &socket, EpollFlags::EPOLLIN, place + listeners.len())?;
                let peer = Peer { socket, keep: token == 1, request: [0; REQUEST], have: 0 };
                if place == peers.len() {
                    peers.push(Some(peer));
                } else {
                    peers[place] = Some(peer);
                }
                continue;
            }
            let place = token - listeners.len();
            if peers[place].as_mut().is_some_and(|peer| !peer.event()) {
                peers[place] = None;
                free.push(place);
            }
        }
    }
}

// ---- client -------------------------------------------------------------------------------------

/// One connection at a time, or one that is kept.
struct Slot {
    socket: Option<Socket>,
    number: u64,
    started: Instant,
    unsent: bool,
    answer: [u8; ANSWER + 1],
    have: usize,
}

enum Progress {
    Waiting,
    Answered,
}

impl Slot {
    fn connect(&mut self, epoll: &Epoll, to: SocketAddr, index: usize, number: u64) -> Result<()> {
        self.started = Instant::now();
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(error).context("connecting");
            }
            _ => {}
        }
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        watch(epoll, &socket, flags, index)?;
        self.socket = Some(socket);
        self.ask(number)
    }

    fn ask(&mut self, number: u64) -> Result<()> {
        (self.number, self.have, self.unsent) = (number, 0, true);
        self.send()
    }

    fn send(&mut self) -> Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let number = format!("{:016x}", self.number);
        let request = [REQUEST_HEAD, number.as_bytes(), REQUEST_TAIL].concat();
        match socket.write(&request) {
            Ok(n) => ensure!(n == REQUEST, "the request was cut"),
            // Not connected yet.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("sending a request"),
        }
        self.unsent = false;
        Ok(())
    }

    fn event(&mut self, keep: bool) -> Result<Progress> {
        if self.unsent {
            self.send()?;
        }
        loop {
            let Some(socket) = &mut self.socket else { return Ok(Progress::Waiting) };
            match socket.read(&mut self.answer[self.have..]) {
                Ok(0) => {
                    ensure!(!keep && self.have == ANSWER, "closed after {} bytes", self.have);
                    self.check()?;
                    self.socket = None;
                    return Ok(Progress::Answered);
                }
                Ok(n) => self.have += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waiting);
                }
                Err(error) => return Err(error).context("waiting for an answer"),
            }
            if keep && self.have == ANSWER {
                self.check()?;
                return Ok(Progress::Answered);
            }
        }
    }

    fn check(&self) -> Result<()> {
        let number = format!("{:016x}", self.number);
        let want = [ANSWER_HEAD, number.as_bytes(), ANSWER_TAIL].concat();
        ensure!(self.answer[..self.have] == want, "a wrong answer to request {number}");
        Ok(())
    }
}

/// Asks once over a fresh connection, and checks the answer. The connection stays open.
pub(crate) fn ask_once(to: SocketAddr, number: u64, patience: Duration) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    let number = format!("{number:016x}");
    stream.write_all(&[REQUEST_HEAD, number.as_bytes(), REQUEST_TAIL].concat())?;
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer).context("waiting for an answer")?;
    let want = [ANSWER_HEAD, number.as_bytes(), ANSWER_TAIL].concat();
    ensure!(answer == *want, "a wrong answer to request {number}");
    Ok(stream)
}

/// Keeps `--flight` requests under way.
pub(crate) fn client(args: &Args, keep: bool) -> Result<Value> {
    let to = args.address(if keep { loadgen::KEEP } else { loadgen::CLOSE })?;
    let (flight, time): (usize, _) = (args.get("flight")?, args.duration()?);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let end = Instant::now() + time;
    let (mut number, mut done, mut failed, mut open) = (0, 0, 0, 0);
    let (mut latencies, mut first_error) = (Latencies::default(), None);
    let mut slots = Vec::new();
    for index in 0..flight {
        let mut slot = Slot {
            socket: None,
            number,
            started: end,
            unsent: false,
            answer: [0; ANSWER + 1],
            have: 0,
        };
        number += 1;
        slot.connect(&epoll, to, index, number)?;
        open += 1;
        slots.push(slot);
    }
    while open > 0 && Instant::now() < end + GRACE_TIMEOUT {
        for index in wait(&epoll, EpollTimeout::from(100_u8))? {
            let slot = &mut slots[index];
            if slot.socket.is_none() {
                continue;
            }
            match slot.event(keep) {
                Ok(Progress::Waiting) => continue,
                Ok(Progress::Answered) => {
                    let now = Instant::now();
                    if now <= end {
                        latencies.add(now - slot.started);
                        done += 1;
                    }
                }
                Err(error) => {
                    failed += 1;
                    first_error.get_or_insert_with(|| format!("{error:#}"));
                    slot.socket = None;
                }
            }
            open -= 1;
            if Instant::now() >= end {
                continue;
            }
            number += 1;
            let asked = if slot.socket.is_some() {
                slot.started = Instant::now();
                slot.ask(number)
            } else {
                slot.connect(&epoll, to, index, number)
            };
            match asked {
                Ok(()) => open += 1,
                Err(error) => {
                    failed += 1;
                    first_error.get_or_insert_with(|| format!("{error:#}"));
                    slot.socket = None;
                }
            }
        }
    }
    if open > 0 {
        first_error.get_or_insert_with(|| format!("{open} never answered"));
    }
    let mut report = latencies.report(done, failed + open, time);
    report["error"] = json!(first_error);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn slot(answer: &[u8]) -> Slot {
        let mut slot = Slot {
            socket: None,
            number: 0x2a,
            started: Instant::now(),
            unsent: false,
            answer: [0; ANSWER + 1],
            have: answer.len(),
        };
        slot.answer[..answer.len()].copy_from_slice(answer);
        slot
    }

    #[test]
    fn answers_must_be_whole_and_to_the_request() {
        let right = [ANSWER_HEAD, b"000000000000002a", ANSWER_TAIL].concat();
        assert!(slot(&right).check().is_ok());
        assert!(slot(&right[1..]).check().is_err());
        let other = [ANSWER_HEAD, b"000000000000002b", ANSWER_TAIL].concat();
        assert!(slot(&other).check().is_err());
    }

    #[test]
    fn server_and_client_understand_each_other() {
        let [close, keep] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [&close, &keep].map(|listener| listener.local_addr().unwrap().port());
        // It ends with the test's process.
        thread::spawn(move || serve(close, keep));
        let held = ask_once(([127, 0, 0, 1], ports[1]).into(), 7, GRACE_TIMEOUT).unwrap();
        assert!(held.peer_addr().is_ok());
        for (port, keep) in ports.into_iter().zip([false, true]) {
            let offset = if keep { loadgen::KEEP } else { loadgen::CLOSE };
            let words = ["--base", &(port - offset).to_string(), "--flight", "3", "--ms", "50"];
            let args = Args::parse(&words.map(str::to_owned)).unwrap();
            let report = client(&args, keep).unwrap();
            assert!(report["done"].as_u64().unwrap() > 3, "{report}");
            assert_eq!(report["failed"], 0, "{report}");
        }
    }
}
