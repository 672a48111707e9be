//! `--net=gateway`: our own network ([`gateway`]), which needs no helper program.
//!
//! The child builds the namespaces and hands their descriptors over ([`Driver::built`]). The gateway process is this
//! program once more, told by its name; its control channel is its standard input. It is watched and replaced like any
//! helper, and its successor gets the same descriptors. The name servers of the host are followed while it runs.
//!
//! `--net=gvisor-tap-vsock` is the same network with the addresses of that driver.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use gateway::plan::Net;
use gateway::supervisor::{self, Descriptors};
use nix::sys::resource::{Resource, getrlimit};
use sys::pidfd::PidFd;

use super::resolvers::Watch;
use super::{Cidr, Driver, Namespace, SLIRP6, Starting};
use crate::handshake::{NetworkPlan, Tap};

/// `argv[0]` of the gateway process.
pub(crate) const PROCESS: &str = "rootlesskit-gateway";

/// How many descriptors the gateway network consists of: two tun devices, the socket factory, the IPv4 listener, and
/// where the kernel has IPv6 its listener.
const DESCRIPTORS: std::ops::RangeInclusive<usize> = 4..=5;

/// The handle that network driver and port driver share; absent until the namespaces exist.
pub(crate) type Shared = Rc<RefCell<Option<supervisor::Gateway>>>;

/// The driver.
#[derive(Debug)]
pub(crate) struct Gateway {
    name: &'static str,
    plan: gateway::Plan,
    handle: Shared,
    resolvers: RefCell<Option<Watch>>,
}

/// The flags that shape the network.
#[derive(Debug)]
pub(crate) struct Wishes {
    pub(crate) cidr: Cidr,
    pub(crate) ifname: String,
    /// In bytes.
    pub(crate) mtu: u32,
    pub(crate) ipv6: bool,
    pub(crate) disable_host_loopback: bool,
}

impl Gateway {
    pub(crate) fn new(wishes: Wishes) -> Self {
        let (gateway, dns) = (wishes.cidr.gateway(), wishes.cidr.dns());
        Self::with_addresses("gateway", wishes, gateway.into(), dns.into())
    }

    /// With the addresses of gvisor-tap-vsock, whose gateway is its name server.
    pub(crate) fn like_gvisor(wishes: Wishes) -> Self {
        let first = IpAddr::from(wishes.cidr.first());
        Self::with_addresses("gvisor-tap-vsock", wishes, first, first)
    }

    fn with_addresses(name: &'static str, wishes: Wishes, gateway: IpAddr, dns: IpAddr) -> Self {
        let Wishes { cidr, ifname, mtu, ipv6, disable_host_loopback } = wishes;
        let v4 = Net { child: cidr.child().into(), gateway, dns, prefix: cidr.prefix() };
        let [child, gateway, dns] = SLIRP6.map(Ipv6Addr::into);
        let v6 = ipv6.then_some(Net { child, gateway, dns, prefix: 64 });
        let plan = gateway::Plan { ifname, mtu, v4, v6, host_loopback: !disable_host_loopback };
        Self { name, plan, handle: Shared::default(), resolvers: RefCell::default() }
    }

    fn dns(&self) -> Vec<IpAddr> {
        self.plan.nets().map(|net| net.dns).collect()
    }
}

impl Driver for Gateway {
    fn info(&self) -> api::NetworkDriverInfo {
        api::NetworkDriverInfo {
            driver: self.name.to_owned(),
            dns: self.dns(),
            child_ip: Some(self.plan.v4.child),
            dynamic_child_ip: false,
            ipv6: self.plan.v6.is_some(),
        }
    }

    fn plan(&self) -> NetworkPlan {
        let tap = Tap {
            name: self.plan.ifname.clone(),
            mtu: self.plan.mtu,
            addresses: self.plan.nets().map(|net| (net.child, net.prefix)).collect(),
            gateways: self.plan.nets().map(|net| net.gateway).collect(),
        };
        let gateway = Some(Box::new(self.plan.clone()));
        NetworkPlan { tap: Some(tap), gateway, dns: self.dns(), own_view: true }
    }

    fn built(&self, fds: Vec<OwnedFd>) -> anyhow::Result<()> {
        if !DESCRIPTORS.contains(&fds.len()) {
            bail!("the child sent {} descriptors of the gateway network", fds.len());
        }
        let mut fds = fds.into_iter();
        let mut next = || fds.next().context("a descriptor of the gateway network is missing");
        let descriptors = Descriptors {
            dial: next()?,
            data: next()?,
            factory: next()?,
            listener4: next()?,
            listener6: next().ok(),
        };
        let watch = Watch::new(Path::new("/")).inspect_err(|e| {
            tracing::warn!("changes of the host's name servers will not be noticed: {e:#}");
        });
        let servers = match &watch {
            Ok(watch) => watch.servers().to_vec(),
            Err(_) => super::resolvers::read(Path::new("/")),
        };
        self.resolvers.replace(watch.ok());
        let (nofile, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let handle = supervisor::Gateway::new(self.plan.clone(), descriptors, servers, nofile);
        self.handle.replace(Some(handle.named(self.name)));
        Ok(())
    }

    fn start(&self, _ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        let mut handle = self.handle.borrow_mut();
        let handle = handle.as_mut().context("the gateway network was not built")?;
        let control = handle.renew().context("failed to make the gateway's control channel")?;
        let mut cmd = Command::new("/proc/self/exe");
        cmd.arg0(PROCESS).env_clear().stdin(Stdio::from(control));
        if tracing::enabled!(tracing::Level::DEBUG) {
            cmd.arg("--debug");
        }
        let starting = Starting::own(self.name, cmd)?;
        match handle.configure() {
            Ok(()) => {
                handle.adopt(PidFd::open(starting.process().pid())?);
                Ok(Some(starting))
            }
            Err(e) => {
                starting.abandon();
                Err(e)
            }
        }
    }

    fn gateway(&self) -> Option<(Shared, &gateway::Plan)> {
        Some((Rc::clone(&self.handle), &self.plan))
    }

    fn watched(&self) -> Option<OwnedFd> {
        self.resolvers.borrow().as_ref().and_then(|watch| watch.fd().try_clone_to_owned().ok())
    }

    fn notice(&self) {
        let changed = self.resolvers.borrow_mut().as_mut().and_then(Watch::changed);
        if let Some(servers) = changed
            && let Some(handle) = self.handle.borrow_mut().as_mut()
        {
            tracing::debug!("the host's name servers are now {servers:?}");
            handle.set_resolvers(servers);
        }
    }
}

/// The role "gateway": what the process does.
pub(crate) fn process() -> anyhow::Result<()> {
    use std::os::fd::AsFd as _;
    crate::log::init("gateway", std::env::args_os().nth(1).is_some_and(|arg| arg == "--debug"));
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    gateway::process::run(control.context("the gateway has no control channel")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes() -> Wishes {
        Wishes {
            cidr: "10.9.0.0/16".parse().unwrap(),
            ifname: "eth7".to_owned(),
            mtu: 1500,
            ipv6: true,
            disable_host_loopback: true,
        }
    }

    #[test]
    fn the_flags_shape_the_network() {
        let driver = Gateway::new(wishes());
        let plan = &driver.plan;
        assert_eq!(
            (plan.v4.gateway, plan.v4.dns),
            ("10.9.0.2".parse().unwrap(), "10.9.0.3".parse().unwrap())
        );
        assert!(!plan.host_loopback);
        let info = driver.info();
        assert_eq!((info.driver.as_str(), info.ipv6, info.dns.len()), ("gateway", true, 2));
        let tap = driver.plan().tap.unwrap();
        assert_eq!((tap.name.as_str(), tap.mtu, tap.gateways.len()), ("eth7", 1500, 2));
        assert_eq!(tap.addresses[0], ("10.9.0.100".parse().unwrap(), 16));
    }

    #[test]
    fn gvisors_gateway_is_its_name_server() {
        let driver = Gateway::like_gvisor(Wishes { ipv6: false, ..wishes() });
        let first: IpAddr = "10.9.0.1".parse().unwrap();
        assert_eq!((driver.plan.v4.gateway, driver.plan.v4.dns), (first, first));
        assert_eq!(driver.info().driver, "gvisor-tap-vsock");
    }

    #[test]
    fn a_wrong_number_of_descriptors_is_refused() {
        let error = Gateway::new(wishes()).built(Vec::new()).unwrap_err();
        assert!(error.to_string().contains("0 descriptors"), "{error}");
    }
}
