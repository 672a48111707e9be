//! The programs that users get: what each is built from, and which network drivers they have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A program that users get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The package of the workspace that it is built from.
    pub(crate) package: &'static str,
    /// Arguments for a trial run that changes nothing.
    pub(crate) args: &'static [&'static str],
    /// What the trial run must print; whether it succeeds is the program's business.
    pub(crate) says: &'static str,
}

/// All programs that users get.
pub(crate) const PROGRAMS: [Program; 5] = [
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
pub(crate) type Programs = BTreeMap<&'static str, PathBuf>;

/// The packages to build, each once.
pub(crate) fn packages() -> Vec<&'static str> {
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
pub(crate) fn features() -> [String; 2] {
    let here = DRIVERS.iter().filter(|(_, here)| *here);
    let names: Vec<_> = here.map(|(name, _)| format!("rootlesskit/{name}")).collect();
    ["--no-default-features".to_owned(), format!("--features={}", names.join(","))]
}

/// The programs in the folder `dir`.
pub(crate) fn in_folder(dir: &Path) -> Programs {
    PROGRAMS.iter().map(|program| (program.name, dir.join(program.name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
