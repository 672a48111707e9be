//! Programs: which are there, which network they make possible, and what else runs here.

use std::path::PathBuf;

use env::vars;

use crate::place::World;
use crate::probe::Prober;
use crate::state;

/// The network driver that the launcher will use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Net {
    /// It found this one.
    Chosen(&'static str),
    /// The user named this one.
    Named(String),
    /// There is none; why not.
    None(String),
}

impl Net {
    /// The name for `--net=`.
    pub(crate) fn driver(&self) -> Option<&str> {
        match self {
            Net::Chosen(name) => Some(name),
            Net::Named(name) => Some(name),
            Net::None(_) => None,
        }
    }

    /// The port driver that goes with it unless the user names one.
    pub(crate) fn port_driver(&self) -> Option<&'static str> {
        self.driver().map(|name| if name == "pasta" { "implicit" } else { "builtin" })
    }
}

/// Programs.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) launcher: Option<PathBuf>,
    pub(crate) rootlesskit: Option<PathBuf>,
    pub(crate) dockerd: Option<PathBuf>,
    pub(crate) docker: Option<PathBuf>,
    pub(crate) iptables: Option<PathBuf>,
    /// iptables works with the old kernel interface (`ip_tables`).
    pub(crate) iptables_legacy: bool,
    /// daemon.json chooses nftables, for which dockerd needs `nft` instead of iptables.
    pub(crate) nftables_backend: bool,
    pub(crate) nsenter: Option<PathBuf>,
    /// The version of systemd.
    pub(crate) systemd: Option<u32>,
    pub(crate) fuse_overlayfs: Option<PathBuf>,
    pub(crate) net: Net,
    /// rootlesskit may bind privileged ports (`cap_net_bind_service`).
    pub(crate) low_port_caps: bool,
    /// The socket of a rootful Docker, and whether the user may use it.
    pub(crate) rootful: Option<(PathBuf, bool)>,
    /// A containerd-rootless that runs.
    pub(crate) containerd_rootless: Option<PathBuf>,
    /// `/etc/lxc/lxc-usernet` has a line for the user.
    pub(crate) lxc_usernet: bool,
}

impl Tools {
    pub(crate) fn gather(world: &World, prober: &dyn Prober) -> Self {
        let rootlesskit = world
            .find_companion("docker-rootlesskit")
            .or_else(|| world.find_companion("rootlesskit"));
        let iptables = world.find_with_sbin("iptables");
        let config = world.daemon_json().unwrap_or_default();
        let dockerd = world.env.nonempty(vars::DOCKERD).unwrap_or("dockerd".as_ref());
        // The first word is the program, see the launcher.
        let dockerd = dockerd.to_str().and_then(|text| text.split_whitespace().next());
        Self {
            launcher: world
                .find_companion("dockerd-rootless.sh")
                .or_else(|| world.find_companion("dockerd-rootless")),
            net: net(world, prober, rootlesskit.as_deref()),
            // Debian has it in /usr/sbin, which the unit's PATH names and that of a login does not.
            dockerd: dockerd
                .and_then(|name| world.find_companion(name).or_else(|| world.find_with_sbin(name))),
            docker: world.find_companion("docker"),
            iptables_legacy: iptables
                .as_ref()
                .is_some_and(|program| prober.ask(program, "--version").contains("legacy")),
            iptables,
            nftables_backend: config.get("firewall-backend").is_some_and(|v| v == "nftables"),
            nsenter: world.find("nsenter"),
            systemd: world.find("systemctl").and_then(|systemctl| {
                // systemd 252 (252.38-1~deb12u1)
                prober.ask(&systemctl, "--version").split_whitespace().nth(1)?.parse().ok()
            }),
            fuse_overlayfs: world.find("fuse-overlayfs"),
            low_port_caps: rootlesskit
                .as_ref()
                .is_some_and(|file| sys::xattr::has(file, "security.capability").unwrap_or(false)),
            rootlesskit,
            rootful: rootful(world),
            containerd_rootless: containerd_rootless(world),
            lxc_usernet: lxc_usernet(world),
        }
    }
}

/// The launcher's own choice: slirp4netns 0.4.0 or later, pasta 2023_06_25 or later, VPNKit, and the stack that some
/// builds of rootlesskit have inside.
fn net(world: &World, prober: &dyn Prober, rootlesskit: Option<&std::path::Path>) -> Net {
    if let Ok(Some(name)) = world.env.text(vars::DOCKERD_ROOTLESS_NET) {
        return Net::Named(name.to_owned());
    }
    let mut passed_over = Vec::new();
    if let Some(program) = world.find("slirp4netns") {
        if prober.ask(&program, "--help").contains("--netns-type") {
            return Net::Chosen("slirp4netns");
        }
        passed_over.push(format!("{} is older than 0.4.0", program.display()));
    }
    if let Some(program) = world.find("pasta") {
        match date_in(&prober.ask(&program, "--version")) {
            Some(date) if date < PASTA_SINCE => {
                passed_over.push(format!("{} is older than 2023_06_25", program.display()));
            }
            _ => return Net::Chosen("pasta"),
        }
    }
    if world.find("vpnkit").is_some() {
        return Net::Chosen("vpnkit");
    }
    if rootlesskit.is_some_and(|kit| prober.ask(kit, "--help").contains("gvisor-tap-vsock")) {
        return Net::Chosen("gvisor-tap-vsock");
    }
    if passed_over.is_empty() {
        passed_over.push("neither slirp4netns nor pasta is in PATH".to_owned());
    }
    Net::None(passed_over.join(", "))
}

/// The oldest pasta that RootlessKit's documentation allows.
const PASTA_SINCE: u32 = 20230625;

/// The date in the version of passt, as one number: `2023_06_25.32660ce` upstream, `0.0~git20230309.7c7625d` in Debian,
/// `0^20240426.gd03c4e2` in Fedora.
fn date_in(version: &str) -> Option<u32> {
    let line = version.lines().next()?.replace('_', "");
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|run| run.len() == 8);
    numbers.filter_map(|run| run.parse().ok()).find(|date| (20200101..21000101).contains(date))
}

fn rootful(world: &World) -> Option<(PathBuf, bool)> {
    let sockets = ["var/run/docker.sock", "run/docker.sock"].map(|path| world.at(path));
    let socket = sockets.into_iter().find(|socket| socket.exists())?;
    let writable = super::account::writable(&socket);
    Some((socket, writable))
}

fn containerd_rootless(world: &World) -> Option<PathBuf> {
    let set = world.env.nonempty(vars::CONTAINERD_ROOTLESS_STATE_DIR).map(PathBuf::from);
    let dir = set.or_else(|| Some(world.runtime_dir()?.join("containerd-rootless")))?;
    state::is_running(&dir, &world.at("proc")).then_some(dir)
}

fn lxc_usernet(world: &World) -> bool {
    let user = env::user::lookup_uid(&world.root, world.uid, &world.env);
    let name = user.map_or_else(|_| world.uid.to_string(), |user| user.name);
    let text = world.text("etc/lxc/lxc-usernet").unwrap_or_default();
    text.lines().any(|line| line.split_whitespace().next() == Some(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f036_dates_of_pasta() {
        assert_eq!(date_in("pasta 2024_12_11.09478d5\nCopyright 2020"), Some(20241211));
        assert_eq!(date_in("pasta 0.0~git20230309.7c7625d-1+deb12u1"), Some(20230309));
        assert_eq!(date_in("pasta 0^20240426.gd03c4e2-1.fc40.x86_64-pasta"), Some(20240426));
        assert_eq!(date_in("pasta unknown version"), None);
        assert_eq!(date_in(""), None);
    }
}
