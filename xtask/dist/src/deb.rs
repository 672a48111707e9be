//! The Debian package: the staged tree below `/usr`, and the files that Debian Policy asks for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask_support::host::Need;
use xtask_support::{cargo, command};

use crate::Work;
use crate::lint;
use crate::manifest::{self, ROWS, Row, Source, Sources};
use crate::release::{PACKAGE, Release};

/// What packing needs.
pub(crate) const NEEDS: &[Need] = &[("dpkg-deb", "dpkg"), ("md5sum", "coreutils")];

/// What only Debian has.
const OWN: &[Row<'static>] = &[
    ("share/doc/docker-ce-rootless-extras/copyright", Source::File("packaging/deb/copyright")),
    ("share/doc/docker-ce-rootless-extras/changelog.Debian.gz", Source::Made("changelog.Debian")),
    (
        "share/lintian/overrides/docker-ce-rootless-extras",
        Source::File("packaging/deb/lintian-overrides"),
    ),
];

/// Who answers for a package when `DEBFULLNAME` and `DEBEMAIL` (debuild(1)) do not say: nobody, at an address that can never
/// exist (RFC 2606, section 2) and is the same on every machine.
const NOBODY: (&str, &str) = ("A local build", "nobody@local-build.invalid");

/// Packs `docker-ce-rootless-extras_VERSION-1_ARCHITECTURE.deb`.
///
/// # Errors
/// `dpkg-deb` refuses the tree, or lintian the package.
pub(crate) fn make(release: &Release, sources: &Sources, work: &Work) -> Result<()> {
    let root = work.sub("deb")?;
    let template = Template::new(release)?;
    fs::write(sources.made.join("changelog.Debian"), template.fill("changelog")?)?;
    let usr = folder(&root, "usr")?;
    let rows: Vec<Row<'_>> = ROWS.iter().chain(OWN).copied().collect();
    manifest::stage(&rows, sources, &usr)?;
    // zsh of Debian looks for completions of packages here.
    fs::rename(usr.join("share/zsh/site-functions"), usr.join("share/zsh/vendor-completions"))?;

    let debian = folder(&root, "DEBIAN")?;
    let mut files = files_of(&root, Path::new("usr"))?;
    files.sort();
    // In KiB, as deb-substvars(5) computes it.
    let mut size = 0;
    for file in &files {
        size += fs::metadata(root.join(file))?.len().div_ceil(1024);
    }
    let control = template.fill("control")?.replace("@SIZE@", &size.to_string());
    let sums =
        command::quietly(release.command("md5sum").arg("--").args(&files).current_dir(&root))?;
    for (name, text) in [("control", control), ("md5sums", sums)] {
        fs::write(debian.join(name), text)?;
        fs::set_permissions(debian.join(name), fs::Permissions::from_mode(0o644))?;
    }

    let name = format!("{PACKAGE}_{}_{}.deb", template.version, release.architecture.deb);
    let mut pack = release.command("dpkg-deb");
    // xz: readable by every dpkg that Docker supports.
    pack.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(work.artifact(&name));
    command::quietly(&mut pack)?;
    lint::deb(&work.artifact(&name))
}

/// What the files in `packaging/deb` leave open.
struct Template {
    version: String,
    architecture: &'static str,
    maintainer: String,
    date: String,
}

impl Template {
    fn new(release: &Release) -> Result<Self> {
        let variable = |name: &str, default: &str| {
            std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let (name, email) = (variable("DEBFULLNAME", NOBODY.0), variable("DEBEMAIL", NOBODY.1));
        let mut date = release.command("date");
        date.args(["-u", "-R", "-d"]).arg(format!("@{}", release.epoch));
        Ok(Self {
            // Revision 1 of this version.
            version: format!("{}-1", release.version),
            architecture: release.architecture.deb,
            maintainer: format!("{name} <{email}>"),
            date: command::quietly(&mut date)?.trim().to_owned(),
        })
    }

    fn fill(&self, file: &str) -> Result<String> {
        let path = cargo::workspace()?.join("packaging/deb").join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text
            .replace("@VERSION@", &self.version)
            .replace("@ARCHITECTURE@", self.architecture)
            .replace("@MAINTAINER@", &self.maintainer)
            .replace("@DATE@", &self.date))
    }
}

/// A new folder of mode 0755 in `root`.
fn folder(root: &Path, name: &str) -> Result<PathBuf> {
    let path = root.join(name);
    fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
    for dir in [root, &path] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(path)
}

/// The regular files below `root`/`dir`, relative to `root`.
fn files_of(root: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
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
