//! `cargo xtask sanitize miri`: tests under Miri, which only nightly Rust has.
//!
//! Miri interprets the program. It finds memory that is used against Rust's rules of aliasing, provenance and
//! initialization, also where a processor would not mind, and reads that may see an older value than expected. It knows
//! few system calls: tests that need others are marked in the source or left out below.
//!
//! What is proven by which tool, and what needs none, is in `docs/ARCHITECTURE.md`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};
use xtask_support::host;
use xtask_support::stages::{self, Stages};
use xtask_support::{cargo, command};

/// Tests of a package: arguments of `cargo test`, and the beginnings of the tests' names (all, if there are none).
type Suite = (&'static [&'static str], &'static [&'static str]);

/// The only unsafe code. The other packages have none: their tests would only take some hundred times as long.
const MIRI: &[Suite] = &[(&["-p", "sys", "--lib"], &[])];
/// Those of threads run several times, each time in another order.
const MIRI_SEEDS: &[Suite] =
    &[(&["-p", "gateway", "--lib"], &["engine::statistics::tests::a_name"])];

pub(crate) fn run(args: &[&str]) -> Result<()> {
    ensure!(args == ["miri"], "unknown arguments {args:?}\nhint: cargo xtask sanitize miri");
    ensure_nightly()?;
    let mut stages = Stages::new(stages::LOGGED);
    let result = suites(&mut stages);
    stages.print();
    result
}

fn suites(stages: &mut Stages) -> Result<()> {
    for (suites, flags) in [(MIRI, ""), (MIRI_SEEDS, " -Zmiri-many-seeds=0..8")] {
        for suite in suites {
            let mut command = nightly(suite)?;
            command.env("MIRIFLAGS", format!("-Zmiri-disable-isolation{flags}"));
            stages.run(&name(suite), || command::visibly(&mut command))?;
        }
    }
    Ok(())
}

fn name((arguments, filter): &Suite) -> String {
    format!("miri: {} {}", arguments.join(" "), filter.join(" ")).trim_end().to_owned()
}

/// Miri with this suite.
fn nightly((arguments, filter): &Suite) -> Result<Command> {
    let mut command = Command::new("rustup");
    command.current_dir(cargo::workspace()?).stdin(Stdio::null());
    command.args(["run", TOOLCHAIN, "cargo", "miri", "test"]).args(*arguments);
    command.arg("--target-dir").arg(cargo::target()?.join("sanitize"));
    command.arg("--").args(*filter);
    // Those of the cargo that started this program are of another Rust.
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    Ok(command)
}

const TOOLCHAIN: &str = "nightly";

/// Makes sure that nightly Rust is there, with the parts that are needed.
fn ensure_nightly() -> Result<()> {
    ensure!(
        host::find("rustup").is_some(),
        "rustup is missing, which finds nightly Rust\nhint: install it as https://rustup.rs says"
    );
    let mut sysroot = Command::new("rustup");
    sysroot.args(["run", TOOLCHAIN, "rustc", "--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN");
    let install = install();
    let Ok(sysroot) = command::quietly(&mut sysroot) else {
        bail!("nightly Rust is missing\nhint: {install}");
    };
    let missing = missing(Path::new(sysroot.trim_end()));
    ensure!(
        missing.is_empty(),
        "nightly Rust has no component {}\nhint: {install}",
        missing.join(" and no component ")
    );
    Ok(())
}

/// Components of nightly Rust, and a file of each.
const COMPONENTS: &[(&str, &str)] = &[
    ("miri", "bin/cargo-miri"),
    // Miri interprets the standard library as well.
    ("rust-src", "lib/rustlib/src/rust/library/Cargo.lock"),
];

fn missing(sysroot: &Path) -> Vec<&'static str> {
    let missing = COMPONENTS.iter().filter(|(_, file)| !sysroot.join(file).exists());
    missing.map(|(name, _)| *name).collect()
}

fn install() -> String {
    let names: String = COMPONENTS.iter().map(|(name, _)| format!(" --component {name}")).collect();
    format!("rustup toolchain install {TOOLCHAIN} --profile minimal{names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_that_are_missing_are_named_with_the_command_that_installs_them() {
        let sysroot = tempfile::tempdir().unwrap();
        assert_eq!(missing(sysroot.path()), ["miri", "rust-src"]);
        for (_, file) in &COMPONENTS[1..] {
            let file = sysroot.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        assert_eq!(missing(sysroot.path()), ["miri"]);
        assert_eq!(
            install(),
            "rustup toolchain install nightly --profile minimal --component miri --component rust-src"
        );
    }

    #[test]
    fn a_suite_is_named_as_it_is_run() {
        assert_eq!(name(&MIRI[0]), "miri: -p sys --lib");
        assert_eq!(name(&(&["-p", "a"], &["b::", "c::"])), "miri: -p a b:: c::");
    }
}
