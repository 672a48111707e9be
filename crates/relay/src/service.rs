//! What a published port does with its clients.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::traffic::Traffic;

/// Where a published port leads, for whom, and what counts it.
#[derive(Clone, Debug)]
pub struct Service {
    /// The server in the namespace.
    pub target: SocketAddr,
    /// The clients that are served. Connections of others are reset, and their datagrams dropped.
    pub allowed: AllowList,
    /// The counters.
    pub traffic: Arc<Traffic>,
}

impl Service {
    /// A service for everybody.
    pub fn to(target: SocketAddr) -> Self {
        Self { target, allowed: AllowList::default(), traffic: Arc::default() }
    }
}

/// Networks of clients; an empty list allows everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// Whether a client with this address is served. IPv4 in IPv6 form, as listeners of both families report it, counts
    /// as IPv4.
    pub fn allows(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&client))
    }
}

impl From<Vec<IpNet>> for AllowList {
    fn from(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_allows_everybody_and_another_one_its_networks() {
        let list = |networks: &[&str]| {
            AllowList::from(networks.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
        };
        let some = list(&["10.9.0.0/24", "fd00::/8"]);
        for (client, allowed) in [
            ("10.9.0.7", true),
            ("::ffff:10.9.0.7", true),
            ("10.9.1.7", false),
            ("127.0.0.1", false),
            ("fd12::1", true),
            ("::1", false),
        ] {
            let client = client.parse().unwrap();
            assert_eq!(some.allows(client), allowed, "{client}");
            assert!(list(&[]).allows(client));
        }
    }
}
