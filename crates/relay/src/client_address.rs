//! Backends that see the address of the client: which addresses can be kept, and how.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::Socket;

use crate::options::Options;

impl Options {
    /// The address to connect from so that `target` sees the client, if that makes sense: a client of the
    /// same family, elsewhere than on this host's loopback, with an address that means the same there.
    pub(crate) fn kept_source(&self, peer: SocketAddr, target: SocketAddr) -> Option<SocketAddr> {
        let ip = peer.ip().to_canonical();
        let scoped = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let fits = ip.is_ipv4() == target.is_ipv4() && !ip.is_loopback() && !scoped;
        let taken = self.occupied.iter().any(|network| network.contains(&ip));
        (fits && !taken).then(|| SocketAddr::new(ip, peer.port()))
    }
}

/// Lets a socket of a namespace that we administer have an address that is not ours (ip(7), `IP_TRANSPARENT`).
///
/// # Errors
/// Those of setsockopt(2): `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn make_transparent(sock: &Socket, ipv4: bool) -> io::Result<()> {
    if ipv4 { sock.set_ip_transparent_v4(true) } else { sock.set_ip_transparent_v6(true) }
}

/// Binds a socket to the address of somebody else, marked so that the namespace's rules bring the answers back to it.
pub(crate) fn keep_source(sock: &Socket, source: SocketAddr, mark: u32) -> io::Result<()> {
    make_transparent(sock, source.is_ipv4())?;
    sock.set_mark(mark)?;
    // One client port may talk to several published ports.
    sock.set_reuse_address(true)?;
    sock.bind(&source.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_kept_only_where_they_mean_the_same() {
        let occupied = vec!["10.0.2.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()];
        let opts = Options { occupied, ..Options::default() };
        for (peer, target, want) in [
            ("10.0.3.1:7", "10.0.2.100:80", Some("10.0.3.1:7")),
            ("10.0.2.77:7", "10.0.2.100:80", None),
            ("[fd00::7]:7", "[fd00::100]:80", None),
            ("192.0.2.1:7", "127.0.0.1:80", Some("192.0.2.1:7")),
            ("[::ffff:192.0.2.1]:7", "127.0.0.1:80", Some("192.0.2.1:7")),
            ("[2001:db8::1]:7", "[::1]:80", Some("[2001:db8::1]:7")),
            ("[2001:db8::1]:7", "127.0.0.1:80", None),
            ("192.0.2.1:7", "[::1]:80", None),
            ("127.0.0.9:7", "127.0.0.1:80", None),
            ("[::ffff:127.0.0.1]:7", "127.0.0.1:80", None),
            ("[::1]:7", "[::1]:80", None),
            ("[fe80::1]:7", "[::1]:80", None),
        ] {
            let got = opts.kept_source(peer.parse().unwrap(), target.parse().unwrap());
            assert_eq!(got, want.map(|w| w.parse().unwrap()), "{peer} {target}");
        }
    }
}
