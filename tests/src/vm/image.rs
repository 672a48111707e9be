//! The disk of a virtual machine: a suite's root file system with the kernel's modules, our units, and the agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{Rootfs, Suite, cache};

const SCRIPT: &str = include_str!("image.sh");
const AGENT: &str = include_str!("agent.sh");

/// What a virtual machine is started with. Both are only read.
#[derive(Debug)]
pub(super) struct Image {
    /// A tree with the emulator and the kernel.
    pub(super) emulator: PathBuf,
    /// The file with the guest's root file system.
    pub(super) disk: PathBuf,
}

impl Image {
    /// The image of `suite`, made now if the cache does not hold it (a minute or two, needs a Debian mirror).
    pub(super) fn get(suite: Suite) -> Result<Self> {
        let emulator = Rootfs::emulator()?.path().to_owned();
        let rootfs = Rootfs::get(suite)?;
        let recipe = (SCRIPT, AGENT, name(&emulator), name(rootfs.path()));
        let disk = cache::get(&format!("disk-{}", suite.name()), recipe, |path| {
            make(rootfs.path(), &emulator, path)
        })?;
        Ok(Self { emulator, disk })
    }

    /// The kernel's file, as the tree of the emulator names it.
    pub(super) fn kernel(&self) -> Result<String> {
        let boot = self.emulator.join("boot");
        let files = std::fs::read_dir(&boot).with_context(|| boot.display().to_string())?;
        let mut names = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
        let name = names.find(|name| name.starts_with("vmlinuz-"));
        Ok(format!("/boot/{}", name.with_context(|| format!("no kernel in {}", boot.display()))?))
    }
}

/// The last component, which holds the hash of how the tree was made.
fn name(tree: &Path) -> Option<String> {
    tree.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn make(rootfs: &Path, emulator: &Path, disk: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("vm-").tempdir()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", SCRIPT]);
    command.env("LOWER", rootfs).env("EMULATOR", emulator).env("WORK", work.path());
    command.env("AGENT", AGENT).env("OUT", disk);
    cache::step("the script that makes disks", &mut command)
}
