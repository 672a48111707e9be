//! What parent and child tell each other before the target starts.
//!
//! # Theory of operation
//! One `SOCK_SEQPACKET` socket: a message is one packet of JSON, descriptors may come with it, and the end
//! of the stream means that the other side has died. The order of the messages is the order of their
//! declaration in [`Message`]; anything else is an error that names both. Both sides are always the
//! same binary, so the format needs no versions.
//!
//! ```text
//!   parent                                              child
//!   (id maps written, the child has exec'ed)
//!   Setup {plan}                  ───────────────────►  network namespace, interface, addresses
//!   start the network helper      ◄─── NetworkReady +fds
//!   Connected                     ───────────────────►  DHCP, if there is a server
//!                                                       mounts, copy-up, hosts, resolv.conf
//!   socket of the socket factory  ◄─── Ready + fd
//!   publish ports, child_pid, api.sock
//!   Start                         ───────────────────►  run the target
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};

use crate::plan::{ChildPlan, Leased};

/// The longest message in bytes; a plan takes about a thousand.
const MAX: usize = 64 * 1024;

/// How long a message waits for memory, or for other programs of the user to take the descriptors that they sent each other.
const SHORTAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The messages, in protocol order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Parent to child: what to do.
    Setup(Box<ChildPlan>),
    /// Child to parent: the network namespace exists and has its interfaces. With it come the descriptors of the gateway
    /// network, if there is one.
    NetworkReady,
    /// Parent to child: the helper serves. An interface that comes with it can be configured, and the file of a detached
    /// namespace need not be where it is all the time.
    Connected,
    /// Child to parent: all but the target is there. A descriptor comes with it if sockets were wanted.
    Ready {
        /// `nft`, `iptables`, or `none` with a reason.
        source_address_backend: String,
        /// Whether the gateway cannot reach the loopback addresses of the namespace.
        loopback_relayed: bool,
        leased: Option<Leased>,
    },
    /// Parent to child: run the target.
    Start,
}

impl Message {
    fn name(&self) -> &'static str {
        match self {
            Self::Setup(_) => "Setup",
            Self::NetworkReady => "NetworkReady",
            Self::Connected => "Connected",
            Self::Ready { .. } => "Ready",
            Self::Start => "Start",
        }
    }

    pub(crate) fn unexpected(&self, wanted: &str) -> anyhow::Error {
        anyhow::anyhow!("unexpected message {} in the handshake, expected {wanted}", self.name())
    }
}

#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), b))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let deadline = Instant::now() + SHORTAGE_TIMEOUT;
        sys::fdpass::send_until(self.0.as_fd(), &bytes, fds, deadline)
            .with_context(|| format!("failed to send {} in the handshake", message.name()))?;
        Ok(())
    }

    /// Waits for the next message. The parent polls the descriptor first, since the child may die.
    pub(crate) fn receive(&self) -> anyhow::Result<(Message, Vec<OwnedFd>)> {
        let mut buf = vec![0; MAX];
        let (len, fds) = sys::fdpass::recv(self.0.as_fd(), &mut buf)
            .context("failed to receive in the handshake")?;
        if len == 0 {
            bail!("the other side of the handshake has exited");
        }
        let message = serde_json::from_slice(&buf[..len]).with_context(|| {
            format!(
                "invalid message in the handshake: {}",
                String::from_utf8_lossy(&buf[..len.min(200)])
            )
        })?;
        Ok((message, fds))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{
        Interface, NetworkPlan, Propagation, PropagationKind, SourceAddress, Uplink,
    };

    fn plan() -> ChildPlan {
        let interface = Interface {
            name: "tap0".into(),
            mtu: 65520,
            addresses: vec![("10.0.2.100".parse().unwrap(), 24)],
            gateways: vec!["10.0.2.2".parse().unwrap()],
        };
        ChildPlan {
            debug: true,
            isolated: true,
            network: NetworkPlan {
                uplink: Uplink::Tap(interface),
                dns: vec!["10.0.2.3".parse().unwrap()],
            },
            detach_netns: false,
            socket_factory: true,
            source_address: SourceAddress::Auto,
            pidns: true,
            evacuated: false,
            propagation: Propagation { kind: PropagationKind::Slave, recursive: true },
            copy_up: vec!["/etc".into()],
            reaper: true,
            command_words: 3,
        }
    }

    #[test]
    fn messages_and_descriptors_survive_the_trip() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel::from_fd(b);
        let setup = Message::Setup(Box::new(plan()));
        a.send(&setup, &[]).unwrap();
        assert!(matches!(b.receive().unwrap(), (m, fds) if m == setup && fds.is_empty()));
        let leased = Some(Leased { address: "10.0.3.7".parse().unwrap(), dns: Vec::new() });
        let source_address_backend = "nft".into();
        let ready = Message::Ready { source_address_backend, loopback_relayed: false, leased };
        b.send(&ready, &[b.as_fd(), a.as_fd()]).unwrap();
        assert!(matches!(a.receive().unwrap(), (m, fds) if m == ready && fds.len() == 2));
        drop(b);
        assert!(a.receive().unwrap_err().to_string().contains("has exited"));
        assert!(
            ready
                .unexpected("Start")
                .to_string()
                .contains("Ready in the handshake, expected Start")
        );
    }

    proptest::proptest! {
        #[test]
        fn bytes_from_elsewhere_never_panic(bytes in proptest::collection::vec(0u8.., 1..200)) {
            let (a, b) = Channel::pair().unwrap();
            sys::fdpass::send(a.as_fd(), &bytes, &[]).unwrap();
            let _ = Channel::from_fd(b).receive();
        }
    }
}
