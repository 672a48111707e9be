//! Statistics as OpenMetrics 1.0 text, the form that Prometheus and its kin read.
//!
//! Source: the OpenMetrics specification 1.0, sections "Text format" and "Metric types". What it asks for and what shows
//! here: the samples of a family stand together behind its `TYPE`, `UNIT` and `HELP`; the name of a family ends with its
//! unit; a counter's samples end in `_total`, those of facts in `_info`; `# EOF` is the last line.

use super::{
    ContainerCounters, ContainerEvents, ContainerTraffic, DestinationTraffic, PortTraffic, Stats,
    Traffic,
};
use crate::policy::FileTraffic;

/// Value of the header `Content-Type` for [`openmetrics()`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Encodes the statistics. Ports have the labels `id` and `name`, destinations `proto`, `ip` and `port`, containers `ip`,
/// and `container` and `network` where these names are known, rules of the
/// egress policy `file`, `rule` and `action`.
pub fn openmetrics(stats: &Stats) -> String {
    let mut text = Text(String::new());
    network(stats, &mut text);
    let outbound =
        [(labels(&[("proto", "tcp")]), stats.tcp), (labels(&[("proto", "udp")]), stats.udp)];
    traffic("outbound", "Outbound traffic", &outbound, &mut text);
    let ports: Vec<_> = stats.ports.iter().map(of_port).collect();
    traffic("port", "Published port", &ports, &mut text);
    let refused = "Published port: connections and datagrams of clients that are not allowed.";
    let samples: Vec<_> = stats.ports.iter().map(|port| (of_port(port).0, port.refused)).collect();
    text.family("port_refused", Kind::Counter, "", refused, &samples);
    let destinations: Vec<_> = stats.destinations.iter().map(of_destination).collect();
    traffic("destination", "Busy destination", &destinations, &mut text);
    let others = [(String::new(), stats.other_destinations)];
    traffic("other_destinations", "All other destinations", &others, &mut text);
    containers(stats, &mut text);
    events(stats, &mut text);
    policy(stats, &mut text);
    text.0.push_str("# EOF\n");
    text.0
}

fn network(stats: &Stats, text: &mut Text) {
    let driver = labels(&[("driver", &stats.driver)]);
    text.family(
        "network",
        Kind::Info,
        "",
        "The network driver that keeps the counters.",
        &[(driver, 1)],
    );
    let uptime = "Time since the counters started.";
    text.family("uptime_seconds", Kind::Gauge, "seconds", uptime, &one(stats.uptime_seconds));
    let restarts = "Number of times the gateway process was replaced.";
    text.family("restarts", Kind::Counter, "", restarts, &one(stats.restarts));
}

/// The five families of a kind of traffic; each row is one time series in all of them.
fn traffic(prefix: &str, of: &str, rows: &[(String, Traffic)], text: &mut Text) {
    type Get = fn(&Traffic) -> u64;
    let families: [(&str, Kind, &str, &str, Get); 5] = [
        ("active", Kind::Gauge, "", "connections or flows that are open", |t| t.active),
        ("opened", Kind::Counter, "", "connections or flows opened so far", |t| t.opened),
        ("failed", Kind::Counter, "", "failed attempts", |t| t.failed),
        ("out_bytes", Kind::Counter, "bytes", "payload sent from the namespace", |t| t.bytes_out),
        ("in_bytes", Kind::Counter, "bytes", "payload sent to the namespace", |t| t.bytes_in),
    ];
    for (name, kind, unit, help, get) in families {
        let samples: Vec<_> = rows.iter().map(|(labels, row)| (labels.clone(), get(row))).collect();
        text.family(&format!("{prefix}_{name}"), kind, unit, &format!("{of}: {help}."), &samples);
    }
}

fn of_port(port: &PortTraffic) -> (String, Traffic) {
    (labels(&[("id", &port.id.to_string()), ("name", &port.port)]), port.traffic)
}

fn of_destination(destination: &DestinationTraffic) -> (String, Traffic) {
    let DestinationTraffic { proto, ip, port, traffic } = destination;
    let labels = labels(&[("proto", proto), ("ip", &ip.to_string()), ("port", &port.to_string())]);
    (labels, *traffic)
}

fn containers(stats: &Stats, text: &mut Text) {
    let rows: Vec<_> = stats.containers.iter().map(of_container).collect();
    counters("container", "Container", &rows, text);
    counters("other_containers", "All other containers", &[(vec![], stats.other_containers)], text);
}

/// What is counted for a container, and the names and values of its labels.
type Counted = (Vec<(&'static str, String)>, ContainerCounters);

fn of_container(container: &ContainerTraffic) -> Counted {
    let names = [("container", &container.container), ("network", &container.network)];
    let names = names.into_iter().filter_map(|(label, name)| Some((label, name.clone()?)));
    let labels = std::iter::once(("ip", container.ip.to_string())).chain(names);
    (labels.collect(), container.counters)
}

/// The families of what is counted for containers.
fn counters(prefix: &str, of: &str, rows: &[Counted], text: &mut Text) {
    let by_proto = |get: fn(&ContainerCounters) -> [Traffic; 2]| -> Vec<(String, Traffic)> {
        let both = |(pairs, counters): &Counted| {
            let with = |proto: &str| labels(&[&pairs[..], &[("proto", proto.to_owned())]].concat());
            let [tcp, udp] = get(counters);
            [(with("tcp"), tcp), (with("udp"), udp)]
        };
        rows.iter().flat_map(both).collect()
    };
    traffic(prefix, &format!("{of}, outbound"), &by_proto(|of| [of.tcp, of.udp]), text);
    let published = by_proto(|of| [of.published_tcp, of.published_udp]);
    let (name, help) = (format!("{prefix}_published"), format!("{of}, published ports"));
    traffic(&name, &help, &published, text);
    type Get = fn(&ContainerEvents) -> u64;
    let families: [(&str, &str, Get); 3] = [
        ("dns_queries", "DNS queries over UDP", |events| events.dns_queries),
        ("echo_requests", "echo requests", |events| events.echo_requests),
        ("denied_attempts", "attempts that a rule denied", |events| events.denied),
    ];
    for (name, help, get) in families {
        let samples: Vec<_> = rows
            .iter()
            .map(|(pairs, counters)| {
                let labels = if pairs.is_empty() { String::new() } else { labels(pairs) };
                (labels, get(&counters.events))
            })
            .collect();
        let (name, help) = (format!("{prefix}_{name}"), format!("{of}: {help}."));
        text.family(&name, Kind::Counter, "", &help, &samples);
    }
}

fn events(stats: &Stats, text: &mut Text) {
    let events = &stats.events;
    let dialing = "Outbound connections that are waiting for their destination.";
    text.family("dialing", Kind::Gauge, "", dialing, &one(events.dialing));
    for (name, help, value) in [
        ("dns_queries", "DNS queries over UDP that were received.", events.dns_queries),
        ("dns_failed", "DNS queries that no name server answered.", events.dns_failed),
        ("echo_requests", "Echo requests that were received.", events.echo_requests),
        ("denied_attempts", "Attempts that a rule denied.", events.denied),
        (
            "evicted_flows",
            "Flows, pings, DNS queries and pending connections that were dropped because a limit was reached.",
            events.evicted,
        ),
        (
            "dropped_packets",
            "Packets that were malformed or unsupported, or that could not wait until their container is known.",
            events.dropped,
        ),
        (
            "unattributed",
            "Connections, flows, pings, queries and denied attempts whose container could not be looked up.",
            events.unattributed,
        ),
    ] {
        text.family(name, Kind::Counter, "", help, &one(value));
    }
}

/// How often the rules of the egress policy decided. Without a policy the family is left out.
fn policy(stats: &Stats, text: &mut Text) {
    let Some(policy) = &stats.policy else { return };
    let mut samples = Vec::new();
    for FileTraffic { file, rules, default, .. } in &policy.files {
        for rule in rules.iter().chain([default]) {
            let action = rule.action.word();
            let pairs = [("file", file.as_str()), ("rule", rule.name.as_str()), ("action", action)];
            samples.push((labels(&pairs), rule.matched));
        }
    }
    let help =
        "Egress policy: attempts that the rule decided; with mode dry-run, none was refused.";
    text.family("policy_matched", Kind::Counter, "", help, &samples);
}

/// A single sample without labels.
fn one(value: u64) -> [(String, u64); 1] {
    [(String::new(), value)]
}

/// `{name="value",…}` with backslash, quote and line feed escaped.
fn labels(pairs: &[(&str, impl AsRef<str>)]) -> String {
    let escape = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value.as_ref())))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// Type of a family: its name in the text, and what its samples add to the name of the family.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Info,
}

impl Kind {
    fn name_and_suffix(self) -> (&'static str, &'static str) {
        match self {
            Self::Counter => ("counter", "_total"),
            Self::Gauge => ("gauge", ""),
            Self::Info => ("info", "_info"),
        }
    }
}

struct Text(String);

impl Text {
    /// Appends a family. `unit` may be empty; otherwise `name` ends with it.
    fn family(
        &mut self,
        name: &str,
        kind: Kind,
        unit: &str,
        help: &str,
        samples: &[(String, u64)],
    ) {
        let name = format!("rootlesskit_{name}");
        let (kind, suffix) = kind.name_and_suffix();
        self.0.push_str(&format!("# TYPE {name} {kind}\n"));
        if !unit.is_empty() {
            self.0.push_str(&format!("# UNIT {name} {unit}\n"));
        }
        self.0.push_str(&format!("# HELP {name} {help}\n"));
        for (labels, value) in samples {
            self.0.push_str(&format!("{name}{suffix}{labels} {value}\n"));
        }
    }
}
