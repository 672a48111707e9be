//! The RPM package: `rpmbuild` packs the staged tree as `packaging/rpm/docker-ce-rootless-extras.spec` says.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use xtask_support::host::Need;
use xtask_support::{cargo, command};

use crate::Work;
use crate::lint;
use crate::manifest::{self, ROWS, Sources};
use crate::release::{PACKAGE, Release};

/// What packing needs.
pub(crate) const NEEDS: &[Need] = &[("rpmbuild", "rpm")];

/// What makes two runs equal (rpm's macros file; rpm 4.14 and later).
const MACROS: [&str; 4] = [
    "_buildhost localhost",
    "use_source_date_epoch_as_buildtime 1",
    "clamp_mtime_to_source_date_epoch 1",
    "source_date_epoch_from_changelog 0",
];

/// Packs `docker-ce-rootless-extras-VERSION-1.ARCHITECTURE.rpm`.
///
/// # Errors
/// `rpmbuild` fails, or rpmlint finds something.
pub(crate) fn make(release: &Release, sources: &Sources, work: &Work) -> Result<()> {
    let stage = work.sub("rpm-stage")?;
    let usr = stage.join("usr");
    fs::create_dir(&usr)?;
    manifest::stage(ROWS, sources, &usr)?;
    let top = work.sub("rpm")?;
    let list = top.join("files");
    fs::write(&list, file_list())?;
    let architecture = release.architecture.rpm;
    let mut pack = release.command("rpmbuild");
    pack.args(["-bb", "--quiet", "--target", architecture]);
    if release.host.is_some() {
        // The check runs a program; those of other machines were run with an emulator before.
        pack.arg("--nocheck");
    }
    for define in [
        format!("_topdir {}", top.display()),
        format!("package_version {}", release.version),
        format!("stage {}", stage.display()),
        format!("manifest {}", list.display()),
        // Debian's rpm says `/var/lib/rpm` and asks for a database there that nobody needs.
        format!("_dbpath {}", top.join("db").display()),
    ]
    .into_iter()
    .chain(MACROS.map(str::to_owned))
    {
        pack.args(["--define", &define]);
    }
    pack.arg(cargo::workspace()?.join("packaging/rpm").join(format!("{PACKAGE}.spec")));
    command::quietly(&mut pack)?;
    let made = top.join("RPMS").join(architecture);
    let entry = fs::read_dir(&made)
        .with_context(|| format!("reading {}", made.display()))?
        .next()
        .context("rpmbuild wrote no package")??;
    // Without the distribution's suffix, which belongs to whoever rebuilds it there.
    let name = format!("{PACKAGE}-{}-1.{architecture}.rpm", release.version);
    let package = work.artifact(&name);
    fs::rename(entry.path(), &package).context("moving the package")?;
    lint::rpm(&package)
}

/// Folders that every distribution's package `filesystem` brings.
const SHARED: [&str; 5] = ["bin", "share", "share/doc", "share/man", "share/man/man1"];

/// The `%files` list: every row of the manifest, and the folders that would stay behind otherwise. Other packages may own
/// some of them, too; the last one that goes removes them.
fn file_list() -> String {
    let mut list = "%defattr(-,root,root)\n".to_owned();
    let folders: BTreeSet<&str> = ROWS
        .iter()
        .flat_map(|(name, _)| name.match_indices('/').map(|(end, _)| &name[..end]))
        .filter(|folder| !SHARED.contains(folder))
        .collect();
    for folder in folders {
        list.push_str(&format!("%dir /usr/{folder}\n"));
    }
    for (name, _) in ROWS {
        list.push_str(&format!("/usr/{name}\n"));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_row_and_our_folders() {
        let list = file_list();
        assert_eq!(list.lines().filter(|line| line.starts_with('/')).count(), ROWS.len());
        assert!(list.contains("\n%dir /usr/share/zsh\n"), "{list}");
        assert!(!list.contains("%dir /usr/share\n"), "{list}");
        assert!(list.contains("\n/usr/bin/rootlesskit\n"), "{list}");
    }
}
