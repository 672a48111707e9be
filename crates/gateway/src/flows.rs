//! The flow log as the API shows it.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::flows::{Flow, FlowAddress, FlowDirection, FlowEnd, rfc3339};
use relay::flow_log::{self, FlowRecord, FlowStart, Transport};

/// Records as the API shows them.
pub(crate) fn describe(records: &[FlowRecord]) -> Vec<Flow> {
    let (now, clock) = (Instant::now(), SystemTime::now());
    let clock = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
    records.iter().map(|record| flow(record, now, clock)).collect()
}

/// `clock` is the time since 1970 at the moment `now`.
fn flow(record: &FlowRecord, now: Instant, clock: Duration) -> Flow {
    let FlowRecord { start, container, up, down, ended, end, rule } = record;
    let FlowStart { transport, published, client, destination, name, dry_run_rule, began } = start;
    let ago = now.saturating_duration_since(*ended);
    let (bytes_out, bytes_in) = if *published { (*down, *up) } else { (*up, *down) };
    let address = |of: &SocketAddr| FlowAddress {
        ip: of.ip(),
        port: (*transport != Transport::Icmp).then_some(of.port()),
    };
    Flow {
        time: rfc3339(millis(clock.saturating_sub(ago))),
        container_ip: *container,
        container: None,
        network: None,
        direction: if *published { FlowDirection::Published } else { FlowDirection::Outbound },
        protocol: match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Icmp => "icmp",
        }
        .to_owned(),
        client: address(client),
        destination: address(destination),
        name: name.as_deref().map(str::to_owned),
        bytes_out,
        bytes_in,
        duration_ms: millis(ended.saturating_duration_since(*began)),
        end: match end {
            flow_log::FlowEnd::Closed => FlowEnd::Closed,
            flow_log::FlowEnd::ClientReset => FlowEnd::ClientReset,
            flow_log::FlowEnd::ServerReset => FlowEnd::ServerReset,
            flow_log::FlowEnd::TimedOut => FlowEnd::TimedOut,
            flow_log::FlowEnd::Idle => FlowEnd::Idle,
            flow_log::FlowEnd::Refused => FlowEnd::Refused,
            flow_log::FlowEnd::Unreachable => FlowEnd::Unreachable,
            flow_log::FlowEnd::Denied => FlowEnd::Denied,
            flow_log::FlowEnd::Evicted => FlowEnd::Evicted,
            flow_log::FlowEnd::Withdrawn => FlowEnd::Withdrawn,
            flow_log::FlowEnd::Failed => FlowEnd::Failed,
        },
        rule: rule.as_deref().map(str::to_owned),
        dry_run_rule: dry_run_rule.as_deref().map(str::to_owned),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_published_port_come_in_from_its_client() {
        let began = Instant::now();
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let record = |transport, published| FlowRecord {
            start: FlowStart {
                transport,
                published,
                client: end("192.0.2.7:5"),
                destination: end("[2001:db8::1]:80"),
                name: Some("a.example".into()),
                dry_run_rule: Some("another".into()),
                began,
            },
            container: Some("172.17.0.2".parse().unwrap()),
            up: 1,
            down: 2,
            ended: began + Duration::from_millis(1500),
            end: flow_log::FlowEnd::Idle,
            rule: Some("a rule".into()),
        };
        let (now, clock) = (began + Duration::from_secs(2), Duration::from_secs(86_400));
        let out = flow(&record(Transport::Udp, false), now, clock);
        assert_eq!((out.bytes_out, out.bytes_in, out.direction), (1, 2, FlowDirection::Outbound));
        assert_eq!((&*out.time, out.duration_ms), ("1970-01-01T23:59:59.500Z", 1500));
        assert_eq!((out.client.port, out.destination.port), (Some(5), Some(80)));
        assert_eq!((out.name.as_deref(), out.end), (Some("a.example"), FlowEnd::Idle));
        let rules = (out.rule.as_deref(), out.dry_run_rule.as_deref());
        assert_eq!(rules, (Some("a rule"), Some("another")));
        let published = flow(&record(Transport::Icmp, true), now, clock);
        assert_eq!((published.bytes_out, published.bytes_in), (2, 1));
        assert_eq!(published.direction, FlowDirection::Published);
        assert_eq!((published.client.port, published.destination.port), (None, None));
    }
}
