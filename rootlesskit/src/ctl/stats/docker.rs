//! Names of containers, from the Docker daemon that has made them. Without it there are addresses.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use api::Stats;
use api::client::{Client, ClientError};
use hostenv::{Env, vars};
use serde::Deserialize;

/// What the daemon may take to answer. Statistics are worth more than names.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The daemon that has made the containers.
#[derive(Debug)]
pub(in crate::ctl) struct Docker {
    client: Option<Client>,
    /// Whether the user knows that there are no names.
    told: Cell<bool>,
}

/// An element of `GET /containers/json` of Docker's API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::ctl) struct Container {
    pub(in crate::ctl) id: String,
    pub(in crate::ctl) names: Option<Vec<String>>,
    pub(in crate::ctl) host_config: HostConfig,
    network_settings: Option<Settings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::ctl) struct HostConfig {
    pub(in crate::ctl) network_mode: String,
}

impl Container {
    /// Its addresses, with the names of the networks.
    pub(in crate::ctl) fn addresses(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let networks =
            self.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let endpoints = networks.into_iter().flatten();
        endpoints.flat_map(|(network, endpoint)| {
            let texts = endpoint.iter().flat_map(|Endpoint { v4, v6 }| [v4, v6]);
            texts.filter_map(|text| text.parse().ok()).map(move |ip| (ip, network.as_str()))
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    networks: Option<HashMap<String, Option<Endpoint>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

impl Docker {
    /// The daemon that runs in the namespace whose API is at `api`: its socket is beside the state directory
    /// (`$XDG_RUNTIME_DIR/docker.sock`). If there is none, the daemon that `docker` would talk to, as far as that is one
    /// at a unix socket.
    pub(in crate::ctl) fn of(api: &Path, env: &Env) -> Self {
        let client = socket(api, env).map(|socket| Client::new(socket).with_timeout(TIMEOUT));
        Self { client, told: Cell::new(false) }
    }

    /// Gives the containers their names. Says once why there are none.
    pub(super) fn name(&self, stats: &mut Stats) {
        let Some(names) = self.known_names() else { return };
        for container in &mut stats.containers {
            if let Some((name, network)) = names.get(&container.ip) {
                container.container = Some(name.clone());
                container.network = Some(network.clone());
            }
        }
    }

    /// Container and network by address. Says once why there are none.
    pub(in crate::ctl) fn known_names(&self) -> Option<HashMap<IpAddr, (String, String)>> {
        match self.names() {
            Ok(names) => Some(names),
            Err(error) => {
                if !self.told.replace(true) {
                    // Nothing is left to do if this fails.
                    writeln!(
                        io::stderr(),
                        "warning: showing addresses instead of the names of containers: {error:#}"
                    )
                    .ok();
                }
                None
            }
        }
    }

    /// Container and network by address.
    fn names(&self) -> anyhow::Result<HashMap<IpAddr, (String, String)>> {
        let mut names = HashMap::new();
        for container in self.containers()? {
            let Some(own) = container.names.as_deref().and_then(<[_]>::first) else { continue };
            let own = own.trim_start_matches('/');
            for (ip, network) in container.addresses() {
                names.insert(ip, (own.to_owned(), network.to_owned()));
            }
        }
        Ok(names)
    }

    /// The running containers.
    pub(in crate::ctl) fn containers(&self) -> anyhow::Result<Vec<Container>> {
        let client = self.client.as_ref().context("no Docker socket found")?;
        client.get("/containers/json").map_err(|error| explain(client.socket(), error))
    }
}

/// Errors of the client speak of RootlessKit.
fn explain(socket: &Path, error: ClientError) -> anyhow::Error {
    let reason = match error {
        ClientError::NoSocket { reason, .. } | ClientError::Connect { reason, .. } => {
            reason.to_string()
        }
        ClientError::Timeout { timeout, .. } => format!("no answer within {timeout:?}"),
        ClientError::Answer { reason, .. } => reason,
        ClientError::Refused { message, .. } => message,
        // Only for ports.
        ClientError::ServesEverybody => error.to_string(),
    };
    anyhow::anyhow!(
        "cannot list the containers of the Docker daemon at {}: {reason}",
        socket.display()
    )
}

fn socket(api: &Path, env: &Env) -> Option<PathBuf> {
    let beside = api.parent().and_then(Path::parent).map(|dir| dir.join("docker.sock"));
    if let Some(socket) = beside.filter(|socket| socket.exists()) {
        return Some(socket);
    }
    match env.nonempty(vars::DOCKER_HOST) {
        Some(host) => host.to_str()?.strip_prefix("unix://").map(PathBuf::from),
        None => env.nonempty(vars::XDG_RUNTIME_DIR).map(|dir| Path::new(dir).join("docker.sock")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    use api::stats::ContainerTraffic;

    use super::*;

    const CONTAINERS: &str = r#"[
        {"Names": ["/web", "/other/alias"], "NetworkSettings": {"Networks": {
            "bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""},
            "one": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd99::2"}, "none": null}}},
        {"Names": ["/\u001b[31mred\u202e"], "NetworkSettings": {"Networks": {"n\n": {"IPAddress": "172.19.0.2"}}}},
        {"Names": [], "NetworkSettings": {"Networks": {"x": {"IPAddress": "172.20.0.2"}}}},
        {"Names": null, "NetworkSettings": null}]"#;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().copied().collect()
    }

    fn stats() -> Stats {
        let ips = ["172.17.0.2", "172.18.0.2", "fd99::2", "172.19.0.2", "172.20.0.2", "10.0.2.100"];
        let containers = ips.map(|ip| {
            let (container, network, counters) = Default::default();
            ContainerTraffic { ip: ip.parse().unwrap(), container, network, counters }
        });
        Stats { containers: containers.into(), ..Stats::default() }
    }

    type Names = (Option<String>, Option<String>);

    /// What containers and networks are called if Docker gives this answer.
    fn names(answer: &str) -> Vec<Names> {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{answer}");
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /containers/json HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let mut stats = stats();
        Docker::of(&dir.path().join("rootless/api.sock"), &env(&[])).name(&mut stats);
        server.join().unwrap();
        stats.containers.into_iter().map(|of| (of.container, of.network)).collect()
    }

    #[test]
    fn containers_have_the_names_that_docker_knows() {
        let known = |name: &str, network: &str| (Some(name.to_owned()), Some(network.to_owned()));
        let expected = [
            known("web", "bridge"),
            known("web", "one"),
            known("web", "one"),
            known("\u{1b}[31mred\u{202e}", "n\n"),
            (None, None),
            (None, None),
        ];
        assert_eq!(names(CONTAINERS), expected);
        for bad in ["", "null", "{}", "no JSON"] {
            assert!(names(bad).iter().all(|names| *names == (None, None)), "{bad}");
        }
    }

    #[test]
    fn the_daemon_of_this_namespace_is_asked_before_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let (api, beside) = (dir.path().join("rootless/api.sock"), dir.path().join("docker.sock"));
        let run = ("XDG_RUNTIME_DIR", "/run/user/7");
        for (pairs, expected) in [
            (&[run][..], Some("/run/user/7/docker.sock")),
            (&[run, ("DOCKER_HOST", "unix:///a/b.sock")], Some("/a/b.sock")),
            (&[run, ("DOCKER_HOST", "tcp://192.0.2.1:2375")], None),
            (&[run, ("DOCKER_HOST", "ssh://host")], None),
            (&[], None),
        ] {
            assert_eq!(socket(&api, &env(pairs)), expected.map(PathBuf::from), "{pairs:?}");
        }
        let _listener = UnixListener::bind(&beside).unwrap();
        let pairs = [run, ("DOCKER_HOST", "unix:///a/b.sock")];
        assert_eq!(socket(&api, &env(&pairs)), Some(beside));
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let host = format!("unix://{}/nobody.sock", dir.path().display());
        let docker = Docker::of(Path::new("/api.sock"), &env(&[("DOCKER_HOST", &host)]));
        let mut stats = stats();
        docker.name(&mut stats);
        assert_eq!((stats.containers[0].container.clone(), docker.told.get()), (None, true));
        let error = format!("{:#}", docker.names().unwrap_err());
        assert!(error.contains("nobody.sock: No such file"), "{error}");
        assert!(!error.to_lowercase().contains("rootlesskit"), "{error}");
        let docker = Docker::of(Path::new("/api.sock"), &env(&[]));
        assert!(docker.names().unwrap_err().to_string().contains("no Docker socket"));
    }
}
