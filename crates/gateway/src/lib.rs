//! The gateway network: TCP by the kernel, everything else as plain packets, no helper program.
//!
//! # Theory of operation
//! A second network namespace, the *gateway namespace*, belongs to the same user namespace as the *target namespace*,
//! in which dockerd and its containers run. A veth pair connects them, and the gateway namespace is the target
//! namespace's default gateway. The kernel of the gateway namespace ends every TCP connection itself (`tproxy`); a
//! process on the host's side, the *gateway*, decides who may connect and moves bytes between the gateway namespace's
//! sockets and the host's with splice(2).
//!
//! ```text
//!  host's namespace                    gateway namespace                target namespace
//!  ┌──────────────────────────┐       ┌──────────────────────────┐veth ┌─────────────────────┐
//!  │ socket to the real       │splice │ socket accepted as the   │◄───►│ tap0 10.0.2.100     │
//!  │ destination              │◄─────►│ destination (tproxy)     │gw0  │ default via 10.0.2.2│
//!  │                          │ SYN   │ tun "dial"  ◄── marked   │     │                     │
//!  │ engine: who may connect  │◄─────►│ tun "data"  ◄── UDP, echo│     │ Docker's own rules, │
//!  │ UDP flows, echo, DNS     │       │                          │     │ untouched           │
//!  │ listener of a published  │splice │ socket bound to the      │     │                     │
//!  │ port                     │◄─────►│ client's address ───────────►  │ DNAT → container    │
//!  └──────────────────────────┘       └──────────────────────────┘     └─────────────────────┘
//! ```
//!
//! * [`network_config`]: addresses and limits, plain data.
//! * [`namespace`]: builds the gateway namespace; runs once, in a thread of the child.
//! * [`supervisor`]: the handle of whoever starts the gateway process (rootlesskit's parent); [`control`]: what they
//!   tell each other.
//! * [`process`]: the gateway process: [`sandbox`] first, then the [`engine`]. Without a descriptor in them:
//!   [`packet`], [`policy`], [`dns`], [`shares`]. What containers may begin beyond that, the crate [`egress`] says.
//!
//! The supervisor holds every descriptor that the gateway uses (tun devices, listeners of the gateway namespace, the
//! socket factory), so a gateway that died is replaced without touching a namespace. This crate knows nothing of
//! rootlesskit.

pub mod conntrack;
pub mod control;
mod descriptors;
pub mod dns;
pub mod engine;
mod flows;
pub mod namespace;
pub mod network_config;
pub mod packet;
pub mod policy;
pub mod process;
pub mod sandbox;
pub mod shares;
pub mod supervisor;

pub use descriptors::{Descriptors, OverlayDescriptors};
pub use network_config::NetworkConfig;
