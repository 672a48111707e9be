//! What keeps rootless Docker from working on this host, why it matters, and how to fix it. Nothing here changes the host.
//!
//! # Theory of operation
//! [`facts`] looks at the host once, with [`probe`]s that try the real thing. [`findings`] judges the facts, and is pure: a
//! finding has a stable code and a [`remedy`], which [`distro`] words for the distribution. What `install` writes ([`managed`],
//! [`unit`], [`supervisor`]) is known here too, because an edited file is a finding. The set-up tool has the verbs: it
//! prints the findings, and writes and removes the files.
//!
//! Roots of the file system, the environment and the probes are injected ([`place::World`], [`probe::Prober`]), so each
//! situation of a host is a fixture in the tests. The tests also write and check `docs/reference/check-codes.md` and
//! `docs/dev/situations.md`.
#![allow(missing_docs, reason = "fields and variants of facts are named for the facts")]

pub mod apparmor;
pub mod distro;
pub mod facts;
pub mod findings;
pub mod header;
pub mod managed;
pub mod names;
pub mod place;
pub mod probe;
pub mod remedy;
pub mod supervisor;
pub mod swarm;
pub mod symptoms;
pub mod systemd;
#[cfg(test)]
mod tests;
pub mod unit;
pub mod unit_file;
pub mod units;
pub mod vars;
