//! What the crate does to a kernel, each test in network namespaces of its own.
//!
//! Needs root (or root in a user namespace), iproute2, nftables and iptables; a test that misses something fails and
//! says what.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests")]

mod conntrack;
mod ethtool;
mod netns;
mod nft;
mod rt;
mod transparent;
