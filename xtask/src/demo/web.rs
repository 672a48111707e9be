//! The host's side of the demo: a client for the published port and a server for the way out.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What both directions ask with.
pub(super) const REQUEST: &str = "GET / HTTP/1.0\r\n\r\n";

/// Of the client and the server of the demo.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A TCP port that nobody listens on.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The machine's own address on the way to the outside, if it has one. Connecting a datagram socket sends nothing.
pub(super) fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // TEST-NET-1 (RFC 5737): only the routing table is asked.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Where the published port should answer: loopback of both families and the machine's address.
pub(super) fn host_addresses(port: u16) -> Vec<SocketAddr> {
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
        .is_ok()
        .then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    [Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), v6, outer_address()]
        .into_iter()
        .flatten()
        .map(|ip| SocketAddr::new(ip, port))
        .collect()
}

/// Fetches `/`.
pub(super) fn fetch(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_TIMEOUT)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    body(&answer).with_context(|| format!("{address}: not a page: {answer:?}"))
}

/// The body of a good answer.
pub(super) fn body(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// A server on the machine, outside of every namespace of the demo.
#[derive(Debug)]
pub(super) struct Outside {
    address: SocketAddr,
}

impl Outside {
    pub(super) fn listen() -> Result<Self> {
        let ip = outer_address().context(
            "this machine has no address but loopback's, so there is no way out to show\nhint: bring up a network interface",
        )?;
        ensure!(!ip.is_loopback(), "the only way out of this machine is loopback");
        let listener = TcpListener::bind((ip, 0))?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream);
            }
        });
        Ok(Self { address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut request = [0; 512];
    let _ = stream.read(&mut request)?;
    let text = format!("hello, {}, this is the host\n", stream.peer_addr()?.ip());
    Ok(write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_good_answers_have_a_body() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\nhi").as_deref(), Some("hi"));
        assert_eq!(body("HTTP/1.0 404 Not Found\r\n\r\nno"), None);
        assert_eq!(body("HTTP/1.0 200 OK"), None);
    }
}
