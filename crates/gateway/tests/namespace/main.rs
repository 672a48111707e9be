//! The gateway namespace, built beside a target namespace, with real sockets in both and this test in the place of the
//! gateway process. For the egress policy and for what containers share, the engine of the gateway process runs here.
//!
//! Needs root and /dev/net/tun; a test that misses something fails and says what.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests")]

mod egress;
mod fairness;
mod inbound;
mod inbound_loopback;
mod outbound;
mod overlay;
mod packets;
mod setup;
mod world;
