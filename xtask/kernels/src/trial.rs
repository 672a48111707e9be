//! What is tried in a machine, in this order, and what comes of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::docker::MAKE_IMAGE;
use tests::limits::{self, Fate, Tried};
use tests::{Vm, ensure};

use crate::machines::Column;
use crate::results::{Answer, Results};

pub(crate) const COMMON: &str = include_str!("trials/common.sh");
pub(crate) const NETWORK: &str = include_str!("trials/network.sh");
pub(crate) const DRIVER: &str = include_str!("trials/driver.sh");
const INSTALL: &str = include_str!("trials/install.sh");
const PING: &str = include_str!("trials/ping.sh");
const AGAIN: &str = include_str!("trials/again.sh");
const REMOVE: &str = include_str!("trials/remove.sh");

/// `check`, in a session of the user as after a login.
const CHECK: &str = "systemd-run --user --quiet --wait --pipe --collect \
    dockerd-rootless-setuptool.sh check --json || true";

/// Waits for the daemon of a session that was just started.
const UP: &str =
    "for i in $(seq 600); do ! docker version >/dev/null 2>&1 || exit 0; sleep 0.2; done; exit 1";

/// Network drivers with the port driver that goes with each, and the port of the host that a server is published on.
const DRIVERS: [(&str, &str, &str); 3] = [
    ("gateway", "gateway", "8081"),
    ("slirp4netns", "builtin", "8082"),
    // It publishes every port under its own number.
    ("pasta", "implicit", "8080"),
];

struct Trial<'a> {
    vm: Vm,
    results: Results,
    /// Where `check` was wrong about limits or the storage driver.
    surprises: Vec<String>,
    say: &'a dyn Fn(&str, &Answer),
}

/// Boots the machine, tries everything, and says each row as it comes.
///
/// # Errors
/// The machine fails, or what happens is not what the setup tool predicts.
pub(crate) fn run(column: &Column, say: &dyn Fn(&str, &Answer)) -> Result<Results> {
    let mut vm = Vm::boot(&column.machine)?;
    let line = |vm: &mut Vm, script: &str| {
        Ok::<_, anyhow::Error>(vm.user(script)?.ok()?.trim().to_owned())
    };
    let results = Results {
        kernel: line(&mut vm, "uname -r")?,
        debian: line(&mut vm, ". /etc/os-release; echo \"$VERSION_CODENAME\"")?,
        processors: line(&mut vm, "nproc")?,
        docker: line(&mut vm, "dockerd --version | sed 's/Docker version \\([^,]*\\),.*/\\1/'")?,
        ..Results::default()
    };
    let mut trial = Trial { vm, results, surprises: Vec::new(), say };
    trial.script("", NETWORK, &[])?;
    let check = check(&mut trial.vm)?;
    trial.results.codes = codes(&check, &["fatal", "class"]);
    trial.results.seen = seen(&check);
    for (net, ports, port) in DRIVERS {
        trial.script(net, DRIVER, &[("NET", net), ("PORTS", ports), ("PORT", port)])?;
    }
    let net = check["effective"]["net"].as_str().context("check names no network driver")?;
    trial.results.network = net.to_owned();
    trial.script("docker", INSTALL, &[("NET", net), ("MAKE_IMAGE", MAKE_IMAGE)])?;
    trial.storage_driver(&check);
    // Everything else takes a daemon and the image. systemd may have started the daemon by now, but then there is no
    // image.
    for id in ["docker/install", "docker/daemon", "docker/image"] {
        let answer = &trial.results.rows[id];
        ensure!(answer.works, "{id} does not work: {}", answer.seen);
    }
    trial.script("docker", PING, &[])?;
    trial.limits("limits")?;
    trial.prepare()?;
    trial.script("prepared", PING, &[])?;
    trial.limits("prepared")?;
    trial.vm.reboot()?;
    trial.script("", NETWORK, &[])?;
    trial.script("again", AGAIN, &[])?;
    trial.script("end", REMOVE, &[])?;
    ensure!(trial.surprises.is_empty(), "{}", trial.surprises.join("\n"));
    Ok(trial.results)
}

impl Trial<'_> {
    fn add(&mut self, id: String, answer: Answer) {
        (self.say)(&id, &answer);
        self.results.rows.insert(id, answer);
    }

    /// Runs a script as root, with these variables, and adds the rows that it prints to the group.
    fn script(&mut self, group: &str, script: &str, variables: &[(&str, &str)]) -> Result<()> {
        for Printed { name, works, seen } in rows(&mut self.vm, script, variables)? {
            if (group, name.as_str()) == ("docker", "storage") {
                self.results.storage.clone_from(&seen);
            }
            let works = works && !(name == "storage" && seen == "vfs");
            let reason = error(&seen).filter(|_| !works);
            self.results.warnings.extend(warnings(&seen));
            let answer = Answer { works, reason, seen };
            self.add(format!("{group}/{name}"), answer);
        }
        Ok(())
    }

    /// dockerd has to take the storage driver that the setup tool predicted.
    fn storage_driver(&mut self, check: &Value) {
        let predicted = check["effective"]["storage_driver"].as_str();
        let taken = &self.results.storage;
        if predicted != Some(taken) {
            self.surprises.push(format!(
                "check predicts the storage driver {predicted:?}, and dockerd takes {taken}"
            ));
        }
    }

    /// What becomes of containers with limits, which has to be what the setup tool predicts.
    fn limits(&mut self, group: &str) -> Result<()> {
        let (tried, check) = limits::fates(&mut self.vm)?;
        for Tried { option, fate, surprise } in tried {
            self.surprises.extend(surprise);
            let limits = check["limits"].as_array().into_iter().flatten();
            let reason = limits
                .filter(|limit| limit["option"] == option)
                .find_map(|limit| limit["why_not"].as_str().map(str::to_owned));
            let answer = Answer { works: fate == Fate::Limited, reason, seen: format!("{fate:?}") };
            self.add(format!("{group}/{option}"), answer);
        }
        Ok(())
    }

    /// Does as root what `check` says, and looks whether it wants more then.
    fn prepare(&mut self) -> Result<()> {
        if let Some(block) = block(&check(&mut self.vm)?) {
            self.vm.root(&block)?.ok()?;
        }
        self.vm.root("systemctl restart user@1001.service")?.ok()?;
        self.vm.user(UP)?.ok().context("the daemon does not start again with the session")?;
        let check = check(&mut self.vm)?;
        let left = codes(&check, &["fatal", "class"]);
        let works = left.is_empty() && block(&check).is_none();
        let answer = Answer { works, reason: None, seen: left.join(", ") };
        self.add("prepared/check".to_owned(), answer);
        Ok(())
    }
}

/// A row as a script prints it.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) name: String,
    pub(crate) works: bool,
    pub(crate) seen: String,
}

/// Runs a script as root, with these variables, and gives the rows that it prints.
pub(crate) fn rows(vm: &mut Vm, script: &str, variables: &[(&str, &str)]) -> Result<Vec<Printed>> {
    let quoted = |value: &str| value.replace('\'', r"'\''");
    let set: String =
        variables.iter().map(|(name, value)| format!("{name}='{}'\n", quoted(value))).collect();
    let text = vm.root(&[COMMON, &set, script].join("\n"))?.ok()?;
    let row = |line: &str| {
        let mut fields = line.splitn(3, '\t').map(str::to_owned);
        let (Some(name), Some(works), Some(seen)) = (fields.next(), fields.next(), fields.next())
        else {
            anyhow::bail!("a trial printed {line:?}");
        };
        Ok(Printed { name, works: works == "yes", seen })
    };
    text.lines().map(row).collect()
}

/// The error of one of our programs in what a trial saw.
fn error(seen: &str) -> Option<String> {
    let of = |beginning: &str| seen.split_once(beginning).map(|(_, error)| error.trim().to_owned());
    ["[rootlesskit:child ] error: ", "[rootlesskit:parent] error: ", "[ERROR] "]
        .into_iter()
        .find_map(of)
}

/// The warnings of rootlesskit in what a trial saw.
fn warnings(seen: &str) -> impl Iterator<Item = String> {
    let messages = seen.split("level=warning msg=\"[rootlesskit:parent] ").skip(1);
    messages.filter_map(|rest| {
        Some(rest.split_once("\" ").or_else(|| rest.split_once('"'))?.0.to_owned())
    })
}

/// What `check` says.
pub(crate) fn check(vm: &mut Vm) -> Result<Value> {
    let text = vm.user(CHECK)?.ok()?;
    serde_json::from_str(&text).with_context(|| format!("check --json: {text}"))
}

/// The commands for root in what `check` says.
pub(crate) fn block(check: &Value) -> Option<String> {
    let block = check["admin_script"].as_str()?;
    // There is no sudo.
    Some(format!("sudo() {{ \"$@\"; }}\n{block}"))
}

/// The codes of findings with these severities.
fn codes(check: &Value, severities: &[&str]) -> Vec<String> {
    let findings = check["findings"].as_array().into_iter().flatten();
    let severe = findings
        .filter(|finding| severities.iter().any(|severity| finding["severity"] == *severity));
    severe.filter_map(|finding| finding["code"].as_str().map(str::to_owned)).collect()
}

/// What each finding says was seen, by its code.
pub(crate) fn seen(check: &Value) -> BTreeMap<String, String> {
    let findings = check["findings"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    findings
        .filter_map(|finding| Some((text(&finding["code"])?, text(&finding["seen"])?)))
        .collect()
}

/// The codes of what `check` says, without what it says about the log of the daemon.
pub(crate) fn codes_without_log(check: &Value) -> Vec<String> {
    seen(check).into_keys().filter(|code| !code.starts_with("log-")).collect()
}

/// What follows from a trial that ended with this failure, or without one, if `check` said these codes: with a remedy, it
/// has to fail, and to work when `again` has carried the remedy out and tried again; otherwise it has to work. Whether the
/// remedy helped.
pub(crate) fn remedied(
    failure: Option<&String>,
    said: &[String],
    remedy: Option<&str>,
    wrong: &mut Vec<String>,
    again: impl FnOnce(&str) -> Result<Option<String>>,
) -> Result<Option<bool>> {
    let Some(commands) = remedy else {
        wrong.extend(failure.cloned());
        return Ok(None);
    };
    if failure.is_none() {
        wrong.push(format!("it works, but check says {said:?}"));
    }
    let failure = again(commands)?;
    let fixed = failure.is_none();
    wrong.extend(failure.map(|failure| format!("after what check proposes: {failure}")));
    Ok(Some(fixed))
}

/// Fails with all that is wrong with the results: rows that are missing, failures that nothing explains, and what was
/// predicted wrongly.
pub(crate) fn verify(results: &Results) -> Result<()> {
    let mut wrong = Vec::new();
    for row in crate::rows::all() {
        let Some(answer) = results.answer(row) else {
            wrong.push(format!("{} was not tried", row.id));
            continue;
        };
        let predicted = row.code.filter(|code| results.seen.contains_key(*code));
        // `check` says of each limit whether it works, and that was compared as it was tried.
        let each = row.id.starts_with("limits/");
        match (answer.works, predicted) {
            (true, Some(code)) if !each => {
                wrong.push(format!("{} works, but check says {code}", row.id));
            }
            (false, _) if results.why(row).is_none() => {
                wrong.push(format!(
                    "{} does not work, and nothing says why: {}",
                    row.id, answer.seen
                ));
            }
            _ => {}
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests_of_what_is_seen {
    use super::*;

    #[test]
    fn only_our_programs_give_reasons() {
        let seen = "time=\"2026\" level=warning msg=\"[rootlesskit:parent] it is too old\" \
            [rootlesskit:parent] error: no hint: a";
        assert_eq!(error(seen).as_deref(), Some("no hint: a"));
        assert_eq!(warnings(seen).collect::<Vec<_>>(), ["it is too old"]);
        assert_eq!(error("rpc error: code = Unknown desc = no"), None);
        assert_eq!(warnings("level=warning msg=\"another\"").count(), 0);
    }
}
