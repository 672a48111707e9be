//! Service directories of runit(8) and s6(7), which have the same form: `run`, and `log/run` for what it prints.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use env::vars;
use nix::fcntl::OFlag;

use crate::doctor::quoted;
use crate::place::World;
use crate::run::Failed;
use crate::unit::{self, Written};

/// What the first lines of every file of ours say.
pub(super) const HEADER: &str = "#!/bin/sh\n\
    # Written by dockerd-rootless-setuptool.sh, which replaces it at the next install.\n";

/// The variables that tell our supervisor where its files are, as lines of a shell.
pub(super) fn exports(world: &World) -> String {
    let names = [vars::HOME, vars::XDG_CONFIG_HOME, crate::vars::XDG_STATE_HOME];
    let set = names.iter().filter_map(|name| Some((name, world.env.nonempty(name)?)));
    set.map(|(name, value)| format!("export {name}={}\n", quoted(&value.to_string_lossy())))
        .collect()
}

/// Writes an executable file.
///
/// # Errors
/// See [`unit::write`].
pub(super) fn write_program(path: &Path, text: &str) -> Result<Written, Failed> {
    let written = unit::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(|error| Failed::new(format!("cannot change {}: {error}", path.display())))?;
    Ok(written)
}

/// The name under which a directory is out of the supervisor's sight.
pub(super) fn hidden(service: &Path) -> PathBuf {
    let name = service.file_name().unwrap_or_default().to_string_lossy();
    service.with_file_name(format!(".{name}.rootless"))
}

/// Makes the directory, complete before the supervisor sees it, or brings it up to date. True if it is new.
///
/// # Errors
/// It cannot be written, or something else is there.
pub(super) fn put(world: &World, service: &Path, logger: &str) -> Result<bool, Failed> {
    let program = quoted(&world.own_program().to_string_lossy());
    let run = format!("{HEADER}{}exec 2>&1\nexec {program} supervise once\n", exports(world));
    let log = format!("{HEADER}{logger}\n");
    let files = |dir: &Path| [(dir.join("run"), run.clone()), (dir.join("log/run"), log.clone())];
    if service.exists() {
        if !is_ours(service) {
            return Err(Failed::new(format!(
                "{} is there and was not made by this tool\nhint: remove it or move it away",
                service.display()
            )));
        }
        for (path, text) in files(service) {
            write_program(&path, &text)?;
        }
        return Ok(false);
    }
    let new = hidden(service);
    clear(&new)?;
    for (path, text) in files(&new) {
        write_program(&path, &text)?;
    }
    fs::rename(&new, service)
        .map_err(|error| Failed::new(format!("cannot make {}: {error}", service.display())))?;
    Ok(true)
}

/// Whether the service is one of ours.
pub(super) fn is_ours(service: &Path) -> bool {
    fs::read_to_string(service.join("run")).is_ok_and(|text| text.starts_with(HEADER))
}

/// Whether a supervisor runs for the directory: it reads a FIFO, and opening that for writing alone succeeds only while
/// somebody reads (fifo(7)). Their locks differ: runsv's is that of flock(2), s6-supervise's that of fcntl(2).
pub(super) fn is_supervised(service: &Path) -> bool {
    let mut options = fs::File::options();
    options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    options.open(service.join("supervise/control")).is_ok()
}

/// Removes what is hidden.
///
/// # Errors
/// Something in there cannot be removed.
pub(super) fn clear(hidden: &Path) -> Result<(), Failed> {
    match fs::remove_dir_all(hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failed::new(format!("cannot remove {}: {error}", hidden.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f019_a_supervisor_is_who_reads_the_fifo() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_supervised(dir.path()));
        fs::create_dir(dir.path().join("supervise")).unwrap();
        let fifo = dir.path().join("supervise/control");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!is_supervised(dir.path()));
        let reader = fs::File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&fifo)
            .unwrap();
        assert!(is_supervised(dir.path()));
        drop(reader);
        assert!(!is_supervised(dir.path()));
    }
}
