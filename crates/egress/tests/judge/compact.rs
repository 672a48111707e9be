//! Policies in their short form.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress::{Action, Policies, Policy, Rule, Senders};
use ipnet::IpNet;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wire(#[serde(with = "egress::compact")] Policies);

fn policies(known: BTreeSet<IpAddr>, senders: Vec<Option<Senders>>) -> Policies {
    let rule = |from| Rule {
        name: "a".to_owned(),
        action: Action::Deny,
        from,
        to: Vec::new(),
        protocols: Vec::new(),
        ports: Vec::new(),
    };
    let rules = senders.into_iter().map(rule).collect();
    let known = known.into_iter().map(|address| (address, address)).collect();
    let policy = Policy { file: "/e.toml".to_owned(), rules, ..Policy::default() };
    let policies = vec![Policy::default(), policy];
    Policies { policies, known, has_docker_ipv4: true, has_docker_ipv6: false }
}

fn address(number: u8, v6: bool) -> IpAddr {
    if v6 { [0xfd00, 0, 0, 0, 0, 0, 0, number.into()].into() } else { [10, 0, 0, number].into() }
}

proptest! {
    #[test]
    fn the_short_form_is_for_the_same_senders(
        known in proptest::collection::btree_set((0..40_u8, any::<bool>()), 0..60),
        rules in proptest::collection::vec(
            proptest::option::of(proptest::collection::vec((0..40_u8, any::<bool>(), 0..6_u8), 0..30)),
            0..6,
        ),
    ) {
        let known = known.into_iter().map(|(number, v6)| address(number, v6)).collect();
        let senders = rules.into_iter().map(|networks| {
            let networks = networks?.into_iter().map(|(number, v6, bits)| {
                let address = address(number, v6);
                let length = if v6 { 128 } else { 32 } - bits;
                IpNet::new(address, length).unwrap().trunc()
            });
            let addresses = IpNet::aggregate(&networks.collect());
            Some(Senders { addresses, named: true, ..Senders::default() })
        });
        let policies = policies(known, senders.collect());
        let wire = Wire(policies);
        let text = serde_json::to_string(&wire).unwrap();
        prop_assert_eq!(serde_json::from_str::<Wire>(&text).unwrap(), wire);
    }

    #[test]
    fn wrong_bits_are_refused_or_mean_something(bits in "[0-9a-g]{0,6}", more in 0..3_usize) {
        let known = (0..9).map(|number| address(number, false)).collect();
        let wire = Wire(policies(known, vec![Some(Senders::default()), None]));
        let mut json = serde_json::to_value(&wire).unwrap();
        let fits = bits.chars().enumerate().all(|(place, digit)| {
            digit.to_digit(16).is_some_and(|digit| match place {
                0 | 1 => true,
                2 => digit < 2,
                _ => digit == 0,
            })
        });
        json["bits"][1][0] = bits.into();
        json["bits"].as_array_mut().unwrap().truncate(more);
        prop_assert_eq!(serde_json::from_value::<Wire>(json).is_ok(), fits && more == 2);
    }
}
