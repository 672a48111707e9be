//! What was installed before: the unit, the daemon's last words, the contexts of the docker command.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::context;
use crate::place::{World, docker_host};
use crate::supervise::Files;
use crate::systemd;

/// An earlier installation.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// There is a unit of the daemon.
    pub(crate) installed: bool,
    /// The program that the unit starts, if that is not there.
    pub(crate) lost_program: Option<PathBuf>,
    /// The end of the log of an installed daemon whose socket is not there.
    pub(crate) log: String,
    /// The host of the context `rootless`, if it is not this daemon.
    pub(crate) other_host: Option<String>,
    /// The current context, if it is not there.
    pub(crate) lost_context: Option<String>,
}

impl Daemon {
    pub(crate) fn gather(world: &World) -> Self {
        let unit = world.unit().and_then(|unit| fs::read_to_string(unit).ok());
        let program = unit.as_deref().and_then(program);
        let runtime_dir = world.runtime_dir();
        let socket = runtime_dir.as_ref().map(|dir| dir.join("docker.sock"));
        let stopped = !socket.is_some_and(|socket| socket.exists());
        let (contexts, current) = contexts(world);
        let own = runtime_dir.map(|dir| docker_host(&dir));
        let rootless = contexts.iter().find(|(name, _)| name == context::NAME);
        Self {
            installed: unit.is_some(),
            log: if stopped { log(world, unit.is_some()) } else { String::new() },
            lost_program: program.filter(|program| !env::path::is_executable(program)),
            other_host: rootless
                .map(|(_, host)| host.clone())
                .filter(|host| Some(host) != own.as_ref()),
            lost_context: current.filter(|name| {
                name != "default" && !contexts.iter().any(|(known, _)| known == name)
            }),
        }
    }
}

/// The first word of `ExecStart=`, as [`crate::unit`] writes it.
fn program(unit: &str) -> Option<PathBuf> {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let word = match line.strip_prefix('"') {
        Some(rest) => rest.split_once('"')?.0,
        None => line.split_whitespace().next()?,
    };
    Some(word.replace("%%", "%").replace("$$", "$").into())
        .filter(|path: &PathBuf| path.is_absolute())
}

fn log(world: &World, unit: bool) -> String {
    if unit {
        return systemd::last_lines(world, "dockerd-rootless.sh".as_ref());
    }
    let files = Files::of(world).map(|files| files.logs()).into_iter().flatten();
    let text = files.filter_map(|file| fs::read(file).ok()).next().unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(systemd::LAST_LINES)..].join("\n")
}

/// The names and hosts of all contexts, and the name of the current one.
fn contexts(world: &World) -> (Vec<(String, String)>, Option<String>) {
    let Some(config) = world.cli_config() else { return (Vec::new(), None) };
    let read = |file: &Path| serde_json::from_slice::<Value>(&fs::read(file).ok()?).ok();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let dirs = fs::read_dir(config.join("contexts/meta")).into_iter().flatten().flatten();
    let known = dirs.filter_map(|dir| {
        let meta = read(&dir.path().join("meta.json"))?;
        let host = text(&meta["Endpoints"]["docker"]["Host"]).unwrap_or_default();
        Some((text(&meta["Name"])?, host))
    });
    let current = read(&config.join("config.json")).and_then(|file| text(&file["currentContext"]));
    (known.collect(), current)
}
