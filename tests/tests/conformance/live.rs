//! Connections that are open when their port is removed.

use tests::{As, Context as _, PATIENCE, Result, Running};

use crate::kit::{Host, says};

/// The name of what becomes of connections when their port is removed.
pub(crate) const LIVE: &str = "open connections when the port is removed";

/// Connects, says so, waits for the file, then sees whether the server still sends back what it gets.
const CLIENT: &str = r"
import os, socket, sys, time
def alive(connection):
    try:
        connection.sendall(b'x')
        return connection.recv(1) == b'x'
    except OSError:
        return False
all = [socket.create_connection(to.rsplit(':', 1), 30) for to in sys.argv[2:]]
for connection in all:
    while not connection.recv(100).endswith(b'\n'): pass
print('connected', flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.05)
print(*sorted({'stay open' if alive(connection) else 'are closed' for connection in all}), sep=' or ')";

/// The file for which it waits.
const REMOVED: &str = "/run/box/removed";

/// A client of another host with connections through each of the published ports.
pub(crate) struct Live<'k> {
    host: &'k Host,
    client: Running<'k>,
}

impl<'k> Live<'k> {
    /// Connects with all of these addresses.
    pub(crate) fn open(host: &'k Host, ports: impl Iterator<Item = String>) -> Result<Self> {
        let ports: Vec<_> = ports.collect();
        let mut argv = vec!["python3", "-c", CLIENT, REMOVED];
        argv.extend(ports.iter().map(String::as_str));
        let client = says(host.b.argv(As::Peer, &argv).spawn()?, "connected\n")?;
        Ok(Self { host, client })
    }

    /// What became of them all.
    pub(crate) fn ended(self) -> Result<String> {
        self.host.b.root(&format!("touch {REMOVED}")).ok()?;
        let out = self.client.wait(PATIENCE)?;
        self.host.b.root(&format!("rm {REMOVED}")).ok()?;
        let last = out.stdout.lines().last().filter(|_| out.code == 0);
        Ok(last.with_context(|| out.to_string())?.to_owned())
    }
}
