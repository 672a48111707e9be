//! Networks of containers that have addresses of the namespace's own network, or may get them.
//!
//! Docker keeps new bridge networks off addresses to which the namespace has a route. It does not if the user names the
//! addresses, nor does a swarm, which hands out addresses for all nodes.

use drivers::{Cidr, NetworkDriver, SLIRP6_NET};
use hostenv::vars;
use ipnet::{IpNet, Ipv4Net};

use super::{Finding, Wish};
use crate::facts::{DEFAULT_SWARM_POOL, DockerNetwork, Facts};

const CODE: &str = "docker-network-overlap";

/// Docker's network for containers that name none.
const DEFAULT_NETWORK: &str = "bridge";

const OF_BRIDGE: &str =
    "containers in this network cannot reach the name server and, in most cases, any other network";
const OF_OVERLAY: &str = "containers in this network cannot reach the gateway: host.docker.internal does not answer, connections \
                          that an egress policy denies time out instead of failing at once, and with Docker 26.1 names of \
                          other hosts cannot be resolved";

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let Some(ours) = Ours::of(facts) else { return };
    let networks = &facts.networks;
    for setting in &networks.settings {
        let Some(own) = ours.hit_by(setting.subnet) else { continue };
        let (name, file) = (setting.name, setting.file.display());
        let seen = format!("{name:?} in {file} overlaps the namespace's network {own}");
        let fix = format!("set {name:?} to other addresses, and restart the daemon");
        findings.push(ours.other_cidr(Finding::class(CODE, seen, OF_BRIDGE).fix(fix), "", own));
    }
    // Docker lists the network of a setting that is in force, too. It is reported only once.
    let is_set = |network: &DockerNetwork, subnet: IpNet| {
        let same = |of: IpNet| of.contains(&subnet) || subnet.contains(&of);
        network.name == DEFAULT_NETWORK && networks.settings.iter().any(|of| same(of.subnet))
    };
    for network in &networks.existing {
        let hit = |subnet: &IpNet| Some((*subnet, ours.hit_by(*subnet)?));
        let Some((subnet, own)) = network.subnets.iter().find_map(hit) else { continue };
        if !is_set(network, subnet) {
            findings.push(ours.other_cidr(existing(network, subnet, own), "", own));
        }
    }
    findings.extend(pool(facts, &ours));
}

fn existing(network: &DockerNetwork, subnet: IpNet, own: IpNet) -> Finding {
    let DockerNetwork { name, driver, .. } = network;
    let why = if driver == "overlay" { OF_OVERLAY } else { OF_BRIDGE };
    Finding::class(
        CODE,
        format!("the Docker network {name:?} ({driver}, {subnet}) overlaps the namespace's network {own}"),
        why,
    )
    .fix(if name == DEFAULT_NETWORK {
        "in ~/.config/docker/daemon.json, set \"bip\" to other addresses, such as 172.17.0.1/16, and restart the daemon"
    } else {
        "remove the network, and create it again with another --subnet (in a Compose or stack file, ipam)"
    })
}

fn pool(facts: &Facts, ours: &Ours<'_>) -> Option<Finding> {
    let hit = |pool: &IpNet| Some((*pool, ours.hit_by(*pool)?));
    let (pool, own) = facts.networks.swarm_pool.iter().find_map(hit)?;
    let finding = Finding::advisory(
        "swarm-pool",
        format!(
            "overlay networks of this swarm get addresses from {pool}, which overlaps the namespace's network {own}"
        ),
        "the swarm does not know which addresses the namespaces use. In an overlay network with the same addresses, \
         containers cannot reach the gateway",
    )
    .fix(format!("create overlay networks with a --subnet outside {own} (in a stack file, ipam)"));
    let finding = ours.other_cidr(finding, ", on each node,", own);
    Some(finding.fix(format!(
        "or, if you create the swarm again, run `docker swarm init --default-addr-pool {}`",
        free_pool(facts)
    )))
}

/// Advice for users who are about to create a swarm, if its default addresses include those of the namespace.
pub(super) fn before_a_swarm(facts: &Facts) -> Option<String> {
    Ours::of(facts)?.hit_by(DEFAULT_SWARM_POOL.into())?;
    Some(format!(
        "when you create the swarm, run `docker swarm init --default-addr-pool {}`, or name other addresses that no network \
         uses: the default, {DEFAULT_SWARM_POOL}, includes the namespace's network {}",
        free_pool(facts),
        facts.ways.cidr
    ))
}

/// Addresses for overlay networks that neither the host nor the namespace uses, as far as that is known.
fn free_pool(facts: &Facts) -> Ipv4Net {
    let of = |second| Ipv4Net::new_assert([10, second, 0, 0].into(), 16);
    let ways = &facts.ways;
    let apart = |pool: &Ipv4Net| {
        let routes =
            ways.routes.v4.iter().filter(|net| net.prefix_len() > DEFAULT_SWARM_POOL.prefix_len());
        let mut routes = routes.copied();
        ways.cidr.overlapping(&[*pool]).is_none()
            && !routes.any(|net| pool.contains(&net) || net.contains(pool))
    };
    // From both halves of 10.0.0.0/8, one of which a VPN may route.
    (20..=40).chain(140..=160).map(of).find(apart).unwrap_or(of(20))
}

/// The namespace's own network.
struct Ours<'f> {
    facts: &'f Facts,
    driver: NetworkDriver,
}

impl<'f> Ours<'f> {
    /// `None` if the driver has addresses that are not known here.
    fn of(facts: &'f Facts) -> Option<Self> {
        let driver = facts.tools.net.driver().filter(|driver| driver.has_cidr())?;
        Some(Self { facts, driver })
    }

    /// The namespace's network, if this one shares addresses with it that matter. A part of it without the gateway, the name
    /// server and the namespace itself does no harm: its route is more specific, and nothing else has these addresses.
    fn hit_by(&self, other: IpNet) -> Option<IpNet> {
        let ways = &self.facts.ways;
        match other {
            IpNet::V4(net) => {
                ways.cidr.overlapping(&[net])?;
                let hosts = [ways.cidr.gateway(self.driver), ways.cidr.dns(), ways.cidr.child()];
                let wide = net.prefix_len() <= ways.cidr.prefix();
                (wide || hosts.iter().any(|host| net.contains(host)))
                    .then(|| IpNet::V4(ways.cidr.into()))
            }
            IpNet::V6(net) => {
                let has = ways.ipv6 && self.driver.has_ipv6();
                let overlaps = net.contains(&SLIRP6_NET) || SLIRP6_NET.contains(&net);
                (has && overlaps).then_some(SLIRP6_NET.into())
            }
        }
    }

    /// Adds how to give the namespace other addresses, which is possible only for IPv4. `place` says where to do so.
    fn other_cidr(&self, finding: Finding, place: &str, own: IpNet) -> Finding {
        let IpNet::V4(_) = own else { return finding };
        let networks = &self.facts.networks;
        let subnets = networks.existing.iter().flat_map(|network| &network.subnets);
        let settings = networks.settings.iter().map(|setting| &setting.subnet);
        let all = subnets.chain(settings).chain(&networks.swarm_pool);
        let v4 = |net: &IpNet| if let IpNet::V4(net) = net { Some(*net) } else { None };
        let mut taken: Vec<Ipv4Net> = all.filter_map(v4).collect();
        let ways = &self.facts.ways;
        taken.extend(&ways.routes.v4);
        match Cidr::beside(&taken) {
            Some(free) => finding.fix(format!(
                "or{place} add --cidr={free} to {}, and restart the daemon; containers then reach the host at {} instead of {}",
                vars::DOCKERD_ROOTLESS_FLAGS,
                free.gateway(self.driver),
                ways.cidr.gateway(self.driver)
            )),
            None => finding,
        }
    }
}
