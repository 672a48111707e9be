//! Network drivers: what connects the child's network namespace with the world.
//!
//! # Theory of operation
//! A driver lives in the parent. It says what the child must build ([`Driver::plan`]) and, once the
//! namespace exists, starts its helper program in it ([`Driver::start`]). The helper is our child process,
//! stays in the foreground and is watched: [`crate::parent`] starts it again when it dies, for which the
//! TAP device of slirp4netns is made persistent, so that addresses and routes are still there.

mod cidr;
#[cfg(feature = "gateway")]
mod gateway;
mod helper;
mod lxc_user_nic;
mod none;
mod pasta;
#[cfg(feature = "gateway")]
mod resolvers;
mod slirp4netns;
mod vpnkit;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use env::Env;
use nix::unistd::Pid;

pub(crate) use cidr::Cidr;
#[cfg(feature = "gateway")]
pub(crate) use gateway::{
    Gateway, PROCESS as GATEWAY_PROCESS, Shared as SharedGateway, process as gateway_process,
};
pub(crate) use helper::{Helper, Starting};
pub(crate) use lxc_user_nic::LxcUserNic;
pub(crate) use none::{Host, None};
pub(crate) use pasta::{CONTROL_SOCKET as PASTA_SOCKET, Pasta, READY_FIFO as PASTA_FIFO};
pub(crate) use slirp4netns::{API_SOCKET, Slirp4netns, Switch};
pub(crate) use vpnkit::{SOCKET as VPNKIT_SOCKET, Vpnkit, protocol as vpnkit_protocol};

use crate::api_backend::Count;
use crate::handshake::{Dynamic, Leased, NetworkPlan};

/// MTU of user-mode networks, in bytes: large segments make up for the cost of each.
pub(crate) const DEFAULT_MTU: u32 = 65520;

/// What the child has to know of the gateway network; without that network there is no such thing.
#[cfg(feature = "gateway")]
pub(crate) type GatewayPlan = ::gateway::Plan;
#[cfg(not(feature = "gateway"))]
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum GatewayPlan {}

/// All drivers, and whether this build has them (the features of the crate).
const DRIVERS: [(&str, bool); 8] = [
    ("host", true),
    ("none", true),
    ("gateway", cfg!(feature = "gateway")),
    ("pasta", cfg!(feature = "pasta")),
    ("slirp4netns", cfg!(feature = "slirp4netns")),
    ("vpnkit", cfg!(feature = "vpnkit")),
    ("lxc-user-nic", cfg!(feature = "lxc-user-nic")),
    ("gvisor-tap-vsock", cfg!(feature = "gateway")),
];

/// Drivers that `--net` accepts in this build.
pub(crate) fn names() -> Vec<&'static str> {
    DRIVERS.iter().filter(|(_, here)| *here).map(|(name, _)| *name).collect()
}

/// Whether there is such a driver, but not in this build.
pub(crate) fn left_out(name: &str) -> bool {
    DRIVERS.contains(&(name, false))
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

/// A network driver, chosen and validated.
pub(crate) trait Driver: Debug {
    /// What `GET /v1/info` says of it.
    fn info(&self) -> api::NetworkDriverInfo;

    /// Whether the child gets a network namespace of its own.
    fn isolates(&self) -> bool {
        true
    }

    /// What the child builds in that namespace.
    fn plan(&self) -> NetworkPlan;

    /// The interface that the child configures when the helper serves, if there is one.
    fn dynamic(&self) -> Option<Dynamic> {
        Option::None
    }

    /// Takes what that interface was given.
    fn leased(&self, _leased: Leased) {}

    /// Takes what the child has built of the plan.
    fn built(&self, _descriptors: Vec<OwnedFd>) -> anyhow::Result<()> {
        Ok(())
    }

    /// A descriptor that is readable when [`Driver::notice`] has something to do.
    fn watched(&self) -> Option<OwnedFd> {
        Option::None
    }

    /// Looks at what has changed on the host.
    fn notice(&self) {}

    /// Where the API's statistics come from, if the driver counts.
    fn count(&self) -> Option<Count> {
        Option::None
    }

    /// What the port driver of the same name talks to, and the network that it serves.
    #[cfg(feature = "gateway")]
    fn gateway(&self) -> Option<(SharedGateway, &GatewayPlan)> {
        Option::None
    }

    /// Why we have ended the helper that has ended, if it was us.
    fn why_ended(&self) -> Option<String> {
        Option::None
    }

    /// Starts the helper, if the driver has one. It does not wait until the helper serves.
    fn start(&self, _ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        Ok(Option::None)
    }
}

/// What the flags say about the network of the drivers that hand out addresses.
#[derive(Debug, Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "flags of a command line are independent booleans"
)]
pub(crate) struct Settings {
    pub(crate) cidr: Cidr,
    /// Whether the user gave the CIDR.
    pub(crate) cidr_given: bool,
    pub(crate) ifname: String,
    /// In bytes.
    pub(crate) mtu: u32,
    pub(crate) ipv6: bool,
    pub(crate) disable_host_loopback: bool,
    /// Whether the helper is to open its control socket, for publishing ports.
    pub(crate) api_socket: bool,
    pub(crate) detach_netns: bool,
    /// The helper program, absolute.
    pub(crate) binary: PathBuf,
}

/// The child's IPv6 address in libslirp's network, and that network's gateway and name server. The child's is not
/// `fd00::100`: people whose network comes from slirp4netns add that one by themselves, and `ip address add` fails if it is
/// there already.
const SLIRP6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3),
];

impl Settings {
    fn info(&self, driver: &str, dns: Vec<IpAddr>) -> api::NetworkDriverInfo {
        api::NetworkDriverInfo {
            driver: driver.to_owned(),
            dns,
            child_ip: Some(self.cidr.child().into()),
            dynamic_child_ip: false,
            ipv6: self.ipv6,
        }
    }
}

/// The path for a control socket of a helper, cleared of what a predecessor that died has left: helpers do not
/// replace it.
fn fresh_socket(state_dir: &Path, name: &str) -> PathBuf {
    let path = state_dir.join(name);
    if let Err(e) = std::fs::remove_file(&path)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!("failed to remove {}: {e}", path.display());
    }
    path
}

/// What a program answered to a question about itself, such as `--help`.
struct Answer {
    success: bool,
    /// Standard output, then standard error.
    text: String,
}

/// Runs `binary` with an option that makes it answer and end at once.
fn ask(binary: &Path, args: &[&str], env: &Env) -> anyhow::Result<Answer> {
    let output = env::helper::Helper::start(binary, args, env, Duration::from_secs(5))?.finish()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(Answer {
        success: output.status.success(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// A namespace file of the child as the parent sees it.
fn ns_file(child: Pid, name: &str) -> String {
    format!("/proc/{child}/ns/{name}")
}

/// The arguments that tell a program which namespace to enter, `netns` as a path.
fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().ok_or_else(|| anyhow::anyhow!("the path {} is not UTF-8", path.display()))
}
