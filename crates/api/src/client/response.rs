//! Reading one HTTP/1.1 response (RFC 9112) from a connection that carries nothing else.

use std::io::{self, Read};

/// Longest head accepted, in bytes.
pub(super) const HEAD_MAX: usize = 64 << 10;
/// Longest body of a success accepted, in bytes: a list of 65,535 ports takes about 8 MiB.
const BODY_MAX: usize = 64 << 20;
/// Longest body of an error looked at, in bytes; the rest is cut off.
const ERROR_BODY_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    UntilEof,
}

/// Reads a response, interim (1xx) ones left aside. It is `UnexpectedEof` if the response is cut short, `InvalidData` if it
/// is not HTTP or too large.
pub(super) fn read(source: impl Read) -> io::Result<Response> {
    let mut input = Input { source, buffer: Vec::new() };
    let (status, framing) = final_head(&mut input)?;
    whole(&mut input, status, framing)
}

/// Reads the body behind a head.
pub(super) fn whole(
    input: &mut Input<impl Read>,
    status: u16,
    framing: Framing,
) -> io::Result<Response> {
    let success = (200..300).contains(&status);
    let max = if success { BODY_MAX } else { ERROR_BODY_MAX };
    let body = match framing {
        _ if matches!(status, 204 | 304) => Vec::new(),
        Framing::Length(length) if success && length > max => {
            return Err(invalid(&format!("a body of {length} bytes is too large")));
        }
        Framing::Length(length) => input.take(length.min(max))?,
        Framing::Chunked => chunks(input, max, success)?,
        Framing::UntilEof => rest(input, max, success)?,
    };
    Ok(Response { status, body })
}

/// The head of the response itself.
pub(super) fn final_head(input: &mut Input<impl Read>) -> io::Result<(u16, Framing)> {
    loop {
        let (status, framing) = head(input)?;
        if !(100..200).contains(&status) {
            return Ok((status, framing));
        }
    }
}

/// Parses a head off the input.
fn head(input: &mut Input<impl Read>) -> io::Result<(u16, Framing)> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&input.buffer).map_err(|error| invalid(&error.to_string()))?;
        if let httparse::Status::Complete(length) = parsed {
            let status = response.code.ok_or_else(|| invalid("the status code is missing"))?;
            let framing = framing(response.headers)?;
            input.buffer.drain(..length);
            return Ok((status, framing));
        }
        if input.buffer.len() > HEAD_MAX {
            return Err(invalid("the head is too large"));
        }
        input.fill()?;
    }
}

fn framing(headers: &[httparse::Header<'_>]) -> io::Result<Framing> {
    let find = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if let Some(coding) = find("transfer-encoding") {
        return if coding.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            Ok(Framing::Chunked)
        } else {
            Err(invalid("unknown transfer coding"))
        };
    }
    let Some(length) = find("content-length") else { return Ok(Framing::UntilEof) };
    std::str::from_utf8(length.value)
        .ok()
        .and_then(|length| length.trim().parse().ok())
        .map(Framing::Length)
        .ok_or_else(|| invalid("the content length is not a number"))
}

/// Joins the chunks of a body. Trailers are left unread: nothing follows on this connection.
fn chunks(input: &mut Input<impl Read>, max: usize, success: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (head, size) = loop {
            match httparse::parse_chunk_size(&input.buffer) {
                Ok(httparse::Status::Complete(head)) => break head,
                Ok(httparse::Status::Partial) if input.buffer.len() > HEAD_MAX => {
                    return Err(invalid("the head of a chunk is too large"));
                }
                Ok(httparse::Status::Partial) => input.fill()?,
                Err(_) => return Err(invalid("the size of a chunk is not a number")),
            }
        };
        input.buffer.drain(..head);
        if size == 0 {
            return Ok(body);
        }
        let room = max - body.len();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > room {
            if success {
                return Err(invalid("the body is too large"));
            }
            body.extend(input.take(room)?);
            return Ok(body);
        }
        body.extend(input.take(size)?);
        if input.take(2)? != b"\r\n" {
            return Err(invalid("a chunk is longer than its size"));
        }
    }
}

fn rest(input: &mut Input<impl Read>, max: usize, success: bool) -> io::Result<Vec<u8>> {
    let mut body = std::mem::take(&mut input.buffer);
    let more = max.saturating_add(1).saturating_sub(body.len());
    (&mut input.source).take(more as u64).read_to_end(&mut body)?;
    if body.len() > max {
        if success {
            return Err(invalid("the body is too large"));
        }
        body.truncate(max);
    }
    Ok(body)
}

/// A source and what has been read ahead from it.
#[derive(Debug)]
pub(super) struct Input<R> {
    pub(super) source: R,
    pub(super) buffer: Vec<u8>,
}

impl<R: Read> Input<R> {
    pub(super) fn fill(&mut self) -> io::Result<()> {
        let mut block = [0; 8192];
        loop {
            match self.source.read(&mut block) {
                Ok(0) => {
                    let reason = "the connection was closed before the end of the response";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                }
                Ok(n) => {
                    self.buffer.extend_from_slice(&block[..n]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes `length` bytes from the front, reading what is missing.
    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }
}

pub(super) fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> io::Result<Response> {
        read(bytes)
    }

    fn ok(status: u16, body: &str) -> Response {
        Response { status, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn finds_the_end_by_length_by_chunks_and_by_eof() {
        let by_length = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnullextra");
        assert_eq!(by_length.unwrap(), ok(200, "null"));
        let chunked = b"HTTP/1.1 201 Created\r\ntransfer-encoding: Chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), ok(201, "{\"a\":1}"));
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\nnull").unwrap(), ok(200, "null"));
    }

    #[test]
    fn skips_interim_responses() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse(bytes).unwrap(), ok(200, ""));
    }

    #[test]
    fn cuts_long_errors_off() {
        let long = "x".repeat(ERROR_BODY_MAX + 10);
        let by_length = format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{long}", long.len());
        assert_eq!(parse(by_length.as_bytes()).unwrap().body.len(), ERROR_BODY_MAX);
        let by_eof = format!("HTTP/1.1 500 No\r\n\r\n{long}");
        assert_eq!(parse(by_eof.as_bytes()).unwrap().body.len(), ERROR_BODY_MAX);
        let chunked = format!(
            "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        );
        assert_eq!(parse(chunked.as_bytes()).unwrap().body.len(), ERROR_BODY_MAX);
    }

    #[test]
    fn refuses_what_is_cut_short_or_not_http() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnull",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnull\r\n",
        ] {
            let error = parse(bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{bytes:?}");
        }
        for bytes in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nnull\r\n",
        ] {
            let error = parse(bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes[..]].concat());
        }

        #[test]
        fn chunks_of_any_size_join(parts in proptest::collection::vec("[a-z]{1,40}", 0..8)) {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for part in &parts {
                bytes.extend(format!("{:X}\r\n{part}\r\n", part.len()).bytes());
            }
            bytes.extend(b"0\r\n\r\n");
            prop_assert_eq!(parse(&bytes).unwrap(), ok(200, &parts.concat()));
        }
    }
}
