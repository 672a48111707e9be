//! `--port-driver=builtin`: listens in the host's namespace and relays into the child's ([`relay`]).
//!
//! This file is the book-keeping: which ports exist, what an error of the kernel means, and which address in
//! the namespace a port leads to.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, bail};
use api::{PortId, PortSpec, PortStatus, ValidSpec};
use netlink::transparent::DIAL_MARK;
use nix::libc;
use relay::{Engine, Options, Transparent};
use sys::rlimit::Nofile;

/// The driver, running.
#[derive(Debug)]
pub(crate) struct Builtin {
    engine: Engine,
    /// By id, so that lists are in order of age.
    ports: BTreeMap<PortId, PortSpec>,
    /// The same, by what must be unique.
    index: HashMap<(String, String, i64), PortId>,
    last_id: PortId,
    source_address_backend: String,
}

impl Builtin {
    /// Starts the data path.
    ///
    /// # Errors
    /// Its thread or descriptors cannot be made.
    pub(crate) fn start(
        factory: OwnedFd,
        nofile: Nofile,
        source_address_backend: String,
    ) -> anyhow::Result<Self> {
        let transparent = match source_address_backend.as_str() {
            "none" => Transparent::Off,
            _ => Transparent::Mark(DIAL_MARK),
        };
        let options = Options { transparent, nofile: nofile.hard, ..Options::default() };
        let engine = Engine::start(factory, options).context("failed to start port forwarding")?;
        Ok(Self {
            engine,
            ports: BTreeMap::new(),
            index: HashMap::new(),
            last_id: 0,
            source_address_backend,
        })
    }

    /// What `GET /v1/info` says.
    pub(crate) fn info(&self) -> api::PortDriverInfo {
        let protos = ["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"];
        let backend =
            (api::types::EXTRA_SOURCE_IP_BACKEND.to_owned(), self.source_address_backend.clone());
        api::PortDriverInfo {
            driver: "builtin".to_owned(),
            protos: protos.map(str::to_owned).to_vec(),
            disallow_loopback_child_ip: false,
            extra: [backend].into(),
        }
    }

    /// The published ports.
    pub(crate) fn list(&self) -> Vec<PortStatus> {
        self.ports.iter().map(|(id, spec)| PortStatus { id: *id, spec: spec.clone() }).collect()
    }

    /// Publishes a port; it answers when this returns. The status has the spec exactly as given.
    ///
    /// # Errors
    /// A bad spec, a conflict, or what the kernel said when the socket was bound.
    pub(crate) fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus> {
        let valid = spec.validate()?;
        let proto: relay::Proto = valid.proto.as_str().parse()?;
        let (proto_key, ip_key, port_key) = spec.conflict_key();
        let key = (proto_key.to_owned(), ip_key.to_owned(), port_key);
        if let Some(id) = self.index.get(&key) {
            bail!("conflict with ID {id}");
        }
        let listener = relay::listen::bind(proto, valid.parent_ip, valid.parent_port)
            .map_err(|e| explain_bind(&valid, &e))?;
        let id = self.last_id + 1;
        self.engine
            .add(id.unsigned_abs(), listener, target(&valid))
            .with_context(|| format!("failed to publish {spec}"))?;
        self.last_id = id;
        self.index.insert(key, id);
        self.ports.insert(id, spec.clone());
        Ok(PortStatus { id, spec })
    }

    /// Withdraws a port and closes its connections.
    ///
    /// # Errors
    /// There is no port of that number.
    pub(crate) fn remove(&mut self, id: PortId) -> anyhow::Result<()> {
        let Some(spec) = self.ports.remove(&id) else { bail!("unknown port id: {id}") };
        let (proto, ip, port) = spec.conflict_key();
        self.index.remove(&(proto.to_owned(), ip.to_owned(), port));
        if !self.engine.remove(id.unsigned_abs()) {
            tracing::debug!("port {id} was not known to the engine");
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

/// The text that Go's `net` package would give, which clients match, and what can be done.
fn explain_bind(spec: &ValidSpec, error: &io::Error) -> anyhow::Error {
    let port = spec.parent_port;
    let address = match spec.parent_ip {
        Some(ip) => SocketAddr::new(ip, port).to_string(),
        None => format!(":{port}"),
    };
    let proto = spec.proto.as_str();
    let step = if error.raw_os_error().is_some() { "bind: " } else { "" };
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    let lower: String =
        chars.next().into_iter().flat_map(char::to_lowercase).chain(chars).collect();
    let go = format!("listen {proto} {address}: {step}{lower}");
    if error.raw_os_error() != Some(libc::EACCES) {
        return anyhow::anyhow!(go);
    }
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let start = std::fs::read_to_string(path).ok().and_then(|s| s.trim().parse().ok());
    match start {
        Some(start) if u32::from(port) < start => anyhow::anyhow!(privileged(port, start, &go)),
        _ => anyhow::anyhow!(go),
    }
}

fn privileged(port: u16, start: u32, cause: &str) -> String {
    format!(
        "cannot expose privileged port {port}, you can add 'net.ipv4.ip_unprivileged_port_start={port}' to /etc/sysctl.conf (currently {start}), or set CAP_NET_BIND_SERVICE on rootlesskit binary, or choose a larger port number (>= {start}): {cause}"
    )
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

    #[test]
    fn f161_errors_are_gos_with_a_remedy() {
        let in_use = io::Error::from_raw_os_error(libc::EADDRINUSE);
        let text = explain_bind(&valid("0.0.0.0:8080:80/tcp4"), &in_use).to_string();
        assert_eq!(text, "listen tcp4 0.0.0.0:8080: bind: address already in use");
        let text = explain_bind(&valid("[::1]:53:53/udp"), &in_use).to_string();
        assert_eq!(text, "listen udp [::1]:53: bind: address already in use");
        let text = privileged(80, 1024, "x");
        assert!(
            text.contains("cannot expose privileged port 80")
                && text.contains("ip_unprivileged_port_start=80")
        );
    }
}
