//! Sockets that are connected to themselves.

use std::net::SocketAddr;

use socket2::Socket;

/// Whether a socket that has connected to `peer` is its own peer. If nobody has a port of this machine, the kernel may
/// choose it as the local port of a socket that connects to it. A TCP socket then connects to itself (RFC 9293, section
/// 3.5, simultaneous open), and a UDP socket receives what it sends. Whoever asked for the connection has to hear that it
/// is refused.
pub fn is_self_connected(socket: &Socket, peer: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|local| local.as_socket() == Some(peer))
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
    fn a_socket_that_is_connected_to_itself_is_known() {
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
                assert!(is_self_connected(&socket, own.as_socket().unwrap()), "{address}");

                let socket = unconnected(kind, address);
                socket.connect(&peer.into()).unwrap();
                assert!(!is_self_connected(&socket, peer), "{address}");
            }
        }
    }
}
