//! `GET /v1/policy`: the egress policy in force. An extension to RootlessKit's API.
//!
//! Rules are those of the crate `egress`, with addresses instead of containers, so that a client can judge attempts the way
//! the gateway does ([`PolicyStatus::policies`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress::{Action, Mode, Policies, Policy, PortRange, Rule};
use serde::{Deserialize, Serialize};

/// Answer to `GET /v1/policy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// The files, in the order in which they judge. An attempt has to be allowed by each.
    pub files: Vec<PolicyFile>,
    /// Addresses of the containers that Docker lists.
    pub known: BTreeSet<IpAddr>,
    /// Why Docker does not answer, although a file names containers. Its last list counts, so rules that name containers allow
    /// nothing to containers that are not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_error: Option<String>,
    /// What the gateway decides before any file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<PolicyGateway>,
}

/// What the gateway decides before any file is asked: which addresses are its own, and which ports of the host's loopback are
/// open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyGateway {
    /// Its networks, at most one of each family.
    pub networks: Vec<GatewayNetwork>,
    /// TCP ports of the host's loopback that are open at the gateway's address.
    pub loopback_tcp: Vec<PortRange>,
    /// The same of UDP.
    pub loopback_udp: Vec<PortRange>,
}

/// The addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayNetwork {
    /// The address of the namespace.
    pub child: IpAddr,
    /// The gateway, which stands for the host's loopback.
    pub gateway: IpAddr,
    /// The name server.
    pub dns: IpAddr,
    /// Length of the prefix that they share, in bits.
    pub prefix: u8,
}

/// A file and what it wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyFile {
    /// Its path.
    pub file: String,
    /// Why the file as it is now, with the containers that there are now, is not in force: the file is wrong, or the gateway
    /// has not accepted it. What was in force before is, and the other fields describe that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it is enforced: `enforce` or `dry-run`.
    pub mode: Mode,
    /// What becomes of what no rule matches: `allow` or `deny`.
    pub default: Action,
    /// In the order in which they are tried.
    pub rules: Vec<PolicyRule>,
    /// How often no rule matched, so that the default decided.
    pub default_matched: u64,
}

/// A rule and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// The rule, with addresses.
    #[serde(flatten)]
    pub rule: Rule,
    /// The senders, as the file names them. None is any sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub senders: Option<String>,
    /// How often it decided, in dry-run mode, too.
    #[serde(default)]
    pub matched: u64,
}

impl PolicyStatus {
    /// The policies, to judge attempts with.
    pub fn policies(&self) -> Policies {
        let policy = |file: &PolicyFile| Policy {
            file: file.file.clone(),
            mode: file.mode,
            default: file.default,
            rules: file.rules.iter().map(|rule| rule.rule.clone()).collect(),
        };
        let known = self.known.iter().map(|address| (*address, *address)).collect();
        let policies = self.files.iter().map(policy).collect();
        Policies { policies, known, ..Policies::default() }
    }
}

/// What the rules did; in [`Stats`](crate::Stats).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTraffic {
    /// The files, in the order in which they judge.
    pub files: Vec<FileTraffic>,
}

/// What the rules of one file did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileTraffic {
    /// Its path.
    pub file: String,
    /// Whether it is enforced. In dry-run mode, rules count what they would deny.
    pub mode: Mode,
    /// In the order in which they are tried.
    pub rules: Vec<RuleTraffic>,
    /// What no rule matched. Its name is `default`.
    pub default: RuleTraffic,
}

/// How often a rule, or a default, decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleTraffic {
    /// What people call it.
    pub name: String,
    /// What it does to attempts: `allow` or `deny`.
    pub action: Action,
    /// Attempts that it decided.
    pub matched: u64,
}

#[cfg(test)]
mod tests {
    use egress::{PortRange, Protocol, Senders, Target};

    use super::*;

    #[test]
    fn the_answer_is_as_documented_and_gives_the_policies_back() {
        let rule = Rule {
            name: "registry".to_owned(),
            action: Action::Allow,
            from: Some(Senders {
                addresses: vec!["172.17.0.2/32".parse().unwrap()],
                namespace: false,
                named: true,
                within: Vec::new(),
            }),
            to: vec![
                Target::Network("10.0.0.0/8".parse().unwrap()),
                Target::Name("*.example.org".to_owned()),
            ],
            protocols: vec![Protocol::Tcp],
            ports: vec![PortRange { first: 443, last: 444 }],
        };
        let known = BTreeSet::from(["172.17.0.2".parse().unwrap()]);
        let written = "[[rule]]\nname = \"x\"\naction = \"deny\"\nfrom = { container = \"web\" }\n";
        let senders = egress::File::parse(written).unwrap().senders().remove(0);
        let file = "/e.toml".to_owned();
        let status = PolicyStatus {
            files: vec![PolicyFile {
                file: file.clone(),
                error: Some("line 3: no".to_owned()),
                mode: Mode::DryRun,
                default: Action::Deny,
                rules: vec![PolicyRule { rule: rule.clone(), senders, matched: 7 }],
                default_matched: 8,
            }],
            known: known.clone(),
            docker_error: None,
            gateway: Some(PolicyGateway {
                networks: vec![GatewayNetwork {
                    child: "10.0.2.100".parse().unwrap(),
                    gateway: "10.0.2.2".parse().unwrap(),
                    dns: "10.0.2.3".parse().unwrap(),
                    prefix: 24,
                }],
                loopback_tcp: vec![PortRange { first: 22, last: 22 }],
                loopback_udp: Vec::new(),
            }),
        };
        let text = r#"{"files":[{"file":"/e.toml","error":"line 3: no","mode":"dry-run","default":"deny","rules":[{"name":"registry","action":"allow","from":{"addresses":["172.17.0.2/32"],"namespace":false,"named":true,"within":[]},"to":[{"network":"10.0.0.0/8"},{"name":"*.example.org"}],"protocols":["tcp"],"ports":[{"first":443,"last":444}],"senders":"container web","matched":7}],"defaultMatched":8}],"known":["172.17.0.2"],"gateway":{"networks":[{"child":"10.0.2.100","gateway":"10.0.2.2","dns":"10.0.2.3","prefix":24}],"loopbackTcp":[{"first":22,"last":22}],"loopbackUdp":[]}}"#;
        assert_eq!(serde_json::to_string(&status).unwrap(), text);
        assert_eq!(serde_json::from_str::<PolicyStatus>(text).unwrap(), status);
        let policy = Policy { file, mode: Mode::DryRun, default: Action::Deny, rules: vec![rule] };
        assert_eq!(
            status.policies(),
            Policies {
                policies: vec![policy],
                known: known.iter().map(|ip| (*ip, *ip)).collect(),
                ..Policies::default()
            }
        );
    }
}
