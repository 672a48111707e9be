//! `--port-driver=slirp4netns`: slirp4netns itself listens on the host and forwards through its TCP/IP stack
//! (slirp4netns(1), "API socket"). Slower than builtin, but servers see the addresses of clients.
//!
//! One request per connection: write the JSON, shut down writing, read the answer to its end.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::spec::{Family, Transport};
use api::{PortDriverInfo, PortId, PortSpec, PortStatus, ValidSpec};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde::{Deserialize, Serialize};

use crate::port::Driver;
use crate::port::patience::{Patience, Refused, settle};
use crate::port::serves_everybody;
use crate::port::table::Table;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer in bytes that is read.
const MAX_ANSWER: u64 = 64 * 1024;

#[derive(Debug, Serialize)]
#[serde(tag = "execute", content = "arguments", rename_all = "snake_case")]
enum Request {
    AddHostfwd {
        proto: &'static str,
        host_addr: Ipv4Addr,
        host_port: u16,
        guest_addr: Ipv4Addr,
        guest_port: u16,
    },
    RemoveHostfwd {
        id: i64,
    },
}

#[derive(Debug, Deserialize)]
struct Answer {
    r#return: Option<Returned>,
    error: Option<Problem>,
}

#[derive(Debug, Default, Deserialize)]
struct Returned {
    #[serde(default)]
    id: i64,
}

#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    desc: String,
}

/// The driver; what it keeps of each port is slirp4netns' number for it.
#[derive(Debug)]
pub(crate) struct Slirp4netns {
    socket: PathBuf,
    /// Where ports lead that name no address.
    child: Ipv4Addr,
    table: Table<i64>,
    patience: Patience,
}

impl Slirp4netns {
    pub(crate) fn new(socket: PathBuf, child: Ipv4Addr) -> Self {
        Self { socket, child, table: Table::new(), patience: Patience::default() }
    }

    fn publish(&self, spec: &ValidSpec) -> anyhow::Result<i64> {
        let request = self.add_request(spec)?;
        Ok(self.ask(&request)?.id)
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Returned> {
        self.patience.ask("slirp4netns", ANSWER_TIMEOUT, || ask(&self.socket, request))
    }

    fn add_request(&self, spec: &ValidSpec) -> anyhow::Result<Request> {
        serves_everybody(spec, "slirp4netns")?;
        if spec.proto.family() == Some(Family::V6) {
            bail!(
                "unsupported protocol: {} (the slirp4netns port driver supports only IPv4)",
                spec.proto.as_str()
            );
        }
        let proto = match spec.proto.transport() {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => bail!("unsupported protocol: {}", spec.proto.as_str()),
        };
        let v4 = |what: &str, ip: Option<IpAddr>, default| match ip.map(|ip| ip.to_canonical()) {
            None => Ok(default),
            Some(IpAddr::V4(ip)) => Ok(ip),
            Some(IpAddr::V6(ip)) => {
                bail!("invalid {what}: {ip} (the slirp4netns port driver supports only IPv4)")
            }
        };
        let guest_addr = v4("ChildIP", spec.child_ip, self.child)?;
        if guest_addr.is_loopback() {
            bail!(
                "invalid ChildIP: {guest_addr} (the slirp4netns port driver cannot reach the namespace's loopback)\nhint: omit ChildIP, or use {}",
                self.child
            );
        }
        Ok(Request::AddHostfwd {
            proto,
            host_addr: v4("ParentIP", spec.parent_ip, Ipv4Addr::UNSPECIFIED)?,
            host_port: spec.parent_port,
            guest_addr,
            guest_port: spec.child_port,
        })
    }
}

/// connect(2) to a helper that hangs waits for room in its queue, unless the socket has a time limit first.
fn connect(path: &Path) -> nix::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::seconds(ANSWER_TIMEOUT.as_secs().cast_signed());
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    nix::sys::socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

fn ask(socket: &Path, request: &Request) -> anyhow::Result<Returned> {
    let exchange = || -> anyhow::Result<Vec<u8>> {
        let mut stream = connect(socket)?;
        stream.write_all(&serde_json::to_vec(request)?)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange()
        .with_context(|| format!("failed to talk to slirp4netns at {}", socket.display()))?;
    let text = || String::from_utf8_lossy(&answer).into_owned();
    let parsed: Answer = serde_json::from_slice(&answer)
        .with_context(|| format!("invalid answer from slirp4netns: {}", text()))?;
    let Some(problem) = parsed.error else { return Ok(parsed.r#return.unwrap_or_default()) };
    let why = if problem.desc.is_empty() { text() } else { problem.desc };
    Err(Refused(format!("slirp4netns refused: {why}")).into())
}

impl Driver for Slirp4netns {
    fn info(&self) -> PortDriverInfo {
        PortDriverInfo {
            driver: "slirp4netns".to_owned(),
            protos: ["tcp", "tcp4", "udp", "udp4"].map(str::to_owned).to_vec(),
            disallow_loopback_child_ip: true,
            ..PortDriverInfo::default()
        }
    }

    fn list(&self) -> Vec<PortStatus> {
        self.table.list()
    }

    fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus> {
        let valid = spec.validate()?;
        let id = self.table.reserve(&spec)?;
        let theirs = self.publish(&valid).with_context(|| format!("failed to publish {spec}"))?;
        Ok(self.table.insert(id, spec, theirs))
    }

    fn remove(&mut self, id: PortId) -> anyhow::Result<()> {
        let (spec, theirs) = self.table.get(id)?;
        let withdrawn = self
            .ask(&Request::RemoveHostfwd { id: *theirs })
            .map(|_| ())
            .with_context(|| format!("failed to remove {spec}"));
        settle(&mut self.table, id, withdrawn)
    }

    fn helper_restarted(&mut self) {
        let Self { socket, child, table, .. } = self;
        let this = Self::new(socket.clone(), *child);
        for (spec, theirs) in table.iter_mut() {
            let again = spec.validate().map_err(anyhow::Error::from).and_then(|v| this.publish(&v));
            match again {
                Ok(id) => *theirs = id,
                Err(e) => {
                    tracing::error!(
                        "failed to publish {spec} again: {}",
                        crate::exit::describe(&e)
                    );
                }
            }
        }
        self.patience = this.patience;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    /// Answers one request with each text and returns what it was asked.
    fn stand_in(socket: &Path, answers: Vec<&'static str>) -> std::thread::JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let serve = |answer: &str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                stream.read_to_string(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                request
            };
            answers.into_iter().map(serve).collect()
        })
    }

    #[test]
    fn ports_are_published_withdrawn_and_published_again() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let answers = vec![
            r#"{"return":{"id":7}}"#,
            r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#,
            r#"{"return":{"id":1}}"#,
            r#"{"return":{}}"#,
        ];
        let server = stand_in(&socket, answers);
        let mut driver = Slirp4netns::new(socket, Ipv4Addr::new(10, 0, 2, 100));
        let add = |driver: &mut Slirp4netns, text: &str| driver.add(text.parse().unwrap());
        assert_eq!(add(&mut driver, "127.0.0.1:8080:80/tcp").unwrap().id, 1);
        let refused = format!("{:#}", add(&mut driver, ":8081:81/udp4").unwrap_err());
        assert!(
            refused.contains(":8081") && refused.contains("slirp_add_hostfwd failed"),
            "{refused}"
        );
        driver.helper_restarted();
        driver.remove(1).unwrap();
        assert!(driver.list().is_empty());
        let asked = server.join().unwrap();
        let add = r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"127.0.0.1","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80}}"#;
        assert_eq!([&asked[0], &asked[2]], [add, add]);
        assert_eq!(asked[3], r#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#);
    }

    #[test]
    fn a_port_that_may_still_be_there_stays_in_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let server = stand_in(&socket, vec![r#"{"return":{"id":7}}"#, "not JSON"]);
        let mut driver = Slirp4netns::new(socket.clone(), Ipv4Addr::new(10, 0, 2, 100));
        let id = driver.add(":8080:80/tcp".parse().unwrap()).unwrap().id;
        assert!(driver.remove(id).is_err());
        server.join().unwrap();
        assert!(driver.remove(id).is_err(), "nobody listens");
        assert_eq!(driver.list().len(), 1);
        std::fs::remove_file(&socket).unwrap();
        let server = stand_in(&socket, vec![r#"{"error":{"desc":"bad id"}}"#]);
        assert!(format!("{:#}", driver.remove(id).unwrap_err()).contains("bad id"));
        server.join().unwrap();
        assert!(driver.list().is_empty());
    }

    #[test]
    fn loopback_ipv6_and_lists_of_clients_are_refused() {
        let mut driver = Slirp4netns::new("/nonexistent".into(), Ipv4Addr::new(10, 0, 2, 100));
        for text in [":80:80/tcp6", "[::1]:80:80/tcp", "0.0.0.0:80:[fd00::1]:80/tcp", ":80:80/sctp"]
        {
            let error = format!("{:#}", driver.add(text.parse().unwrap()).unwrap_err());
            assert!(
                error.contains("supports only IPv4") || error.contains("unsupported protocol"),
                "{error}"
            );
        }
        let clients = driver.add(":80:80/tcp@10.9.0.0/24".parse().unwrap()).unwrap_err();
        let text = format!("{clients:#}");
        assert!(
            text.contains("invalid allowFrom: 10.9.0.0/24 (the slirp4netns port driver cannot"),
            "{text}"
        );
        let loopback = driver.add(":80:127.0.0.2:80/tcp".parse().unwrap()).unwrap_err();
        assert!(format!("{loopback:#}").contains("invalid ChildIP: 127.0.0.2"), "{loopback:#}");
        let error = format!("{:#}", driver.add(":80:80/tcp".parse().unwrap()).unwrap_err());
        assert!(error.contains("failed to talk to slirp4netns at /nonexistent"), "{error}");
    }

    #[test]
    fn a_hanging_helper_costs_the_limit_once() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        // Nobody accepts: the queue takes one or two connections, others would wait in connect(2).
        let fd = nix::sys::socket::socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        nix::sys::socket::bind(fd.as_raw_fd(), &UnixAddr::new(&socket).unwrap()).unwrap();
        nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _queued: Vec<_> = (0..1).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        let mut driver = Slirp4netns::new(socket, Ipv4Addr::new(10, 0, 2, 100));
        let begin = Instant::now();
        for port in 9000..9020 {
            assert!(driver.add(format!(":{port}:80/tcp").parse().unwrap()).is_err());
        }
        let took = begin.elapsed();
        // Each of the twenty would take as long.
        assert!(took >= ANSWER_TIMEOUT && took < ANSWER_TIMEOUT * 10, "{took:?}");
        assert!(driver.list().is_empty());
    }
}
