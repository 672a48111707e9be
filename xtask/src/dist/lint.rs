//! lintian and rpmlint, where they are installed. What they may say is listed with reasons in
//! `packaging/deb/lintian-overrides` and `packaging/rpm/rpmlint.toml`; anything else fails.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::host;

/// A package built without `DEBFULLNAME` and `DEBEMAIL` has no address that lintian likes.
const NO_ADDRESS: &str =
    "bogus-mail-host,bogus-mail-host-in-debian-changelog,root-in-contact,no-human-maintainers";

/// Checks the Debian package `package`.
///
/// # Errors
/// lintian finds an error or a warning that is not overridden.
pub(super) fn deb(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--no-cfg", "--fail-on", "error,warning"]);
    lintian.args(["--suppress-tags", NO_ADDRESS]).arg(package);
    run("lintian", &mut lintian)
}

/// Checks the RPM package `package`.
///
/// # Errors
/// rpmlint finds an error that is not filtered.
pub(super) fn rpm(package: &Path) -> Result<()> {
    let mut rpmlint = Command::new("rpmlint");
    rpmlint.arg("--strict").arg("--config");
    rpmlint.arg(host::workspace()?.join("packaging/rpm/rpmlint.toml")).arg(package);
    run("rpmlint", &mut rpmlint)
}

fn run(program: &str, command: &mut Command) -> Result<()> {
    if host::find(program).is_none() {
        eprintln!("{program} is not installed: the package is not checked with it");
        return Ok(());
    }
    host::quietly(command).map(drop)
}
