//! `GET /v1/flows`: what has ended, as it ends. An extension to RootlessKit's API.
//!
//! The answer does not end by itself. Each line is a JSON object, a [`FlowEvent`].

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Media type of the answer.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum FlowEvent {
    /// Something has ended, or did not come about.
    Flow(Box<Flow>),
    /// Flows that this follower does not see, because more ended than could be kept for it.
    Missed {
        /// How many.
        count: u64,
    },
    /// The gateway process was replaced. All its connections have ended, and none of them is listed.
    Restarted {
        /// When that was noticed, as [`Flow::time`].
        time: String,
    },
    /// A kind of line that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Where a flow begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FlowDirection {
    /// In the namespace.
    Outbound,
    /// At a client of a published port.
    Published,
}

/// How a flow ended. The client is the side that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FlowEnd {
    /// Both sides closed it.
    Closed,
    /// The client reset it or gave up.
    ClientReset,
    /// The server reset it.
    ServerReset,
    /// Nobody answered, or one side vanished.
    TimedOut,
    /// It was idle for so long that it was removed.
    Idle,
    /// Nobody listened there.
    Refused,
    /// The network said that there is no way.
    Unreachable,
    /// A rule denied it.
    Denied,
    /// It was evicted, because a limit was reached.
    Evicted,
    /// Its published port was removed.
    Withdrawn,
    /// The gateway could not carry it.
    Failed,
}

/// An address with the port, if the protocol has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowAddress {
    /// The address.
    pub ip: IpAddr,
    /// The port; none for `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A connection, UDP flow, ping or denied attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// When it ended: UTC in the form of RFC 3339 with milliseconds, such as `2026-11-30T09:15:07.042Z`.
    pub time: String,
    /// Address of the container, or of the namespace for what is in no container. None if a client was not let in or no
    /// server was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_ip: Option<IpAddr>,
    /// Name of the container. A server does not know it; rootlessctl adds it, if Docker can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Name of the network in which the container has the address, as [`container`](Self::container).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Where it began.
    pub direction: FlowDirection,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Who began it. Outbound, this is what the gateway sees: Docker gives all containers the namespace's address.
    pub client: FlowAddress,
    /// Where it led: the destination as the namespace sees it, or the published port.
    pub destination: FlowAddress,
    /// The name that the destination's address was looked up by most recently, when the flow began. Printable ASCII: other
    /// bytes are `\DDD`, as in the text form of DNS (RFC 1035, section 5.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Payload bytes out of the namespace.
    pub bytes_out: u64,
    /// Payload bytes into the namespace.
    pub bytes_in: u64,
    /// From its beginning to its end, in milliseconds.
    pub duration_ms: u64,
    /// How it ended.
    pub end: FlowEnd,
    /// The rule of the egress policy that denied or ended it; `default` if none matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The rule of an egress policy in dry-run mode that would have denied it when it began; `default` if none matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run_rule: Option<String>,
}

/// Milliseconds since 1970 (UTC, without leap seconds) in the form of RFC 3339, which ends with the year 9999.
pub fn rfc3339(millis: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(millis.min(LAST));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_of_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_078_012_800_001, "2004-02-29T00:00:00.001Z"),
            (1_798_761_599_500, "2026-12-31T23:59:59.500Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(millis), text);
        }
    }

    #[test]
    fn lines_are_as_documented() {
        let ip = "10.0.2.100".parse().unwrap();
        let flow = Flow {
            time: rfc3339(0),
            container_ip: Some("172.17.0.2".parse().unwrap()),
            container: None,
            network: None,
            direction: FlowDirection::Outbound,
            protocol: "icmp".to_owned(),
            client: FlowAddress { ip, port: None },
            destination: FlowAddress { ip: "192.0.2.1".parse().unwrap(), port: Some(7) },
            name: None,
            bytes_out: 1,
            bytes_in: u64::MAX,
            duration_ms: 2,
            end: FlowEnd::ClientReset,
            rule: None,
            dry_run_rule: None,
        };
        let text = r#"{"event":"flow","time":"1970-01-01T00:00:00.000Z","containerIp":"172.17.0.2","direction":"outbound","protocol":"icmp","client":{"ip":"10.0.2.100"},"destination":{"ip":"192.0.2.1","port":7},"bytesOut":1,"bytesIn":18446744073709551615,"durationMs":2,"end":"clientReset"}"#;
        let event = FlowEvent::Flow(Box::new(flow));
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        assert_eq!(serde_json::from_str::<FlowEvent>(text).unwrap(), event);
        for (text, event) in [
            (r#"{"event":"missed","count":3}"#, FlowEvent::Missed { count: 3 }),
            (r#"{"event":"other","x":1}"#, FlowEvent::Unknown),
        ] {
            assert_eq!(serde_json::from_str::<FlowEvent>(text).unwrap(), event);
        }
    }
}
