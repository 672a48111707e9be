//! What Docker has, and rules with its addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::file::{File, Keys, Who};
use crate::names;
use crate::policy::{Action, Policy, Rule, Senders, Target};

/// A container of Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name, without the slash.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses, with the names of the networks.
    pub addresses: Vec<(String, IpAddr)>,
}

/// A network of Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The subnets from which its containers send.
    pub subnets: Vec<IpNet>,
    /// Containers of other networks send from these subnets as well.
    pub is_shared: bool,
}

/// What Docker has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The containers that run.
    pub containers: Vec<Container>,
    /// The networks.
    pub networks: Vec<Network>,
}

impl Directory {
    /// Whether there is a network of a family.
    pub fn has_networks(&self, is_ipv4: bool) -> bool {
        let mut subnets = self.networks.iter().flat_map(|network| &network.subnets);
        subnets.any(|subnet| subnet.addr().is_ipv4() == is_ipv4)
    }

    /// The addresses of containers, each with the lowest one of its container, which stands for all of them: a container
    /// may ask for a name over IPv4 and use the answer over IPv6.
    pub fn known(&self) -> BTreeMap<IpAddr, IpAddr> {
        let of = |container: &Container| {
            let addresses = container.addresses.iter().map(|(_, address)| address.to_canonical());
            let addresses: Vec<IpAddr> = addresses.collect();
            let lowest = addresses.iter().min().copied();
            addresses.into_iter().filter_map(move |address| Some((address, lowest?)))
        };
        self.containers.iter().flat_map(of).collect()
    }
}

/// Where clouds serve metadata and credentials: most of them, Amazon ECS and EKS, Amazon EC2 and EKS by IPv6, Google by
/// IPv6, Alibaba, and Oracle before it took the usual address.
const METADATA: [IpAddr; 8] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// The rule that `metadata = "deny"` adds.
pub(crate) fn metadata() -> Rule {
    Rule {
        name: "metadata".to_owned(),
        action: Action::Deny,
        from: None,
        to: METADATA.map(|address| Target::Network(address.into())).to_vec(),
        protocols: Vec::new(),
        ports: Vec::new(),
    }
}

impl File {
    /// The same with addresses. Rules for containers that Docker does not have match nobody it lists.
    pub fn resolve(&self, file: &str, directory: &Directory) -> Policy {
        let metadata = (self.metadata == Action::Deny).then(metadata);
        let written = self.rules.iter().map(|rule| Rule {
            name: rule.name.clone(),
            action: rule.action,
            from: rule.from.as_ref().map(|from| match from {
                Who::Daemon => Senders { namespace: true, ..Senders::default() },
                Who::Containers(keys) => keys.resolve(directory),
            }),
            to: rule.to.clone(),
            protocols: rule.protocols.clone(),
            ports: rule.ports.clone(),
        });
        Policy {
            file: file.to_owned(),
            mode: self.mode,
            default: self.default,
            rules: metadata.into_iter().chain(written).collect(),
        }
    }

    /// Whom each of the rules that [`resolve`](Self::resolve) makes is for, as written. `None` is everybody.
    pub fn senders(&self) -> Vec<Option<String>> {
        let metadata = (self.metadata == Action::Deny).then_some(None);
        let written = self.rules.iter().map(|rule| rule.from.as_ref().map(Who::to_string));
        metadata.into_iter().chain(written).collect()
    }

    /// Whether a rule is for some senders only.
    pub fn has_senders(&self) -> bool {
        self.rules.iter().any(|rule| rule.from.is_some())
    }

    /// Whether a rule leads to a name, so that it matters which addresses are of one container.
    pub fn uses_names(&self) -> bool {
        self.rules.iter().flat_map(|rule| &rule.to).any(|to| matches!(to, Target::Name(_)))
    }

    /// Whether a rule is for containers by name, label or network, so that Docker has to be asked.
    pub fn names_containers(&self) -> bool {
        self.rules.iter().any(|rule| match &rule.from {
            Some(Who::Containers(keys)) => keys.names_containers() || !keys.networks.is_empty(),
            Some(Who::Daemon) | None => false,
        })
    }
}

impl Keys {
    fn names_containers(&self) -> bool {
        !self.containers.is_empty() || !self.labels.is_empty()
    }

    /// Whom the rule is for: the addresses of containers that Docker lists and for which all keys hold. Of a network of
    /// Docker, all other addresses belong to it as well. Whether a container with an address that Docker does not list
    /// has a name, a label or a network that Docker does not list either, nobody knows.
    fn resolve(&self, directory: &Directory) -> Senders {
        if !self.names_containers() && self.networks.is_empty() {
            return Senders { addresses: self.addresses.clone(), ..Senders::default() };
        }
        let containers = directory.containers.iter().filter(|container| self.fits(container));
        let listed = containers.flat_map(|container| &container.addresses);
        let listed = listed.filter(|(network, address)| {
            (self.networks.is_empty() || self.networks.contains(network))
                && (self.addresses.is_empty()
                    || self.addresses.iter().any(|within| within.contains(address)))
        });
        let mut addresses: Vec<IpNet> = listed.map(|(_, address)| (*address).into()).collect();

        let (own, shared, complete) = self.subnets(directory);
        let named = !complete || !shared.is_empty() || (self.names_containers() && !own.is_empty());
        let within = match (named, complete) {
            (false, _) => Vec::new(),
            (true, true) => IpNet::aggregate(&[&own[..], &shared].concat()),
            (true, false) => self.addresses.clone(),
        };
        if !self.names_containers() {
            addresses.extend(own);
        }
        Senders { addresses: IpNet::aggregate(&addresses), namespace: false, named, within }
    }

    /// The subnets of the networks, as far as `address` allows them: those of which all addresses belong to the networks,
    /// and others. Also whether these are all that there can be: each network is one that Docker lists.
    fn subnets(&self, directory: &Directory) -> (Vec<IpNet>, Vec<IpNet>, bool) {
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        let mut complete = !self.networks.is_empty();
        for name in &self.networks {
            let mut is_listed = false;
            for network in directory.networks.iter().filter(|network| network.name == *name) {
                let all = if network.is_shared { &mut shared } else { &mut own };
                all.extend(&network.subnets);
                is_listed |= !network.subnets.is_empty();
            }
            complete &= is_listed;
        }
        if !self.addresses.is_empty() {
            for all in [&mut own, &mut shared] {
                *all = all.iter().flat_map(|subnet| common(*subnet, &self.addresses)).collect();
            }
        }
        (own, shared, complete)
    }

    /// Whether name and labels of a container are those that the rule is for.
    fn fits(&self, container: &Container) -> bool {
        let labelled = |(key, value): &(String, Option<String>)| {
            let found = container.labels.get(key);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        (self.containers.is_empty()
            || self.containers.iter().any(|pattern| names::glob(pattern, &container.name)))
            && (self.labels.is_empty() || self.labels.iter().any(labelled))
    }
}

/// What a network has in common with others.
fn common(network: IpNet, others: &[IpNet]) -> Vec<IpNet> {
    let common = |other: &IpNet| match (network.contains(other), other.contains(&network)) {
        (true, _) => Some(*other),
        (_, true) => Some(network),
        _ => None,
    };
    others.iter().filter_map(common).collect()
}
