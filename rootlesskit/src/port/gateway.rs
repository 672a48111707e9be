//! `--port-driver=gateway`: the gateway process listens for the host's clients and relays to the child's address, as
//! the client where that is possible.
//!
//! Listeners are made here and stay here as well, so ports survive a gateway that has to be replaced.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, bail};
use api::spec::{Family, Transport};
use api::{PortDriverInfo, PortId, PortSpec, PortStatus, ValidSpec};
use relay::{Listener, Proto};

use super::Driver;
use super::bind::bind;
use super::table::Table;
use crate::net::SharedGateway;

/// The driver.
#[derive(Debug)]
pub(crate) struct Gateway {
    name: &'static str,
    handle: SharedGateway,
    /// The child's addresses.
    v4: IpAddr,
    v6: Option<IpAddr>,
    dual_stack: bool,
    table: Table<()>,
}

impl Gateway {
    pub(crate) fn new(
        name: &'static str,
        handle: SharedGateway,
        plan: &gateway::Plan,
        dual_stack: bool,
    ) -> Self {
        let (v4, v6) = (plan.v4.child, plan.v6.map(|net| net.child));
        Self { name, handle, v4, v6, dual_stack, table: Table::new() }
    }

    /// Where in the namespace a port leads.
    fn target(&self, spec: &ValidSpec) -> anyhow::Result<SocketAddr> {
        let own = match spec.proto.family() {
            Some(Family::V6) => self.v6.unwrap_or(self.v4),
            _ => self.v4,
        };
        let ip = match spec.child_ip.map(|ip| ip.to_canonical()) {
            None => own,
            Some(ip) if ip.is_unspecified() => own,
            Some(ip) if ip.is_loopback() => bail!(
                "invalid ChildIP: {ip}: the port driver {:?} cannot reach the namespace's loopback\nhint: leave ChildIP out, or use {own}",
                self.name
            ),
            Some(ip) => ip,
        };
        Ok(SocketAddr::new(ip, spec.child_port))
    }

    /// Listens. With `dual_stack` a port of all IPv4 addresses is one of all IPv6 addresses, too, if those are free.
    fn listen(&self, spec: &ValidSpec) -> anyhow::Result<Listener> {
        let everywhere = spec.parent_ip.is_none_or(|ip| ip.is_unspecified() && ip.is_ipv4());
        let both = match spec.proto.as_str() {
            "tcp4" => Some(Proto::Tcp),
            "udp4" => Some(Proto::Udp),
            _ => None,
        };
        if self.dual_stack
            && everywhere
            && let Some(both) = both
        {
            match relay::listen::bind(both, None, spec.parent_port) {
                Ok(listener) => return Ok(listener),
                Err(e) => {
                    tracing::debug!("port {} is not free for both families: {e}", spec.parent_port);
                }
            }
        }
        bind(spec)
    }
}

impl Driver for Gateway {
    fn info(&self) -> PortDriverInfo {
        // dockerd maps both families to the one child address, so the IPv6 protocols are not offered to it.
        let protos = ["tcp", "tcp4", "udp", "udp4"].map(str::to_owned).to_vec();
        PortDriverInfo {
            driver: self.name.to_owned(),
            protos,
            disallow_loopback_child_ip: true,
            extra: std::collections::BTreeMap::new(),
        }
    }

    fn list(&self) -> Vec<PortStatus> {
        self.table.list()
    }

    fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus> {
        let valid = spec.validate()?;
        let udp = match valid.proto.transport() {
            Transport::Tcp => false,
            Transport::Udp => true,
            Transport::Sctp => bail!("unsupported protocol: {}", valid.proto.as_str()),
        };
        let target = self.target(&valid)?;
        let id = self.table.reserve(&spec)?;
        let listener: OwnedFd = match self.listen(&valid)? {
            Listener::Tcp(fd) | Listener::Udp(fd) => fd,
        };
        let mut handle = self.handle.borrow_mut();
        let handle = handle.as_mut().context("the gateway network was not built")?;
        // dockerd writes the address as ::ffff:10.0.2.100.
        let ip = valid.child_ip.map_or_else(String::new, |ip| ip.to_canonical().to_string());
        let name = PortSpec { child_ip: ip, ..spec.clone() }.to_string();
        handle.publish(id.unsigned_abs(), udp, target, name, listener)?;
        Ok(self.table.insert(id, spec, ()))
    }

    fn remove(&mut self, id: PortId) -> anyhow::Result<()> {
        self.table.remove(id)?;
        if let Some(handle) = self.handle.borrow_mut().as_mut() {
            handle.withdraw(id.unsigned_abs())?;
        }
        Ok(())
    }
}
