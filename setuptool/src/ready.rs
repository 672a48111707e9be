//! Waiting until the daemon answers on its socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until `GET /_ping` is answered with 200, at most for `limit`.
pub(crate) fn wait(socket: &Path, limit: Duration) -> io::Result<()> {
    wait_unless(socket, limit, || false)
}

/// The same, but only until nothing is to be hoped for.
pub(crate) fn wait_unless(
    socket: &Path,
    limit: Duration,
    hopeless: impl Fn() -> bool,
) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let error = match ping(socket) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() + PAUSE >= deadline || hopeless() {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    }
}

fn ping(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    match head.strip_prefix(b"HTTP/1.") {
        Some([_, b' ', b'2', b'0', b'0']) => Ok(()),
        _ => Err(io::Error::other(format!("unexpected answer {}", head.escape_ascii()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answering(text: &'static [u8]) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            stream.write_all(text).unwrap();
        });
        (dir, server)
    }

    #[test]
    fn ready_is_an_answer_not_a_socket() {
        let (dir, server) = answering(b"HTTP/1.1 200 OK\r\n\r\nOK");
        wait(&dir.path().join("s"), Duration::from_secs(60)).unwrap();
        server.join().unwrap();
        let (dir, server) = answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let error = wait(&dir.path().join("s"), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        server.join().unwrap();
        assert!(wait(&dir.path().join("none"), PAUSE * 3).is_err());
    }
}
