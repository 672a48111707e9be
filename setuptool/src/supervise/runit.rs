//! A service directory for the user's runsvdir(8).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use doctor::place::World;
use doctor::supervisor::runit_scans;
use hostenv::shellwords::quoted;

use super::{Begun, Job, service};
use crate::run::{self, Failed};
use crate::ui::Ui;

/// runsvdir looks every 5 s.
const SEEN_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// How long dockerd may take to stop its containers, in seconds, as sv(8) takes it.
const STOP: &str = "120";
/// sv gives up first.
const LIMIT: Duration = Duration::from_secs(150);

pub(super) fn place(world: &World) -> Result<PathBuf, Failed> {
    let dir = runit_scans(world).ok_or_else(|| {
        let dir = quoted(world.config_home().unwrap_or_default().join("service"));
        Failed::new(format!(
            "no runsvdir of this user is running\n\
             hint: mkdir -p {dir}; setsid runsvdir -P {dir} &\n\
             hint: or have the administrator create a system service that runs it as this user"
        ))
    })?;
    Ok(dir.join("docker"))
}

/// Writes the directory, waits until it is seen, and starts the daemon.
pub(super) fn start(ui: &mut Ui, job: &Job<'_>, place: &Path) -> Result<Begun, Failed> {
    let done = service::put(ui, place, &job.wanted(place), job.policy)?;
    let deadline = Instant::now() + SEEN_LIMIT;
    while !service::is_supervised(place) {
        if Instant::now() > deadline {
            return Err(Failed::new(format!(
                "runsvdir did not pick up {} within {} s",
                place.display(),
                SEEN_LIMIT.as_secs()
            )));
        }
        std::thread::sleep(PAUSE);
    }
    if !sv(ui, job.world, &["up", &place.to_string_lossy()])? {
        return Err(Failed::new(format!("`sv up {}` failed", place.display())));
    }
    let shown = quoted(place);
    let words = vec![
        format!("To control it, run: `sv (up|down|restart|status) {shown}`"),
        format!("Log: {}", job.files.log_dir().join("current").display()),
    ];
    Ok(Begun::Started { words, kept: done.kept })
}

pub(super) fn remove(ui: &mut Ui, world: &World, place: &Path) -> Result<(), Failed> {
    let hidden = service::hidden(place);
    if !service::exists(place) {
        return service::dismantle(ui, place);
    }
    // Without a runsv there is nothing to stop, and the pipe of a dead one has no reader.
    let supervised = service::is_supervised(place);
    if supervised && !sv(ui, world, &["-w", STOP, "down", &place.to_string_lossy()])? {
        return Err(Failed::new(format!("{} did not stop", place.display())));
    }
    service::dismantle(ui, place)?;
    fs::rename(place, &hidden).map_err(run::cannot("move", place))?;
    // Out of sight, nobody starts it again.
    if supervised && !sv(ui, world, &["-w", STOP, "exit", &hidden.to_string_lossy()])? {
        return Err(Failed::new(format!("runsv for {} did not exit", hidden.display())));
    }
    service::dismantle(ui, place)
}

fn sv(ui: &mut Ui, world: &World, args: &[&str]) -> Result<bool, Failed> {
    run::traced(ui, world.find("sv"), ("runit", "sv"), args, &world.env, LIMIT)
}
