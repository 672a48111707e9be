//! Commands that must succeed.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Runs a command and shows its output only if it fails.
pub fn quietly(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    if !output.status.success() {
        let both = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&both).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that shows its own progress.
pub fn visibly(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("running {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
