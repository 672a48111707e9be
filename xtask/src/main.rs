//! Tasks of this repository: `cargo xtask COMMAND`. `demo`, `fuzz`, `sanitize`, `soak` and `test` are
//! modules. `bench`, `dist` and `install` are in packages of their own (`xtask/bench`, `xtask/dist`), which are built
//! when they are asked for, so that the others start soon.

mod demo;
mod fuzz;
mod sanitize;
mod soak;
mod test;

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use xtask_support::{cargo, command, host};

const HELP: &str = "\
cargo xtask COMMAND

  demo                        start rootless Docker as an ordinary user (as root: for the user who ran sudo, or for a
                              temporary account), run a container with a published port, show that the port and
                              outbound connections work, and clean up
  bench [OPTIONS]             compare this rootlesskit with an installed RootlessKit, alternating between them (root)
      --quick                 about five minutes instead of 24
      --only PART             measure only this part; can be repeated: start, tcp, conn, keepalive, udp, memory, speed;
                              net-tcp, net-udp, net-requests, net-conn, net-published, net-memory, or net for all of
                              these; overlay (VXLAN between two hosts). A run without --only does not include
                              apps (PostgreSQL, Redis and nginx from Debian), policy (the cost of an egress
                              policy with 100 rules) and fairness (the cost of a container that floods, for
                              another container)
      --congestion NAME       congestion control in the benchmark's namespaces (default: cubic); NAME,NAME compares
                              two, and measures nothing else
      --rounds N              samples per figure
      --pin                   run forwarders and load on separate processors
      --against PATH          the rootlesskit to compare with, or the directory that holds it and rootlessctl
                              (default: the installed RootlessKit, or else the one in a test host)
      --before PATH           for --only policy and --only fairness: an earlier build of this rootlesskit to compare
                              with, or the directory that holds it (default: none)
      --flood-rate N          for --only fairness: packets of a flood per second (default: 10000)
      --ours PATH             the rootlesskit to measure (default: build it)
      --user NAME             run everything as this existing account (default: three temporary ones, because Linux
                              limits the pipe buffers of each user)
      --markdown              print the table as Markdown
      --json FILE             write the results, every sample included, to FILE
                              (default: target/bench/DATE.json)
      --plot FILE [--out DIR] measure nothing; draw the charts of the results in FILE as SVG into DIR
                              (default: docs/images)
  dist [OPTIONS]              build static programs and pack them: .deb, .rpm and tarball, with SHA256SUMS
      --deb --rpm --tarball   build only these formats
      --out DIR               output directory (default: target/dist)
      --build-dir DIR         build directory (default: target/dist-build)
      --no-build              pack the programs that are already built
      --target TRIPLE         build for another architecture, into target/dist-ARCHITECTURE: aarch64-unknown-linux-gnu,
                              armv7-unknown-linux-gnueabihf, riscv64gc-unknown-linux-gnu,
                              powerpc64le-unknown-linux-gnu, s390x-unknown-linux-gnu. If you have no toolchain for
                              it, this uses one from Debian packages (needs root on Debian)
      --verify                build and pack once more in another directory, and compare every byte
      --lint                  fail if lintian or rpmlint is missing (default: print a notice)
  fuzz [OPTIONS]              feed the parsers of untrusted input with generated inputs (needs a C++ compiler, but
                              neither cargo-fuzz nor a nightly toolchain)
      --minutes N             for all targets together (default: one minute for each)
      --only TARGET           only this target; can be repeated. `gateway` sends generated packets to a running
                              gateway process (root, Debian 12)
      --seed N                seed for the generated inputs, from 1 to 4294967295 (default: the time)
      --input FILE            run the target once with this input
  kernels [OPTIONS]           boot Debian's kernels in emulated machines, test which features work on each, and compare
                              the results with the predictions of `check` and with docs/kernels.md (root, about an hour)
      --only NAME             only this machine; can be repeated (--list prints the names)
      --update                write the results to docs/kernels.md
  install [OPTIONS]           build and install programs, man pages and completions (honors RUSTFLAGS)
      --destdir DIR           the staging directory, put before the prefix
      --prefix DIR            default: /usr/local
      --frozen                build offline from vendored sources
  sanitize miri               run the tests of unsafe code and one of threads under Miri (nightly Rust)
  soak [OPTIONS]              run all kinds of traffic through two rootlesskits and a real dockerd in a test host for an
                              hour, and kill helper processes from time to time. Fails if descriptors, memory or threads
                              grow, if an answer is wrong, or if an operation fails without a kill (root, Debian 12)
      --minutes N             duration (default: 60). Growth of rootlesskit is checked from 16 minutes on, growth of
                              gateway processes from 28 minutes on
      --out DIR               directory for soak.json (all samples), soak.svg and the logs (default: target/soak)
      --plot FILE             measure nothing; draw and check the results in FILE
  test [FILTER] [--no-boxes]  build everything and run every test (root, Debian 12)
      --no-boxes              skip the tests that need test hosts
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        // Also after a command, which then need not be built.
        ["help"] => print_help(),
        all if all.iter().any(|arg| matches!(*arg, "--help" | "-h")) => print_help(),
        ["bench", rest @ ..] => become_tool("bench", rest),
        ["demo"] => demo::run(),
        ["demo", "--inner", rest @ ..] => demo::inner(rest),
        ["dist", rest @ ..] => become_tool("dist", rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["install", ..] => become_tool("dist", &args),
        ["sanitize", rest @ ..] => sanitize::run(rest),
        ["soak", rest @ ..] => soak::run(rest),
        ["kernels", rest @ ..] => kernels(rest),
        ["test", rest @ ..] => test::run(rest),
        _ => {
            eprint!("error: unknown arguments {args:?}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    command::exit_code(&result)
}

fn print_help() -> Result<()> {
    io::stdout().write_all(HELP.as_bytes()).context("printing the help")
}

/// The machines have the programs that are shipped, which run on every Debian.
fn kernels(args: &[&str]) -> Result<()> {
    let program = cargo::build_tool("kernels")?;
    // With --list it reads its arguments and does nothing else: mistakes are named before minutes of building.
    let asks = args.contains(&"--list");
    let mut read = Command::new(&program);
    read.args(args).arg("--list").stdout(Stdio::null()).stderr(Stdio::null());
    if !asks && read.status()?.success() {
        host::ensure_programs(test::BOX_NEEDS)?;
        command::visibly(Command::new(cargo::build_tool("dist")?).args(["--tarball"]))?;
        command::visibly(
            cargo::command().current_dir(cargo::workspace()?).args(["build", "-p", "tests"]),
        )?;
    }
    let programs = cargo::static_programs(&cargo::dist_build()?, &cargo::host_triple()?);
    let error = Command::new(&program).args(args).env("TEST_BINARIES", programs).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

/// Builds the package `name` and becomes its program.
fn become_tool(name: &str, args: &[&str]) -> Result<()> {
    let program = cargo::build_tool(name)?;
    let error = Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}
