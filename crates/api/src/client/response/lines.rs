//! Reading a response that goes on.

use std::io::{self, Read};

use super::{HEAD_MAX, Input, invalid};

/// Longest line accepted, in bytes.
const LINE_MAX: usize = 64 << 10;

/// The body of a response that goes on, line by line.
#[derive(Debug)]
pub(in crate::client) struct Lines<R> {
    input: Input<R>,
    chunked: bool,
    /// Bytes of the present chunk that have not come yet, with those of its end.
    left: usize,
    /// What has no end of line yet, and lines behind the one that was taken last.
    body: Vec<u8>,
    ended: bool,
}

/// What ends a chunk.
const CHUNK_END: usize = 2;

impl<R: Read> Lines<R> {
    pub(super) fn new(input: Input<R>, chunked: bool) -> Self {
        Self { input, chunked, left: 0, body: Vec::new(), ended: false }
    }

    pub(in crate::client) fn source(&mut self) -> &mut R {
        &mut self.input.source
    }

    pub(in crate::client) fn get(&self) -> &R {
        &self.input.source
    }

    /// The next line of those that have come, without its end.
    pub(in crate::client) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.decode()?;
        let Some(end) = self.body.iter().position(|byte| *byte == b'\n') else {
            return if self.body.len() > LINE_MAX {
                Err(invalid("a line is too long"))
            } else {
                Ok(None)
            };
        };
        let rest = self.body.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.body, rest);
        line.pop();
        Ok(Some(line))
    }

    /// Reads more. False if nothing more comes.
    pub(in crate::client) fn fill(&mut self) -> io::Result<bool> {
        if !self.ended {
            match self.input.fill() {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && !self.chunked => {
                    self.ended = true;
                }
                other => other?,
            }
            self.decode()?;
        }
        Ok(!self.ended)
    }

    /// Takes chunks apart, as far as they have come.
    fn decode(&mut self) -> io::Result<()> {
        let buffer = &mut self.input.buffer;
        if !self.chunked {
            self.body.append(buffer);
        }
        while !self.ended && !buffer.is_empty() {
            if self.left == 0 {
                match httparse::parse_chunk_size(buffer) {
                    Ok(httparse::Status::Complete((_, 0))) => self.ended = true,
                    Ok(httparse::Status::Complete((head, size))) => {
                        let size =
                            usize::try_from(size).ok().and_then(|size| size.checked_add(CHUNK_END));
                        self.left = size.ok_or_else(|| invalid("a chunk is too large"))?;
                        buffer.drain(..head);
                    }
                    Ok(httparse::Status::Partial) if buffer.len() > HEAD_MAX => {
                        return Err(invalid("the head of a chunk is too large"));
                    }
                    Ok(httparse::Status::Partial) => break,
                    Err(_) => return Err(invalid("the size of a chunk is not a number")),
                }
                continue;
            }
            let data = self.left.saturating_sub(CHUNK_END).min(buffer.len());
            self.body.extend(buffer.drain(..data));
            self.left -= data;
            let end = if self.left <= CHUNK_END { self.left.min(buffer.len()) } else { 0 };
            buffer.drain(..end);
            self.left -= end;
        }
        Ok(())
    }
}
