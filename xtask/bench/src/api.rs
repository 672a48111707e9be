//! Publishing over the API, as fast as one connection that is kept can, and statistics.
//!
//! The project's own client opens a connection for each request, which would be measured too.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// One answer may take this long.
const API_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Api(BufReader<UnixStream>);

impl Api {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(API_TIMEOUT))?;
        stream.set_write_timeout(Some(API_TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Publishes a TCP port on 127.0.0.1; returns its id.
    pub(crate) fn publish(&mut self, outside: u16, inside: u16) -> Result<u64> {
        let spec = json!({
            "proto": "tcp", "parentIP": "127.0.0.1", "parentPort": outside, "childPort": inside
        });
        let (status, body) = self.request("POST", "/v1/ports", &spec.to_string())?;
        ensure!(status == 201, "publishing {outside}: {status}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        answer["id"].as_u64().with_context(|| format!("no id in {body}"))
    }

    pub(crate) fn remove(&mut self, id: u64) -> Result<()> {
        let (status, body) = self.request("DELETE", &format!("/v1/ports/{id}"), "")?;
        ensure!(status == 200, "removing port {id}: {status}: {body}");
        Ok(())
    }

    /// What has been counted so far.
    pub(crate) fn stats(&mut self) -> Result<Value> {
        let (status, body) = self.request("GET", "/v1/stats", "")?;
        ensure!(status == 200, "statistics: {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Sends one request and reads its answer: status and body.
    fn request(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: rootlesskit\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        self.0.get_mut().write_all((head + body).as_bytes())?;
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "the API has closed the connection");
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("{line:?} is no status line"))?;
        let mut length = None;
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the answer was cut");
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.context("an answer without Content-Length")?];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body)?))
    }
}
