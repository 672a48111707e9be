//! vpnkit's protocol over its Ethernet socket, version 22: who am I, then frames.
//!
//! Numbers are little-endian. Both sides send `VMN3T`, the version (u32) and 40 bytes of text; the client asks for a
//! port of the switch by its UUID; the answer names MTU, frame size and Ethernet address. From there on each frame
//! follows its length (u16).

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, socket,
};

const MAGIC: &[u8; 5] = b"VMN3T";
const VERSION: u32 = 22;
/// Instead of a source revision, which nobody looks at.
const REVISION: [u8; 40] = [b'0'; 40];
const HELLO: usize = 5 + 4 + 40;
/// "A port for this UUID", and "here it is".
const ETHERNET: u8 = 1;
/// Bytes behind the type of the answer: MTU, frame size, address, and room for other answers.
const PORT: usize = 257;

/// What vpnkit says about our port of its switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    /// In bytes.
    pub(crate) mtu: u16,
    /// The longest frame, in bytes.
    pub(crate) frame: u16,
    pub(crate) mac: [u8; 6],
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to vpnkit: {0}")]
    Connect(io::Error),
    #[error("lost the connection to vpnkit: {0}")]
    Broken(#[from] io::Error),
    #[error("the server on the socket is not vpnkit")]
    Stranger,
    #[error("it uses protocol version {0}, but version {VERSION} is required")]
    Version(u32),
    #[error("it refused the connection: {0}")]
    Refused(String),
    #[error("it assigned the invalid Ethernet address {0:02x?}")]
    Address([u8; 6]),
}

/// Connects, and asks for the port of `uuid`, until `deadline`. The stream is blocking.
pub(crate) fn connect(
    path: &Path,
    uuid: &str,
    deadline: Instant,
) -> Result<(UnixStream, Port), Error> {
    let mut talk = Talk { stream: dial(path).map_err(Error::Connect)?, deadline };
    let mut hello = MAGIC.to_vec();
    hello.extend(VERSION.to_le_bytes());
    hello.extend(REVISION);
    talk.say(&hello)?;
    let answer: [u8; HELLO] = talk.hear()?;
    let Some(rest) = answer.strip_prefix(MAGIC) else { return Err(Error::Stranger) };
    let version = rest.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let mut request = vec![ETHERNET];
    request.extend(uuid.as_bytes());
    request.extend([0; 4]);
    talk.say(&request)?;
    let [kind] = talk.hear()?;
    if kind != ETHERNET {
        return Err(Error::Refused(talk.reason()?));
    }
    let [m0, m1, f0, f1, mac @ ..]: [u8; PORT] = talk.hear()?;
    let mac = mac.first_chunk().copied().unwrap_or_default();
    // A group address or none at all: the kernel would refuse it, too.
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(Error::Address(mac));
    }
    talk.stream.set_read_timeout(None)?;
    talk.stream.set_write_timeout(None)?;
    let port = Port { mtu: u16::from_le_bytes([m0, m1]), frame: u16::from_le_bytes([f0, f1]), mac };
    Ok((talk.stream, port))
}

/// Connects without waiting for a listener that takes nobody in.
fn dial(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect_to(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The conversation, which has to end in time.
struct Talk {
    stream: UnixStream,
    deadline: Instant,
}

impl Talk {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Errno::ETIMEDOUT.into()) } else { Ok(left) }
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }

    fn hear<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        let mut have = 0;
        while have < N {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut bytes[have..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Errno::ETIMEDOUT.into());
                }
                Err(e) => return Err(e),
            }
        }
        Ok(bytes)
    }

    /// The text of a refusal: its length in one byte, then that many.
    fn reason(&mut self) -> io::Result<String> {
        let [length] = self.hear()?;
        let mut text = Vec::new();
        for _ in 0..length {
            text.push(self.hear::<1>()?[0]);
        }
        Ok(String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What a server that answers with these bytes, whatever it is asked, and then ends its side makes of us; and what it
    /// was asked.
    fn against(answer: &[u8]) -> (Result<Port, Error>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = answer.to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&answer).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut asked = Vec::new();
            let _ = stream.read_to_end(&mut asked);
            asked
        });
        // What takes longer hangs.
        let deadline = Instant::now() + Duration::from_secs(60);
        let port = connect(&path, &"u".repeat(36), deadline).map(|(_, port)| port);
        (port, server.join().unwrap())
    }

    fn hello(version: u32) -> Vec<u8> {
        [&MAGIC[..], &version.to_le_bytes(), &[0; 40]].concat()
    }

    fn port(mac: [u8; 6]) -> Vec<u8> {
        let mut port = vec![ETHERNET, 0xdc, 5, 0x0e, 6];
        port.extend(mac);
        port.resize(1 + PORT, 0);
        port
    }

    #[test]
    fn a_port_is_asked_for_and_given() {
        let mac = [2, 0x50, 0, 0, 0, 1];
        let (got, asked) = against(&[hello(22), port(mac)].concat());
        assert_eq!(got.unwrap(), Port { mtu: 1500, frame: 1550, mac });
        assert_eq!(asked.len(), HELLO + 1 + 36 + 4);
        assert_eq!(asked[..9], *b"VMN3T\x16\0\0\0");
        assert_eq!((asked[HELLO], asked[HELLO + 1]), (1, b'u'));
    }

    #[test]
    fn everything_else_is_an_error_with_a_reason() {
        let refuse = |answer: &[u8]| against(answer).0.unwrap_err().to_string();
        assert!(refuse(&hello(2)).contains("protocol version 2, but version 22 is required"));
        assert!(refuse(&[b'x'; 49]).contains("is not vpnkit"));
        let refusal = [hello(22), b"\x02\x04full".to_vec()].concat();
        assert!(refuse(&refusal).contains("refused the connection: full"));
        assert!(refuse(&[hello(22), port([1; 6])].concat()).contains("Ethernet address"));
        assert!(refuse(&[hello(22), port([0; 6])].concat()).contains("Ethernet address"));
        assert!(refuse(&hello(22)[..20]).contains("lost the connection"));
        let nobody = connect(Path::new("/nonexistent"), "u", Instant::now());
        assert!(matches!(nobody, Err(Error::Connect(_))));
    }

    #[test]
    fn silence_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // Its queue takes us in.
        let _listener = UnixListener::bind(&path).unwrap();
        let deadline = Instant::now() + Duration::from_millis(100);
        let error = connect(&path, &"u".repeat(36), deadline).unwrap_err();
        assert!(
            matches!(&error, Error::Broken(e) if e.raw_os_error() == Some(Errno::ETIMEDOUT as i32))
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
        #[test]
        fn bytes_from_elsewhere_never_panic(tail in proptest::collection::vec(0u8.., 0..400)) {
            let _ = against(&[hello(22), tail].concat());
        }
    }
}
