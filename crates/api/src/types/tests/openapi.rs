//! What `openapi.yaml` says about the types.

use serde_json::Value;

use super::super::*;
use super::{info, status};
use crate::flows::{Flow, FlowAddress, FlowDirection, FlowEnd, FlowEvent};
use crate::policy::{
    FileTraffic, GatewayNetwork, PolicyFile, PolicyGateway, PolicyRule, PolicyStatus, PolicyTraffic,
};
use crate::stats::{ContainerCounters, ContainerTraffic, DestinationTraffic, PortTraffic};

/// Every schema of `openapi.yaml` has the keys of the type, in its order, and requires those that are never left out.
#[test]
fn openapi_describes_the_types() {
    let yaml = include_str!("../../../openapi.yaml");
    let document: Ordered = serde_saphyr::from_str(yaml).unwrap();
    let schemas = document.get("components").get("schemas");
    let check = |name: &str, full: &str, zero: &str| {
        let schema = schemas.get(name);
        assert_eq!(schema.get("properties").keys(), ordered(full).keys(), "properties of {name}");
        let required = schema.get("required").strings();
        assert_eq!(required, ordered(zero).keys(), "required in {name}");
        for (key, value) in ordered(full).entries() {
            let property = schema.get("properties").get(key);
            if let Some(reference) = property.find("$ref") {
                assert!(reference.text().starts_with("#/components/schemas/"), "{name}.{key}");
                assert!(matches!(value, Ordered::Map(_)), "{name}.{key}");
            } else {
                assert_eq!(property.get("type").text(), value.kind(), "type of {name}.{key}");
            }
        }
    };
    let status = status();
    check("Info", &to_json(&info()), &to_json(&Info::default()));
    let network = info().network_driver;
    check("NetworkDriverInfo", &to_json(&network), &to_json(&NetworkDriverInfo::default()));
    let port = info().port_driver;
    check("PortDriverInfo", &to_json(&port), &to_json(&PortDriverInfo::default()));
    check("PortSpec", &to_json(&status.spec), &to_json(&PortSpec::default()));
    check("PortStatus", &to_json(&status), &to_json(&PortStatus::default()));
    let error = ErrorMessage { message: "x".into() };
    check("ErrorMessage", &to_json(&error), &to_json(&ErrorMessage::default()));
    let stats = crate::Stats::default();
    check("Traffic", &to_json(&stats.tcp), &to_json(&stats.tcp));
    check("Events", &to_json(&stats.events), &to_json(&stats.events));
    let policy = Some(PolicyTraffic { files: vec![FileTraffic::default()] });
    check("Stats", &to_json(&crate::Stats { policy, ..stats.clone() }), &to_json(&stats));
    let traffic = PolicyTraffic::default();
    check("PolicyTraffic", &to_json(&traffic), &to_json(&traffic));
    let file = FileTraffic::default();
    check("FileTraffic", &to_json(&file), &to_json(&file));
    check("RuleTraffic", &to_json(&file.default), &to_json(&file.default));
    // These have no zero value; nothing of them is ever left out.
    let port = PortTraffic { id: 0, port: String::new(), refused: 0, traffic: stats.tcp };
    check("PortTraffic", &to_json(&port), &to_json(&port));
    let ip = "192.0.2.1".parse().unwrap();
    let destination = DestinationTraffic { proto: "tcp".into(), ip, port: 1, traffic: stats.tcp };
    check("DestinationTraffic", &to_json(&destination), &to_json(&destination));
    let counters = ContainerCounters::default();
    check("ContainerCounters", &to_json(&counters), &to_json(&counters));
    let container = ContainerTraffic { ip, container: None, network: None, counters };
    let (name, network) = (Some(String::new()), Some(String::new()));
    let named = ContainerTraffic { container: name, network, ..container.clone() };
    check("ContainerTraffic", &to_json(&named), &to_json(&container));
    let (bare, full) = (FlowAddress { ip, port: None }, FlowAddress { ip, port: Some(1) });
    check("FlowAddress", &to_json(&full), &to_json(&bare));
    let flow = Flow {
        time: String::new(),
        container_ip: None,
        container: None,
        network: None,
        direction: FlowDirection::Outbound,
        protocol: String::new(),
        client: bare,
        destination: bare,
        name: None,
        bytes_out: 0,
        bytes_in: 0,
        duration_ms: 0,
        end: FlowEnd::Closed,
        rule: None,
        dry_run_rule: None,
    };
    let (text, container_ip) = (Some(String::new()), Some(ip));
    let [name, container, network, rule, dry_run_rule] = [(); 5].map(|()| text.clone());
    let full = Flow { container_ip, container, network, name, rule, dry_run_rule, ..flow.clone() };
    let event = |flow| to_json(&FlowEvent::Flow(Box::new(flow)));
    check("Flow", &event(full), &event(flow));
    let missed = to_json(&FlowEvent::Missed { count: 1 });
    check("MissedFlows", &missed, &missed);
    let restarted = to_json(&FlowEvent::Restarted { time: String::new() });
    check("RestartedGateway", &restarted, &restarted);
    let text = Some(String::new());
    let (status, docker_error) = (PolicyStatus::default(), text.clone());
    let address: IpAddr = [192, 0, 2, 1].into();
    let network = GatewayNetwork { child: address, gateway: address, dns: address, prefix: 24 };
    check("GatewayNetwork", &to_json(&network), &to_json(&network));
    let (networks, loopback_tcp, loopback_udp) = (vec![network], Vec::new(), Vec::new());
    let gateway = PolicyGateway { networks, loopback_tcp, loopback_udp };
    check("PolicyGateway", &to_json(&gateway), &to_json(&gateway));
    let full = PolicyStatus { docker_error, gateway: Some(gateway), ..status.clone() };
    check("PolicyStatus", &to_json(&full), &to_json(&status));
    let (file, error) = (PolicyFile::default(), text.clone());
    check("PolicyFile", &to_json(&PolicyFile { error, ..file.clone() }), &to_json(&file));
    let bare = egress::Rule {
        name: String::new(),
        action: egress::Action::Deny,
        from: None,
        to: Vec::new(),
        protocols: Vec::new(),
        ports: Vec::new(),
    };
    let senders = egress::Senders::default();
    check("PolicySenders", &to_json(&senders), &to_json(&senders));
    let rule = egress::Rule { from: Some(senders), ..bare.clone() };
    let full = PolicyRule { rule, senders: text, matched: 0 };
    let bare = PolicyRule { rule: bare, senders: None, matched: 0 };
    check("PolicyRule", &to_json(&full), &to_json(&bare));
    let name = to_json(&egress::Target::Name(String::new()));
    check("PolicyName", &name, &name);
    let network = to_json(&egress::Target::Network("10.0.0.0/8".parse().unwrap()));
    check("PolicyNetwork", &network, &network);
    let ports = to_json(&egress::PortRange { first: 1, last: 2 });
    check("PolicyPorts", &ports, &ports);
    assert_eq!(schemas.keys().len(), 29);
    let ends = schemas.get("Flow").get("properties").get("end").get("enum").strings();
    assert!(ends.iter().all(|end| serde_json::from_str::<FlowEnd>(&format!("{end:?}")).is_ok()));

    assert_eq!(document.get("info").get("version").text(), crate::API_VERSION);
    let protos = schemas.get("PortSpec").get("properties").get("proto").get("enum").strings();
    assert_eq!(protos, crate::Proto::ALL.map(crate::Proto::as_str));
    let paths = document.get("paths");
    assert_eq!(paths.keys(), ["/info", "/ports", "/ports/{id}", "/stats", "/flows", "/policy"]);
    assert_eq!(paths.get("/ports").keys(), ["get", "post"]);
    assert_eq!(paths.get("/stats").keys(), ["get"]);
    let forms = paths.get("/stats").get("get").get("responses").get("200").get("content");
    assert_eq!(forms.keys(), ["application/json", crate::stats::CONTENT_TYPE]);
    let forms = paths.get("/flows").get("get").get("responses").get("200").get("content");
    assert_eq!(forms.keys(), [crate::flows::CONTENT_TYPE]);
}

fn ordered(json: &str) -> Ordered {
    serde_json::from_str(json).unwrap()
}

/// A document whose maps keep their order, which `serde_json::Value` does not.
#[derive(Debug)]
enum Ordered {
    Map(Vec<(String, Self)>),
    List(Vec<Self>),
    Scalar(Value),
}

impl Ordered {
    fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Map(entries) => entries,
            other => panic!("not a map: {other:?}"),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.entries().iter().map(|(key, _)| key.as_str()).collect()
    }

    fn find(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn get(&self, key: &str) -> &Self {
        self.find(key).unwrap_or_else(|| panic!("no {key} in {:?}", self.keys()))
    }

    fn text(&self) -> &str {
        match self {
            Self::Scalar(Value::String(text)) => text,
            other => panic!("not a string: {other:?}"),
        }
    }

    fn strings(&self) -> Vec<&str> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            other => panic!("not a list: {other:?}"),
        }
    }

    /// Name of the type in OpenAPI.
    fn kind(&self) -> &str {
        match self {
            Self::Map(_) => "object",
            Self::List(_) => "array",
            Self::Scalar(Value::Bool(_)) => "boolean",
            Self::Scalar(Value::Number(_)) => "integer",
            Self::Scalar(_) => "string",
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Ordered;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered::Map(entries))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Ordered, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Ordered::List(items))
            }
            fn visit_str<E>(self, text: &str) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(text.into()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(Value::Null))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
