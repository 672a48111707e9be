//! Whether the daemon is to be a node of a swarm (`DOCKERD_ROOTLESS_SWARM`), and what is in the way of that.

use std::net::IpAddr;
use std::path::PathBuf;

use hostenv::swarm::Swarm;
use hostenv::{user, vars};
use ipnet::IpNet;

use super::sockets::{listeners, own_networks};
use super::variables::{UserSetting, UserSettings};
use super::ways::detaches;
use crate::place::World;
use crate::probe::Prober;
use crate::swarm::Membership;

#[derive(Debug, Clone)]
pub struct Node {
    /// The file that sets the variable, if that is not the environment.
    pub file: Option<PathBuf>,
    pub value: String,
    /// Or why the launcher refuses the value.
    pub swarm: Result<Swarm, String>,
    /// The address is one of this host's, or every program may listen on others, too; `None` if nobody knows.
    pub is_own: Option<bool>,
    /// What this host has instead: no addresses of loopback or of a single link.
    pub addresses: Vec<IpAddr>,
    pub taken: Vec<Taken>,
    /// `None` if the daemon is in no swarm.
    pub membership: Option<Membership>,
    /// dockerd itself listens on the host.
    pub detached: bool,
    /// The `ip` of iproute2.
    pub ip: Option<PathBuf>,
    /// The running kernel has a module vxlan, or has it built in; `None` if nobody knows.
    pub vxlan_module: Option<bool>,
}

/// A port that a node needs, and that another program has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub port: u16,
    pub proto: &'static str,
    /// The user's name, or the uid.
    pub user: String,
}

impl Node {
    pub(super) fn gather(
        world: &World,
        settings: &UserSettings<'_>,
        dockerd_version: Option<[u32; 3]>,
        prober: &dyn Prober,
    ) -> Option<Self> {
        let UserSetting { value, file, .. } = settings.variable(vars::DOCKERD_ROOTLESS_SWARM)?;
        let swarm: Result<Swarm, String> =
            value.parse().map_err(|error: hostenv::swarm::SwarmError| error.to_string());
        let networks = own_networks(world);
        let (mut is_own, mut taken) = (None, Vec::new());
        if let Ok(swarm) = &swarm {
            let address = swarm.address;
            let within = |networks: &Vec<IpNet>| networks.iter().any(|net| net.contains(&address));
            is_own = networks.as_ref().map(|found| within(found) || binds_others(world, address));
            taken = in_the_way(world, swarm);
        }
        Some(Self {
            addresses: networks.into_iter().flatten().filter_map(usual).collect(),
            is_own,
            taken,
            membership: Membership::read(world),
            detached: detaches(settings, dockerd_version),
            ip: world.find_with_sbin("ip").filter(|ip| {
                prober.ask(ip, "-V").is_ok_and(|version| version.contains("iproute2"))
            }),
            vxlan_module: vxlan_module(world),
            file,
            value,
            swarm,
        })
    }
}

/// Whether programs may listen on addresses that the host does not have (ip(7)).
fn binds_others(world: &World, address: IpAddr) -> bool {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    world.sysctl(&format!("net.{family}.ip_nonlocal_bind")) == Some(1)
}

fn usual(network: IpNet) -> Option<IpAddr> {
    let address = network.addr();
    let of_link = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let single = network.prefix_len() == network.max_prefix_len();
    (single && !of_link && !address.is_loopback()).then_some(address)
}

/// The sockets of others on the ports of a node. Those of this user's daemon, if it runs, are the node's.
fn in_the_way(world: &World, swarm: &Swarm) -> Vec<Taken> {
    let runs = world.daemon_runs();
    let all = listeners(world);
    let mut taken = Vec::new();
    for (port, proto) in swarm.listens() {
        let found = all.iter().find(|socket| {
            let same = socket.port == port && socket.proto == proto;
            let own = runs && socket.uid == world.uid;
            same && !own && socket.occupies(swarm.address)
        });
        taken.extend(found.map(|socket| {
            let known = user::lookup_uid(&world.root, socket.uid, &world.env);
            let user = known.map_or_else(|_| format!("uid {}", socket.uid), |user| user.name);
            Taken { port, proto, user }
        }));
    }
    taken
}

/// Loaded, or in the lists of what the kernel was built with and of what it can load (depmod(8)).
fn vxlan_module(world: &World) -> Option<bool> {
    if world.at("sys/module/vxlan").is_dir() {
        return Some(true);
    }
    let release = world.text("proc/sys/kernel/osrelease")?;
    let modules = world.text(&format!("lib/modules/{release}/modules.dep"))?;
    let builtin = world.text(&format!("lib/modules/{release}/modules.builtin"));
    Some([modules, builtin.unwrap_or_default()].iter().any(|list| list.contains("/vxlan.ko")))
}
