//! Sockets that are connected to themselves.

use std::net::SocketAddr;

use nix::errno::Errno;
use socket2::Socket;

/// Refuses a socket that has connected to `peer` and is its own peer. If nobody has a port of this machine, the kernel may
/// choose it as the local port of a socket that connects to it. A TCP socket then connects to itself (RFC 9293, section
/// 3.5, simultaneous open), and a UDP socket receives what it sends. Whoever asked for the connection has to hear that it
/// is refused.
///
/// # Errors
/// `ECONNREFUSED`: it is.
pub fn refuse_self_connection(socket: &Socket, peer: SocketAddr) -> Result<(), Errno> {
    match socket.local_addr() {
        Ok(local) if local.as_socket() == Some(peer) => Err(Errno::ECONNREFUSED),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use socket2::{Domain, Type};

    use super::*;

    fn unconnected(kind: Type, address: SocketAddr) -> Socket {
        Socket::new(Domain::for_address(address), kind, None).unwrap()
    }

    #[test]
    fn a_socket_that_is_connected_to_itself_is_refused() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let listener = TcpListener::bind(address).unwrap();
            let server = UdpSocket::bind(address).unwrap();
            let peers = [listener.local_addr().unwrap(), server.local_addr().unwrap()];
            for (kind, peer) in [Type::STREAM, Type::DGRAM].into_iter().zip(peers) {
                let socket = unconnected(kind, address);
                socket.bind(&address.into()).unwrap();
                let own = socket.local_addr().unwrap();
                socket.connect(&own).unwrap();
                let own = own.as_socket().unwrap();
                let refused = Err(Errno::ECONNREFUSED);
                assert_eq!(refuse_self_connection(&socket, own), refused, "{address}");

                let socket = unconnected(kind, address);
                socket.connect(&peer.into()).unwrap();
                assert_eq!(refuse_self_connection(&socket, peer), Ok(()), "{address}");
            }
        }
    }
}
