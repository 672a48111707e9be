//! The kernel's network configuration without `ip`, `sysctl`, `nft` or `iptables`.
//!
//! # Theory of operation
//!
//! Everything here acts on the network namespace of the *calling thread*: a netlink socket belongs to the namespace
//! in which it was opened, and `/proc/sys/net` shows the namespace of whoever reads it. Who wants to configure another
//! namespace joins it first and opens the socket there.
//!
//! * [`Rt`] speaks rtnetlink: links, addresses, routes, rules.
//! * [`AddressChanges`] hears of addresses that come and go.
//! * [`ethtool`] switches what a link does by itself on and off.
//! * [`sysctl`] reads and writes `/proc/sys`.
//! * [`nft`] encodes one atomic nftables transaction.
//! * [`conntrack`] tells who opened a connection that is translated.
//! * [`transparent`] combines some of them so that a server sees the real address of a client.
//!
//! All of it is synchronous, and nothing but [`AddressChanges::wait`] blocks: the kernel answers a netlink request before
//! `sendmsg(2)` returns.

mod addresses;
mod attribute;
mod connection;
pub mod conntrack;
mod error;
pub mod ethtool;
pub mod nft;
mod route;
mod rt;
pub mod sysctl;
pub mod transparent;

pub use addresses::AddressChanges;
pub use error::{Error, Result};
pub use route::Route;
pub use rt::{Family, Rt};
