//! The flow log of ten containers: each line has the right name, whoever began the connection.

use serde_json::Value;
use tests::docker::Docker;
use tests::kit;
use tests::{As, Context as _, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::support::{HOST, PEER, bare, rootlessctl, serve, start, state_dir};

const CONTAINERS: usize = 10;

/// Lines with these values, by the names of their fields.
fn count(events: &[Value], parts: &[(&str, &str)]) -> usize {
    let has = |event: &&Value| {
        parts.iter().all(|(path, expected)| {
            let value = path.split('.').fold(*event, |value, name| &value[name]);
            value.as_str() == Some(*expected)
        })
    };
    events.iter().filter(has).count()
}

fn port(n: usize) -> usize {
    9200 + n
}

/// Connects as often as the number of the container says, in both directions; once to nobody, once to what is denied.
fn talk(b: &TestBox, d: &Docker<'_>, n: usize) -> Result<()> {
    let pid = d.run(&format!("inspect -f '{{{{.State.Pid}}}}' c{n}"))?;
    let many = n + 1;
    let out = format!(
        "set -e
         dig +short @10.0.2.3 peer.test
         for i in $(seq {many}); do fixture get {PEER}:7000; done
         ! fixture get {PEER}:1
         ! fixture get 10.0.2.2:83"
    );
    b.argv(As::Root, &["nsenter", "-t", pid.trim(), "-n", "sh", "-c", &out]).ok()?;
    let at = port(n);
    b.peer(&format!("set -e; for i in $(seq {many}); do fixture get {HOST}:{at}; done")).ok()?;
    b.peer(&format!("bash -c 'echo -n hello >/dev/udp/{HOST}/{at}'")).ok()?;
    Ok(())
}

#[test]
fn flows_have_the_names_of_their_containers() -> Result<()> {
    let b = bare(Suite::Trixie)?;
    let d = start(&b)?;
    for n in 0..CONTAINERS {
        // Nobody listens at the port for datagrams.
        let ports = format!("-p {0}:80 -p {0}:80/udp", port(n));
        serve(&d, &format!("c{n}"), &ports, "http [::]:80 page")?;
    }
    let flows = format!("exec rootlessctl --socket={}/api.sock flows --follow", state_dir(&b)?);
    let text = b.user(&flows).spawn()?;
    let json = b.user(&format!("{flows} --json")).spawn()?;
    wait::until_true("both follow", PATIENCE, || {
        b.peer(&format!("fixture get {HOST}:{}", port(0))).ok()?;
        Ok(text.printed()?.lines().count() > 1 && json.printed()?.contains('\n'))
    })?;
    let events = || kit::events(&json);
    for n in 0..CONTAINERS {
        talk(&b, &d, n)?;
    }
    let wrong = || -> Result<Vec<String>> {
        let events = events()?;
        let mut wrong = Vec::new();
        for n in 0..CONTAINERS {
            let (name, address) =
                (format!("c{n}"), format!("inspect -f '{{{{.NetworkSettings.IPAddress}}}}' c{n}"));
            let ip = d.run(&address)?;
            let own = [("container", &*name), ("containerIp", ip.trim()), ("network", "bridge")];
            let count = |parts: &[(&str, &str)]| count(&events, &[&own[..], parts].concat());
            let out = [("direction", "outbound"), ("destination.ip", PEER), ("name", "peer.test")];
            let published = [("direction", "published"), ("client.ip", PEER), ("end", "closed")];
            let found = [
                count(&[&out[..], &[("end", "closed")]].concat()),
                count(&[&out[..], &[("end", "refused")]].concat()),
                count(&[("destination.ip", "10.0.2.2"), ("end", "denied")]),
                count(&published),
            ];
            // What showed that the followers follow went to the first one.
            let extra = if n == 0 { found[3].saturating_sub(1) } else { 0 };
            if found != [n + 1, 1, 1, n + 1 + extra] {
                wrong.push(format!("{name}: {found:?}"));
            }
        }
        Ok(wrong)
    };
    wait::until_true("everything is shown", PATIENCE, || Ok(wrong()?.is_empty()))
        .with_context(|| format!("{:#?} of {}", wrong(), json.printed().unwrap_or_default()))?;
    // The refused datagrams count at once. Their flows end later.
    wait::until_true("each port has refused a datagram", PATIENCE, || {
        let stats: Value = serde_json::from_str(&rootlessctl(&b, "stats --json")?)?;
        let all = stats["containers"].as_array().context("no containers")?;
        Ok(all.iter().filter(|of| of["publishedUdp"]["failed"] == 1).count() == CONTAINERS)
    })?;
    let all = events()?;
    ensure!(all.iter().all(|event| event["container"].is_string()), "one without a name: {all:?}");
    wait::until_true("people see the same", PATIENCE, || {
        let printed = text.printed()?;
        Ok((0..CONTAINERS).all(|n| {
            let has = |line: &str, word: &str| line.split_whitespace().any(|found| found == word);
            let name = format!("c{n}");
            printed
                .lines()
                .any(|line| has(line, &name) && line.ends_with("  closed           peer.test"))
        }))
    })
    .with_context(|| text.printed().unwrap_or_default())?;

    // A container that is gone when its last line is read has its name.
    let before = count(&events()?, &[("container", "c7")]);
    json.signal("STOP")?;
    talk(&b, &d, 7)?;
    d.run("rm -f c7")?;
    json.signal("CONT")?;
    wait::until_true("what it did is shown", PATIENCE, || {
        Ok(count(&events()?, &[("container", "c7")]) == before + 2 * 8 + 4)
    })
    .with_context(|| json.printed().unwrap_or_default())?;
    drop((text, json));
    d.run(&format!("rm -f {}", d.run("ps -aq")?.replace('\n', " ")))?;
    d.stop()
}
