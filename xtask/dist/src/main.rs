//! `cargo xtask dist`: the artifacts that users and distributions install; `cargo xtask install`: the same files into a
//! tree.
//!
//! # Theory of operation
//! [`programs`] lists the programs; [`binaries`] builds them statically and proves it. [`docs`], [`licences`] and [`sbom`]
//! make man pages, completions, the texts of third-party licences and the bill of materials. [`manifest`] is the one table
//! of what goes where with which mode; the packages and `install` differ only in the prefix. [`deb`] and [`rpm`] pack the staged tree with `dpkg-deb` and `rpmbuild`,
//! [`tarball`] packs the flat folder that the installer and the image `docker:dind-rootless` unpack; the [`installer`]
//! lies beside it.
//!
//! All artifacts are functions of the sources and of `SOURCE_DATE_EPOCH` (by default the date of the last commit):
//! paths of the build are mapped away, and every archive is sorted, owned by root and dated by that variable
//! (<https://reproducible-builds.org/specs/source-date-epoch/>).

mod auditable;
mod binaries;
mod buildroot;
mod crates;
mod deb;
mod docs;
mod flags;
mod install;
mod installer;
mod licences;
mod lint;
mod manifest;
mod programs;
mod release;
mod rpm;
mod sbom;
mod tarball;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use xtask_support::host::{self, Need};
use xtask_support::stages::{self, Stages};
use xtask_support::{cargo, command};

use release::Release;

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

/// Name of the scratch folder of finished artifacts.
const ARTIFACTS: &str = "artifacts";

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    deb: bool,
    rpm: bool,
    tarball: bool,
    /// Pack what an earlier run built.
    no_build: bool,
    out: Option<PathBuf>,
    build_dir: Option<PathBuf>,
    /// Rust's name of the machines to build for.
    target: Option<String>,
    /// Build and pack once more elsewhere, and compare.
    verify: bool,
    /// Packages that cannot be checked are a failure.
    lint: bool,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = args.iter();
        while let Some(&arg) = rest.next() {
            match arg {
                "--deb" => options.deb = true,
                "--rpm" => options.rpm = true,
                "--tarball" => options.tarball = true,
                "--no-build" => options.no_build = true,
                "--out" => options.out = Some(folder(arg, rest.next())?),
                "--build-dir" => options.build_dir = Some(folder(arg, rest.next())?),
                "--target" => {
                    let triple = rest.next().context("--target needs a triple")?;
                    options.target = Some((*triple).to_owned());
                }
                "--verify" => options.verify = true,
                "--lint" => options.lint = true,
                _ => bail!(
                    "unknown argument {arg:?}\n\
                     hint: cargo xtask dist [--deb] [--rpm] [--tarball] [--target TRIPLE] [--out DIR] \
                     [--build-dir DIR] [--no-build] [--verify] [--lint]"
                ),
            }
        }
        if !(options.deb || options.rpm || options.tarball) {
            (options.deb, options.rpm, options.tarball) = (true, true, true);
        }
        Ok(options)
    }

    /// The programs that these artifacts are made and checked with.
    fn needs(&self) -> Vec<Need> {
        let mut needs = NEEDS.to_vec();
        for (made, packer, linter) in [
            (self.deb, deb::NEEDS, Some(lint::DEB)),
            (self.rpm, rpm::NEEDS, Some(lint::RPM)),
            (self.tarball, installer::NEEDS, None),
        ] {
            if made {
                needs.extend(packer);
                needs.extend(linter.filter(|_| self.lint));
            }
        }
        needs
    }
}

/// The value of an option that names a folder.
fn folder(option: &str, value: Option<&&str>) -> Result<PathBuf> {
    let value = value.with_context(|| format!("{option} needs a folder"))?;
    std::path::absolute(value).with_context(|| format!("{option} {value:?}"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["install", rest @ ..] => install::run(rest),
        _ => run(&args),
    };
    command::exit_code(&result)
}

/// `cargo xtask dist`.
///
/// # Errors
/// A program is missing, the build fails, a binary is not static, or a packer fails.
fn run(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let release = Release::of(options.target.as_deref())?;
    let out = match &options.out {
        Some(dir) => dir.clone(),
        None => release.folder("dist")?,
    };
    let build_dir = match &options.build_dir {
        Some(dir) => dir.clone(),
        None => build_dir(&release)?,
    };
    let mut needs = options.needs();
    needs.extend(binaries::emulator(&release));
    host::ensure_programs(&needs)?;
    let mut stages = Stages::new(stages::WATCHED);
    if !options.no_build {
        stages.run("static build", || binaries::build(&release, &build_dir))?;
    }
    let programs = programs::in_folder(&binaries::folder(&release, &build_dir));
    let crates = crates::linked(&release)?;
    stages.run("checks of the programs", || {
        auditable::check(&programs, &crates)?;
        binaries::check(&release, &programs)
    })?;
    stages.run("packages", || {
        let work = Work::begin(&out)?;
        let sources = manifest::Sources { programs, made: work.sub("made")? };
        docs::make(&sources.made)?;
        licences::make(&crates, &sources.made)?;
        let name = format!("docker-rootless-extras-{}.cdx.json", release.version);
        sbom::make(&release, &crates, &work.artifact(&name))?;
        if options.tarball {
            tarball::make(&release, &sources, &work)?;
            installer::make(&work)?;
        }
        if options.deb {
            deb::make(&release, &sources, &work)?;
        }
        if options.rpm {
            rpm::make(&release, &sources, &work)?;
        }
        work.finish()
    })?;
    if options.verify {
        stages.run("the same once more", || verify::run(&release, args, &build_dir, &out))?;
    }
    stages.print();
    print!("{}", fs::read_to_string(out.join(SUMS))?);
    println!("in {}", out.display());
    Ok(())
}

/// Where programs are built unless something else is said. All other architectures share a folder, and in it what their
/// builds run on this machine.
fn build_dir(release: &Release) -> Result<PathBuf> {
    if release.host.is_some() {
        Ok(cargo::target()?.join("dist-build-foreign"))
    } else {
        cargo::dist_build()
    }
}

/// Artifacts in the making: they appear in `out` when all are done.
#[derive(Debug)]
struct Work {
    out: PathBuf,
    /// Staged trees and unfinished artifacts; goes away at the end.
    scratch: tempfile::TempDir,
}

impl Work {
    fn begin(out: &Path) -> Result<Self> {
        fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        // Beside the artifacts, because rename(2) does not cross file systems.
        let work = Self { out: out.to_owned(), scratch: tempfile::tempdir_in(out)? };
        work.sub(ARTIFACTS)?;
        Ok(work)
    }

    /// A new folder for a tree.
    fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.path().join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Where the artifact `name` is made.
    fn artifact(&self, name: &str) -> PathBuf {
        self.scratch.path().join(ARTIFACTS).join(name)
    }

    /// Replaces what an earlier run left in `out`: the files that its checksums list, nothing else.
    fn finish(self) -> Result<()> {
        let made = self.scratch.path().join(ARTIFACTS);
        let mut names = Vec::new();
        for entry in fs::read_dir(&made)? {
            names.push(entry?.file_name().into_string().ok().context("a file name")?);
        }
        names.sort_unstable();
        ensure!(!names.is_empty(), "no artifact was made");
        let sums =
            command::quietly(Command::new("sha256sum").arg("--").args(&names).current_dir(&made))?;
        let list = self.out.join(SUMS);
        for line in fs::read_to_string(&list).unwrap_or_default().lines() {
            if let Some((_, name)) = line.split_once("  ")
                && !name.contains('/')
            {
                fs::remove_file(self.out.join(name)).ok();
            }
        }
        for name in &names {
            fs::rename(made.join(name), self.out.join(name))
                .with_context(|| format!("moving {name} to {}", self.out.display()))?;
        }
        fs::write(&list, sums).with_context(|| format!("writing {}", list.display()))
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
    fn linters_are_needed_where_packages_have_to_be_checked() {
        let needs = |args: &[&str]| {
            let needs = Options::parse(args).unwrap().needs();
            ["lintian", "rpmlint"].map(|linter| needs.iter().any(|(program, _)| *program == linter))
        };
        assert_eq!(needs(&[]), [false, false]);
        assert_eq!(needs(&["--lint"]), [true, true]);
        assert_eq!(needs(&["--lint", "--rpm"]), [false, true]);
        assert_eq!(needs(&["--lint", "--tarball"]), [false, false]);
    }

    #[test]
    fn only_artifacts_of_an_earlier_run_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["old.tgz", "keep.txt"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::write(dir.path().join(SUMS), "00  old.tgz\n00  ../keep.txt\n").unwrap();
        let work = Work::begin(dir.path()).unwrap();
        fs::write(work.artifact("new.deb"), "y").unwrap();
        assert!(dir.path().join("old.tgz").exists(), "still there until the new ones are done");
        work.finish().unwrap();
        let sums = fs::read_to_string(dir.path().join(SUMS)).unwrap();
        assert!(sums.ends_with("  new.deb\n") && sums.lines().count() == 1, "{sums}");
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [SUMS, "keep.txt", "new.deb"]);
    }
}
