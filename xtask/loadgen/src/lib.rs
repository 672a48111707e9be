//! What `cargo xtask bench` and `loadgen` agree on: the ports of a server, as offsets from its first one, and how floods begin.

use std::time::Duration;

/// TCP: bytes in one direction, as fast as they go.
pub const BULK: u16 = 0;
/// TCP: one answer to one request, then the server closes.
pub const CLOSE: u16 = 1;
/// TCP: answers for as long as the client asks.
pub const KEEP: u16 = 2;
/// Every TCP port of a server.
pub const TCP_PORTS: [u16; 3] = [BULK, CLOSE, KEEP];
/// UDP: the first counts datagrams, the second sends them back.
pub const UDP_PORTS: [u16; 2] = [3, 4];

/// How long a flood goes on before whoever has started it is told.
pub const FLOOD_WARM_UP: Duration = Duration::from_millis(1500);
