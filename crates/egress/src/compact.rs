//! Policies in a form whose length hardly depends on how many containers rules are for.
//!
//! A rule that names containers has the addresses of all of them, so 1,000 rules for 1,000 containers have a million. Here it
//! has a bit for each address that Docker lists instead. For `#[serde(with = "egress::compact")]`.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::policy::{Policies, Policy, Rule, Senders};

/// The short form.
#[derive(Debug, Serialize, Deserialize)]
pub struct Compact {
    /// The policies, whose rules have only addresses that no bit stands for.
    policies: Policies,
    /// Of each rule of each policy, the bits in hexadecimal: the first digit is for the four lowest addresses that Docker
    /// lists, of these the lowest bit for the lowest. Without a bit, nothing.
    bits: Vec<Vec<String>>,
}

/// Serializes policies in the short form.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(policies: &Policies, serializer: S) -> Result<S::Ok, S::Error> {
    Compact::of(policies).serialize(serializer)
}

/// Reads the short form.
///
/// # Errors
/// Those of the deserializer, and bits that are not those of the policies.
pub fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<Policies>,
{
    let compact = Compact::deserialize(deserializer)?;
    let policies = compact.expand().ok_or_else(|| D::Error::custom("wrong bits of a policy"))?;
    Ok(policies.into())
}

impl Compact {
    /// The short form of policies.
    pub fn of(policies: &Policies) -> Self {
        let known = &policies.known;
        let places: HashMap<IpAddr, usize> = known.keys().copied().zip(0..).collect();
        let mut bits = Vec::new();
        let shortened = |policy: &Policy| {
            let (rules, of_rules) = policy.rules.iter().map(|rule| shorten(rule, &places)).unzip();
            bits.push(of_rules);
            Policy { file: policy.file.clone(), rules, ..*policy }
        };
        let shortened = policies.policies.iter().map(shortened).collect();
        Self { policies: Policies { policies: shortened, known: known.clone(), ..*policies }, bits }
    }

    /// The policies. `None` if the bits are others'.
    fn expand(self) -> Option<Policies> {
        let Self { mut policies, bits } = self;
        let known: Vec<IpAddr> = policies.known.keys().copied().collect();
        if bits.len() != policies.policies.len() {
            return None;
        }
        for (policy, bits) in policies.policies.iter_mut().zip(bits) {
            if bits.len() != policy.rules.len() {
                return None;
            }
            for (rule, bits) in policy.rules.iter_mut().zip(bits) {
                if !bits.is_empty() {
                    let addresses = &mut rule.from.as_mut()?.addresses;
                    for (place, digit) in bits.chars().enumerate() {
                        let digit = digit.to_digit(16)?;
                        for bit in (0..4).filter(|bit| digit & (1 << bit) != 0) {
                            addresses.push((*known.get(4 * place + bit)?).into());
                        }
                    }
                    *addresses = IpNet::aggregate(addresses);
                }
            }
        }
        Some(policies)
    }
}

/// A rule without the addresses that bits stand for, and these.
fn shorten(rule: &Rule, places: &HashMap<IpAddr, usize>) -> (Rule, String) {
    let mut digits = vec![0_u8; places.len().div_ceil(4)];
    let mut any = false;
    let mut others = |network: &&IpNet| {
        // The addresses that Docker lists are in order, so those of the network are side by side.
        let ends = [network.network(), network.broadcast()].map(|end| places.get(&end).copied());
        let [Some(first), Some(last)] = ends else { return true };
        let host_bits = u32::from(network.max_prefix_len() - network.prefix_len());
        if 1_usize.checked_shl(host_bits) != Some(last - first + 1) {
            return true;
        }
        for place in first..=last {
            digits[place / 4] |= 1 << (place % 4);
        }
        any = true;
        false
    };
    let from = rule.from.as_ref().map(|from| Senders {
        addresses: from.addresses.iter().filter(&mut others).copied().collect(),
        within: from.within.clone(),
        ..*from
    });
    let digits = digits.iter().filter(|_| any);
    let digits = digits.filter_map(|digit| char::from_digit(u32::from(*digit), 16)).collect();
    let Rule { name, action, to, protocols, ports, .. } = rule;
    let (to, protocols, ports) = (to.clone(), protocols.clone(), ports.clone());
    (Rule { name: name.clone(), action: *action, from, to, protocols, ports }, digits)
}
