//! The egress policy that the part `policy` measures.

use std::fmt::Write as _;

use super::container::SUBNET;
use crate::instance::base;
use crate::machine::ADDRESS;
use crate::sheet::Side;

/// Rules that name destinations by a domain.
const NAMED: u16 = 60;
/// Rules that name senders and destinations by address, the last one aside.
const ADDRESSED: u16 = 39;

/// The port of a server that the last rule denies, and nothing else does: [`Side::Gateway`]'s for requests.
pub(super) fn denied_port() -> u16 {
    base(Side::Gateway) + loadgen::KEEP
}

/// The text of a policy of 100 rules that allows all of the load. None of them matches it, so each connection and flow
/// is tried against all of them.
///
/// The sender of each has to be found: names count for the container that has asked for them, and the other rules are
/// for the containers' subnet.
pub(super) fn policy() -> String {
    let mut text = String::new();
    for n in 0..NAMED {
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"name {n}\"\naction = \"deny\"\nto = [\"*.s{n:02}.example.org\"]\n"
        );
    }
    for n in 0..ADDRESSED {
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"address {n}\"\naction = \"deny\"\nfrom = {{ address = \"{SUBNET}\" }}\n\
             to = [\"10.200.{n}.0/24\", \"2001:db8:{n:x}::/48\"]\n"
        );
    }
    let port = denied_port();
    let _ = writeln!(
        text,
        "[[rule]]\nname = \"one port\"\naction = \"deny\"\nfrom = {{ address = \"{SUBNET}\" }}\nto = \"{ADDRESS}\"\n\
         protocol = \"tcp\"\nports = {port}"
    );
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use loadgen::{TCP_PORTS, UDP_PORTS};

    use super::*;

    #[test]
    fn only_the_last_of_a_hundred_rules_is_about_the_servers_address_and_it_spares_the_load() {
        let text = policy();
        let rules: Vec<&str> = text.split("[[rule]]\n").skip(1).collect();
        let name =
            |rule: &str| rule.lines().find(|line| line.starts_with("name = ")).unwrap().to_owned();
        let names: BTreeSet<String> = rules.iter().map(|rule| name(rule)).collect();
        assert_eq!((rules.len(), names.len()), (100, 100));
        let (last, others) = rules.split_last().unwrap();
        assert!(others.iter().all(|rule| !rule.contains(ADDRESS) && rule.contains("\nto = [")));
        let ports = TCP_PORTS.iter().chain(&UDP_PORTS).map(|port| base(Side::GatewayRules) + port);
        assert!(!ports.into_iter().any(|port| port == denied_port()));
        assert!(last.ends_with(&format!("\nports = {}\n", denied_port())), "{last}");
    }
}
