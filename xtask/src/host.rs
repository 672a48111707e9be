//! What the machine has: who runs this, which programs are there, and how the missing ones get there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A program that must be found, and the Debian package that brings it.
pub(crate) type Need = (&'static str, &'static str);

/// The folder of the workspace.
pub(crate) fn workspace() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("the workspace folder")?.to_owned())
}

/// Cargo's target folder; the running program lies in it.
pub(crate) fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    Ok(found
        .with_context(|| format!("{} is not in a cargo target folder", exe.display()))?
        .to_owned())
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.stdin(Stdio::null());
    command
}

/// The effective user id, from `/proc/self/status` (proc_pid_status(5)).
pub(crate) fn euid() -> Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .context("no Uid: in /proc/self/status")?;
    line.split_whitespace().nth(1).context("no effective uid")?.parse().context("the effective uid")
}

/// Finds a program in PATH or in the folders that an ordinary user's PATH leaves out on Debian.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|dir| Path::new(dir).join(program)).find(
        |file| {
            fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        },
    )
}

/// Makes sure of `needs`: installs what is missing where that is possible, and otherwise says exactly what to do.
pub(crate) fn ensure_programs(needs: &[Need]) -> Result<()> {
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

/// Runs a command and shows its output only if it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    if !output.status.success() {
        let both = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&both).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that shows its own progress.
pub(crate) fn visibly(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("running {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// The binaries that users get, and the packages they are built from.
pub(crate) const BINARIES: [&str; 5] = [
    "rootlesskit",
    "rootlessctl",
    "rootlesskit-docker-proxy",
    "dockerd-rootless",
    "dockerd-rootless-setuptool",
];

/// Builds [`BINARIES`] as released.
pub(crate) fn build_release() -> Result<()> {
    let packages = ["rootlesskit", "rootlesskit-docker-proxy", "dockerd-rootless", "setuptool"];
    let packages = packages.iter().flat_map(|name| ["-p", name]);
    visibly(cargo().current_dir(workspace()?).args(["build", "--release"]).args(packages))
}
