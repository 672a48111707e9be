//! The world around the process, read once into plain data: variables, directories, users, programs.
//!
//! # Theory of operation
//!
//! A program takes one [`Env`] snapshot at its start and passes it down; nothing in the project calls `set_var` or
//! reads a variable later, so a situation can be a value in a test. Every variable name is a documented constant in
//! [`vars`].
//!
//! Users are looked up without libc ([`user`]): a static binary must not load the host's NSS modules. `/etc/passwd`
//! comes first, then the program `getent`, which knows LDAP, SSSD and homed users, then `$USER` and `$HOME`.
//!
//! Which ways out this machine has is told by [`routes`].
//!
//! Files that others have made are read by [`file`]: regular ones, up to a limit.
//!
//! What the arguments of a program say about a flag is told by [`flags`].
//!
//! The limits of namespaces are named by [`namespaces`], the mode of SELinux by [`selinux`].
//!
//! Whether somebody listens on a unix socket is asked by [`socket`], whether rootlesskit runs by [`state_dir`].
//!
//! Which files say what containers may reach is told by [`egress_policy`].
//!
//! What makes the daemon a node of a swarm is read by [`swarm`].
//!
//! External programs run through [`helper`]: captured output, a time limit, no thread.

pub mod colour;
pub mod dirs;
pub mod egress_policy;
pub mod file;
pub mod flags;
pub mod helper;
pub mod namespaces;
pub mod path;
pub mod rootlesskit;
pub mod routes;
pub mod selinux;
pub mod shellwords;
mod snapshot;
pub mod socket;
pub mod state_dir;
pub mod swarm;
pub mod user;
pub mod vars;

pub use snapshot::{Env, VarError};

#[cfg(test)]
mod testing;
