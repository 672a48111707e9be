//! A soak of half a minute (`cargo xtask soak`): it runs, it finds nothing, and its record and chart are complete.

use std::process::Command;

use serde_json::Value;
use tests::{Context as _, Result, ensure};

/// Runs the program `soak` with these options; whether it passed, and what it printed.
fn soak(options: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_soak")).args(options).output()?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.success(), stdout + &stderr))
}

/// What of a record has all these properties.
fn count(list: &Value, properties: &[(&str, &str)]) -> usize {
    let has = |item: &&Value| properties.iter().all(|(key, value)| item[*key] == *value);
    list.as_array().into_iter().flatten().filter(has).count()
}

#[test]
fn a_short_soak_passes_and_its_record_has_everything() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().to_str().context("a path")?;
    let (passed, text) = soak(&["--minutes", "0.5", "--out", out])?;
    ensure!(passed, "{text}");
    let record: Value = serde_json::from_slice(&std::fs::read(folder.path().join("soak.json"))?)?;
    for (instance, processes) in [
        ("gateway", ["rootlesskit parent", "rootlesskit child", "rootlesskit-gateway"]),
        ("slirp4netns", ["rootlesskit parent", "rootlesskit child", "slirp4netns"]),
        ("docker", ["rootlesskit parent", "rootlesskit-gateway", "dockerd"]),
    ] {
        for process in processes {
            let samples =
                count(&record["samples"], &[("instance", instance), ("process", process)]);
            ensure!(samples > 0, "no sample of {process} of {instance}");
        }
        let events = record["events"].as_array().context("events")?;
        for what in ["killed", "replaced"] {
            ensure!(
                events.iter().any(|event| event["what"][what] == instance),
                "{instance} was not {what}: {events:?}"
            );
        }
    }
    let kinds = ["bulk", "short", "keep-alive", "udp"];
    let ways = ["out, IPv4", "out, IPv6", "in, IPv4", "in, IPv6"];
    let everywhere = ["gateway", "slirp4netns"].into_iter().flat_map(|instance| {
        ways.into_iter().flat_map(move |way| kinds.map(|kind| (instance, way, kind)))
    });
    let some = [
        ("gateway", "out, IPv4", "ping"),
        ("gateway", "out, IPv6", "ping"),
        ("gateway", "out, IPv6", "dns second"),
        ("gateway", "API", "publish and remove"),
        ("gateway", "both", "killed client"),
        ("slirp4netns", "out, IPv4", "ping"),
        ("slirp4netns", "out, IPv4", "dns first"),
        ("slirp4netns", "API", "publish and remove"),
        ("docker", "from a container, IPv4", "dns first"),
        ("docker", "to a container, IPv4", "udp"),
        ("docker", "containers", "run and remove"),
        ("docker", "containers", "one page"),
    ];
    for (instance, way, kind) in everywhere.chain(some) {
        let answers =
            count(&record["traffic"], &[("instance", instance), ("way", way), ("kind", kind)]);
        ensure!(answers > 0, "no answer: {instance}, {way}, {kind}\n{text}");
    }
    let chart = std::fs::read_to_string(folder.path().join("soak.svg"))?;
    ensure!(chart.contains("rootlesskit version"), "{chart}");
    judged_again(&record, out)
}

/// The record of a soak fails once there is a wrong answer in it.
fn judged_again(record: &Value, out: &str) -> Result<()> {
    let file = format!("{out}/changed.json");
    let judge = |record: &Value| {
        std::fs::write(&file, record.to_string())?;
        soak(&["--plot", &file, "--out", out])
    };
    let (passed, text) = judge(record)?;
    ensure!(passed, "{text}");
    let mut changed = record.clone();
    let wrong = serde_json::json!({
        "since": 1, "at": 2, "instance": "gateway", "way": "out, IPv4", "kind": "udp", "wrong": true,
        "error": "wrong: another answer"
    });
    changed["failures"].as_array_mut().context("failures")?.push(wrong);
    let (passed, text) = judge(&changed)?;
    ensure!(!passed && text.contains("FAILED: gateway, out, IPv4: udp failed"), "{text}");
    Ok(())
}

#[test]
fn wrong_options_are_refused_with_the_right_ones() -> Result<()> {
    for (options, words) in [
        (["--minutes", "0"], "not a number from 0.5 to 10000"),
        (["--hours", "1"], "unknown option --hours"),
        (["--plot", "/nonexistent/soak.json"], "reading /nonexistent/soak.json"),
    ] {
        let folder = tempfile::tempdir()?;
        let out = folder.path().to_str().context("a path")?;
        let (passed, text) = soak(&[options[0], options[1], "--out", out])?;
        ensure!(!passed && text.contains(words), "{options:?}: {text}");
    }
    Ok(())
}
