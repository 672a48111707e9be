//! Cargo, the folders that it works in, and the other tools of this repository, which it builds when a verb needs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use xtask_start::{Build, MARK};

use crate::command::{quietly, visibly};
use crate::stages::Heartbeat;

/// The folder of the workspace.
pub fn workspace() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.ancestors().nth(2).context("the workspace folder")?.to_owned())
}

/// Cargo's target folder; the running program lies in it.
pub fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().find(|dir| dir.join(MARK).is_file());
    Ok(found
        .with_context(|| {
            format!(
                "{} is not in a cargo target folder: no folder above it has the file {MARK}, which cargo creates; \
                 remove the folder `target` and run `cargo xtask` again",
                exe.display()
            )
        })?
        .to_owned())
}

/// The cargo that started this program.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.stdin(Stdio::null());
    command
}

/// Builds the program of the package `name` with the profile of the running program, and returns its path. Says that it
/// builds if that takes time.
pub fn build_tool(name: &str) -> Result<PathBuf> {
    let own = Build::own()?;
    let (mut build, program) = tool(&own, name)?;
    let heartbeat = Heartbeat::of_build(name);
    let built = visibly(&mut build);
    drop(heartbeat);
    built?;
    Ok(program)
}

/// What builds the tool `name` as `build` says, and where it is then.
fn tool(build: &Build, name: &str) -> Result<(Command, PathBuf)> {
    let mut command = command();
    command.current_dir(workspace()?).args(["build", "--quiet", "--package", name]);
    command.args(build.arguments());
    Ok((command, build.folder().join(name)))
}

/// `cargo build` with `profile`, for the machine that the running program was built for.
pub fn build(profile: &str) -> Result<Command> {
    let mut build = command();
    build.current_dir(workspace()?).arg("build");
    build.args(Build::own()?.with_profile(profile).arguments());
    Ok(build)
}

/// The folder in which [`build`] leaves the programs.
pub fn programs(profile: &str) -> Result<PathBuf> {
    Ok(Build::own()?.with_profile(profile).folder().to_owned())
}

/// Rust's name of this machine.
pub fn host_triple() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = quietly(Command::new(rustc).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The folder in which `cargo xtask dist` builds for this machine unless something else is said.
pub fn dist_build() -> Result<PathBuf> {
    Ok(target()?.join("dist-build"))
}

/// The folder below `build_dir` in which `cargo xtask dist` leaves static programs for `triple`.
#[must_use]
pub fn static_programs(build_dir: &Path, triple: &str) -> PathBuf {
    build_dir.join(triple).join("release")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_built_with_the_profile_of_the_program_that_needs_it() {
        for (folder, profile) in [("debug", "dev"), ("release", "release")] {
            let xtask = Path::new("/w/target").join(folder).join("xtask");
            let (command, program) = tool(&Build::of(&xtask), "dist").unwrap();
            let words: Vec<_> = command.get_args().collect();
            assert_eq!(words, ["build", "--quiet", "--package", "dist", "--profile", profile]);
            assert_eq!(program, xtask.with_file_name("dist"));
        }
    }
}
