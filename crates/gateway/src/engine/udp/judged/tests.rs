use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egress::{Action, Policies, Policy, Rule, Senders};
use relay::flow_log::FlowLog;
use relay::{Attribution, Counted};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::conntrack::{Client, pair};
use crate::engine::answers::Answers;
use crate::engine::egress_policy::EgressPolicy;
use crate::engine::host_socket::HostSocket;
use crate::engine::statistics::Statistics;
use crate::engine::tun::Tun;
use crate::network_config::{HostLoopback, Net, NetworkConfig};
use crate::shares::Holder;

fn plan() -> NetworkConfig {
    let [child, gateway, dns] =
        ["10.0.2.100", "10.0.2.2", "10.0.2.3"].map(|ip| ip.parse().unwrap());
    let (ifname, host_loopback) = ("tap0".to_owned(), HostLoopback::Closed);
    let v4 = Net { child, gateway, dns, prefix: 24 };
    NetworkConfig { ifname, mtu: 1500, v4, v6: None, host_loopback }
}

/// One rule, which denies these senders everything.
fn denying(from: Option<Senders>) -> Policies {
    let rule = Rule {
        name: "a rule".to_owned(),
        action: Action::Deny,
        from,
        to: Vec::new(),
        protocols: Vec::new(),
        ports: Vec::new(),
    };
    let policies = vec![Policy { rules: vec![rule], ..Policy::default() }];
    Policies { policies, ..Policies::default() }
}

fn containers(networks: &[&str]) -> Option<Senders> {
    let addresses = networks.iter().map(|network| network.parse().unwrap()).collect();
    Some(Senders { addresses, ..Senders::default() })
}

struct Rig {
    flows: Flows,
    shared: Shared,
    attributions: Attributions,
    log: Arc<FlowLog>,
    now: Instant,
    _conntrack: OwnedFd,
}

impl Rig {
    fn new(policies: Policies) -> Self {
        let nowhere = || Tun(File::options().write(true).open("/dev/null").unwrap().into());
        let statistics = Arc::new(Statistics::default());
        let log = Arc::new(FlowLog::default());
        log.follow();
        let mut egress = EgressPolicy::new(Arc::new(Mutex::new(Some(policies))), plan());
        egress.follow();
        let answers = Answers::new(nowhere(), &plan());
        let (ours, theirs) = pair().unwrap();
        let (client, counters) = (Client::new(ours), Arc::clone(&statistics));
        let attributions = Attributions::new(client, plan(), counters, Arc::clone(&log));
        let shared = Shared { plan: plan(), dial: nowhere(), answers, statistics, egress };
        let (flows, now) = (Flows::default(), Instant::now());
        Self { flows, shared, attributions, log, now, _conntrack: theirs }
    }

    /// A busy flow of a container, from this port; port 0 stands for all.
    fn flow(&mut self, port: u16, container: &str) -> Key {
        let between = ends(port);
        let (src, dst) = between;
        let query = outbound(conntrack::Protocol::Udp, src, dst);
        let start = self.attributions.log.start(self.now, &query);
        let attribution = Attribution::logged(&self.log, start);
        attribution.to(container.parse().unwrap(), Arc::default());
        let socket = || Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let key = self.flows.table.insert(Flow {
            between,
            src,
            dst,
            to: dst,
            outside: HostSocket::new(socket(), dst.ip()),
            inside: Inside::Is(socket()),
            count: 100,
            answered: true,
            keep_whole: false,
            cut_outside: relay::datagrams::Segmented::default(),
            cut_inside: relay::datagrams::Segmented::default(),
            counted: Counted::open(Arc::default()).attributed(attribution),
            failure: None,
            holder: Holder::Pending,
        });
        self.flows.index.insert(between, key);
        let (_, slot) = self.flows.occupancy.join(Holder::Pending);
        self.flows.order.insert_into(slot.index(), key, self.now);
        self.flows.insides += 1;
        key
    }

    fn known(&self, port: u16) -> Option<Key> {
        let (src, dst) = ends(port);
        self.flows.known(&self.shared, &self.attributions, self.now, (src, dst, b""))
    }
}

fn ends(port: u16) -> (SocketAddr, SocketAddr) {
    (SocketAddr::from(([10, 0, 2, 100], port)), SocketAddr::from(([192, 0, 2, 1], 9)))
}

#[test]
fn a_flow_that_goes_on_after_a_silence_is_judged_anew_if_its_sender_matters() {
    for (from, matters) in [(None, false), (containers(&["172.17.0.2/32"]), true)] {
        let mut rig = Rig::new(denying(from));
        let key = rig.flow(1, "172.17.0.3");
        assert_eq!((rig.known(1), rig.known(2)), (Some(key), None));
        rig.now += TRACKED_TIME;
        assert_eq!(rig.known(1).is_none(), matters);
    }
}

#[test]
fn datagrams_do_not_overtake_those_that_wait_for_their_sender() {
    let mut rig = Rig::new(denying(containers(&["172.17.0.2/32"])));
    rig.flow(1, "172.17.0.3");
    let (src, dst) = ends(1);
    let query = outbound(conntrack::Protocol::Udp, src, dst);
    rig.attributions.parked.add(&query, query.outside.dst.ip(), b"a datagram", false);
    assert_eq!(rig.known(1), None);
    rig.attributions.parked.take(&query);
    assert!(rig.known(1).is_some());
}

#[test]
fn silent_flows_leave_their_sockets_in_the_gateway_namespace() {
    let mut rig = Rig::new(denying(containers(&["172.17.0.2/32"])));
    let silent = rig.flow(1, "172.17.0.3");
    rig.now += TRACKED_TIME;
    let busy = rig.flow(2, "172.17.0.3");
    rig.flows.demote(rig.now - Duration::from_millis(1));
    assert_eq!(rig.flows.insides, 2);
    rig.flows.demote(rig.now);
    let inside = |key| matches!(rig.flows.table.get(key).unwrap().inside, Inside::Is(_));
    assert_eq!((inside(silent), inside(busy), rig.flows.insides), (false, true, 1));
}

#[test]
fn what_is_denied_ends_and_what_all_share_if_senders_matter() {
    for (from, left) in [(containers(&["172.17.0.2/32"]), vec![2]), (None, Vec::new())] {
        let mut rig = Rig::new(denying(from));
        rig.flow(1, "172.17.0.2");
        rig.flow(2, "172.17.0.3");
        rig.flow(0, "10.0.2.100");
        rig.flows.end_denied(&rig.shared);
        let mut ports: Vec<_> = rig.flows.index.keys().map(|(src, _)| src.port()).collect();
        ports.sort_unstable();
        assert_eq!((ports, rig.flows.insides), (left.clone(), left.len()));
        let records = rig.log.take().0;
        let denied = records.iter().filter(|record| record.end == FlowEnd::Denied);
        assert!(denied.clone().all(|record| record.rule.as_deref() == Some("a rule")));
        assert_eq!(denied.count(), if left.is_empty() { 3 } else { 1 });
    }
}
