//! Root file systems of the boxes, and what else is made of Debian packages: made once per recipe with `mmdebstrap`,
//! then only read.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache;

/// A Debian release, and with it a generation of Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Debian 11: Docker 20.10.5, rootlesskit 0.14.2, slirp4netns 1.0.1, no passt. Only kernels are tried with it.
    Bullseye,
    /// Debian 12: Docker 20.10.24, rootlesskit 1.1.0, slirp4netns 1.2.0, a passt too old for rootlesskit.
    Bookworm,
    /// Debian 13: Docker 26.1.5, rootlesskit 2.0.2, slirp4netns 1.2.1.
    Trixie,
    /// Debian unstable: Docker 28.5, rootlesskit 2.0.2, slirp4netns 1.3.3.
    Sid,
}

impl Suite {
    /// All suites that the scenarios use.
    pub const ALL: [Self; 3] = [Self::Sid, Self::Trixie, Self::Bookworm];

    /// Debian's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// The suite of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Bullseye].into_iter().chain(Self::ALL).find(|suite| suite.name() == name)
    }

    /// What its root file system is made of.
    fn recipe(self) -> Recipe {
        Recipe {
            name: self.name().to_owned(),
            suite: self.name(),
            options: OPTIONS.map(str::to_owned).to_vec(),
            packages: self.packages(),
            hooks: vec![ACCOUNT.to_owned(), SETTINGS.to_owned()],
        }
    }

    fn packages(self) -> String {
        let own = match self {
            Self::Bullseye => "",
            Self::Bookworm => "passt",
            Self::Trixie => "passt docker-cli",
            Self::Sid => "passt docker-cli docker-buildx liblxc-common dnsmasq-base tshark",
        };
        PACKAGES.split_whitespace().chain(own.split_whitespace()).collect::<Vec<_>>().join(",")
    }
}

/// Packages of every root file system. Docker's client is a package of its own since trixie. One of the suites has what
/// `--net=lxc-user-nic` takes: the setuid program, which is in liblxc-common, and a DHCP server without its service.
const PACKAGES: &str = "
    docker.io rootlesskit slirp4netns uidmap fuse-overlayfs
    iptables nftables iproute2 iputils-ping bind9-dnsutils curl netcat-openbsd socat iperf3
    procps kmod strace jq less openssl ca-certificates libcap2-bin busybox-static python3-minimal
    systemd systemd-sysv dbus dbus-user-session libpam-systemd";

/// The account the scenarios use. `useradd` itself adds the first free range to `/etc/subuid` and `/etc/subgid`.
const ACCOUNT: &str = r#"chroot "$1" useradd --create-home --uid 1001 --shell /bin/bash tester"#;

/// Small files that differ from what the packages bring.
const SETTINGS: &str = r#"set -e; cd "$1"
    echo 127.0.0.1 localhost testbox > etc/hosts; echo ::1 localhost >> etc/hosts
    echo testbox > etc/hostname
    rm -f etc/resolv.conf; echo nameserver 10.77.0.2 > etc/resolv.conf
    ln -sf /usr/share/docker.io/contrib/dockerd-rootless.sh usr/bin/dockerd-rootless.sh"#;

/// Options of mmdebstrap(1) for a small tree.
pub const OPTIONS: [&str; 9] = [
    "--mode=root",
    "--variant=minbase",
    "--skip=check/qemu",
    "--aptopt=Acquire::Languages \"none\"",
    // Mirrors that are snapshots serve Release files whose validity has passed.
    "--aptopt=Acquire::Check-Valid-Until \"false\"",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
];

/// What a root file system is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What people call it: the name of a suite, or of a purpose and a suite. In the cache it stands before the hash of
    /// options, packages and hooks.
    pub name: String,
    /// The release of Debian.
    pub suite: &'static str,
    /// Options of mmdebstrap(1), usually [`OPTIONS`] and more.
    pub options: Vec<String>,
    /// Names of packages, separated by commas; none besides those of the variant if it is empty.
    pub packages: String,
    /// Shell commands that are run with the tree as `$1` when the packages are there.
    pub hooks: Vec<String>,
}

impl Hash for Recipe {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.options, &self.packages).hash(state);
        self.hooks.iter().for_each(|hook| hook.hash(state));
    }
}

/// A root file system in the cache.
#[derive(Debug, Clone)]
pub struct Rootfs {
    path: PathBuf,
}

impl Rootfs {
    /// The tree of the test hosts of `suite`; see [`Rootfs::made`].
    ///
    /// # Errors
    /// See [`Rootfs::made`].
    pub fn get(suite: Suite) -> Result<Self> {
        Self::with(suite, &[])
    }

    /// The same with more packages, if there are any.
    ///
    /// # Errors
    /// See [`Rootfs::made`].
    pub fn with(suite: Suite, packages: &[&str]) -> Result<Self> {
        let mut recipe = suite.recipe();
        for package in packages {
            recipe.packages.push(',');
            recipe.packages.push_str(package);
        }
        Self::made(&recipe)
    }

    /// The tree of `recipe`, made now if the cache does not hold it (one to three minutes, needs a Debian mirror).
    ///
    /// # Errors
    /// `mmdebstrap` is missing or failed; the message holds the end of its output.
    pub fn made(recipe: &Recipe) -> Result<Self> {
        Ok(Self { path: cache::get(&recipe.name, recipe, |path| make(recipe, path))? })
    }

    /// The tree with the emulator of virtual machines. It is no test host: nothing is installed on the
    /// machine that runs the tests, whose own packages may be in conflict with an emulator's.
    ///
    /// # Errors
    /// See [`Rootfs::made`].
    pub(crate) fn emulator() -> Result<Self> {
        Self::made(&Recipe {
            name: "emulator-trixie".to_owned(),
            suite: Suite::Trixie.name(),
            options: OPTIONS.map(str::to_owned).to_vec(),
            packages: "qemu-system-x86".to_owned(),
            hooks: Vec::new(),
        })
    }

    /// Where it lies. Never write there.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn make(recipe: &Recipe, path: &Path) -> Result<()> {
    let mirror = mirror()?;
    let mut command = Command::new("mmdebstrap");
    command.args(&recipe.options).args(apt_proxies()?);
    if !recipe.packages.is_empty() {
        command.arg(format!("--include={}", recipe.packages));
    }
    command.args(recipe.hooks.iter().map(|hook| format!("--customize-hook={hook}")));
    command.arg(recipe.suite).arg(path).arg(mirror);
    cache::step(&format!("mmdebstrap {}", recipe.name), &mut command)
}

/// The mirror this machine's own apt uses for the main archive; security and update archives have other suites.
///
/// # Errors
/// apt has no such source.
pub fn mirror() -> Result<String> {
    let format = "$(SITE)";
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Created-By: Packages", "Component: main"])
        .output()
        .context("running apt-get indextargets")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find(|site| site.starts_with("http") && !site.contains("security"))
        .map(|site| site.trim_end_matches('/').to_owned())
        .context("apt has no source over http\nhint: add a Debian mirror to /etc/apt/sources.list and run apt-get update")
}

/// The proxy settings of this machine's apt, which `mmdebstrap` by itself does not read.
fn apt_proxies() -> Result<Vec<String>> {
    let output = Command::new("apt-config").arg("dump").output().context("running apt-config")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_proxy = |line: &&str| line.starts_with("Acquire::http") && line.contains("Proxy");
    let option = |line: &str| format!("--aptopt={}", line.trim_end_matches(';'));
    Ok(text.lines().filter(is_proxy).map(option).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_recipes_of_suites_differ() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_name(suite.name()), Some(suite));
        }
        assert_eq!(Suite::from_name("potato"), None);
        let [sid, trixie, bookworm] = Suite::ALL.map(|suite| cache::hash(suite.recipe()));
        assert_ne!(sid, bookworm);
        assert_ne!(trixie, bookworm);
        let more = Recipe { hooks: vec![ACCOUNT.to_owned()], ..Suite::Sid.recipe() };
        assert_ne!(cache::hash(more), sid);
    }
}
