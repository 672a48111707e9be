//! The network and port drivers. Each has a folder or file of its own, with what the parent does for it, what the child
//! does, and the ports.
//!
//! # Theory of operation
//! A network driver turns flags into a [`Network`]: what the child builds ([`NetworkPlan`]), what the API says, and what
//! serves the network. Once the child has built it, [`Network::connect`] gives the parent its half, a [`Connection`].
//! It starts the helper; the helper is our child process, stays in the foreground and is watched: [`crate::parent`]
//! starts it again when it dies. The child's half is [`inside`].
//!
//! To add a driver, name it in the crate `drivers`, give it a folder here, and connect it in [`Network::from_flags`] or in
//! [`ports`]. No driver uses another one, with one exception: the gateway has `builtin` forward the ports that it can serve
//! only from inside the namespace.

mod builtin;
mod dhcp;
#[cfg(feature = "gateway")]
pub(crate) mod gateway;
mod helper;
pub(crate) mod inside;
#[cfg(feature = "lxc-user-nic")]
mod lxc_user_nic;
#[cfg(feature = "pasta")]
mod pasta;
pub(crate) mod ports;
mod settings;
#[cfg(feature = "slirp4netns")]
mod slirp4netns;
mod tap;
#[cfg(feature = "vpnkit")]
mod vpnkit;

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::bail;
use api::NetworkDriverInfo;
use drivers::{Cidr, NetworkDriver, PortDriver};
use hostenv::Env;
use nix::unistd::Pid;
use tokio::sync::oneshot;

pub(crate) use helper::{Helper, Said, Starting, last_words, one_line};

use crate::available;
use crate::cli::Cli;
use crate::plan::{Leased, NetworkPlan, Uplink};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) cidr: Option<Cidr>,
    /// The port driver, unless `--port-driver` names none that exists.
    pub(crate) ports: Option<PortDriver>,
    pub(crate) env: &'a Env,
}

/// What a user can do if a helper does not get ready that opens a TAP or TUN device.
const TUN_HINT: &str = "make sure that /dev/net/tun exists and is writable for your user: sudo modprobe tun; sudo chmod 0666 /dev/net/tun";

#[derive(Debug)]
pub(crate) struct Network {
    /// What `GET /v1/info` says of it before a DHCP server has been asked.
    info: NetworkDriverInfo,
    pub(crate) plan: NetworkPlan,
    service: Service,
}

#[derive(Debug)]
enum Service {
    Nothing,
    Program(Box<dyn Program>),
    #[cfg(feature = "gateway")]
    Gateway(gateway::Settings),
}

pub(crate) trait Program: Debug {
    /// Starts it. It does not wait until the helper serves. `None` if the program has done its work and is gone.
    fn start(&self, namespace: &Namespace) -> anyhow::Result<Option<Starting>>;
}

/// The namespaces that a helper is to serve.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    /// The child, in our pid namespace.
    pub(crate) child: Pid,
    /// The network namespace if it is not the child's own (`--detach-netns`).
    pub(crate) netns: Option<PathBuf>,
    /// The state directory, as both sides see it.
    pub(crate) state_dir: PathBuf,
}

/// Asks a network what has ended since it was asked last; with `false`, whoever followed ends that. It runs on the thread of
/// the API, so it returns at once; the answer comes.
pub(crate) type FlowLog =
    Box<dyn FnMut(bool) -> oneshot::Receiver<anyhow::Result<Vec<api::flows::FlowEvent>>>>;

/// Asks a network for its statistics. It runs on the thread of the API, so it returns at once; the answer comes.
pub(crate) type Statistics = Box<dyn FnMut() -> oneshot::Receiver<anyhow::Result<api::Stats>>>;

/// The egress policy in force, without counters. It runs on the thread of the API.
pub(crate) type PolicyQuestion = Box<dyn Fn() -> api::policy::PolicyStatus>;

/// What a network can be asked while it is served.
#[derive(Default)]
pub(crate) struct Questions {
    pub(crate) statistics: Option<Statistics>,
    pub(crate) flow_log: Option<FlowLog>,
    pub(crate) policy: Option<PolicyQuestion>,
}

impl Network {
    /// The network of this driver as the flags have it.
    #[allow(unreachable_patterns, reason = "a build with all drivers leaves none out")]
    pub(crate) fn from_flags(driver: NetworkDriver, flags: Flags<'_>) -> anyhow::Result<Self> {
        match driver {
            NetworkDriver::Host | NetworkDriver::None => Self::unserved(driver, flags),
            #[cfg(feature = "gateway")]
            NetworkDriver::Gateway | NetworkDriver::GvisorTapVsock => {
                gateway::network(driver, flags)
            }
            #[cfg(feature = "pasta")]
            NetworkDriver::Pasta => pasta::network(flags),
            #[cfg(feature = "slirp4netns")]
            NetworkDriver::Slirp4netns => slirp4netns::network(flags),
            #[cfg(feature = "vpnkit")]
            NetworkDriver::Vpnkit => vpnkit::network(flags),
            #[cfg(feature = "lxc-user-nic")]
            NetworkDriver::LxcUserNic => lxc_user_nic::network(flags),
            left_out => bail!(
                "network mode {left_out} is not included in this build\nhint: use one of {}",
                drivers::list(available::networks())
            ),
        }
    }

    /// `host`, which shares the host's network, and `none`, a network namespace with nothing but a loopback interface.
    fn unserved(driver: NetworkDriver, flags: Flags<'_>) -> anyhow::Result<Self> {
        let Flags { cli, ports, .. } = flags;
        if cli.mtu != 0 {
            tracing::warn!("unsupported mtu for --net={driver}: {}", cli.mtu);
        }
        no_cidr(driver, cli)?;
        if !cli.ifname.is_empty() {
            bail!("ifname cannot be specified for --net={driver} (--ifname={})", cli.ifname);
        }
        if driver == NetworkDriver::None && !ports.is_some_and(|ports| driver.goes_with(ports)) {
            bail!(
                "port driver {:?} cannot be used with --net=none (must be none or builtin)",
                cli.port_driver
            );
        }
        if driver == NetworkDriver::Host && cli.detach_netns {
            tracing::warn!(
                "with --net=host, --detach-netns creates a network namespace that is not connected to anything"
            );
        }
        // `docker version` dereferences the network driver, so there always is one.
        let info = NetworkDriverInfo { driver: driver.to_string(), ..Default::default() };
        let plan = NetworkPlan { uplink: Uplink::None, dns: Vec::new() };
        Ok(Self { info, plan, service: Service::Nothing })
    }

    /// Whether its outbound traffic is relayed by this project's own process, which takes file descriptors.
    pub(crate) fn takes_descriptors(&self) -> bool {
        match &self.service {
            Service::Nothing | Service::Program(_) => false,
            #[cfg(feature = "gateway")]
            Service::Gateway(_) => true,
        }
    }

    /// What `GET /v1/info` says of it, with what a DHCP server has given.
    pub(crate) fn info(&self, leased: Option<Leased>) -> NetworkDriverInfo {
        let mut info = self.info.clone();
        if let Some(leased) = leased.filter(|_| !info.dynamic_child_ip) {
            info.child_ip = Some(leased.address);
            info.dns = leased.dns;
        }
        info
    }

    /// The parent's half, now that the child has built `namespace`; with the descriptors that it sent.
    pub(crate) fn connect(
        &self,
        namespace: Namespace,
        fds: Vec<OwnedFd>,
    ) -> anyhow::Result<Connection<'_>> {
        let connection = match &self.service {
            #[cfg(feature = "gateway")]
            Service::Gateway(settings) => {
                return Ok(Connection::Gateway(settings.connect(&namespace.state_dir, fds)?));
            }
            Service::Nothing => Connection::Unserved,
            Service::Program(program) => Connection::Program(program.as_ref(), namespace),
        };
        // None are expected.
        drop(fds);
        Ok(connection)
    }
}

#[derive(Debug)]
pub(crate) enum Connection<'a> {
    Unserved,
    Program(&'a dyn Program, Namespace),
    #[cfg(feature = "gateway")]
    Gateway(gateway::Connection),
}

impl Connection<'_> {
    /// Starts the helper, if the network has one. It does not wait until the helper serves.
    pub(crate) fn start(&mut self) -> anyhow::Result<Option<Starting>> {
        match self {
            Self::Unserved => Ok(None),
            Self::Program(program, namespace) => program.start(namespace),
            #[cfg(feature = "gateway")]
            Self::Gateway(gateway) => gateway.start().map(Some),
        }
    }

    /// Why we have ended the helper that has ended; `None` if it was not us. The answer may take a second.
    pub(crate) fn why_ended(&self) -> oneshot::Receiver<Option<String>> {
        match self {
            // Nobody answers.
            Self::Unserved | Self::Program(..) => oneshot::channel().1,
            #[cfg(feature = "gateway")]
            Self::Gateway(gateway) => gateway.why_ended(),
        }
    }

    pub(crate) fn questions(&self) -> Questions {
        match self {
            Self::Unserved | Self::Program(..) => Questions::default(),
            #[cfg(feature = "gateway")]
            Self::Gateway(gateway) => Questions {
                statistics: Some(gateway.statistics()),
                flow_log: Some(gateway.flow_log()),
                policy: gateway.policy(),
            },
        }
    }

    /// What has to be done beside the helper while we serve. It never ends.
    pub(crate) fn background(&mut self) -> Pin<Box<dyn Future<Output = ()>>> {
        match self {
            Self::Unserved | Self::Program(..) => Box::pin(std::future::pending()),
            #[cfg(feature = "gateway")]
            Self::Gateway(gateway) => Box::pin(gateway.follow()),
        }
    }
}

/// Refuses `--cidr` for a driver that does not choose addresses.
fn no_cidr(driver: NetworkDriver, cli: &Cli) -> anyhow::Result<()> {
    if !cli.cidr.is_empty() {
        bail!("custom cidr is not supported for --net={driver} (--cidr={})", cli.cidr);
    }
    Ok(())
}
