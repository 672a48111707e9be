use std::io::Read as _;
use std::os::unix::net::UnixListener;

use api::stats::ContainerTraffic;

use super::*;

const CONTAINERS: &str = r#"[
    {"Names": ["/web", "/other/alias"], "NetworkSettings": {"Networks": {
        "bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": "", "Gateway": "172.17.0.1"},
        "one": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd99::2", "Gateway": "172.18.0.1"}, "none": null}}},
    {"Names": ["/\u001b[31mred\u202e"],
     "NetworkSettings": {"Networks": {"n\n": {"IPAddress": "172.19.0.2", "Gateway": "172.19.0.1"}}}},
    {"Names": [], "NetworkSettings": {"Networks": {"x": {"IPAddress": "172.20.0.2", "Gateway": "172.20.0.1"}}}},
    {"Names": ["/open"], "NetworkSettings": {"Networks": {"host": {"IPAddress": "", "Gateway": ""}}}},
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

/// What `ask` finds out from a daemon that is asked for these paths in their order, with the statuses and bodies of its
/// answers, and for nothing else.
fn asked<T>(answers: &[(&str, u16, &str)], ask: impl FnOnce(&Docker) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
    let docker = Docker::of(&dir.path().join("rootless/api.sock"), &env(&[]));
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            for (path, status, body) in answers {
                let mut stream = listener.accept().unwrap().0;
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..length]);
                assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{request}");
                write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n\r\n{body}").unwrap();
            }
        });
        let found = ask(&docker);
        server.join().unwrap();
        found
    })
}

/// What containers and networks are called if Docker gives this answer.
fn names(answer: &str) -> Vec<Names> {
    let mut stats = stats();
    asked(&[("/containers/json", 200, answer)], |docker| docker.name(&mut stats));
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
    let containers = r#"[{"Id": "c1", "Names": ["/other/alias", "/web"], "Labels": {"tier": "front"},
        "NetworkSettings": {"Networks": {"one":
            {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd99::2", "Gateway": "172.18.0.1"}}}},
        {"Id": "c2", "Names": ["/sidecar"], "Labels": {"tier": "back"}, "HostConfig": {"NetworkMode": "container:c1"}},
        {"Id": "c3", "Names": ["/lost"], "HostConfig": {"NetworkMode": "container:c"}},
        {"Names": ["/open"], "Labels": null, "NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}}]"#;
    let networks = r#"[{"Name": "one", "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}, {"Subnet": "fd99::/64"}]}},
        {"Name": "host", "IPAM": {"Config": null}}, {"Name": "x", "IPAM": null}]"#;
    let answers = [("/containers/json", 200, containers), ("/networks", 200, networks)];
    let directory = asked(&answers, Docker::directory).unwrap();
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

/// A task in two overlay networks, a container in one that leads nowhere, one that is in another network as well, and one
/// that shares the network of the task. The overlay networks have the addresses of others.
const TASKS: &str = r#"[
    {"Id": "t1", "Names": ["/web.1.x"], "HostConfig": {"NetworkMode": "bridge"}, "NetworkSettings": {"Networks": {
        "back": {"IPAddress": "10.0.2.100", "Gateway": ""}, "front": {"IPAddress": "10.0.3.2", "Gateway": ""}}}},
    {"Id": "t2", "Names": ["/shut"], "NetworkSettings": {"Networks": {"inner": {"IPAddress": "172.17.0.2"}}}},
    {"Id": "t3", "Names": ["/both"], "NetworkSettings": {"Networks": {"back": {"IPAddress": "10.0.2.3"},
        "bridge": {"IPAddress": "172.17.0.2", "Gateway": "172.17.0.1"},
        "six": {"IPAddress": "", "GlobalIPv6Address": "fd99::2", "IPv6Gateway": "fd99::1"}}}},
    {"Id": "t4", "Names": ["/sidecar"], "HostConfig": {"NetworkMode": "container:t1"}}]"#;
const BRIDGED: &str = r#"{"Name": "docker_gwbridge", "Containers": {
    "ingress-sbox": {"Name": "gateway_ingress-sbox", "IPv4Address": "172.18.0.2/16", "IPv6Address": ""},
    "t1": {"Name": "gateway_c34de896cfb0", "IPv4Address": "172.18.0.3/16", "IPv6Address": "fd98::3/64"},
    "gone": {"Name": "gateway_9989f8e6432c", "IPv4Address": "172.18.0.4/16", "IPv6Address": ""}}}"#;

#[test]
fn a_task_of_a_swarm_is_known_by_the_address_with_which_it_leaves() {
    let answers = [("/containers/json", 200, TASKS), ("/networks/docker_gwbridge", 200, BRIDGED)];
    let found = asked(&answers, Docker::names).unwrap();
    let mut found: Vec<_> = found.iter().map(|(ip, of)| (ip.to_string(), &*of.0, &*of.1)).collect();
    found.sort();
    let expected = [
        ("172.17.0.2", "both", "bridge"),
        ("172.18.0.3", "web.1.x", "docker_gwbridge"),
        ("fd98::3", "web.1.x", "docker_gwbridge"),
        ("fd99::2", "both", "six"),
    ];
    assert_eq!(found, expected.map(|(ip, name, network)| (ip.to_owned(), name, network)));
    // Others have names without the bridge; rules have no half-known containers.
    let answers = [("/containers/json", 200, TASKS), ("/networks/docker_gwbridge", 500, "{}")];
    assert_eq!(asked(&answers, Docker::names).unwrap().len(), 2);
    asked(&answers, Docker::directory).unwrap_err();
}

#[test]
fn a_task_sends_in_the_name_of_its_overlay_networks_which_share_the_subnets_of_the_bridge() {
    let networks = |bridge: &str| {
        format!(
            r#"[{bridge}{{"Name": "back", "Driver": "overlay", "IPAM": {{"Config": [{{"Subnet": "10.0.2.0/24"}}]}}}},
            {{"Name": "front", "Driver": "overlay", "IPAM": {{"Config": [{{"Subnet": "10.0.3.0/24"}}]}}}},
            {{"Name": "inner", "Driver": "overlay", "Internal": true}},
            {{"Name": "bridge", "Driver": "bridge", "IPAM": {{"Config": [{{"Subnet": "172.17.0.0/16"}}]}}}}]"#
        )
    };
    let bridge = r#"{"Name": "docker_gwbridge", "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}, {"Subnet": "fd98::/64"}]}},"#;
    let directory = |bridged: (u16, &str), bridge: &str| {
        let answers = [
            ("/containers/json", 200, TASKS),
            ("/networks/docker_gwbridge", bridged.0, bridged.1),
            ("/networks", 200, &networks(bridge)),
        ];
        asked(&answers, Docker::directory).unwrap()
    };
    let of = |container: &egress::Container| -> Vec<String> {
        let mut all: Vec<_> =
            container.addresses.iter().map(|(network, ip)| format!("{network} {ip}")).collect();
        all.sort();
        all
    };
    let found = directory((200, BRIDGED), bridge);
    let [task, shut, both, sidecar] = &found.containers[..] else { panic!("{found:?}") };
    let (four, six) = ("172.18.0.3", "fd98::3");
    let expected = ["back", "docker_gwbridge", "front"]
        .map(|network| [format!("{network} {four}"), format!("{network} {six}")]);
    assert_eq!(of(task), expected.concat());
    assert_eq!((of(shut), of(sidecar)), (vec![], of(task)));
    assert_eq!(of(both), ["bridge 172.17.0.2", "six fd99::2"]);
    let text = |network: &egress::Network| {
        let subnets: Vec<_> = network.subnets.iter().map(ToString::to_string).collect();
        format!("{} {} {}", network.name, subnets.join(" "), network.is_shared)
    };
    let expected = [
        "docker_gwbridge 172.18.0.0/16 fd98::/64 false",
        "back 172.18.0.0/16 fd98::/64 true",
        "front 172.18.0.0/16 fd98::/64 true",
        "inner 172.18.0.0/16 fd98::/64 true",
        "bridge 172.17.0.0/16 false",
    ];
    assert_eq!(found.networks.iter().map(text).collect::<Vec<_>>(), expected);

    // Before the bridge is there, nobody knows how they will leave.
    let missing = r#"{"message": "network docker_gwbridge not found"}"#;
    let found = directory((404, missing), "");
    assert_eq!(of(&found.containers[0]), Vec::<String>::new());
    assert_eq!(text(&found.networks[0]), "back  true");
    let answers = [("/containers/json", 200, TASKS), ("/networks/docker_gwbridge", 500, "{}")];
    let error = asked(&answers, Docker::directory).unwrap_err().to_string();
    assert!(error.starts_with("cannot list the networks of the Docker daemon at "), "{error}");
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
