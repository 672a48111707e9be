//! `--port-driver=builtin`: listens in the host's namespace and relays into the child's ([`relay`]).
//!
//! This file is the book-keeping: which ports exist, what an error of the kernel means, and which address in
//! the namespace a port leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use api::{PortDriverInfo, PortId, PortSpec, PortStatus, ValidSpec};
use budget::Budget;
use netlink::transparent::DIAL_MARK;
use relay::{Engine, Options, Service, Transparent};

use crate::port::Driver;
use crate::port::bind::bind;
use crate::port::table::Table;

#[derive(Debug)]
pub(crate) struct Builtin {
    engine: Engine,
    table: Table<()>,
    source_address_backend: String,
}

impl Builtin {
    pub(crate) fn start(
        factory: OwnedFd,
        budget: &Budget,
        source_address_backend: String,
    ) -> anyhow::Result<Self> {
        let transparent = match source_address_backend.as_str() {
            "none" => Transparent::Off,
            _ => Transparent::OnDemand(DIAL_MARK),
        };
        let options = Options { transparent, shares: budget.shares, ..Options::default() };
        let engine = Engine::start(factory, options).context("failed to start port forwarding")?;
        Ok(Self { engine, table: Table::within(budget), source_address_backend })
    }
}

impl Driver for Builtin {
    fn info(&self) -> PortDriverInfo {
        let backend = self.source_address_backend.clone();
        PortDriverInfo {
            driver: "builtin".to_owned(),
            protos: relay::Proto::ALL.map(|proto| proto.as_str().to_owned()).to_vec(),
            disallow_loopback_child_ip: false,
            extra: [(api::types::EXTRA_SOURCE_IP_BACKEND.to_owned(), backend)].into(),
        }
    }

    fn list(&self) -> Vec<PortStatus> {
        self.table.list()
    }

    fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus> {
        let valid = spec.validate()?;
        let id = self.table.reserve(&spec)?;
        let listener = bind(&valid)?;
        let target = target(&valid);
        let service = Service { allowed: valid.allow_from.into(), ..Service::to(target) };
        self.engine
            .add(id.unsigned_abs(), listener, service)
            .with_context(|| format!("failed to publish {spec}"))?;
        Ok(self.table.insert(id, spec, ()))
    }

    fn remove(&mut self, id: PortId) -> anyhow::Result<()> {
        self.table.remove(id)?;
        if !self.engine.remove(id.unsigned_abs()) {
            tracing::debug!("the engine did not know port {id}");
        }
        Ok(())
    }
}

/// Where in the namespace a port leads: the address that was asked for, otherwise a loopback address. A
/// specific one of the host (127.0.0.2) means the same inside, since servers tell sites apart by it.
fn target(spec: &ValidSpec) -> SocketAddr {
    let loopback = match spec.parent_ip {
        Some(ip) if ip.is_loopback() => ip,
        Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    let ip = spec.child_ip.unwrap_or(loopback);
    let ip = match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.to_canonical(),
    };
    SocketAddr::new(ip, spec.child_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(text: &str) -> ValidSpec {
        text.parse::<PortSpec>().unwrap().validate().unwrap()
    }

    #[test]
    fn where_ports_lead() {
        for (spec, wanted) in [
            ("0.0.0.0:8080:80/tcp", "127.0.0.1:80"),
            (":8080:80/tcp", "127.0.0.1:80"),
            ("127.0.0.2:8080:80/tcp", "127.0.0.2:80"),
            ("192.0.2.1:8080:80/tcp", "127.0.0.1:80"),
            ("[::]:8080:80/tcp6", "[::1]:80"),
            ("[::1]:8080:80/tcp", "[::1]:80"),
            ("[::]:8080:[127.0.0.1]:80/tcp", "127.0.0.1:80"),
            ("0.0.0.0:8080:172.17.0.2:80/udp", "172.17.0.2:80"),
            ("0.0.0.0:8080:[::ffff:10.0.2.100]:80/tcp", "10.0.2.100:80"),
        ] {
            assert_eq!(target(&valid(spec)).to_string(), wanted, "{spec}");
        }
    }
}
