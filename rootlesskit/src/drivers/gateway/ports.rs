//! `--port-driver=gateway`: the gateway process listens for the host's clients and relays to the child's address, as
//! the client where that is possible.
//!
//! # What dockerd is told
//! dockerd reads once which protocols there are and whether ports may lead to loopback addresses of the namespace. If not,
//! every port leads to the one address of the namespace, and then a host port exists once: IPv4 is in the way of IPv6, and
//! one host address of another. So this driver takes both protocols and loopback addresses. How clients keep their
//! addresses on the way there is in [`gateway::namespace::loopback`].
//!
//! A network without IPv6 has no way to `::1`. Such ports are relayed as the driver `builtin` does, from inside the
//! namespace, as are UDP ports on loopback addresses of the host that name no address of the namespace.
//!
//! Nor does the gateway reach loopback addresses on Linux 7.3 and later. All ports that lead to them are then relayed from inside,
//! by sockets with the addresses of TCP clients.
//!
//! Listeners are made here and stay here as well, so ports survive a gateway that has to be replaced.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, bail};
use api::spec::{Family, Transport};
use api::{PortDriverInfo, PortId, PortSpec, PortStatus, ValidSpec};
use budget::{Budget, DataPath, NETWORK};
use gateway::namespace::loopback;
use relay::{Listener, Proto};

use super::Handle;
use crate::drivers::builtin::Builtin;
use crate::port::Driver;
use crate::port::bind::bind;
use crate::port::table::Table;

/// Added to the number of a port, the number under which it listens on IPv6, too.
const ALSO_IPV6: u64 = 1 << 62;

#[derive(Debug)]
pub(crate) struct Gateway {
    name: &'static str,
    handle: Handle,
    v4: IpAddr,
    v6: Option<IpAddr>,
    dual_stack: bool,
    table: Table<Served>,
    inside: Inside,
    /// The published ports of one number, by whether they are of UDP.
    by_number: HashMap<(bool, u16), Vec<PortId>>,
    /// How many ports listen on all IPv6 addresses, too, which takes another descriptor.
    also: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Gateway {
        /// Whether the IPv4 port listens on all IPv6 addresses, too, for as long as nothing else wants that.
        also_ipv6: bool,
    },
    /// From inside the namespace, under this number.
    Inside(PortId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// An address that the gateway reaches.
    Gateway(SocketAddr),
    /// A loopback address that it does not reach.
    Inside,
}

/// The ports that are relayed from inside the namespace; their driver starts with the first of them.
#[derive(Debug)]
pub(crate) struct Inside {
    /// Makes sockets in the namespace.
    factory: Option<OwnedFd>,
    driver: Option<Builtin>,
    /// If these are all ports that lead to loopback addresses: what keeps the addresses of TCP clients (`nft`, `iptables` or
    /// `none`).
    all_loopback: Option<String>,
    budget: Budget,
}

impl Inside {
    /// `budget` is that of all ports.
    pub(crate) fn new(
        factory: Option<OwnedFd>,
        all_loopback: Option<String>,
        budget: &Budget,
    ) -> Self {
        // This process keeps the listeners of all ports. Where nearly all are relayed from inside, they are counted there.
        let listeners = if all_loopback.is_some() { 0 } else { budget.ports };
        let budget = Budget::beside(budget.limit, DataPath::Parent, NETWORK + listeners);
        Self { factory, driver: None, all_loopback, budget }
    }

    fn driver(&mut self) -> anyhow::Result<&mut Builtin> {
        if let Some(factory) = self.factory.take() {
            let backend = self.all_loopback.clone().unwrap_or_else(|| "none".to_owned());
            self.driver = Some(Builtin::start(factory, &self.budget, backend)?);
        }
        self.driver.as_mut().context("the child sent no socket factory")
    }
}

impl Gateway {
    pub(crate) fn new(
        name: &'static str,
        handle: Handle,
        dual_stack: bool,
        inside: Inside,
        budget: &Budget,
    ) -> Self {
        // What was built: without IPv6 where the kernel has none.
        let plan = handle.lock().plan().clone();
        let (v4, v6) = (plan.v4.child, plan.v6.map(|net| net.child));
        let table = Table::within(budget);
        Self { name, handle, v4, v6, dual_stack, table, inside, by_number: HashMap::new(), also: 0 }
    }

    fn target(&self, spec: &ValidSpec) -> anyhow::Result<Target> {
        let own = match spec.proto.family() {
            Some(Family::V6) => self.v6.unwrap_or(self.v4),
            _ => self.v4,
        };
        let ip = match spec.child_ip.map(|ip| ip.to_canonical()) {
            // As with `builtin`: a loopback address of the host means the same inside. A server of datagrams on all addresses
            // would answer the gateway from another one than it was asked at, so it is asked from inside.
            None => match spec.parent_ip {
                Some(ip) if ip.is_loopback() && spec.proto.transport() == Transport::Udp => {
                    return Ok(Target::Inside);
                }
                Some(ip) if ip.is_loopback() && (ip.is_ipv4() || self.v6.is_some()) => ip,
                _ => own,
            },
            Some(ip) if ip.is_unspecified() => own,
            Some(ip) if ip.is_ipv6() && self.v6.is_none() => {
                if ip.is_loopback() {
                    return Ok(Target::Inside);
                }
                bail!(
                    "invalid ChildIP: {ip} (IPv6 is not enabled in the namespace)\nhint: add --ipv6"
                )
            }
            Some(ip) => ip,
        };
        if ip.is_loopback() && self.inside.all_loopback.is_some() {
            return Ok(Target::Inside);
        }
        Ok(Target::Gateway(SocketAddr::new(loopback::reached_at(ip), spec.child_port)))
    }

    fn publish(
        &self,
        id: u64,
        target: SocketAddr,
        spec: &PortSpec,
        valid: &ValidSpec,
        listener: Listener,
    ) -> anyhow::Result<()> {
        let udp = matches!(listener, Listener::Udp(_));
        let (Listener::Tcp(listener) | Listener::Udp(listener)) = listener;
        // dockerd may write an IPv4 address as ::ffff:10.0.2.100.
        let child = spec.child_ip.parse::<IpAddr>().map(|ip| ip.to_canonical().to_string());
        let child_ip = child.unwrap_or_default();
        let name = PortSpec { child_ip, allow_from: Vec::new(), ..spec.clone() }.to_string();
        let allow_from = valid.allow_from.clone();
        let answer = self.handle.lock().publish(id, udp, target, allow_from, name, listener)?;
        if let Err(e) = answer.wait() {
            self.handle.lock().forget(id);
            return Err(e);
        }
        Ok(())
    }

    /// Lets a port of all IPv4 addresses listen on all IPv6 addresses, too, if those are free. Whether it does.
    fn also_ipv6(
        &mut self,
        id: PortId,
        spec: &PortSpec,
        valid: &ValidSpec,
        target: Target,
    ) -> bool {
        let Target::Gateway(target) = target else { return false };
        let proto = match valid.proto.as_str() {
            "tcp4" => Proto::Tcp6,
            "udp4" => Proto::Udp6,
            _ => return false,
        };
        let everywhere = valid.parent_ip.is_none_or(|ip| ip.is_unspecified() && ip.is_ipv4());
        if !self.dual_stack || !everywhere {
            return false;
        }
        // One descriptor for this, and one for the port itself if it is new.
        if !self.table.has_room_for(self.also + 2) {
            tracing::warn!(
                "port {} is not also published on IPv6: the limit of open files leaves no room\nhint: raise the limit with LimitNOFILE= in the service or ulimit -Hn",
                valid.parent_port
            );
            return false;
        }
        let spec = PortSpec {
            proto: proto.as_str().to_owned(),
            parent_ip: "::".to_owned(),
            ..spec.clone()
        };
        let published = relay::listen::bind(proto, None, valid.parent_port)
            .map_err(anyhow::Error::from)
            .and_then(|listener| {
                self.publish(id.unsigned_abs() | ALSO_IPV6, target, &spec, valid, listener)
            });
        match published {
            Ok(()) => self.also += 1,
            Err(ref e) => {
                tracing::debug!("port {} is not also published on IPv6: {e:#}", valid.parent_port);
            }
        }
        published.is_ok()
    }

    /// The ports of the same number and transport protocol, if this one listens on an IPv6 address, or may.
    fn neighbours(&self, valid: &ValidSpec) -> Vec<(PortId, PortSpec, ValidSpec)> {
        if !wants_ipv6(valid) {
            return Vec::new();
        }
        let of = |id: &PortId| {
            let (spec, _) = self.table.get(*id).ok()?;
            Some((*id, spec.clone(), spec.validate().ok()?))
        };
        self.by_number.get(&number(valid)).into_iter().flatten().filter_map(of).collect()
    }

    /// Ends what [`Gateway::also_ipv6`] began, if it did.
    fn leave_ipv6(&mut self, id: PortId) {
        if let Some(served) = self.table.get_mut(id)
            && *served == (Served::Gateway { also_ipv6: true })
        {
            *served = Served::Gateway { also_ipv6: false };
            self.withdraw_ipv6(id);
        }
    }

    fn withdraw_ipv6(&mut self, id: PortId) {
        self.also -= 1;
        let number = id.unsigned_abs() | ALSO_IPV6;
        if let Err(e) = self.end(number) {
            tracing::debug!("cannot remove port {number}: {e:#}");
        }
    }

    /// Gives the room back.
    fn take_ipv6(&mut self, valid: &ValidSpec) {
        for (id, spec, other) in self.neighbours(valid) {
            let idle = self
                .table
                .get(id)
                .is_ok_and(|(_, served)| *served == Served::Gateway { also_ipv6: false });
            let target = self.target(&other);
            if let (true, Ok(target)) = (idle, target)
                && self.also_ipv6(id, &spec, &other, target)
                && let Some(served) = self.table.get_mut(id)
            {
                *served = Served::Gateway { also_ipv6: true };
            }
        }
    }

    fn end(&self, id: u64) -> anyhow::Result<()> {
        let answer = self.handle.lock().withdraw(id)?;
        answer.wait()
    }

    fn serve(
        &mut self,
        id: PortId,
        spec: &PortSpec,
        valid: &ValidSpec,
        target: Target,
    ) -> anyhow::Result<Served> {
        match target {
            Target::Inside => Ok(Served::Inside(self.inside.driver()?.add(spec.clone())?.id)),
            Target::Gateway(to) => {
                let listener = bind(valid)?;
                self.publish(id.unsigned_abs(), to, spec, valid, listener)?;
                Ok(Served::Gateway { also_ipv6: self.also_ipv6(id, spec, valid, target) })
            }
        }
    }
}

/// Ports of the same number can be in each other's way.
fn number(valid: &ValidSpec) -> (bool, u16) {
    (valid.proto.transport() == Transport::Udp, valid.parent_port)
}

fn wants_ipv6(valid: &ValidSpec) -> bool {
    valid.proto.family() != Some(Family::V4)
        && valid.parent_ip.is_none_or(|ip| ip.is_ipv6() || ip.is_unspecified())
}

impl Driver for Gateway {
    fn info(&self) -> PortDriverInfo {
        PortDriverInfo {
            driver: self.name.to_owned(),
            protos: Proto::ALL.map(|proto| proto.as_str().to_owned()).to_vec(),
            ..PortDriverInfo::default()
        }
    }

    fn list(&self) -> Vec<PortStatus> {
        self.table.list()
    }

    fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus> {
        let valid = spec.validate()?;
        if valid.proto.transport() == Transport::Sctp {
            bail!("unsupported protocol: {}", valid.proto.as_str());
        }
        let target = self.target(&valid)?;
        let id = self.table.reserve(&spec)?;
        // Room for a port that is to listen on IPv6 itself.
        for (neighbour, ..) in self.neighbours(&valid) {
            self.leave_ipv6(neighbour);
        }
        if !self.table.has_room_for(self.also + 1) {
            // A new port is worth more than an old one on IPv6, too.
            let listens = |(id, served): (PortId, &Served)| {
                (*served == Served::Gateway { also_ipv6: true }).then_some(id)
            };
            let first = self.table.iter().find_map(listens);
            first.into_iter().for_each(|id| self.leave_ipv6(id));
        }
        match self.serve(id, &spec, &valid, target) {
            Ok(served) => {
                self.by_number.entry(number(&valid)).or_default().push(id);
                Ok(self.table.insert(id, spec, served))
            }
            Err(e) => {
                self.take_ipv6(&valid);
                Err(e)
            }
        }
    }

    fn remove(&mut self, id: PortId) -> anyhow::Result<()> {
        let (spec, served) = self.table.remove(id)?;
        let withdrawn = match served {
            Served::Inside(inner) => self.inside.driver().and_then(|d| d.remove(inner)),
            Served::Gateway { .. } => self.end(id.unsigned_abs()),
        };
        if served == (Served::Gateway { also_ipv6: true }) {
            self.withdraw_ipv6(id);
        }
        if let Ok(valid) = spec.validate() {
            if let Entry::Occupied(mut ids) = self.by_number.entry(number(&valid)) {
                ids.get_mut().retain(|other| *other != id);
                if ids.get().is_empty() {
                    ids.remove();
                }
            }
            self.take_ipv6(&valid);
        }
        withdrawn
    }
}
