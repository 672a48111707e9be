//! The decisions: settings, and what the programs of this machine can do, become rootlesskit's arguments.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use drivers::{NetworkDriver, PortDriver};
use hostenv::routes::Routes;
use hostenv::{Env, vars};

use crate::config::Config;
use crate::dockerd::{Dockerd, Version};
use crate::extra;
use crate::host::Host;
use crate::loopback::Reach;
use crate::netdriver;
use crate::report::{Failure, Note};
use crate::settings::{Settings, Switch};
use crate::{egress, loopback, swarm, ways};

/// The flag of rootlesskit for ports that are published on 0.0.0.0 to listen on IPv6, too.
const DUAL_STACK: &str = "gateway-dual-stack";

#[derive(Debug)]
pub(crate) struct Plan {
    settings: Settings,
    net: NetworkDriver,
    mtu: u32,
    port_driver: PortDriver,
    detach: bool,
    ipv6: bool,
    /// Whether `/var/lib` is copied up for a swarm.
    copies_up: bool,
    /// Files that say what containers may reach.
    egress_policy: Vec<PathBuf>,
    dockerd: Dockerd,
    version: Option<Version>,
    pub(crate) notes: Vec<Note>,
}

impl Plan {
    /// Decides. `dockerd_args` are only looked at for a port that would be bound twice.
    pub(crate) fn new(
        mut settings: Settings,
        host: &dyn Host,
        rootlesskit: &Path,
        dockerd_args: &[OsString],
    ) -> Result<Self, Failure> {
        let mut notes = std::mem::take(&mut settings.notes);
        let dockerd = Dockerd::find(settings.dockerd.as_deref(), host)?;
        // A driver in FLAGS wins over ours, so ours had better be the same: its MTU depends on it.
        let in_flags =
            extra::last(&settings.flags, "net").and_then(|name| NetworkDriver::from_name(&name));
        let net = match settings.net.or(in_flags) {
            Some(net) => net,
            None => {
                let in_flags = extra::last(&settings.flags, "port-driver");
                let port_driver =
                    in_flags.or_else(|| settings.port_driver.map(|driver| driver.to_string()));
                netdriver::choose(host, rootlesskit, port_driver.as_deref(), &mut notes)?
            }
        };
        let port_driver = settings.port_driver.unwrap_or(net.default_port_driver());
        check_pair(&settings, net, port_driver)?;
        let version = dockerd.version(host);
        let detach = detach(settings.detach, &dockerd, version.as_ref(), host, &mut notes);
        let mut plan = Self {
            net,
            mtu: settings.mtu.unwrap_or(net.default_mtu()),
            port_driver,
            detach,
            ipv6: false,
            copies_up: false,
            egress_policy: Vec::new(),
            dockerd,
            version,
            notes,
            settings,
        };
        if plan.settings.swarm.is_some() {
            let (net, port_driver) = (plan.net_in_force(), plan.port_driver_in_force());
            swarm::check_drivers(&plan.settings, &net, &port_driver)?;
        }
        let net = plan.net_in_force();
        loopback::check(&plan.settings, &net, &mut plan.notes)?;
        plan.check_detached(dockerd_args)
    }

    /// The same on a host with these routes.
    pub(crate) fn on(mut self, routes: &Routes) -> Self {
        let (flags, named) = (&self.settings.flags, self.settings.net.is_some());
        self.ipv6 = ways::wants_ipv6(routes, self.net, named, self.mtu, flags, &mut self.notes);
        // A namespace without IPv6 has no server for a port that is published on it.
        let swarm_v6 = self.settings.swarm.as_ref().is_some_and(|swarm| swarm.address.is_ipv6());
        self.ipv6 |= swarm_v6 && extra::last_bool(flags, "ipv6").is_none();
        ways::note_overlap(routes, self.net, flags, &mut self.notes);
        self
    }

    /// The same for a node of a swarm on a host with this root directory.
    ///
    /// # Errors
    /// The directory that dockerd needs cannot be provided.
    pub(crate) fn with_directory(
        mut self,
        root: &Path,
        env: &Env,
        args: &[OsString],
    ) -> Result<Self, Failure> {
        self.copies_up = self.settings.swarm.is_some() && swarm::copies_up(root);
        if self.copies_up {
            let config = Config::read(env, &[&self.dockerd.args, args]);
            swarm::check_directories(root, env, &config)?;
        }
        Ok(self)
    }

    /// The same with the files on this host that say what containers may reach.
    ///
    /// # Errors
    /// The network driver cannot enforce them.
    pub(crate) fn with_egress_policy(mut self, root: &Path, env: &Env) -> Result<Self, Failure> {
        self.egress_policy = egress::files(&self.settings, &self.net_in_force(), root, env)?;
        Ok(self)
    }

    /// The address of a node of a swarm.
    pub(crate) fn swarm_address(&self) -> Option<IpAddr> {
        self.settings.swarm.as_ref().map(|swarm| swarm.address)
    }

    /// Whether the namespace will be detached, FLAGS included.
    fn detached(&self) -> bool {
        extra::last_bool(&self.settings.flags, "detach-netns").unwrap_or(self.detach)
    }

    fn check_detached(mut self, dockerd_args: &[OsString]) -> Result<Self, Failure> {
        if !self.detached() {
            return Ok(self);
        }
        let in_flags = |name| extra::last(&self.settings.flags, name).is_some();
        if self.net == NetworkDriver::Slirp4netns
            && !in_flags("net")
            && !in_flags("slirp4netns-sandbox")
        {
            match self.settings.sandbox {
                Switch::On => {
                    return Err(Failure::new(format!(
                        "{} is \"true\", but slirp4netns cannot be sandboxed with a detached network namespace",
                        vars::DOCKERD_ROOTLESS_SLIRP4NETNS_SANDBOX
                    ))
                    .hint(format!(
                        "remove this variable from the daemon's settings, or set {}=false",
                        vars::DOCKERD_ROOTLESS_DETACH_NETNS
                    )));
                }
                Switch::Auto => self.notes.push(Note::info(
                    "slirp4netns runs without its sandbox because the network namespace is detached",
                )),
                Switch::Off => {}
            }
        }
        if let Some(port) = extra::published_and_listened(&self.settings.flags, dockerd_args) {
            self.notes.push(Note::warn(format!(
                "TCP port {port} is used twice: {} publishes it, and dockerd listens on it (-H) on the host's network, \
                 because the network namespace is detached. One of them will fail to bind. \
                 hint: remove the -p, or set {}=false",
                vars::DOCKERD_ROOTLESS_FLAGS,
                vars::DOCKERD_ROOTLESS_DETACH_NETNS
            )));
        }
        Ok(self)
    }

    /// Looks at what dockerd was told, on the command line and in its configuration file.
    pub(crate) fn check_config(&mut self, env: &Env, args: &[OsString]) -> Result<(), Failure> {
        let config = Config::read(env, &[&self.dockerd.args, args]);
        if config.switch("live-restore") == Some(true) {
            self.notes.push(Note::warn(
                "live-restore has no effect in rootless mode: containers lose their network when dockerd exits, and the \
                 next dockerd cannot take them over. hint: remove live-restore, and give containers a --restart policy",
            ));
        }
        let silent = PortDriver::from_name(&self.port_driver_in_force())
            .is_some_and(|driver| !driver.is_managed());
        match &self.version {
            Some(version)
                if !version.publishes() && !silent && config.switch("userland-proxy") == Some(false) =>
            {
                Err(Failure::new(format!(
                    "\"userland-proxy\" is false, but dockerd {version} needs the userland proxy to publish ports, so no \
                     published port would be reachable"
                ))
                .hint(format!(
                    "remove \"userland-proxy\" from daemon.json or the command line, or upgrade to Docker 28; if you \
                     publish no ports, set {}=none",
                    vars::DOCKERD_ROOTLESS_PORT_DRIVER
                )))
            }
            _ => Ok(()),
        }
    }

    /// How many addresses dockerd may be told as `host-gateway`, one of each family. `None` where nothing of the host's
    /// loopback can be reached, or by another address than the default gateway's.
    pub(crate) fn host_gateway(&self) -> Option<u8> {
        let reach = Reach::of(&self.settings);
        let net = NetworkDriver::from_name(&self.net_in_force())?;
        let both = self.version.as_ref().is_none_or(Version::publishes);
        let leads_there = net.has_cidr() && (reach.open || reach.ports.is_some());
        leads_there.then_some(if both { 2 } else { 1 })
    }

    /// The network driver that rootlesskit will use, FLAGS included.
    pub(crate) fn net_in_force(&self) -> String {
        extra::last(&self.settings.flags, "net").unwrap_or_else(|| self.net.to_string())
    }

    fn port_driver_in_force(&self) -> String {
        let in_flags = extra::last(&self.settings.flags, "port-driver");
        in_flags.unwrap_or_else(|| self.port_driver.to_string())
    }

    /// Whether to ask for IPv6 beside IPv4: with the gateway's port driver dockerd cannot ask for a port on
    /// IPv6 by itself.
    fn dual_stack(&self) -> bool {
        self.port_driver_in_force() == PortDriver::Gateway.name()
            && extra::last_bool(&self.settings.flags, DUAL_STACK).is_none()
    }

    /// The arguments of rootlesskit: our flags, the user's flags, and the launcher itself, as `target`,
    /// with the options of dockerd. The order is that of Docker's own launcher.
    pub(crate) fn arguments(&self, target: &Path, dockerd_args: &[OsString]) -> Vec<OsString> {
        let s = &self.settings;
        let mut state_dir = OsString::from("--state-dir=");
        state_dir.push(&s.state_dir);
        let mut args = vec![state_dir];
        args.push(format!("--net={}", self.net).into());
        args.push(format!("--mtu={}", self.mtu).into());
        // Docker's own launcher gives them to the other drivers, too.
        if self.net != NetworkDriver::Gateway {
            args.push(format!("--slirp4netns-sandbox={}", s.sandbox).into());
            args.push(format!("--slirp4netns-seccomp={}", s.seccomp).into());
        }
        args.extend(loopback::arguments(s).map(OsString::from));
        args.extend(egress::arguments(&self.egress_policy));
        if self.ipv6 {
            args.push("--ipv6".into());
        }
        args.push(format!("--port-driver={}", self.port_driver).into());
        if self.dual_stack() {
            args.push(format!("--{DUAL_STACK}").into());
        }
        // A host-side rewrite of resolv.conf must not unmount ours, and dockerd wants its own /run/docker,
        // /run/containerd and /run/xtables.lock. Slave mounts: what the host mounts later is seen.
        args.extend(
            ["--copy-up=/etc", "--copy-up=/run", "--propagation=rslave"].map(OsString::from),
        );
        if self.copies_up {
            args.push("--copy-up=/var/lib".into());
        }
        if self.detach {
            args.push("--detach-netns".into());
        }
        let ports = s.swarm.iter().flat_map(|swarm| swarm.ports(self.detached()));
        args.extend(ports.map(|port| format!("--publish={port}").into()));
        args.extend(s.flags.iter().cloned());
        args.push(target.as_os_str().to_owned());
        args.extend(dockerd_args.iter().cloned());
        args
    }
}

impl fmt::Display for Plan {
    /// The choices in force, for one line of the journal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_force = |name, ours: String| extra::last(&self.settings.flags, name).unwrap_or(ours);
        let version =
            self.version.as_ref().map_or("of unknown version".to_owned(), ToString::to_string);
        write!(
            f,
            "starting dockerd {version} ({}): net={} mtu={} port-driver={} detach-netns={}",
            self.dockerd.program.display(),
            self.net_in_force(),
            in_force("mtu", self.mtu.to_string()),
            self.port_driver_in_force(),
            self.detached(),
        )?;
        if self.net == NetworkDriver::Slirp4netns {
            let sandbox = if self.detached() { Switch::Off } else { self.settings.sandbox };
            write!(
                f,
                " slirp4netns-sandbox={}",
                in_force("slirp4netns-sandbox", sandbox.to_string())
            )?;
        }
        write!(f, " {}", Reach::of(&self.settings))?;
        let ours = self.egress_policy.iter().map(|file| file.display().to_string());
        let policies: Vec<_> = ours.chain(extra::all(&self.settings.flags, egress::FLAG)).collect();
        if !policies.is_empty() {
            write!(f, " {}={}", egress::FLAG, policies.join(","))?;
        }
        match &self.settings.swarm {
            Some(swarm) => write!(f, " swarm={swarm}"),
            None => Ok(()),
        }
    }
}

/// The executable of rootlesskit: `docker-rootlesskit` (Docker's static packages), then `rootlesskit`, on
/// `PATH`, then beside the launcher.
pub(crate) fn find_rootlesskit(host: &dyn Host, beside: Option<&Path>) -> Result<PathBuf, Failure> {
    let names = ["docker-rootlesskit", "rootlesskit"].map(OsStr::new);
    let on_path = names.iter().find_map(|name| host.find(name));
    let fallback = || {
        beside.and_then(|dir| names.iter().find_map(|name| host.find(dir.join(name).as_os_str())))
    };
    on_path.or_else(fallback).ok_or_else(|| {
        Failure::new("rootlesskit needs to be installed: neither docker-rootlesskit nor rootlesskit is on PATH")
            .hint("reinstall the package or tarball that dockerd-rootless came from, which contains rootlesskit, or add \
                   the directory of rootlesskit to PATH")
    })
}

/// Contradictions that rootlesskit reports only later. A driver in FLAGS is left to rootlesskit.
fn check_pair(
    settings: &Settings,
    net: NetworkDriver,
    port_driver: PortDriver,
) -> Result<(), Failure> {
    let overridden =
        ["net", "port-driver"].iter().any(|f| extra::last(&settings.flags, f).is_some());
    if overridden || net.goes_with(port_driver) {
        return Ok(());
    }
    let name = vars::DOCKERD_ROOTLESS_PORT_DRIVER;
    Err(Failure::new(format!(
        "{name} is \"{port_driver}\", but the network driver {net} works only with {}",
        drivers::list(net.port_drivers())
    ))
    .hint(format!(
        "remove {name} from the daemon's settings to use {}, or set {} to another driver",
        net.default_port_driver(),
        vars::DOCKERD_ROOTLESS_NET
    )))
}

fn detach(
    wish: Switch,
    dockerd: &Dockerd,
    version: Option<&Version>,
    host: &dyn Host,
    notes: &mut Vec<Note>,
) -> bool {
    let name = vars::DOCKERD_ROOTLESS_DETACH_NETNS;
    let program = dockerd.program.display();
    match (wish, version) {
        (Switch::Off, _) => false,
        (Switch::Auto, Some(version)) => version.detaches(),
        (Switch::Auto, None) if dockerd.can_detach(host) => true,
        (Switch::Auto, None) => {
            notes.push(Note::info(format!(
                "cannot determine the version of {program} or whether it supports a detached network namespace, so the \
                 namespace is not detached. hint: set {name}=true for dockerd 29.5 and later"
            )));
            false
        }
        (Switch::On, Some(version)) if !version.detaches() => {
            notes.push(Note::warn(format!(
                "{name} is true, but {program} is dockerd {version}, and only dockerd 29.5 and later support a \
                 detached network namespace. hint: remove {name} from the daemon's settings"
            )));
            true
        }
        (Switch::On, _) => true,
    }
}
