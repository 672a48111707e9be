//! The launcher with a stub in place of dockerd: what it prepares, what passes through, what it refuses.

use tests::docker::Docker;
use tests::{As, PATIENCE, Result, Running, Suite, TestBox, ensure, wait};

/// A dockerd of a given version whose start is the script `body`.
fn stub(b: &TestBox, version: &str, body: &str) -> Result<()> {
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo 'Docker version {version}, build 0'; exit 0; }}\n{body}\n"
    );
    b.script("/usr/local/bin/dockerd", &script)
}

const LAUNCH: &str = "exec dockerd-rootless.sh";

fn running<'b>(b: &'b TestBox, env: &[(&str, &str)]) -> Result<Running<'b>> {
    let mut cmd = b.user(LAUNCH);
    for (name, value) in env {
        cmd = cmd.env(name, value);
    }
    let mut launcher = cmd.spawn()?;
    wait::until_true("the stub is ready", PATIENCE, || {
        ensure!(launcher.alive()?, "ended: {}", launcher.printed()?);
        Ok(launcher.printed()?.lines().any(|line| line == "ready"))
    })?;
    Ok(launcher)
}

#[test]
fn the_daemon_finds_its_private_run_and_a_network_that_forwards() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("mkdir /run/docker /run/containerd; touch /run/xtables.lock").ok()?;
    stub(
        &b,
        "28.5.2",
        "printf '<%s>' \"$@\"; echo; stat -f -c %T /etc /run; ls -d /run/docker /run/containerd /run/xtables.lock 2>/dev/null
         cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; cat /sys/class/net/tap0/mtu; id -u
         echo $ROOTLESSKIT_STATE_DIR",
    )?;
    let out = b
        .argv(As::User, &["dockerd-rootless.sh", "--experimental", "", "-H", "unix:///x y"])
        .ok()?;
    assert_eq!(
        out,
        "<--experimental><><-H><unix:///x y>\ntmpfs\ntmpfs\n1\n1\n1500\n0\n/run/user/1001/dockerd-rootless\n"
    );
    ensure!(b.exists("/run/docker") && b.exists("/run/xtables.lock"), "the host's files went");
    assert_eq!(b.read("/proc/sys/net/ipv4/ip_forward")?.trim(), "0", "the host forwards");
    b.root("rm -r /run/docker /run/containerd /run/xtables.lock").ok()?;
    b.assert_clean(&[])
}

#[test]
fn mtu_and_host_loopback_follow_the_environment() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    stub(&b, "28.5.2", "cat /sys/class/net/tap0/mtu; fixture get 10.0.2.2:7001 || true")?;
    for (net, mtu) in [("slirp4netns", "65520"), ("gateway", "1500")] {
        let run = |name: &str, value: &str| {
            b.user(LAUNCH).env("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", net).env(name, value).ok()
        };
        assert_eq!(run("DOCKERD_ROOTLESS_ROOTLESSKIT_MTU", "1400")?, "1400\n");
        let closed = run("DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK", "no")?;
        assert_eq!(closed, format!("{mtu}\n"));
        let open = run("DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK", "false")?;
        ensure!(open.starts_with(&format!("{mtu}\nloopback from ")), "{net}: {open}");
    }
    b.assert_clean(&[])
}

#[test]
fn open_ports_of_the_hosts_loopback_come_with_host_gateway_and_need_the_gateway() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let run =
        |value: &str| b.user(LAUNCH).env("DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW", value);
    // The second one stays on the host's network, so it is asked from the network in the file.
    for version in ["28.5.2", "29.7.2"] {
        stub(
            &b,
            version,
            "printf '<%s>' \"$@\"; netns=$ROOTLESSKIT_STATE_DIR/netns
             [ -e $netns ] && enter=\"nsenter -n$netns\"; $enter fixture get 10.0.2.2:7001",
        )?;
        let open = run("tcp:7000-7001").ok()?;
        assert_eq!(open, "<--host-gateway-ip=10.0.2.2>loopback from 127.0.0.1\n", "{version}");
        let closed = run("tcp:7002").fails_with(1)?;
        ensure!(closed.contains("<--host-gateway-ip=10.0.2.2>"), "{version}: {closed}");
        ensure!(
            !closed.contains("loopback from") && closed.contains("host-loopback-allow=tcp:7002")
        );
        ensure!(!run("").run()?.stdout.contains("host-gateway"), "{version}");
    }
    let bad = run("5432").fails_with(1)?;
    ensure!(
        bad.contains("the entry \"5432\" has no protocol") && bad.contains("hint: set "),
        "{bad}"
    );
    let other =
        run("tcp:7001").env("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "slirp4netns").fails_with(1)?;
    ensure!(other.contains("slirp4netns cannot open single ports"), "{other}");
    b.assert_clean(&[])
}

#[test]
fn the_network_driver_is_chosen_by_what_is_installed() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    stub(&b, "28.5.2", "rootlessctl info | grep 'Network Driver'")?;
    let run = || b.user(LAUNCH).ok();
    ensure!(run()?.contains("gateway"));
    // A kernel without what the gateway needs, played by a rootlesskit that says so.
    let kit = b.root("command -v rootlesskit").ok()?;
    let kit = kit.trim();
    b.root(&format!("mv {kit} {kit}.real")).ok()?;
    b.script(
        kit,
        &format!("#!/bin/sh\ncase \" $* \" in *\" --net=gateway \"*) echo no tproxy >&2; exit 1 ;; esac\nexec {kit}.real \"$@\"\n"),
    )?;
    ensure!(run()?.contains("slirp4netns"));
    b.root("mv /usr/bin/slirp4netns /root").ok()?;
    ensure!(run()?.contains("pasta"));
    b.root("mv /usr/bin/pasta /root").ok()?;
    let text = b.user(LAUNCH).fails_with(1)?;
    ensure!(text.contains("slirp4netns") && text.contains("pasta"), "{text}");
    b.assert_clean(&[])
}

#[test]
fn a_daemon_that_knows_detached_namespaces_gets_one_and_an_older_one_does_not() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let body = "ls $ROOTLESSKIT_STATE_DIR/netns 2>/dev/null; ip -o link | grep -c -E 'tap0|eth0'; ip -o link show tap0 >/dev/null 2>&1 && echo attached
        [ ! -e $ROOTLESSKIT_STATE_DIR/netns ] || nsenter -n$ROOTLESSKIT_STATE_DIR/netns -F -- sh -c 'ip -o addr show tap0; cat /proc/sys/net/ipv4/ip_forward'";
    stub(&b, "29.5.0", body)?;
    let out = b.user(LAUNCH).ok()?;
    ensure!(
        out.contains("/netns\n") && out.contains("10.0.2.100") && !out.contains("attached"),
        "{out}"
    );
    assert_eq!(out.lines().last(), Some("1"), "no forwarding in the namespace: {out}");
    assert_eq!(b.read("/proc/sys/net/ipv4/ip_forward")?.trim(), "0", "the host forwards");
    let out = b.user(LAUNCH).env("DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS", "false").ok()?;
    ensure!(out.contains("attached") && !out.contains("/netns"), "{out}");
    stub(&b, "28.5.2", body)?;
    let out = b.user(LAUNCH).ok()?;
    ensure!(out.contains("attached") && !out.contains("/netns"), "{out}");
    b.assert_clean(&[])
}

#[test]
fn ports_that_a_detached_daemon_publishes_answer() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for (net, child) in
        [("slirp4netns", "127.0.0.1"), ("gateway", "127.0.0.1"), ("gateway", "10.0.2.100")]
    {
        // As dockerd 29.5: asks rootlesskit for the port, serves it inside of the namespace from outside.
        stub(
            &b,
            "29.5.0",
            &format!(
                r#"curl -sS --unix-socket $ROOTLESSKIT_STATE_DIR/api.sock -X POST -H 'Host: rootlesskit' http://rootlesskit/v1/ports \
                -d '{{"proto":"tcp4","parentIP":"0.0.0.0","parentPort":8080,"childPort":8080,"childIP":"{child}"}}'; echo
               exec nsenter -n$ROOTLESSKIT_STATE_DIR/netns -F -- fixture http {child}:8080 page"#
            ),
        )?;
        let launcher = running(&b, &[("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", net)])?;
        let published = r#"{"id":1,"spec":{"proto":"tcp4","parentIP":"0.0.0.0","#;
        ensure!(launcher.printed()?.contains(published), "{net}");
        ensure!(b.user("curl -sS -m30 http://127.0.0.1:8080/").ok()?.starts_with("page"), "{net}");
        ensure!(b.peer("curl -sS -m30 http://10.77.0.1:8080/").ok()?.starts_with("page"), "{net}");
        launcher.signal("TERM")?;
        launcher.wait(PATIENCE)?;
    }
    b.assert_clean(&[])
}

#[test]
fn readiness_reload_and_stop_pass_through() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    stub(
        &b,
        "28.5.2",
        "fixture notify READY=1 & wait_pid=$!; exec fixture signals /home/tester/got 0",
    )?;
    let listener = b.user("exec socat -u UNIX-RECV:/home/tester/notify -").spawn()?;
    wait::until_true("the socket is there", PATIENCE, || Ok(b.exists("/home/tester/notify")))?;
    let launcher = running(&b, &[("NOTIFY_SOCKET", "/home/tester/notify")])?;
    wait::until_true("READY arrives", PATIENCE, || Ok(listener.printed()?.contains("READY=1")))?;
    wait::until_true("it waits for signals", PATIENCE, || Ok(b.exists("/home/tester/got")))?;
    launcher.signal("HUP")?;
    wait::until_true("the reload arrives", PATIENCE, || {
        Ok(b.read("/home/tester/got")? == "SIGHUP\n")
    })?;
    launcher.signal("TERM")?;
    let out = launcher.wait(PATIENCE)?;
    assert_eq!(out.code, 0, "{out}");
    assert_eq!(b.read("/home/tester/got")?, "SIGHUP\nSIGTERM\n");
    drop(listener);
    b.user("pkill -x fixture || true").ok()?;
    b.assert_clean(&["/home/tester/got", "/home/tester/notify"])
}

#[test]
fn what_is_refused() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    stub(&b, "28.5.2", "echo started")?;
    let text = b.root("dockerd-rootless.sh").fails_with(1)?;
    ensure!(text.contains("root"), "{text}");
    for (name, value, part) in [
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "host", "host"),
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "token-ring", "token-ring"),
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS", "perhaps", "perhaps"),
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_MTU", "big", "big"),
        ("XDG_RUNTIME_DIR", "/nonexistent", "XDG_RUNTIME_DIR"),
        ("XDG_RUNTIME_DIR", "", "XDG_RUNTIME_DIR"),
        ("HOME", "/nonexistent", "HOME"),
    ] {
        let text = b.user(LAUNCH).env(name, value).fails_with(1)?;
        ensure!(text.contains(part) && !text.contains("started"), "{name}={value}: {text}");
    }
    let text = b.user(LAUNCH).env("DOCKERD", "no-such-dockerd").run()?;
    ensure!(text.code == 127 && text.stderr.contains("no-such-dockerd"), "{text}");
    b.assert_clean(&[])
}

#[test]
fn words_of_the_setup_tool_are_not_given_to_dockerd() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    stub(&b, "28.5.2", "echo started")?;
    for word in ["check", "install", "uninstall"] {
        let text = b.argv(As::User, &["dockerd-rootless.sh", word]).fails_with(1)?;
        ensure!(
            text.contains("setuptool") && text.contains(word) && !text.contains("started"),
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn docker_says_what_to_do_about_a_privileged_port_and_setcap_helps() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    let text = b.user("docker run --rm -p 80:80 bb true").fails_with(126)?;
    ensure!(
        text.contains("cannot expose privileged port 80")
            && text.contains("ip_unprivileged_port_start"),
        "{text}"
    );
    d.stop()?;
    b.root("setcap cap_net_bind_service=ep /usr/bin/rootlesskit").ok()?;
    let d = Docker::start(&b, &[])?;
    d.run("run -d --name web -p 80:80 bb httpd -f -p 80 -h /www")?;
    assert_eq!(b.peer("curl -sS -m30 http://10.77.0.1:80/").ok()?, "hello-from-container\n");
    d.run("rm -f web")?;
    d.stop()
}

#[test]
fn the_api_over_tls_through_a_published_port() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user(
        r#"mkdir -p ~/.docker; cd ~/.docker
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca-key.pem -out ca.pem -subj /CN=ca
        for n in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $n-key.pem -out $n.csr -subj /CN=$n
            printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' > ext
            openssl x509 -req -in $n.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile ext -out $n.pem
        done; cp client.pem cert.pem; cp client-key.pem key.pem"#,
    )
    .ok()?;
    let command = "dockerd-rootless.sh -H unix:///run/user/1001/docker.sock -H tcp://0.0.0.0:2376 --tlsverify \
        --tlscacert=$HOME/.docker/ca.pem --tlscert=$HOME/.docker/server.pem --tlskey=$HOME/.docker/server-key.pem";
    let flags = [("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "-p 127.0.0.1:2376:2376/tcp")];
    let d = Docker::start_with(&b, command, &flags)?;
    let ask = "docker -H tcp://127.0.0.1:2376 version --format '{{.Server.Version}}'";
    let version = b
        .user(ask)
        .env("DOCKER_CERT_PATH", "/home/tester/.docker")
        .env("DOCKER_TLS_VERIFY", "1")
        .ok()?;
    ensure!(version.starts_with("28.5"), "{version}");
    // Without the client's certificate nobody gets in.
    let out =
        b.user("curl -sS -m5 --cacert ~/.docker/ca.pem https://127.0.0.1:2376/version").run()?;
    ensure!(out.code != 0 && out.stderr.contains("certificate required"), "{out}");
    d.stop()
}

#[test]
fn control_c_stops_the_daemon_cleanly() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    d.run("run -d --name web bb httpd -f -p 80 -h /www")?;
    d.daemon().signal("INT")?;
    wait::until_true("the daemon ends", PATIENCE, || Ok(b.user_processes().is_empty()))?;
    ensure!(!b.exists("/run/user/1001/dockerd-rootless"), "the state folder stays");
    // A daemon that is told three times skips this.
    ensure!(
        d.log()?.contains("Daemon shutdown complete") || d.log()?.contains("stopping healthcheck"),
        "{}",
        d.log()?
    );
    Ok(())
}

#[test]
fn certificates_behind_a_link_out_of_etc_stay_readable() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("mkdir -p /opt/ca; mv /etc/ssl /opt/ca/; ln -s ../opt/ca/ssl /etc/ssl; echo cert > /opt/ca/ssl/here").ok()?;
    stub(&b, "28.5.2", "[ ! -L /etc/ssl ] && cat /etc/ssl/here")?;
    assert_eq!(b.user(LAUNCH).ok()?, "cert\n");
    ensure!(b.root("readlink /etc/ssl").ok()?.trim() == "../opt/ca/ssl", "the host's link went");
    b.assert_clean(&[])
}

#[test]
fn another_daemon_can_be_named_with_arguments_of_its_own() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.script("/usr/local/bin/otherd", "#!/bin/sh\necho other \"$@\"\n")?;
    let out = b
        .argv(As::User, &["dockerd-rootless.sh", "--debug"])
        .env("DOCKERD", "otherd --first")
        .ok()?;
    assert_eq!(out, "other --first --debug\n");
    b.assert_clean(&[])
}

#[test]
fn dockerd_takes_its_socket_from_a_service_manager() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    // The first connection starts the daemon, and is answered by it.
    let command = "systemd-socket-activate -l /run/user/1001/docker.sock -E PATH -E HOME -E USER -E XDG_RUNTIME_DIR \
        dockerd-rootless.sh -H fd://";
    let d = Docker::start_with(&b, command, &[])?;
    d.import()?;
    assert_eq!(d.output("bb echo hi")?, "hi\n");
    d.stop()
}
