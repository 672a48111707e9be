//! What is being released: version, date, architecture.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask_support::{cargo, command};

/// Name of the packages.
pub(crate) const PACKAGE: &str = "docker-ce-rootless-extras";

/// An architecture in everybody's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// Rust's triple for the GNU C library; its start stands for the architecture.
    pub(crate) triple: &'static str,
    /// How names of GNU's compilers for it begin.
    pub(crate) gnu: &'static str,
    pub(crate) deb: &'static str,
    pub(crate) rpm: &'static str,
    /// As Docker's site and our installer have it.
    pub(crate) docker: &'static str,
    /// What runs its programs elsewhere.
    pub(crate) emulator: &'static str,
    /// What readelf(1) calls it.
    pub(crate) machine: &'static str,
}

pub(crate) const ARCHITECTURES: [Architecture; 6] = [
    Architecture {
        triple: "x86_64-unknown-linux-gnu",
        gnu: "x86_64-linux-gnu",
        deb: "amd64",
        rpm: "x86_64",
        docker: "x86_64",
        emulator: "qemu-x86_64-static",
        machine: "X86-64",
    },
    Architecture {
        triple: "aarch64-unknown-linux-gnu",
        gnu: "aarch64-linux-gnu",
        deb: "arm64",
        rpm: "aarch64",
        docker: "aarch64",
        emulator: "qemu-aarch64-static",
        machine: "AArch64",
    },
    Architecture {
        triple: "armv7-unknown-linux-gnueabihf",
        gnu: "arm-linux-gnueabihf",
        deb: "armhf",
        rpm: "armv7hl",
        docker: "armhf",
        emulator: "qemu-arm-static",
        machine: "ARM",
    },
    Architecture {
        triple: "riscv64gc-unknown-linux-gnu",
        gnu: "riscv64-linux-gnu",
        deb: "riscv64",
        rpm: "riscv64",
        docker: "riscv64",
        emulator: "qemu-riscv64-static",
        machine: "RISC-V",
    },
    Architecture {
        triple: "powerpc64le-unknown-linux-gnu",
        gnu: "powerpc64le-linux-gnu",
        deb: "ppc64el",
        rpm: "ppc64le",
        docker: "ppc64le",
        emulator: "qemu-ppc64le-static",
        machine: "PowerPC64",
    },
    Architecture {
        triple: "s390x-unknown-linux-gnu",
        gnu: "s390x-linux-gnu",
        deb: "s390x",
        rpm: "s390x",
        docker: "s390x",
        emulator: "qemu-s390x-static",
        machine: "IBM S/390",
    },
];

/// A release of the sources at hand.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    /// Version of the workspace.
    pub(crate) version: String,
    /// Seconds since 1970: the date of everything in an archive.
    pub(crate) epoch: u64,
    /// Rust's name of the machines that the programs are for.
    pub(crate) triple: String,
    pub(crate) architecture: Architecture,
    /// That of the machine at hand, if it is another one.
    pub(crate) host: Option<Architecture>,
}

impl Release {
    /// Reads version and date; the programs are for `target`, or for the machine at hand.
    ///
    /// # Errors
    /// The sources have no history and `SOURCE_DATE_EPOCH` is not set, or no package has a name for the architecture.
    pub(crate) fn of(target: Option<&str>) -> Result<Self> {
        let own = cargo::host_triple()?;
        let triple = target.unwrap_or(&own);
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: epoch(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
            architecture: architecture(triple)?,
            triple: triple.to_owned(),
            host: if triple == own { None } else { Some(architecture(&own)?) },
        })
    }

    /// A folder of cargo's target folder: `name` for the machine at hand, `name-ARCHITECTURE` for others.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let target = cargo::target()?;
        Ok(match self.host {
            None => target.join(name),
            Some(_) => target.join(format!("{name}-{}", self.architecture.docker)),
        })
    }

    /// A command whose child processes know the date.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string()).env("LC_ALL", "C.UTF-8");
        command.env("TZ", "UTC").stdin(std::process::Stdio::null());
        command
    }
}

/// The architecture of a target triple.
fn architecture(triple: &str) -> Result<Architecture> {
    let start = |triple: &str| triple.split('-').next().unwrap_or_default().to_owned();
    let known = ARCHITECTURES.iter().find(|known| start(known.triple) == start(triple));
    known.copied().filter(|_| triple.contains("-linux-")).with_context(|| {
        let all: Vec<_> = ARCHITECTURES.iter().map(|known| known.triple).collect();
        format!("there are no packages for {triple}\nhint: choose one of {}", all.join(", "))
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
    git.args(["log", "-1", "--format=%ct"]).current_dir(cargo::workspace()?);
    let text = command::quietly(&mut git).context(
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
        let arm = architecture("armv7-unknown-linux-musleabihf").unwrap();
        assert_eq!((arm.deb, arm.rpm), ("armhf", "armv7hl"));
        for other in ["sparc64-unknown-linux-gnu", "x86_64-pc-windows-gnu", "arm64"] {
            let error = architecture(other).unwrap_err().to_string();
            assert!(error.contains(other) && error.contains("x86_64-unknown"), "{error}");
        }
    }

    /// A misspelt triple would show only when somebody builds for it.
    #[test]
    fn rustc_knows_all_triples() {
        let known =
            command::quietly(Command::new("rustc").args(["--print", "target-list"])).unwrap();
        for one in ARCHITECTURES {
            assert!(known.lines().any(|line| line == one.triple), "{}", one.triple);
            assert_eq!(architecture(one.triple).unwrap(), one);
        }
    }

    #[test]
    fn the_date_of_the_environment_comes_first() {
        assert_eq!(epoch(Some("1700000000")).unwrap(), 1_700_000_000);
        assert!(epoch(Some("today")).unwrap_err().to_string().contains("today"));
    }
}
