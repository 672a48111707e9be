//! Kernels of Debian's archive.

use std::path::PathBuf;

use anyhow::Result;

use crate::Rootfs;
use crate::rootfs::{OPTIONS, Recipe};

/// A kernel for virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The suite of the archive that it is from, also one of backports.
    pub suite: &'static str,
    /// How it was configured.
    pub flavour: Flavour,
}

/// How Debian configures a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// For virtual machines of clouds, with the fewest drivers.
    Cloud,
    /// For any machine.
    Generic,
}

/// Downloads and unpacks the packages on which the metapackage depends, without what their installation would do.
/// Since Linux 7, the kernel, its modules and their lists are packages of their own.
const UNPACK: &str = r#"set -eu; cd "$1"; export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
    depends() { apt-cache depends "$1" | sed -n "s/^ *Depends: \(linux-[a-z]*-[0-9].*\)/\1/p"; }
    image=$(depends METAPACKAGE)
    apt-get -q download "$image" $(depends "$image")
    for package in *.deb; do
        dpkg-deb -x "$package" .
        rm "$package"
    done"#;

impl Kernel {
    fn metapackage(self) -> &'static str {
        match self.flavour {
            Flavour::Cloud => "linux-image-cloud-amd64",
            Flavour::Generic => "linux-image-amd64",
        }
    }

    /// A name for files and people, such as `trixie-cloud`.
    #[must_use]
    pub fn name(self) -> String {
        let flavour = match self.flavour {
            Flavour::Cloud => "cloud",
            Flavour::Generic => "generic",
        };
        format!("{}-{flavour}", self.suite)
    }

    /// The tree with the files of its package, made now if the cache does not hold it (seconds, needs a Debian mirror).
    pub(super) fn tree(self) -> Result<PathBuf> {
        let variant = |option: &str| option.replace("--variant=minbase", "--variant=custom");
        let tree = Rootfs::made(&Recipe {
            name: format!("kernel-{}", self.name()),
            suite: self.suite,
            options: OPTIONS.map(variant).to_vec(),
            packages: String::new(),
            hooks: vec![UNPACK.replace("METAPACKAGE", self.metapackage())],
        })?;
        Ok(tree.path().to_owned())
    }
}
