//! The user: who it is, where home is, and what a login session brings.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hostenv::{user, vars};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use crate::place::World;

/// `$HOME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    Unset,
    Missing(PathBuf),
    Relative(PathBuf),
    /// It cannot be written: it belongs to the user with this id.
    Foreign(PathBuf, u32),
    /// The same, though it is the home that the user database has.
    Withheld(PathBuf, u32),
    /// It cannot be written though it is the user's own.
    ReadOnly(PathBuf),
    Fine(PathBuf),
}

/// `$XDG_RUNTIME_DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeState {
    /// Unset, and there is none to be found.
    Unset,
    /// Unset, but logind made one for this user.
    Found,
    Relative,
    /// It is no directory.
    Missing,
    /// It belongs to the user with this id.
    Foreign(u32),
    /// It cannot be written.
    ReadOnly,
    /// Others may enter it; its mode.
    Open(u32),
    Fine,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// What will be used.
    pub dir: Option<PathBuf>,
    pub state: RuntimeState,
    /// logind's directory of this user, if it is there.
    pub logind: Option<PathBuf>,
    /// It is below `/tmp`, where others may make directories first.
    pub below_tmp: bool,
}

impl Runtime {
    pub fn usable(&self) -> Option<&Path> {
        use RuntimeState::{Fine, Found, Open};
        self.dir.as_deref().filter(|_| matches!(self.state, Fine | Found | Open(_)))
    }
}

/// A directory for files of the user, where the user may not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub dir: PathBuf,
    /// Where it is when links are followed.
    pub real: PathBuf,
    pub why: WhyClosed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyClosed {
    /// Its file system is read-only.
    ReadOnly,
    /// Links lead out of the home, where it may be for others.
    Outside,
    /// It is the user's own, with a mode that does not allow it.
    Mode,
    /// It is somebody else's, below the home.
    Foreign,
}

#[derive(Debug, Clone)]
pub struct Account {
    pub uid: u32,
    /// The login name, or the uid when nobody knows the user.
    pub name: String,
    /// The groups of this process, the effective one included.
    pub groups: Vec<u64>,
    /// The user is in `/etc/passwd`, where usermod(8) finds it.
    pub local: bool,
    pub home: Home,
    /// Directories below it, for files that install and the docker command write, where the user may not.
    pub closed: Vec<Closed>,
    pub runtime: Runtime,
    /// The host was booted with systemd (sd_booted(3)).
    pub systemd: bool,
    /// The socket of the user's bus is there.
    pub bus: bool,
    /// systemd knows a `dbus.socket` for users.
    pub bus_unit: bool,
    /// The user's manager runs without a session (loginctl(1), enable-linger).
    pub linger: bool,
    /// This process runs in the group of a system unit.
    pub system_unit: bool,
}

impl Account {
    pub fn gather(world: &World) -> Self {
        let known = user::lookup_uid(&world.root, world.uid, &world.env);
        let own_home = known.as_ref().ok().map(|user| user.home.clone());
        let name = known.map_or_else(|_| world.uid.to_string(), |user| user.name);
        let passwd = hostenv::file::read(&world.at("etc/passwd")).unwrap_or_default();
        let runtime = runtime(world);
        let dir = runtime.usable();
        let linger = world.at("var/lib/systemd/linger").join(&name);
        let bus_units =
            ["usr/lib", "lib", "etc"].map(|dir| format!("{dir}/systemd/user/dbus.socket"));
        let group = world.text("proc/self/cgroup").unwrap_or_default();
        Self {
            uid: world.uid,
            groups: groups(&world.text("proc/self/status").unwrap_or_default()),
            local: passwd.split(|b| *b == b'\n').any(|line| {
                line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
            }),
            home: home(world, own_home.as_deref()),
            closed: closed(world),
            systemd: world.at("run/systemd/system").is_dir(),
            bus: dir.is_some_and(|dir| dir.join("bus").exists()) || named_bus(world),
            bus_unit: bus_units.iter().any(|unit| world.at(unit).exists()),
            linger: linger.exists(),
            system_unit: group.lines().any(|line| line.contains(":/system.slice/")),
            name,
            runtime,
        }
    }
}

/// The lines of proc_pid_status(5): real, effective, saved and file system group; supplementary groups.
fn groups(status: &str) -> Vec<u64> {
    let numbers = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>()
    };
    let mut groups = numbers("Groups:");
    groups.extend(numbers("Gid:").get(1));
    groups
}

fn home(world: &World, own: Option<&Path>) -> Home {
    match world.env.nonempty(vars::HOME).map(PathBuf::from) {
        None => Home::Unset,
        Some(home) if !home.is_absolute() => Home::Relative(home),
        Some(home) if !home.is_dir() => Home::Missing(home),
        Some(home) if !writable(&home) => match fs::metadata(&home) {
            Ok(meta) if meta.uid() != world.uid && own == Some(&home) => {
                Home::Withheld(home, meta.uid())
            }
            Ok(meta) if meta.uid() != world.uid => Home::Foreign(home, meta.uid()),
            _ => Home::ReadOnly(home),
        },
        Some(home) => Home::Fine(home),
    }
}

fn closed(world: &World) -> Vec<Closed> {
    let unit = world.unit();
    let places = [unit.as_deref().and_then(Path::parent).map(Path::to_owned), world.cli_config()];
    let existing = |dir: PathBuf| dir.ancestors().find(|dir| dir.exists()).map(Path::to_owned);
    let Some(home) = world.env.nonempty(vars::HOME).map(PathBuf::from) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> = places.into_iter().flatten().filter_map(existing).collect();
    // The home itself has a finding of its own, and what lies elsewhere may be there for others.
    dirs.retain(|dir| dir.starts_with(&home) && *dir != home);
    dirs.dedup();
    let real_home = fs::canonicalize(&home).unwrap_or(home);
    let closed = dirs.into_iter().filter_map(|dir| {
        let errno = may_write(&dir).err()?;
        let real = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
        let owner = fs::metadata(&real).ok().map(|meta| meta.uid());
        let why = why_closed(errno, &real, &real_home, owner == Some(world.uid));
        Some(Closed { dir, real, why })
    });
    closed.collect()
}

fn why_closed(errno: Errno, real: &Path, home: &Path, own: bool) -> WhyClosed {
    match errno {
        Errno::EROFS => WhyClosed::ReadOnly,
        _ if own => WhyClosed::Mode,
        _ if real == home || !real.starts_with(home) => WhyClosed::Outside,
        _ => WhyClosed::Foreign,
    }
}

fn runtime(world: &World) -> Runtime {
    let logind = Some(world.logind_dir()).filter(|dir| dir.is_dir());
    let set = world.env.nonempty(vars::XDG_RUNTIME_DIR).map(PathBuf::from);
    let state = match (&set, &logind) {
        (Some(dir), _) => runtime_state(dir, world.uid),
        (None, Some(dir)) if runtime_state(dir, world.uid) == RuntimeState::Fine => {
            RuntimeState::Found
        }
        (None, _) => RuntimeState::Unset,
    };
    let dir = world.runtime_dir();
    let below_tmp = dir.as_ref().is_some_and(|dir| dir.starts_with(world.at("tmp")));
    Runtime { dir, state, logind, below_tmp }
}

fn runtime_state(dir: &Path, uid: u32) -> RuntimeState {
    match fs::metadata(dir) {
        _ if !dir.is_absolute() => RuntimeState::Relative,
        Ok(meta) if !meta.is_dir() => RuntimeState::Missing,
        Err(_) => RuntimeState::Missing,
        Ok(meta) if meta.uid() != uid => RuntimeState::Foreign(meta.uid()),
        Ok(_) if !writable(dir) => RuntimeState::ReadOnly,
        Ok(meta) if meta.mode() & 0o077 != 0 => RuntimeState::Open(meta.mode() & 0o7777),
        Ok(_) => RuntimeState::Fine,
    }
}

pub(super) fn writable(path: &Path) -> bool {
    may_write(path).is_ok()
}

fn may_write(path: &Path) -> nix::Result<()> {
    faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS)
}

/// Whether the socket that `DBUS_SESSION_BUS_ADDRESS` names is there: `unix:path=/run/user/1000/bus,guid=…`.
fn named_bus(world: &World) -> bool {
    let address = world.env.text(crate::vars::DBUS_SESSION_BUS_ADDRESS).ok().flatten();
    let path = address.and_then(|address| address.strip_prefix("unix:path=")?.split(',').next());
    path.is_some_and(|path| Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_home_and_anothers_is_given_back() {
        let why = |errno, real: &str, own| why_closed(errno, Path::new(real), "/h".as_ref(), own);
        assert_eq!(why(Errno::EACCES, "/h/.config", false), WhyClosed::Foreign);
        assert_eq!(why(Errno::EACCES, "/h/.config", true), WhyClosed::Mode);
        assert_eq!(why(Errno::EACCES, "/h", false), WhyClosed::Outside);
        assert_eq!(why(Errno::EACCES, "/hh/config", false), WhyClosed::Outside);
        assert_eq!(why(Errno::EACCES, "/hh/config", true), WhyClosed::Mode);
        assert_eq!(why(Errno::EROFS, "/h/.config", true), WhyClosed::ReadOnly);
        assert_eq!(why(Errno::EROFS, "/store/x", false), WhyClosed::ReadOnly);
    }
}
