//! Long steps: a heading, a line every now and then that says that they go on, and the time each took.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long a step may say nothing.
const STAGE_INTERVAL: Duration = Duration::from_secs(30);

/// A build without changes ends before that.
const QUIET_INTERVAL: Duration = Duration::from_secs(2);
/// How long a build may say nothing after that.
const BUILD_INTERVAL: Duration = Duration::from_secs(4);

/// Runs `step` under a heading and keeps its duration for [`Stages::print`].
#[derive(Debug, Default)]
pub struct Stages {
    took: Vec<(String, Duration)>,
}

impl Stages {
    /// Runs one step.
    pub fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let started = Instant::now();
        let label = name.to_owned();
        let heartbeat = Heartbeat::start(STAGE_INTERVAL, STAGE_INTERVAL, move |passed| {
            eprintln!("... {label}: {} s", passed.as_secs());
        });
        let result = step();
        drop(heartbeat);
        self.took.push((name.to_owned(), started.elapsed()));
        result
    }

    /// Prints one line per step.
    pub fn print(&self) {
        for (name, took) in &self.took {
            eprintln!("{:>7.1} s  {name}", took.as_secs_f64());
        }
    }
}

/// Says every now and then that something goes on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat(Option<(Sender<()>, JoinHandle<()>)>);

impl Heartbeat {
    /// Calls `say` with the time that has passed: after `first`, and then every `interval`.
    fn start(
        first: Duration,
        interval: Duration,
        mut say: impl FnMut(Duration) + Send + 'static,
    ) -> Self {
        let (done, waits) = channel();
        let started = Instant::now();
        let thread = std::thread::spawn(move || {
            let mut pause = first;
            while waits.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                say(started.elapsed());
                pause = interval;
            }
        });
        Self(Some((done, thread)))
    }

    /// That of a build of the package `name`, which says nothing if there is nothing to build.
    pub(crate) fn of_build(name: &str) -> Self {
        let (name, mut first) = (name.to_owned(), true);
        Self::start(QUIET_INTERVAL, BUILD_INTERVAL, move |passed| {
            if std::mem::take(&mut first) {
                eprintln!("building {name}, which takes a minute or two the first time ...");
            } else {
                eprintln!("... building {name}: {} s", passed.as_secs());
            }
        })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        let Some((done, thread)) = self.0.take() else { return };
        drop(done);
        // It only prints; that it ended badly is no reason not to go on.
        let _ = thread.join();
    }
}
