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
    let chart = std::fs::read_to_string(folder.path().join("soak.svg"))?;
    ensure!(chart.contains("rootlesskit version"), "{chart}");
    judged_again(&record, out)
}

/// The record of a soak fails once there is a wrong answer in it, once a kind of traffic is missing, and if it was
/// aborted.
fn judged_again(record: &Value, out: &str) -> Result<()> {
    let file = format!("{out}/changed.json");
    let judge = |record: &Value| {
        std::fs::write(&file, record.to_string())?;
        soak(&["--plot", &file, "--out", out])
    };
    let (passed, text) = judge(record)?;
    ensure!(passed, "{text}");
    let fails = |changed: &Value, words: &str| {
        let (passed, text) = judge(changed)?;
        ensure!(!passed && text.contains(words), "{words}: {text}");
        Ok(())
    };

    let mut wrong = record.clone();
    let failure = serde_json::json!({
        "since": 1, "at": 2, "instance": "gateway", "way": "out, IPv4", "kind": "udp", "wrong": true,
        "error": "wrong: another answer"
    });
    wrong["failures"].as_array_mut().context("failures")?.push(failure);
    fails(&wrong, "FAILED: gateway, out, IPv4: udp failed")?;

    let mut missing = record.clone();
    let traffic = missing["traffic"].as_array_mut().context("traffic")?;
    traffic.retain(|item| item["instance"] != "docker" || item["kind"] != "one page");
    fails(&missing, "FAILED: docker, containers: no answer to one page")?;

    let mut aborted = record.clone();
    aborted["aborted"] = "no room".into();
    fails(&aborted, "FAILED: the soak was aborted: no room")
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
