//! Long steps: a heading, a line that says that they go on whenever nothing else was printed for a while, and the time
//! each took.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long there may be nothing to read if somebody waits for the end.
pub const WATCHED: Duration = Duration::from_secs(4);
/// How long there may be nothing to read in a run that is read afterwards.
pub const LOGGED: Duration = Duration::from_secs(30);

/// A build without changes ends before that.
const QUIET_INTERVAL: Duration = Duration::from_secs(2);

/// When something was last printed by this program or by a command whose output passes through it.
static LAST_LINE: Mutex<Option<Instant>> = Mutex::new(None);

fn last_line() -> MutexGuard<'static, Option<Instant>> {
    LAST_LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that something was printed just now.
pub fn printed() {
    *last_line() = Some(Instant::now());
}

/// Runs steps under headings and keeps their durations for [`Stages::print`].
#[derive(Debug)]
pub struct Stages {
    interval: Duration,
    took: Vec<(String, Duration)>,
}

impl Stages {
    /// Steps that print something at least every `interval`: [`WATCHED`] or [`LOGGED`].
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, took: Vec::new() }
    }

    /// Runs one step.
    pub fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        printed();
        let started = Instant::now();
        let label = name.to_owned();
        let heartbeat = Heartbeat::start(self.interval, self.interval, move |passed| {
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

/// Says that something goes on whenever nothing was printed for a while, until it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat(Option<(Sender<()>, JoinHandle<()>)>);

impl Heartbeat {
    /// Calls `say` with the time that has passed: once nothing was printed for `first` since the start, and then whenever
    /// nothing was printed for `interval`.
    fn start(
        first: Duration,
        interval: Duration,
        mut say: impl FnMut(Duration) + Send + 'static,
    ) -> Self {
        let (done, waits) = channel();
        let started = Instant::now();
        let thread = std::thread::spawn(move || {
            let (mut limit, mut pause) = (first, first);
            while waits.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // Held while it speaks: of two that are due, only one does.
                let mut last = last_line();
                let since = last.map_or(started, |last| last.max(started));
                pause = rest(since.elapsed(), limit).unwrap_or_else(|| {
                    say(started.elapsed());
                    *last = Some(Instant::now());
                    limit = interval;
                    interval
                });
            }
        });
        Self(Some((done, thread)))
    }

    /// That of a build of the package `name`, which says nothing if there is nothing to build.
    pub(crate) fn of_build(name: &str) -> Self {
        let (name, mut first) = (name.to_owned(), true);
        Self::start(QUIET_INTERVAL, WATCHED, move |passed| {
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

/// How much longer it may be silent, unless it was so for long enough.
fn rest(silent: Duration, limit: Duration) -> Option<Duration> {
    limit.checked_sub(silent).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_only_after_silence() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(seconds(1), WATCHED), Some(seconds(3)));
        assert_eq!(rest(WATCHED, WATCHED), None);
        assert_eq!(rest(seconds(9), WATCHED), None);

        let (said, hears) = channel();
        let quiet = Duration::from_millis(1);
        let heartbeat = Heartbeat::start(quiet, quiet, move |passed| {
            let _ = said.send(passed);
        });
        let [first, second] = [(); 2].map(|()| hears.recv().unwrap());
        assert!(quiet <= first && first < second);
        drop(heartbeat);
        assert!(last_line().is_some());
    }
}
