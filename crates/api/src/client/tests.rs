use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use proptest::prelude::*;

use super::*;
use crate::stats::{DestinationTraffic, PortTraffic, Traffic};

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that gives one connection one answer; joins to the request it had read.
fn scripted(answer: &'static str) -> (tempfile::TempDir, Client, JoinHandle<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut block = [0; 4096];
        loop {
            let n = peer.read(&mut block).unwrap();
            request.extend_from_slice(&block[..n]);
            let text = String::from_utf8_lossy(&request);
            let complete = text
                .split_once("\r\n\r\n")
                .is_some_and(|(head, body)| !head.starts_with("POST") || body.ends_with('}'));
            if n == 0 || complete {
                break;
            }
        }
        peer.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (dir, Client::new(path).with_timeout(PATIENCE), thread)
}

#[test]
fn asks_as_the_contract_says() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1d\r\n\
                   {\"version\":\"1.1.0\",\"new\":[1]}\r\n0\r\n\r\n";
    let (_dir, client, server) = scripted(chunked);
    assert_eq!(client.info().unwrap().version, "1.1.0");
    let head = "Host: rootlesskit\r\nConnection: close\r\n";
    assert_eq!(server.join().unwrap(), format!("GET /v1/info HTTP/1.1\r\n{head}\r\n"));

    let (_dir, client, server) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull");
    assert_eq!(client.list_ports().unwrap(), []);
    assert!(server.join().unwrap().starts_with("GET /v1/ports HTTP/1.1\r\n"));

    let created = "HTTP/1.1 201 Created\r\n\r\n{\"id\":3,\"spec\":{\"proto\":\"tcp\"}}";
    let (_dir, client, server) = scripted(created);
    let spec = PortSpec { proto: "tcp".into(), ..PortSpec::default() };
    assert_eq!(client.add_port(&spec).unwrap(), PortStatus { id: 3, spec });
    let json = "Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"proto\":\"tcp\"}";
    assert_eq!(server.join().unwrap(), format!("POST /v1/ports HTTP/1.1\r\n{head}{json}"));

    let (_dir, client, server) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    client.remove_port(3).unwrap();
    assert!(server.join().unwrap().starts_with("DELETE /v1/ports/3 HTTP/1.1\r\n"));
}

#[test]
fn a_server_that_would_serve_everybody_keeps_no_port() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(crate::SOCKET_NAME);
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let answers = [
            "HTTP/1.1 201 Created\r\n\r\n{\"id\":3,\"spec\":{\"proto\":\"tcp\"}}",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ];
        answers.map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            request.truncate(length);
            String::from_utf8(request).unwrap()
        })
    });
    let spec = PortSpec {
        proto: "tcp".into(),
        allow_from: vec!["10.9.0.1".into()],
        ..PortSpec::default()
    };
    let error = Client::new(&path).add_port(&spec).unwrap_err().to_string();
    assert!(error.starts_with("the running RootlessKit cannot restrict the clients"), "{error}");
    assert!(server.join().unwrap()[1].starts_with("DELETE /v1/ports/3 "));
}

#[test]
fn statistics_come_as_numbers_or_as_text() {
    let json = "HTTP/1.1 200 OK\r\n\r\n{\"driver\":\"gateway\",\"tcp\":{\"bytesIn\":5}}";
    let (_dir, client, server) = scripted(json);
    let stats = client.stats().unwrap();
    assert_eq!((stats.driver.as_str(), stats.tcp.bytes_in), ("gateway", 5));
    assert!(server.join().unwrap().starts_with("GET /v1/stats HTTP/1.1\r\n"));

    let (_dir, client, server) = scripted("HTTP/1.1 200 OK\r\n\r\n# EOF\n");
    assert_eq!(client.stats_openmetrics().unwrap(), "# EOF\n");
    assert!(server.join().unwrap().starts_with("GET /v1/stats?format=openmetrics HTTP/1.1\r\n"));

    let (_dir, client, _server) = scripted("HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n");
    let error = client.stats().unwrap_err();
    assert!(matches!(error, ClientError::Refused { status: 404, .. }));
    let error = error.to_string();
    assert!(error.contains("404 page not found\nhint: use a newer RootlessKit"), "{error}");
}

/// The first answer of a server that is not to be trusted, without the socket.
fn decode_stats(answer: &[u8]) -> Result<Stats, ClientError> {
    let client = Client::new("/nonexistent");
    let response = response::read(answer).map_err(|error| client.broken(&error))?;
    client.decode(&response)
}

proptest! {
    #[test]
    fn decoding_statistics_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
    ) {
        let head = b"HTTP/1.1 200 OK\r\n\r\n";
        let _ = decode_stats(&bytes);
        let _ = decode_stats(&[head, &bytes[..]].concat());
        let _ = decode_stats(&[head, &b"{\"ports\":[{\"id\":1,\"port\":\"x\","[..], &bytes].concat());
        let mut body = to_json(&full_stats()).into_bytes();
        prop_assert_eq!(decode_stats(&[head, &body[..]].concat()).unwrap(), full_stats());
        let cut = &body[..length.index(body.len())];
        prop_assert!(decode_stats(&[head, cut].concat()).is_err());
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = decode_stats(&[head, &body[..]].concat());
    }
}

fn full_stats() -> Stats {
    let traffic = Traffic { active: 1, opened: 2, ..Traffic::default() };
    let ip = "2001:db8::1".parse().unwrap();
    Stats {
        ports: vec![PortTraffic { id: 1, port: "x".into(), refused: 2, traffic }],
        destinations: vec![DestinationTraffic { proto: "tcp".into(), ip, port: 5, traffic }],
        ..Stats::default()
    }
}

#[test]
fn a_refusal_is_the_servers_own_text() {
    let body = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n{\"message\":\"conflict with ID 1\"}\n";
    let (_dir, client, _server) = scripted(body);
    let error = client.remove_port(1).unwrap_err();
    assert_eq!(error.to_string(), "conflict with ID 1");
    assert!(matches!(error, ClientError::Refused { status: 400, .. }));

    let (_dir, client, _server) = scripted("HTTP/1.1 502 Bad\r\n\r\n<html>\n");
    assert_eq!(
        client.info().unwrap_err().to_string(),
        "unexpected HTTP status 502 from the RootlessKit API: <html>"
    );
}

#[test]
fn failures_name_the_socket() {
    let (dir, client, server) = scripted("");
    let error = client.info().unwrap_err().to_string();
    assert!(error.starts_with("invalid response from the RootlessKit API at "), "{error}");
    server.join().unwrap();

    // The listener is gone but its file is not: what a killed rootlesskit leaves.
    let error = client.info().unwrap_err().to_string();
    let path = dir.path().join("api.sock");
    assert!(
        error.starts_with(&format!("cannot connect to the RootlessKit API at {}", path.display()))
    );
    assert!(error.contains("\nhint: start RootlessKit or wait"), "{error}");

    let error = Client::new("/nonexistent/api.sock").info().unwrap_err().to_string();
    assert!(error.starts_with("no RootlessKit API socket at /nonexistent/api.sock: "), "{error}");
    assert!(error.contains("\nhint: "), "{error}");

    let long = dir.path().join("d".repeat(120));
    std::fs::write(&long, "").unwrap();
    let error = Client::new(long).info().unwrap_err().to_string();
    assert!(error.contains("shorter than 108 bytes"), "{error}");
}

#[test]
fn a_server_of_another_user_gets_no_request() {
    let me = nix::unistd::geteuid().as_raw();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let error = Client::new(&path).served_by(me + 1).lines("/events").unwrap_err().to_string();
    let (path, other) = (path.display(), me + 1);
    assert_eq!(error, format!("the server at {path} belongs to user {me}, not to user {other}"));
    let mut request = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut request).unwrap();
    assert!(request.is_empty());

    let (_dir, client, _server) = scripted("HTTP/1.1 200 OK\r\n\r\n[]");
    assert_eq!(client.served_by(me).list_ports().unwrap(), []);
}

#[test]
fn an_answer_of_the_wrong_type_is_an_error() {
    let (_dir, client, _server) = scripted("HTTP/1.1 200 OK\r\n\r\n{\"childPID\":\"5\"}");
    let error = client.info().unwrap_err().to_string();
    assert!(error.contains("childPID: invalid type"), "{error}");
}

#[test]
fn every_wait_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(&path).with_timeout(Duration::from_millis(200));
    let start = Instant::now();
    let error = client.info().unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");

    // Fill the listen queue, so that connecting is what waits.
    let mut fillers = Vec::new();
    let address = SockAddr::unix(&path).unwrap();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        if socket.connect(&address).is_err() {
            break;
        }
        fillers.push(socket);
    }
    let error = client.info().unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(start.elapsed() < PATIENCE / 2);
    drop(listener);
}

#[test]
fn a_trickling_server_does_not_extend_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        while peer.write_all(b"H").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let client = Client::new(&path).with_timeout(Duration::from_millis(300));
    let start = Instant::now();
    assert!(client.info().is_err());
    assert!(start.elapsed() < PATIENCE / 2);
    server.join().unwrap();
}
