//! Which container had an address when a flow ended.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use api::flows::Flow;

/// Addresses that are remembered; more than Docker has.
const MAX_ADDRESSES: usize = 65_536;

/// Container and network by address.
type Containers = HashMap<IpAddr, (String, String)>;

/// Containers that Docker has listed. One that is gone keeps its address here until another one gets it: its last flows
/// are told after its end.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Containers,
    /// Those that Docker did not know either.
    unknown: HashSet<IpAddr>,
}

impl Names {
    /// Takes in what Docker lists now, if it can be asked.
    pub(super) fn look(&mut self, list: &mut dyn FnMut() -> Option<Containers>) {
        let Some(list) = list() else { return };
        if self.known.len() > MAX_ADDRESSES {
            self.known.clear();
        }
        self.known.extend(list);
        self.unknown.clear();
    }

    /// Gives the container of a flow its name. Docker is asked for an address that it has not been asked for.
    pub(super) fn name(&mut self, flow: &mut Flow, list: &mut dyn FnMut() -> Option<Containers>) {
        let Some(ip) = flow.container_ip else { return };
        if !self.known.contains_key(&ip) && !self.unknown.contains(&ip) {
            self.look(list);
            if self.unknown.len() < MAX_ADDRESSES {
                self.unknown.insert(ip);
            }
        }
        if let Some((container, network)) = self.known.get(&ip) {
            flow.container = Some(container.clone());
            flow.network = Some(network.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use api::flows::{FlowAddress, FlowDirection, FlowEnd};

    use super::*;

    fn named(
        names: &mut Names,
        ip: &str,
        list: &[(&str, &str)],
        looks: &mut u32,
    ) -> Option<String> {
        let ip: IpAddr = ip.parse().unwrap();
        let address = FlowAddress { ip, port: None };
        let mut flow = Flow {
            time: String::new(),
            container_ip: Some(ip),
            container: None,
            network: None,
            direction: FlowDirection::Outbound,
            protocol: "tcp".to_owned(),
            client: address,
            destination: address,
            name: None,
            bytes_out: 0,
            bytes_in: 0,
            duration_ms: 0,
            end: FlowEnd::Closed,
        };
        names.name(&mut flow, &mut || {
            *looks += 1;
            let network = "bridge".to_owned();
            let entry = |(ip, name): &(&str, &str)| {
                (ip.parse().unwrap(), ((*name).to_owned(), network.clone()))
            };
            Some(list.iter().map(entry).collect())
        });
        assert_eq!(flow.network.is_some(), flow.container.is_some());
        flow.container
    }

    #[test]
    fn a_container_keeps_its_name_behind_its_end_until_another_one_has_the_address() {
        let (mut names, mut looks) = (Names::default(), 0);
        let web = [("172.17.0.2", "web")];
        assert_eq!(named(&mut names, "172.17.0.2", &web, &mut looks).as_deref(), Some("web"));
        assert_eq!(named(&mut names, "172.17.0.2", &[], &mut looks).as_deref(), Some("web"));
        assert_eq!(looks, 1);
        // Nobody is asked again and again about an address that no container has.
        assert_eq!(named(&mut names, "10.0.2.100", &[], &mut looks), None);
        assert_eq!(named(&mut names, "10.0.2.100", &[], &mut looks), None);
        assert_eq!(looks, 2);
        assert_eq!(named(&mut names, "172.17.0.2", &[], &mut looks).as_deref(), Some("web"));
        let other =
            || Some([(web[0].0.parse().unwrap(), ("db".to_owned(), "one".to_owned()))].into());
        names.look(&mut { other });
        assert_eq!(named(&mut names, "172.17.0.2", &[], &mut looks).as_deref(), Some("db"));
    }
}
