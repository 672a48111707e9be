//! The name servers of the host, as `/etc/resolv.conf` has them now, and the news that they are others.

mod conf;

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::Handle;
use crate::path_watch::{PathWatch, find};
use conf::{PORT, parse};

const MAX_BYTES: usize = 64 << 10;
const PATH: &str = "etc/resolv.conf";

/// The name servers in `etc/resolv.conf` below `root`, in their order, at most three as in glibc. Without any it is the
/// one on this machine (resolv.conf(5)); a file that cannot be read is an empty one.
pub(crate) fn read(root: &Path) -> Vec<SocketAddr> {
    servers_in(find(root, Path::new(PATH)).as_deref())
}

fn servers_in(file: Option<&Path>) -> Vec<SocketAddr> {
    let text = file.map(text_of).transpose().unwrap_or_else(|e| {
        tracing::debug!("failed to read the host's resolv.conf: {e}");
        None
    });
    let found = parse(&text.unwrap_or_default());
    if found.is_empty() {
        let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return local.map(|ip| SocketAddr::new(ip, PORT)).to_vec();
    }
    found
}

/// The beginning of a file, to the last full line if that is not all of it: half an address may look like another one.
fn text_of(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    hostenv::file::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        let end = bytes.iter().rposition(|b| *b == b'\n').unwrap_or_default();
        bytes.truncate(end);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Notices that the host has other name servers.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathWatch,
    servers: Vec<SocketAddr>,
}

impl Watch {
    /// Begins to watch `etc/resolv.conf` below `root`; [`Watch::servers`] has what is there now.
    pub(crate) fn new(root: &Path) -> anyhow::Result<Self> {
        let path = PathWatch::new(root, vec![PATH.into()])?;
        let mut watch = Self { path, servers: Vec::new() };
        watch.servers = watch.look();
        Ok(watch)
    }

    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Readable when [`Watch::changed`] has something to look at.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.path.fd()
    }

    /// Looks again, without waiting. `None` if the servers are the same.
    pub(crate) fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        let now = self.look();
        if now == self.servers {
            return None;
        }
        self.servers.clone_from(&now);
        Some(now)
    }

    /// Tells the gateway what changes.
    pub(super) async fn follow(mut self, handle: &Handle) -> anyhow::Result<()> {
        let readable = sys::readable::register(self.fd().try_clone_to_owned()?)?;
        loop {
            let mut guard = readable.readable().await?;
            guard.clear_ready();
            if let Some(servers) = self.changed() {
                tracing::debug!("the host's name servers are now {servers:?}");
                handle.lock().set_resolvers(servers);
            }
        }
    }

    fn look(&mut self) -> Vec<SocketAddr> {
        let files = self.path.look();
        servers_in(files.into_iter().flatten().next().as_deref())
    }
}

#[cfg(test)]
mod tests;
