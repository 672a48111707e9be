//! Subordinate ids and id maps: who may use which host ids, and what the user namespace makes of them.
//!
//! # Theory of operation
//!
//! 1. [`source::lookup`] finds the user's ranges, from `/etc/subuid` and `/etc/subgid` ([`subid`]) or from the program
//!    `getsubids` ([`getsubids`]), which also knows NSS modules.
//! 2. [`map::build`] turns them into the two maps: id 0 is the user, ids from 1 on are the ranges in their order. The
//!    kernel refuses a map that holds an id twice (user_namespaces(7)), so what repeats is cut out.
//! 3. [`apply::apply`] has `newuidmap` and `newgidmap` write them, and explains a refusal ([`diagnose`]).

pub mod apply;
pub mod diagnose;
pub mod getsubids;
pub mod map;
pub mod outer;
mod range;
pub mod source;
pub mod subid;

pub use range::{Kind, Range, total};

#[cfg(test)]
mod testing;
