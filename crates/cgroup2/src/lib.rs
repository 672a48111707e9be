//! Control groups, version 2: what the host has, which group we are in, what is delegated, and evacuation.
//!
//! # Theory of operation
//!
//! Everything is files (cgroups(7), Linux `Documentation/admin-guide/cgroup-v2.rst`), so every function takes the root of
//! the files it reads and situations are directories in tests.
//!
//! [`mounts`] says where cgroup2 is mounted, [`group`] which group a process is in and where its directory is,
//! [`mod@delegation`] which controllers a group may hand out, and [`mod@evacuate`] makes room for children: a group that has
//! processes cannot enable controllers for its sub-groups ("no internal processes"), so they are moved into one of them.

pub mod delegation;
pub mod evacuate;
pub mod group;
pub mod mounts;

pub use delegation::{Delegation, delegation};
pub use evacuate::{EvacuationError, EvacuationReport, evacuate};
pub use mounts::{Mode, detect, mountpoint};
