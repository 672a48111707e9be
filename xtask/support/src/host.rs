//! What the machine has: who runs this, which programs are there, and how the missing ones get there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::command::quietly;

/// A program that must be found, and the Debian package that brings it.
pub type Need = (&'static str, &'static str);

/// The effective user id, from `/proc/self/status` (proc_pid_status(5)).
pub fn euid() -> Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .context("no Uid: in /proc/self/status")?;
    line.split_whitespace().nth(1).context("no effective uid")?.parse().context("the effective uid")
}

/// The release of the running kernel; empty if it cannot be read.
#[must_use]
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The model of the processors as the kernel names it; empty on architectures where it does not.
#[must_use]
pub fn processor_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned()
}

/// Finds a program in PATH or in the folders that an ordinary user's PATH leaves out on Debian.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|dir| Path::new(dir).join(program)).find(
        |file| {
            fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        },
    )
}

/// Makes sure of `needs`: installs what is missing where that is possible, and otherwise says exactly what to do.
pub fn ensure_programs(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let words = packages.join(" ");
    let list = programs.join(", ");
    ensure!(
        find("apt-get").is_some(),
        "missing programs: {list}\nhint: install them (on Debian they are in the packages {words})"
    );
    ensure!(
        euid()? == 0,
        "missing programs: {list}\nhint: sudo apt-get install --no-install-recommends {words}"
    );
    eprintln!("installing {words} (for {list}); these packages stay");
    let _quiet = NoDaemons::begin()?;
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&packages);
        quietly(command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()))
    };
    // The package lists of a fresh machine may be missing or old.
    if install().is_err() {
        quietly(Command::new("apt-get").args(["update", "-qq"]).stdin(Stdio::null()))?;
        install()?;
    }
    Ok(())
}

/// While it lives, packages do not start their daemons (invoke-rc.d(8) and deb-systemd-invoke(1p) ask this script).
struct NoDaemons(Option<PathBuf>);

impl NoDaemons {
    fn begin() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self(None));
        }
        fs::write(&path, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(Some(path)))
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
