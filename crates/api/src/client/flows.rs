//! Answers that go on: `GET /v1/flows`, and those of other APIs.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::lines::{Lines, begin};
use super::{Bounded, Client, ClientError, refusal};
use crate::flows::FlowEvent;

/// What has ended since [`Client::flows`].
#[derive(Debug)]
pub struct FlowLines(AnswerLines);

impl AsFd for FlowLines {
    /// Readable when [`FlowLines::fill`] does not have to wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl FlowLines {
    /// The next of the events that have been received.
    ///
    /// # Errors
    /// [`ClientError::Answer`] if what came is no event.
    pub fn next_event(&mut self) -> Result<Option<FlowEvent>, ClientError> {
        let line = self.0.next_line()?;
        let event = |line: Vec<u8>| serde_json::from_slice(&line);
        line.map(event).transpose().map_err(|e| self.0.client.invalid(&e))
    }

    /// As [`AnswerLines::fill`].
    ///
    /// # Errors
    /// Those of [`AnswerLines::fill`].
    pub fn fill(&mut self) -> Result<bool, ClientError> {
        self.0.fill()
    }
}

/// The lines of an answer that goes on, each at most 64 KiB long.
#[derive(Debug)]
pub struct AnswerLines {
    client: Client,
    lines: Lines<Bounded>,
}

impl AsFd for AnswerLines {
    /// Readable when [`AnswerLines::fill`] does not have to wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lines.get().stream.as_fd()
    }
}

impl AnswerLines {
    /// The next of the lines that have been received, without its end.
    ///
    /// # Errors
    /// [`ClientError::Answer`] if it is too long.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        self.lines.next().map_err(|e| self.client.invalid(&e))
    }

    /// Waits until there is more, for as long as it takes. False if the server has ended the answer.
    ///
    /// # Errors
    /// [`ClientError::Answer`] if the connection broke, or what came is no HTTP.
    pub fn fill(&mut self) -> Result<bool, ClientError> {
        self.lines.fill().map_err(|e| self.client.invalid(&e))
    }
}

impl Client {
    /// `GET /v1/flows`, our extension of the API. The server has begun to record what ends when this returns.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with status 404 if the network driver keeps no flow log, or the server is
    /// one that does not know this path, and 503 if as many follow already as may.
    pub fn flows(&self) -> Result<FlowLines, ClientError> {
        self.lines("/v1/flows").map(FlowLines)
    }

    /// `GET` of a path whose answer goes on, line by line, of this API or another one as with [`Client::get`]. This returns
    /// when the answer begins.
    ///
    /// # Errors
    /// See [`ClientError`], whose messages speak of RootlessKit's API.
    pub fn lines(&self, path: &str) -> Result<AnswerLines, ClientError> {
        let deadline = Some(Instant::now() + self.timeout);
        let mut stream = Bounded { stream: self.connect()?, deadline };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: rootlesskit\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|e| self.broken(&e))?;
        let mut lines = match begin(stream).map_err(|e| self.broken(&e))? {
            Ok(lines) => lines,
            Err(response) => return Err(refusal(&response)),
        };
        lines.source().deadline = None;
        Ok(AnswerLines { client: self.clone(), lines })
    }
}
