//! A service of OpenRC that runs our own supervisor: of the user since OpenRC 0.60, of the system before.
//!
//! Our supervisor has the back-off and the bounded log in all releases; OpenRC starts it with the system, or with the
//! first session of the user, and stops it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use doctor::managed;
use doctor::place::World;
use doctor::supervisor::Files;
use doctor::supervisor::openrc::{is_of_system, system_name, wanted};
use doctor::systemd::with_runtime_dir;
use hostenv::shellwords::quoted;

use super::{Begun, Job};
use crate::report;
use crate::run::{self, Failed};
use crate::ui::Ui;
use crate::write::{self, Put, backups};

/// The name of the user's service.
const NAME: &str = "docker";
/// What starts with the user's session.
const RUNLEVEL: &str = "default";
/// The first release with services of users.
const USERS_SINCE: (u32, u32) = (0, 60);
/// Longer than the supervisor takes to stop the daemon.
const LIMIT: Duration = Duration::from_secs(200);
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// The user's service script, or that of the system where users have none.
pub(super) fn place(world: &World) -> Result<PathBuf, Failed> {
    if world.find_with_sbin("rc-service").is_none() {
        return Err(Failed::new("OpenRC is not installed: rc-service was not found"));
    }
    if !has_user_services(world) {
        return Ok(world.at("etc/init.d").join(system_name(world)));
    }
    let config = world.config_home().ok_or_else(|| Failed::new("HOME is not set"))?;
    Ok(config.join("rc/init.d").join(NAME))
}

/// `rc-service (OpenRC) 0.62.6`.
fn has_user_services(world: &World) -> bool {
    let Some(program) = world.find_with_sbin("rc-service") else { return false };
    let output = run::captured(&program, &[OsStr::new("--version")], &world.env, ASK_LIMIT);
    output.is_ok_and(|output| version(&output.text()).is_some_and(|found| found >= USERS_SINCE))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("(OpenRC)")?;
    let mut numbers = rest.trim_start().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Copies of the script are not services: OpenRC takes every program in the directory for one.
fn disarm_backups(place: &Path) -> Result<(), Failed> {
    for copy in backups(place) {
        fs::set_permissions(&copy, Permissions::from_mode(0o644))
            .map_err(run::cannot("change", &copy))?;
    }
    Ok(())
}

/// Writes the script and starts the service, or tells the administrator to.
pub(super) fn start(ui: &mut Ui, job: &Job<'_>, place: &Path) -> Result<Begun, Failed> {
    let world = job.world;
    if is_of_system(world, place) {
        tell(ui, job, place)?;
        return Ok(Begun::Left);
    }
    let kept = write::put(&wanted(world, job.files, place, job.user), ui, job.policy)? == Put::Kept;
    disarm_backups(place)?;
    // Nobody has made it for a user without any service.
    let runlevel = runlevel(place);
    fs::create_dir_all(&runlevel).map_err(run::cannot("create", &runlevel))?;
    for (program, args) in [
        ("rc-update", ["--user", "add", NAME, RUNLEVEL].as_slice()),
        ("rc-service", &["--user", NAME, "start"]),
    ] {
        if !openrc(ui, world, program, args)? {
            return Err(Failed::new(format!("`{program} {}` failed", args.join(" "))));
        }
    }
    let user = quoted(job.user);
    let words = vec![
        format!("To control it, run: `rc-service --user {NAME} (start|stop|restart|status)`"),
        format!("Log: {}", job.files.log().display()),
        format!(
            "To start it at boot, run as root: \
             `ln -s user /etc/init.d/user.{user} && rc-update add user.{user} default`"
        ),
    ];
    Ok(Begun::Started { words, kept })
}

fn tell(ui: &mut Ui, job: &Job<'_>, place: &Path) -> Result<(), Failed> {
    let file = wanted(job.world, job.files, place, job.user);
    let state = file.state()?;
    let text = &file.text;
    let name = system_name(job.world);
    let shown = quoted(place);
    ui.info("User services require OpenRC 0.60 or later. Have the administrator run these");
    ui.info("commands; they start the daemon now and at every boot:");
    let mut commands = Vec::new();
    if state.is_users() && !job.policy.force {
        write::tell_kept(ui, place, state, job.policy);
    } else {
        if state.is_users() {
            let copy = quoted(write::free_name(place, "bak"));
            commands.push(format!("cp {shown} {copy}\nchmod 644 {copy}"));
        }
        commands.push(format!("cat > {shown} <<'SCRIPT'\n{text}SCRIPT"));
        commands.push(format!("chmod 755 {shown}"));
    }
    commands.push(format!("rc-update add {name} default"));
    commands.push(format!("rc-service {name} start"));
    report::frame(ui, &format!("sudo sh -eux <<'EOF'\n{}\nEOF", commands.join("\n")));
    Ok(())
}

/// Stops the service and removes the script.
pub(super) fn remove(ui: &mut Ui, world: &World, place: &Path) -> Result<(), Failed> {
    if is_of_system(world, place) {
        if !place.exists() {
            return Ok(());
        }
        let name = system_name(world);
        let shown = quoted(place);
        let away = if managed::state(place).is_ok_and(managed::State::is_users) {
            let copy = quoted(write::free_name(place, "bak"));
            format!("sudo chmod 644 {shown}; sudo mv {shown} {copy}")
        } else {
            format!("sudo rm -f {shown}")
        };
        return Err(Failed::new(format!(
            "only root can remove the system service {name}; run the commands below, then run this again\n\
             hint: sudo rc-service {name} stop; sudo rc-update del {name} default; {away}"
        )));
    }
    // A service that is not started, or in no runlevel, is no problem; one that runs on is seen below.
    openrc(ui, world, "rc-service", &["--user", NAME, "stop"])?;
    openrc(ui, world, "rc-update", &["--user", "del", NAME, RUNLEVEL])?;
    if let Some(files) = Files::of(world) {
        super::plain::stop(ui, &files)?;
    }
    write::put_away(place).map_err(run::cannot("remove", place))?.tell(ui, place);
    disarm_backups(place)?;
    // rmdir(2) refuses what has other services.
    let runlevel = runlevel(place);
    for dir in runlevel.ancestors().take(2).chain(place.ancestors().skip(1).take(2)) {
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// The directory of the user's runlevel, beside that of the scripts.
fn runlevel(place: &Path) -> PathBuf {
    let config = place.ancestors().nth(2).unwrap_or(place);
    config.join("runlevels").join(RUNLEVEL)
}

fn openrc(ui: &mut Ui, world: &World, name: &str, args: &[&str]) -> Result<bool, Failed> {
    let (program, env) = (world.find_with_sbin(name), with_runtime_dir(world));
    run::traced(ui, program, ("OpenRC", name), args, &env, LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_openrc() {
        assert_eq!(version("rc-service (OpenRC) 0.62.6\n"), Some((0, 62)));
        assert_eq!(version("rc-service (OpenRC) 0.54 (Alpine Linux)"), Some((0, 54)));
        assert!(version("rc-service (OpenRC) 1.0") > Some(USERS_SINCE));
        assert_eq!(version("rc-service"), None);
    }
}
