//! How a program of this workspace was built, as its place shows, so that another program is built in the same way and
//! lies beside it. Without dependencies, because `cargo xtask` builds this before it prints anything.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// The file by which cargo marks a target folder.
pub const MARK: &str = "CACHEDIR.TAG";

/// A way to build: with which profile, and for which machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Where cargo leaves the programs: `TARGET[/TRIPLE]/PROFILE`.
    folder: PathBuf,
    profile: OsString,
    /// Rust's name of the machine, if cargo was told one.
    triple: Option<OsString>,
}

impl Build {
    /// That of the running program.
    ///
    /// # Errors
    /// The program's path is not known.
    pub fn own() -> io::Result<Self> {
        Ok(Self::of(&std::env::current_exe()?))
    }

    /// That of a program or test at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let mut folder = path.parent().unwrap_or(Path::new("/"));
        if ["deps", "examples"].iter().any(|name| folder.ends_with(name)) {
            folder = folder.parent().unwrap_or(folder);
        }
        let mut above = folder.ancestors().skip(1).take(2);
        let triple = match (above.next(), above.next()) {
            (Some(dir), Some(target))
                if !dir.join(MARK).is_file() && target.join(MARK).is_file() =>
            {
                dir.file_name()
            }
            _ => None,
        };
        // Cargo calls the folder of the profile `dev` so.
        let profile = folder.file_name().filter(|name| *name != "debug");
        Self {
            folder: folder.to_owned(),
            profile: profile.unwrap_or(OsStr::new("dev")).to_owned(),
            triple: triple.map(OsStr::to_owned),
        }
    }

    /// The same with another profile.
    #[must_use]
    pub fn with_profile(mut self, profile: &str) -> Self {
        self.folder.set_file_name(if profile == "dev" { "debug" } else { profile });
        self.profile = profile.into();
        self
    }

    /// What tells `cargo build` to do so.
    #[must_use]
    pub fn arguments(&self) -> Vec<&OsStr> {
        let mut arguments = vec![OsStr::new("--profile"), &self.profile];
        if let Some(triple) = &self.triple {
            arguments.extend([OsStr::new("--target"), triple]);
        }
        arguments
    }

    /// Where cargo leaves programs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn words(build: &Build) -> String {
        let words: Vec<_> = build.arguments().iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn another_program_is_built_as_this_one_was() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join(MARK), "").unwrap();
        for (place, arguments) in [
            ("debug", "--profile dev"),
            ("debug/deps", "--profile dev"),
            ("release", "--profile release"),
            ("demo", "--profile demo"),
            ("a-triple/release", "--profile release --target a-triple"),
        ] {
            let build = Build::of(&target.join(place).join("xtask"));
            assert_eq!(words(&build), arguments);
            assert_eq!(build.folder(), target.join(place.trim_end_matches("/deps")));
        }
        let build = Build::of(&target.join("a-triple/debug/xtask")).with_profile("demo");
        assert_eq!(words(&build), "--profile demo --target a-triple");
        assert_eq!(build.folder(), target.join("a-triple/demo"));
        let build = build.with_profile("dev");
        assert_eq!(words(&build), "--profile dev --target a-triple");
        assert_eq!(build.folder(), target.join("a-triple/debug"));
    }

    #[test]
    fn a_target_folder_without_a_mark_will_do() {
        let build = Build::of(Path::new("/nowhere/target/release/xtask"));
        assert_eq!(words(&build), "--profile release");
    }
}
