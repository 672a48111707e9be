//! Listening sockets for published ports, by the address family rules of Go's `net` package.
//!
//! Clients of RootlessKit rely on them: `tcp` without an address (or with a wildcard one) is *one*
//! dual-stack socket, `tcp4` and `tcp6` are single-family, and a family suffix that contradicts the
//! address is an error rather than a surprise.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

mod holders;

/// More than any `net.core.somaxconn`; listen(2) cuts it down to that sysctl.
const BACKLOG: i32 = i32::MAX;

/// A protocol of a port spec that this driver can forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// `tcp`: both families where the address allows it.
    Tcp,
    /// `tcp4`: IPv4 only.
    Tcp4,
    /// `tcp6`: IPv6 only.
    Tcp6,
    /// `udp`: both families where the address allows it.
    Udp,
    /// `udp4`: IPv4 only.
    Udp4,
    /// `udp6`: IPv6 only.
    Udp6,
}

impl Proto {
    /// Every protocol, in the order in which RootlessKit's info lists them.
    pub const ALL: [Self; 6] =
        [Self::Tcp, Self::Tcp4, Self::Tcp6, Self::Udp, Self::Udp4, Self::Udp6];

    /// The spelling used in port specs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tcp4 => "tcp4",
            Self::Tcp6 => "tcp6",
            Self::Udp => "udp",
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
        }
    }

    /// Whether this is one of the three UDP protocols.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::Udp | Self::Udp4 | Self::Udp6)
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no protocol that this driver forwards (`sctp`, for example).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported port protocol: {0:?}")]
pub struct UnknownProto(pub String);

impl FromStr for Proto {
    type Err = UnknownProto;

    fn from_str(s: &str) -> Result<Self, UnknownProto> {
        Self::ALL.into_iter().find(|p| p.as_str() == s).ok_or_else(|| UnknownProto(s.to_owned()))
    }
}

/// A bound socket that the engine can serve.
#[derive(Debug)]
pub enum Listener {
    /// A listening TCP socket.
    Tcp(OwnedFd),
    /// A bound UDP socket.
    Udp(OwnedFd),
}

/// Makes the listening socket of a published port, close-on-exec and non-blocking.
///
/// TCP sockets get `SO_REUSEADDR` (not `SO_REUSEPORT`) and the longest backlog the kernel grants, UDP
/// sockets `SO_BROADCAST`, as Go gives them. A UDP port that only outbound flows of this user have, which the kernel chose
/// for them, is free all the same.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2) with their errno; `InvalidInput` without an errno and the
/// text `address X: no suitable address found` when the suffix of `proto` contradicts `ip`.
pub fn bind(proto: Proto, ip: Option<IpAddr>, port: u16) -> io::Result<Listener> {
    let plan = plan_socket(proto, ip)?;
    let open = |plan| match open(proto, plan, port, false) {
        Err(e) if in_use(&e) && proto.is_udp() && holders::are_flows_of_ours(port) => {
            open(proto, plan, port, true)
        }
        other => other,
    };
    let sock = match open(plan) {
        // A kernel without IPv6 still has to serve the wildcard (Go's `favoriteAddrFamily`).
        Err(e)
            if plan == SocketPlan::Dual && e.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) =>
        {
            open(SocketPlan::V4(Ipv4Addr::UNSPECIFIED))?
        }
        other => other?,
    };
    let fd = OwnedFd::from(sock);
    Ok(if proto.is_udp() { Listener::Udp(fd) } else { Listener::Tcp(fd) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketPlan {
    /// The IPv6 wildcard with `IPV6_V6ONLY` off.
    Dual,
    V4(Ipv4Addr),
    /// An IPv6 address, with `IPV6_V6ONLY` on or off.
    V6(Ipv6Addr, bool),
}

fn plan_socket(proto: Proto, ip: Option<IpAddr>) -> io::Result<SocketPlan> {
    let ip = ip.map(|ip| ip.to_canonical());
    match (proto, ip) {
        (Proto::Tcp | Proto::Udp, None) => Ok(SocketPlan::Dual),
        (Proto::Tcp | Proto::Udp, Some(ip)) if ip.is_unspecified() => Ok(SocketPlan::Dual),
        (Proto::Tcp | Proto::Udp, Some(IpAddr::V4(v4))) => Ok(SocketPlan::V4(v4)),
        (Proto::Tcp | Proto::Udp, Some(IpAddr::V6(v6))) => Ok(SocketPlan::V6(v6, false)),
        (Proto::Tcp4 | Proto::Udp4, None) => Ok(SocketPlan::V4(Ipv4Addr::UNSPECIFIED)),
        (Proto::Tcp4 | Proto::Udp4, Some(IpAddr::V4(v4))) => Ok(SocketPlan::V4(v4)),
        (Proto::Tcp6 | Proto::Udp6, None) => Ok(SocketPlan::V6(Ipv6Addr::UNSPECIFIED, true)),
        (Proto::Tcp6 | Proto::Udp6, Some(IpAddr::V6(v6))) => Ok(SocketPlan::V6(v6, true)),
        (_, Some(ip)) => {
            let text = format!("address {ip}: no suitable address found");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

fn in_use(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EADDRINUSE as i32)
}

/// With `beside_flows` a UDP port may be one that connected sockets of the same user have, if these are willing
/// (`SO_REUSEPORT`, socket(7)): what their peers send goes to them, everything else to the new socket.
fn open(proto: Proto, plan: SocketPlan, port: u16, beside_flows: bool) -> io::Result<Socket> {
    let (ty, protocol) =
        if proto.is_udp() { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let (ip, only_v6): (IpAddr, _) = match plan {
        SocketPlan::Dual => (Ipv6Addr::UNSPECIFIED.into(), Some(false)),
        SocketPlan::V4(ip) => (ip.into(), None),
        SocketPlan::V6(ip, only) => (ip.into(), Some(only)),
    };
    let addr = SocketAddr::new(ip, port);
    let sock = Socket::new(Domain::for_address(addr), ty.nonblocking(), Some(protocol))?;
    if let Some(only) = only_v6 {
        sock.set_only_v6(only)?;
    }
    if proto.is_udp() {
        sock.set_broadcast(true)?;
        sock.set_reuse_port(beside_flows)?;
        sock.bind(&addr.into())?;
        sock.set_reuse_port(false)?;
    } else {
        sock.set_reuse_address(true)?;
        sock.bind(&addr.into())?;
        sock.listen(BACKLOG)?;
    }
    Ok(sock)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn ip(s: &str) -> Option<IpAddr> {
        (!s.is_empty()).then(|| s.parse().unwrap())
    }

    #[test]
    fn families_follow_go() {
        let v4 = |s: &str| SocketPlan::V4(s.parse().unwrap());
        let v6 = |s: &str, only| SocketPlan::V6(s.parse().unwrap(), only);
        for (proto, addr, want) in [
            ("tcp", "", SocketPlan::Dual),
            ("tcp", "0.0.0.0", SocketPlan::Dual),
            ("udp", "::", SocketPlan::Dual),
            ("udp", "::ffff:0.0.0.0", SocketPlan::Dual),
            ("tcp", "127.0.0.2", v4("127.0.0.2")),
            ("tcp", "::ffff:127.0.0.2", v4("127.0.0.2")),
            ("udp", "::1", v6("::1", false)),
            ("tcp4", "", v4("0.0.0.0")),
            ("udp4", "0.0.0.0", v4("0.0.0.0")),
            ("tcp6", "", v6("::", true)),
            ("udp6", "::", v6("::", true)),
            ("tcp6", "::1", v6("::1", true)),
        ] {
            assert_eq!(
                plan_socket(proto.parse().unwrap(), ip(addr)).unwrap(),
                want,
                "{proto} {addr:?}"
            );
        }
        for (proto, addr) in [
            ("tcp4", "::"),
            ("udp4", "::1"),
            ("tcp6", "0.0.0.0"),
            ("udp6", "10.0.0.1"),
            ("tcp6", "::ffff:1.2.3.4"),
        ] {
            let e = plan_socket(proto.parse().unwrap(), ip(addr)).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{proto} {addr}");
            assert!(e.to_string().ends_with(": no suitable address found"), "{e}");
        }
    }

    fn sock(l: Listener) -> Socket {
        match l {
            Listener::Tcp(fd) | Listener::Udp(fd) => Socket::from(fd),
        }
    }

    #[test]
    fn bound_sockets_have_the_promised_family_and_options() {
        for proto in Proto::ALL {
            let s = sock(bind(proto, None, 0).unwrap());
            let suffix = proto.as_str().chars().last();
            assert_eq!(s.domain().unwrap() == Domain::IPV4, suffix == Some('4'), "{proto}");
            if suffix != Some('4') {
                assert_eq!(s.only_v6().unwrap(), suffix == Some('6'), "{proto}");
            }
            assert!(s.nonblocking().unwrap());
            assert_eq!(s.reuse_address().unwrap(), !proto.is_udp());
            assert!(!s.reuse_port().unwrap());
            assert_eq!(s.broadcast().unwrap(), proto.is_udp());
            assert_eq!(s.is_listener().unwrap(), !proto.is_udp());
        }
    }

    #[test]
    fn a_taken_port_says_so_and_dual_stack_takes_both_families() {
        let first = sock(bind(Proto::Tcp, None, 0).unwrap());
        let port = first.local_addr().unwrap().as_socket().unwrap().port();
        for (proto, addr) in [(Proto::Tcp4, ""), (Proto::Tcp, "127.0.0.1"), (Proto::Tcp6, "")] {
            let e = bind(proto, ip(addr), port).unwrap_err();
            assert_eq!(e.raw_os_error(), Some(Errno::EADDRINUSE as i32), "{proto} {addr}");
        }
    }

    /// A connected socket of ours, as the gateway has one for each flow.
    fn flow(to: &str, share: bool) -> Socket {
        let to: SocketAddr = to.parse().unwrap();
        let flow = Socket::new(Domain::for_address(to), Type::DGRAM, None).unwrap();
        flow.connect(&to.into()).unwrap();
        flow.set_reuse_port(share).unwrap();
        flow
    }

    #[test]
    fn a_port_that_only_an_outbound_flow_has_is_free() {
        for (proto, ip4) in [(Proto::Udp, ""), (Proto::Udp4, ""), (Proto::Udp4, "127.0.0.1")] {
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let flow = flow(&peer.local_addr().unwrap().to_string(), true);
            let own = flow.local_addr().unwrap().as_socket().unwrap();
            let listener = sock(bind(proto, ip(ip4), own.port()).unwrap());
            let (mut at_flow, mut at_listener) = ([0; 8], [0; 8]);
            // Each hears what is meant for it.
            let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            stranger.send_to(b"new", own).unwrap();
            peer.send_to(b"flow", own).unwrap();
            assert_eq!((&flow).read(&mut at_flow).unwrap(), 4);
            listener.set_nonblocking(false).unwrap();
            assert_eq!((&listener).read(&mut at_listener).unwrap(), 3);
            // It is nobody else's now.
            let again = bind(proto, ip(ip4), own.port()).unwrap_err();
            assert!(in_use(&again), "{again}");
        }
    }

    #[test]
    fn a_port_that_a_server_or_an_unwilling_flow_has_is_taken() {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let unwilling = flow(&peer.local_addr().unwrap().to_string(), false);
        let server = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        server.set_reuse_port(true).unwrap();
        server.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        for holder in [unwilling, server] {
            let port = holder.local_addr().unwrap().as_socket().unwrap().port();
            for proto in [Proto::Udp, Proto::Udp4] {
                assert!(in_use(&bind(proto, None, port).unwrap_err()));
            }
        }
    }

    #[test]
    fn protocols_parse_or_are_named() {
        assert_eq!("udp6".parse(), Ok(Proto::Udp6));
        let e = "sctp".parse::<Proto>().unwrap_err();
        assert_eq!(e.to_string(), "unsupported port protocol: \"sctp\"");
    }
}
