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
fn the_directory_has_containers_with_labels_and_networks_with_subnets() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let containers = r#"[{"Id": "c1", "Names": ["/other/alias", "/web"], "Labels": {"tier": "front"},
        "NetworkSettings": {"Networks": {"one": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd99::2"}}}},
        {"Id": "c2", "Names": ["/sidecar"], "Labels": {"tier": "back"}, "HostConfig": {"NetworkMode": "container:c1"}},
        {"Id": "c3", "Names": ["/lost"], "HostConfig": {"NetworkMode": "container:c"}},
        {"Names": ["/open"], "Labels": null, "NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}}]"#;
    let networks = r#"[{"Name": "one", "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}, {"Subnet": "fd99::/64"}]}},
        {"Name": "host", "IPAM": {"Config": null}}, {"Name": "x", "IPAM": null}]"#;
    let server = std::thread::spawn(move || {
        for (path, answer) in [("/containers/json", containers), ("/networks", networks)] {
            let mut stream = listener.accept().unwrap().0;
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            let first = format!("GET {path} HTTP/1.1\r\n");
            assert!(request[..length].starts_with(first.as_bytes()));
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{answer}").unwrap();
        }
    });
    let directory = Docker::of(&dir.path().join("rootless/api.sock"), &env(&[])).directory();
    server.join().unwrap();
    let directory = directory.unwrap();
    let [web, sidecar, lost, open] = &directory.containers[..] else { panic!("{directory:?}") };
    assert_eq!((&*web.name, &*web.labels["tier"]), ("web", "front"));
    let one = |ip: &str| ("one".to_owned(), ip.parse().unwrap());
    assert_eq!(web.addresses, [one("172.18.0.2"), one("fd99::2")]);
    assert_eq!((&*sidecar.name, &*sidecar.labels["tier"]), ("sidecar", "back"));
    assert_eq!(sidecar.addresses, web.addresses, "it uses the network of the other one");
    assert_eq!((&*lost.name, lost.addresses.len()), ("lost", 0));
    assert_eq!((&*open.name, open.labels.len(), open.addresses.len()), ("open", 0, 0));
    let subnets: Vec<_> =
        directory.networks.iter().map(|network| (&*network.name, network.subnets.len())).collect();
    assert_eq!(subnets, [("one", 2), ("host", 0), ("x", 0)]);
    assert_eq!(directory.networks[0].subnets[0], "172.18.0.0/16".parse().unwrap());
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
#[cfg(feature = "gateway")]
fn a_daemon_of_another_user_names_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let me = geteuid().as_raw();
    let docker = Docker::at(&Socket { path: path.clone(), owner: me + 1 }, TIMEOUT);
    let error = docker.directory().unwrap_err().to_string();
    let expected = format!("it belongs to user {me}, not to user {}", me + 1);
    assert!(error.ends_with(&expected), "{error}");
    let error = ClientError::Foreign { path: path.clone(), user: me + 1, owner: me };
    let error = explain(&path, "containers", error).to_string();
    assert!(error.contains(&*path.to_string_lossy()), "{error}");
    assert!(error.ends_with(&format!("it belongs to user {}, not to you", me + 1)), "{error}");

    // The namespace of somebody else has a daemon of somebody else.
    let theirs = if me == 0 {
        let api = dir.path().join("api.sock");
        fs::write(&api, "").unwrap();
        std::os::unix::fs::chown(&api, Some(7), None).unwrap();
        api
    } else {
        "/etc/passwd".into()
    };
    let host = format!("unix://{}", path.display());
    let docker = Docker::of(&theirs, &env(&[("DOCKER_HOST", &host)]));
    let error = docker.containers().unwrap_err().to_string();
    assert!(error.contains(&format!("it belongs to user {me}, not to user ")), "{error}");
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
