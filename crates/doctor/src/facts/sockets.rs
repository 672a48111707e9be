//! The host's own addresses, and who listens on them: what the kernel says in `/proc/net`. Nothing is bound, because a socket
//! of ours, however short-lived, could be in somebody's way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::place::World;

/// `TCP_LISTEN` and `TCP_CLOSE` (net/tcp_states.h); the latter is a UDP socket without a peer.
const LISTENS: &str = "0A";
const BOUND: &str = "07";

/// A socket that waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) proto: &'static str,
    pub(super) uid: u32,
}

impl Listener {
    /// Whether nobody else can listen on that address with the same port and protocol. Sockets of all IPv6 addresses are
    /// usually sockets of all IPv4 addresses, too (`/proc` does not tell).
    pub(super) fn occupies(&self, address: IpAddr) -> bool {
        match self.address {
            own if own == address => true,
            IpAddr::V4(own) => own.is_unspecified() && address.is_ipv4(),
            IpAddr::V6(own) => own.is_unspecified(),
        }
    }
}

/// All of them, of every user.
pub(super) fn listeners(world: &World) -> Vec<Listener> {
    let tables = [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")];
    let mut found = Vec::new();
    for (file, proto) in tables {
        let text = world.text(&format!("proc/net/{file}")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| listener(line, proto)));
    }
    found
}

/// `0: 0A0200C0:0949 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 …`.
fn listener(line: &str, proto: &'static str) -> Option<Listener> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = if proto == "tcp" { LISTENS } else { BOUND };
    if *words.get(3)? != state {
        return None;
    }
    let (address, port) = words.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener {
        address: socket_address(address)?,
        port,
        proto,
        uid: words.get(7)?.parse().ok()?,
    })
}

/// One number of 32 bits, or four, as this machine has them in memory.
fn socket_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..(at + 1) * 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// The addresses to which this host answers, each of them a network, since a route can make a whole one local. `None` if the
/// kernel does not say.
pub(super) fn own_networks(world: &World) -> Option<Vec<IpNet>> {
    let mut found = local_routes(&world.text("proc/net/fib_trie")?);
    let v6 = world.text("proc/net/if_inet6").unwrap_or_default();
    found.extend(v6.lines().filter_map(|line| {
        let digits = line.split_whitespace().next()?;
        let address = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32)?;
        Some(IpNet::from(IpAddr::V6(address.into())))
    }));
    Some(found)
}

/// A line `|-- 192.0.2.10`, and below it one `/32 host LOCAL`.
fn local_routes(trie: &str) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = Vec::new();
    let mut address = None;
    for line in trie.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("|-- ") {
            address = text.parse::<IpAddr>().ok();
        } else if let (Some(address), Some(rest)) = (address, line.strip_prefix('/'))
            && let Some((length, "host LOCAL")) = rest.split_once(' ')
            && let Some(network) = length.parse().ok().and_then(|len| IpNet::new(address, len).ok())
            && !found.contains(&network)
        {
            found.push(network);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_that_wait_are_found() {
        let of = |line: &str, proto| {
            listener(line, proto).map(|l| (l.address.to_string(), l.port, l.uid))
        };
        let rest = "00000000:00000000 00:00000000 00000000  1000        0 1525 1 0";
        let line = |state: &str| format!("   0: 0A0200C0:0949 00000000:0000 {state} {rest}");
        let found = Some(("192.0.2.10".to_owned(), 2377, 1000));
        assert_eq!(of(&line("0A"), "tcp"), found);
        assert_eq!(of(&line("01"), "tcp"), None);
        assert_eq!(of(&line("07"), "udp"), found);
        let six = format!("  7: 000000FD000000000000000002000000:1F0A {:032}:0000 07 {rest}", 0);
        assert_eq!(of(&six, "udp"), Some(("fd00::2".to_owned(), 7946, 1000)));
        assert_eq!(of("  sl  local_address rem_address   st tx_queue", "tcp"), None);
    }

    #[test]
    fn who_has_all_addresses_has_each() {
        let at = |address: &str| {
            let address = address.parse().unwrap();
            Listener { address, port: 2377, proto: "tcp", uid: 0 }
        };
        let [four, six]: [IpAddr; 2] = ["192.0.2.10", "fd00::2"].map(|text| text.parse().unwrap());
        assert!(at("0.0.0.0").occupies(four) && at("::").occupies(four) && at("::").occupies(six));
        assert!(at("192.0.2.10").occupies(four) && at("fd00::2").occupies(six));
        assert!(!at("192.0.2.11").occupies(four) && !at("0.0.0.0").occupies(six));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "( *(\\|-- )?[0-9A-Fa-f:./]{0,40} [0-9A-F]{0,2}( host LOCAL)?\n?){0,4}") {
            let _ = (listener(&text, "tcp"), local_routes(&text), socket_address(&text));
        }
    }
}
