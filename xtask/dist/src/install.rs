//! `cargo xtask install`: builds as the distribution's flags say and puts the files of the manifest below
//! `DESTDIR`/`PREFIX`. Needs no root for a folder of the user, and runs nothing that it builds.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use xtask_support::{cargo, command};

use crate::crates;
use crate::docs;
use crate::licences;
use crate::manifest::{self, ROWS, Sources};
use crate::release::Release;
use crate::{folder, programs};

/// Where files go when nothing is said.
const PREFIX: &str = "/usr/local";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// Put in front of the prefix; empty for the system itself.
    destdir: PathBuf,
    prefix: PathBuf,
    frozen: bool,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options =
            Self { destdir: PathBuf::new(), prefix: PathBuf::from(PREFIX), frozen: false };
        let mut rest = args.iter();
        while let Some(&arg) = rest.next() {
            match arg {
                "--destdir" => options.destdir = folder(arg, rest.next())?,
                "--prefix" => {
                    options.prefix = PathBuf::from(rest.next().context("--prefix needs a folder")?);
                    ensure!(
                        options.prefix.is_absolute(),
                        "--prefix {:?} is not an absolute path",
                        options.prefix
                    );
                }
                "--frozen" => options.frozen = true,
                _ => bail!(
                    "unknown argument {arg:?}\n\
                     hint: cargo xtask install [--destdir DIR] [--prefix DIR] [--frozen]"
                ),
            }
        }
        Ok(options)
    }

    /// The prefix below the destination.
    fn root(&self) -> PathBuf {
        let mut root = self.destdir.clone().into_os_string();
        root.push(&self.prefix);
        PathBuf::from(root)
    }
}

/// Runs the verb.
///
/// # Errors
/// The build fails, or the tree cannot be written.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let release = Release::of(None)?;
    let mut cargo = cargo::build("release")?;
    cargo.arg(if options.frozen { "--frozen" } else { "--locked" });
    cargo.args(programs::features());
    for package in programs::packages() {
        cargo.args(["-p", package]);
    }
    command::visibly(&mut cargo)?;
    let made = tempfile::tempdir()?;
    docs::make(made.path())?;
    licences::make(&crates::linked(&release)?, made.path())?;
    let programs = programs::in_folder(&cargo::programs("release")?);
    let sources = Sources { programs, made: made.path().to_owned() };
    let root = options.root();
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    manifest::stage(ROWS, &sources, &root)?;
    println!("{} files below {}", ROWS.len(), root.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_lies_below_the_destination() {
        let options = Options::parse(&["--destdir", "/tmp/x", "--prefix", "/usr"]).unwrap();
        assert_eq!(options.root(), PathBuf::from("/tmp/x/usr"));
        assert_eq!(Options::parse(&[]).unwrap().root(), PathBuf::from(PREFIX));
        for (words, part) in [(["--prefix", "usr"], "absolute"), (["--destroy", "/"], "--destroy")]
        {
            let error = Options::parse(&words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
