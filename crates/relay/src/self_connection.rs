//! TCP connections of a socket to itself.

use std::net::SocketAddr;

use socket2::Socket;

/// Whether a TCP socket that has connected to `peer` is its own peer. If nobody listens at a port of this machine, the
/// kernel may choose that port as the local one of a socket that connects to it, and the socket then connects to itself
/// (RFC 9293, section 3.5, simultaneous open). Whoever asked for the connection has to hear that it is refused.
pub fn is_self_connected(socket: &Socket, peer: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|local| local.as_socket() == Some(peer))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn a_socket_that_is_connected_to_itself_is_known() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.bind(&address.into()).unwrap();
            let own = socket.local_addr().unwrap();
            socket.connect(&own).unwrap();
            assert!(is_self_connected(&socket, own.as_socket().unwrap()), "{address}");

            let listener = TcpListener::bind(address).unwrap();
            let peer = listener.local_addr().unwrap();
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.connect(&peer.into()).unwrap();
            assert!(!is_self_connected(&socket, peer), "{address}");
        }
    }
}
