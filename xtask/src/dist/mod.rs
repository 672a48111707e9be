//! `cargo xtask dist`: the artifacts that users and distributions install; `cargo xtask install`: the same files into a
//! tree.
//!
//! # Theory of operation
//! [`binaries`] builds the programs statically and proves it; [`docs`] and [`licences`] make man pages, completions and
//! the list of third-party code. [`manifest`] is the one table of what goes where with which mode; the packages and
//! `install` differ only in the prefix. [`deb`] and [`rpm`] pack the staged tree with `dpkg-deb` and `rpmbuild`,
//! [`tarball`] packs the flat folder that the installer and the image `docker:dind-rootless` unpack.
//!
//! All artifacts are functions of the sources and of `SOURCE_DATE_EPOCH` (by default the date of the last commit):
//! paths of the build are mapped away, and every archive is sorted, owned by root and dated by that variable
//! (<https://reproducible-builds.org/specs/source-date-epoch/>).

mod binaries;
mod deb;
mod docs;
mod install;
mod licences;
mod manifest;
mod release;
mod rpm;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::{self, Need};
use crate::stage::Stages;
use release::Release;

pub(crate) use install::run as install;

/// What every artifact needs; each format adds its own.
const NEEDS: &[Need] = &[
    ("readelf", "binutils"),
    ("gzip", "gzip"),
    ("tar", "tar"),
    ("sha256sum", "coreutils"),
    ("chroot", "coreutils"),
    ("unshare", "util-linux"),
];

/// Name of the file with the checksums of all artifacts.
const SUMS: &str = "SHA256SUMS";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    deb: bool,
    rpm: bool,
    tarball: bool,
    out: Option<PathBuf>,
    build_dir: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options =
            Self { deb: false, rpm: false, tarball: false, out: None, build_dir: None };
        let mut rest = args.iter();
        while let Some(&arg) = rest.next() {
            match arg {
                "--deb" => options.deb = true,
                "--rpm" => options.rpm = true,
                "--tarball" => options.tarball = true,
                "--out" => options.out = Some(folder(arg, rest.next())?),
                "--build-dir" => options.build_dir = Some(folder(arg, rest.next())?),
                _ => bail!(
                    "unknown argument {arg:?}\n\
                     hint: cargo xtask dist [--deb] [--rpm] [--tarball] [--out DIR] [--build-dir DIR]"
                ),
            }
        }
        if !(options.deb || options.rpm || options.tarball) {
            (options.deb, options.rpm, options.tarball) = (true, true, true);
        }
        Ok(options)
    }
}

/// The value of an option that names a folder.
fn folder(option: &str, value: Option<&&str>) -> Result<PathBuf> {
    let value = value.with_context(|| format!("{option} needs a folder"))?;
    std::path::absolute(value).with_context(|| format!("{option} {value:?}"))
}

/// `cargo xtask dist`.
///
/// # Errors
/// A program is missing, the build fails, a binary is not static, or a packer fails.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let target = host::target()?;
    let out = options.out.unwrap_or_else(|| target.join("dist"));
    let build_dir = options.build_dir.unwrap_or_else(|| target.join("dist-build"));
    let formats: Vec<&Need> = NEEDS
        .iter()
        .chain(options.deb.then_some(deb::NEEDS).into_iter().flatten())
        .chain(options.rpm.then_some(rpm::NEEDS).into_iter().flatten())
        .collect();
    host::ensure_programs(&formats.into_iter().copied().collect::<Vec<_>>())?;
    let release = Release::current()?;
    let mut stages = Stages::default();
    let programs = stages.run("static build", || binaries::build(&release, &build_dir))?;
    stages.run("static checks", || binaries::check(&programs))?;
    stages.run("packages", || {
        let work = Work::begin(&out)?;
        let sources = manifest::Sources { programs, made: work.sub("made")? };
        docs::make(&sources.made)?;
        licences::make(&release, &sources.made)?;
        if options.tarball {
            tarball::make(&release, &sources, &work)?;
        }
        if options.deb {
            deb::make(&release, &sources, &work)?;
        }
        if options.rpm {
            rpm::make(&release, &sources, &work)?;
        }
        work.finish()
    })?;
    stages.print();
    print!("{}", fs::read_to_string(out.join(SUMS))?);
    println!("in {}", out.display());
    Ok(())
}

/// Where static binaries lie that `cargo xtask dist` without options has built.
///
/// # Errors
/// The target folder is not found.
pub(crate) fn built() -> Result<PathBuf> {
    Ok(host::target()?.join("dist-build").join(Release::triple()?).join("release"))
}

/// The folder of artifacts while it is being filled.
#[derive(Debug)]
struct Work {
    out: PathBuf,
    /// Staged trees; goes away at the end.
    scratch: tempfile::TempDir,
}

impl Work {
    /// Empties `out` of what an earlier run listed in its checksums. Nothing else is removed.
    fn begin(out: &Path) -> Result<Self> {
        fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        let sums = out.join(SUMS);
        for line in fs::read_to_string(&sums).unwrap_or_default().lines() {
            if let Some((_, name)) = line.split_once("  ")
                && !name.contains('/')
            {
                fs::remove_file(out.join(name)).ok();
            }
        }
        fs::remove_file(sums).ok();
        Ok(Self { out: out.to_owned(), scratch: tempfile::tempdir_in(out)? })
    }

    /// A new folder for a tree.
    fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.path().join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Where the finished artifact `name` goes.
    fn artifact(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    fn finish(self) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.out)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a file name")?;
            if entry.file_type()?.is_file() && name.contains(release::STEM) {
                names.push(name);
            }
        }
        names.sort_unstable();
        ensure!(!names.is_empty(), "no artifact was made");
        let sums =
            host::quietly(Command::new("sha256sum").arg("--").args(names).current_dir(&self.out))?;
        fs::write(self.out.join(SUMS), sums)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_format_all_are_made() {
        let options = Options::parse(&[]).unwrap();
        assert!(options.deb && options.rpm && options.tarball);
        let options = Options::parse(&["--deb", "--out", "/x"]).unwrap();
        assert!(options.deb && !options.rpm && !options.tarball);
        assert_eq!(options.out.as_deref(), Some(Path::new("/x")));
        assert!(Options::parse(&["--out"]).unwrap_err().to_string().contains("--out"));
        assert!(Options::parse(&["--dep"]).unwrap_err().to_string().contains("--dep"));
    }

    #[test]
    fn only_artifacts_of_an_earlier_run_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let old = format!("old-{}.tgz", release::STEM);
        for name in [old.as_str(), "keep.txt"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::write(dir.path().join(SUMS), format!("00  {old}\n00  ../keep\n")).unwrap();
        let work = Work::begin(dir.path()).unwrap();
        assert!(!dir.path().join(&old).exists() && dir.path().join("keep.txt").exists());
        fs::write(work.artifact(&format!("new-{}.deb", release::STEM)), "y").unwrap();
        work.finish().unwrap();
        let sums = fs::read_to_string(dir.path().join(SUMS)).unwrap();
        assert_eq!(sums.lines().count(), 1, "{sums}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
