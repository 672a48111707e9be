//! A Debian tree with compilers for another architecture, for machines whose toolchain has no standard library for it.
//!
//! # Theory of operation
//! Debian's `rustc` compiles for every architecture whose `libstd-rust-dev` is there, and has C compilers for all of
//! them. So the tree of a target ([`recipe`]) is made once, like the test hosts, and cached beside them. A build enters
//! it without network and sees sources, crates and tools read-only; only the build folder is writable. All of them lie
//! at fixed places, so no path of the machine gets into the programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ::tests::rootfs::OPTIONS;
use ::tests::{Recipe, Rootfs};
use anyhow::{Context as _, Result, ensure};
use xtask_support::host::{self, Need};
use xtask_support::{cargo, command};

use crate::release::{Architecture, Release};

/// What making and entering the tree needs.
pub(crate) const NEEDS: &[Need] =
    &[("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux"), ("chroot", "coreutils")];

/// Where the standard library comes from: unstable may have compilers of one version and libraries of another.
const SUITE: &str = "testing";

/// Cargo's own folder, below the build folder.
const CARGO_HOME: &str = "cargo-home";

/// Tells cargo where the crates lie.
const CARGO_CONFIG: &str =
    "[source.crates-io]\nreplace-with = \"vendored\"\n[source.vendored]\ndirectory = \"/vendor\"\n";

/// Where the build mounts things.
const MOUNT_POINTS: &str = r#"cd "$1" && mkdir source vendor tools build"#;

/// `$0` is the tree, `$1` to `$4` are sources, crates, tools and build folder; the rest is run in it. The namespaces end
/// with it, and the mounts with them.
const ENTER: &str = r#"set -e; root=$0
    mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"
    for name in source vendor tools; do
        mount --bind "$1" "$root/$name"
        mount -o remount,bind,ro "$root/$name"; shift
    done
    mount --bind "$1" "$root/build"; shift
    mount -t proc proc "$root/proc"; mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" "$@""#;

/// The tree for `foreign` on a machine of the architecture `own`.
fn recipe(own: Architecture, foreign: Architecture) -> Recipe {
    let (gnu, deb) = (foreign.gnu.replace('_', "-"), foreign.deb);
    let mut options = OPTIONS.map(str::to_owned).to_vec();
    options.push(format!("--architectures={},{deb}", own.deb));
    // Installed, it would bring that architecture's C library and LLVM along.
    let library = format!(
        r#"set -e; cd "$1/tmp"; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
        apt-get download -qq libstd-rust-dev:{deb}
        dpkg-deb -x libstd-rust-dev_*.deb "$1"; rm libstd-rust-dev_*.deb"#
    );
    Recipe {
        name: format!("build-{SUITE}-{deb}"),
        suite: SUITE,
        options,
        packages: format!("cargo,rustc,gcc,gcc-{gnu},libc6-dev-{deb}-cross"),
        hooks: vec![library, MOUNT_POINTS.to_owned()],
    }
}

/// Says what is missing where no tree can be made.
///
/// # Errors
/// This is no Debian machine, or we are not root on it.
pub(crate) fn possible(release: &Release) -> Result<()> {
    let (triple, gnu) = (&release.triple, release.architecture.gnu);
    let means = format!(
        "hint: rustup target add {triple}, and install {gnu}-gcc with its C library; or run it as root on Debian \
         (or a relative), where it makes itself a tree with both"
    );
    ensure!(
        *triple == release.architecture.triple,
        "there is no standard library of Rust for {triple} here, and Debian has none\n{means}"
    );
    ensure!(
        host::find("apt-get").is_some() && host::euid()? == 0,
        "there is no standard library of Rust for {triple} here, or no {gnu}-gcc\n{means}"
    );
    host::ensure_programs(NEEDS)
}

/// Runs cargo with these arguments, and with the programs in `tools`, for another architecture than the machine's.
///
/// # Errors
/// The tree cannot be made, crates cannot be fetched, or cargo fails.
pub(crate) fn build(
    release: &Release,
    own: Architecture,
    build_dir: &Path,
    tools: &Path,
    cargo: &[&str],
) -> Result<()> {
    let tree = Rootfs::made(&recipe(own, release.architecture))?;
    let vendor = vendor(build_dir)?;
    let home = build_dir.join(CARGO_HOME);
    fs::create_dir_all(&home)?;
    fs::write(home.join("config.toml"), CARGO_CONFIG)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child"]);
    command.args(["sh", "-c", ENTER]).arg(tree.path());
    command.arg(cargo::workspace()?).args([&vendor, tools, build_dir]);
    command.args(["env", "--chdir=/source", "cargo"]).args(cargo);
    let linker = format!("CARGO_TARGET_{}_LINKER", variable(&release.triple));
    command
        .env_clear()
        .env("PATH", "/tools:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/build")
        .env("CARGO_HOME", Path::new("/build").join(CARGO_HOME))
        .env("CARGO_TARGET_DIR", "/build")
        .env(linker, format!("{}-gcc", release.architecture.gnu))
        .env("CARGO_ENCODED_RUSTFLAGS", crate::flags::rust_flags(&[]))
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .stdin(Stdio::null());
    crate::auditable::wrap(&mut command);
    command::visibly(&mut command)
}

/// A triple as names of cargo's variables have it.
pub(crate) fn variable(triple: &str) -> String {
    triple.to_uppercase().replace('-', "_")
}

/// All crates of `Cargo.lock`, unpacked.
fn vendor(build_dir: &Path) -> Result<PathBuf> {
    let vendor = build_dir.join("vendor");
    fs::create_dir_all(build_dir).with_context(|| format!("making {}", build_dir.display()))?;
    let mut cargo = cargo::command();
    cargo.args(["vendor", "--quiet", "--locked", "--versioned-dirs", "--respect-source-config"]);
    command::quietly(cargo.arg(&vendor).current_dir(cargo::workspace()?))?;
    Ok(vendor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::ARCHITECTURES;

    #[test]
    fn every_target_has_its_compiler_and_libraries() {
        let [own, foreign @ ..] = ARCHITECTURES;
        for one in foreign {
            let recipe = recipe(own, one);
            assert!(recipe.options.contains(&format!("--architectures=amd64,{}", one.deb)));
            for package in [format!("gcc-{}", one.gnu), format!("libc6-dev-{}-cross", one.deb)] {
                assert!(recipe.packages.split(',').any(|name| name == package), "{recipe:?}");
            }
            assert!(recipe.hooks[0].contains(&format!(":{}\n", one.deb)), "{recipe:?}");
        }
        assert!(recipe(foreign[0], own).packages.contains("gcc-x86-64-linux-gnu,"));
        assert_eq!(variable("s390x-unknown-linux-gnu"), "S390X_UNKNOWN_LINUX_GNU");
    }
}
