//! `DOCKERD_ROOTLESS_SWARM`: makes the daemon a node of a Docker swarm, whose nodes are on several hosts.
//!
//! The value is `ADDRESS,peers=NET[+NET…][,data-path-port=PORT]`, such as `192.0.2.10,peers=192.0.2.0/24`. As in the spec
//! of a published port, `+` separates networks. The launcher acts on it, `check` judges it, and the set-up tool writes it
//! into a drop-in, so all three read it here.
//!
//! `peers` is required. Whoever can send datagrams to the port of the overlay networks can put packets into them, and the
//! networks of the peers are what keeps others out. They cannot be learned from the swarm: only managers can list the
//! nodes, and the ports have to be open before a node joins.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// The UDP port of Docker's overlay networks (VXLAN), unless `docker swarm init --data-path-port` names another.
pub const DATA_PATH_PORT: u16 = 4789;
/// The TCP port of managers.
pub const MANAGER_PORT: u16 = 2377;
/// The port over which nodes tell each other about containers and networks, TCP and UDP.
const GOSSIP_PORT: u16 = 7946;
/// The ports that Docker accepts as the data path port (`docker swarm init --help`).
const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49151;
/// What an allow-list can hold (`PortSpec`), less one entry for the node's own address.
const MOST_PEERS: usize = 255;

/// The form of the value, for messages.
pub const FORM: &str = "ADDRESS,peers=NETWORK[+NETWORK...][,data-path-port=PORT]";

/// A node of a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swarm {
    /// The address of this host at which the other nodes reach it.
    pub address: IpAddr,
    /// The networks of the other nodes; at least one.
    pub peers: Vec<IpNet>,
    /// The UDP port of the overlay networks.
    pub data_path_port: u16,
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwarmError {
    /// The first part is no address of a host.
    #[error("{0:?} is not an IP address of this host (the form is {FORM})")]
    Address(String),
    /// There are no peers.
    #[error(
        "it has no peers=, so everybody who reaches this host could send packets into its overlay networks (the form is \
         {FORM})"
    )]
    NoPeers,
    /// A peer is neither an address nor a network.
    #[error("the peer {0:?} is neither an IP address nor a network such as 192.0.2.0/24")]
    Peer(String),
    /// There are more networks than a published port can have.
    #[error("it has {0} networks in peers=, but at most {MOST_PEERS} are allowed")]
    TooMany(usize),
    /// The port is out of range, or another one of a node.
    #[error("the data path port {0:?} must be a number from 1024 to 49151, except {GOSSIP_PORT}")]
    Port(String),
    /// A part has another name, or comes twice.
    #[error("the part {0:?} is unknown or comes twice (the form is {FORM})")]
    Part(String),
}

impl Swarm {
    /// The ports that a node needs, as specs of rootlesskit with the clients that are allowed: the peers and, except for the
    /// overlay networks, the node itself, which connects to its own address. `detached`: dockerd itself listens on the host, and only the overlay
    /// networks are in the namespace.
    pub fn ports(&self, detached: bool) -> Vec<String> {
        // The last one is that of the overlay networks.
        let skipped = if detached { self.listens().len() - 1 } else { 0 };
        let peers = self.peers();
        let own = IpNet::from(self.address);
        let all = self.listens().into_iter().skip(skipped);
        // Without the 6, the namespace's IPv4 address is the target, and the other node's address is lost.
        let family = if self.address.is_ipv6() { "6" } else { "" };
        let spec = |(port, proto)| {
            // A node connects to its own address as a manager does to the others, but it sends itself no packets.
            let clients = match (port, proto) == (self.data_path_port, "udp") {
                true => peers.clone(),
                false => format!("{own}+{peers}"),
            };
            let parent = SocketAddr::new(self.address, port);
            format!("{parent}:{port}/{proto}{family}@{clients}")
        };
        all.map(spec).collect()
    }

    /// The ports of this host that a node listens on, itself or through rootlesskit; the last one is that of the overlay
    /// networks.
    pub fn listens(&self) -> [(u16, &'static str); 4] {
        let path = (self.data_path_port, "udp");
        [(MANAGER_PORT, "tcp"), (GOSSIP_PORT, "tcp"), (GOSSIP_PORT, "udp"), path]
    }

    /// Their networks as they are written.
    fn peers(&self) -> String {
        self.peers.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
    }
}

impl FromStr for Swarm {
    type Err = SwarmError;

    fn from_str(text: &str) -> Result<Self, SwarmError> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        let (mut peers, mut port) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("peers", list)) if peers.is_none() => peers = Some(networks(list)?),
                Some(("data-path-port", number)) if port.is_none() => {
                    port = Some(data_path_port(number)?);
                }
                _ => return Err(SwarmError::Part(part.to_owned())),
            }
        }
        Ok(Self {
            address: own_address(address).ok_or_else(|| SwarmError::Address(address.to_owned()))?,
            peers: peers.ok_or(SwarmError::NoPeers)?,
            data_path_port: port.unwrap_or(DATA_PATH_PORT),
        })
    }
}

/// An address that other hosts can reach; IPv6 with or without brackets.
fn own_address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr = match inner {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => text.parse().ok()?,
    };
    let nobody = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    (!nobody).then(|| address.to_canonical())
}

fn networks(list: &str) -> Result<Vec<IpNet>, SwarmError> {
    let network = |text: &str| {
        let whole = text.parse::<IpNet>().ok().map(|network| network.trunc());
        let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
        whole.or_else(one).ok_or_else(|| SwarmError::Peer(text.to_owned()))
    };
    let all: Vec<IpNet> = list.split('+').map(network).collect::<Result<_, _>>()?;
    if all.len() > MOST_PEERS {
        return Err(SwarmError::TooMany(all.len()));
    }
    Ok(all)
}

fn data_path_port(text: &str) -> Result<u16, SwarmError> {
    let usable = |port: &u16| DATA_PATH_PORTS.contains(port) && *port != GOSSIP_PORT;
    let port = text.parse().ok().filter(usable);
    port.ok_or_else(|| SwarmError::Port(text.to_owned()))
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},peers={}", self.address, self.peers())?;
        if self.data_path_port != DATA_PATH_PORT {
            write!(f, ",data-path-port={}", self.data_path_port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_node_publishes_its_ports_for_its_peers_and_itself() {
        let swarm: Swarm = "192.0.2.10,peers=192.0.2.7/24+198.51.100.1".parse().unwrap();
        assert_eq!(swarm.to_string(), "192.0.2.10,peers=192.0.2.0/24+198.51.100.1/32");
        let clients = "192.0.2.10/32+192.0.2.0/24+198.51.100.1/32";
        let ports = ["2377:2377/tcp", "7946:7946/tcp", "7946:7946/udp", "4789:4789/udp"];
        let mut ports = ports.map(|port| format!("192.0.2.10:{port}@{clients}"));
        ports[3] = "192.0.2.10:4789:4789/udp@192.0.2.0/24+198.51.100.1/32".to_owned();
        assert_eq!(swarm.ports(false), ports);
        assert_eq!(swarm.ports(true), ports[3..]);
        let swarm: Swarm = "[fd00::1],data-path-port=5000,peers=fd00::/64".parse().unwrap();
        assert_eq!(swarm.ports(true), ["[fd00::1]:5000:5000/udp6@fd00::/64"]);
        assert_eq!(swarm.to_string(), "fd00::1,peers=fd00::/64,data-path-port=5000");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "\"\" is not an IP address"),
            ("eth0,peers=192.0.2.0/24", "\"eth0\" is not an IP address"),
            ("0.0.0.0,peers=192.0.2.0/24", "\"0.0.0.0\""),
            ("127.0.0.1,peers=192.0.2.0/24", "\"127.0.0.1\""),
            ("192.0.2.1", "no peers="),
            ("192.0.2.1,peers=", "the peer \"\""),
            ("192.0.2.1,peers=192.0.2.0/24+node2", "the peer \"node2\""),
            ("192.0.2.1,peers=192.0.2.0/33", "the peer \"192.0.2.0/33\""),
            (
                "192.0.2.1,peers=192.0.2.2,peers=192.0.2.3",
                "\"peers=192.0.2.3\" is unknown or comes twice",
            ),
            ("192.0.2.1,peer=192.0.2.2", "\"peer=192.0.2.2\""),
            ("192.0.2.1,peers=192.0.2.2,192.0.2.3", "\"192.0.2.3\""),
            ("192.0.2.1,peers=192.0.2.2,data-path-port=80", "the data path port \"80\""),
            ("192.0.2.1,peers=192.0.2.2,data-path-port=7946", "except 7946"),
        ] {
            let error = text.parse::<Swarm>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = vec!["192.0.2.1"; 256].join("+");
        let error = format!("192.0.2.1,peers={many}").parse::<Swarm>().unwrap_err();
        assert_eq!(error, SwarmError::TooMany(256));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_and_what_is_read_reads_the_same_again(
            text in "(192.0.2.[0-9]{1,3}|[0-9a-f:]{2,9}),peers=[0-9.+/]{0,20}(192.0.2.1)?(,data-path-port=[0-9]{4,5})?"
        ) {
            if let Ok(swarm) = text.parse::<Swarm>() {
                prop_assert_eq!(swarm.to_string().parse(), Ok(swarm));
            }
        }
    }
}
