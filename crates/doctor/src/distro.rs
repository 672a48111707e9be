//! Which distribution this is (os-release(5)) and how things are done there.
//!
//! Everything an administrator is told to do goes through this module, so that each remedy exists for every family.
//! NixOS is different from all others: its `/etc` is generated, so its remedies are lines of `configuration.nix`.

use crate::remedy::Remedy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Debian, Ubuntu and what comes from them.
    Debian,
    /// Fedora and the RHEL family with dnf.
    Fedora,
    /// RHEL 7 and its like, with yum.
    Yum,
    /// openSUSE and SLES.
    Suse,
    /// Arch and Manjaro.
    Arch,
    /// Alpine and postmarketOS.
    Alpine,
    Nix,
    /// Something else: packages are named, the command is left to the reader.
    Unknown,
}

/// What a host may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// newuidmap and newgidmap.
    Uidmap,
    Iptables,
    Nftables,
    /// A bus for every user.
    UserBus,
    /// slirp4netns, or passt where slirp4netns is on its way out.
    Network,
    FuseOverlayfs,
    UtilLinux,
    Procps,
    /// The ip that is not busybox's.
    Iproute,
    DockerCli,
    /// `machinectl shell`.
    Machinectl,
    /// rootlesskit and the launcher.
    Extras,
    /// dockerd itself.
    Engine,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distro {
    pub family: Family,
    /// For people: `Debian GNU/Linux 13 (trixie)`.
    pub name: String,
    /// `ID`, for instance `ubuntu`.
    pub id: String,
    /// The first number of `VERSION_ID`.
    pub major: Option<u32>,
}

impl Distro {
    pub fn parse(os_release: &str) -> Self {
        let field = |name: &str| {
            let mut values =
                os_release.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.next().unwrap_or_default().trim().trim_matches(['"', '\''])
        };
        let id = field("ID");
        let major = field("VERSION_ID").split('.').next().and_then(|text| text.parse().ok());
        let like = field("ID_LIKE").split_whitespace();
        let mut families = [id].into_iter().chain(like).filter_map(|word| family(word, major));
        let name = [field("PRETTY_NAME"), field("NAME"), id, "an unknown distribution"];
        Self {
            family: families.next().unwrap_or(Family::Unknown),
            name: name.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned(),
            id: id.to_owned(),
            major,
        }
    }

    pub fn install(&self, package: Package, comment: &str) -> Remedy {
        let Some(name) = self.package(package) else {
            return Remedy::said(self.elsewhere(package));
        };
        // These come from repositories that may not be set up: in the block they would stop what follows.
        if let Some(advice) = self.docker_package(package, name) {
            return Remedy::said(advice);
        }
        let command = match self.family {
            Family::Debian => format!("apt-get install -y {name}"),
            Family::Fedora => format!("dnf install -y {name}"),
            Family::Yum if package == Package::Uidmap => {
                return Remedy::admin(
                    comment,
                    [
                        "curl -o /etc/yum.repos.d/vbatts-shadow-utils-newxidmap-epel-7.repo \
                         https://copr.fedorainfracloud.org/coprs/vbatts/shadow-utils-newxidmap/repo/epel-7/vbatts-shadow-utils-newxidmap-epel-7.repo",
                        "yum install -y shadow-utils46-newxidmap",
                    ],
                );
            }
            Family::Yum => format!("yum install -y {name}"),
            Family::Suse => format!("zypper --non-interactive install {name}"),
            Family::Arch => format!("pacman -S --noconfirm --needed {name}"),
            Family::Alpine => format!("apk add {name}"),
            // Its packages bring no units into the user's systemd.
            Family::Nix if package == Package::UserBus => {
                return Remedy::said("in configuration.nix, set services.dbus.enable = true;");
            }
            Family::Nix => return Remedy::said(nix_package(name)),
            Family::Unknown => {
                return Remedy::said(format!("install {name} with this system's package manager"));
            }
        };
        Remedy::admin(comment, [command])
    }

    pub(crate) fn package(&self, package: Package) -> Option<&'static str> {
        use Family::{Alpine, Arch, Debian, Fedora, Nix, Suse, Unknown, Yum};
        Some(match (package, self.family) {
            (Package::Uidmap, Debian) => "uidmap",
            (Package::Uidmap, Fedora | Yum) => "shadow-utils",
            (Package::Uidmap, Alpine) => "shadow-subids",
            (Package::Uidmap, Nix) | (Package::Machinectl, Alpine) => return None,
            (Package::Uidmap, Suse | Arch | Unknown) => "shadow",
            (Package::Iptables, Fedora) if self.id != "fedora" => "iptables-nft",
            (Package::Iptables, _) => "iptables",
            (Package::Nftables, _) => "nftables",
            (Package::UserBus, Debian) => "dbus-user-session",
            (Package::UserBus, Fedora | Yum) => "dbus-daemon",
            (Package::UserBus, Suse) => "dbus-1",
            (Package::UserBus, _) => "dbus",
            // RHEL 10 gives slirp4netns up.
            (Package::Network, Fedora) if self.id != "fedora" && self.major >= Some(10) => "passt",
            (Package::Network, _) => "slirp4netns",
            (Package::FuseOverlayfs, _) => "fuse-overlayfs",
            (Package::UtilLinux, _) => "util-linux",
            (Package::Procps, Fedora | Yum | Arch) => "procps-ng",
            (Package::Procps, _) => "procps",
            (Package::Iproute, Fedora | Yum) => "iproute",
            (Package::Iproute, _) => "iproute2",
            (Package::Machinectl, Debian | Fedora | Suse) => "systemd-container",
            (Package::Machinectl, _) => "systemd",
            (Package::DockerCli | Package::Engine, Arch | Alpine | Nix | Suse) => "docker",
            (Package::DockerCli, _) => "docker-ce-cli",
            (Package::Engine, _) => "docker-ce",
            (Package::Extras, _) => "docker-ce-rootless-extras",
        })
    }

    fn docker_package(&self, package: Package, name: &str) -> Option<String> {
        if package == Package::Extras {
            return Some(self.extras(name));
        }
        if !matches!(package, Package::DockerCli | Package::Engine) {
            return None;
        }
        let command = match self.family {
            Family::Debian => "sudo apt-get install -y",
            Family::Fedora => "sudo dnf install -y",
            Family::Yum => "sudo yum install -y",
            Family::Suse => "sudo zypper install",
            Family::Arch => "sudo pacman -S --needed",
            Family::Alpine => "sudo apk add",
            Family::Nix => return Some(nix_package(name)),
            Family::Unknown => "install the package",
        };
        let from_docker =
            matches!(self.family, Family::Debian | Family::Fedora | Family::Yum | Family::Unknown);
        let repositories =
            " (add Docker's repository first: https://docs.docker.com/engine/install/)";
        Some(format!("{command} {name}{}", if from_docker { repositories } else { "" }))
    }

    /// The package that this program is in, which is incomplete then. It is in no repository: under its name, which is
    /// Docker's, they have the original.
    fn extras(&self, name: &str) -> String {
        let tarball = "install this project's tarball: run sh install.sh, which is in the same directory as \
                       docker-rootless-extras-*.tgz";
        let keep = "keep updates from replacing it with Docker's own package of that name";
        let by_rpm = |manager: &str, option: &str| {
            format!(
                "install this project's package: sudo {manager} install ./{name}-*.rpm; to {keep}, add the line \
                 {option}={name} to the section [docker-ce-stable] of /etc/yum.repos.d/docker-ce.repo"
            )
        };
        match self.family {
            Family::Debian => format!(
                "install this project's package: sudo apt-get install ./{name}_*.deb; to {keep}, run sudo apt-mark hold \
                 {name}; or, to use the distribution's docker.io, {tarball}"
            ),
            Family::Fedora => by_rpm("dnf", "excludepkgs"),
            Family::Yum => by_rpm("yum", "exclude"),
            Family::Arch | Family::Alpine | Family::Nix => format!(
                "{tarball}; or build a package for this distribution from packaging/templates in this project's source code"
            ),
            Family::Suse | Family::Unknown => tarball.to_owned(),
        }
    }

    fn elsewhere(&self, package: Package) -> String {
        match package {
            Package::Uidmap => {
                "add /run/wrappers/bin, where NixOS keeps newuidmap, to PATH".to_owned()
            }
            Package::Machinectl => "Alpine has no machinectl: log in with ssh".to_owned(),
            other => format!("install {other:?} on {}", self.name),
        }
    }

    /// Lets the user's services run without a session; `None` where `loginctl enable-linger` does it.
    pub fn linger(&self, user: &str) -> Option<Remedy> {
        (self.family == Family::Nix).then(|| {
            Remedy::said(format!("in configuration.nix, set users.users.{user}.linger = true;"))
        })
    }

    /// Sets a kernel parameter now and at every boot.
    pub fn sysctl(&self, file: &str, key: &str, value: &str) -> Remedy {
        if self.family == Family::Nix {
            let value = if value.contains(' ') { format!("\"{value}\"") } else { value.to_owned() };
            return Remedy::said(format!(
                "in configuration.nix, set boot.kernel.sysctl.\"{key}\" = {value};"
            ));
        }
        // busybox's sysctl has no --system.
        let apply = match self.family {
            Family::Alpine => format!("sysctl -p /etc/sysctl.d/{file}"),
            _ => "sysctl --system".to_owned(),
        };
        let set = format!("echo '{key} = {value}' > /etc/sysctl.d/{file}");
        Remedy::admin(&format!("set {key}"), [set, apply])
    }

    /// Loads kernel modules now and at every boot.
    pub fn modules(&self, names: &[&str], comment: &str) -> Remedy {
        if self.family == Family::Nix {
            let list: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            return Remedy::said(format!(
                "in configuration.nix, add {} to boot.kernelModules",
                list.join(" and ")
            ));
        }
        let mut commands: Vec<String> =
            names.iter().map(|name| format!("modprobe {name}")).collect();
        commands.push("mkdir -p /etc/modules-load.d".to_owned());
        commands.push(format!(
            "printf '%s\\n' {} > /etc/modules-load.d/docker-{}.conf",
            names.join(" "),
            names.first().unwrap_or(&"rootless")
        ));
        Remedy::admin(comment, commands)
    }

    /// The modules without which there is no NAT here.
    pub fn nat_modules(&self, legacy: bool) -> &'static [&'static str] {
        match (self.family, legacy) {
            (Family::Suse, _) => &["ip_tables", "iptable_mangle", "iptable_nat", "iptable_filter"],
            (Family::Alpine, true) => &["ip_tables", "iptable_nat"],
            (_, true) => &["ip_tables"],
            (_, false) => &["nf_tables"],
        }
    }
}

/// Lists are added to: whoever sets them loses what is in them.
fn nix_package(name: &str) -> String {
    format!("in configuration.nix, add pkgs.{name} to environment.systemPackages")
}

fn family(word: &str, major: Option<u32>) -> Option<Family> {
    Some(match word {
        "debian" | "ubuntu" | "raspbian" => Family::Debian,
        "centos" | "rhel" | "ol" | "scientific" if major == Some(7) => Family::Yum,
        "fedora" | "rhel" | "centos" | "ol" | "rocky" | "almalinux" | "amzn" => Family::Fedora,
        "suse" | "opensuse" | "sles" => Family::Suse,
        "opensuse-leap" | "opensuse-tumbleweed" | "sle-micro" => Family::Suse,
        "arch" | "manjaro" => Family::Arch,
        "alpine" => Family::Alpine,
        "nixos" => Family::Nix,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str, package: Package) -> String {
        let remedy = Distro::parse(text).install(package, "x");
        let steps = remedy.admin.iter().flat_map(|step| step.commands.clone());
        steps.chain(remedy.said).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn packages_by_distribution() {
        use Package::{FuseOverlayfs, Iptables, Machinectl, Network, Uidmap, UserBus};
        for (text, package, expected) in [
            ("ID=debian", Uidmap, "apt-get install -y uidmap"),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"",
                UserBus,
                "apt-get install -y dbus-user-session",
            ),
            ("ID=ubuntu", Machinectl, "apt-get install -y systemd-container"),
            ("ID=ubuntu", Network, "apt-get install -y slirp4netns"),
            ("ID=fedora\nVERSION_ID=41", Uidmap, "dnf install -y shadow-utils"),
            ("ID=fedora\nVERSION_ID=41", Iptables, "dnf install -y iptables"),
            ("ID=fedora\nVERSION_ID=41", FuseOverlayfs, "dnf install -y fuse-overlayfs"),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"",
                Iptables,
                "dnf install -y iptables-nft",
            ),
            ("ID=\"almalinux\"\nVERSION_ID=\"10.0\"", Network, "dnf install -y passt"),
            ("ID=\"centos\"\nVERSION_ID=\"7\"", Uidmap, "yum install -y shadow-utils46-newxidmap"),
            (
                "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"",
                FuseOverlayfs,
                "zypper --non-interactive install fuse-overlayfs",
            ),
            (
                "ID=manjaro\nID_LIKE=arch",
                FuseOverlayfs,
                "pacman -S --noconfirm --needed fuse-overlayfs",
            ),
            ("ID=alpine", Uidmap, "apk add shadow-subids"),
            ("ID=nixos", Uidmap, "/run/wrappers/bin"),
            ("ID=nixos", Network, "add pkgs.slirp4netns to environment.systemPackages"),
            ("ID=nixos", UserBus, "set services.dbus.enable = true;"),
            ("ID=plan10", Uidmap, "install shadow with"),
            ("", Uidmap, "install shadow with"),
        ] {
            let found = commands(text, package);
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn only_where_docker_has_repositories_they_are_named() {
        let said = |id: &str, package| commands(&format!("ID={id}"), package);
        for id in ["debian", "fedora", "centos\nVERSION_ID=7", "plan10"] {
            let text = said(id, Package::Engine);
            assert!(text.contains(" docker-ce (add Docker's repository first: "), "{text}");
        }
        for (id, expected) in [
            ("debian", "run sudo apt-mark hold docker-ce-rootless-extras; or, "),
            ("fedora", "sudo dnf install ./docker-ce-rootless-extras-*.rpm; to keep"),
            ("centos\nVERSION_ID=7", "add the line exclude=docker-ce-rootless-extras to"),
            ("alpine", "docker-rootless-extras-*.tgz; or build a package for this"),
            ("arch", "packaging/templates"),
            ("opensuse", "run sh install.sh"),
        ] {
            let text = said(id, Package::Extras);
            assert!(text.contains(expected), "{id}: {text}");
            // Docker's repository has another program under that name.
            assert!(!text.contains("repository first:"), "{text}");
        }
        assert_eq!(said("arch", Package::Engine), "sudo pacman -S --needed docker");
    }

    #[test]
    fn four_modules_on_opensuse_one_elsewhere() {
        let suse = Distro::parse("ID=opensuse-tumbleweed");
        assert_eq!(suse.nat_modules(false).len(), 4);
        let remedy = suse.modules(suse.nat_modules(false), "load");
        assert!(remedy.admin[0].commands.contains(&"modprobe iptable_mangle".to_owned()));
        let debian = Distro::parse("ID=debian");
        assert_eq!(
            (debian.nat_modules(true), debian.nat_modules(false)),
            (&["ip_tables"][..], &["nf_tables"][..])
        );
    }

    #[test]
    fn sysctl_by_distribution() {
        let remedy = |id: &str| Distro::parse(id).sysctl("5.conf", "a.b", "0 7");
        assert_eq!(
            remedy("ID=debian").admin[0].commands,
            ["echo 'a.b = 0 7' > /etc/sysctl.d/5.conf", "sysctl --system"]
        );
        assert_eq!(remedy("ID=alpine").admin[0].commands[1], "sysctl -p /etc/sysctl.d/5.conf");
        assert!(remedy("ID=nixos").said[0].contains("boot.kernel.sysctl.\"a.b\" = \"0 7\";"));
    }

    #[test]
    fn the_name_is_for_people() {
        assert_eq!(Distro::parse("ID=x\nPRETTY_NAME=\"Deb 13\"").name, "Deb 13");
        assert_eq!(Distro::parse("").name, "an unknown distribution");
    }
}
