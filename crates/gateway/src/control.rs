//! What the supervisor and the gateway process tell each other.
//!
//! One `AF_UNIX`/`SOCK_SEQPACKET` socket, which is the standard input of the gateway process. The supervisor asks, the
//! gateway answers each request with one [`Reply`], in order; JSON in one packet or several ([`Channel`]), descriptors
//! beside the first. The first request is [`Request::Configure`]. The end of the stream ends the gateway.

use std::net::SocketAddr;
use std::time::Duration;

use egress::Policies;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::descriptors;
use crate::network_config::{NetworkConfig, Resolvers};

mod channel;
mod fit;

pub use channel::Channel;
pub(crate) use channel::poll_timeout;
pub(crate) use fit::check_policy;
pub use fit::fit;

/// The longest message in bytes: statistics of more published ports than one host has. It bounds what a broken or
/// hostile peer can make the other side keep.
pub const MAX: usize = 16 << 20;

/// How long the rest of a message may take, and a reply to be read.
pub const WAIT: Duration = Duration::from_secs(5);

/// What the supervisor wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Start. With it come the descriptors of [`crate::Descriptors::into_fds`]; the IPv6 listener only if the plan has
    /// IPv6.
    Configure {
        /// The network.
        plan: NetworkConfig,
        /// The name servers of the host.
        resolvers: Resolvers,
        /// The soft limit of open files.
        nofile: u64,
        /// How many of the descriptors are for overlay networks.
        overlay: usize,
        /// What containers may begin.
        #[serde(with = "egress::compact")]
        policy: Policies,
    },
    /// Serve this listener of the host's namespace, the descriptor, as a published port.
    Publish {
        /// Number of the port, for [`Request::Withdraw`] and the statistics.
        id: u64,
        /// Whether it is a datagram socket.
        udp: bool,
        /// Where in the target namespace the port leads.
        target: SocketAddr,
        /// Networks of the clients that it serves; without any, all.
        #[serde(default)]
        allow_from: Vec<IpNet>,
        /// What the statistics call it: `0.0.0.0:8080->10.0.2.100:8080/tcp`.
        name: String,
    },
    /// Close a published port and its connections.
    Withdraw {
        /// Its number.
        id: u64,
    },
    /// The host's name servers are others now.
    Resolvers(Resolvers),
    /// Containers may begin this now, and what they have begun ends if it is not allowed. It is in force when the reply
    /// comes.
    Policy(#[serde(with = "egress::compact")] Box<Policies>),
    /// What has happened so far.
    Stats,
    /// Keep a record of everything that ends, and tell what has ended since this was asked last.
    Flows {
        /// False: keep no records any more.
        follow: bool,
    },
    /// Say that every thread still does its work.
    Ping,
}

impl Request {
    /// What errors call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Configure { .. } => "Configure",
            Self::Publish { .. } => "Publish",
            Self::Withdraw { .. } => "Withdraw",
            Self::Resolvers(_) => "Resolvers",
            Self::Policy(_) => "Policy",
            Self::Stats => "Stats",
            Self::Flows { .. } => "Flows",
            Self::Ping => "Ping",
        }
    }

    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Configure { plan, overlay, .. } => {
                descriptors::count(plan.v6.is_some(), *overlay)
            }
            Self::Publish { .. } => 1,
            Self::Withdraw { .. }
            | Self::Resolvers(_)
            | Self::Policy(_)
            | Self::Stats
            | Self::Flows { .. }
            | Self::Ping => 0,
        }
    }
}

/// What the gateway answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The statistics.
    Stats(Box<api::Stats>),
    /// What has ended.
    Flows {
        /// In the order in which their containers were found.
        flows: Vec<api::flows::Flow>,
        /// How many more there was no room for.
        missed: u64,
    },
    /// It could not be done, and why.
    Failed(String),
}

impl Reply {
    /// What errors call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::Stats(_) => "Stats",
            Self::Flows { .. } => "Flows",
            Self::Failed(_) => "Failed",
        }
    }
}
