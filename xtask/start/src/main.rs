//! What `cargo xtask` runs: builds the package xtask, says that it does so if that takes a while, and becomes it.
//!
//! `cargo run --quiet` alone is silent while it builds, and without `--quiet` it prints two lines of its own
//! before every run. This program has no dependencies, so it is built within a second or two.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use xtask_start::Build;

/// A build without changes ends before that.
const QUIET_INTERVAL: Duration = Duration::from_secs(2);
/// How often there is a sign of life after that.
const BUILD_INTERVAL: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: cannot start xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Comes back only if there is no xtask.
fn run() -> io::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let (done, heart) = heart();
    let build = Build::own()?;
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "xtask"])
        .args(build.arguments())
        .status();
    drop(done);
    // It only prints; that it ended badly is no reason not to go on.
    let _ = heart.join();
    if !built?.success() {
        // cargo has said why.
        return Ok(ExitCode::FAILURE);
    }
    Err(Command::new(build.folder().join("xtask")).args(std::env::args_os().skip(1)).exec())
}

/// Says every now and then that the build goes on, until the sender is dropped.
fn heart() -> (Sender<()>, JoinHandle<()>) {
    let (done, waits) = channel();
    let begun = Instant::now();
    let thread = std::thread::spawn(move || {
        let mut pause = QUIET_INTERVAL;
        while waits.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            if pause == QUIET_INTERVAL {
                eprintln!("building xtask, which takes up to a minute the first time ...");
            } else {
                eprintln!("... building xtask: {} s", begun.elapsed().as_secs());
            }
            pause = BUILD_INTERVAL;
        }
    });
    (done, thread)
}
