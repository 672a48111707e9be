use std::fs::File;
use std::sync::{Arc, Mutex};

use egress::Policies;

use super::*;
use crate::engine::answers::Answers;
use crate::engine::egress_policy::EgressPolicy;
use crate::engine::statistics::Statistics;
use crate::engine::tun::Tun;
use crate::network_config::{HostLoopback, Net, NetworkConfig};

const OWN_V4: &str = "10.0.2.100";
const OWN_V6: &str = "fd00::100";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What Docker lists: each address with the one that stands for its container.
fn shared(known: &[(&str, &str)]) -> Shared {
    let net = |[child, gateway, dns]: [&str; 3], prefix| Net {
        child: ip(child),
        gateway: ip(gateway),
        dns: ip(dns),
        prefix,
    };
    let plan = NetworkConfig {
        ifname: "tap0".to_owned(),
        mtu: 1500,
        v4: net([OWN_V4, "10.0.2.2", "10.0.2.3"], 24),
        v6: Some(net([OWN_V6, "fd00::2", "fd00::3"], 64)),
        host_loopback: HostLoopback::Closed,
    };
    let known = known.iter().map(|(address, container)| (ip(address), ip(container))).collect();
    let policies = Policies { known, ..Policies::default() };
    let mut egress = EgressPolicy::new(Arc::new(Mutex::new(Some(policies))), plan.clone());
    egress.follow();
    let nowhere = || Tun(File::options().write(true).open("/dev/null").unwrap().into());
    let answers = Answers::new(nowhere(), &plan);
    Shared { plan, dial: nowhere(), answers, statistics: Arc::new(Statistics::default()), egress }
}

/// That packets with this source count for a holder, and so does what was found to be of this address.
#[track_caller]
fn assert_holder(shared: &Shared, address: &str, holder: Holder) {
    let found = Sender { container: ip(address), is_guess: false };
    assert_eq!(shared.holder(ip(OWN_V4), Some(found)), holder, "{address}");
    assert_eq!(shared.holder(ip(address), None), holder, "{address}");
}

#[test]
fn a_container_has_one_share_for_all_addresses_that_docker_lists_and_unlisted_ones_have_none() {
    let shared = shared(&[
        ("172.17.0.2", "172.17.0.2"),
        ("172.18.0.7", "172.17.0.2"),
        ("fd01::2", "172.17.0.2"),
        ("172.17.0.3", "172.17.0.3"),
    ]);
    for address in ["172.17.0.2", "172.18.0.7", "fd01::2", "::ffff:172.18.0.7"] {
        assert_holder(&shared, address, Holder::Sender(ip("172.17.0.2")));
    }
    assert_holder(&shared, "172.17.0.3", Holder::Sender(ip("172.17.0.3")));
    for forged in ["172.17.0.4", "192.0.2.1", "fd01::3"] {
        assert_holder(&shared, forged, Holder::Unknown);
    }
}

#[test]
fn without_a_list_each_address_has_a_share() {
    for address in ["172.17.0.2", "172.17.0.3", "fd01::2"] {
        assert_holder(&shared(&[]), address, Holder::Sender(ip(address)));
    }
}

#[test]
fn the_namespace_itself_has_one_share_for_all_its_addresses() {
    for known in [&[][..], &[("172.17.0.2", "172.17.0.2")]] {
        let shared = shared(known);
        for own in [OWN_V4, OWN_V6] {
            let sender = |is_guess| Sender { container: ip(own), is_guess };
            let holder = |sender| shared.holder(ip(own), sender);
            assert_eq!(holder(Some(sender(false))), Holder::Sender(ip(OWN_V4)));
            assert_eq!(holder(Some(sender(true))), Holder::Unknown, "it may be any container's");
            assert_eq!(holder(None), Holder::Pending);
        }
    }
}
