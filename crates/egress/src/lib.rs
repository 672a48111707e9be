//! Egress policy: which container may reach what outside of its namespace.
//!
//! Pure logic, without I/O. rootlesskit's parent reads the files ([`File::parse`]) and asks Docker for its containers
//! ([`Directory`]); from both it makes what the gateway process enforces ([`File::resolve`], [`Policy`]). rootlessctl uses
//! the same code to check files and to try attempts.
//!
//! # Theory of operation
//! A [`Policy`] is a list of rules. The first one that matches an [`Attempt`] decides; if none does, the default. Several
//! policies can be in force at a time, the administrator's and the user's, and an attempt has to be allowed by each
//! ([`Policies::judge`]). So no file can loosen what another one forbids.
//!
//! Rules name containers the way people do, by name, label and network, but packets have addresses. [`File::resolve`]
//! replaces names by the addresses that Docker has given. An address that Docker does not list (yet) could be any
//! container's. Rules fail closed then: one that denies matches it, one that allows does not.
//!
//! Rules name destinations by address or by name. The gateway is the resolver of its namespace, so it sees which addresses
//! an answer opens for the container that has asked ([`Openings`]).

pub mod compact;
mod file;
mod names;
mod openings;
mod policy;
mod resolve;
mod unreachable;

pub use file::{File, FileError, Problem};
pub use openings::{Openings, lifetime};
pub use policy::{
    Action, Attempt, Decision, Mode, Policies, Policy, PortRange, Protocol, Rule, RuleId, Senders,
    Source, Target,
};
pub use resolve::{Container, Directory, Network};
pub use unreachable::Unreachable;
