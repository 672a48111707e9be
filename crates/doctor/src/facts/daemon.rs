//! What was installed before: the unit, the daemon's last words, the contexts of the docker command.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::names::{CONTEXT, UNIT};
use crate::place::{World, docker_host};
use crate::supervisor::Files;
use crate::{systemd, unit};

#[derive(Debug, Clone)]
pub struct Daemon {
    pub installed: bool,
    /// The program that the unit starts, if that cannot be run; whether it is there.
    pub lost_program: Option<(PathBuf, bool)>,
    /// The end of the log of an installed daemon that should run and does not.
    pub log: String,
    /// The daemon's configuration, if it is no JSON object; why not.
    pub bad_config: Option<(PathBuf, String)>,
    /// The host of the context `rootless`, if it is not this daemon.
    pub other_host: Option<String>,
    /// The current context, if it is not there.
    pub lost_context: Option<String>,
}

impl Daemon {
    pub fn gather(world: &World) -> Self {
        let unit = world.unit().and_then(|unit| hostenv::file::text(&unit).ok());
        let program = unit.as_deref().and_then(unit::program);
        // A daemon that failed leaves its socket, and connecting to that of systemd would start one.
        let runs = world.daemon_runs();
        let (contexts, current) = contexts(world);
        let own = world.runtime_dir().map(|dir| docker_host(&dir));
        let rootless = contexts.iter().find(|(name, _)| name == CONTEXT);
        Self {
            installed: unit.is_some(),
            log: if runs { String::new() } else { last_words(&log(world, unit.is_some())) },
            bad_config: bad_config(world),
            lost_program: program.filter(|program| !hostenv::path::is_executable(program)).map(
                |program| {
                    let there = program.exists();
                    (program, there)
                },
            ),
            other_host: rootless
                .map(|(_, host)| host.clone())
                .filter(|host| Some(host) != own.as_ref()),
            lost_context: current.filter(|name| {
                name != "default" && !contexts.iter().any(|(known, _)| known == name)
            }),
        }
    }
}

fn bad_config(world: &World) -> Option<(PathBuf, String)> {
    let (file, text) = world.daemon_config()?;
    if text.trim_ascii().is_empty() {
        return None;
    }
    let error = match serde_json::from_slice::<Value>(&text) {
        Ok(Value::Object(_)) => return None,
        Ok(_) => "not a JSON object".to_owned(),
        Err(error) => error.to_string(),
    };
    Some((file, error))
}

fn log(world: &World, unit: bool) -> String {
    if !unit {
        let log = Files::of(world).and_then(|files| files.last_log());
        return log.map(|(_, text)| text).unwrap_or_default();
    }
    match systemd::property(world, "ActiveState", UNIT).as_deref() {
        Some("failed" | "activating") => systemd::last_lines(world, "dockerd-rootless.sh".as_ref()),
        // Its user stopped it, or it runs with a state directory that only the unit names.
        _ => String::new(),
    }
}

/// What may be why the daemon ended: errors since it last listened. A daemon warns of much that does not stop it, and
/// reports errors of its clients, which are answers, while it runs.
fn last_words(log: &str) -> String {
    let listened = log.rsplit_once("API listen on").map(|(_, rest)| rest);
    let rest = listened.map_or(log, |rest| rest.split_once('\n').unwrap_or_default().1);
    let harmless = |line: &&str| {
        let answer = line.contains("Handler for ") && line.contains(" returned error: ");
        answer || line.contains("level=info") || line.contains("level=warning")
    };
    rest.lines().filter(|line| !harmless(line)).collect::<Vec<_>>().join("\n")
}

/// The names and hosts of all contexts, and the name of the current one.
fn contexts(world: &World) -> (Vec<(String, String)>, Option<String>) {
    let Some(config) = world.cli_config() else { return (Vec::new(), None) };
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let dirs = fs::read_dir(config.join("contexts/meta")).into_iter().flatten().flatten();
    let known = dirs.filter_map(|dir| {
        let meta = hostenv::file::read(&dir.path().join("meta.json")).ok()?;
        let meta: Value = serde_json::from_slice(&meta).ok()?;
        let host = text(&meta["Endpoints"]["docker"]["Host"]).unwrap_or_default();
        Some((text(&meta["Name"])?, host))
    });
    (known.collect(), text(&world.cli_json().unwrap_or_default()["currentContext"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_since_the_daemon_listened_count() {
        let log = "level=error msg=old\nmsg=\"API listen on /x\"\nlevel=warning msg=a\nlevel=info msg=b\nlast";
        assert_eq!(last_words(log), "last");
        assert_eq!(last_words("never\nlistened"), "never\nlistened");
        let answer =
            "level=error msg=\"Handler for POST /v1.51/images/create returned error: x509: a\"";
        assert_eq!(last_words(&format!("{answer}\nlevel=error msg=b")), "level=error msg=b");
    }
}
