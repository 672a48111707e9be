//! What is being released: version, date, architecture.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::host;

/// Name of the packages.
pub(super) const PACKAGE: &str = "docker-ce-rootless-extras";

/// An architecture in the words of the three worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Architecture {
    /// Start of Rust's target triple.
    rust: &'static str,
    pub(super) deb: &'static str,
    pub(super) rpm: &'static str,
}

const ARCHITECTURES: [Architecture; 6] = [
    Architecture { rust: "x86_64", deb: "amd64", rpm: "x86_64" },
    Architecture { rust: "aarch64", deb: "arm64", rpm: "aarch64" },
    Architecture { rust: "armv7", deb: "armhf", rpm: "armv7hl" },
    Architecture { rust: "riscv64gc", deb: "riscv64", rpm: "riscv64" },
    Architecture { rust: "powerpc64le", deb: "ppc64el", rpm: "ppc64le" },
    Architecture { rust: "s390x", deb: "s390x", rpm: "s390x" },
];

/// A release of the sources at hand.
#[derive(Debug, Clone)]
pub(super) struct Release {
    /// Version of the workspace.
    pub(super) version: String,
    /// Seconds since 1970: the date of everything in an archive.
    pub(super) epoch: u64,
    /// Rust's name of the machine that the programs are for: the one at hand.
    pub(super) triple: String,
    pub(super) architecture: Architecture,
}

impl Release {
    /// Reads version, date and architecture.
    ///
    /// # Errors
    /// The sources have no history and `SOURCE_DATE_EPOCH` is not set, or no package has a name for the architecture.
    pub(super) fn current() -> Result<Self> {
        let triple = Self::triple()?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: epoch(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
            architecture: architecture(&triple)?,
            triple,
        })
    }

    /// The target triple of the machine at hand.
    fn triple() -> Result<String> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let text = host::quietly(Command::new(rustc).arg("-vV"))?;
        let host = text.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(host.context("rustc -vV names no host")?.to_owned())
    }

    /// A command whose child processes know the date.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string()).env("LC_ALL", "C.UTF-8");
        command.env("TZ", "UTC").stdin(std::process::Stdio::null());
        command
    }
}

/// The architecture of a target triple.
fn architecture(triple: &str) -> Result<Architecture> {
    let start = triple.split('-').next().unwrap_or_default();
    ARCHITECTURES.into_iter().find(|known| known.rust == start).with_context(|| {
        let all: Vec<_> = ARCHITECTURES.iter().map(|known| known.rust).collect();
        format!("there are no packages for {triple}: not one of {}", all.join(", "))
    })
}

/// `given` (the variable), or the date of the last commit.
fn epoch(given: Option<&str>) -> Result<u64> {
    if let Some(text) = given.filter(|text| !text.is_empty()) {
        return text.parse().with_context(|| {
            format!("SOURCE_DATE_EPOCH is {text:?}: not a number of seconds since 1970")
        });
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(host::workspace()?);
    let text = host::quietly(&mut git).context(
        "the date of the last commit is not known\n\
         hint: set SOURCE_DATE_EPOCH to the seconds since 1970 that the files are to be dated with",
    )?;
    text.trim().parse().with_context(|| format!("git log: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_have_the_names_of_debian_and_rpm() {
        let arm = architecture("armv7-unknown-linux-gnueabihf").unwrap();
        assert_eq!((arm.deb, arm.rpm), ("armhf", "armv7hl"));
        let error = architecture("sparc64-unknown-linux-gnu").unwrap_err().to_string();
        assert!(error.contains("sparc64") && error.contains("x86_64"), "{error}");
    }

    #[test]
    fn the_date_of_the_environment_comes_first() {
        assert_eq!(epoch(Some("1700000000")).unwrap(), 1_700_000_000);
        assert!(epoch(Some("today")).unwrap_err().to_string().contains("today"));
    }
}
