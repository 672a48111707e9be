//! The programs of this machine: where they are and what they say about themselves.
//!
//! Deciding (which network driver, which dockerd) is pure code over the [`Host`] trait; [`System`] is the
//! real one. A program that is asked a question gets no input and five seconds, so a broken wrapper script
//! on `PATH` can delay a start but not hang it.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostenv::Env;
use hostenv::helper::Helper;

/// How long a program may take to print its version or its help.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long rootlesskit may take to make namespaces and a network, and to end again.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// More bytes of a program than these are not searched.
const MAX_PROGRAM: u64 = 1 << 30;

pub(crate) trait Host {
    /// The executable that running `program` would start; a name with a `/` is a path.
    fn find(&self, program: &OsStr) -> Option<PathBuf>;
    /// What the program prints, on either stream, when it is run with these arguments. Its exit status
    /// does not count: old tools fail after printing their help.
    ///
    /// # Errors
    /// It cannot be started or does not end in time.
    fn ask(&self, program: &Path, args: &[&OsStr]) -> anyhow::Result<String>;
    /// Runs a program to see whether it succeeds.
    ///
    /// # Errors
    /// What it said, if it does not.
    fn try_out(&self, program: &Path, args: &[&str]) -> Result<(), String>;
    /// Whether these bytes are in the file of a program; not if it cannot be read.
    fn contains(&self, program: &Path, bytes: &[u8]) -> bool;
}

#[derive(Debug)]
pub(crate) struct System {
    env: Env,
}

impl System {
    /// Programs are looked up in the `PATH` of this environment.
    pub(crate) fn new(env: &Env) -> Self {
        Self { env: env.without_service() }
    }
}

impl Host for System {
    fn find(&self, program: &OsStr) -> Option<PathBuf> {
        self.env.find_program(program)
    }

    fn ask(&self, program: &Path, args: &[&OsStr]) -> anyhow::Result<String> {
        Ok(Helper::start(program, args, &self.env, ANSWER_TIMEOUT)?.finish()?.all())
    }

    fn try_out(&self, program: &Path, args: &[&str]) -> Result<(), String> {
        let output =
            Helper::start(program, args, &self.env, TRIAL_TIMEOUT).and_then(Helper::finish);
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => match output.text() {
                text if text.is_empty() => {
                    Err(format!("{} failed: {}", program.display(), output.status))
                }
                text => Err(text),
            },
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    fn contains(&self, program: &Path, bytes: &[u8]) -> bool {
        std::fs::File::open(program)
            .and_then(|file| has(file.take(MAX_PROGRAM), bytes))
            .unwrap_or(false)
    }
}

fn has(mut file: impl Read, bytes: &[u8]) -> std::io::Result<bool> {
    let mut window = vec![0; 1 << 20];
    let mut kept = 0;
    loop {
        let length = file.read(&mut window[kept..])?;
        if length == 0 {
            return Ok(false);
        }
        let filled = kept + length;
        let first = bytes.first().copied().unwrap_or_default();
        let begins = window[..filled].iter().enumerate().filter(|(_, byte)| **byte == first);
        if begins.into_iter().any(|(at, _)| window[at..filled].starts_with(bytes)) {
            return Ok(true);
        }
        // What may be the beginning of it.
        kept = filled.min(bytes.len());
        window.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostenv::vars;

    #[test]
    fn a_probe_is_not_the_service() {
        let mut env = Env::current();
        env.set(vars::NOTIFY_SOCKET, "/run/notify");
        env.set(vars::LISTEN_FDS, "1");
        let script = "echo \"[$NOTIFY_SOCKET$LISTEN_FDS]\"; read x || echo no input >&2; exit 3";
        let system = System::new(&env);
        let shell = system.find(OsStr::new("sh")).unwrap();
        let text = system.ask(&shell, &[OsStr::new("-c"), OsStr::new(script)]).unwrap();
        assert_eq!(text, "[]\n\nno input\n");
    }

    #[test]
    fn a_word_is_found_wherever_it_is_in_a_program() {
        let word = b"rootless.DetachedNetNS";
        for before in [0, 1, 20, (1 << 20) - 5, (1 << 20) + 3, 3 << 20] {
            let mut file = vec![b'r'; before];
            assert!(!has(&file[..], word).unwrap());
            file.extend(word);
            file.extend([0; 10]);
            assert!(has(&file[..], word).unwrap(), "{before}");
        }
        assert!(!System::new(&Env::current()).contains(Path::new("/nonexistent"), word));
    }

    #[test]
    fn a_trial_that_fails_says_why() {
        let system = System::new(&Env::current());
        let shell = system.find(OsStr::new("sh")).unwrap();
        let trial = |script| system.try_out(&shell, &["-c", script]);
        assert_eq!(trial("echo noise"), Ok(()));
        assert_eq!(trial("echo bad >&2; exit 1"), Err("bad".to_owned()));
        let silent = trial("exit 3").unwrap_err();
        assert!(silent.ends_with("sh failed: exit status: 3"), "{silent}");
        let missing = system.try_out(Path::new("/nonexistent"), &[]).unwrap_err();
        assert!(missing.contains("cannot run `/nonexistent`"), "{missing}");
    }
}
