//! lintian and rpmlint: always with `cargo xtask dist --lint`, as the test suite runs it, otherwise where they are
//! installed. What they may say is listed with reasons in `packaging/deb/lintian-overrides` and
//! `packaging/rpm/rpmlint.toml`; anything else fails.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use xtask_support::host::{self, Need};
use xtask_support::{cargo, command};

/// What checks the Debian package.
pub(crate) const DEB: Need = ("lintian", "lintian");
/// What checks the RPM package.
pub(crate) const RPM: Need = ("rpmlint", "rpmlint");

/// Checks the Debian package `package`.
///
/// # Errors
/// lintian finds an error or a warning that is not overridden.
pub(crate) fn deb(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--no-cfg", "--fail-on", "error,warning"]);
    run("lintian", lintian.arg(package))
}

/// Checks the RPM package `package`.
///
/// # Errors
/// rpmlint finds an error that is not filtered.
pub(crate) fn rpm(package: &Path) -> Result<()> {
    let mut rpmlint = Command::new("rpmlint");
    rpmlint.arg("--strict").arg("--config");
    rpmlint.arg(cargo::workspace()?.join("packaging/rpm/rpmlint.toml")).arg(package);
    run("rpmlint", &mut rpmlint)
}

fn run(program: &str, command: &mut Command) -> Result<()> {
    if host::find(program).is_none() {
        eprintln!(
            "{program} is not installed: the package is not checked with it (cargo xtask dist --lint insists)"
        );
        return Ok(());
    }
    command::quietly(command).map(drop)
}
