//! A daemon that is to be a node of a swarm: what cannot work in rootless mode, and what keeps this host from being one.

use std::net::{IpAddr, SocketAddr};

use drivers::{NetworkDriver, PortDriver};
use hostenv::swarm::{FORM, MANAGER_PORT, Swarm};
use hostenv::vars;

use super::driver::gateway_in_force;
use super::networks::before_a_swarm;
use super::{Finding, Wish, modules};
use crate::facts::{Facts, Node, Taken};
use crate::probe::{Outcome, Probe};

const NAME: &str = vars::DOCKERD_ROOTLESS_SWARM;
/// The most addresses of the host that a remedy lists.
const MOST_NAMED: usize = 8;

/// First of all advisories, because who does not know these limits looks for a mistake in the setup.
pub(super) fn limits(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let Some((node, _)) = node(facts) else { return };
    let finding = Finding::advisory(
        "swarm-limits",
        format!("the daemon is set up as a node of a swarm: {}", set(node)),
        "some features of a swarm do not work in rootless mode. The virtual IP addresses of services and the ingress network \
         need IPVS, which the kernel does not offer in user namespaces. `--opt encrypted` needs ESP, whose packets cannot \
         leave the namespace",
    )
    .fix("create services with --endpoint-mode dnsrr (in a stack file, endpoint_mode: dnsrr), or use the name tasks.SERVICE")
    .fix("publish ports of services with mode=host (in a stack file, mode: host)")
    .fix(
        "if you do not trust the network between the hosts, use the addresses of a WireGuard network, because traffic \
         between containers on different nodes is not encrypted",
    )
    .fix(
        "when another host joins, add --advertise-addr ADDRESS to the `docker swarm join` command that `docker swarm init` \
         printed; ADDRESS is that host's own address",
    );
    let pool = node.membership.is_none().then(|| before_a_swarm(facts)).flatten();
    findings.push(finding.fixes(pool));
}

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    findings.extend(facts.swarm.as_ref().and_then(value));
    let Some((node, swarm)) = node(facts) else { return };
    address(node, swarm, findings);
    findings.extend(advertised(node, swarm));
    ports(node, swarm, findings);
    driver(facts, findings);
    vxlan(facts, node, findings);
}

/// The node, if the launcher understands the value.
fn node(facts: &Facts) -> Option<(&Node, &Swarm)> {
    let node = facts.swarm.as_ref()?;
    Some((node, node.swarm.as_ref().ok()?))
}

/// The variable and its value, and where that is.
fn set(node: &Node) -> String {
    format!("{NAME}={}{}", node.value, place(node))
}

/// Where the variable is set, if that is not the environment.
fn place(node: &Node) -> String {
    node.file.as_ref().map(|file| format!(" in {}", file.display())).unwrap_or_default()
}

fn value(node: &Node) -> Option<Finding> {
    let why = node.swarm.as_ref().err()?;
    let (value, place) = (&node.value, place(node));
    let finding = Finding::fatal(
        "swarm-value",
        format!("{NAME} is {value:?}{place}: {why}"),
        "the launcher does not start the daemon with such a value",
    );
    let from = if node.file.is_some() { "that file" } else { "the daemon's settings" };
    Some(finding.fix(format!(
        "set {NAME} to {FORM}, such as 192.0.2.10,peers=192.0.2.0/24, or remove the variable from {from}"
    )))
}

fn address(node: &Node, swarm: &Swarm, findings: &mut Vec<Finding>) {
    if node.is_own != Some(false) {
        return;
    }
    findings.push(
        Finding::fatal(
            "swarm-address",
            format!("{} is not an address of this host ({})", swarm.address, set(node)),
            "rootlesskit listens on that address, and the daemon would not start",
        )
        .fix(match list_of_others(node, swarm.address) {
            Some(list) => {
                let change = change(node, swarm, "ADDRESS");
                format!("{change}, where ADDRESS is one of this host's addresses: {list}")
            }
            None => "as root, add the address to a network interface of this host".to_owned(),
        })
        .fix(match &node.file {
            Some(_) => {
                "or, if the daemon should not be a node, run `dockerd-rootless-setuptool.sh install --swarm=`, with nothing \
                 after the equals sign"
                    .to_owned()
            }
            None => format!(
                "or, if the daemon should not be a node, remove {NAME} from the daemon's settings"
            ),
        }),
    );
}

/// How to give the variable the same value with another address.
fn change(node: &Node, swarm: &Swarm, address: &str) -> String {
    let value = swarm.to_string();
    let rest = value.split_once(',').map_or("", |(_, rest)| rest);
    match &node.file {
        Some(_) => {
            format!("run `dockerd-rootless-setuptool.sh install --swarm={address},{rest}`")
        }
        None => format!("set {NAME} to {address},{rest}"),
    }
}

/// `docker swarm join` takes no notice of dockerd's `--swarm-default-advertise-addr`. Without an address of its own, a node
/// advertises that of the interface by which dockerd reaches the manager, which is one of its network namespace.
fn advertised(node: &Node, swarm: &Swarm) -> Option<Finding> {
    let member = node.membership.as_ref().filter(|_| node.is_own != Some(false))?;
    let address = swarm.address;
    let code = "swarm-advertise";
    let mut still = None;
    let finding = if member.advertise_addr.is_empty() {
        if node.detached {
            // On the host's network, that interface has an address of the host.
            return None;
        }
        Finding::class(
            code,
            format!("the daemon joined its swarm without --advertise-addr ({})", set(node)),
            "the node looks ready, but containers on other nodes cannot reach those on this one",
        )
    } else {
        let said = match &*member.data_path_addr {
            // Only the packets between containers pass through rootlesskit.
            data_path if node.detached && !data_path.is_empty() => data_path,
            _ => &member.advertise_addr,
        };
        let said = host(said).filter(|said| *said != address)?;
        still = Some(said).filter(|_| member.remote_addr.is_empty());
        Finding::advisory(
            code,
            format!("the daemon advertises {said} in its swarm, but {}", set(node)),
            "other nodes send to the address that this one advertises, but rootlesskit listens on the address in the \
             variable. Unless something between the hosts translates addresses, they cannot reach this node",
        )
    };
    let (finding, or) = match still {
        Some(said) => {
            let first = format!(
                "if this host still has the address {said}, {}, and restart the daemon",
                change(node, swarm, &said.to_string())
            );
            (finding.fix(first), "otherwise, ")
        }
        None => (finding, ""),
    };
    Some(
        finding
            .fix(format!(
                "{or}if this node is the only manager, run `docker swarm init --force-new-cluster --advertise-addr {address}`"
            ))
            .fix(
                "if this node is one of several managers, first run `docker node demote NODE` on another one; NODE is this \
                 node's name",
            )
            .fix(format!(
                "then, unless this node is the only manager, run `docker swarm leave`, and join the swarm again with this \
                 host's address: `docker swarm join --advertise-addr {address} --token TOKEN MANAGER:{MANAGER_PORT}`"
            )),
    )
}

/// The address in `ADDRESS` or `ADDRESS:PORT`.
fn host(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(with_port)?;
    Some(address.to_canonical())
}

/// The host's other addresses of the same family.
fn others(node: &Node, address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let suits = move |other: &IpAddr| *other != address && other.is_ipv4() == address.is_ipv4();
    node.addresses.iter().copied().filter(suits)
}

/// The same as a list.
fn list_of_others(node: &Node, address: IpAddr) -> Option<String> {
    let names: Vec<String> =
        others(node, address).take(MOST_NAMED).map(|other| other.to_string()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn ports(node: &Node, swarm: &Swarm, findings: &mut Vec<Finding>) {
    if node.taken.is_empty() {
        return;
    }
    let port = |taken: &Taken| format!("{}/{} ({})", taken.port, taken.proto, taken.user);
    let ports: Vec<String> = node.taken.iter().map(port).collect();
    let address = swarm.address;
    let mut finding = Finding::fatal(
        "swarm-port-taken",
        format!("other programs already use ports of a swarm on {address}: {}", ports.join(", ")),
        "two nodes cannot share an address; a daemon of another user, or rootful Docker, can be the other node",
    )
    .forcible();
    finding = finding.fix(match list_of_others(node, address) {
        Some(list) => {
            let change = change(node, swarm, "ADDRESS");
            format!("{change}, where ADDRESS is another address of this host: {list}")
        }
        None => "as root, add another address to a network interface of this host, and use it"
            .to_owned(),
    });
    if node.detached {
        finding = finding.fix(format!(
            "also add --listen-addr={} to `docker swarm init` and `docker swarm join`: this dockerd itself listens on the \
             host, by default on all addresses",
            free(node, address)
        ));
    }
    findings.push(finding.fix(
        "or stop the other program; if it is a Docker daemon that is a node of a swarm, its owner can run `docker swarm leave`",
    ));
}

/// What to listen on instead: another address of the host, if there is one.
fn free(node: &Node, taken: IpAddr) -> String {
    others(node, taken).next().map_or_else(
        || format!("ADDRESS:{MANAGER_PORT}"),
        |address| SocketAddr::from((address, MANAGER_PORT)).to_string(),
    )
}

/// The launcher refuses what is not the gateway. A network that there is none of is a finding of its own.
fn driver(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(net) = facts.tools.net.driver() else { return };
    let default = || net.default_port_driver().name().to_owned();
    let ports = facts.tools.choices.port_driver().map_or_else(default, str::to_owned);
    if net == NetworkDriver::Gateway && ports == PortDriver::Gateway.name() {
        return;
    }
    let why = if ports == PortDriver::Builtin.name() {
        "this port driver does not keep the addresses of the other nodes. The nodes would look ready, but no container would \
         reach one on another node, so the launcher does not start the daemon"
    } else {
        "only the gateway restricts the port of the overlay networks to the peers. With these drivers, anyone who reaches \
         this host could send packets into them, so the launcher does not start the daemon"
    };
    let finding = Finding::fatal(
        "swarm-driver",
        format!("{NAME} is set, but the network driver is {net} and the port driver {ports}"),
        why,
    );
    findings.push(finding.fixes(gateway_in_force(facts, |ports| ports == PortDriver::Gateway)));
}

/// What the kernel said, or else what its list of modules says.
fn vxlan(facts: &Facts, node: &Node, findings: &mut Vec<Finding>) {
    let seen = match (facts.outcome(Probe::Vxlan), node.vxlan_module) {
        (Outcome::Fails(text), _) => {
            // The last words are those of rootlesskit, about the program that failed.
            let said = text.lines().find(|line| !line.starts_with('[')).unwrap_or(text);
            format!("a VXLAN link cannot be created in a namespace: {}", said.trim())
        }
        (Outcome::Unknown, Some(false)) => {
            format!("Linux {} has no module vxlan", facts.host.release)
        }
        _ => return,
    };
    let finding = Finding::class(
        "swarm-vxlan",
        seen,
        "overlay networks use VXLAN; the daemon starts, but no container can join such a network",
    );
    findings.push(finding.remedy(modules(facts, &["vxlan"], "load vxlan")).fix(
        "if there is no such module, install the package with the kernel's additional modules (on Ubuntu, \
         linux-modules-extra-$(uname -r)), or use the distribution's usual kernel",
    ));
}
