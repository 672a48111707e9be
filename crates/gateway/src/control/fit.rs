//! Whether statistics and policies are short enough for one message.

use anyhow::ensure;
use api::stats::Stats;
use egress::Policies;
use egress::compact::Compact;
use serde::Serialize;

use super::MAX;

/// Room for what surrounds the statistics in a reply, and for sums that become longer numbers.
const MARGIN: usize = 1 << 10;
/// The longest policies in bytes. Requests to configure a gateway contain more than them.
const MAX_POLICY: usize = MAX - (1 << 20);

/// Addresses of containers in all rules together: each attempt is compared with them, and they are kept at full length.
const MAX_ADDRESSES: usize = 1_000_000;

/// Shortens `stats` until a reply with them is no longer than [`MAX`] bytes. Destinations go first, those with the
/// least traffic before others, and are added to `other_destinations`. Only if none is left and it still is too long
/// (tens of thousands of published ports), the ports with the highest numbers are left out.
pub fn fit(stats: &mut Stats) {
    shorten(stats, MAX - MARGIN);
}

/// Whether policies fit into a request.
///
/// # Errors
/// They do not.
pub(crate) fn check_policy(policies: &Policies) -> anyhow::Result<()> {
    let rules = policies.policies.iter().flat_map(|policy| &policy.rules);
    let addresses: usize = rules.flat_map(|rule| &rule.from).map(|from| from.addresses.len()).sum();
    ensure!(
        addresses <= MAX_ADDRESSES,
        "the egress policy is too large for the gateway: its rules match {addresses} addresses of containers in all, and the limit is {MAX_ADDRESSES}\nhint: in rules, name Docker networks or subnets instead of containers, or start fewer containers"
    );
    let length = length(&Compact::of(policies));
    ensure!(
        length <= MAX_POLICY,
        "the egress policy is too large for the gateway: it has {length} bytes with the addresses of its containers, and the limit is {MAX_POLICY}\nhint: write fewer rules, or start fewer containers"
    );
    Ok(())
}

fn shorten(stats: &mut Stats, most: usize) {
    let mut over = length(stats).saturating_sub(most);
    while over > 0
        && let Some(last) = stats.destinations.pop()
    {
        stats.other_destinations = stats.other_destinations + last.traffic;
        over = over.saturating_sub(length(&last) + 1);
    }
    while over > 0
        && let Some(last) = stats.ports.pop()
    {
        over = over.saturating_sub(length(&last) + 1);
    }
}

/// Length of the JSON text in bytes.
fn length(value: &impl Serialize) -> usize {
    // Plain data has no way to fail.
    serde_json::to_vec(value).map_or(0, |text| text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::stats::{DestinationTraffic, PortTraffic, Traffic};
    use std::net::Ipv4Addr;

    fn traffic(n: u64) -> Traffic {
        Traffic { active: 1, opened: 2, failed: 3, bytes_out: n, bytes_in: 2 * n }
    }

    fn stats(ports: u64, destinations: u64) -> Stats {
        let port = |id| PortTraffic {
            id: i64::try_from(id).unwrap(),
            port: format!("0.0.0.0:{id}->10.0.2.100:{id}/tcp"),
            refused: 0,
            traffic: traffic(id),
        };
        let destination = |n| DestinationTraffic {
            proto: "udp".into(),
            ip: Ipv4Addr::new(192, 0, 2, 1).into(),
            port: 53,
            traffic: traffic(destinations - n),
        };
        Stats {
            ports: (1..=ports).map(port).collect(),
            destinations: (0..destinations).map(destination).collect(),
            ..Stats::default()
        }
    }

    #[test]
    fn policies_that_are_too_large_are_refused() {
        let policies = |length| {
            let file = "a".repeat(length);
            let policies = vec![egress::Policy { file, ..egress::Policy::default() }];
            Policies { policies, ..Policies::default() }
        };
        check_policy(&policies(MAX_POLICY - 1000)).unwrap();
        let error = check_policy(&policies(MAX_POLICY)).unwrap_err().to_string();
        assert!(error.contains("the limit is 15728640") && error.contains("hint: "), "{error}");
        // A list of 1,001 addresses takes little on the way, and much where attempts are judged.
        check_policy(&for_containers(1, 1000, 1, &[])).unwrap();
        let error = check_policy(&for_containers(1, 1001, 1, &[])).unwrap_err().to_string();
        assert!(error.contains("1001000 addresses") && error.contains("hint: "), "{error}");
    }

    /// Policies with 1,000 rules each, every one for some of the containers with so many addresses.
    fn for_containers(
        files: usize,
        addresses: u32,
        some: usize,
        to: &[egress::Target],
    ) -> Policies {
        let first =
            u128::from_be_bytes(*b"\xfd\x8e\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\0\0\0\0");
        let address = |n: u32| std::net::Ipv6Addr::from_bits(first + u128::from(n));
        let all: Vec<std::net::IpAddr> = (0..addresses).map(|n| address(n).into()).collect();
        let from = egress::Senders {
            addresses: all.iter().step_by(some).map(|address| (*address).into()).collect(),
            named: true,
            ..egress::Senders::default()
        };
        let rule = |n| egress::Rule {
            name: format!("{n:->64}"),
            action: egress::Action::Allow,
            from: Some(from.clone()),
            to: to.to_vec(),
            protocols: Vec::new(),
            ports: Vec::new(),
        };
        let policy = egress::Policy { rules: (0..1000).map(rule).collect(), ..Default::default() };
        let known = all.into_iter().map(|address| (address, address)).collect();
        Policies { policies: vec![policy; files], known, ..Policies::default() }
    }

    #[test]
    fn rules_for_half_of_the_containers_each_take_a_bit_for_each() {
        let policies = for_containers(1, 1000, 2, &[]);
        assert!(length(&policies) > MAX_POLICY);
        assert!(length(&Compact::of(&policies)) < 1 << 20);
        check_policy(&policies).unwrap();
    }

    /// The limits of a file: 1,000 rules, 10,000 entries, and 1 MiB.
    #[test]
    fn two_files_at_their_limits_fit_for_5000_containers_of_two_addresses() {
        let name = egress::Target::Name("a".repeat(100));
        check_policy(&for_containers(2, 10_000, 500, &vec![name; 10])).unwrap();
    }

    #[test]
    fn what_fits_stays() {
        let before = stats(100, 100);
        let mut after = before.clone();
        fit(&mut after);
        assert_eq!(after, before);
    }

    #[test]
    fn destinations_go_before_ports_and_stay_in_the_sum() {
        let before = stats(100, 100);
        let bytes = |s: &Stats| {
            s.destinations.iter().map(|d| d.traffic.bytes_out).sum::<u64>()
                + s.other_destinations.bytes_out
        };
        let most = length(&before) - 3000;
        let mut after = before.clone();
        shorten(&mut after, most);
        assert!(length(&after) <= most + 100 && length(&after) > most - 300);
        assert!((1..100).contains(&after.destinations.len()));
        assert_eq!((after.ports.len(), bytes(&after)), (100, bytes(&before)));
        assert_eq!(after.destinations[..], before.destinations[..after.destinations.len()]);
        assert_eq!(after.other_destinations.failed, 3 * (100 - after.destinations.len() as u64));
        shorten(&mut after, 5000);
        assert!(after.destinations.is_empty());
        assert!((1..100).contains(&after.ports.len()) && length(&after) <= 5000);
        shorten(&mut after, 0);
        assert!(after.ports.is_empty());
    }
}
