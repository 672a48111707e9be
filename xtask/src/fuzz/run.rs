//! One target: its inputs, its run, and what libFuzzer says about it
//! (<https://llvm.org/docs/LibFuzzer.html>).

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How often a run says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// The last lines of a run that failed, which say why.
const KEPT_LINES: usize = 30;
/// The longest input in bytes: several packets of the usual size.
const MAX_INPUT_BYTES: usize = 8192;
/// An input that takes longer, in seconds by the clock on the wall, is a failure. The slowest take milliseconds, unless
/// the machine is busy.
const SLOW_SECONDS: u64 = 120;

/// What a run came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) executions: u64,
    /// Inputs that reach code which none did before.
    pub(super) found: u64,
}

/// A target that ended before its time.
#[derive(Debug)]
pub(super) struct Failure {
    name: String,
    seed: NonZeroU32,
    last: Vec<String>,
    /// What it could not take, unless it failed outside of an input.
    input: Option<PathBuf>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, seed, last, input } = self;
        writeln!(f, "{name} failed:\n{}", last.join("\n"))?;
        match input {
            Some(input) => write!(
                f,
                "The input that failed: {0}\nto repeat it: cargo xtask fuzz --only {name} --input {0}",
                input.display()
            ),
            None => write!(f, "to repeat it: cargo xtask fuzz --only {name} --seed {seed}"),
        }
    }
}

pub(super) struct Target {
    name: String,
    program: PathBuf,
    seeds: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
}

impl Target {
    /// The target `name` of the workspace in `folder`, with its program in `programs`. What it finds goes into `work`.
    pub(super) fn new(programs: &Path, folder: &Path, work: &Path, name: &str) -> Result<Self> {
        let target = Self {
            name: name.to_owned(),
            program: programs.join(name),
            seeds: folder.join("seeds").join(name),
            corpus: work.join("corpus").join(name),
            artifacts: work.join("artifacts").join(name),
        };
        for folder in [&target.corpus, &target.artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        Ok(target)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // The slash at the end makes it a folder.
        command.arg(format!("-artifact_prefix={}/", self.artifacts.display()));
        command.arg(format!("-timeout={SLOW_SECONDS}"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs one input, which is to fail again or not to fail any more.
    pub(super) fn repeat(&self, input: &Path) -> Result<()> {
        ensure!(input.is_file(), "{} is not a file", input.display());
        let status = self
            .command()
            .env("RUST_BACKTRACE", "1")
            .arg(input)
            .status()
            .context("starting a fuzz target")?;
        ensure!(status.success(), "{} fails with {}: {status}", self.name, input.display());
        println!("{} passes with {}", self.name, input.display());
        Ok(())
    }

    pub(super) fn run(
        &self,
        time: Duration,
        seed: NonZeroU32,
    ) -> Result<(Outcome, Option<Failure>)> {
        let (seeds, earlier) = (count(&self.seeds), count(&self.corpus));
        println!(
            "==> {}: {} s, {seeds} seeds, {earlier} inputs of earlier runs",
            self.name,
            time.as_secs()
        );
        let mut command = self.command();
        command.arg(format!("-max_total_time={}", time.as_secs()));
        command.arg(format!("-max_len={MAX_INPUT_BYTES}")).arg(format!("-seed={seed}"));
        command.args(["-print_final_stats=1"]);
        // New inputs are written to the first folder.
        command.args([&self.corpus, &self.seeds]);
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let output = BufReader::new(child.stderr.take().context("its standard error")?);
        let mut log = Log::default();
        let mut said = Instant::now();
        let mut lost = None;
        for line in output.split(b'\n') {
            match line {
                Ok(line) => log.line(&String::from_utf8_lossy(&line)),
                Err(error) => {
                    let _ = child.kill();
                    lost = Some(error);
                    break;
                }
            }
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                println!("    {}: {}", self.name, log.progress);
            }
        }
        let status = child.wait()?;
        if let Some(error) = lost {
            return Err(error).with_context(|| format!("reading what {} prints", self.name));
        }
        println!(
            "    {}: {} executions, {} new inputs",
            self.name, log.outcome.executions, log.outcome.found
        );
        let failure = (!status.success()).then(|| Failure {
            name: self.name.clone(),
            seed,
            last: log.last.into(),
            input: log.input,
        });
        Ok((log.outcome, failure))
    }
}

/// How many files a folder has; none if it is not there.
fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.flatten().count())
}

/// What libFuzzer has printed so far.
#[derive(Debug, Default)]
struct Log {
    outcome: Outcome,
    progress: String,
    last: VecDeque<String>,
    input: Option<PathBuf>,
}

impl Log {
    fn line(&mut self, line: &str) {
        let number = |rest: &str| rest.trim().parse().unwrap_or(0);
        if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
            self.outcome.executions = number(rest);
        } else if let Some(rest) = line.strip_prefix("stat::new_units_added:") {
            self.outcome.found = number(rest);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.input = Some(path.trim().into());
        } else if line.starts_with('#') && line.contains(" cov: ") {
            let mut words = line.split_whitespace();
            let executions = words.next().unwrap_or_default().trim_start_matches('#');
            let coverage = words.skip_while(|word| *word != "cov:").nth(1).unwrap_or_default();
            self.progress = format!("{executions} executions, coverage {coverage}");
            return;
        }
        // Lines of a backtrace: repeating the input shows one.
        if line.trim_start().starts_with('#') {
            return;
        }
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_libfuzzer_are_read() {
        let mut log = Log::default();
        for line in [
            "INFO: Seed: 1",
            "#2\tINITED cov: 29 ft: 30 corp: 1/1b exec/s: 0 rss: 31Mb",
            "#4096\tpulse  cov: 311 ft: 512 corp: 40/1Kb lim: 43 exec/s: 2048 rss: 40Mb",
            "thread '<unnamed>' panicked at fuzz_targets/dns.rs:7:5:",
            "    #0 0x55eca42ca1d6 in __sanitizer_print_stack_trace",
            "artifact_prefix='/t/'; Test unit written to /t/crash-0123",
            "stat::number_of_executed_units: 5000",
            "stat::new_units_added:          17",
        ] {
            log.line(line);
        }
        assert_eq!(log.outcome, Outcome { executions: 5000, found: 17 });
        assert_eq!(log.progress, "4096 executions, coverage 311");
        let (name, seed) = ("dns".into(), NonZeroU32::MIN);
        let failure = Failure { name, seed, last: log.last.into(), input: log.input };
        let text = failure.to_string();
        assert!(text.contains("panicked at fuzz_targets/dns.rs:7:5"), "{text}");
        assert!(!text.contains("stack_trace"), "{text}");
        assert!(text.ends_with("cargo xtask fuzz --only dns --input /t/crash-0123"), "{text}");
    }

    /// The part of the target is played by false(1) and true(1).
    #[test]
    fn a_target_that_fails_is_told_and_one_that_ends_well_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("input");
        fs::write(&input, "").unwrap();
        let target = |name| Target::new(Path::new("/bin"), dir.path(), dir.path(), name).unwrap();
        let (_, failure) = target("false").run(Duration::from_secs(1), NonZeroU32::MIN).unwrap();
        let text = failure.expect("it failed").to_string();
        assert!(text.ends_with("cargo xtask fuzz --only false --seed 1"), "{text}");
        assert!(target("false").repeat(&input).unwrap_err().to_string().contains("exit status: 1"));
        assert!(target("true").run(Duration::from_secs(1), NonZeroU32::MIN).unwrap().1.is_none());
        target("true").repeat(&input).unwrap();
        let missing = target("true").repeat(&dir.path().join("other")).unwrap_err();
        assert!(missing.to_string().contains("is not a file"), "{missing}");
    }
}
