//! The supervisors of a host without systemd: which one runs, and the files that `install --supervise` writes for it.

mod detect;
pub mod openrc;
pub mod script;
pub mod service;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use detect::{best, runit_scans, s6_scans};

use crate::managed::Managed;
use crate::place::World;
use crate::systemd::LAST_LINES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A service of OpenRC.
    Openrc,
    /// A directory for runsvdir(8).
    Runit,
    /// A directory for s6-svscan(8).
    S6,
    /// This program.
    Plain,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Openrc, Kind::Runit, Kind::S6, Kind::Plain];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Openrc => "openrc",
            Kind::Runit => "runit",
            Kind::S6 => "s6",
            Kind::Plain => "plain",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[derive(Debug, Clone)]
pub struct Files {
    /// `~/.config/docker-rootless`.
    pub config: PathBuf,
    /// `~/.local/state/docker-rootless`: what is the same on every boot must not be below `/run`.
    pub state: PathBuf,
}

impl Files {
    /// Those of this user; `None` without a home.
    pub fn of(world: &World) -> Option<Self> {
        Some(Self {
            config: world.config_home()?.join("docker-rootless"),
            state: world.state_home()?.join("docker-rootless"),
        })
    }

    pub fn script(&self) -> PathBuf {
        self.config.join("run")
    }

    /// The user's own settings, which the script reads.
    pub fn settings(&self) -> PathBuf {
        self.config.join("env")
    }

    /// Whether the daemon is a node of a swarm ([`crate::swarm`]); the script reads it before the settings.
    pub fn swarm(&self) -> PathBuf {
        self.config.join("swarm")
    }

    pub fn record(&self) -> PathBuf {
        self.config.join("supervisor")
    }

    /// Lock and pid of our own supervisor.
    pub fn pid(&self) -> PathBuf {
        self.state.join("supervise.pid")
    }

    /// The log of our own supervisor; the logger of a service gets a directory.
    pub fn log(&self) -> PathBuf {
        self.state.join("docker.log")
    }

    /// The daemon's last words, and the file that they are in. A log that is not the newest is of another kind of
    /// supervisor, which was there before.
    pub fn last_log(&self) -> Option<(PathBuf, String)> {
        let logs = [self.log(), self.log_dir().join("current")].into_iter();
        let written = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let newest = logs.filter(|path| path.is_file()).max_by_key(written)?;
        let text = String::from_utf8_lossy(&hostenv::file::read(&newest).ok()?).into_owned();
        Some((newest, last_lines(&text, LAST_LINES)))
    }

    pub fn log_dir(&self) -> PathBuf {
        self.state.join("log")
    }
}

/// An installation: its kind, and the file or directory that it consists of besides ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub place: PathBuf,
}

impl Record {
    pub fn read(files: &Files) -> Option<Self> {
        let text = hostenv::file::text(&files.record()).ok()?;
        let (kind, place) = text.trim_end_matches('\n').split_once(' ')?;
        Some(Self { kind: Kind::from_name(kind)?, place: place.into() })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, files: &Files) -> io::Result<()> {
        fs::write(files.record(), format!("{} {}\n", self.kind.name(), self.place.display()))
    }
}

/// Those of the installation that is here, whatever runs now, with another launcher.
pub fn wanted_files(
    world: &World,
    launcher: &Path,
    runtime_dir: &Path,
    without_iptables: bool,
    user: &str,
) -> Vec<Managed> {
    let Some((files, record)) = installed(world) else { return Vec::new() };
    let mut all = vec![script::wanted(world, &files, launcher, runtime_dir, without_iptables)];
    all.extend(service_files(world, &files, &record, user));
    all
}

/// The files of the installation that is here, and its kind.
pub fn installed_files(world: &World) -> Vec<(Kind, PathBuf)> {
    let Some((files, record)) = installed(world) else { return Vec::new() };
    let service = service_files(world, &files, &record, "").into_iter().map(|file| file.path);
    std::iter::once(files.script()).chain(service).map(|path| (record.kind, path)).collect()
}

fn installed(world: &World) -> Option<(Files, Record)> {
    let files = Files::of(world)?;
    let record = Record::read(&files)?;
    Some((files, record))
}

pub fn service_files(world: &World, files: &Files, record: &Record, user: &str) -> Vec<Managed> {
    let place = &record.place;
    match record.kind {
        Kind::Openrc => vec![openrc::wanted(world, files, place, user)],
        // Each keeps ten files of 1 MB, with the time of each line.
        Kind::Runit => service::logged(world, files, place, "svlogd -tt"),
        Kind::S6 => service::logged(world, files, place, "s6-log -b n10 s1000000 T"),
        Kind::Plain => Vec::new(),
    }
}

/// Whether the daemon is one of `install --supervise`.
pub fn is_installed(world: &World) -> bool {
    installed(world).is_some()
}

/// The end of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_end_of_the_newest_log() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { config: dir.path().to_owned(), state: dir.path().to_owned() };
        assert_eq!(files.last_log(), None);
        let current = files.log_dir().join("current");
        fs::create_dir(files.log_dir()).unwrap();
        fs::write(&current, "of another kind\n").unwrap();
        let file = fs::File::options().write(true).open(&current).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(files.last_log(), Some((current, "of another kind".to_owned())));
        let text: Vec<String> = (0..=LAST_LINES).map(|number| number.to_string()).collect();
        fs::write(files.log(), text.join("\n")).unwrap();
        assert_eq!(files.last_log(), Some((files.log(), text[1..].join("\n"))));
    }
}
