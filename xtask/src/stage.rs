//! Long steps: a heading, a sign of life every half minute, and the time each took.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long a step may say nothing.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Runs `step` under a heading and keeps its duration for [`Stages::print`].
#[derive(Debug, Default)]
pub(crate) struct Stages {
    took: Vec<(String, Duration)>,
}

impl Stages {
    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let started = Instant::now();
        let (done, waits) = mpsc::channel::<()>();
        let label = name.to_owned();
        let heart = std::thread::spawn(move || {
            while waits.recv_timeout(HEARTBEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("... {label}: {} s", started.elapsed().as_secs());
            }
        });
        let result = step();
        drop(done);
        let _ = heart.join();
        self.took.push((name.to_owned(), started.elapsed()));
        result
    }

    /// Prints one line per step.
    pub(crate) fn print(&self) {
        for (name, took) in &self.took {
            eprintln!("{:>7.1} s  {name}", took.as_secs_f64());
        }
    }
}
