//! What parent and child are going to do, decided once from the command line by [`crate::launch`].
//!
//! The child's part crosses to it in the handshake. The child has the parent's command line as well, for ps(1), but reads
//! no flag of it.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::bail;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChildPlan {
    pub(crate) debug: bool,
    /// Whether the child has a network namespace of its own, which it gets with `detach_netns` in any case.
    pub(crate) isolated: bool,
    pub(crate) network: NetworkPlan,
    /// Whether the network namespace is not the child's own but pinned in the state directory.
    pub(crate) detach_netns: bool,
    /// Whether the parent wants sockets made in the network namespace.
    pub(crate) socket_factory: bool,
    pub(crate) source_address: SourceAddress,
    /// Whether the child has a PID namespace of its own, and so needs its own `/proc`.
    pub(crate) pidns: bool,
    /// Whether the parent's processes were evacuated, so that the cgroup namespace has a root of its own.
    pub(crate) evacuated: bool,
    pub(crate) propagation: Propagation,
    /// Absolute directories.
    pub(crate) copy_up: Vec<PathBuf>,
    /// Whether the target gets a session of its own and orphans are collected.
    pub(crate) reaper: bool,
    /// How many words at the end of the command line are the target's.
    pub(crate) command_words: usize,
}

/// What the child makes of its network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkPlan {
    pub(crate) uplink: Uplink,
    /// Name servers for `resolv.conf`. Those of a DHCP server take their place.
    pub(crate) dns: Vec<IpAddr>,
}

impl NetworkPlan {
    /// Whether the target's view of `/sys`, `/etc/hosts` and `/etc/resolv.conf` changes with the network.
    pub(crate) fn changes_view(&self) -> bool {
        self.uplink != Uplink::None
    }
}

/// How the namespace gets the interface that leads out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Uplink {
    None,
    /// The helper makes and configures it.
    ByHelper,
    /// The child makes a TAP device, configures it, and the helper opens it.
    Tap(Interface),
    /// The child makes a namespace for the gateway, and the interface leads there.
    #[cfg(feature = "gateway")]
    Gateway(Interface, Box<gateway::NetworkConfig>),
    /// A DHCP server tells its address once the helper serves.
    Dhcp(Dhcp),
}

impl Uplink {
    /// Whether the interface can be configured only once the helper serves.
    pub(crate) fn waits_for_helper(&self) -> bool {
        matches!(self, Self::Dhcp(_))
    }

    /// Whether every TCP connection out of the namespace ends on this machine: in the gateway's namespace, or in the
    /// helper, which connects anew. A veth pair to a bridge puts the namespace on the network itself.
    pub(crate) fn ends_on_this_machine(&self) -> bool {
        !matches!(self, Self::Dhcp(Dhcp { device: Device::Veth, .. }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// In bytes.
    pub(crate) mtu: u32,
    /// Addresses with their prefix lengths.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    /// Default routes.
    pub(crate) gateways: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dhcp {
    pub(crate) name: String,
    /// In bytes.
    pub(crate) mtu: u32,
    pub(crate) device: Device,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Device {
    /// One end of a veth pair, which the helper makes.
    Veth,
    /// A TAP device, whose frames the child exchanges with vpnkit. The UUID is by what vpnkit knows this client.
    Vpnkit { uuid: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leased {
    pub(crate) address: IpAddr,
    pub(crate) dns: Vec<IpAddr>,
}

/// How the child keeps the source addresses of TCP clients for ports that are relayed from inside the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SourceAddress {
    Off,
    /// With nftables, or with the iptables program if the kernel has no nftables.
    Auto,
    /// As `Auto` if the gateway, which keeps them itself, cannot reach the namespace's loopback addresses; otherwise off.
    AutoIfRelayed,
    Nft,
    Iptables,
}

/// How mounts of the host reach the child, and the child's the host (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Propagation {
    pub(crate) kind: PropagationKind,
    /// Whether it is set for all mounts below `/`, too.
    pub(crate) recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PropagationKind {
    Private,
    Shared,
    Slave,
}

impl Propagation {
    /// Reads the value of `--propagation`.
    pub(crate) fn parse(word: &str) -> anyhow::Result<Self> {
        let (kind, recursive) = match word.strip_prefix('r') {
            Some(kind) => (kind, true),
            None => (word, false),
        };
        let kind = match kind {
            "private" => PropagationKind::Private,
            "shared" => PropagationKind::Shared,
            "slave" => PropagationKind::Slave,
            _ => bail!(
                "unknown --propagation={word} (must be private, rprivate, shared, rshared, slave or rslave)"
            ),
        };
        Ok(Self { kind, recursive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_words() {
        use PropagationKind::{Private, Shared, Slave};
        for (word, kind) in [("private", Private), ("shared", Shared), ("slave", Slave)] {
            let parsed = Propagation::parse(word).unwrap();
            assert_eq!(parsed, Propagation { kind, recursive: false });
            let parsed = Propagation::parse(&format!("r{word}")).unwrap();
            assert_eq!(parsed, Propagation { kind, recursive: true });
        }
        assert!(Propagation::parse("unbindable").unwrap_err().to_string().contains("unbindable"));
        assert!(Propagation::parse("").is_err());
    }
}
