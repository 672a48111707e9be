//! `cargo xtask sanitize`: tests under tools that only nightly Rust has.
//!
//! * Miri interprets the program. It finds memory that is used against Rust's rules of aliasing, provenance and
//!   initialization, also where a processor would not mind, and reads that may see an older value than expected. It knows
//!   few system calls: tests that need others are marked in the source or left out below.
//! * The thread sanitizer watches the program run, and finds memory that two threads use without an order between them.
//!
//! What is proven by which tool, and what needs neither, is in `docs/ARCHITECTURE.md`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};
use xtask_support::host;
use xtask_support::stages::{self, Stages};
use xtask_support::{cargo, command};

/// Tests of a package: arguments of `cargo test`, and the beginnings of the tests' names (all, if there are none).
type Suite = (&'static [&'static str], &'static [&'static str]);

/// The unsafe code, and what parses bytes that others send.
const MIRI: &[Suite] = &[
    (&["-p", "sys", "--lib"], &[]),
    (&["-p", "goflags", "--lib"], &[]),
    (&["-p", "idmap", "--lib"], &["map::", "subid::", "outer::"]),
    (&["-p", "netlink", "--lib"], &[]),
    (
        &["-p", "relay", "--lib"],
        &[
            "datagrams::",
            "early::",
            "kept::",
            "order::",
            "overlay::",
            "room::",
            "slab::",
            "timers::",
        ],
    ),
    (&["-p", "gateway", "--lib"], &["packet::", "dns::", "engine::statistics::"]),
];
/// Those of threads run several times, each time in another order.
const MIRI_SEEDS: &[Suite] =
    &[(&["-p", "gateway", "--lib"], &["engine::statistics::tests::a_name"])];

/// The threads of the data path, of the supervisor and of the port driver.
const THREAD: &[Suite] = &[
    (&["-p", "relay", "--lib", "--test", "tcp", "--test", "udp"], &[]),
    (&["-p", "gateway", "--lib"], &["engine::"]),
    (&["-p", "gateway", "--test", "supervisor"], &[]),
    (&["-p", "rootlesskit", "--bin", "rootlesskit"], &["port::worker::"]),
];
/// Machines that it exists for, of those that this project runs on.
const THREAD_TARGETS: &[&str] =
    &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "s390x-unknown-linux-gnu"];

/// Cases of each property: interpreting takes some hundred times as long.
const MIRI_CASES: &str = "4";

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (miri, thread) = match args {
        [] => (true, true),
        ["miri"] => (true, false),
        ["thread"] => (false, true),
        _ => bail!("unknown arguments {args:?}\nhint: cargo xtask sanitize [miri|thread]"),
    };
    ensure_nightly(miri)?;
    let host = cargo::host_triple()?;
    ensure!(
        !thread || THREAD_TARGETS.contains(&host.as_str()),
        "there is no thread sanitizer for {host}\nhint: `cargo xtask sanitize miri` works here"
    );
    let mut stages = Stages::new(stages::LOGGED);
    let result = suites(&mut stages, miri, thread, &host);
    stages.print();
    result
}

fn suites(stages: &mut Stages, miri: bool, thread: bool, host: &str) -> Result<()> {
    for (suites, flags) in [(MIRI, ""), (MIRI_SEEDS, " -Zmiri-many-seeds=0..32")] {
        for suite in suites.iter().filter(|_| miri) {
            let mut command = nightly(&["miri", "test"], suite)?;
            command.env("MIRIFLAGS", format!("-Zmiri-disable-isolation{flags}"));
            command.env("PROPTEST_CASES", MIRI_CASES);
            command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
            stages.run(&name("miri", suite), || command::visibly(&mut command))?;
        }
    }
    for suite in THREAD.iter().filter(|_| thread) {
        let mut command = nightly(&["test", "-Zbuild-std", "--target", host], suite)?;
        command.env("RUSTFLAGS", "-Zsanitizer=thread");
        // The first report ends the run; a test that has forked reports as well.
        command.env("TSAN_OPTIONS", "halt_on_error=1");
        stages.run(&name("thread sanitizer", suite), || command::visibly(&mut command))?;
    }
    Ok(())
}

fn name(tool: &str, (arguments, filter): &Suite) -> String {
    format!("{tool}: {} {}", arguments.join(" "), filter.join(" ")).trim_end().to_owned()
}

/// `cargo` of nightly Rust with this suite.
fn nightly(verb: &[&str], (arguments, filter): &Suite) -> Result<Command> {
    let mut command = Command::new("rustup");
    command.current_dir(cargo::workspace()?).stdin(Stdio::null());
    command.args(["run", TOOLCHAIN, "cargo"]).args(verb).args(*arguments);
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
fn ensure_nightly(miri: bool) -> Result<()> {
    ensure!(
        host::find("rustup").is_some(),
        "rustup is missing, which finds nightly Rust\nhint: install it as https://rustup.rs says"
    );
    let mut sysroot = Command::new("rustup");
    sysroot.args(["run", TOOLCHAIN, "rustc", "--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN");
    let install = install(miri);
    let Ok(sysroot) = command::quietly(&mut sysroot) else {
        bail!("nightly Rust is missing\nhint: {install}");
    };
    let missing = missing(Path::new(sysroot.trim_end()), miri);
    ensure!(
        missing.is_empty(),
        "nightly Rust has no component {}\nhint: {install}",
        missing.join(" and no component ")
    );
    Ok(())
}

fn components(miri: bool) -> Vec<(&'static str, PathBuf)> {
    // Both tools compile the standard library anew.
    let source = ("rust-src", PathBuf::from("lib/rustlib/src/rust/library/Cargo.lock"));
    let interpreter = miri.then(|| ("miri", PathBuf::from("bin/cargo-miri")));
    interpreter.into_iter().chain([source]).collect()
}

fn missing(sysroot: &Path, miri: bool) -> Vec<&'static str> {
    let mut components = components(miri);
    components.retain(|(_, file)| !sysroot.join(file).exists());
    components.into_iter().map(|(name, _)| name).collect()
}

fn install(miri: bool) -> String {
    let names = components(miri).into_iter().map(|(name, _)| format!(" --component {name}"));
    format!("rustup toolchain install {TOOLCHAIN} --profile minimal{}", names.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_that_are_missing_are_named_with_the_command_that_installs_them() {
        let sysroot = tempfile::tempdir().unwrap();
        assert_eq!(missing(sysroot.path(), true), ["miri", "rust-src"]);
        assert_eq!(missing(sysroot.path(), false), ["rust-src"]);
        for (_, file) in components(true).into_iter().skip(1) {
            let file = sysroot.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        assert_eq!(missing(sysroot.path(), true), ["miri"]);
        assert_eq!(
            install(true),
            "rustup toolchain install nightly --profile minimal --component miri --component rust-src"
        );
    }

    #[test]
    fn a_suite_is_named_as_it_is_run() {
        assert_eq!(name("miri", &MIRI[0]), "miri: -p sys --lib");
        assert_eq!(name("miri", &(&["-p", "a"], &["b::", "c::"])), "miri: -p a b:: c::");
    }
}
