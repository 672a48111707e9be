//! Real rootless Docker: three generations, each network helper, from start to a stop that leaves nothing.

use tests::containers::{FIXTURE, drivers, page, refused, serve, state_dir};
use tests::docker::{Docker, LEFT_BY_DOCKERD, version};
use tests::{As, PATIENCE, Result, Suite, TestBox, UPSTREAM_LAUNCHER, Under, ensure, wait};

/// How a scenario differs from the others.
#[derive(Debug, Clone, Copy)]
struct Case {
    suite: Suite,
    net: &'static str,
    launcher: &'static str,
}

impl Case {
    fn builtin(self) -> bool {
        self.net == "slirp4netns"
    }
}

/// The whole life of a daemon, as an ordinary user has it.
fn whole_life(case: Case) -> Result<()> {
    let mut builder = TestBox::builder(case.suite);
    if case.suite == Suite::Bookworm && case.net == "pasta" {
        // Debian 12's own pasta does not open ports by itself.
        builder = builder.pasta_of(Suite::Trixie);
    }
    let b = builder.boot()?;
    let mut env = vec![("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", case.net)];
    if b.under() == Under::Theirs && case.net == "pasta" {
        // The launcher of 26.1 does not choose the one port driver that goes with pasta.
        env.push(("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "implicit"));
    }
    let d = Docker::start_with(&b, case.launcher, &env)?;
    ensure!(d.run("version --format '{{.Server.Version}}'")?.starts_with(&version(case.suite)?));
    d.import()?;
    assert_eq!(d.output("bb echo hi")?, "hi\n");
    namespaces(&b)?;
    build(&b, &d)?;
    tcp(&b, &d, case)?;
    udp(&b, &d)?;
    names_and_ways_out(&d)?;
    if case.suite != Suite::Bookworm && b.under() == Under::Ours {
        let components =
            d.run("version --format '{{range .Server.Components}}{{.Name}}={{.Version}} {{end}}'")?;
        ensure!(components.contains("rootlesskit=3.2.0 "), "{components}");
    }
    d.run("rm -f web web6 udp")?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

/// F001: the daemon has user, mount and network namespaces of its own, or leaves the last to its containers.
fn namespaces(b: &TestBox) -> Result<()> {
    let daemon = b.process("dockerd")?;
    let detached = b.exists(&format!("{}/netns", state_dir(b)?));
    for kind in ["user", "mnt", "net"].into_iter().filter(|kind| *kind != "net" || !detached) {
        let host = b.argv(tests::As::Root, &["readlink", &format!("/proc/self/ns/{kind}")]).ok()?;
        assert_ne!(daemon.namespace(kind).as_deref(), Some(host.trim()), "{kind}");
    }
    Ok(())
}

fn build(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    let dockerfile = r#"FROM bb
RUN echo built > /proof
CMD ["cat", "/proof"]
"#;
    b.user("mkdir -p /tmp/context && cat > /tmp/context/Dockerfile").input(dockerfile).ok()?;
    b.user("DOCKER_BUILDKIT=0 docker build -t built /tmp/context").limit(120).ok()?;
    assert_eq!(d.output("built")?, "built\n");
    b.user("rm -r /tmp/context").ok().map(drop)
}

/// F044, F090: a published port answers on every address of the host and of the wire, until it is removed.
fn tcp(b: &TestBox, d: &Docker<'_>, case: Case) -> Result<()> {
    d.run("run -d --name web -p 8080:80 bb httpd -f -p 80 -h /www")?;
    // pasta looks for new listeners about once a second.
    let answers = |from: &dyn Fn(&str) -> Result<String>, url: &str| {
        wait::until(&format!("{url} answers"), PATIENCE, || {
            Ok(from(&format!("curl -sS -m5 {url}")).ok())
        })
    };
    let user = |script: &str| b.user(script).ok();
    let peer = |script: &str| b.peer(script).ok();
    let page = "hello-from-container\n";
    assert_eq!(answers(&user, "http://127.0.0.1:8080/")?, page);
    assert_eq!(answers(&user, "http://10.77.0.1:8080/")?, page);
    assert_eq!(answers(&peer, "http://10.77.0.1:8080/")?, page);
    if case.builtin() {
        assert_eq!(answers(&user, "'http://[::1]:8080/'")?, page);
        assert_eq!(answers(&peer, "'http://[fd77::1]:8080/'")?, page);
        d.run("run -d --name web6 -p '[::1]:8081:80' bb httpd -f -p 80 -h /www")?;
        assert_eq!(answers(&user, "'http://[::1]:8081/'")?, page);
        // Only where it was asked for: not on version 4, not from elsewhere.
        b.user("curl -sS -m5 http://127.0.0.1:8081/").fails_with(7)?;
        b.peer("curl -sS -m5 'http://[fd77::1]:8081/'").fails_with(7)?;
    } else {
        d.run("run -d --name web6 bb true")?;
    }
    Ok(())
}

fn udp(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    d.run(&format!(
        "run -d --name udp -p 9999:9999/udp {FIXTURE} bb fixture udp-echo 0.0.0.0:9999"
    ))?;
    let ask = "fixture udp-ask";
    let text = wait::until("UDP through the published port", PATIENCE, || {
        Ok(b.user(&format!("{ask} 127.0.0.1:9999 ping")).ok().ok())
    })?;
    ensure!(text.ends_with(" ping\n"), "{text:?}");
    // The answer comes from the address that was asked, or the connected socket of the client would not take it.
    ensure!(b.user(&format!("{ask} 10.77.0.1:9999 two")).ok()?.ends_with(" two\n"));
    ensure!(b.peer(&format!("{ask} 10.77.0.1:9999 three")).ok()?.ends_with(" three\n"));
    Ok(())
}

/// F089: names of the network's DNS and of other containers; the way out; no way to the host's loopback.
fn names_and_ways_out(d: &Docker<'_>) -> Result<()> {
    let get =
        |options: &str, from: &str| d.output(&format!("{options} {FIXTURE} bb fixture get {from}"));
    ensure!(d.output("bb nslookup foo.test")?.contains("10.9.8.7"));
    assert_eq!(get("", "10.77.0.2:7000")?, "peer from 10.77.0.1\n");
    assert_eq!(get("", "peer.test:7000")?, "peer from 10.77.0.1\n");
    d.run("network create n1")?;
    d.run("run -d --name srv --net n1 bb httpd -f -p 80 -h /www")?;
    assert_eq!(get("--net n1", "srv:80")?, "hello-from-container\n");
    ensure!(d.output("--net n1 bb nslookup foo.test")?.contains("10.9.8.7"));
    // F085: the group range of the host allows it, and the user-space network carries it.
    d.run("run --rm bb ping -c 1 -W 5 10.77.0.2")?;
    let loopback = get("", "10.0.2.2:7001");
    ensure!(loopback.is_err(), "the host's loopback is reachable: {loopback:?}");
    d.run("rm -f srv").map(drop)
}

const OWN: &str = "dockerd-rootless.sh";

#[test]
fn docker_20_10_with_slirp4netns() -> Result<()> {
    whole_life(Case { suite: Suite::Bookworm, net: "slirp4netns", launcher: OWN })
}

#[test]
fn docker_26_1_with_slirp4netns() -> Result<()> {
    whole_life(Case { suite: Suite::Trixie, net: "slirp4netns", launcher: OWN })
}

#[test]
fn docker_28_5_with_slirp4netns() -> Result<()> {
    whole_life(Case { suite: Suite::Sid, net: "slirp4netns", launcher: OWN })
}

#[test]
fn docker_20_10_with_pasta() -> Result<()> {
    whole_life(Case { suite: Suite::Bookworm, net: "pasta", launcher: OWN })
}

#[test]
fn docker_26_1_with_pasta() -> Result<()> {
    whole_life(Case { suite: Suite::Trixie, net: "pasta", launcher: OWN })
}

#[test]
fn docker_28_5_with_pasta() -> Result<()> {
    whole_life(Case { suite: Suite::Sid, net: "pasta", launcher: OWN })
}

#[test]
fn the_unmodified_launcher_of_upstream_runs_on_this_rootlesskit() -> Result<()> {
    whole_life(Case { suite: Suite::Sid, net: "slirp4netns", launcher: UPSTREAM_LAUNCHER })
}

#[test]
fn paths_and_properties_of_a_rootless_daemon() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user("mkdir -p ~/.config/docker; echo '{\"labels\": [\"read=yes\"]}' > ~/.config/docker/daemon.json").ok()?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    let info = d.run(
        "info --format '{{.SecurityOptions}} {{.Labels}} {{.DockerRootDir}} {{.CgroupDriver}}'",
    )?;
    for part in ["name=rootless", "read=yes", "/home/tester/.local/share/docker", "none"] {
        ensure!(info.contains(part), "no {part} in {info}");
    }
    for path in [
        "/run/user/1001/docker.sock",
        "/run/user/1001/docker",
        "/run/user/1001/dockerd-rootless/api.sock",
    ] {
        ensure!(b.exists(path), "{path}");
    }
    ensure!(d.run("-H unix:///run/user/1001/docker.sock version")?.contains("Server:"));
    let map = d.output("bb sh -c 'id -u; cat /proc/self/uid_map'")?;
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "1001", "1", "1", "100000", "65536"]);
    // A container's own address belongs to the namespace.
    d.run("run -d --name web bb httpd -f -p 80 -h /www")?;
    let ip = d.run("inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' web")?;
    let out = b.user(&format!("curl -sS -m2 http://{}/", ip.trim())).run()?;
    ensure!(out.code != 0, "{out}");
    // Files of containers belong to the user and to subids.
    d.run(
        "run --rm -v /home/tester:/h bb sh -c 'touch /h/root; touch /h/other; chown 1000 /h/other'",
    )?;
    assert_eq!(b.root("cd /home/tester; stat -c %u root other").ok()?, "1001\n100999\n");
    d.run("rm -f web")?;
    d.stop()?;
    b.root("rm /home/tester/root /home/tester/other").ok()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

#[test]
fn without_the_userland_proxy_a_container_sees_the_clients_address() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user("mkdir -p ~/.config/docker; echo '{\"userland-proxy\": false}' > ~/.config/docker/daemon.json").ok()?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    d.run(&format!("run -d --name web -p 8080:80 {FIXTURE} bb fixture http 0.0.0.0:80 page"))?;
    let page = wait::until("the published port answers", PATIENCE, || {
        Ok(b.peer("curl -sS -m5 http://10.77.0.1:8080/").ok().ok())
    })?;
    assert_eq!(page, "page from 10.77.0.2\n");
    d.run("rm -f web")?;
    d.stop()
}

#[test]
fn a_daemon_that_was_killed_starts_again_on_the_same_folders() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    d.run("run -d --name web --restart=always -p 8080:80 bb httpd -f -p 80 -h /www")?;
    d.daemon().signal("KILL")?;
    wait::until_true("rootlesskit and dockerd end", PATIENCE, || {
        let left = b.user_processes();
        Ok(!left
            .iter()
            .any(|p| ["dockerd", "rootlesskit", "slirp4netns", "exe"].contains(&p.program())))
    })?;
    drop(d);
    let d = Docker::start(&b, &[])?;
    let page = wait::until("the container is published again", PATIENCE, || {
        Ok(b.user("curl -sS -m5 http://127.0.0.1:8080/").ok().ok())
    })?;
    assert_eq!(page, "hello-from-container\n");
    d.run("rm -f web")?;
    d.stop()
}

#[test]
fn docker_with_the_ports_of_slirp4netns() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let d = Docker::start(&b, &[("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "slirp4netns")])?;
    d.import()?;
    d.run("run -d --name web -p 8080:80 bb httpd -f -p 80 -h /www")?;
    let page = wait::until("the published port answers", PATIENCE, || {
        Ok(b.user("curl -sS -m5 http://127.0.0.1:8080/").ok().ok())
    })?;
    assert_eq!(page, "hello-from-container\n");
    d.run("rm -f web")?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

#[test]
fn with_pesto_a_published_port_answers_at_once_and_pastas_look_around_is_not_waited_for()
-> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let env = [
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "pasta"),
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "pesto"),
    ];
    let d = Docker::start(&b, &env)?;
    d.import()?;
    // The server is there first, so that only the port can be late.
    d.run(&format!("run -d --name web -p 8080:80 {FIXTURE} bb fixture http 0.0.0.0:80 page"))?;
    wait::until_true("the server listens", PATIENCE, || Ok(d.run("logs web")?.contains("ready")))?;
    let get = "curl -sS -m5 http://10.77.0.1:8080/";
    ensure!(b.peer(get).ok()?.starts_with("page from "));
    // Stopped and started: the port goes and comes with the container.
    let gone = || {
        wait::until_true("nobody listens any more", PATIENCE, || Ok(b.peer(get).run()?.code == 7))
    };
    d.run("stop -t 1 web")?;
    gone()?;
    d.run("start web")?;
    wait::until_true("the server listens again", PATIENCE, || {
        Ok(d.run("logs web")?.matches("ready").count() == 2)
    })?;
    ensure!(b.peer(get).ok()?.starts_with("page from "));
    d.run("rm -f web")?;
    gone()?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

/// With `--ipv6` as well, an ordinary port is published. dockerd leads both families to the one address that a port of
/// `pesto` can have, so IPv6 clients need `implicit`.
fn pasta_with_ipv6(port_driver: &str, addresses: &[(As, &str)]) -> Result<TestBox> {
    let b = TestBox::boot(Suite::Sid)?;
    let env = [
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "pasta"),
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", port_driver),
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--ipv6"),
    ];
    let d = Docker::start(&b, &env)?;
    drivers(&b, "pasta", port_driver)?;
    d.import()?;
    serve(&d, "web", "-p 8080:80", "http 0.0.0.0:80 page")?;
    for (who, host) in addresses {
        let got = wait::until(host, PATIENCE, || Ok(page(&b, *who, host).ok()))?;
        ensure!(got.starts_with("page from "), "{host}: {got}");
    }
    d.run("rm -f web")?;
    wait::until_true("nobody listens any more", PATIENCE, || {
        Ok(addresses.iter().all(|(who, host)| refused(&b, *who, host).is_ok()))
    })?;
    d.stop()?;
    Ok(b)
}

const OVER_IPV4: [(As, &str); 2] = [(As::User, "127.0.0.1:8080"), (As::Peer, "10.77.0.1:8080")];
const OVER_IPV6: [(As, &str); 2] = [(As::User, "[::1]:8080"), (As::Peer, "[fd77::1]:8080")];

#[test]
fn with_pesto_and_ipv6_an_ordinary_port_is_published() -> Result<()> {
    pasta_with_ipv6("pesto", &OVER_IPV4)?.assert_clean(LEFT_BY_DOCKERD)
}

#[test]
fn with_implicit_ports_of_pasta_and_ipv6_an_ordinary_port_is_published_on_both_families()
-> Result<()> {
    pasta_with_ipv6("implicit", &[OVER_IPV4, OVER_IPV6].concat())?.assert_clean(LEFT_BY_DOCKERD)
}
