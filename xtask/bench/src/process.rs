//! Programs that the benchmark starts, and that end with it: each reads a pipe that this process holds, and ends when the
//! pipe closes.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long anything may take to start or to end.
pub(crate) const PROCESS_TIMEOUT: Duration = Duration::from_secs(10);

/// A program that ends when its input does.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.with_context(|| format!("starting {name}"))?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self { child, output })
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let output = self.output.as_mut().context("no output")?;
        ensure!(output.read_line(&mut line)? > 0, "process {} has ended", self.child.id());
        Ok(line)
    }

    /// What it prints.
    pub(crate) fn output(&mut self) -> Result<&mut impl Read> {
        self.output.as_mut().context("no output")
    }

    /// Waits until it has ended by itself, well.
    pub(crate) fn finished(mut self) -> Result<()> {
        let end = Instant::now() + PROCESS_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "process {}: {status}", self.child.id());
                return Ok(());
            }
            ensure!(Instant::now() < end, "process {} does not end", self.child.id());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has it end. An error if it has ended before, or does not end well.
    pub(crate) fn end(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "process {} has ended", self.child.id());
        drop(self.child.stdin.take());
        self.finished()
    }

    /// Datagrams that such a server counted so far, and its clock in seconds.
    pub(crate) fn counted(&mut self) -> Result<(f64, f64)> {
        let answer = self.ask()?;
        let number = |key: &str| answer[key].as_f64().with_context(|| format!("no {key}"));
        Ok((number("datagrams")?, number("seconds")?))
    }

    /// Waits until it repeats a line. cat(1) does once it runs, and then everything before it has happened.
    pub(crate) fn echo(&mut self) -> Result<()> {
        self.tell("ready\n")?;
        ensure!(self.line()? == "ready\n", "the target does not answer");
        Ok(())
    }

    fn tell(&mut self, text: &str) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("no input")?.write_all(text.as_bytes())?)
    }

    /// Asks it something.
    fn ask(&mut self) -> Result<Value> {
        self.tell("\n")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let end = Instant::now() + PROCESS_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                // Its own pid, which nobody has waited for yet.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A forwarder that needs to be told to end.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
