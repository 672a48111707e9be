//! Static programs: one build for every distribution, for empty containers and for old hosts.
//!
//! The C library is linked in (`+crt-static` on the GNU target, which the stock toolchain has). That is sound here
//! because nothing looks up users, groups or hosts through it: a static glibc would load the host's modules for that.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::release::Release;
use crate::host;

/// A program that users get.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The package of the workspace that it is built from.
    pub(super) package: &'static str,
    /// Arguments for a trial run that changes nothing.
    args: &'static [&'static str],
    /// What the trial run must print; whether it succeeds is the program's business.
    says: &'static str,
}

/// All programs that users get.
pub(super) const PROGRAMS: [Program; 5] = [
    Program {
        name: "rootlesskit",
        package: "rootlesskit",
        args: &["--version"],
        says: "rootlesskit version ",
    },
    Program {
        name: "rootlessctl",
        package: "rootlesskit",
        args: &["--version"],
        says: "rootlessctl version ",
    },
    Program {
        name: "rootlesskit-docker-proxy",
        package: "rootlesskit-docker-proxy",
        args: &[],
        says: "ROOTLESSKIT_STATE_DIR is not set",
    },
    Program {
        name: "dockerd-rootless",
        package: "dockerd-rootless",
        args: &[],
        says: "refuses to run as root",
    },
    Program {
        name: "dockerd-rootless-setuptool",
        package: "setuptool",
        args: &["--help"],
        says: "Rootless Docker",
    },
];

/// Where each program lies.
pub(super) type Programs = BTreeMap<&'static str, PathBuf>;

/// The packages to build, each once.
pub(super) fn packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = PROGRAMS.iter().map(|program| program.package).collect();
    packages.dedup();
    packages
}

/// The network drivers that can be left out, and whether they are: those of this program's own features, by which the man
/// pages go as well.
const DRIVERS: [(&str, bool); 5] = [
    ("gateway", cfg!(feature = "gateway")),
    ("lxc-user-nic", cfg!(feature = "lxc-user-nic")),
    ("pasta", cfg!(feature = "pasta")),
    ("slirp4netns", cfg!(feature = "slirp4netns")),
    ("vpnkit", cfg!(feature = "vpnkit")),
];

/// What tells cargo which drivers the programs have.
pub(super) fn features() -> [String; 2] {
    let here = DRIVERS.iter().filter(|(_, here)| *here);
    let names: Vec<_> = here.map(|(name, _)| format!("rootlesskit/{name}")).collect();
    ["--no-default-features".to_owned(), format!("--features={}", names.join(","))]
}

/// The programs in the folder `dir`.
pub(super) fn in_folder(dir: &Path) -> Programs {
    PROGRAMS.iter().map(|program| (program.name, dir.join(program.name))).collect()
}

/// Builds all programs statically below `build_dir`.
///
/// # Errors
/// Cargo fails.
pub(super) fn build(release: &Release, build_dir: &Path) -> Result<()> {
    let mut cargo = host::cargo();
    cargo.args(["build", "--release", "--locked", "--target", &release.triple]).args(features());
    for package in packages() {
        cargo.args(["-p", package]);
    }
    let flags = rust_flags(build_dir)?;
    cargo
        .current_dir(host::workspace()?)
        .env("CARGO_TARGET_DIR", build_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    host::visibly(&mut cargo)
}

/// The folder in which [`build`] leaves the programs.
pub(super) fn folder(release: &Release, build_dir: &Path) -> PathBuf {
    build_dir.join(&release.triple).join("release")
}

/// What rustc gets: flags of the environment, a static C library, and no path of this machine in the output. With
/// `--target` cargo gives them to the programs only, not to build scripts and macros.
fn rust_flags(build_dir: &Path) -> Result<String> {
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
    flags.push("-Ctarget-feature=+crt-static".to_owned());
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    // The last match counts, and the build folder usually lies in the workspace.
    for (from, to) in
        [(cargo_home.as_path(), "/cargo"), (&host::workspace()?, "/source"), (build_dir, "/build")]
    {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags.join("\u{1f}"))
}

/// Proves that the programs are static: no interpreter, no needed library, and a run in an empty root.
///
/// # Errors
/// One is not.
pub(super) fn check(programs: &Programs) -> Result<()> {
    for program in PROGRAMS {
        let path = programs.get(program.name).context(program.name)?;
        let headers = host::quietly(
            Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(path),
        )?;
        if let Some(line) = needs_a_library(&headers) {
            bail!("{} is not static: {line}", path.display());
        }
        run_alone(&program, path)?;
    }
    Ok(())
}

/// The line of readelf(1)'s output that says that something else must be loaded.
fn needs_a_library(headers: &str) -> Option<&str> {
    headers
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("INTERP ") || line.contains("(NEEDED)"))
}

/// Runs a program in a root that holds nothing else.
fn run_alone(program: &Program, path: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    fs::copy(path, root.path().join(program.name))
        .with_context(|| format!("copying {}", path.display()))?;
    let mut command = if host::euid()? == 0 {
        Command::new(host::find("chroot").context("chroot")?)
    } else {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "chroot"]);
        unshare
    };
    command.arg(root.path()).arg(format!("/{}", program.name)).args(program.args).env_clear();
    let output = command.output().with_context(|| format!("running {}", program.name))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        said.contains(program.says),
        "{} does not run in an empty root: {}\n{said}",
        program.name,
        output.status
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_programs_are_found_out() {
        let own = std::env::current_exe().unwrap();
        let headers =
            host::quietly(Command::new("readelf").args(["-W", "-l", "-d"]).arg(own)).unwrap();
        assert!(needs_a_library(&headers).is_some(), "{headers}");
        assert_eq!(needs_a_library("  LOAD 0x0\n  DYNAMIC 0x1\n (DEBUG) 0x0\n"), None);
    }

    #[test]
    fn the_programs_have_the_drivers_that_the_man_page_has() {
        let page = rootlesskit::definition().render_long_help().to_string();
        let net = page.lines().skip_while(|line| !line.trim_start().starts_with("--net ")).nth(1);
        let [_, features] = features();
        for (name, here) in DRIVERS {
            let enabled =
                features.split(['=', ',']).any(|one| one == format!("rootlesskit/{name}"));
            assert_eq!(enabled, here, "{name}: {features}");
            assert_eq!(net.unwrap().contains(name), here, "{name}: {net:?}");
        }
    }

    #[test]
    fn flags_of_the_build_folder_come_last() {
        let flags = rust_flags(Path::new("/b")).unwrap();
        assert!(flags.contains("+crt-static"), "{flags}");
        assert!(flags.ends_with("--remap-path-prefix=/b=/build"), "{flags}");
    }
}
