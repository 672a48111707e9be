//! Which container had an address when a flow ended.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::flows::Flow;

/// Addresses that are remembered; more than Docker has.
const MAX_ADDRESSES: usize = 65_536;

/// How often Docker is asked for its containers. One that begins and ends in between may have no name.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How soon it may be asked again because of an address that it has not listed.
const MIN_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Container and network by address.
type Containers = HashMap<IpAddr, (String, String)>;

/// Containers that Docker has listed. One that is gone keeps its address here until another one gets it: its last flows
/// are told after its end.
#[derive(Debug)]
pub(super) struct Names<L> {
    /// Asks Docker; `None` if it cannot be asked.
    list: L,
    known: Containers,
    /// Those that Docker did not know either, since it was last asked without a reason.
    unknown: HashSet<IpAddr>,
    looked: Instant,
    due: Instant,
}

impl<L: FnMut() -> Option<Containers>> Names<L> {
    /// Asks for the first time.
    pub(super) fn new(now: Instant, list: L) -> Self {
        let (known, unknown) = (Containers::new(), HashSet::new());
        let mut names = Self { list, known, unknown, looked: now, due: now };
        names.refresh(now);
        names
    }

    /// Asks again if it is time, however much ends meanwhile: an address may be another container's by now. Returns how
    /// long there is until the next time.
    pub(super) fn refresh(&mut self, now: Instant) -> Duration {
        if self.due <= now {
            self.look(now);
            self.unknown.clear();
            self.due = now + LOOK_INTERVAL;
        }
        self.due.saturating_duration_since(now)
    }

    fn look(&mut self, now: Instant) {
        self.looked = now;
        let Some(list) = (self.list)() else { return };
        if self.known.len() > MAX_ADDRESSES {
            self.known.clear();
        }
        self.known.extend(list);
    }

    /// Gives the container of a flow its name. Docker is asked for an address that it has not been asked for, unless it was
    /// asked just before.
    pub(super) fn name(&mut self, now: Instant, flow: &mut Flow) {
        let Some(ip) = flow.container_ip else { return };
        let is_new = !self.known.contains_key(&ip) && !self.unknown.contains(&ip);
        if is_new && now.saturating_duration_since(self.looked) >= MIN_LOOK_INTERVAL {
            self.look(now);
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
    use std::cell::{Cell, RefCell};

    use api::flows::{FlowAddress, FlowDirection, FlowEnd};

    use super::*;

    /// What Docker lists, and how often it was asked.
    #[derive(Default)]
    struct Docker {
        containers: RefCell<Containers>,
        looks: Cell<u32>,
    }

    impl Docker {
        fn has(&self, list: &[(&str, &str)]) {
            let entry = |(ip, name): &(&str, &str)| {
                (ip.parse().unwrap(), ((*name).to_owned(), "bridge".to_owned()))
            };
            self.containers.replace(list.iter().map(entry).collect());
        }

        fn list(&self) -> Option<Containers> {
            self.looks.set(self.looks.get() + 1);
            Some(self.containers.borrow().clone())
        }
    }

    fn named<L: FnMut() -> Option<Containers>>(
        names: &mut Names<L>,
        now: Instant,
        ip: &str,
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
            rule: None,
            dry_run_rule: None,
        };
        names.name(now, &mut flow);
        assert_eq!(flow.network.is_some(), flow.container.is_some());
        flow.container
    }

    #[test]
    fn a_container_keeps_its_name_behind_its_end_until_another_one_has_the_address() {
        let (docker, now) = (Docker::default(), Instant::now());
        docker.has(&[("172.17.0.2", "web")]);
        let mut names = Names::new(now, || docker.list());
        assert_eq!(named(&mut names, now, "172.17.0.2").as_deref(), Some("web"));
        docker.has(&[]);
        assert_eq!(names.refresh(now + LOOK_INTERVAL), LOOK_INTERVAL);
        assert_eq!(named(&mut names, now, "172.17.0.2").as_deref(), Some("web"));
        docker.has(&[("172.17.0.2", "db")]);
        // Also if flows end all the time.
        for ms in 0..=2 * 2000 {
            let now = now + Duration::from_millis(ms);
            names.refresh(now);
            named(&mut names, now, "172.17.0.2");
        }
        assert_eq!(named(&mut names, now, "172.17.0.2").as_deref(), Some("db"));
        assert_eq!(docker.looks.get(), 3);
    }

    #[test]
    fn a_new_address_is_asked_for_and_those_that_no_container_has_not_again_and_again() {
        let (docker, mut now) = (Docker::default(), Instant::now());
        let mut names = Names::new(now, || docker.list());
        docker.has(&[("172.17.0.2", "web")]);
        assert_eq!(named(&mut names, now, "172.17.0.2"), None, "it was asked just before");
        now += MIN_LOOK_INTERVAL;
        assert_eq!(named(&mut names, now, "172.17.0.2").as_deref(), Some("web"));
        assert_eq!(docker.looks.get(), 2);
        for _ in 0..9 {
            now += MIN_LOOK_INTERVAL;
            for unknown in ["10.0.2.100", "fd00::100"] {
                assert_eq!(named(&mut names, now, unknown), None);
            }
        }
        assert_eq!(docker.looks.get(), 4);
        // Perhaps it is one by now.
        docker.has(&[("10.0.2.100", "odd")]);
        names.refresh(now + LOOK_INTERVAL);
        assert_eq!(named(&mut names, now, "10.0.2.100").as_deref(), Some("odd"));
    }
}
