//! `cargo xtask soak`: builds the product as released, and becomes the program `soak` of the package `tests`, which has the
//! test hosts.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result};
use xtask_support::{cargo, command, host};

use crate::test::{BOX_NEEDS, PRODUCT, ensure_machine};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    // A record is drawn without a test host.
    if !args.contains(&"--plot") {
        ensure_machine()?;
        host::ensure_programs(BOX_NEEDS)?;
        let mut build = cargo::build("release")?;
        build.args(PRODUCT.iter().flat_map(|package| ["-p", package]));
        command::visibly(&mut build)?;
    }
    // The harness looks for its helper program where a plain build leaves it.
    command::visibly(cargo::build("dev")?.args(["--quiet", "-p", "tests"]))?;
    let program = cargo::programs("dev")?.join("soak");
    let mut soak = Command::new(&program);
    soak.env("TEST_BINARIES", cargo::programs("release")?);
    Err(soak.args(args).exec()).with_context(|| format!("starting {}", program.display()))
}
