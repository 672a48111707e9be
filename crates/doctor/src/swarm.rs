//! The file that makes the daemon a node of a swarm ([`hostenv::swarm`]). `install --swarm` writes it.
//!
//! For systemd it is a drop-in of the unit, for other supervisors a file of variables that their script reads. It is a file
//! of its own, so that an `install` without the option leaves it alone: running the tool again after an upgrade must not
//! take a node out of its swarm.

use std::path::{Path, PathBuf};

use hostenv::swarm::Swarm;
use hostenv::vars::DOCKERD_ROOTLESS_SWARM;
use serde::Deserialize;

use crate::header::HEADER;
use crate::managed::Managed;
use crate::place::World;
use crate::supervisor::Files;
use crate::unit_file::drop_ins;

/// The drop-in; `None` without a home.
pub fn drop_in(world: &World) -> Option<PathBuf> {
    Some(drop_ins(&world.unit()?).join("swarm.conf"))
}

/// The file of variables for other supervisors; `None` without a home.
pub fn variables(world: &World) -> Option<PathBuf> {
    Some(Files::of(world)?.swarm())
}

/// The text of the file, which is a drop-in if its name ends in `.conf`. No character of a value means anything to systemd or
/// a shell.
pub fn wanted(path: PathBuf, swarm: &Swarm) -> Managed {
    let is_drop_in = path.extension().is_some_and(|end| end == "conf");
    let start = if is_drop_in { "[Service]\nEnvironment=" } else { "" };
    let text = format!(
        "{HEADER}\
         # To change the value, run: dockerd-rootless-setuptool.sh install --swarm=VALUE\n\
         # To remove this file, run: dockerd-rootless-setuptool.sh install --swarm=\n\
         {start}{DOCKERD_ROOTLESS_SWARM}={swarm}\n"
    );
    Managed::new(path, &text)
}

/// The value in such a file, whoever wrote it last.
pub fn read(path: &Path) -> Option<Swarm> {
    let text = hostenv::file::text(path).ok()?;
    let value = |line: &str| {
        let line = line.trim();
        let assignment = line.strip_prefix("Environment=").unwrap_or(line);
        let value = assignment.strip_prefix(DOCKERD_ROOTLESS_SWARM)?.strip_prefix('=')?;
        Some(value.to_owned())
    };
    text.lines().rev().find_map(value)?.parse().ok()
}

/// The swarm that the daemon is in, as dockerd keeps it in its data directory (`nodeStartConfig` in daemon/cluster of moby).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Membership {
    /// The address and port that the other nodes use; empty if `docker swarm join` named none.
    pub advertise_addr: String,
    /// The address for packets between containers; empty if it is that of `advertise_addr`.
    pub data_path_addr: String,
    /// The manager to which the daemon joined; empty if it created the swarm.
    pub remote_addr: String,
    /// What `docker swarm init` named for overlay networks.
    pub default_address_pool: Option<Vec<String>>,
}

impl Membership {
    /// `None` if the daemon is in no swarm.
    pub fn read(world: &World) -> Option<Self> {
        let file = world.data_root()?.join("swarm/docker-state.json");
        serde_json::from_str(&hostenv::file::text(&file).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::State;

    #[test]
    fn what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let swarm: Swarm =
            "fd00::1,peers=fd00::/64+192.0.2.0/24,data-path-port=5000".parse().unwrap();
        for name in ["swarm.conf", "swarm"] {
            let file = wanted(dir.path().join(name), &swarm);
            assert_eq!(file.text.contains("[Service]\nEnvironment="), name == "swarm.conf");
            std::fs::write(&file.path, &file.text).unwrap();
            assert_eq!(file.state().unwrap(), State::Current);
            assert_eq!(read(&file.path), Some(swarm.clone()));
        }
        assert_eq!(read(&dir.path().join("none")), None);
    }
}
