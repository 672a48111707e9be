//! One question to the API of the Docker daemon, without a client program: the docker command may be absent, and it may be
//! set up for another daemon.
//!
//! The request is one of HTTP/1.0, so the answer has no chunks and ends with the connection.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use serde_json::Value;

/// The longest answer that is read (bytes). A network takes less than 1 KiB.
const LONGEST: usize = 16 << 20;

/// What the daemon at this socket answers to `GET path`, unless it fails or takes longer than `limit`.
pub(crate) fn get(socket: &Path, path: &str, limit: Duration) -> Option<Value> {
    let deadline = Instant::now() + limit;
    let mut stream = connect(socket)?;
    stream.set_write_timeout(Some(limit)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes()).ok()?;
    let (mut answer, mut part) = (Vec::new(), [0; 16 << 10]);
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        // Zero would be no limit, and an error.
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut part).ok()? {
            0 => break,
            length => answer.extend_from_slice(part.get(..length)?),
        }
        if answer.len() > LONGEST {
            return None;
        }
    }
    serde_json::from_slice(body(&answer)?).ok()
}

/// Does not wait: the queue of a daemon that hangs may be full.
fn connect(path: &Path) -> Option<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false).ok()?;
    Some(stream)
}

/// What follows the head of an answer with the status 200.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let [_, b' ', b'2', b'0', b'0', rest @ ..] = answer.strip_prefix(b"HTTP/1.")? else {
        return None;
    };
    let end = b"\r\n\r\n";
    let at = rest.windows(end.len()).position(|bytes| bytes == end)?;
    rest.get(at + end.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::Backlog;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// The answer of a daemon that says this to the first request.
    fn answer(says: &'static str) -> Option<Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(says.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let got = get(&path, "/networks", Duration::from_secs(60));
        assert_eq!(daemon.join().unwrap(), "GET /networks HTTP/1.0\r\nHost: docker\r\n\r\n");
        got
    }

    #[test]
    fn the_answer_is_what_follows_the_head_of_a_success() {
        let list = serde_json::json!([1]);
        assert_eq!(answer("HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n[1]\n"), Some(list));
        for not in [
            "HTTP/1.0 503 Service Unavailable\r\n\r\n[1]",
            "HTTP/1.0 200 OK\r\n\r\n[1",
            "HTTP/1.0 200 OK\r\n",
            "SSH-2.0\r\n\r\n[1]",
            "",
        ] {
            assert_eq!(answer(not), None, "{not:?}");
        }
    }

    #[test]
    fn a_daemon_that_hangs_is_left_after_the_time_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let soon = Duration::from_millis(1);
        assert_eq!(get(&path, "/info", soon), None, "no socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(get(&path, "/info", soon), None, "nobody accepts");
        // Until connecting would wait.
        socket::listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let queue: Vec<_> = std::iter::from_fn(|| connect(&path)).collect();
        assert!(queue.len() < 4, "{} in a queue of two", queue.len());
        assert_eq!(get(&path, "/info", Duration::from_secs(60)), None, "the queue is full");
    }
}
