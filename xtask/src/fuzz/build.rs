//! Building the targets as cargo-fuzz does, with the toolchain that is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xtask_support::host::{self, Need};
use xtask_support::{cargo, command};

/// libFuzzer is compiled from its source, in C++.
const COMPILER: Need = ("c++", "g++");

/// What lets libFuzzer see which code an input reaches and what it is compared with.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Otherwise branches of conditions such as `a && b` become one.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg fuzzing",
];

/// Finds errors in memory accesses of unsafe code.
const ADDRESS_SANITIZER: &str = "-Zsanitizer=address";

/// Builds the targets of these names, and returns the folder of the programs.
pub(super) fn build(folder: &Path, names: &[&String]) -> Result<PathBuf> {
    if std::env::var_os("CXX").is_none() {
        host::ensure_programs(&[COMPILER])?;
    }
    let triple = cargo::host_triple()?;
    let mut flags = COVERAGE.join(" ");
    if has_address_sanitizer()? {
        flags = format!("{flags} {ADDRESS_SANITIZER}");
    } else {
        eprintln!(
            "This Rust toolchain has no AddressSanitizer for {triple}. The run finds panics, hangs and wrong results, but \
             no errors in memory accesses.\n\
             hint: use a toolchain from https://rustup.rs on x86_64 or aarch64"
        );
    }
    let target = cargo::target()?.join("fuzz");
    let mut build = cargo::command();
    // With a target, cargo keeps the flags away from build scripts and macros.
    build.current_dir(folder).args(["build", "--release", "--target", &triple, "--target-dir"]);
    build.arg(&target);
    for name in names {
        build.args(["--bin", name.as_str()]);
    }
    // The flags are unstable: this variable makes a stable compiler accept them.
    build.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags).env_remove("CARGO_ENCODED_RUSTFLAGS");
    command::visibly(&mut build).context(
        "the fuzz targets cannot be built\n\
         hint: the targets need a compiler based on LLVM, and its unstable flags change; Rust 1.88 or later from \
         https://rustup.rs is known to work",
    )?;
    let programs = target.join(triple).join("release");
    for name in names {
        ensure!(
            programs.join(name).is_file(),
            "cargo did not build {name} into {}",
            programs.display()
        );
    }
    Ok(programs)
}

/// Whether the toolchain has the library of the sanitizer, which rustc links by itself.
fn has_address_sanitizer() -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = command::quietly(Command::new(rustc).args(["--print", "target-libdir"]))?;
    let Ok(entries) = fs::read_dir(printed.trim()) else { return Ok(false) };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.any(|name| name.to_string_lossy().ends_with("_rt.asan.a")))
}
