//! The tarball for home directories and images: `docker-rootless-extras/NAME`, flat, programs only.
//!
//! The installer unpacks it over `~/bin` and `docker:dind-rootless` takes single members out of it, so the names that
//! Docker has are files, and ours without `.sh` are links to them. Licences lie beside the tarball, not in `~/bin`.

use std::fs;

use anyhow::{Context as _, Result};
use xtask_support::command;

use crate::Work;
use crate::manifest::{self, Row, Source, Sources};
use crate::release::Release;

/// The folder that everything lies in.
const TOP: &str = "docker-rootless-extras";

const ROWS: &[Row<'static>] = &[
    ("rootlesskit", Source::Program("rootlesskit")),
    ("rootlessctl", Source::Program("rootlessctl")),
    ("rootlesskit-docker-proxy", Source::Program("rootlesskit-docker-proxy")),
    ("dockerd-rootless.sh", Source::Program("dockerd-rootless")),
    ("dockerd-rootless", Source::Link("dockerd-rootless.sh")),
    ("dockerd-rootless-setuptool.sh", Source::Program("dockerd-rootless-setuptool")),
    ("dockerd-rootless-setuptool", Source::Link("dockerd-rootless-setuptool.sh")),
];

/// Packs `docker-rootless-extras-VERSION.tgz` and writes the licences beside it.
///
/// # Errors
/// tar(1) fails.
pub(crate) fn make(release: &Release, sources: &Sources, work: &Work) -> Result<()> {
    let root = work.sub("tarball")?;
    // With a slash: `stage` gives folders below its root mode 0755.
    let top: Vec<(String, Source)> =
        ROWS.iter().map(|(name, from)| (format!("{TOP}/{name}"), *from)).collect();
    let rows: Vec<Row<'_>> = top.iter().map(|(name, from)| (name.as_str(), *from)).collect();
    manifest::stage(&rows, sources, &root)?;
    let stem = format!("{TOP}-{}", release.version);
    let mut pack = release.command("tar");
    pack.args(["--create", "--format=gnu", "--sort=name", "--numeric-owner"])
        .args(["--owner=0", "--group=0", "--use-compress-program=gzip -9n"])
        .arg(format!("--mtime=@{}", release.epoch))
        .arg("--file")
        .arg(work.artifact(&format!("{stem}.tgz")))
        .arg("--directory")
        .arg(&root)
        .arg(TOP);
    command::quietly(&mut pack)?;
    fs::copy(sources.made.join("THIRD-PARTY"), work.artifact(&format!("{stem}.licenses.txt")))
        .context("copying the licences")
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_docker_is_a_file() {
        for name in ["rootlesskit", "dockerd-rootless.sh", "dockerd-rootless-setuptool.sh"] {
            assert!(
                ROWS.iter().any(|(n, from)| *n == name && matches!(from, Source::Program(_))),
                "{name}"
            );
        }
    }
}
