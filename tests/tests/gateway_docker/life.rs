//! From the start of a daemon to an end that leaves nothing: three generations of Docker.

use std::os::unix::fs::PermissionsExt as _;

use tests::docker::{Docker, LEFT_BY_DOCKERD, version};
use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::support::{
    GATEWAY, HOST, PEER, bare, inside, page, peer_serves, refused, right_namespace, rootlessctl,
    serve, start, ways_out,
};

/// The life of a daemon and of two containers.
fn whole_life(suite: Suite) -> Result<()> {
    let b = bare(suite)?;
    peer_serves(&b, "udp-echo 0.0.0.0:9000")?;
    let d = start(&b)?;
    ensure!(d.run("version --format '{{.Server.Version}}'")?.starts_with(&version(suite)?));
    right_namespace(&b)?;
    named_as_component(&d, suite)?;
    ways_out(&d, "")?;
    real_answers_only(&d)?;
    build(&b, &d, suite)?;
    published(&b, &d)?;
    stats(&b)?;
    restarted(&b, &d)?;
    d.run("rm -f web udp")?;
    refused(&b, As::User, "127.0.0.1:8080")?;
    d.stop()?;
    refused(&b, As::User, "127.0.0.1:8080")?;
    let mode = std::fs::metadata(b.path("/dev/net/tun"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "the mode of /dev/net/tun changed");
    b.assert_clean(LEFT_BY_DOCKERD)
}

/// `docker version` says which network it is. (20.10 has no entry for rootlesskit.)
fn named_as_component(d: &Docker<'_>, suite: Suite) -> Result<()> {
    if suite == Suite::Bookworm {
        return Ok(());
    }
    let parts =
        d.run("version --format '{{range .Server.Components}}{{.Name}} {{json .Details}}{{println}}{{end}}'")?;
    let own = parts.lines().find(|line| line.starts_with("rootlesskit ")).unwrap_or_default();
    for part in [r#""NetworkDriver":"gateway""#, r#""PortDriver":"gateway""#] {
        ensure!(own.contains(part), "no {part} in {parts}");
    }
    Ok(())
}

/// Nobody answers for a machine that is not there, nor for the host's loopback.
fn real_answers_only(d: &Docker<'_>) -> Result<()> {
    ensure!(d.run("run --rm bb ping -c 1 -W 1 10.77.0.99").is_err(), "a ping was forged");
    for address in [format!("{GATEWAY}:7001"), "10.77.0.2:7009".to_owned()] {
        let answer = inside(d, "", &format!("get {address}"));
        ensure!(answer.is_err(), "{address} is open: {answer:?}");
    }
    Ok(())
}

/// A step of a build reaches the network, with the old builder and with BuildKit.
fn build(b: &TestBox, d: &Docker<'_>, suite: Suite) -> Result<()> {
    // The static busybox of Debian 12 crashes in the C library's name service.
    let fetch = match suite {
        Suite::Bookworm => format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {PEER} 7000 > /proof"),
        _ => "wget -qO /proof http://peer.test:7000/".to_owned(),
    };
    let file = format!("FROM bb\nRUN nslookup foo.test && {fetch}\nCMD [\"cat\", \"/proof\"]\n");
    b.user("mkdir -p /tmp/context && cat > /tmp/context/Dockerfile").input(file).ok()?;
    let builders: &[&str] = if suite == Suite::Sid { &["0", "1"] } else { &["0"] };
    for buildkit in builders {
        let line = "docker build --no-cache -t built /tmp/context";
        b.user(line).env("DOCKER_BUILDKIT", buildkit).limit(120).ok()?;
        let proof = d.output("built")?;
        ensure!(proof.ends_with(&format!("peer from {HOST}\n")), "{proof:?}");
    }
    b.user("rm -r /tmp/context").ok().map(drop)
}

/// Published ports answer on loopback and to another machine, over TCP and UDP, and the server sees who asks.
fn published(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    serve(d, "web", "-p 8080:80", "http 0.0.0.0:80 page")?;
    assert_eq!(page(b, As::User, "127.0.0.1:8080")?, format!("page from {GATEWAY}\n"));
    assert_eq!(page(b, As::User, &format!("{HOST}:8080"))?, format!("page from {HOST}\n"));
    assert_eq!(page(b, As::Peer, &format!("{HOST}:8080"))?, format!("page from {PEER}\n"));
    serve(d, "udp", "-p 9999:9999/udp", "udp-echo 0.0.0.0:9999")?;
    let ask = |who: As, address: &str| b.argv(who, &["fixture", "udp-ask", address, "hi"]).ok();
    ensure!(ask(As::User, "127.0.0.1:9999")?.ends_with(" hi\n"));
    ensure!(ask(As::User, &format!("{HOST}:9999"))?.ends_with(" hi\n"));
    let seen = ask(As::Peer, &format!("{HOST}:9999"))?;
    ensure!(seen.starts_with(&format!("{PEER}:")), "{seen}");
    Ok(())
}

/// Who talks to whom: the published port and the destination, as a table and as JSON.
fn stats(b: &TestBox) -> Result<()> {
    let table = rootlessctl(b, "stats")?;
    for part in ["8080", "9999", "10.77.0.2:7000"] {
        ensure!(table.contains(part), "no {part} in\n{table}");
    }
    let json = rootlessctl(b, "stats --json")?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let find = |list: &str, is: &dyn Fn(&serde_json::Value) -> bool| {
        let found = json[list].as_array().and_then(|all| all.iter().find(|one| is(one)));
        found.cloned().ok_or_else(|| tests::Error::msg(format!("not in {list}: {json:#}")))
    };
    let port = find("ports", &|one| one["port"].as_str().is_some_and(|p| p.contains("8080")))?;
    ensure!(port["opened"].as_u64() >= Some(3), "three requests: {port}");
    ensure!(port["bytesOut"].as_u64() > Some(0) && port["bytesIn"].as_u64() > Some(0), "{port}");
    let to = find("destinations", &|one| one["ip"] == PEER && one["port"] == 7000)?;
    ensure!(to["proto"] == "tcp" && to["opened"].as_u64() >= Some(2), "two requests: {to}");
    Ok(())
}

/// A port goes and comes with its container.
fn restarted(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    let host = format!("{HOST}:8080");
    let serves_again = || -> Result<()> {
        let page = wait::until("it serves again", PATIENCE, || Ok(page(b, As::Peer, &host).ok()))?;
        ensure!(page == format!("page from {PEER}\n"), "{page}");
        let answer = b.peer(&format!("fixture udp-ask {HOST}:9999 again")).ok()?;
        ensure!(answer.starts_with(&format!("{PEER}:")), "{answer}");
        Ok(())
    };
    d.run("restart -t 0 web udp")?;
    serves_again()?;
    d.run("stop -t 0 web udp")?;
    refused(b, As::Peer, &host)?;
    refused(b, As::User, "127.0.0.1:8080")?;
    ensure!(b.peer(&format!("fixture who udp {HOST}:9999")).run()?.code != 0, "UDP is open");
    d.run("start web udp")?;
    serves_again()
}

#[test]
fn docker_20_10() -> Result<()> {
    whole_life(Suite::Bookworm)
}

#[test]
fn docker_26_1() -> Result<()> {
    whole_life(Suite::Trixie)
}

#[test]
fn docker_28_5() -> Result<()> {
    whole_life(Suite::Sid)
}
