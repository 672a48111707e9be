//! Limits and times of an engine.

use std::sync::Arc;
use std::time::Duration;

use budget::{Budget, DataPath, Shares};
use ipnet::IpNet;

use crate::flow_log::FlowLog;
use crate::overlay::Writer;

/// How long a UDP flow may be silent in both directions, unless [`Options::udp_flow_idle_timeout`] says otherwise.
pub const UDP_FLOW_IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Whether backends see the address of TCP clients that are not on the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transparent {
    /// Backends see an address of their own namespace.
    Off,
    /// Backend sockets are bound to the client's address (`IP_TRANSPARENT`, ip(7)) and carry this
    /// `SO_MARK`; a connection for which that fails is made the ordinary way.
    Mark(u32),
    /// As `Mark`, once the factory has armed the namespace: it is asked when the first such client comes,
    /// who waits for the answer.
    OnDemand(u32),
}

/// Limits and times of an [`Engine`]; the defaults are those of RootlessKit where it has any.
#[derive(Clone, Debug)]
pub struct Options {
    /// Source addresses of TCP clients.
    pub transparent: Transparent,
    /// What the engine may do with descriptors.
    pub shares: Shares,
    /// How long a UDP flow may be silent in both directions.
    pub udp_flow_idle_timeout: Duration,
    /// How long an ordinary connect may take.
    pub connect_timeout: Duration,
    /// How long a source-preserving connect may take before it is made the ordinary way.
    pub transparent_timeout: Duration,
    /// The most threads that move bytes: one serves every port, the others take over bulk streams as soon as
    /// there are several. Never more than processors.
    pub threads: usize,
    /// Networks whose addresses mean something else in the namespace: clients with such an address are not kept.
    pub occupied: Vec<IpNet>,
    /// The namespace brings answers back by `tproxy`, which sees transparent sockets only (`IP_TRANSPARENT`, ip(7)): all
    /// backends are, and UDP clients keep their address as well.
    pub tproxy: bool,
    /// The most UDP flows of one port; beyond that flows make room in the order of [`crate::order`]. Four times as many
    /// may be there while all wait for an answer.
    pub flows_per_port: usize,
    /// Takes long segments of overlay networks into the namespace.
    pub overlay: Option<Arc<Writer>>,
    /// Where connections and flows of published ports are recorded when they have ended.
    pub flow_log: Option<Arc<FlowLog>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transparent: Transparent::Off,
            shares: Budget::new(1024, DataPath::Parent).shares,
            udp_flow_idle_timeout: UDP_FLOW_IDLE_TIMEOUT,
            connect_timeout: Duration::from_secs(30),
            transparent_timeout: Duration::from_secs(1),
            threads: 4,
            occupied: Vec::new(),
            tproxy: false,
            flows_per_port: 4096,
            overlay: None,
            flow_log: None,
        }
    }
}
