//! A synchronous client of the API: one connection a request, every wait bounded.
//!
//! It also talks to RootlessKit's own server, which may answer in chunks.

mod flows;
mod lines;
mod response;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::policy::PolicyStatus;
use crate::stats::Stats;
use crate::types::{ErrorMessage, Info, PortId, PortSpec, PortStatus, from_json, to_json};
pub use flows::{AnswerLines, FlowLines};
use response::Response;

/// How long a request may take unless [`Client::with_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// An API socket to send requests to.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
    owner: Option<u32>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no such socket.
    #[error(
        "no RootlessKit API socket at {}: {reason}\n\
         hint: check that RootlessKit is running with that --state-dir; it creates the socket there when it starts",
        path.display()
    )]
    NoSocket {
        /// The socket.
        path: PathBuf,
        /// Why it cannot be found.
        reason: io::Error,
    },
    /// The socket is there but cannot be connected.
    #[error("cannot connect to the RootlessKit API at {}: {reason}{}", path.display(), hint(reason))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why it cannot be connected.
        reason: io::Error,
    },
    /// The server is not of the user that [`Client::served_by`] names.
    #[error("the server at {} belongs to user {user}, not to user {owner}", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// Whose server it is.
        user: u32,
        /// Whose it should be.
        owner: u32,
    },
    /// The answer did not come in time.
    #[error("no response from the RootlessKit API at {} within {timeout:?}", path.display())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// What was waited.
        timeout: Duration,
    },
    /// The connection broke, or what came is not an answer of this API.
    #[error("invalid response from the RootlessKit API at {}: {reason}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The server is of a version that does not know [`PortSpec::allow_from`].
    #[error(
        "the running RootlessKit cannot restrict the clients of a port, so the port was removed again\n\
         hint: restart the daemon, so that it runs with the RootlessKit that is installed now"
    )]
    ServesEverybody,
    /// The server refused. The text is the server's own, for the user.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's message.
        message: String,
    },
}

fn hint(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::ConnectionRefused => {
            "\nhint: start RootlessKit or wait until it has started; no process is listening on this socket"
        }
        io::ErrorKind::PermissionDenied => "\nhint: connect as the user who started RootlessKit",
        io::ErrorKind::InvalidInput => {
            "\nhint: use a shorter --state-dir; the path of a unix socket must be shorter than 108 bytes"
        }
        _ => "",
    }
}

impl Client {
    /// A client of the API at `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: DEFAULT_TIMEOUT, owner: None }
    }

    /// The same client with another bound for the whole of each request.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same client, which talks only to a server of the user with this ID: one whose process has called listen(2), unix(7),
    /// `SO_PEERCRED`. Without this, whoever can make the socket is trusted.
    #[must_use]
    pub fn served_by(self, owner: u32) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// The socket this client connects to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /v1/info`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn info(&self) -> Result<Info, ClientError> {
        self.decode(&self.request("GET", "/v1/info", None)?)
    }

    /// `GET /v1/ports`; `null` is an empty list.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn list_ports(&self) -> Result<Vec<PortStatus>, ClientError> {
        self.decode(&self.request("GET", "/v1/ports", None)?)
    }

    /// `POST /v1/ports`. A server that does not know [`PortSpec::allow_from`] would serve all clients; the port is removed
    /// again then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn add_port(&self, spec: &PortSpec) -> Result<PortStatus, ClientError> {
        let status: PortStatus =
            self.decode(&self.request("POST", "/v1/ports", Some(&to_json(spec)))?)?;
        if status.spec.allow_from != spec.allow_from {
            self.remove_port(status.id)?;
            return Err(ClientError::ServesEverybody);
        }
        Ok(status)
    }

    /// `DELETE /v1/ports/{id}`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn remove_port(&self, id: PortId) -> Result<(), ClientError> {
        self.request("DELETE", &format!("/v1/ports/{id}"), None).map(drop)
    }

    /// `GET /v1/stats`, our extension of the API.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with status 404 if the network driver counts nothing, or the server is
    /// one that does not know this path.
    pub fn stats(&self) -> Result<Stats, ClientError> {
        self.decode(&self.request("GET", "/v1/stats", None)?)
    }

    /// The same as OpenMetrics text, which is handed on as it came.
    ///
    /// # Errors
    /// As [`Client::stats`]; [`ClientError::Answer`] if it is not UTF-8.
    pub fn stats_openmetrics(&self) -> Result<String, ClientError> {
        let response = self.request("GET", "/v1/stats?format=openmetrics", None)?;
        String::from_utf8(response.body).map_err(|error| self.invalid(&error))
    }

    /// `GET /v1/policy`, our extension of the API.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with status 404 if no egress policy is in force, or the server is one that
    /// does not know this path.
    pub fn policy(&self) -> Result<PolicyStatus, ClientError> {
        self.decode(&self.request("GET", "/v1/policy", None)?)
    }

    /// `GET` of a path of another API that is served at the socket as this one is, such as Docker's.
    ///
    /// # Errors
    /// See [`ClientError`], whose messages speak of RootlessKit's API.
    pub fn get<T: serde::de::DeserializeOwned + Default>(
        &self,
        path: &str,
    ) -> Result<T, ClientError> {
        self.decode(&self.request("GET", path, None)?)
    }

    fn request(
        &self,
        method: &str,
        target: &str,
        body: Option<&str>,
    ) -> Result<Response, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut stream = Bounded { stream: self.connect()?, deadline: Some(deadline) };
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: rootlesskit\r\nConnection: close\r\n");
        if let Some(body) = body {
            request.push_str("Content-Type: application/json\r\n");
            request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        } else {
            request.push_str("\r\n");
        }
        // A server may answer and close before it has read everything: then the answer counts, not the broken pipe.
        let written = stream.write_all(request.as_bytes());
        let response = match (response::read(&mut stream), written) {
            (Ok(response), _) => response,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(self.broken(&error)),
        };
        if (200..300).contains(&response.status) { Ok(response) } else { Err(refusal(&response)) }
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        if let Err(reason) = std::fs::metadata(&self.socket) {
            return Err(ClientError::NoSocket { path: self.socket.clone(), reason });
        }
        let connect = || -> io::Result<UnixStream> {
            let address = SockAddr::unix(&self.socket)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // connect(2) waits for room in the listen queue, at most for the send timeout: unix(7), SO_SNDTIMEO.
            socket.set_write_timeout(Some(self.timeout))?;
            // A unix socket is connected at once or not at all, so after a signal it is simply tried again.
            while let Err(error) = socket.connect(&address) {
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            Ok(socket.into())
        };
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::WouldBlock => self.timed_out(),
            _ => ClientError::Connect { path: self.socket.clone(), reason },
        };
        let stream = connect().map_err(failed)?;
        if let Some(owner) = self.owner {
            let user = getsockopt(&stream, PeerCredentials).map_err(|e| failed(e.into()))?.uid();
            if user != owner {
                return Err(ClientError::Foreign { path: self.socket.clone(), user, owner });
            }
        }
        Ok(stream)
    }

    fn broken(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.timed_out(),
            _ => self.invalid(error),
        }
    }

    fn timed_out(&self) -> ClientError {
        ClientError::Timeout { path: self.socket.clone(), timeout: self.timeout }
    }

    fn invalid(&self, reason: &dyn std::error::Error) -> ClientError {
        ClientError::Answer { path: self.socket.clone(), reason: reason.to_string() }
    }

    fn decode<T: serde::de::DeserializeOwned + Default>(
        &self,
        response: &Response,
    ) -> Result<T, ClientError> {
        from_json(&response.body).map_err(|error| self.invalid(&error))
    }
}

fn refusal(response: &Response) -> ClientError {
    let message = match from_json::<ErrorMessage>(&response.body) {
        Ok(ErrorMessage { message }) if !message.is_empty() => message,
        _ => {
            let text = String::from_utf8_lossy(&response.body);
            // The API's own refusals are JSON: this server does not know the path.
            let hint = match response.status {
                404 => {
                    "\nhint: use a newer RootlessKit; this one is too old for the request, or is a different implementation"
                }
                _ => "",
            };
            format!(
                "unexpected HTTP status {} from the RootlessKit API: {}{hint}",
                response.status,
                text.trim()
            )
        }
    };
    ClientError::Refused { status: response.status, message }
}

#[derive(Debug)]
struct Bounded {
    stream: UnixStream,
    /// None: for as long as it takes.
    deadline: Option<Instant>,
}

impl Bounded {
    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Bounded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buf)
    }
}

impl Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests;
