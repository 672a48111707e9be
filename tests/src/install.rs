//! Which rootlesskit a box gets: the one of this repository or Debian's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths;

/// The launcher that Debian's docker.io ships, unmodified from upstream apart from distribution patches.
pub const UPSTREAM_LAUNCHER: &str = "/usr/share/docker.io/contrib/dockerd-rootless.sh";

/// The setup tool that Debian's docker.io ships.
pub const UPSTREAM_SETUPTOOL: &str = "/usr/share/docker.io/contrib/dockerd-rootless-setuptool.sh";

/// Variable that chooses what all boxes run: `ours` (default) or `theirs`.
pub const UNDER_VARIABLE: &str = "UNDER";

/// What is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// The binaries of this repository, in place of Debian's.
    Ours,
    /// Debian's rootlesskit, rootlessctl, rootlesskit-docker-proxy, launcher and setup tool.
    Theirs,
}

impl Under {
    /// What [`UNDER_VARIABLE`] asks for.
    #[must_use]
    pub fn from_env() -> Self {
        match std::env::var(UNDER_VARIABLE) {
            Ok(value) if value == "theirs" => Self::Theirs,
            _ => Self::Ours,
        }
    }
}

/// Our binaries and where a package would put them.
const BINARIES: [&str; 5] = [
    "rootlesskit",
    "rootlessctl",
    "rootlesskit-docker-proxy",
    "dockerd-rootless",
    "dockerd-rootless-setuptool",
];

/// The programs that are known by the names of scripts, too.
const SCRIPTS: [&str; 2] = ["dockerd-rootless", "dockerd-rootless-setuptool"];

/// Puts the fixture program and, for [`Under::Ours`], our binaries into the tree `root`.
pub(crate) fn install(root: &Path, under: Under) -> Result<()> {
    copy(&paths::fixture()?, &root.join("usr/local/bin/fixture"))?;
    let bin = root.join("usr/bin");
    if under == Under::Theirs {
        let tool = bin.join("dockerd-rootless-setuptool.sh");
        fs::remove_file(&tool).ok();
        return symlink(UPSTREAM_SETUPTOOL, &tool)
            .with_context(|| format!("linking {}", tool.display()));
    }
    for name in BINARIES {
        copy(&paths::binary(name)?, &bin.join(name))?;
    }
    for name in SCRIPTS {
        let script = bin.join(format!("{name}.sh"));
        fs::remove_file(&script).ok();
        symlink(name, &script).with_context(|| format!("linking {}", script.display()))?;
    }
    Ok(())
}

/// Puts a dockerd and its `docker-proxy` into the tree `root`, before Debian's in `PATH`.
pub(crate) fn dockerd(from: &Path, root: &Path) -> Result<()> {
    let bin = root.join("usr/local/bin");
    copy(from, &bin.join("dockerd"))?;
    copy(&from.with_file_name("docker-proxy"), &bin.join("docker-proxy"))
}

/// Replaces pasta in the tree `root` by that of the tree `from`, which brings the C library it was linked with.
pub(crate) fn pasta(from: &Path, root: &Path) -> Result<()> {
    let own = root.join("opt/pasta");
    fs::create_dir_all(&own)?;
    let libraries = "usr/lib/x86_64-linux-gnu";
    for file in [
        "usr/bin/pasta",
        &format!("{libraries}/libc.so.6"),
        &format!("{libraries}/ld-linux-x86-64.so.2"),
    ] {
        let name = Path::new(file).file_name().context("a file name")?;
        copy(&from.join(file), &own.join(name))?;
    }
    let wrapper = "#!/bin/sh\nexec /opt/pasta/ld-linux-x86-64.so.2 --argv0 pasta --library-path /opt/pasta /opt/pasta/pasta \"$@\"\n";
    let path = root.join("usr/local/bin/pasta");
    fs::write(&path, wrapper)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Has a program of `usr/local/bin` in the tree `root` use the C library of this machine, which it was linked with, so
/// that it runs on an older system.
pub(crate) fn with_own_libraries(root: &Path, program: &str) -> Result<()> {
    let own = Path::new("opt").join(program);
    fs::create_dir_all(root.join(&own))?;
    let libraries = Path::new("/lib/x86_64-linux-gnu");
    for name in ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"] {
        copy(&libraries.join(name), &root.join(&own).join(name))?;
    }
    let wrapper = root.join("usr/local/bin").join(program);
    fs::rename(&wrapper, root.join(&own).join(program))?;
    let own = Path::new("/").join(own);
    let own = own.display();
    let script = format!(
        "#!/bin/sh\nexec {own}/ld-linux-x86-64.so.2 --library-path {own} {own}/{program} \"$@\"\n"
    );
    fs::write(&wrapper, script)?;
    Ok(fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755))?)
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    // A new file: the old one may be a package's, hard-linked or running.
    fs::remove_file(to).ok();
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
