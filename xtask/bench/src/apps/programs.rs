//! Debian's programs, which need not be installed: packages that are missing are unpacked below the target folder, where
//! nothing is configured and no service is started, and copied to where the ordinary user can run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use xtask_support::{cargo, command, host};

use crate::machine::Machine;

/// Packages, each with one of its programs. PostgreSQL's are in a folder for its version.
const PACKAGES: [(&str, &str); 5] = [
    ("postgres", "postgresql"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
];

fn unpacked() -> Result<PathBuf> {
    Ok(cargo::target()?.join("bench-apps"))
}

/// Where programs are in a root file system.
fn folders(root: &Path) -> Vec<PathBuf> {
    let versions = fs::read_dir(root.join("usr/lib/postgresql")).into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    versions.reverse();
    versions.extend(["usr/sbin", "usr/bin"].map(|dir| root.join(dir)));
    versions
}

fn find_in(root: &Path, program: &str) -> Option<PathBuf> {
    folders(root).into_iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Makes sure that the programs are installed or unpacked. Needs the machine's network.
pub(in super::super) fn fetch() -> Result<()> {
    let root = unpacked()?;
    let missing = PACKAGES.iter().filter(|(program, _)| {
        find_in(Path::new("/"), program).is_none() && find_in(&root, program).is_none()
    });
    let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let words = missing.join(" ");
    ensure!(
        host::find("apt-get").is_some() && host::find("dpkg-deb").is_some(),
        "missing programs, which Debian has in the packages {words}\n\
         hint: install the programs yourself; their services need not run"
    );
    eprintln!("unpacking {words} below {}; nothing is installed", root.display());
    let cache = tempfile::tempdir()?;
    fs::create_dir(cache.path().join("partial"))?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "--download-only", "-y", "-qq", "--no-install-recommends"]);
        command.arg("-o").arg(format!("Dir::Cache::archives={}", cache.path().display()));
        command::quietly(command.args(&missing).stdin(Stdio::null()))
    };
    // The package lists of a fresh machine may be missing or old.
    if download().is_err() {
        command::quietly(Command::new("apt-get").args(["update", "-qq"]).stdin(Stdio::null()))?;
        download()?;
    }
    fs::create_dir_all(&root)?;
    for entry in fs::read_dir(cache.path())?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            command::quietly(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
        }
    }
    for (program, package) in PACKAGES {
        ensure!(
            find_in(Path::new("/"), program).or_else(|| find_in(&root, program)).is_some(),
            "{program} is not in the package {package} of this release\nhint: install {program} yourself"
        );
    }
    Ok(())
}

/// The programs, in a place where the ordinary user can run them.
#[derive(Debug)]
pub(super) struct Programs {
    root: PathBuf,
    /// For programs and libraries that are not installed.
    pub(super) library_path: String,
}

impl Programs {
    pub(super) fn place(machine: &Machine) -> Result<Self> {
        let (from, root) = (unpacked()?, machine.path("bin/apps"));
        if from.is_dir() {
            command::quietly(Command::new("cp").arg("-a").arg(&from).arg(&root))?;
        }
        let mut libraries = Vec::new();
        for dir in ["usr/lib", "lib"].map(|dir| root.join(dir)) {
            let inner = fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path());
            // The folder for this architecture.
            libraries.extend(inner.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
            libraries.push(dir);
        }
        let libraries: Vec<String> =
            libraries.iter().map(|path| path.display().to_string()).collect();
        Ok(Self { root, library_path: libraries.join(":") })
    }

    pub(super) fn find(&self, program: &str) -> Result<PathBuf> {
        let installed = find_in(Path::new("/"), program);
        installed
            .or_else(|| find_in(&self.root, program))
            .with_context(|| format!("{program} is neither installed nor unpacked"))
    }
}
