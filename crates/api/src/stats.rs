//! `GET /v1/stats`: what a network driver that counts has seen. An extension to RootlessKit's API.
//!
//! Counters only grow while the network lives (they start anew with a gateway process that was replaced; `restarts`
//! says how often). Bytes are payload: of TCP streams, of UDP datagrams. A number that is missing in JSON is zero, so that
//! clients and servers of different age understand each other.
//!
//! [`openmetrics()`] gives the same as text for monitoring systems.

mod openmetrics;

use std::net::IpAddr;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::policy::PolicyTraffic;

pub use openmetrics::{CONTENT_TYPE, openmetrics};

/// What moved over connections or flows of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// Connections or flows that are open now.
    pub active: u64,
    /// Connections or flows so far, the active ones included.
    pub opened: u64,
    /// Attempts that were refused, timed out or found nobody.
    pub failed: u64,
    /// Payload bytes out of the namespace.
    pub bytes_out: u64,
    /// Payload bytes into the namespace.
    pub bytes_in: u64,
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            active: self.active.saturating_add(other.active),
            opened: self.opened.saturating_add(other.opened),
            failed: self.failed.saturating_add(other.failed),
            bytes_out: self.bytes_out.saturating_add(other.bytes_out),
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
        }
    }
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortTraffic {
    /// Number of the port, as in `GET /v1/ports`.
    pub id: i64,
    /// The port in the form of `--publish`.
    pub port: String,
    /// Connections and datagrams of clients that `allowFrom` does not name.
    #[serde(default)]
    pub refused: u64,
    /// Its traffic; here the connections come from outside.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// One destination outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationTraffic {
    /// `tcp` or `udp`.
    pub proto: String,
    /// Address of the destination as the namespace sees it.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// What is counted for a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerCounters {
    /// TCP connections that it has opened to the outside.
    pub tcp: Traffic,
    /// UDP flows that it has begun to the outside.
    pub udp: Traffic,
    /// TCP connections to published ports that it answers.
    pub published_tcp: Traffic,
    /// UDP flows to published ports that it answers.
    pub published_udp: Traffic,
    /// What else is counted.
    #[serde(flatten)]
    pub events: ContainerEvents,
}

impl ContainerCounters {
    /// All traffic.
    pub fn total(&self) -> Traffic {
        self.tcp + self.udp + self.published_tcp + self.published_udp
    }
}

impl Add for ContainerCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tcp: self.tcp + other.tcp,
            udp: self.udp + other.udp,
            published_tcp: self.published_tcp + other.published_tcp,
            published_udp: self.published_udp + other.published_udp,
            events: self.events + other.events,
        }
    }
}

/// What one container did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerTraffic {
    /// Its own address, or the namespace's for what is in no container.
    pub ip: IpAddr,
    /// Its name. A server does not know it; rootlessctl adds it, if Docker can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The name of the network in which it has the address, as [`container`](Self::container).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What is counted for it.
    #[serde(flatten)]
    pub counters: ContainerCounters,
}

/// Events of one container that belong to no single connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerEvents {
    /// DNS queries over UDP.
    pub dns_queries: u64,
    /// Echo requests.
    pub echo_requests: u64,
    /// Attempts that were refused by rule.
    pub denied: u64,
}

impl Add for ContainerEvents {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            dns_queries: self.dns_queries.saturating_add(other.dns_queries),
            echo_requests: self.echo_requests.saturating_add(other.echo_requests),
            denied: self.denied.saturating_add(other.denied),
        }
    }
}

/// Events that belong to no single connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Events {
    /// Connections out that are waiting for their destination now.
    pub dialing: u64,
    /// DNS queries over UDP that were received, including those that were ignored because of a limit.
    pub dns_queries: u64,
    /// DNS queries that no name server answered.
    pub dns_failed: u64,
    /// Echo requests that were received, including those that were ignored because of a limit.
    pub echo_requests: u64,
    /// Attempts that were refused by rule: the host's loopback, addresses that mean nothing outside.
    pub denied: u64,
    /// Flows, pings, DNS queries and pending connections that were given up, or not begun, because a limit was reached.
    pub evicted: u64,
    /// Packets that were malformed or unsupported, or that could not wait until their container is known.
    pub dropped: u64,
    /// Connections, flows, pings, queries and denied attempts whose container could not be looked up.
    pub unattributed: u64,
}

/// Answer to `GET /v1/stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Network driver that counted.
    pub driver: String,
    /// Seconds since the counters started.
    pub uptime_seconds: u64,
    /// How often the gateway process was replaced.
    pub restarts: u64,
    /// All TCP connections to the outside.
    pub tcp: Traffic,
    /// All UDP flows to the outside.
    pub udp: Traffic,
    /// Everything else that is counted.
    pub events: Events,
    /// Published ports, by number.
    pub ports: Vec<PortTraffic>,
    /// Destinations, the most bytes first. Only the busiest are kept; `other_destinations` sums up the rest.
    pub destinations: Vec<DestinationTraffic>,
    /// What went to destinations that are not kept any more.
    pub other_destinations: Traffic,
    /// Containers, the most bytes first. Only the busiest are kept; `other_containers` sums up the rest.
    pub containers: Vec<ContainerTraffic>,
    /// What containers did that are not kept.
    pub other_containers: ContainerCounters,
    /// What the rules of the egress policy did, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyTraffic>,
}

#[cfg(test)]
mod tests;
