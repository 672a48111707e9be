//! The recipe of an image like `docker:dind-rootless`: built and run by a rootful Docker in a box.

use std::fs;
use std::path::Path;

use tests::docker::MAKE_IMAGE;
use tests::{
    Context as _, PATIENCE, Result, Running, Suite, TestBox, Under, bail, ensure, paths, wait,
};

const PAGE: &str = "hello-from-container\n";

/// A rootful daemon; its data lie on a tmpfs, as overlayfs wants it.
fn rootful(b: &TestBox) -> Result<Running<'_>> {
    b.root("mkdir -p /var/lib/docker; mount -t tmpfs tmpfs /var/lib/docker").ok()?;
    let mut daemon = b.root("exec dockerd --storage-driver overlay2").spawn()?;
    wait::until_true("the rootful dockerd answers", PATIENCE, || {
        if !daemon.alive()? {
            bail!("it ended: {}", daemon.printed()?);
        }
        Ok(b.root("docker version").run()?.code == 0)
    })?;
    Ok(daemon)
}

/// The box's own programs as an image, without what takes place and is not needed.
const BASE: &str = r"tar -C / -c --one-file-system --exclude=usr/bin/rootless* --exclude=usr/bin/python* \
    --exclude=usr/bin/slirp4netns --exclude=usr/bin/ctr --exclude=usr/libexec/docker --exclude=usr/lib/systemd \
    --exclude=usr/lib/python* --exclude=usr/lib/udev --exclude=tmp/* bin sbin lib lib64 usr/bin usr/sbin usr/lib usr/lib64 usr/libexec usr/local/lib etc tmp |
    docker import - base";

/// Builds the image `dind` from the recipe and the tarball.
fn build(b: &TestBox) -> Result<()> {
    b.root(BASE).limit(120).ok()?;
    b.root("mkdir /srv/dind").ok()?;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    for entry in fs::read_dir(own.join("packaging/dind"))? {
        let entry = entry?;
        let name = entry.file_name();
        fs::copy(entry.path(), b.path(&format!("/srv/dind/{}", name.to_string_lossy())))?;
    }
    let dist = paths::target()?.join("dist");
    let tarball = fs::read_dir(&dist)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".tgz"));
    let tarball = tarball.context("no tarball\nhint: run `cargo xtask dist`")?.path();
    fs::copy(tarball, b.path("/srv/dind/docker-rootless-extras.tgz"))?;
    // The builder that needs no plugin.
    b.root("docker build --build-arg BASE=base -t dind /srv/dind")
        .env("DOCKER_BUILDKIT", "0")
        .limit(180)
        .ok()
        .map(drop)
}

/// Waits until the daemon in the container answers a client there.
fn up(b: &TestBox, name: &str) -> Result<()> {
    let answer = || b.root(&format!("docker exec {name} docker version")).run();
    let done = wait::until_true("the daemon in the container answers", PATIENCE, || {
        ensure!(
            b.root(&format!("docker inspect -f '{{{{.State.Running}}}}' {name}")).ok()? == "true\n",
            "the container ended"
        );
        Ok(answer()?.code == 0)
    });
    done.with_context(|| match b.root(&format!("docker logs --tail 30 {name} 2>&1")).ok() {
        Ok(log) => format!("its log:\n{log}"),
        Err(error) => error.to_string(),
    })
}

#[test]
fn the_image_runs_containers_as_uid_1000() -> Result<()> {
    let b = TestBox::builder(Suite::Sid).under(Under::Theirs).boot()?;
    let _daemon = rootful(&b)?;
    build(&b)?;
    let docker = |line: &str| b.root(&format!("docker {line}")).limit(120);
    docker("run -d --name outer --privileged -p 8080:8080 -e DOCKER_TLS_SAN=DNS:dind.test dind")
        .ok()?;
    up(&b, "outer")?;
    let inside = |line: &str| docker(&format!("exec outer {line}"));
    assert_eq!(inside("cat /proc/1/comm").ok()?, "rootlesskit\n");
    assert_eq!(inside("id -u").ok()?, "1000\n");
    assert_eq!(inside("stat -c %u /proc/1").ok()?, "1000\n");
    let options = inside("docker info -f '{{.SecurityOptions}}'").ok()?;
    ensure!(options.contains("name=rootless"), "{options}");
    docker("exec -i outer sh").input(MAKE_IMAGE).ok()?;
    // Not by its first output alone, see `Docker::output`.
    wait::until_true("a container prints", PATIENCE, || {
        Ok(inside("docker run --rm bb id -u").ok()? == "0\n")
    })?;

    // A port that is published inside, and from the container on.
    inside("docker run -d --stop-signal KILL --name web -p 8080:80 bb httpd -f -p 80 -h /www")
        .ok()?;
    let page = wait::until("the published port answers", PATIENCE, || {
        Ok(b.peer("curl -sS -m5 http://10.77.0.1:8080/").ok().ok())
    })?;
    assert_eq!(page, PAGE);

    // A client of another host, with the certificate that it may have.
    docker("cp outer:/certs/client /root/certs").ok()?;
    let address = docker("inspect -f '{{.NetworkSettings.IPAddress}}' outer").ok()?;
    let client = |name: &str| {
        b.root(&format!("docker --host tcp://{name}:2376 ps --format '{{{{.Names}}}}'"))
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", "/root/certs")
    };
    assert_eq!(client(address.trim()).ok()?, "web\n");
    b.root(&format!("echo {} dind.test wrong.test >>/etc/hosts", address.trim())).ok()?;
    assert_eq!(client("dind.test").ok()?, "web\n");
    let said = client("wrong.test").fails_with(1)?;
    ensure!(said.contains("certificate is valid for"), "{said}");
    let said = client("dind.test").env("DOCKER_CERT_PATH", "/nowhere").run()?;
    ensure!(said.code != 0, "without a certificate: {said}");

    // A crash leaves pid files; keys outlive it.
    let key = inside("cat /certs/ca/key.pem").ok()?;
    docker("kill outer").ok()?;
    docker("start outer").ok()?;
    up(&b, "outer")?;
    assert_eq!(inside("cat /certs/ca/key.pem").ok()?, key);
    assert_eq!(client("dind.test").ok()?, "");
    assert_eq!(inside("docker start web").ok()?, "web\n");
    let zombies = inside("sh -c 'cat /proc/[0-9]*/stat | grep \") Z \"'").run()?;
    assert_eq!(zombies.stdout, "");
    let stopped = docker("stop -t 100 outer").run()?;
    ensure!(stopped.code == 0, "{stopped}");
    let state = docker("inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' outer").ok()?;
    assert_eq!(state, "0 false\n", "{}", docker("logs --tail 20 outer").run()?);

    // Without certificates, and with options for the daemon.
    docker("run -d --name plain --privileged -e DOCKER_TLS_CERTDIR= dind --label=of=plain").ok()?;
    up(&b, "plain")?;
    let address = docker("inspect -f '{{.NetworkSettings.IPAddress}}' plain").ok()?;
    let labels = docker(&format!("-H tcp://{}:2375 info -f '{{{{.Labels}}}}'", address.trim()));
    assert_eq!(labels.ok()?, "[of=plain]\n");
    // Any other command is a command. As above, not by its first output alone.
    let asked =
        "run --rm --link plain:docker -e DOCKER_TLS_CERTDIR= dind docker info -f '{{.Labels}}'";
    wait::until_true("a client in the image prints", PATIENCE, || {
        Ok(docker(asked).ok()? == "[of=plain]\n")
    })?;
    docker("rm -f -v outer plain").ok().map(drop)
}
