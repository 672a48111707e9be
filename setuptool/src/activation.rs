//! Socket activation: the unit `docker.socket` beside the service.
//!
//! systemd refuses to listen for a service that runs already, since that has the socket; so a change from one way to the
//! other stops the daemon, with a word.

use std::fs;
use std::path::Path;

use crate::place::World;
use crate::run::Failed;
use crate::state;
use crate::systemd::{SOCKET_UNIT, Systemctl, UNIT};
use crate::ui::Ui;
use crate::unit;

/// Writes the unit and makes systemd listen.
///
/// # Errors
/// The unit cannot be written, or systemd refuses.
pub(crate) fn start(ui: &mut Ui, world: &World, manager: &Systemctl) -> Result<(), Failed> {
    let file = world.socket_unit().ok_or_else(|| Failed::new("HOME is not set"))?;
    manager.put(ui, &file, unit::SOCKET)?;
    if manager.quiet(&["is-active", SOCKET_UNIT]) {
        return Ok(());
    }
    if manager.quiet(&["is-active", UNIT]) {
        ui.warning("The daemon is stopped, since it listens by itself");
        manager.traced(ui, &["stop", UNIT])?;
    }
    if manager.traced(ui, &["start", SOCKET_UNIT])?.success() {
        return Ok(());
    }
    Err(Failed::new(format!("`systemctl --user start {SOCKET_UNIT}` failed")))
}

/// Removes what [`start`] made, if it did. The daemon stops with the socket, which its unit requires.
///
/// # Errors
/// systemctl cannot be run, or the unit cannot be removed.
pub(crate) fn remove(ui: &mut Ui, world: &World, manager: &Systemctl) -> Result<(), Failed> {
    let Some(file) = world.socket_unit().filter(|file| file.exists()) else { return Ok(()) };
    for verb in ["stop", "disable"] {
        // Both fail if it was changed by hand, which is fine.
        manager.traced(ui, &[verb, SOCKET_UNIT])?;
    }
    delete(&file)?;
    manager.quiet(&["daemon-reload"]);
    manager.quiet(&["reset-failed", SOCKET_UNIT]);
    ui.info(&format!("Uninstalled {SOCKET_UNIT}"));
    Ok(())
}

/// Removes the files alone, where systemd cannot be reached.
///
/// # Errors
/// One of them cannot be removed.
pub(crate) fn delete(file: &Path) -> Result<(), Failed> {
    let wants = file.with_file_name("sockets.target.wants");
    for path in [wants.join(SOCKET_UNIT).as_path(), file] {
        state::remove(path)
            .map_err(|error| Failed::new(format!("cannot remove {}: {error}", path.display())))?;
    }
    let _ = fs::remove_dir(wants);
    Ok(())
}
