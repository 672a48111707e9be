//! The role `unshare`, chosen by `argv[0]`: `unshare -n COMMAND…` runs a command in a new network
//! namespace. RootlessKit brings its own because some distributions confine `/usr/bin/unshare`.

use std::process::Command;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, unshare};

use crate::exit::Exited;

pub(crate) fn run() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|a| a == "-n" || a == "--n" || a == "--net").is_none() {
        bail!("usage: unshare -n COMMAND [ARG...]");
    }
    let Some(program) = args.next() else { bail!("no command specified") };
    unshare(CloneFlags::CLONE_NEWNET).context("failed to create a network namespace")?;
    let status = Command::new(&program)
        .args(args)
        .status()
        .with_context(|| format!("failed to run {}", program.display()))?;
    Exited::check(format!("command [{}]", program.display()), status)
}
