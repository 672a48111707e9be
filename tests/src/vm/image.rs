//! What a virtual machine boots from: the kernel, an initial RAM disk that finds the disk, and the disk, which is a
//! suite's root file system with the kernel's modules, our units, and the agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Machine;
use crate::cache::InUse;
use crate::{Rootfs, cache};

const SCRIPT: &str = include_str!("image.sh");
const INIT: &str = include_str!("init.sh");
const AGENT: &str = include_str!("agent.sh");

/// What a virtual machine is started with. Both are only read.
#[derive(Debug)]
pub(super) struct Image {
    /// A tree with the emulator.
    pub(super) emulator: PathBuf,
    /// The directory with the files `vmlinuz`, `initrd` and `disk`.
    pub(super) files: PathBuf,
    /// Keeps the files.
    _in_use: InUse,
}

impl Image {
    /// The image, made now if the cache does not hold it (a minute or two, needs a Debian mirror). Once it is made, those that
    /// were made before, of another kernel or by other scripts, are removed.
    pub(super) fn get(machine: &Machine) -> Result<Self> {
        let (suite, kernel) = (machine.suite, machine.kernel);
        let emulator = Rootfs::emulator()?.path().to_owned();
        let (rootfs, kernel_tree) = (Rootfs::with(suite, machine.packages)?, kernel.tree()?);
        let recipe = (SCRIPT, INIT, AGENT, name(&kernel_tree), name(rootfs.path()));
        let packages: String = machine.packages.iter().map(|name| format!("-{name}")).collect();
        let what = format!("image-{}{packages}-{}", suite.name(), kernel.name());
        let make = |path: &Path| make(rootfs.path(), &kernel_tree, path);
        let (files, in_use) = cache::get_latest(&what, recipe, make)?;
        Ok(Self { emulator, files, _in_use: in_use })
    }
}

/// The last component, which holds the hash of how the tree was made.
fn name(tree: &Path) -> Option<String> {
    tree.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn make(rootfs: &Path, kernel: &Path, out: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("vm-").tempdir()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", SCRIPT]);
    command.env("LOWER", rootfs).env("KERNEL", kernel).env("WORK", work.path());
    command.env("INIT", INIT).env("AGENT", AGENT).env("OUT", out);
    cache::step("the script that makes disks", &mut command)
}
