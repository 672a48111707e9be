//! Static programs: one build for every distribution, for empty containers and for old hosts.
//!
//! The C library is linked in (`+crt-static` on the GNU target, which the stock toolchain has). That is sound here
//! because nothing looks up users, groups or hosts through it: a static glibc would load the host's modules for that.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xtask_support::host::{self, Need};
use xtask_support::{cargo, command};

use crate::flags::rust_flags;
use crate::programs::{PROGRAMS, Program, Programs, features, packages};
use crate::release::Release;
use crate::{auditable, buildroot};

/// Builds all programs statically below `build_dir`, each with the list of its crates.
///
/// # Errors
/// There is no toolchain for the target, or cargo fails.
pub(crate) fn build(release: &Release, build_dir: &Path) -> Result<()> {
    let mut arguments = vec!["build", "--release", "--locked", "--target", &release.triple];
    arguments.extend(packages().iter().flat_map(|package| ["-p", package]));
    let features = features();
    arguments.extend(features.iter().map(String::as_str));
    let tools = auditable::tool()?;
    let mut cargo = cargo::command();
    if let Some(own) = release.host {
        match linker(release)? {
            Some((variable, program)) => cargo.env(variable, program),
            None => {
                buildroot::possible(release)?;
                arguments.push("--offline");
                return buildroot::build(release, own, build_dir, &tools, &arguments);
            }
        };
    }
    auditable::wrap(&mut cargo);
    let mut path = tools.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let flags = rust_flags(&[
        (&cargo_home()?, "/cargo"),
        // The last match counts, and the build folder usually lies in the workspace.
        (&cargo::workspace()?, "/source"),
        (build_dir, "/build"),
    ]);
    cargo
        .args(arguments)
        .current_dir(cargo::workspace()?)
        .env("CARGO_TARGET_DIR", build_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .env("PATH", path);
    command::visibly(&mut cargo)
}

/// Where this machine itself can build for another one, the variable that tells cargo the linker, and the linker.
fn linker(release: &Release) -> Result<Option<(String, OsString)>> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", &release.triple]);
    let libraries = command::quietly(&mut command)?;
    let mut files = fs::read_dir(libraries.trim()).into_iter().flatten().flatten();
    if !files.any(|file| file.file_name().to_string_lossy().starts_with("libstd-")) {
        return Ok(None);
    }
    let variable = format!("CARGO_TARGET_{}_LINKER", buildroot::variable(&release.triple));
    let given = std::env::var_os(&variable).filter(|program| !program.is_empty());
    let found = || host::find(&format!("{}-gcc", release.architecture.gnu)).map(OsString::from);
    Ok(given.or_else(found).map(|program| (variable, program)))
}

fn cargo_home() -> Result<PathBuf> {
    Ok(match std::env::var_os("CARGO_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    })
}

/// The folder in which [`build`] leaves the programs.
pub(crate) fn folder(release: &Release, build_dir: &Path) -> PathBuf {
    cargo::static_programs(build_dir, &release.triple)
}

/// Proves that the programs are static: no interpreter, no needed library, and a run in an empty root. Programs for
/// other machines run in it with QEMU's emulation of a processor. Reports how large they are and how fast one starts.
///
/// # Errors
/// One is not, or it is for another machine.
pub(crate) fn check(release: &Release, programs: &Programs) -> Result<()> {
    for program in PROGRAMS {
        let path = programs.get(program.name).context(program.name)?;
        let mut readelf = Command::new("readelf");
        readelf.args(["--wide", "--file-header", "--program-headers", "--dynamic"]).arg(path);
        let headers = command::quietly(readelf.env("LC_ALL", "C.UTF-8"))?;
        if let Some(line) = needs_a_library(&headers) {
            bail!("{} is not static: {line}", path.display());
        }
        let machine = headers.lines().find_map(|line| line.trim().strip_prefix("Machine:"));
        let machine = machine.map_or("", str::trim);
        ensure!(
            machine.ends_with(release.architecture.machine),
            "{} is for {machine:?}, not for {:?}",
            path.display(),
            release.architecture.machine
        );
        run_alone(release, &program, path)?;
        eprintln!("{:>9} bytes  {}", fs::metadata(path)?.len(), program.name);
    }
    if release.host.is_none() {
        let [first, ..] = PROGRAMS;
        let path = programs.get(first.name).context(first.name)?;
        eprintln!(
            "{:>9.1?} for {} {}",
            start_up(path, first.args)?,
            first.name,
            first.args.join(" ")
        );
    }
    Ok(())
}

/// The shortest of several runs: what the program itself takes.
fn start_up(program: &Path, args: &[&str]) -> Result<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        command::quietly(Command::new(program).args(args))?;
        shortest = shortest.min(started.elapsed());
    }
    Ok(shortest)
}

/// What runs programs of another machine.
pub(crate) fn emulator(release: &Release) -> Option<Need> {
    release.host.map(|_| (release.architecture.emulator, "qemu-user-static"))
}

/// The line of readelf(1)'s output that says that something else must be loaded.
fn needs_a_library(headers: &str) -> Option<&str> {
    headers
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("INTERP ") || line.contains("(NEEDED)"))
}

/// Runs a program in a root that holds nothing else (but the emulator, which is static, too).
fn run_alone(release: &Release, program: &Program, path: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    let mut words = Vec::new();
    let mut bring = |name: &str, from: &Path| {
        words.push(format!("/{name}"));
        fs::copy(from, root.path().join(name))
            .with_context(|| format!("copying {}", from.display()))
    };
    if let Some((name, _)) = emulator(release) {
        bring(name, &host::find(name).with_context(|| name.to_owned())?)?;
    }
    bring(program.name, path)?;
    let mut command = if host::euid()? == 0 {
        Command::new(host::find("chroot").context("chroot")?)
    } else {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "chroot"]);
        unshare
    };
    command.arg(root.path()).args(words).args(program.args).env_clear();
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
            command::quietly(Command::new("readelf").args(["-W", "-l", "-d"]).arg(own)).unwrap();
        assert!(needs_a_library(&headers).is_some(), "{headers}");
        assert_eq!(needs_a_library("  LOAD 0x0\n  DYNAMIC 0x1\n (DEBUG) 0x0\n"), None);
    }
}
