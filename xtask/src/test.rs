//! `cargo xtask test`: unit, property and integration tests of every crate, then the scenarios in test hosts.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use xtask_support::host::{self, Need};
use xtask_support::stages::{self, Stages};
use xtask_support::{cargo, command};

/// What the test hosts are made and entered with.
pub(crate) const BOX_NEEDS: &[Need] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
];

/// The packages whose programs the test hosts get.
pub(crate) const PRODUCT: [&str; 4] =
    ["rootlesskit", "dockerd-rootless", "rootlesskit-docker-proxy", "setuptool"];

/// What some of the tests need besides.
const NEEDS: &[Need] = &[
    ("mkfs.ext4", "e2fsprogs"),
    ("newuidmap", "uidmap"),
    // The tests of crates/netlink compare with these, and build a container's network with them.
    ("iptables", "iptables"),
    ("nft", "nftables"),
    // The .rpm is installed by them.
    ("dnf", "dnf"),
    ("createrepo_c", "createrepo-c"),
    // The packages are checked with them.
    ("lintian", "lintian"),
    ("rpmlint", "rpmlint"),
    // Templates for distributions are read by them.
    ("makepkg", "makepkg"),
    ("nix-instantiate", "nix-bin"),
];

/// How the artifacts are made that the tests install: a package that was not checked is a failure here.
const DIST: &[&str] = &["--lint"];

/// What the tests said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// The counts in a line of the test runner such as
    /// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    fn parse(line: &str) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("test result: ")?;
        let number = |word: &str| -> Option<usize> {
            let (before, _) = rest.split_once(&format!(" {word}"))?;
            before.rsplit(' ').next()?.parse().ok()
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")?,
        })
    }
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let boxes = !args.contains(&"--no-boxes");
    let filter: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--no-boxes").collect();
    ensure!(
        filter.len() <= 1 && !filter.iter().any(|arg| arg.starts_with('-')),
        "unknown arguments {args:?}\nhint: cargo xtask test [FILTER] [--no-boxes]"
    );
    let mut stages = Stages::new(stages::LOGGED);
    if boxes {
        ensure_machine().map_err(|error| {
            anyhow!(
                "{error:#}\nhint: `cargo xtask test --no-boxes` runs everything else, without root"
            )
        })?;
        let needs = [BOX_NEEDS, NEEDS].concat();
        stages.run("prerequisites", || host::ensure_programs(&needs))?;
    }
    let total = stages_of(&mut stages, &filter, boxes);
    stages.print();
    let total = total?;
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    let may_skip = std::env::var("SKIP_UNMET").is_ok_and(|value| value == "1");
    ensure!(total.failed == 0, "{} tests failed", total.failed);
    ensure!(
        total.skipped == 0 || may_skip,
        "{} tests were skipped unexpectedly: see the lines that begin with \"skipped: \"",
        total.skipped
    );
    ensure!(total.passed > 0, "no test ran\nhint: does the filter {filter:?} name one?");
    Ok(())
}

fn stages_of(stages: &mut Stages, filter: &[&str], boxes: bool) -> Result<Counts> {
    let mut total = Counts::default();
    if boxes {
        stages.run("build the harness", || {
            command::visibly(
                cargo::command().current_dir(cargo::workspace()?).args(["build", "-p", "tests"]),
            )
        })?;
        // The root file systems come from the network while the processors are busy with the release build.
        let mut maker = Command::new(cargo::target()?.join("debug/testhosts"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the maker of test hosts")?;
        // What is tested is what is shipped.
        let built = stages.run("release build and packages", dist);
        let made = stages.run("test hosts", || Ok(maker.wait()?))?;
        built?;
        ensure!(made.success(), "making the test hosts failed: {made}");
    }
    let unit = ["--workspace", "--exclude", "tests"];
    total.add(stages.run("tests of the crates", || cargo_test(&unit, filter, &[]))?);
    if boxes {
        let scenarios = ["--package", "tests"];
        total.add(stages.run("scenarios in test hosts", || {
            cargo_test(&scenarios, filter, &["--test-threads=2"])
        })?);
    }
    Ok(total)
}

/// Builds and packs what is shipped.
fn dist() -> Result<()> {
    command::visibly(Command::new(cargo::build_tool("dist")?).args(DIST))
}

/// Where [`dist`] leaves the programs.
fn static_programs() -> Result<PathBuf> {
    Ok(cargo::static_programs(&cargo::dist_build()?, &cargo::host_triple()?))
}

/// Runs `cargo test`, shows its output as it comes, and counts.
fn cargo_test(packages: &[&str], filter: &[&str], options: &[&str]) -> Result<Counts> {
    let skips = tempfile::NamedTempFile::new()?;
    let mut child = cargo::command()
        .current_dir(cargo::workspace()?)
        .args(["test", "--no-fail-fast"])
        .args(packages)
        .arg("--")
        .args(options)
        .args(filter)
        .env("SKIP_FILE", skips.path())
        .env("TEST_BINARIES", static_programs()?)
        // A failed scenario says what it waited for; backtraces of the harness bury that.
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let mut counts = Counts::default();
    let mut ignored = Ignored::default();
    for line in BufReader::new(child.stdout.take().context("cargo's output")?).lines() {
        let line = line?;
        println!("{line}");
        stages::printed();
        ignored.note(&line);
        if let Some(found) = Counts::parse(&line) {
            counts.add(found);
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        bail!("cargo test: {status}, and no test reported a failure (does it compile?)");
    }
    let (never_run, at_run_time) = (ignored.skips(), std::fs::read_to_string(skips.path())?);
    counts.skipped = never_run.len() + at_run_time.lines().count();
    // The test runner knows no "skipped at run time": it counted these as passed.
    counts.passed -= at_run_time.lines().count();
    for line in never_run.iter().map(String::as_str).chain(at_run_time.lines()) {
        println!("skipped: {line}");
    }
    Ok(counts)
}

/// Tests that the runner counts as ignored. Some of them are run by another test in a process of their own: their reason
/// ends in `by NAME`, and they are no skips if that test passed.
#[derive(Debug, Default)]
struct Ignored {
    passed: HashSet<String>,
    /// With their reasons, which may be empty.
    tests: Vec<(String, String)>,
}

impl Ignored {
    /// `test NAME ... ok`, or `test NAME ... ignored, REASON`.
    fn note(&mut self, line: &str) {
        let Some((name, result)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... "))
        else {
            return;
        };
        if result == "ok" {
            self.passed.insert(name.to_owned());
        } else if let Some(reason) = result.strip_prefix("ignored") {
            self.tests.push((name.to_owned(), reason.trim_start_matches(", ").to_owned()));
        }
    }

    /// Those that no other test has run, a line each.
    fn skips(&self) -> Vec<String> {
        let is_run = |reason: &str| {
            let runner = reason.strip_prefix("run in ").and_then(|r| r.rsplit_once(" by "));
            runner.is_some_and(|(_, runner)| self.passed.contains(runner))
        };
        let skips = self.tests.iter().filter(|(_, reason)| !is_run(reason));
        skips.map(|(name, reason)| format!("{name}: {reason}")).collect()
    }
}

/// Test hosts need a Debian machine and root on it.
pub(crate) fn ensure_machine() -> Result<()> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    ensure!(
        release
            .lines()
            .any(|line| line == "ID=debian"
                || line.starts_with("ID_LIKE=") && line.contains("debian")),
        "test hosts need Debian 12 or a relative of it"
    );
    ensure!(
        host::euid()? == 0,
        "test hosts are made of namespaces, which needs root\n\
         hint: run it as root, for example with sudo --preserve-env=PATH"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_another_one_runs_is_no_skip_if_that_one_passed() {
        let mut ignored = Ignored::default();
        for line in [
            "test exhausted_alone ... ignored, run in a process of its own by a_port_survives",
            "test other_alone ... ignored, run in a process of its own by it_failed",
            "test a_port_survives ... ok",
            "test it_failed ... FAILED",
            "test needs_root ... ignored, needs root",
            "test src/lib.rs - f (line 3) ... ignored",
        ] {
            ignored.note(line);
        }
        let skips = [
            "other_alone: run in a process of its own by it_failed",
            "needs_root: needs root",
            "src/lib.rs - f (line 3): ",
        ];
        assert_eq!(ignored.skips(), skips);
    }

    #[test]
    fn counts_are_read_from_the_runners_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(Counts::parse(line), Some(Counts { passed: 12, failed: 3, skipped: 1 }));
        assert_eq!(Counts::parse("test f001 ... ok"), None);
    }
}
