//! Requests as bytes against a server in a thread of its own.
//!
//! The file is long because all of its tests share one server and its backend.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Peer;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::*;
use crate::types::{NetworkDriverInfo, PortDriverInfo};

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A backend whose `add` takes as long as the child port says, in milliseconds, when the parent port is 9999.
struct Fake {
    driver: bool,
    ports: RefCell<Vec<PortStatus>>,
    next: Cell<PortId>,
    begun: mpsc::Sender<()>,
    added: mpsc::Sender<PortId>,
}

impl Backend for Fake {
    fn info(&self) -> Result<Info, BackendError> {
        if self.next.get() > 100 {
            return Err(BackendError::Failed("the child is gone".into()));
        }
        Ok(Info {
            api_version: crate::API_VERSION.into(),
            version: "3.2.0".into(),
            state_dir: "/s".into(),
            child_pid: 5,
            network_driver: Some(NetworkDriverInfo {
                driver: "none".into(),
                ..NetworkDriverInfo::default()
            }),
            port_driver: self.driver.then(|| PortDriverInfo {
                driver: "builtin".into(),
                protos: vec!["tcp".into()],
                ..PortDriverInfo::default()
            }),
        })
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        if self.driver { Ok(self.ports.borrow().clone()) } else { Err(BackendError::NoPortDriver) }
    }

    async fn add(&self, spec: PortSpec) -> Result<PortStatus, BackendError> {
        if !self.driver {
            return Err(BackendError::NoPortDriver);
        }
        spec.validate_among(&*self.ports.borrow())?;
        if spec.parent_port == 9999 {
            self.begun.send(()).ok();
            let millis = u64::try_from(spec.child_port).unwrap();
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        let id = self.next.get();
        self.next.set(id + 1);
        let status = PortStatus { id, spec };
        self.ports.borrow_mut().push(status.clone());
        self.added.send(id).ok();
        Ok(status)
    }

    async fn remove(&self, id: PortId) -> Result<(), BackendError> {
        if !self.driver {
            return Err(BackendError::NoPortDriver);
        }
        let before = self.ports.borrow().len();
        self.ports.borrow_mut().retain(|status| status.id != id);
        if self.ports.borrow().len() == before {
            return Err(BackendError::Failed(format!("unknown port ID: {id} <gone>")));
        }
        Ok(())
    }
}

struct Server {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    begun: mpsc::Receiver<()>,
    added: mpsc::Receiver<PortId>,
}

impl Server {
    fn start(driver: bool, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let (stop, stopped) = oneshot::channel();
        let (to_begun, begun) = mpsc::channel();
        let (to_added, added) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                let (ports, next) = (RefCell::default(), Cell::new(1));
                let (begun, added) = (to_begun, to_added);
                let backend = Rc::new(Fake { driver, ports, next, begun, added });
                serve_with(listener, backend, async { drop(stopped.await) }, limits).await;
            });
        });
        is_ready.recv().unwrap();
        Self { dir, stop: Some(stop), thread: Some(thread), begun, added }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn connect(path: &Path) -> Peer {
    let peer = Peer::connect(path).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// Waits until the server has accepted every connection. Until then the kernel lists its end as connecting (`02` in the column
/// `St` of `/proc/net/unix`, proc_net_unix(5)): it belongs to no descriptor.
fn wait_until_accepted(path: &Path) {
    let path = path.to_str().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let waiting = || {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut ours = fields.filter(|fields| fields.get(7) == Some(&path)).peekable();
        assert!(ours.peek().is_some(), "{path} in {sockets}");
        ours.any(|fields| fields[5] == "02")
    };
    while waiting() {
        assert!(Instant::now() < deadline, "a connection is not accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads until the server closes. One that closes before it has read everything resets the connection, but what it had
/// sent comes first.
fn drain(peer: &mut Peer) -> String {
    let mut answer = Vec::new();
    match peer.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(answer).unwrap(),
    }
}

/// One request on a connection of its own: the head without its `date`, and the body.
fn send(path: &Path, request: &str) -> (String, String) {
    let mut peer = connect(path);
    peer.write_all(request.as_bytes()).unwrap();
    let answer = drain(&mut peer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.lines().filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>();
    (head.join("\n"), body.to_owned())
}

fn get(path: &Path, method: &str, target: &str) -> (String, String) {
    send(path, &format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn post(path: &Path, body: &str) -> (String, String) {
    let length = body.len();
    let head = "POST /v1/ports HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    send(path, &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
}

fn json(status: &str, body: &str) -> (String, String) {
    let kind = "content-type: application/json\nconnection: close";
    (format!("HTTP/1.1 {status}\n{kind}\ncontent-length: {}", body.len()), body.to_owned())
}

fn bare(status: &str) -> (String, String) {
    (format!("HTTP/1.1 {status}\nconnection: close\ncontent-length: 0"), String::new())
}

fn error(status: &str, message: &str) -> (String, String) {
    json(status, &format!("{{\"message\":\"{message}\"}}\n"))
}

const BAD: &str = "400 Bad Request";

#[test]
fn every_route_answers_as_the_contract_says() {
    let server = Server::start(true, Limits::default());
    let path = &server.path();
    assert_eq!(
        get(path, "GET", "/v1/info"),
        json(
            "200 OK",
            r#"{"apiVersion":"1.1.2","version":"3.2.0","stateDir":"/s","childPID":5,"networkDriver":{"driver":"none"},"portDriver":{"driver":"builtin","protos":["tcp"]}}"#
        )
    );
    assert_eq!(get(path, "GET", "/v1/ports"), json("200 OK", "null"));
    let first = r#"{"id":1,"spec":{"proto":"tcp","parentPort":8080,"childPort":80}}"#;
    let request = r#"{"ChildPort":80,"proto":"tcp","parentPort":8080,"new":[]} and more"#;
    assert_eq!(post(path, request), json("201 Created", first));
    assert_eq!(get(path, "GET", "/v1/ports?x=y"), json("200 OK", &format!("[{first}]")));
    assert_eq!(post(path, request), error(BAD, "conflict with ID 1"));
    assert_eq!(get(path, "DELETE", "/v1/ports/1"), bare("200 OK"));
    assert_eq!(
        get(path, "DELETE", "/v1/ports/1"),
        error(BAD, r"unknown port ID: 1 \u003cgone\u003e")
    );
    assert_eq!(get(path, "GET", "/v1/ports"), json("200 OK", "null"));
}

#[test]
fn bad_requests_have_a_message() {
    let server = Server::start(true, Limits::default());
    let path = &server.path();
    assert_eq!(post(path, ""), error(BAD, "EOF"));
    for (body, token) in [
        ("{", "invalid JSON"),
        (r#"{"proto":6}"#, "proto: invalid type"),
        ("{}", r#"unknown proto: \"\""#),
        (r#"{"proto":"tcp","parentIP":"x"}"#, "invalid ParentIP"),
        (r#"{"proto":"tcp","parentPort":70000}"#, "invalid ParentPort: 70000"),
    ] {
        let (head, answer) = post(path, body);
        assert!(head.starts_with("HTTP/1.1 400 "), "{body}: {head}");
        assert!(answer.starts_with("{\"message\":\"") && answer.ends_with("\"}\n"), "{answer}");
        assert!(answer.contains(token), "{body}: {answer}");
    }
    for id in ["x", "1x", "99999999999999999999"] {
        let (head, answer) = get(path, "DELETE", &format!("/v1/ports/{id}"));
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert!(answer.contains("invalid port ID"), "{answer}");
    }
    let (head, _) = send(path, "nonsense\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

#[test]
fn other_methods_and_paths() {
    let server = Server::start(true, Limits::default());
    let path = &server.path();
    for (method, target) in [
        ("POST", "/v1/info"),
        ("HEAD", "/v1/info"),
        ("POST", "/v1/stats"),
        ("HEAD", "/v1/stats"),
        ("POST", "/v1/policy"),
        ("DELETE", "/v1/ports"),
        ("PUT", "/v1/ports"),
        ("HEAD", "/v1/ports"),
        ("GET", "/v1/ports/1"),
        ("POST", "/v1/ports/x"),
    ] {
        let (head, body) = get(path, method, target);
        assert!(head.starts_with("HTTP/1.1 405 "), "{method} {target}: {head}");
        assert_eq!(body, "", "{method} {target}");
    }
    for target in [
        "/",
        "/v1",
        "/v1/",
        "/v1/infos",
        "/v1/info/",
        "/v1/stats/",
        "/v2/info",
        "/v1/ports/",
        "/v1/ports/1/2",
    ] {
        let (head, body) = get(path, "GET", target);
        assert!(head.starts_with("HTTP/1.1 404 "), "{target}: {head}");
        assert!(head.contains("\ncontent-type: text/plain; charset=utf-8\n"), "{head}");
        assert_eq!(body, "404 page not found\n");
    }
    for (target, location) in [
        ("//v1/info", "/v1/info"),
        ("/v1//info?a=b", "/v1/info?a=b"),
        ("/v1/./ports/", "/v1/ports/"),
        ("/v1/../../v1/info", "/v1/info"),
    ] {
        let (head, body) = get(path, "GET", target);
        assert!(head.starts_with("HTTP/1.1 301 "), "{target}: {head}");
        assert!(head.contains(&format!("\nlocation: {location}\n")), "{target}: {head}");
        assert_eq!(body, "");
    }
}

#[test]
fn without_a_port_driver() {
    let server = Server::start(false, Limits::default());
    let path = &server.path();
    let expected = error(BAD, "no PortDriver is available");
    assert_eq!(get(path, "GET", "/v1/ports"), expected);
    assert_eq!(post(path, r#"{"proto":"tcp","parentPort":1,"childPort":1}"#), expected);
    // Before anything is said about the request.
    for body in ["", "{", "{}"] {
        assert_eq!(post(path, body), expected, "{body:?}");
    }
    for id in ["1", "x"] {
        assert_eq!(get(path, "DELETE", &format!("/v1/ports/{id}")), expected, "{id}");
    }
    let (_, info) = get(path, "GET", "/v1/info");
    assert!(!info.contains("portDriver"), "{info}");
}

#[test]
fn without_a_network_driver_that_counts() {
    let server = Server::start(true, Limits::default());
    let message = r#"network driver \"none\" has no statistics\nhint: use --net=gateway, which counts connections and bytes"#;
    let expected = error("404 Not Found", message);
    assert_eq!(get(&server.path(), "GET", "/v1/stats"), expected);
    assert_eq!(get(&server.path(), "GET", "/v1/stats?format=openmetrics"), expected);
}

#[test]
fn without_an_egress_policy() {
    let server = Server::start(true, Limits::default());
    let (head, body) = get(&server.path(), "GET", "/v1/policy");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let message = r#"{"message":"no egress policy is in force\nhint: start rootlesskit with"#;
    assert!(body.starts_with(message), "{body}");
}

#[test]
fn a_connection_serves_many_requests() {
    let server = Server::start(true, Limits::default());
    let mut peer = connect(&server.path());
    for _ in 0..3 {
        peer.write_all(b"GET /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nnull") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[test]
fn large_bodies_and_heads_are_refused() {
    let server =
        Server::start(true, Limits { body_bytes: 64, head_bytes: 8192, ..Limits::default() });
    let path = &server.path();
    let (head, body) = post(path, &format!("{{\"x\":\"{}\"}}", "y".repeat(64)));
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert!(body.contains("larger than 64 bytes"), "{body}");
    let chunked =
        "POST /v1/ports HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (head, _) = send(path, &format!("{chunked}50\r\n{}\r\n0\r\n\r\n", "y".repeat(0x50)));
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let long = "y".repeat(9000);
    let (head, _) = send(path, &format!("GET /v1/info HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[test]
fn slow_and_idle_peers_are_dropped() {
    // Long enough for a peer to say what it wants to say on a busy machine.
    let limit = Duration::from_secs(2);
    let server = Server::start(true, Limits { head: limit, body: limit, ..Limits::default() });
    let path = &server.path();
    let start = Instant::now();
    let mut peers = [
        "",
        "GET /v1/in",
        "GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ]
    .map(|request| {
        let mut peer = connect(path);
        peer.write_all(request.as_bytes()).unwrap();
        peer
    });
    let answers = peers.each_mut().map(drain);
    assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
    assert_eq!(answers[..2], ["", ""]);
    assert!(answers[2].starts_with("HTTP/1.1 200 "), "{answers:?}");
    assert!(answers[3].starts_with("HTTP/1.1 408 "), "{answers:?}");
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = Server::start(true, Limits { connections: 1, ..Limits::default() });
    let path = &server.path();
    let first = begin_slow_add(&server, VERY_SLOW);
    let mut second = connect(path);
    second.write_all(b"GET /v1/ports HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(second.read(&mut [0]).is_err(), "answered beyond the limit");
    drop(first);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(drain(&mut second).ends_with("null"));
}

#[test]
fn connections_that_never_asked_make_room_before_idle_ones() {
    let server = Server::start(true, Limits { connections: 3, ..Limits::default() });
    let path = &server.path();
    let mut idle = connect(path);
    let request = b"GET /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n";
    let ask = |peer: &mut Peer| {
        peer.write_all(request).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"null") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
    };
    ask(&mut idle);
    let (mut silent, mut slow) = (connect(path), connect(path));
    slow.write_all(b"GET /v1").unwrap();
    // How long a connection has been silent counts from when the server has taken it. An answer that was asked for after
    // that is behind whatever the server does with a new connection.
    wait_until_accepted(path);
    ask(&mut idle);
    std::thread::sleep(crowd::FIRST);
    let newcomers = [(); 2].map(|()| {
        let mut newcomer = connect(path);
        ask(&mut newcomer);
        newcomer
    });
    assert_eq!((drain(&mut silent), drain(&mut slow)), (String::new(), String::new()));
    ask(&mut idle);
    drop(newcomers);
}

#[test]
fn a_crowd_that_never_asks_makes_room_soon() {
    let server = Server::start(true, Limits { connections: 2, ..Limits::default() });
    let path = &server.path();
    let _crowd: Vec<Peer> = (0..6).map(|_| connect(path)).collect();
    assert_eq!(get(path, "GET", "/v1/ports").1, "null");
}

#[test]
fn the_connection_that_was_idle_longest_makes_room_for_the_next() {
    let server = Server::start(true, Limits { connections: 2, ..Limits::default() });
    let path = &server.path();
    let ask = |peer: &mut Peer| {
        peer.write_all(b"GET /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"null") && !answer.ends_with(b"]") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
    };
    let (mut first, mut second) = (connect(path), connect(path));
    ask(&mut first);
    ask(&mut second);
    // Used again, it is the younger one.
    ask(&mut first);
    let mut third = connect(path);
    ask(&mut third);
    assert_eq!(drain(&mut second), "");
    ask(&mut first);
    // Two that work; the first to be done makes room.
    let _slow = begin_slow_add(&server, SLOW);
    let working = begin_slow_add(&server, SLOW);
    let mut last = connect(path);
    ask(&mut last);
    drop(working);
}

const VERY_SLOW: &str = r#"{"proto":"tcp","parentPort":9999,"childPort":60000}"#;
const SLOW: &str = r#"{"proto":"tcp","parentPort":9999,"childPort":400}"#;

fn begin_slow_add(server: &Server, body: &str) -> Peer {
    let mut peer = connect(&server.path());
    let head =
        format!("POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    peer.write_all(format!("{head}{body}").as_bytes()).unwrap();
    server.begun.recv_timeout(PATIENCE).unwrap();
    peer
}

#[test]
fn a_change_is_finished_when_the_peer_hangs_up() {
    let server = Server::start(true, Limits::default());
    drop(begin_slow_add(&server, SLOW));
    assert_eq!(server.added.recv_timeout(PATIENCE), Ok(1));
}

#[test]
fn requests_in_progress_finish_at_shutdown() {
    let limits = Limits { drain: PATIENCE * 2, ..Limits::default() };
    let mut server = Server::start(true, limits);
    let mut idle = connect(&server.path());
    let mut peer = begin_slow_add(&server, SLOW);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < PATIENCE, "the idle connection was waited for");
    let answer = drain(&mut peer);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(drain(&mut idle), "");
    assert!(Peer::connect(server.path()).is_err());
}

#[test]
fn shutdown_is_bounded() {
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let mut server = Server::start(true, limits);
    let minute = r#"{"proto":"tcp","parentPort":9999,"childPort":60000}"#;
    let mut peer = begin_slow_add(&server, minute);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(drain(&mut peer), "");
}
