//! `--net=gateway`: our own network ([`gateway`]), which needs no helper program.
//!
//! The child builds the namespaces and hands their descriptors over ([`Driver::built`]). The gateway process is this
//! program once more, told by its name; its control channel is its standard input. It is watched and replaced like any
//! helper, and its successor gets the same descriptors. The name servers of the host are followed while it runs.
//!
//! `--net=gvisor-tap-vsock` is the same network with the addresses of that driver.

use std::cell::RefCell;
use std::io::{self, PipeWriter, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use gateway::plan::Net;
use gateway::supervisor::{self, Descriptors};
use sys::pidfd::PidFd;
use tokio::sync::oneshot;

use super::resolvers::Watch;
use super::{Cidr, DEFAULT_MTU, Driver, Namespace, SLIRP6, Starting};
use crate::api_backend::Count;
use crate::cli::Cli;
use crate::handshake::{NetworkPlan, Tap};

/// In bytes: segments of 64 KiB cross the network whole whatever this is.
const MTU: u32 = 1500;
/// The least MTU of a link with IPv4 (RFC 791) and with IPv6 (RFC 8200), in bytes.
const IPV4_MTU: u32 = 68;
const IPV6_MTU: u32 = 1280;

/// `argv[0]` of the gateway process.
pub(crate) const PROCESS: &str = "rootlesskit-gateway";

/// How many descriptors the gateway network consists of: two tun devices, the socket factory, the IPv4 listener, and
/// where the kernel has IPv6 its listener.
const DESCRIPTORS: std::ops::RangeInclusive<usize> = 4..=5;

/// The handle that network driver and port driver share; absent until the namespaces exist. Nothing is waited for while it
/// is locked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Option<supervisor::Gateway>>>);

impl Shared {
    /// Does something with the handle.
    ///
    /// # Errors
    /// There is none yet.
    pub(crate) fn with<T>(
        &self,
        act: impl FnOnce(&mut supervisor::Gateway) -> T,
    ) -> anyhow::Result<T> {
        self.lock().as_mut().map(act).context("the gateway network was not built")
    }

    fn lock(&self) -> MutexGuard<'_, Option<supervisor::Gateway>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
struct Wishes {
    cidr: Cidr,
    ifname: String,
    /// In bytes.
    mtu: u32,
    ipv6: bool,
    disable_host_loopback: bool,
}

impl Wishes {
    fn of(cli: &Cli, cidr: Option<Cidr>, default_mtu: u32) -> anyhow::Result<Self> {
        let (mtu, least) = (cli.mtu_or(default_mtu), if cli.ipv6 { IPV6_MTU } else { IPV4_MTU });
        if mtu < least {
            let version = if cli.ipv6 { "IPv6" } else { "IPv4" };
            bail!("invalid --mtu={mtu}: {version} needs {least} at least");
        }
        Ok(Self {
            cidr: cidr.unwrap_or(Cidr::DEFAULT),
            ifname: cli.ifname_or("tap0"),
            mtu,
            ipv6: cli.ipv6,
            disable_host_loopback: cli.disable_host_loopback,
        })
    }
}

impl Gateway {
    /// As the flags have it.
    pub(crate) fn chosen(cli: &Cli, cidr: Option<Cidr>) -> anyhow::Result<Self> {
        Ok(Self::new(Wishes::of(cli, cidr, MTU)?))
    }

    fn new(wishes: Wishes) -> Self {
        let (gateway, dns) = (wishes.cidr.gateway(), wishes.cidr.dns());
        Self::with_addresses("gateway", wishes, gateway.into(), dns.into())
    }

    /// With the addresses of gvisor-tap-vsock, whose gateway is its name server.
    pub(crate) fn like_gvisor(cli: &Cli, cidr: Option<Cidr>) -> anyhow::Result<Self> {
        Ok(Self::gvisor(Wishes::of(cli, cidr, DEFAULT_MTU)?))
    }

    fn gvisor(wishes: Wishes) -> Self {
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
        let nofile = sys::rlimit::nofile()?.soft;
        let handle = supervisor::Gateway::new(self.plan.clone(), descriptors, servers, nofile);
        *self.handle.lock() = Some(handle.named(self.name));
        Ok(())
    }

    fn start(&self, _ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        let control = self.handle.with(supervisor::Gateway::renew)?;
        let control = control.context("failed to make the gateway's control channel")?;
        let mut cmd = Command::new("/proc/self/exe");
        cmd.arg0(PROCESS).env_clear().stdin(Stdio::from(control));
        if tracing::enabled!(tracing::Level::DEBUG) {
            cmd.arg("--debug");
        }
        let (starting, mut ready) = start(self.name, cmd)?;
        let ready = move || {
            if let Err(e) = ready.write_all(b"1") {
                tracing::debug!("nobody waits for the gateway any more: {e}");
            }
        };
        let configured =
            PidFd::open(starting.process().pid()).map_err(anyhow::Error::from).and_then(
                |process| self.handle.with(|gateway| gateway.configure(Some(process), ready))?,
            );
        match configured {
            Ok(()) => Ok(Some(starting)),
            Err(e) => {
                abandon(&starting);
                Err(e)
            }
        }
    }

    fn why_ended(&self) -> Option<String> {
        // The answer may take a moment, in which others use the handle.
        self.handle.with(|gateway| gateway.ending()).ok().flatten()?.why()
    }

    fn count(&self) -> Option<Count> {
        let handle = self.handle.clone();
        Some(Box::new(move || {
            let (reply, answer) = oneshot::channel();
            // Whoever asked may have gone away.
            let done = move |stats| drop(reply.send(stats));
            if let Err(e) = handle.with(|gateway| gateway.stats(done)) {
                tracing::debug!("{e}");
            }
            answer
        }))
    }

    fn gateway(&self) -> Option<(Shared, &gateway::Plan)> {
        Some((self.handle.clone(), &self.plan))
    }

    fn watched(&self) -> Option<OwnedFd> {
        self.resolvers.borrow().as_ref().and_then(|watch| watch.fd().try_clone_to_owned().ok())
    }

    fn notice(&self) {
        let changed = self.resolvers.borrow_mut().as_mut().and_then(Watch::changed);
        if let Some(servers) = changed {
            tracing::debug!("the host's name servers are now {servers:?}");
            if let Err(e) = self.handle.with(|gateway| gateway.set_resolvers(servers)) {
                tracing::debug!("{e}");
            }
        }
    }
}

/// Runs this program once more, in a role that logs as we do. We, who configure it, know when it is ready, and say so
/// through the pipe. Call from the main thread.
fn start(name: &'static str, mut cmd: Command) -> anyhow::Result<(Starting, PipeWriter)> {
    let (output, writer) = io::pipe()?;
    cmd.stdout(writer);
    let (ready, say) = io::pipe()?;
    Ok((Starting::run(name, cmd, ready.into(), output)?, say))
}

/// Kills a process that is of no use. Once we serve, whoever collects all processes collects it as well.
fn abandon(starting: &Starting) {
    if let Err(e) = starting.process().kill() {
        tracing::debug!("failed to kill {}: {e}", starting.name());
    }
    if starting.process().wait_ended(Duration::from_secs(5)).unwrap_or(false) {
        // Somebody may have been faster.
        let _ = sys::wait::one(starting.process().pid());
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
        let driver = Gateway::gvisor(Wishes { ipv6: false, ..wishes() });
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
