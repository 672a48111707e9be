//! What a rootless daemon can and cannot do, whoever makes its namespaces: properties that have to survive our pieces.

use tests::docker::{Docker, LEFT_BY_DOCKERD};
use tests::{As, Context, Result, Suite, TestBox, ensure};

fn configure(b: &TestBox, json: &str) -> Result<()> {
    b.user("mkdir -p ~/.config/docker && cat > ~/.config/docker/daemon.json")
        .input(json)
        .ok()
        .map(drop)
}

fn refused(b: &TestBox, args: &str, reason: &str) -> Result<()> {
    let out = b.user(&format!("docker {args}")).limit(120).run()?;
    ensure!(out.code != 0 && out.stderr.contains(reason), "no {reason:?} in: {out}");
    Ok(())
}

/// The storage driver that `check` predicts.
fn predicted(b: &TestBox) -> Result<String> {
    let said = b.user("dockerd-rootless-setuptool.sh check --json").run()?.stdout;
    let check: serde_json::Value = serde_json::from_str(&said).context(said)?;
    Ok(check["effective"]["storage_driver"].as_str().context("no storage driver")?.to_owned())
}

/// Each storage driver that a user may have, chosen in daemon.json, with a data directory of its own. Without the choice, what
/// is in the directory decides, unless copies made it.
#[test]
fn storage_drivers_and_the_data_directory() -> Result<()> {
    for driver in ["overlay2", "fuse-overlayfs", "vfs"] {
        let b = TestBox::boot(Suite::Sid)?;
        // The box's own home lies on an overlay, which cannot be the upper layer of another one.
        let root = "/home/tester/.local/share/docker/elsewhere";
        configure(&b, &format!("{{\"storage-driver\":\"{driver}\",\"data-root\":\"{root}\"}}"))?;
        let d = Docker::start(&b, &[])?;
        d.import()?;
        let info = d.run("info --format '{{.Driver}} {{.DockerRootDir}}'")?;
        assert_eq!(info, format!("{driver} {root}\n"));
        let line = "bb sh -c 'echo one > /file && rm /etc/passwd && cat /file && chown 1000:1000 /file && stat -c %u /file'";
        assert_eq!(d.output(line)?, "one\n1000\n", "{driver}");
        d.stop()?;
        ensure!(b.exists(&format!("{root}/{driver}")), "{driver}");

        configure(&b, &format!("{{\"data-root\":\"{root}\"}}"))?;
        let next = predicted(&b)?;
        assert_eq!(next, if driver == "vfs" { "overlay2" } else { driver });
        let d = Docker::start(&b, &[])?;
        assert_eq!(d.run("info --format '{{.Driver}}'")?.trim(), next);
        d.stop()?;
        b.assert_clean(LEFT_BY_DOCKERD)?;
    }
    Ok(())
}

/// Containers are root towards the user's own namespaces and nobody towards the host.
#[test]
fn rights_and_limits() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("echo secret > /root-only; chmod 600 /root-only; mknod -m 600 /dev/disk b 7 0").ok()?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    let security = d.run("info --format '{{.SecurityOptions}}'")?;
    ensure!(security.contains("rootless") && !security.contains("apparmor"), "{security}");

    let privileged = "--privileged -v /:/host bb sh -c";
    assert_eq!(
        d.output(&format!("{privileged} 'id -u; mount -t tmpfs t /mnt 2>/dev/null; echo ran'"))?,
        "0\nran\n"
    );
    for (denied, reason) in [
        ("cat /host/root-only", "ermission denied"),
        ("head -c 1 /host/dev/disk", "ermission denied"),
        ("echo x > /host/etc/passwd", "ermission denied"),
        ("mknod /tmp/disk b 7 0 && head -c 1 /tmp/disk", "not permitted"),
    ] {
        let said = d.output(&format!("{privileged} '{{ {denied}; }} 2>&1; echo status $?'"))?;
        ensure!(said.contains(reason) && !said.contains("status 0"), "{denied}: {said}");
    }

    // What is there in place of control groups.
    let limited = d.output("--ulimit nproc=77 bb sh -c 'ulimit -u 2>/dev/null || ulimit -p; ulimit -v 40000; ulimit -v'")?;
    assert_eq!(limited, "77\n40000\n");

    // dockerd's NAT rules are in the daemon's namespace; the host has none of them.
    let pid = d.run("version >/dev/null; cat $XDG_RUNTIME_DIR/docker.pid")?;
    let rules = ["nsenter", "-t", pid.trim(), "-U", "-n", "--preserve-credentials"];
    let list = ["/usr/sbin/iptables", "-t", "nat", "-S", "DOCKER"];
    b.argv(As::User, &[&rules[..], &list].concat()).ok()?;
    b.argv(As::Root, &list).fails_with(1)?;
    d.stop()
}

/// What Docker without root does not have, it refuses with a reason.
#[test]
fn what_is_not_supported_is_refused() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    configure(&b, "{\"experimental\": true}")?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    d.run("run -d --name sleeper bb sleep 1000")?;
    refused(&b, "checkpoint create sleeper one", "Cannot checkpoint container sleeper")?;
    assert_eq!(d.run("inspect -f '{{.State.Running}}' sleeper")?, "true\n");
    refused(&b, "run --rm -p 80:80 bb true", "cannot expose privileged port 80")?;
    refused(&b, "run --rm -p 8080:80/sctp bb true", "protocol not supported")?;
    refused(&b, "network create -d overlay wide", "not a swarm manager")?;
    d.run("rm -f sleeper")?;
    d.stop()
}

/// Clients find the daemon by flag, variable or context, and need no namespace of it.
#[test]
fn clients() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let d = Docker::start(&b, &[])?;
    let host = "unix:///run/user/1001/docker.sock";
    let rootless = "info -f '{{.SecurityOptions}}'";
    let by_variable = b.user(&format!("DOCKER_HOST={host} docker {rootless}")).ok()?;
    ensure!(by_variable.contains("name=rootless"), "{by_variable}");
    b.user(&format!("unset DOCKER_HOST; docker context create rootless --docker host={host}"))
        .ok()?;
    b.user("unset DOCKER_HOST; docker context use rootless").ok()?;
    let by_context = b.user(&format!("unset DOCKER_HOST; docker {rootless}")).ok()?;
    assert_eq!(by_context, by_variable);
    // To another daemon and back.
    b.user(&format!("DOCKER_HOST=unix:///nowhere docker {rootless}")).fails_with(1)?;
    assert_eq!(b.user(&format!("unset DOCKER_HOST; docker {rootless}")).ok()?, by_variable);
    let namespace = |who: &str| b.argv(As::Root, &["readlink", &format!("/proc/{who}/ns/user")]);
    // The first, since one that is about to become another program has its name, too.
    let daemon = b.user_processes().into_iter().find(|p| p.program() == "dockerd");
    let daemon = daemon.context("no dockerd")?;
    assert_ne!(daemon.namespace("user"), Some(namespace("self").ok()?.trim().to_owned()));
    d.stop()
}

/// Daily things: builds, named volumes, bind mounts.
#[test]
fn builds_volumes_and_bind_mounts() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    b.user("mkdir -p /tmp/context && cat > /tmp/context/Dockerfile")
        .input("FROM bb\nCOPY Dockerfile /copied\nRUN echo built > /proof && chown 7:7 /proof\n")
        .ok()?;
    for (kind, name) in [("1", "with-buildkit"), ("0", "without")] {
        let line = format!("DOCKER_BUILDKIT={kind} docker build -q -t {name} /tmp/context");
        b.user(&line).limit(120).ok()?;
        let seen =
            d.output(&format!("{name} sh -c 'cat /proof; stat -c %u /proof; head -n 1 /copied'"))?;
        assert_eq!(seen, "built\n7\nFROM bb\n", "{name}");
    }
    d.run("volume create data")?;
    d.run("run --rm -v data:/d bb sh -c 'echo kept > /d/f; chown 5:5 /d/f'")?;
    assert_eq!(d.output("-v data:/d:ro bb sh -c 'cat /d/f; stat -c %u /d/f'")?, "kept\n5\n");
    b.user("mkdir /tmp/mine && echo hello > /tmp/mine/f").ok()?;
    assert_eq!(d.output("-v /tmp/mine:/m bb cat /m/f")?, "hello\n");
    d.run("run --rm -v /tmp/mine:/m bb sh -c 'echo more >> /m/f'")?;
    assert_eq!(b.user("cat /tmp/mine/f; stat -c %u /tmp/mine/f").ok()?, "hello\nmore\n1001\n");
    d.run("volume rm data")?;
    d.stop()
}
