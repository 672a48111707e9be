//! Programs: which are there, which network they make possible, and what else runs here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use drivers::choose::{self, Choice, Helper, Machine};
use drivers::{NetworkDriver, PortDriver};
use hostenv::state_dir::Occupant;
use hostenv::{shellwords, vars};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::choices::Choices;
use super::variables::UserSettings;
use crate::managed;
use crate::place::World;
use crate::probe::Prober;
use crate::vars::DOCKER_CONTEXT;

/// The network driver that the launcher will use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// It found this one.
    Chosen(NetworkDriver),
    /// The user named this one.
    Named(NetworkDriver),
    /// The user named this, which is no driver.
    Unknown(String),
    /// There is none.
    None { why: String },
}

impl Net {
    pub fn driver(&self) -> Option<NetworkDriver> {
        match self {
            Self::Chosen(driver) | Self::Named(driver) => Some(*driver),
            Self::Unknown(_) | Self::None { .. } => None,
        }
    }

    /// The value of `--net=`.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Chosen(driver) | Self::Named(driver) => Some(driver.name()),
            Self::Unknown(name) => Some(name),
            Self::None { .. } => None,
        }
    }

    /// The port driver that goes with it unless the user names one.
    pub fn port_driver(&self) -> Option<PortDriver> {
        self.driver().map(NetworkDriver::default_port_driver)
    }
}

/// A program that is there and cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub file: PathBuf,
    /// A mount with noexec is why.
    pub noexec: bool,
    /// It is the user's own.
    pub own: bool,
}

/// What rootlesskit and the launcher may be called, the first one first.
const ROOTLESSKIT: [&str; 2] = ["docker-rootlesskit", "rootlesskit"];
const LAUNCHER: [&str; 2] = ["dockerd-rootless.sh", "dockerd-rootless"];

#[derive(Debug, Clone)]
pub struct Tools {
    /// The command with which root installs an AppArmor profile.
    pub apparmor: String,
    pub launcher: Option<PathBuf>,
    pub rootlesskit: Option<PathBuf>,
    /// Programs of ours that are there and cannot be run.
    pub unusable: BTreeMap<&'static str, Unusable>,
    /// Where that lies when links are followed.
    pub rootlesskit_real: Option<PathBuf>,
    pub dockerd: Option<PathBuf>,
    pub dockerd_version: Option<[u32; 3]>,
    pub docker: Option<PathBuf>,
    pub iptables: Option<PathBuf>,
    /// iptables tells its version.
    pub iptables_runs: bool,
    /// It works with the old kernel interface (`ip_tables`).
    pub iptables_legacy: bool,
    /// `machinectl` is there.
    pub machinectl: bool,
    /// daemon.json chooses nftables, for which dockerd needs `nft` instead of iptables.
    pub nftables_backend: bool,
    /// What daemon.json says; otherwise dockerd chooses.
    pub storage_driver: Option<String>,
    /// daemon.json turns the containerd image store on or off; otherwise dockerd chooses.
    pub containerd_store: Option<bool>,
    /// Not turned off by daemon.json.
    pub userland_proxy: bool,
    /// The version of the docker command.
    pub docker_version: Option<[u32; 3]>,
    pub nsenter: Option<PathBuf>,
    pub ps: Option<PathBuf>,
    /// This rootlesskit needs the `ip` of iproute2, and it is not there; what is there instead.
    pub no_iproute: Option<String>,
    pub systemd: Option<u32>,
    pub fuse_overlayfs: Option<PathBuf>,
    pub choices: Choices,
    /// Without the gateway, unless the user named that; [`super::Facts`] tries it.
    pub net: Net,
    /// The launcher would try the gateway network first.
    pub tries_gateway: bool,
    pub slirp4netns: Helper,
    pub pasta: Helper,
    /// rootlesskit may bind privileged ports (`cap_net_bind_service`).
    pub low_port_caps: bool,
    /// The socket of a rootful Docker, and whether the user may use it.
    pub rootful: Option<(PathBuf, bool)>,
    /// What says that a rootful Docker runs, socket or not.
    pub rootful_runs: Option<String>,
    pub nft: Option<PathBuf>,
    /// A variable of the docker command that names another daemon, and its value.
    pub other_daemon: Option<(&'static str, String)>,
    /// A containerd-rootless that runs.
    pub containerd_rootless: Option<PathBuf>,
    /// `/etc/lxc/lxc-usernet` has a line for the user.
    pub lxc_usernet: bool,
}

impl Tools {
    /// The helper of a driver; of those that have none, or that is not asked, it counts as absent.
    pub fn helper(&self, driver: NetworkDriver) -> &Helper {
        match driver {
            NetworkDriver::Slirp4netns => &self.slirp4netns,
            NetworkDriver::Pasta => &self.pasta,
            _ => &Helper::Absent,
        }
    }

    pub(super) fn gather(world: &World, settings: &UserSettings<'_>, prober: &dyn Prober) -> Self {
        let companion = |names: [&str; 2]| names.iter().find_map(|name| world.find_companion(name));
        let rootlesskit = companion(ROOTLESSKIT);
        let choices = Choices::gather(settings);
        let Network { net, tries_gateway, helpers } =
            network(world, prober, &choices, rootlesskit.as_deref());
        let helper = |driver| {
            let asked = helpers.iter().find(|(of, _)| *of == driver).map(|(_, helper)| helper);
            asked.cloned().unwrap_or_else(|| choose::helper(&Programs(world, prober), driver))
        };
        let iptables = world.find_with_sbin("iptables");
        let iptables_version = iptables.as_ref().map(|program| prober.ask(program, "--version"));
        let iptables_version = iptables_version.and_then(Result::ok).unwrap_or_default();
        let config = world.daemon_json().unwrap_or_default();
        // Debian has it in /usr/sbin, which the unit's PATH names and that of a login does not.
        let dockerd = shellwords::command(world.env.get(vars::DOCKERD), "dockerd", |name| {
            let name = name.to_str()?;
            world.find_companion(name).or_else(|| world.find_with_sbin(name))
        });
        let dockerd = dockerd.ok().map(|command| command.program);
        let docker = world.find_companion("docker");
        let version =
            |program: Option<&Path>| docker_version(&prober.ask(program?, "--version").ok()?);
        Self {
            apparmor: managed::command_with_sudo(world, "apparmor"),
            launcher: companion(LAUNCHER),
            choices,
            net,
            tries_gateway,
            slirp4netns: helper(NetworkDriver::Slirp4netns),
            pasta: helper(NetworkDriver::Pasta),
            dockerd_version: version(dockerd.as_deref()),
            dockerd,
            docker_version: version(docker.as_deref()),
            docker,
            // iptables v1.8.11 (nf_tables)
            iptables_runs: iptables_version.contains("iptables v"),
            iptables_legacy: iptables_version.contains("legacy"),
            machinectl: world.find("machinectl").is_some(),
            iptables,
            nftables_backend: config["firewall-backend"] == "nftables",
            storage_driver: config["storage-driver"]
                .as_str()
                .filter(|driver| !driver.is_empty())
                .map(str::to_owned),
            containerd_store: config["features"]["containerd-snapshotter"].as_bool(),
            userland_proxy: config["userland-proxy"] != false,
            nsenter: world.find("nsenter"),
            ps: world.find_with_sbin("ps"),
            no_iproute: no_iproute(world, prober, rootlesskit.as_deref()),
            systemd: world.find("systemctl").and_then(|systemctl| {
                // systemd 252 (252.38-1~deb12u1)
                prober.ask(&systemctl, "--version").ok()?.split_whitespace().nth(1)?.parse().ok()
            }),
            fuse_overlayfs: world.find("fuse-overlayfs"),
            low_port_caps: rootlesskit
                .as_ref()
                .is_some_and(|file| sys::xattr::has(file, "security.capability").unwrap_or(false)),
            rootlesskit_real: rootlesskit.as_deref().map(crate::apparmor::real),
            rootlesskit,
            unusable: [("dockerd-rootless.sh", LAUNCHER), ("rootlesskit", ROOTLESSKIT)]
                .into_iter()
                .filter_map(|(name, names)| {
                    Some((name, names.iter().find_map(|name| unusable(world, name))?))
                })
                .collect(),
            rootful: rootful(world),
            rootful_runs: rootful_runs(world),
            nft: world.find_with_sbin("nft"),
            other_daemon: other_daemon(world),
            containerd_rootless: containerd_rootless(world),
            lxc_usernet: lxc_usernet(world),
        }
    }
}

/// `Docker version 26.1.5+dfsg1, build a72d7cd`, as the docker command and dockerd say it.
fn docker_version(said: &str) -> Option<[u32; 3]> {
    let rest = said.split_once("Docker version ")?.1;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some([number()?, number()?, number()?])
}

/// Looks where [`World::find_companion`] does.
fn unusable(world: &World, name: &str) -> Option<Unusable> {
    let path = world.env.get(vars::PATH).unwrap_or_default();
    let in_path = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    let mut files = in_path.chain(world.own_dir.clone()).map(|dir| dir.join(name));
    let file = files.find(|file| file.is_file() && !hostenv::path::is_executable(file))?;
    let flags = statvfs(&file).ok()?.flags();
    let own = fs::metadata(&file).is_ok_and(|meta| meta.uid() == world.uid);
    Some(Unusable { file, noexec: flags.contains(FsFlags::ST_NOEXEC), own })
}

/// Programs as [`drivers::choose`] asks them.
struct Programs<'a>(&'a World, &'a dyn Prober);

impl Machine for Programs<'_> {
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.0.find(program)
    }

    fn ask(&self, program: &Path, arg: &str) -> Result<String, String> {
        self.1.ask(program, arg)
    }
}

/// The launcher's own choice.
struct Network {
    net: Net,
    /// It would try the gateway before.
    tries_gateway: bool,
    /// Those that were asked for it.
    helpers: Vec<(NetworkDriver, Helper)>,
}

impl Network {
    fn named(net: Net) -> Self {
        Self { net, tries_gateway: false, helpers: Vec::new() }
    }
}

fn network(
    world: &World,
    prober: &dyn Prober,
    choices: &Choices,
    rootlesskit: Option<&Path>,
) -> Network {
    if let Some(name) = choices.net() {
        let unknown = || Net::Unknown(name.to_owned());
        return Network::named(NetworkDriver::from_name(name).map_or_else(unknown, Net::Named));
    }
    let port_driver = choices.port_driver();
    if port_driver == Some(PortDriver::Gateway.name()) {
        return Network::named(Net::Named(NetworkDriver::Gateway));
    }
    let help = rootlesskit.and_then(|kit| prober.ask(kit, "--help").ok()).unwrap_or_default();
    let choice = choose::by_programs(&Programs(world, prober), &help);
    Network {
        net: choice.driver.map_or_else(|| Net::None { why: why_none(&choice) }, Net::Chosen),
        tries_gateway: choose::may_use_gateway(&help, port_driver),
        helpers: choice.helpers,
    }
}

/// Ours makes interfaces by itself; that of others runs `ip tuntap`, which busybox may lack.
fn no_iproute(world: &World, prober: &dyn Prober, rootlesskit: Option<&Path>) -> Option<String> {
    let help = prober.ask(rootlesskit?, "--help").ok().filter(|help| !help.is_empty())?;
    if choose::has_gateway(&help) {
        return None;
    }
    let Some(ip) = world.find_with_sbin("ip") else {
        return Some("ip is not in PATH, /usr/sbin or /sbin".to_owned());
    };
    let version = prober.ask(&ip, "-V").unwrap_or_default();
    (!version.contains("iproute2")).then(|| format!("{} is not iproute2's `ip`", ip.display()))
}

fn why_none(choice: &Choice) -> String {
    let remarks: Vec<String> = choice.remarks().collect();
    if remarks.is_empty() {
        return "neither slirp4netns nor pasta is in PATH".to_owned();
    }
    remarks.join("; ")
}

fn rootful(world: &World) -> Option<(PathBuf, bool)> {
    let sockets = ["var/run/docker.sock", "run/docker.sock"].map(|path| world.at(path));
    let socket = sockets.into_iter().find(|socket| socket.exists())?;
    let writable = super::account::writable(&socket);
    Some((socket, writable))
}

/// The service of the system is active as long as systemd keeps its invocation id there; without systemd there is the
/// daemon's own pid file, which counts while that process is a dockerd.
fn rootful_runs(world: &World) -> Option<String> {
    if world.at("run/systemd/units/invocation:docker.service").symlink_metadata().is_ok() {
        return Some("the system unit docker.service is active".to_owned());
    }
    let pid: u32 = world.text("run/docker.pid")?.parse().ok()?;
    let name = world.text(&format!("proc/{pid}/comm"))?;
    (name == "dockerd").then(|| format!("dockerd is running (pid {pid} in /run/docker.pid)"))
}

/// `DOCKER_HOST` and `DOCKER_CONTEXT` win over the current context (docker(1)).
fn other_daemon(world: &World) -> Option<(&'static str, String)> {
    let own = world.runtime_dir().map(|dir| crate::place::docker_host(&dir));
    let set = |name| world.env.nonempty(name).map(|value| value.to_string_lossy().into_owned());
    if let Some(host) = set(vars::DOCKER_HOST) {
        return (Some(&host) != own.as_ref()).then_some((vars::DOCKER_HOST, host));
    }
    let context = set(DOCKER_CONTEXT).filter(|name| name != crate::names::CONTEXT)?;
    Some((DOCKER_CONTEXT, context))
}

fn containerd_rootless(world: &World) -> Option<PathBuf> {
    let set = world.env.nonempty(vars::CONTAINERD_ROOTLESS_STATE_DIR).map(PathBuf::from);
    let dir = set.or_else(|| Some(world.runtime_dir()?.join("containerd-rootless")))?;
    Occupant::of(&dir, &world.at("proc")).is_running().then_some(dir)
}

fn lxc_usernet(world: &World) -> bool {
    let user = hostenv::user::lookup_uid(&world.root, world.uid, &world.env);
    let name = user.map_or_else(|_| world.uid.to_string(), |user| user.name);
    let text = world.text("etc/lxc/lxc-usernet").unwrap_or_default();
    text.lines().any(|line| line.split_whitespace().next() == Some(&name))
}
