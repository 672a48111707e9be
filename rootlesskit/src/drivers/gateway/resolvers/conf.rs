//! The name servers in the text of resolv.conf(5).

use std::net::{SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

pub(super) const PORT: u16 = 53;
/// More servers than these are not asked (`MAXNS`, resolv.conf(5)).
pub(super) const MAX_SERVERS: usize = 3;

/// The servers as glibc reads them: the keyword begins the line, and what follows the address does not matter.
pub(super) fn parse(text: &str) -> Vec<SocketAddr> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("nameserver")?;
        rest.starts_with([' ', '\t']).then(|| rest.split_ascii_whitespace().next())?
    });
    values.filter_map(address).take(MAX_SERVERS).collect()
}

/// `192.0.2.1`, `2001:db8::1`, `fe80::1%eth0` or `fe80::1%2`. As in glibc the scope of an interface that does not exist
/// is 0: asking such a server fails, which is better than asking another one instead.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse() {
        return Some(SocketAddr::new(ip, PORT));
    }
    let (ip, zone) = text.split_once('%')?;
    let index = zone.parse().or_else(|_| if_nametoindex(zone)).unwrap_or(0);
    Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, index).into())
}
