//! A lease put into effect.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use netlink::Rt;

use super::keeper::Network;
use super::lease::Lease;

/// The interface in the namespace of the calling thread, and the target's `resolv.conf`.
#[derive(Debug)]
pub(super) struct Kernel {
    name: String,
    resolv_conf: PathBuf,
}

impl Kernel {
    pub(super) fn new(name: &str, resolv_conf: &Path) -> Self {
        Self { name: name.to_owned(), resolv_conf: resolv_conf.to_owned() }
    }

    fn route(&self, rt: &mut Rt, index: u32, lease: &Lease) {
        let Some(router) = lease.router else {
            tracing::warn!(
                "the DHCP server provides no router, so nothing outside the network of {} can be reached",
                self.name
            );
            return;
        };
        if let Err(e) = rt.add_default_route(router.into(), index) {
            tracing::warn!("cannot use the router that the DHCP server provides: {e}");
        }
    }

    /// The interface is looked up each time: root of the namespace may have replaced it.
    fn open(&self) -> anyhow::Result<(Rt, u32)> {
        let mut rt = Rt::open()?;
        let index = rt.link_index(&self.name)?;
        Ok((rt, index))
    }

    /// Changes the file where it lies: it is bound over the target's. None is there before the target's view is.
    fn resolve(&self, dns: &[Ipv4Addr]) -> anyhow::Result<()> {
        if dns.is_empty() {
            tracing::warn!("the DHCP server provides no name server, so names cannot be resolved");
        }
        let Ok(old) = hostenv::file::text(&self.resolv_conf) else { return Ok(()) };
        let new = with_servers(&old, dns);
        if new == old {
            return Ok(());
        }
        let write = || {
            let mut file = OpenOptions::new().write(true).truncate(true).open(&self.resolv_conf)?;
            file.write_all(new.as_bytes())
        };
        write().with_context(|| format!("failed to write {}", self.resolv_conf.display()))
    }
}

impl Network for Kernel {
    fn install(&mut self, lease: &Lease) -> anyhow::Result<()> {
        let (mut rt, index) = self.open()?;
        rt.add_address(index, lease.address.into(), lease.prefix)?;
        self.route(&mut rt, index, lease);
        self.resolve(&lease.dns)
    }

    fn withdraw(&mut self, lease: &Lease) -> anyhow::Result<()> {
        let (mut rt, index) = self.open()?;
        Ok(rt.delete_address(index, lease.address.into(), lease.prefix)?)
    }

    fn adjust(&mut self, old: &Lease, new: &Lease) -> anyhow::Result<()> {
        if old.router != new.router && new.router.is_some() {
            let (mut rt, index) = self.open()?;
            self.route(&mut rt, index, new);
        }
        if old.dns == new.dns { Ok(()) } else { self.resolve(&new.dns) }
    }
}

/// The text of a `resolv.conf` with other name servers.
fn with_servers(old: &str, dns: &[Ipv4Addr]) -> String {
    let mut out = String::new();
    for line in old.lines().filter(|line| !line.trim_start().starts_with("nameserver")) {
        out.push_str(line);
        out.push('\n');
    }
    for ip in dns {
        writeln!(out, "nameserver {ip}").unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn name_servers_are_replaced_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let kernel = Kernel::new("eth0", &path);
        kernel.resolve(&[Ipv4Addr::new(10, 0, 3, 1)]).unwrap();
        assert!(!path.exists(), "it is written with the view of the target");
        fs::write(&path, "search a\nnameserver 192.0.2.1\n").unwrap();
        let same = fs::File::open(&path).unwrap();
        kernel.resolve(&[Ipv4Addr::new(10, 0, 3, 1)]).unwrap();
        let text = std::io::read_to_string(same).unwrap();
        assert_eq!(text, "search a\nnameserver 10.0.3.1\n");
    }
}
