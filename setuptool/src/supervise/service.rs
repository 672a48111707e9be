//! Service directories of runit(8) and s6(7), which have the same form: `run`, and `log/run` for what it prints.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use doctor::managed::{self, Managed, State};
use doctor::supervisor::service::PROGRAMS;
use nix::fcntl::OFlag;

use crate::purge;
use crate::run::{self, Failed};
use crate::ui::Ui;
use crate::write::{self, Policy, Put};

/// What runsv(8) and s6-supervise(8) make.
const MADE: [&str; 4] = ["supervise", "log/supervise", "event", "log/event"];

/// The name under which a directory is out of the supervisor's sight.
pub(super) fn hidden(service: &Path) -> PathBuf {
    let name = service.file_name().unwrap_or_default().to_string_lossy();
    service.with_file_name(format!(".{name}.rootless"))
}

/// Makes the directory, complete before the supervisor sees it, or brings it up to date.
pub(super) fn put(
    ui: &mut Ui,
    service: &Path,
    files: &[Managed],
    policy: &Policy,
) -> Result<Done, Failed> {
    if exists(service) {
        let mut kept = false;
        for file in files {
            kept |= write::put(file, ui, policy)? == Put::Kept;
        }
        return Ok(Done { new: false, kept });
    }
    let new = hidden(service);
    dismantle(ui, service)?;
    for file in files {
        let name = file.path.strip_prefix(service).unwrap_or(&file.path);
        write::write(&file.clone().moved_to(new.join(name)))?;
    }
    fs::rename(&new, service).map_err(run::cannot("create", service))?;
    ui.info(&format!("Creating {}", service.display()));
    Ok(Done { new: true, kept: false })
}

pub(super) struct Done {
    pub(super) new: bool,
    pub(super) kept: bool,
}

pub(super) fn exists(service: &Path) -> bool {
    fs::symlink_metadata(service).is_ok()
}

/// Whether a supervisor runs for the directory: it reads a FIFO, and opening that for writing alone succeeds only while
/// somebody reads (fifo(7)). Their locks differ: runsv's is that of flock(2), s6-supervise's that of fcntl(2).
pub(super) fn is_supervised(service: &Path) -> bool {
    let mut options = fs::File::options();
    options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    options.open(service.join("supervise/control")).is_ok()
}

/// Removes what `install` and the supervisor made in the [`hidden`] directory of a service. If that is not all, because
/// there are files of the user's or the directory is a link, the rest is kept under another name.
pub(super) fn dismantle(ui: &mut Ui, service: &Path) -> Result<(), Failed> {
    let hidden = hidden(service);
    let shown = hidden.display();
    let failed = |error: io::Error| Failed::new(format!("cannot remove {shown}: {error}"));
    match fs::symlink_metadata(&hidden) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.is_dir() => {
            for file in PROGRAMS.map(|name| hidden.join(name)) {
                if matches!(managed::state(&file), Ok(State::Outdated)) {
                    fs::remove_file(&file).map_err(failed)?;
                }
            }
            for dir in MADE.map(|name| hidden.join(name)) {
                purge::remove_tree(&dir).map_err(failed)?;
            }
            let _ = fs::remove_dir(hidden.join("log"));
            match fs::remove_dir(&hidden) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    return Err(failed(error));
                }
                Ok(()) => return Ok(()),
                Err(_) => {}
            }
        }
        Ok(_) => {}
    }
    // A name without a dot in front would be a service.
    let name = service.file_name().unwrap_or_default().to_string_lossy();
    let kept = write::free_name(&service.with_file_name(format!(".{name}")), "bak");
    fs::rename(&hidden, &kept).map_err(failed)?;
    ui.info(&format!("Your own part of {} is kept in {}", service.display(), kept.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service directory as it is after some time under runsv(8).
    fn used(dir: &Path) -> PathBuf {
        let world = doctor::place::World {
            root: "/".into(),
            env: [("HOME", "/h")].into_iter().collect(),
            uid: 1000,
            own_dir: None,
        };
        let service = dir.join("docker");
        let files = doctor::supervisor::service::wanted(&world, &service, "exec svlogd -tt /x");
        let policy = Policy { force: false, printer: String::new() };
        assert!(put(&mut Ui::silent(), &service, &files, &policy).unwrap().new);
        for name in MADE {
            fs::create_dir(service.join(name)).unwrap();
            fs::write(service.join(name).join("x"), "").unwrap();
        }
        service
    }

    #[test]
    fn a_service_directory_goes_but_for_what_the_user_put_there() {
        let mut ui = Ui::silent();
        let dir = tempfile::tempdir().unwrap();
        let service = used(dir.path());
        fs::rename(&service, hidden(&service)).unwrap();
        dismantle(&mut ui, &service).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let service = used(dir.path());
        let run = fs::read_to_string(service.join("run")).unwrap().replace("exec 2", "nice 2");
        fs::write(service.join("run"), &run).unwrap();
        fs::write(service.join("finish"), "mine").unwrap();
        fs::rename(&service, hidden(&service)).unwrap();
        dismantle(&mut ui, &service).unwrap();
        let kept = dir.path().join(".docker.bak");
        assert_eq!(fs::read_to_string(kept.join("run")).unwrap(), run);
        assert_eq!(fs::read_to_string(kept.join("finish")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 2);

        // A link, as is usual with runit, and what it leads to.
        let service = used(dir.path());
        let real = dir.path().join("real");
        fs::rename(&service, &real).unwrap();
        std::os::unix::fs::symlink("real", hidden(&service)).unwrap();
        dismantle(&mut ui, &service).unwrap();
        assert!(real.join("run").exists() && real.join("supervise/x").exists());
        assert_eq!(fs::read_link(dir.path().join(".docker.bak.1")).unwrap(), Path::new("real"));
    }

    #[test]
    fn a_supervisor_is_who_reads_the_fifo() {
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
