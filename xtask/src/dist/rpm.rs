//! The RPM package: `rpmbuild` packs the staged tree as `packaging/rpm/docker-ce-rootless-extras.spec` says.

use std::fs;

use anyhow::{Context as _, Result};

use super::Work;
use super::lint;
use super::manifest::{self, ROWS, Sources};
use super::release::{PACKAGE, Release};
use crate::host::{self, Need};

/// What packing needs.
pub(super) const NEEDS: &[Need] = &[("rpmbuild", "rpm")];

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
pub(super) fn make(release: &Release, sources: &Sources, work: &Work) -> Result<()> {
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
    pack.arg(host::workspace()?.join("packaging/rpm").join(format!("{PACKAGE}.spec")));
    host::quietly(&mut pack)?;
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

/// The `%files` list: every row of the manifest, and the folders that are the package's own.
fn file_list() -> String {
    let own = format!("usr/share/doc/{PACKAGE}");
    let mut list = format!("%defattr(-,root,root)\n%dir /{own}\n%dir /{own}/examples\n");
    for (name, _) in ROWS {
        list.push_str(&format!("/usr/{name}\n"));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_row() {
        let list = file_list();
        assert_eq!(list.lines().count(), ROWS.len() + 3);
        assert!(list.contains("\n/usr/bin/rootlesskit\n"), "{list}");
    }
}
