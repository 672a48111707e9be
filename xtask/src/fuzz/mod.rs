//! `cargo xtask fuzz`: the targets of `fuzz/` one after the other, or a storm of packets against a running gateway process.
//!
//! A target begins with the inputs in `fuzz/seeds/TARGET` and with what earlier runs have found, which is kept in
//! `target/fuzz/corpus/TARGET`. An input that fails is kept in `target/fuzz/artifacts/TARGET`.

mod build;
mod gateway;
mod run;

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use xtask_support::cargo;
use xtask_support::stages::{self, Stages};

use run::{Failure, Outcome, Target};

/// What `--only` calls the storm of packets, which is no program of `fuzz/`.
const GATEWAY: &str = "gateway";
/// How long a target runs without `--minutes`.
const DEFAULT_TIME: Duration = Duration::from_secs(60);
const SECONDS_PER_MINUTE: f64 = 60.0;
/// About two months.
const MAX_MINUTES: f64 = 100_000.0;

/// What was asked for.
#[derive(Debug, Default, PartialEq)]
struct Options {
    /// For all targets together.
    minutes: Option<f64>,
    only: Vec<String>,
    /// libFuzzer takes 32 bits, and chooses itself if they are 0.
    seed: Option<NonZeroU32>,
    /// An input to run once.
    input: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = args.iter();
        while let Some(name) = rest.next() {
            let value = rest.next().with_context(|| format!("{name} needs a value"));
            match *name {
                "--minutes" => {
                    let value = value?;
                    let minutes = value
                        .parse::<f64>()
                        .ok()
                        .filter(|minutes| *minutes > 0.0 && *minutes <= MAX_MINUTES);
                    let wrong = || {
                        format!("--minutes {value} is not a positive number up to {MAX_MINUTES}")
                    };
                    options.minutes = Some(minutes.with_context(wrong)?);
                }
                "--only" => options.only.push((*value?).to_owned()),
                "--seed" => {
                    let value = value?;
                    let wrong =
                        || format!("--seed {value} is not a whole number from 1 to {}", u32::MAX);
                    options.seed = Some(value.parse().ok().with_context(wrong)?);
                }
                "--input" => options.input = Some(value?.into()),
                _ => bail!("unknown argument {name}\nhint: cargo xtask help"),
            }
        }
        ensure!(
            options.input.is_none() || options.only.len() == 1,
            "--input needs the one target that the input is for\nhint: --only TARGET"
        );
        Ok(options)
    }

    /// The time of one of `count` targets.
    fn time(&self, count: usize) -> Duration {
        let all = self.minutes.map(|minutes| minutes * SECONDS_PER_MINUTE);
        all.map_or(DEFAULT_TIME, |seconds| {
            // libFuzzer takes 0 as no limit.
            Duration::from_secs_f64((seconds / count.max(1) as f64).max(1.0))
        })
    }
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let folder = cargo::workspace()?.join("fuzz");
    let names = names(&folder)?;
    let unknown = |name: &&String| *name != GATEWAY && !names.contains(name);
    if let Some(name) = options.only.iter().find(unknown) {
        bail!("there is no target {name:?}\nhint: the targets are {}, {GATEWAY}", names.join(", "));
    }
    let seed = options.seed.map_or_else(seed_of_now, Ok)?;
    if options.only.iter().any(|name| name == GATEWAY) {
        ensure!(
            options.only.len() == 1 && options.input.is_none(),
            "{GATEWAY} runs alone, and takes --minutes and --seed"
        );
        return gateway::run(options.time(1), seed);
    }
    let chosen = |name: &&String| options.only.is_empty() || options.only.contains(name);
    let chosen: Vec<&String> = names.iter().filter(chosen).collect();
    println!("seed {seed}");
    let mut stages = Stages::new(stages::LOGGED);
    let programs = stages.run("build the fuzz targets", || build::build(&folder, &chosen))?;
    let work = cargo::target()?.join("fuzz");
    let target = |name: &str| Target::new(&programs, &folder, &work, name);
    if let (Some(input), [name]) = (&options.input, chosen.as_slice()) {
        return target(name)?.repeat(input);
    }
    let time = options.time(chosen.len());
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for name in chosen {
        let target = target(name)?;
        let (outcome, failure) = target.run(time, seed)?;
        outcomes.push((name, outcome));
        failures.extend(failure);
    }
    report(&outcomes, &failures)
}

/// The targets, in the order of their names.
fn names(folder: &Path) -> Result<Vec<String>> {
    let targets = folder.join("fuzz_targets");
    let entries =
        fs::read_dir(&targets).with_context(|| format!("reading {}", targets.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A different number for each run.
fn seed_of_now() -> Result<NonZeroU32> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % (1 << 31);
    Ok(NonZeroU32::try_from(u32::try_from(seconds)?).unwrap_or(NonZeroU32::MIN))
}

fn report(outcomes: &[(&String, Outcome)], failures: &[Failure]) -> Result<()> {
    println!("{:<10}{:>14}{:>12}", "target", "executions", "new inputs");
    for (name, outcome) in outcomes {
        println!("{name:<10}{:>14}{:>12}", outcome.executions, outcome.found);
    }
    for failure in failures {
        println!("\n{failure}");
    }
    ensure!(failures.is_empty(), "{} of {} targets failed", failures.len(), outcomes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_shared_evenly() {
        let options = Options::parse(&["--minutes", "6"]).unwrap();
        assert_eq!(options.time(12), Duration::from_secs(30));
        assert_eq!(Options::default().time(12), DEFAULT_TIME);
        let short = Options::parse(&["--minutes", "0.01"]).unwrap();
        assert_eq!(short.time(12), Duration::from_secs(1), "zero is for ever");
    }

    #[test]
    fn what_is_wrong_with_the_arguments_is_named() {
        let refused = |args: &[&str]| format!("{:#}", Options::parse(args).unwrap_err());
        assert!(refused(&["--minutes"]).contains("--minutes needs a value"));
        for minutes in ["-1", "0", "inf", "NaN", "1e300"] {
            let text = refused(&["--minutes", minutes]);
            assert!(text.contains(&format!("--minutes {minutes} is not")), "{text}");
        }
        for seed in ["x", "0", "-1", "4294967296"] {
            let text = refused(&["--seed", seed]);
            assert!(text.contains(&format!("--seed {seed} is not")), "{text}");
        }
        assert!(refused(&["--fast", "x"]).contains("--fast"));
        assert!(refused(&["--input", "file"]).contains("--only TARGET"));
        let both = Options::parse(&["--only", "dns", "--only", "api", "--seed", "7"]).unwrap();
        assert_eq!((both.only.len(), both.seed), (2, NonZeroU32::new(7)));
    }

    /// What a target is called in the folder, in the manifest and here must be the same, and each has its seeds.
    #[test]
    fn each_target_is_a_program_and_described_and_has_seeds() {
        let workspace = cargo::workspace().unwrap();
        let folder = workspace.join("fuzz");
        let readme = fs::read_to_string(workspace.join("tests/README.md")).unwrap();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let names = names(&folder).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), names.len());
        for name in names {
            let program = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"");
            assert!(manifest.contains(&program), "{name}");
            assert!(readme.contains(&format!("\n| `{name}` |")), "{name} is not in the table");
            let seeds = fs::read_dir(folder.join("seeds").join(&name));
            let bytes = seeds.unwrap().map(|seed| seed.unwrap().metadata().unwrap().len());
            let bytes: Vec<u64> = bytes.collect();
            assert!(!bytes.is_empty(), "{name} has no seeds");
            assert!(
                bytes.iter().sum::<u64>() < 16 << 10,
                "the seeds of {name} are many: {bytes:?}"
            );
        }
    }
}
