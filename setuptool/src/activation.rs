//! Socket activation: the unit `docker.socket` beside the service.
//!
//! systemd refuses to listen for a service that runs already, since that has the socket; so a change from one way to the
//! other stops the daemon, with a word.

use std::fs;
use std::path::Path;

use crate::run::{Failed, cannot};
use crate::systemd::Systemctl;
use crate::ui::Ui;
use crate::write;
use doctor::managed;
use doctor::names::{SOCKET_UNIT, UNIT};
use doctor::place::World;

pub(crate) fn start(ui: &mut Ui, manager: &Systemctl) -> Result<(), Failed> {
    if manager.quiet(&["is-active", SOCKET_UNIT]) {
        return Ok(());
    }
    if manager.quiet(&["is-active", UNIT]) {
        ui.warning(&format!("Stopping the daemon, so that {SOCKET_UNIT} can take over its socket"));
        manager.traced(ui, &["stop", UNIT])?;
    }
    if manager.traced(ui, &["start", SOCKET_UNIT])?.success() {
        return Ok(());
    }
    Err(Failed::new(format!("`systemctl --user start {SOCKET_UNIT}` failed")))
}

/// Removes the unit of the socket, if there is one. The daemon stops with the socket, which its unit requires. With
/// `spare`, a unit that the user edited or wrote stays as it is.
pub(crate) fn remove(
    ui: &mut Ui,
    world: &World,
    manager: &Systemctl,
    spare: bool,
) -> Result<(), Failed> {
    let there = |file: &std::path::PathBuf| fs::symlink_metadata(file).is_ok();
    let Some(file) = world.socket_unit().filter(there) else { return Ok(()) };
    if spare {
        let state = managed::state(&file)?;
        if state.is_users() {
            let (shown, words) = (file.display(), state.words());
            ui.warning(&format!("{shown} {words} and was kept; install --socket uses it"));
            return Ok(());
        }
    }
    // Both fail if it was changed by hand, which is fine.
    manager.traced(ui, &["stop", SOCKET_UNIT])?;
    manager.disable(ui, &file)?;
    delete(ui, &file)?;
    manager.quiet(&["daemon-reload"]);
    manager.quiet(&["reset-failed", SOCKET_UNIT]);
    ui.info(&format!("Uninstalled {SOCKET_UNIT}"));
    Ok(())
}

/// Removes the files alone, where systemd cannot be reached. A unit of the user's gets another name.
pub(crate) fn delete(ui: &mut Ui, file: &Path) -> Result<(), Failed> {
    let wants = file.with_file_name("sockets.target.wants");
    let link = wants.join(SOCKET_UNIT);
    hostenv::file::remove_if_present(&link).map_err(cannot("remove", &link))?;
    write::put_away(file).map_err(cannot("remove", file))?.tell(ui, file);
    let _ = fs::remove_dir(wants);
    Ok(())
}
