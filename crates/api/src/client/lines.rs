//! Reading a response that goes on.

use std::io::{self, Read};

use super::response::{Framing, HEAD_MAX, Input, Response, final_head, invalid, whole};

/// Longest line accepted, in bytes.
const LINE_MAX: usize = 64 << 10;

/// Reads the head of a response whose body goes on. One that is no success is read as a whole.
pub(super) fn begin<R: Read>(source: R) -> io::Result<Result<Lines<R>, Response>> {
    let mut input = Input { source, buffer: Vec::new() };
    let (status, framing) = final_head(&mut input)?;
    if !(200..300).contains(&status) {
        return whole(&mut input, status, framing).map(Err);
    }
    Ok(Ok(Lines::new(input, framing == Framing::Chunked)))
}

/// The body of a response that goes on, line by line.
#[derive(Debug)]
pub(super) struct Lines<R> {
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
    fn new(input: Input<R>, chunked: bool) -> Self {
        Self { input, chunked, left: 0, body: Vec::new(), ended: false }
    }

    pub(super) fn source(&mut self) -> &mut R {
        &mut self.input.source
    }

    pub(super) fn get(&self) -> &R {
        &self.input.source
    }

    /// The next line of those that have come, without its end.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
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
    pub(super) fn fill(&mut self) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_however_they_are_cut() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunked = format!("{head}5\r\none\nt\r\n7;x=y\r\nwo\n\nend\r\n1\r\n\n\r\n0\r\n\r\n");
        let until_eof = "HTTP/1.1 200 OK\r\n\r\none\ntwo\n\nend\nrest";
        for (text, size) in [(&*chunked, 1), (&chunked, 7), (&chunked, 1000), (until_eof, 3)] {
            let mut lines = begin(Cut(text.as_bytes(), size)).unwrap().unwrap();
            let mut found = Vec::new();
            loop {
                while let Some(line) = lines.next().unwrap() {
                    found.push(String::from_utf8(line).unwrap());
                }
                if !lines.fill().unwrap() {
                    break;
                }
            }
            while let Some(line) = lines.next().unwrap() {
                found.push(String::from_utf8(line).unwrap());
            }
            assert_eq!(found, ["one", "two", "", "end"], "{size}");
        }
        let refused = begin(&b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno"[..]).unwrap();
        assert_eq!(refused.unwrap_err(), Response { status: 404, body: b"no".to_vec() });
        let short = format!("{head}5\r\none");
        let mut lines = begin(short.as_bytes()).unwrap().unwrap();
        assert_eq!(lines.fill().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// A source that gives so many bytes at a time.
    #[derive(Debug)]
    struct Cut<'a>(&'a [u8], usize);

    impl Read for Cut<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(buf.len());
            self.0.read(&mut buf[..size])
        }
    }
}
