//! What dockerd (20.10 to 29) and rootlesskit make in their directories: by these marks a directory is known to be
//! theirs, and by these names what is in it is told from what somebody else has put there.
//!
//! A name alone proves nothing: `tmp`, `volumes` and `network` may be anybody's. So a directory counts as dockerd's only
//! if something is in it that nobody else makes ([`Kind::proofs`]), and then what has one of its names and the right type
//! goes. Everything else stays, and so do names of dockerd that are symbolic links: somebody has put the data elsewhere.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

/// Which of the daemon's directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--data-root`: images, containers, volumes.
    Data,
    /// `--exec-root`: what exists while the daemon runs.
    Exec,
    /// `--state-dir` of rootlesskit.
    State,
}

/// Makes a file system, and is nobody's.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

/// Directories of a data root. The storage drivers are those that Docker has had; `containerd` has the images of the
/// containerd image store and its mounts are in `rootfs`.
const DATA_DIRECTORIES: &str = "aufs btrfs builder buildkit containerd containers content devicemapper fuse-overlayfs image network \
    overlay overlay2 plugins policy rootfs runc runtimes swarm tmp tmp-old trust vfs volumes zfs";

const EXEC_DIRECTORIES: &str = "containerd libnetwork netns plugins swarm";
const EXEC_FILES: &str = "metrics.sock unmount-on-shutdown";

/// What RootlessKit, and ours, has ever made there.
const STATE_FILES: &str = "lock child_pid api.sock netns resolv.conf hosts .pasta-ready.pipe .pasta.sock .bp.sock .bp-ready.pipe \
    .s4nn.sock vpnkit-ethernet.sock";

/// What only dockerd makes, a star standing for one name.
const DATA_PROOFS: &str = "engine-id volumes/metadata.db network/files/local-kv.db containerd/daemon/io.containerd.metadata.v1.bolt \
    image/*/layerdb image/*/imagedb image/*/repositories.json image/identity-cache.db \
    buildkit/containerdmeta.db buildkit/cache.db buildkit/snapshots.db buildkit/history.db \
    buildkit/history_c8d.db plugins/storage/blobs swarm/docker-state.json overlay2/l fuse-overlayfs/l vfs/dir \
    btrfs/subvolumes";

const EXEC_PROOFS: &str = "containerd/daemon containerd/containerd.toml containerd/containerd.pid containerd/containerd.sock \
    runtime-runc/moby runtime-crun/moby metrics.sock";

impl Kind {
    const ALL: [(Kind, &str); 3] =
        [(Kind::Data, "data"), (Kind::Exec, "exec"), (Kind::State, "state")];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    pub(super) fn from_name(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind)
    }

    /// Who makes such a directory.
    pub(super) fn maker(self) -> &'static str {
        if self == Self::State { "rootlesskit" } else { "dockerd" }
    }

    fn proofs(self) -> &'static str {
        match self {
            Self::Data => DATA_PROOFS,
            Self::Exec => EXEC_PROOFS,
            Self::State => "lock",
        }
    }

    /// Whether the name is one of theirs; `directory` is what it is.
    fn knows(self, name: &str, directory: bool) -> bool {
        // Written aside before it gets its name; and what SIGUSR1 makes dockerd write.
        let dump = |name: &str| {
            (name.starts_with("goroutine-stacks-") || name.starts_with("daemon-data-"))
                && name.ends_with(".log")
        };
        match (self, directory) {
            (Self::Data, true) => is_in(DATA_DIRECTORIES, name),
            (Self::Data, false) => {
                name == "engine-id" || name.starts_with(".tmp-engine-id") || dump(name)
            }
            (Self::Exec, true) => is_in(EXEC_DIRECTORIES, name) || name.starts_with("runtime-"),
            (Self::Exec, false) => is_in(EXEC_FILES, name) || dump(name),
            (Self::State, directory) => !directory && is_in(STATE_FILES, name),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// Something in it proves whose it is.
    pub(super) proven: bool,
    /// What is theirs, in the order in which it has to go: the proofs last, so that a purge that was interrupted can be
    /// repeated.
    pub(super) ours: Vec<OsString>,
    /// What is not, sorted.
    pub(super) foreign: Vec<OsString>,
    /// Theirs by name, but links to elsewhere, sorted.
    pub(super) links: Vec<OsString>,
}

impl Inventory {
    /// Looks into a directory. An empty one is anybody's who asks.
    pub(super) fn of(dir: &Path, kind: Kind) -> io::Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let (name, kind_of_file) = (entry.file_name(), entry.file_type()?);
            let known = |directory| name.to_str().is_some_and(|name| kind.knows(name, directory));
            if name == OF_THE_FILE_SYSTEM {
            } else if kind_of_file.is_symlink() && (known(true) || known(false)) {
                found.links.push(name);
            } else if !kind_of_file.is_symlink() && known(kind_of_file.is_dir()) {
                found.ours.push(name);
            } else {
                found.foreign.push(name);
            }
        }
        found.ours.sort_by_key(|name| (rank(name), name.clone()));
        found.foreign.sort();
        found.links.sort();
        found.proven = found.is_bare() || kind.proofs().split(' ').any(|proof| exists(dir, proof));
        Ok(found)
    }

    pub(super) fn is_bare(&self) -> bool {
        self.ours.is_empty() && !self.is_shared()
    }

    /// Something in it is not theirs, or not there.
    pub(super) fn is_shared(&self) -> bool {
        !(self.foreign.is_empty() && self.links.is_empty())
    }
}

fn is_in(words: &str, name: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

fn rank(name: &OsString) -> u8 {
    match name.to_str() {
        Some("volumes") => 1,
        Some("network" | "lock") => 2,
        Some("engine-id") => 3,
        _ => 0,
    }
}

fn exists(dir: &Path, proof: &str) -> bool {
    match proof.split_once("/*/") {
        Some((above, below)) => {
            let entries = fs::read_dir(dir.join(above)).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path().join(below))
                .any(|path| path.symlink_metadata().is_ok())
        }
        None => dir.join(proof).symlink_metadata().is_ok(),
    }
}

pub(super) fn list(names: &[OsString]) -> String {
    const TOLD: usize = 8;
    let mut words: Vec<String> = names.iter().take(TOLD).map(crate::ui::name).collect();
    if names.len() > TOLD {
        words.push(format!("and {} more", names.len() - TOLD));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn dir_with(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
        }
        dir
    }

    fn names(list: &[OsString]) -> Vec<&str> {
        list.iter().map(|name| name.to_str().unwrap()).collect()
    }

    #[test]
    fn a_directory_is_dockerds_only_by_what_nobody_else_makes() {
        for (entries, proven) in [
            (&["tmp/x", "volumes/db/", "network/", "containers/"][..], false),
            (&["overlay2/x/f"], false),
            (&["image/x/y"], false),
            (&["engine-id"], true),
            (&["volumes/metadata.db", "mine"], true),
            (&["image/overlay2/layerdb/"], true),
            (&["fuse-overlayfs/l/"], true),
            (&["containerd/daemon/io.containerd.metadata.v1.bolt/meta.db"], true),
            (&[], true),
        ] {
            let dir = dir_with(entries);
            assert_eq!(
                Inventory::of(dir.path(), Kind::Data).unwrap().proven,
                proven,
                "{entries:?}"
            );
        }
        let dir = dir_with(&["plugins/x", "swarm/"]);
        assert!(!Inventory::of(dir.path(), Kind::Exec).unwrap().proven);
        assert!(!Inventory::of(dir.path(), Kind::State).unwrap().proven);
    }

    #[test]
    fn names_types_and_links_tell_whose_it_is() {
        let dir = dir_with(&[
            "engine-id",
            "network/files/local-kv.db",
            "volumes/",
            "overlay2/l/",
            "buildkit",
            "mine/",
            "lost+found/",
            "goroutine-stacks-2024.log",
        ]);
        symlink("/elsewhere", dir.path().join("image")).unwrap();
        symlink("/elsewhere", dir.path().join("other")).unwrap();
        let found = Inventory::of(dir.path(), Kind::Data).unwrap();
        assert_eq!(
            names(&found.ours),
            ["goroutine-stacks-2024.log", "overlay2", "volumes", "network", "engine-id"]
        );
        // A file is no build cache.
        assert_eq!(names(&found.foreign), ["buildkit", "mine", "other"]);
        assert_eq!(names(&found.links), ["image"]);
        assert!(found.is_shared() && !found.is_bare());
    }

    #[test]
    fn kinds_have_names() {
        for (kind, name) in Kind::ALL {
            assert_eq!((kind.name(), Kind::from_name(name)), (name, Some(kind)));
        }
        assert_eq!(Kind::from_name("x"), None);
    }
}
