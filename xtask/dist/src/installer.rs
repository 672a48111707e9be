//! The installer script: it lies beside the tarball, and everything in that folder is in the same list of checksums.
//!
//! Nothing in it depends on the release (it reads version and checksums from that list), so it is copied as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask_support::host::Need;
use xtask_support::{cargo, command};

use crate::Work;

/// A shell has no compiler: what would be found by one is looked for before users run it.
pub(crate) const NEEDS: &[Need] = &[("shellcheck", "shellcheck")];

/// Its name, here and there.
const NAME: &str = "install.sh";

/// Checks the script and copies it to the artifacts, executable.
///
/// # Errors
/// shellcheck finds something, or the script cannot be copied.
pub(crate) fn make(work: &Work) -> Result<()> {
    let script = cargo::workspace()?.join("packaging/installer").join(NAME);
    command::quietly(Command::new("shellcheck").args(["--norc", "--shell=sh"]).arg(&script))?;
    let to = work.artifact(NAME);
    fs::copy(&script, &to).with_context(|| format!("copying {}", script.display()))?;
    Ok(fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?)
}
