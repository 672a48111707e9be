//! A service directory for the user's s6-svscan(8).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use doctor::place::World;
use doctor::supervisor::s6_scans;
use hostenv::shellwords::quoted;

use super::{Begun, Job, service};
use crate::run::{self, Failed};
use crate::ui::Ui;

/// How long dockerd may take to stop its containers, in milliseconds, as s6-svc(8) takes it.
const STOP: &str = "120000";
/// s6-svc gives up first.
const LIMIT: Duration = Duration::from_secs(150);
/// How long s6-supervise may take to end when its service is down.
const END_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn place(world: &World) -> Result<PathBuf, Failed> {
    let dir = s6_scans(world).ok_or_else(|| {
        let dir = quoted(world.config_home().unwrap_or_default().join("s6/scan"));
        Failed::new(format!(
            "no s6-svscan of this user is running\n\
             hint: mkdir -p {dir}; setsid s6-svscan {dir} &\n\
             hint: or have the administrator create a system service that runs it as this user"
        ))
    })?;
    Ok(dir.join("docker"))
}

pub(super) fn start(ui: &mut Ui, job: &Job<'_>, place: &Path) -> Result<Begun, Failed> {
    let shown = place.to_string_lossy().into_owned();
    let put = service::put(ui, place, &job.wanted(place), job.policy)?;
    let done = if put.new {
        s6(ui, job.world, "s6-svscanctl", &["-a", &scan_dir(place)])?
    } else {
        s6(ui, job.world, "s6-svc", &["-u", &shown])?
    };
    if !done {
        return Err(Failed::new(format!("s6-svscan did not pick up {shown}")));
    }
    let shown = quoted(shown);
    let words = vec![
        format!("To control it, run: `s6-svc (-u|-d|-r) {shown}` and `s6-svstat {shown}`"),
        format!("Log: {}", job.files.log_dir().join("current").display()),
    ];
    Ok(Begun::Started { words, kept: put.kept })
}

pub(super) fn remove(ui: &mut Ui, world: &World, place: &Path) -> Result<(), Failed> {
    let hidden = service::hidden(place);
    if !service::exists(place) {
        return service::dismantle(ui, place);
    }
    let supervised = service::is_supervised(place);
    let shown = place.to_string_lossy();
    if supervised && !s6(ui, world, "s6-svc", &["-wD", "-T", STOP, "-d", &shown])? {
        return Err(Failed::new(format!("{shown} did not stop")));
    }
    service::dismantle(ui, place)?;
    fs::rename(place, &hidden).map_err(run::cannot("move", place))?;
    if supervised {
        // -n ends the supervisors of what is no longer there.
        s6(ui, world, "s6-svscanctl", &["-an", &scan_dir(place)])?;
        let both = [hidden.clone(), hidden.join("log")];
        let deadline = Instant::now() + END_LIMIT;
        while both.iter().any(|service| service::is_supervised(service)) {
            if Instant::now() > deadline {
                return Err(Failed::new(format!("s6-supervise for {shown} did not exit")));
            }
            std::thread::sleep(PAUSE);
        }
    }
    service::dismantle(ui, place)
}

fn scan_dir(place: &Path) -> String {
    place.parent().unwrap_or(place).to_string_lossy().into_owned()
}

fn s6(ui: &mut Ui, world: &World, name: &str, args: &[&str]) -> Result<bool, Failed> {
    run::traced(ui, world.find(name), ("s6", name), args, &world.env, LIMIT)
}
