//! Who has a UDP port.
//!
//! The kernel chooses local ports of outbound flows from the range in which users publish ports as well. A flow's socket
//! is connected, so it is in nobody's way; to bind beside it is safe if there is no other kind of socket, of which the
//! kernel would take datagrams away.

use std::fs;

use nix::unistd::geteuid;

/// `TCP_ESTABLISHED`, which a connected datagram socket is called too (proc_net_udp in proc_net(5)).
const CONNECTED: &str = "01";

/// Whether everybody who has this port, at whatever address, is a connected socket of this user, and there is somebody.
pub(super) fn are_flows_of_ours(port: u16) -> bool {
    let uid = geteuid().as_raw();
    // A kernel without IPv6 has no second table; without the first one nobody knows.
    let Ok(mut sockets) = fs::read_to_string("/proc/thread-self/net/udp") else { return false };
    sockets += &fs::read_to_string("/proc/thread-self/net/udp6").unwrap_or_default();
    let holders = sockets.lines().filter_map(parse).filter(|holder| holder.port == port);
    let mut holders = holders.peekable();
    holders.peek().is_some() && holders.all(|holder| holder.connected && holder.uid == uid)
}

#[derive(Debug, PartialEq, Eq)]
struct Holder {
    port: u16,
    connected: bool,
    uid: u32,
}

/// A line of the table; `None` for its heading.
fn parse(line: &str) -> Option<Holder> {
    let mut words = line.split_ascii_whitespace();
    let (_, port) = words.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let connected = words.nth(1)? == CONNECTED;
    let uid = words.nth(3)?.parse().ok()?;
    Some(Holder { port, connected, uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let heading = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
        assert_eq!(parse(heading), None);
        let flow = " 1044: 0100007F:C0E1 0100007F:0035 01 00000000:00000000 00:00000000 00000000  1000        0 12345 2 0000000000000000 0";
        assert_eq!(parse(flow), Some(Holder { port: 0xc0e1, connected: true, uid: 1000 }));
        let server = " 7: 00000000000000000000000000000000:14E9 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   0 0 9 2 0 0";
        assert_eq!(parse(server), Some(Holder { port: 5353, connected: false, uid: 0 }));
        for odd in ["", "1", "1: x 0:0 01", "1: 0:ZZZZ 0:0 01 0 0 0 0"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
