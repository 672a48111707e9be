//! Congestion control of connections that never leave this machine.
//!
//! A new network namespace starts with the default of the initial one. Where that is BBR, which paces what it sends, a
//! connection between two sockets of one machine reaches 0.4 to 0.7 of what Reno or CUBIC reach, because there is no
//! bottleneck whose rate could be learned. `reno` is built into every kernel and open to every user (tcp(7),
//! `tcp_allowed_congestion_control`), so such connections use it. Connections to other machines keep the host's choice.

use std::net::{IpAddr, SocketAddr};

use socket2::Socket;

/// What connections within this machine use instead of the host's default.
pub const LOCAL: &str = "reno";
/// Algorithms that are left as they are: they send as fast as the receiver takes it while nothing is lost.
const FINE: [&str; 2] = [LOCAL, "cubic"];

/// Whether `sock` (a TCP socket) uses an algorithm that [`use_local`] replaces.
pub(crate) fn is_replaceable(sock: &Socket) -> bool {
    sock.tcp_congestion().is_ok_and(|name| is_replaceable_name(&name))
}

/// Whether connections within the machine do better without this algorithm. `name` is as `TCP_CONGESTION` gives it, with or
/// without zeros at its end.
pub fn is_replaceable_name(name: &[u8]) -> bool {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    !FINE.iter().any(|fine| fine.as_bytes() == &name[..end])
}

/// For a TCP socket whose other end is on this machine: gives it [`LOCAL`] unless it has an algorithm that does as well.
/// What a listener accepts inherits this. It only saves time, so a refusal does not matter.
pub fn use_local(sock: &Socket) {
    if is_replaceable(sock)
        && let Err(error) = sock.set_tcp_congestion(LOCAL.as_bytes())
    {
        tracing::debug!("cannot set the congestion control {LOCAL}: {error}");
    }
}

/// [`use_local`] if `peer`, which `sock` is connected or connecting to, is an address of this machine.
pub fn use_local_towards(sock: &Socket, peer: SocketAddr) {
    if is_replaceable(sock) && is_here(sock, peer.ip()) {
        use_local(sock);
    }
}

/// Whether `peer` is an address of this machine: then the kernel connects from the same address, or from 127.0.0.1.
fn is_here(sock: &Socket, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    let local = || sock.local_addr().ok()?.as_socket();
    peer.is_loopback() || local().is_some_and(|local| local.ip().to_canonical() == peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    /// The names of the algorithms that this kernel lets everybody use.
    fn allowed() -> Vec<String> {
        let path = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
        std::fs::read_to_string(path).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    fn with(algorithm: &str) -> Socket {
        let sock = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        sock.set_tcp_congestion(algorithm.as_bytes()).unwrap();
        sock
    }

    fn algorithm(sock: &Socket) -> String {
        let name = sock.tcp_congestion().unwrap();
        String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned()
    }

    #[test]
    fn reno_and_cubic_stay_and_everything_else_is_replaced() {
        for (name, replaceable) in [
            (&b"reno"[..], false),
            (b"cubic\0\0\0\0", false),
            (b"bbr\0\0\0", true),
            (b"cubic2", true),
            (b"dctcp", true),
            (b"", true),
        ] {
            assert_eq!(is_replaceable_name(name), replaceable, "{name:?}");
        }
        for name in allowed() {
            let sock = with(&name);
            use_local(&sock);
            let want = if FINE.contains(&name.as_str()) { &name } else { LOCAL };
            assert_eq!(algorithm(&sock), want, "{name}");
        }
    }

    #[test]
    fn accepted_connections_have_the_algorithm_of_their_listener() {
        for name in allowed() {
            let listener = with(&name);
            use_local(&listener);
            listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            listener.listen(1).unwrap();
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.connect(&listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert!(FINE.contains(&algorithm(&accepted).as_str()), "{name}");
        }
    }

    #[test]
    fn only_peers_on_this_machine_count() {
        let sock = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        sock.bind(&SocketAddr::from(([127, 0, 0, 5], 0)).into()).unwrap();
        for (peer, here) in [
            ("127.0.0.5", true),
            ("127.0.0.6", true),
            ("::1", true),
            ("::ffff:127.0.0.9", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_here(&sock, peer.parse().unwrap()), here, "{peer}");
        }
        for name in allowed() {
            let sock = with(&name);
            use_local_towards(&sock, "192.0.2.1:80".parse().unwrap());
            assert_eq!(algorithm(&sock), name);
        }
    }
}
