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

/// An address that no container has.
const SOMEBODY: &str = "172.17.0.9";

/// The port of a server that the last rule denies, and nothing else does: [`Side::Gateway`]'s for requests.
pub(super) fn denied_port() -> u16 {
    base(Side::Gateway) + loadgen::KEEP
}

/// The text of a policy of 100 rules that allows all of the load. None of them matches it, so each connection and flow
/// is tried against all of them.
///
/// With `depends_on_sender`, one of them would match if another container sent the load, so the sender of each connection
/// and flow has to be found before it begins. Otherwise, none would match whoever sent it.
pub(super) fn policy(depends_on_sender: bool) -> String {
    let mut text = String::new();
    for n in 0..NAMED {
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"name {n}\"\naction = \"deny\"\nto = [\"*.s{n:02}.example.org\"]\n"
        );
    }
    for n in 0..ADDRESSED {
        if n == 0 && depends_on_sender {
            let _ = writeln!(
                text,
                "[[rule]]\nname = \"address {n}\"\naction = \"deny\"\nfrom = {{ address = \"{SOMEBODY}\" }}\n\
                 to = [\"{ADDRESS}\"]\n"
            );
            continue;
        }
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
        let text = policy(false);
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
        let depending = policy(true);
        let changed: Vec<&str> =
            depending.lines().filter(|line| !text.lines().any(|other| other == *line)).collect();
        let (from, to) = (format!("{{ address = \"{SOMEBODY}\" }}"), format!("[\"{ADDRESS}\"]"));
        assert_eq!(changed, [format!("from = {from}"), format!("to = {to}")]);
    }
}
