//! A machine made up by a test.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::host::Host;

/// A machine with these programs, found in `/bin`, which print these answers.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    programs: Vec<(&'static str, Option<&'static str>)>,
    /// Names of the programs that were asked, in order, and command lines of those that were tried.
    pub(crate) asked: RefCell<Vec<String>>,
    /// What a trial says that fails.
    refusal: Option<&'static str>,
    /// The program that contains what is looked for.
    detaching: Option<&'static str>,
}

impl Fake {
    pub(crate) fn with(mut self, name: &'static str, answer: &'static str) -> Self {
        self.programs.push((name, Some(answer)));
        self
    }

    /// A program that does not answer in time.
    pub(crate) fn broken(mut self, name: &'static str) -> Self {
        self.programs.push((name, None));
        self
    }

    /// A program in which what is looked for is found.
    pub(crate) fn detaching(mut self, name: &'static str) -> Self {
        self.detaching = Some(name);
        self
    }

    /// A machine on which trials fail.
    pub(crate) fn refusing(mut self, text: &'static str) -> Self {
        self.refusal = Some(text);
        self
    }
}

impl Host for Fake {
    fn find(&self, program: &OsStr) -> Option<PathBuf> {
        let name = Path::new(program).file_name()?;
        self.programs.iter().find(|(n, _)| *n == name).map(|(n, _)| Path::new("/bin").join(n))
    }

    fn ask(&self, program: &Path, _args: &[&OsStr]) -> anyhow::Result<String> {
        let name = program.file_name().unwrap().to_str().unwrap();
        self.asked.borrow_mut().push(name.to_owned());
        let (_, answer) = self.programs.iter().find(|(n, _)| *n == name).unwrap();
        answer.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("timed out"))
    }

    fn try_out(&self, program: &Path, args: &[&str]) -> Result<(), String> {
        let line = format!("{} {}", program.display(), args.join(" "));
        self.asked.borrow_mut().push(line);
        self.refusal.map_or(Ok(()), |text| Err(text.to_owned()))
    }

    fn contains(&self, program: &Path, _bytes: &[u8]) -> bool {
        self.detaching.is_some_and(|name| Path::new(program).ends_with(name))
    }
}
