//! What a running helper prints, in whole lines: programs write them in pieces.

use std::io::{self, ErrorKind, PipeReader};

use tokio::net::unix::pipe;

use crate::drivers::{last_words, one_line};

/// A line that is longer than this, in bytes, comes in several.
const MAX_LINE: usize = 2048;

/// The end of the pipe that a helper prints into.
#[derive(Debug)]
pub(super) struct Output {
    pipe: pipe::Receiver,
    /// The beginning of a line.
    unfinished: Vec<u8>,
}

impl Output {
    pub(super) fn new(pipe: PipeReader) -> io::Result<Self> {
        Ok(Self { pipe: pipe::Receiver::from_owned_fd(pipe.into())?, unfinished: Vec::new() })
    }

    /// The next lines, joined into one, which is empty if they were white space; `None` at the end of the output.
    /// Cancelling it loses nothing.
    pub(super) async fn lines(&mut self) -> Option<String> {
        let mut buf = [0u8; MAX_LINE];
        loop {
            if let Some(lines) = self.whole_lines() {
                return Some(lines);
            }
            self.pipe.readable().await.ok()?;
            match self.pipe.try_read(&mut buf) {
                Ok(0) if self.unfinished.is_empty() => return None,
                Ok(0) => return Some(one_line(&std::mem::take(&mut self.unfinished))),
                Ok(n) => self.unfinished.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    fn whole_lines(&mut self) -> Option<String> {
        let newline = self.unfinished.iter().rposition(|&byte| byte == b'\n');
        let end = match newline {
            Some(at) => at + 1,
            None if self.unfinished.len() >= MAX_LINE => self.unfinished.len(),
            None => return None,
        };
        let rest = self.unfinished.split_off(end);
        Some(one_line(&std::mem::replace(&mut self.unfinished, rest)))
    }

    /// What is left when the helper has ended. The runtime may not know yet that there is more.
    pub(super) fn rest(self) -> String {
        last_words(&self.pipe, self.unfinished)
    }
}
