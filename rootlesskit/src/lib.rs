//! RootlessKit: runs a program as root of its own user, mount and network namespaces, as an ordinary
//! user of the system.
//!
//! One binary plays two roles, told apart by its environment (see [`main`]): the *parent* stays in the
//! host's namespaces, the *child* lives in the new ones and runs the *target*. docs/ARCHITECTURE.md has
//! the picture.

#![cfg_attr(
    not(all(
        feature = "gateway",
        feature = "lxc-user-nic",
        feature = "pasta",
        feature = "slirp4netns",
        feature = "vpnkit"
    )),
    allow(
        dead_code,
        unused_variables,
        reason = "a build that leaves drivers out does not use all that drivers share"
    )
)]

mod api_backend;
mod available;
mod child;
mod cli;
pub mod ctl;
mod docker;
mod drivers;
mod execve;
mod exit;
mod followers;
mod handshake;
mod help;
mod launch;
mod limit;
mod log;
mod parent;
mod path_watch;
mod plan;
mod policy_file;
mod port;
mod signals;
mod umask;
mod unshare;
mod visible;

use std::process::ExitCode;

enum Role {
    Parent,
    Child,
    Unshare,
    #[cfg(feature = "gateway")]
    Gateway,
}

fn role() -> Role {
    let name = std::env::args_os().next().unwrap_or_default();
    #[cfg(feature = "gateway")]
    if name == drivers::gateway::PROCESS {
        return Role::Gateway;
    }
    if std::path::Path::new(&name).file_name().is_some_and(|n| n == "unshare") {
        Role::Unshare
    } else if std::env::var_os(hostenv::vars::ROOTLESSKIT_PIPEFD).is_some_and(|v| !v.is_empty()) {
        Role::Child
    } else {
        Role::Parent
    }
}

/// The definition of `rootlesskit`'s command line, as this build has it; man page and completions come from it.
pub fn definition() -> clap::Command {
    cli::shown()
}

/// Entry point of the binary `rootlesskit`.
#[must_use]
pub fn main() -> ExitCode {
    let (label, result) = match role() {
        Role::Unshare => ("unshare", unshare::run()),
        #[cfg(feature = "gateway")]
        Role::Gateway => ("gateway", drivers::gateway::process()),
        Role::Child => ("child ", child::main()),
        Role::Parent => ("parent", parent::main()),
    };
    exit::finish(label, result)
}
