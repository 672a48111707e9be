//! Policies of egress, from the file to the decision about attempts.
#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use egress::{
    Action, Attempt, Container, Directory, File, Mode, Network, Openings, Policies, Protocol,
    Source,
};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};

const BRIDGE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 17, 0, 2));
const BACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 18, 0, 2));
const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 18, 0, 99));

/// As the gateway process gets them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wire(#[serde(with = "egress::compact")] Policies);

fn directory() -> Directory {
    let subnet = |name: &str, subnet: &str| Network {
        name: name.to_owned(),
        subnets: subnet.parse().into_iter().collect(),
        is_shared: false,
    };
    Directory {
        containers: vec![Container {
            name: "web".to_owned(),
            labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
            addresses: vec![("bridge".to_owned(), BRIDGE), ("back".to_owned(), BACK)],
        }],
        networks: vec![subnet("bridge", "172.17.0.0/16"), subnet("back", "172.18.0.0/16")],
    }
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let file = match File::parse(&text) {
        Ok(file) => file,
        Err(error) => {
            let lines = text.matches('\n').count() + 1;
            assert!((1..=lines).contains(&error.line), "{error}");
            assert!(!error.problem.contains(char::is_control), "{error:?}");
            return;
        }
    };
    let unreachable = file.unreachable();
    let resolved = file.resolve("egress.toml", &directory());
    assert_eq!(file.senders().len(), resolved.rules.len());
    let policies =
        Policies { policies: vec![resolved], known: directory().known(), ..Policies::default() };
    let wire = Wire(policies);
    let json = serde_json::to_string(&wire).expect("plain data");
    assert_eq!(serde_json::from_str::<Wire>(&json).expect("just written"), wire);
    let Wire(policies) = wire;

    let now = Instant::now();
    let opened = IpAddr::from([192, 0, 2, 7]);
    let mut openings = Openings::default();
    for who in [BRIDGE, NEW].map(Source::Container) {
        openings.learn(now, who, "www.example.org", &[(opened, Duration::ZERO)]);
    }
    let destinations = [opened, IpAddr::from([10, 1, 2, 3]), IpAddr::from([0xfd00; 8])];
    let others = [Source::Namespace, Source::Unknown];
    for source in [BRIDGE, BACK, NEW].map(Source::Container).into_iter().chain(others) {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            for destination in destinations {
                let attempt = Attempt { source, protocol, destination, port: 443 };
                let decision = policies.judge(&attempt, &openings.names(now, source, destination));
                let [(id, action)] = decision.verdicts[..] else { panic!("{decision:?}") };
                let policy = &policies.policies[0];
                let rule = id.rule.map(|rule| &policy.rules[rule]);
                assert_eq!(rule.map_or(policy.default, |rule| rule.action), action);
                let decides = |name: &str| unreachable.iter().all(|of| of.rule != name);
                assert!(rule.is_none_or(|rule| decides(&rule.name)), "{rule:?}: {unreachable:?}");
                let denied = action == Action::Deny && policy.mode == Mode::Enforce;
                assert_eq!(decision.denied_by, denied.then_some(id));
                // Nobody knows whose address it is, so no container's name lets it pass.
                if let Some(from) = rule.and_then(|rule| rule.from.as_ref())
                    && source == Source::Container(NEW)
                    && action == Action::Allow
                {
                    assert!(
                        from.addresses.iter().any(|network| network.contains(&NEW)),
                        "{from:?}"
                    );
                }
            }
        }
    }
});
