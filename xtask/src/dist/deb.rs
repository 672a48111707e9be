//! The Debian package: the staged tree below `/usr`, and the files that Debian Policy asks for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Work;
use super::manifest::{self, ROWS, Row, Source, Sources};
use super::release::{PACKAGE, Release};
use crate::host::{self, Need};

/// What packing needs.
pub(super) const NEEDS: &[Need] = &[("dpkg-deb", "dpkg"), ("md5sum", "coreutils")];

/// What only Debian has.
const OWN: &[Row<'static>] = &[
    ("share/doc/docker-ce-rootless-extras/copyright", Source::File("packaging/deb/copyright")),
    ("share/doc/docker-ce-rootless-extras/changelog.Debian.gz", Source::Made("changelog.Debian")),
    (
        "share/lintian/overrides/docker-ce-rootless-extras",
        Source::File("packaging/deb/lintian-overrides"),
    ),
];

/// Who answers for a package when `DEBFULLNAME` and `DEBEMAIL` (debuild(1)) do not say.
const NOBODY: (&str, &str) = ("A local build", "root@localhost");

/// Packs `docker-ce-rootless-extras_VERSION-1_ARCHITECTURE.deb`.
///
/// # Errors
/// `dpkg-deb` refuses the tree.
pub(super) fn make(release: &Release, sources: &Sources, work: &Work) -> Result<()> {
    let root = work.sub("deb")?;
    let version = format!("{}-1", release.version);
    let variable = |name: &str, default: &str| {
        std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let maintainer =
        format!("{} <{}>", variable("DEBFULLNAME", NOBODY.0), variable("DEBEMAIL", NOBODY.1));
    let date = release
        .command("date")
        .args(["-u", "-R", "-d"])
        .arg(format!("@{}", release.epoch))
        .output()?;
    let date = String::from_utf8(date.stdout)?.trim().to_owned();
    let fill = |template: &str, size: u64| -> Result<String> {
        let path = host::workspace()?.join("packaging/deb").join(template);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text
            .replace("@VERSION@", &version)
            .replace("@ARCHITECTURE@", release.architecture.deb)
            .replace("@MAINTAINER@", &maintainer)
            .replace("@DATE@", &date)
            .replace("@SIZE@", &size.to_string()))
    };
    fs::write(sources.made.join("changelog.Debian"), fill("changelog", 0)?)?;
    let usr = folder(&root, "usr")?;
    let rows: Vec<Row<'_>> = ROWS.iter().chain(OWN).copied().collect();
    manifest::stage(&rows, sources, &usr)?;
    // zsh of Debian looks for completions of packages here.
    fs::rename(usr.join("share/zsh/site-functions"), usr.join("share/zsh/vendor-completions"))?;

    let debian = folder(&root, "DEBIAN")?;
    let mut files = files_of(&root, Path::new("usr"))?;
    files.sort();
    let bytes: u64 = files
        .iter()
        .map(|file| fs::metadata(root.join(file)).map_or(0, |meta| meta.len().div_ceil(1024)))
        .sum();
    fs::write(debian.join("control"), fill("control", bytes)?)?;
    let sums = host::quietly(release.command("md5sum").arg("--").args(&files).current_dir(&root))?;
    fs::write(debian.join("md5sums"), sums)?;
    for name in ["control", "md5sums"] {
        fs::set_permissions(debian.join(name), fs::Permissions::from_mode(0o644))?;
    }

    let name = format!("{PACKAGE}_{version}_{}.deb", release.architecture.deb);
    let mut pack = release.command("dpkg-deb");
    // xz: readable by every dpkg that Docker supports.
    pack.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(work.artifact(&name));
    host::quietly(&mut pack).map(drop)
}

/// A new folder of mode 0755 in `root`.
fn folder(root: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = root.join(name);
    fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
    for dir in [root, &path] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(path)
}

/// The regular files below `root`/`dir`, relative to `root`.
fn files_of(root: &Path, dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(dir))? {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files_of(root, &path)?);
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}
