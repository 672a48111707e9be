//! `--net=gateway`: this project's own network ([`gateway`]), which needs no helper program.
//!
//! The child builds the namespaces ([`inside`]) and sends their descriptors. The gateway process is this program once
//! more, told by its name; its control channel is its standard input. It is watched and replaced like any helper, and its
//! successor gets the same descriptors. The name servers of the host and the egress policy are followed while it runs.
//!
//! `--net=gvisor-tap-vsock` is the same network with the addresses of that driver.

pub(super) mod inside;
mod policy;
mod ports;
mod resolvers;

use std::io::{self, PipeWriter, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use drivers::{Cidr, LoopbackPorts, NetworkDriver, SLIRP6};
use gateway::network_config::{HostLoopback, Net};
use gateway::{Descriptors, supervisor};
use sys::pidfd::PidFd;
use tokio::sync::oneshot;

pub(super) use ports::{Gateway as Ports, Inside};

use super::{Flags, FlowLog, Network, PolicyQuestion, Service, Starting, Statistics, TUN_HINT};
use crate::cli::Cli;
use crate::plan::{Interface, NetworkPlan, Uplink};
use policy::Follower;
use resolvers::Watch;

/// The least MTU of a link with IPv4 (RFC 791) and with IPv6 (RFC 8200), in bytes.
const IPV4_MTU: u32 = 68;
const IPV6_MTU: u32 = 1280;

/// `argv[0]` of the gateway process.
pub(crate) const PROCESS: &str = "rootlesskit-gateway";

/// The handle that network driver and port driver share. Nothing is waited for while it is locked.
#[derive(Debug, Clone)]
pub(super) struct Handle(Arc<Mutex<supervisor::Supervisor>>);

impl Handle {
    pub(super) fn lock(&self) -> MutexGuard<'_, supervisor::Supervisor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn network(driver: NetworkDriver, flags: Flags<'_>) -> anyhow::Result<Network> {
    let Flags { cli, cidr, .. } = flags;
    let mtu = cli.mtu_or(driver.default_mtu());
    let (version, least) = if cli.ipv6 { ("IPv6", IPV6_MTU) } else { ("IPv4", IPV4_MTU) };
    if mtu < least {
        bail!("invalid --mtu={mtu}: {version} requires at least {least}");
    }
    let (v4, v6) = nets(driver, cidr.unwrap_or(Cidr::DEFAULT), cli.ipv6);
    let ifname = cli.ifname_or(driver.default_ifname());
    let plan = gateway::NetworkConfig { ifname, mtu, v4, v6, host_loopback: host_loopback(cli)? };
    let policy = policy::read(&cli.egress_policy)?;
    Ok(Settings { driver, plan, policy }.network())
}

/// What the flags leave of the host's loopback.
fn host_loopback(cli: &Cli) -> anyhow::Result<HostLoopback> {
    let text = cli.host_loopback_allow.join(",");
    match (cli.disable_host_loopback, cli.host_loopback_allow.is_empty()) {
        (true, true) => Ok(HostLoopback::Closed),
        (false, true) => Ok(HostLoopback::Open),
        (true, false) => {
            let ports: Result<LoopbackPorts, _> = text.parse();
            let LoopbackPorts { tcp, udp } = ports.map_err(|why| {
                anyhow!("invalid --host-loopback-allow={text}: {why}\nhint: {}", why.hint())
            })?;
            Ok(HostLoopback::Ports { tcp, udp })
        }
        // It would look like a restriction, and everything would be open.
        (false, false) => bail!(
            "--host-loopback-allow={text} requires --disable-host-loopback, because without it every port of the host's loopback is reachable\nhint: add --disable-host-loopback, or remove --host-loopback-allow"
        ),
    }
}

/// The addresses of both families, IPv6 only if it is wanted.
fn nets(driver: NetworkDriver, cidr: Cidr, ipv6: bool) -> (Net, Option<Net>) {
    let gateway = cidr.gateway(driver);
    let dns = match driver {
        // Its gateway is its name server.
        NetworkDriver::GvisorTapVsock => gateway,
        _ => cidr.dns(),
    };
    let v4 = Net {
        child: cidr.child().into(),
        gateway: gateway.into(),
        dns: dns.into(),
        prefix: cidr.prefix(),
    };
    let [child, gateway, dns] = SLIRP6.map(Ipv6Addr::into);
    (v4, ipv6.then_some(Net { child, gateway, dns, prefix: 64 }))
}

#[derive(Debug)]
pub(super) struct Settings {
    driver: NetworkDriver,
    plan: gateway::NetworkConfig,
    policy: Vec<policy::Source>,
}

impl Settings {
    fn network(self) -> Network {
        let plan = &self.plan;
        let dns: Vec<IpAddr> = plan.nets().map(|net| net.dns).collect();
        let info = api::NetworkDriverInfo {
            driver: self.driver.to_string(),
            dns: dns.clone(),
            child_ip: Some(plan.v4.child),
            dynamic_child_ip: false,
            ipv6: plan.v6.is_some(),
        };
        let interface = Interface {
            name: plan.ifname.clone(),
            mtu: plan.mtu,
            addresses: plan.nets().map(|net| (net.child, net.prefix)).collect(),
            gateways: plan.nets().map(|net| net.gateway).collect(),
        };
        let uplink = Uplink::Gateway(interface, Box::new(plan.clone()));
        let plan = NetworkPlan { uplink, dns };
        Network { info, plan, service: Service::Gateway(self) }
    }

    pub(super) fn connect(
        &self,
        state_dir: &Path,
        fds: Vec<OwnedFd>,
    ) -> anyhow::Result<Connection> {
        let (descriptors, factory) = Descriptors::try_from_fds(fds)?;
        let watch = Watch::new(Path::new("/")).inspect_err(|e| {
            tracing::warn!("changes to the host's name servers will not be detected: {e:#}");
        });
        let servers = match &watch {
            Ok(watch) => watch.servers().to_vec(),
            Err(_) => resolvers::read(Path::new("/")),
        };
        let nofile = sys::rlimit::nofile()?.soft;
        let plan = self.plan.clone();
        let handle = supervisor::Supervisor::new(plan, descriptors, factory, servers, nofile)
            .named(self.driver.name());
        let handle = Handle(Arc::new(Mutex::new(handle)));
        let policy = (!self.policy.is_empty())
            .then(|| Follower::new(self.policy.clone(), state_dir, handle.clone()))
            .transpose()?
            .map(Box::new);
        Ok(Connection { driver: self.driver, handle, resolvers: watch.ok(), policy })
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    driver: NetworkDriver,
    handle: Handle,
    resolvers: Option<Watch>,
    policy: Option<Box<Follower<Handle>>>,
}

impl Connection {
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub(super) fn start(&self) -> anyhow::Result<Starting> {
        let control =
            self.handle.lock().renew().context("failed to create the gateway's control channel")?;
        let mut cmd = Command::new("/proc/self/exe");
        cmd.arg0(PROCESS).env_clear().stdin(Stdio::from(control));
        if tracing::enabled!(tracing::Level::DEBUG) {
            cmd.arg("--debug");
        }
        let (starting, mut ready) = spawn(self.driver.name(), cmd)?;
        let ready = move || {
            if let Err(e) = ready.write_all(b"1") {
                tracing::debug!("nothing is waiting for the gateway anymore: {e}");
            }
        };
        let configured = PidFd::open(starting.process().pid())
            .map_err(anyhow::Error::from)
            .and_then(|process| self.handle.lock().configure(Some(process), ready));
        match configured {
            Ok(()) => Ok(starting),
            Err(e) => {
                // Once we serve, whoever collects all processes collects it; before, we are about to exit.
                if let Err(e) = starting.process().kill() {
                    tracing::debug!("failed to kill {}: {e}", starting.name());
                }
                Err(e)
            }
        }
    }

    /// The thread that talks to the process may notice its end a moment later, so another one waits for that.
    pub(super) fn why_ended(&self) -> oneshot::Receiver<Option<String>> {
        let (reply, answer) = oneshot::channel();
        let ending = self.handle.lock().ending();
        let waiting = std::thread::Builder::new().name("ending".to_owned()).spawn(move || {
            // The parent may be about to exit.
            let _ = reply.send(ending.and_then(|ending| ending.why()));
        });
        if let Err(e) = waiting {
            tracing::debug!("cannot find out why the gateway ended: {e}");
        }
        answer
    }

    pub(super) fn statistics(&self) -> Statistics {
        let handle = self.handle.clone();
        Box::new(move || {
            let (reply, answer) = oneshot::channel();
            // Whoever asked may have gone away.
            handle.lock().stats(move |stats| drop(reply.send(stats)));
            answer
        })
    }

    pub(super) fn flow_log(&self) -> FlowLog {
        let handle = self.handle.clone();
        Box::new(move |follow| {
            let (reply, answer) = oneshot::channel();
            handle.lock().flows(follow, move |events| drop(reply.send(events)));
            answer
        })
    }

    /// The egress policy in force, if there is one, without counters.
    pub(super) fn policy(&self) -> Option<PolicyQuestion> {
        let status = self.policy.as_ref()?.status();
        Some(Box::new(move || status.borrow().clone()))
    }

    /// Tells the gateway when the host has other name servers, or the egress policy is another one. It never ends.
    pub(super) fn follow(&mut self) -> impl Future<Output = ()> + use<> {
        let (handle, resolvers) = (self.handle.clone(), self.resolvers.take());
        let policy = self.policy.take();
        let resolvers = async move {
            if let Some(watch) = resolvers
                && let Err(e) = watch.follow(&handle).await
            {
                tracing::warn!(
                    "changes to the host's name servers will no longer be detected: {e:#}"
                );
            }
        };
        let policy = async move {
            if let Some(mut policy) = policy
                && let Err(e) = policy.follow().await
            {
                tracing::warn!("changes to the egress policy will no longer be detected: {e:#}");
            }
        };
        async move {
            tokio::join!(resolvers, policy);
            std::future::pending::<()>().await;
        }
    }
}

/// Runs this program once more, in a role that logs as we do. We, who configure it, know when it is ready, and say so
/// through the pipe. Call from the main thread.
fn spawn(name: &'static str, mut cmd: Command) -> anyhow::Result<(Starting, PipeWriter)> {
    let (output, writer) = io::pipe()?;
    cmd.stdout(writer);
    let (ready, say) = io::pipe()?;
    Ok((Starting::run(name, TUN_HINT, cmd, ready.into(), output)?, say))
}

pub(crate) fn process() -> anyhow::Result<()> {
    use std::os::fd::AsFd as _;
    crate::log::init("gateway", std::env::args_os().nth(1).is_some_and(|arg| arg == "--debug"));
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    gateway::process::run(control.context("the gateway has no control channel")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(driver: NetworkDriver, ipv6: bool) -> Settings {
        let (v4, v6) = nets(driver, "10.9.0.0/16".parse().unwrap(), ipv6);
        let (ifname, host_loopback) = ("eth7".to_owned(), HostLoopback::Closed);
        let plan = gateway::NetworkConfig { ifname, mtu: 1500, v4, v6, host_loopback };
        Settings { driver, plan, policy: Vec::new() }
    }

    #[test]
    fn the_flags_shape_the_network() {
        let settings = settings(NetworkDriver::Gateway, true);
        let v4 = &settings.plan.v4;
        assert_eq!(
            (v4.gateway, v4.dns),
            ("10.9.0.2".parse().unwrap(), "10.9.0.3".parse().unwrap())
        );
        assert_eq!(settings.plan.host_loopback, HostLoopback::Closed);
        let Network { info, plan, .. } = settings.network();
        assert_eq!((info.driver.as_str(), info.ipv6, info.dns.len()), ("gateway", true, 2));
        let Uplink::Gateway(interface, _) = plan.uplink else { panic!("{plan:?}") };
        assert_eq!((interface.name.as_str(), interface.mtu), ("eth7", 1500));
        assert_eq!(interface.gateways.len(), 2);
        assert_eq!(interface.addresses[0], ("10.9.0.100".parse().unwrap(), 16));
    }

    #[test]
    fn the_hosts_loopback_is_what_the_flags_leave_of_it() {
        let left = |words: &[&str]| {
            let words = words.iter().chain(&["true"]).map(std::ffi::OsString::from);
            host_loopback(&Cli::parse(words).unwrap()).map_err(|e| e.to_string())
        };
        assert_eq!(left(&[]), Ok(HostLoopback::Open));
        let closed = "--disable-host-loopback";
        assert_eq!(left(&[closed]), Ok(HostLoopback::Closed));
        let (tcp, udp) = (vec![80..=80, 8000..=8010], vec![53..=53]);
        assert_eq!(
            left(&[
                closed,
                "--host-loopback-allow=tcp:8000-8010, udp:53",
                "--host-loopback-allow",
                "tcp:80"
            ]),
            Ok(HostLoopback::Ports { tcp, udp })
        );
        for (words, parts) in [
            (
                &[closed, "--host-loopback-allow=tcp:0"][..],
                ["allow=tcp:0: the port \"0\"", "hint: use a port such as tcp:5432"],
            ),
            (&[closed, "--host-loopback-allow="], ["the entry \"\"", "hint: use tcp:PORT"]),
            (
                &[closed, "--host-loopback-allow=tcp:9-8"],
                ["the range \"9-8\"", "hint: write the lower port first"],
            ),
            (
                &["--host-loopback-allow=tcp:1"],
                ["tcp:1 requires --disable-host-loopback", "hint: add "],
            ),
        ] {
            let error = left(words).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn gvisors_gateway_is_its_name_server() {
        let settings = settings(NetworkDriver::GvisorTapVsock, false);
        let first: IpAddr = "10.9.0.1".parse().unwrap();
        assert_eq!((settings.plan.v4.gateway, settings.plan.v4.dns), (first, first));
        assert_eq!(settings.network().info.driver, "gvisor-tap-vsock");
    }

    #[test]
    fn a_wrong_number_of_descriptors_is_refused() {
        let settings = settings(NetworkDriver::Gateway, true);
        let error = settings.connect(Path::new("/run/x"), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("0 descriptors"), "{error}");
    }
}
