//! Where things are: the directories of the user, the files that `install` writes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hostenv::state_dir::Occupant;
use hostenv::{Env, vars};

/// Everything is looked up below `root`, which is `/` outside of tests; paths that the environment names are taken as
/// they are.
#[derive(Debug, Clone)]
pub struct World {
    /// Root of `/proc`, `/sys`, `/etc`, `/run`, `/dev`.
    pub root: PathBuf,
    pub env: Env,
    pub uid: u32,
    /// Where this program is installed; its companions may lie beside it.
    pub own_dir: Option<PathBuf>,
}

impl World {
    pub fn current() -> Self {
        let exe = std::env::current_exe().ok();
        Self {
            root: "/".into(),
            env: Env::current(),
            uid: nix::unistd::geteuid().as_raw(),
            own_dir: exe.and_then(|exe| exe.parent().map(Path::to_owned)),
        }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file of the system, trimmed; `None` if it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        hostenv::file::text(&self.at(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A kernel parameter that is a number.
    pub fn sysctl(&self, key: &str) -> Option<u64> {
        self.text(&format!("proc/sys/{}", key.replace('.', "/")))?.parse().ok()
    }

    pub fn find(&self, program: &str) -> Option<PathBuf> {
        self.env.find_program(program)
    }

    /// A program in PATH or where programs of administrators are.
    pub fn find_with_sbin(&self, program: &str) -> Option<PathBuf> {
        let sbin = ["usr/sbin", "sbin"].map(|dir| self.at(dir).join(program));
        self.find(program)
            .or_else(|| sbin.into_iter().find(|file| hostenv::path::is_executable(file)))
    }

    /// A companion: in PATH, or beside this program.
    pub fn find_companion(&self, program: &str) -> Option<PathBuf> {
        let beside = || self.own_dir.as_ref().map(|dir| dir.join(program));
        self.find(program).or_else(|| beside().filter(|file| hostenv::path::is_executable(file)))
    }

    /// `/run/user/UID`, where logind(8) puts the runtime directory.
    pub fn logind_dir(&self) -> PathBuf {
        self.at(&format!("run/user/{}", self.uid))
    }

    /// `$XDG_CONFIG_HOME`, by default `~/.config`.
    pub fn config_home(&self) -> Option<PathBuf> {
        hostenv::dirs::config_home(&self.env).ok()
    }

    /// `$XDG_STATE_HOME`, by default `~/.local/state`.
    pub fn state_home(&self) -> Option<PathBuf> {
        let set = self.env.nonempty(crate::vars::XDG_STATE_HOME).map(PathBuf::from);
        let usual = || Some(hostenv::dirs::home(&self.env).ok()?.join(".local/state"));
        set.filter(|dir| dir.is_absolute()).or_else(usual)
    }

    /// This program, by the name that is documented if it has that.
    pub fn own_program(&self) -> PathBuf {
        let dir = self.own_dir.as_deref().unwrap_or(Path::new("/usr/bin"));
        let script = dir.join("dockerd-rootless-setuptool.sh");
        if script.exists() { script } else { dir.join("dockerd-rootless-setuptool") }
    }

    pub fn unit(&self) -> Option<PathBuf> {
        Some(self.config_home()?.join("systemd/user/docker.service"))
    }

    pub fn socket_unit(&self) -> Option<PathBuf> {
        Some(self.unit()?.with_file_name(crate::names::SOCKET_UNIT))
    }

    /// The file of the daemon's own configuration, and its text in UTF-8.
    pub fn daemon_config(&self) -> Option<(PathBuf, Vec<u8>)> {
        let file = self.config_home()?.join("docker/daemon.json");
        let bytes = hostenv::file::read(&file).ok()?;
        Some((file, hostenv::file::without_byte_order_mark(bytes)))
    }

    pub fn daemon_json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.daemon_config()?.1).ok()
    }

    /// Why daemon.json is there and says nothing: it cannot be read, or dockerd would not understand it either.
    pub fn daemon_json_problem(&self) -> Option<String> {
        let file = self.config_home()?.join("docker/daemon.json");
        let bytes = match hostenv::file::read(&file) {
            Ok(bytes) => hostenv::file::without_byte_order_mark(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => return Some(format!("cannot read {}: {error}", file.display())),
        };
        // dockerd accepts an empty file.
        if bytes.trim_ascii().is_empty() {
            return None;
        }
        let parsed = serde_json::from_slice::<serde_json::Value>(&bytes);
        parsed.err().map(|error| format!("cannot parse {}: {error}", file.display()))
    }

    /// Where the daemon keeps images and containers unless daemon.json says otherwise.
    pub fn default_data_root(&self) -> Option<PathBuf> {
        Some(hostenv::dirs::data_home(&self.env).ok()?.join("docker"))
    }

    /// Where the daemon keeps images and containers.
    pub fn data_root(&self) -> Option<PathBuf> {
        let config = self.daemon_json().unwrap_or_default();
        // dockerd refuses a relative one.
        let configured = config["data-root"].as_str().map(PathBuf::from);
        configured.filter(|root| root.is_absolute()).or_else(|| self.default_data_root())
    }

    /// The state directory of the launcher's rootlesskit.
    pub fn state_dir(&self, runtime_dir: &Path) -> PathBuf {
        let set = self.env.nonempty(vars::DOCKERD_ROOTLESS_STATE_DIR);
        set.map_or_else(|| runtime_dir.join("dockerd-rootless"), PathBuf::from)
    }

    /// Who runs there.
    pub fn occupant(&self) -> Occupant {
        self.runtime_dir()
            .map_or(Occupant::Absent, |dir| Occupant::of(&self.state_dir(&dir), &self.at("proc")))
    }

    /// Whether that rootlesskit runs. Its daemon may not answer yet.
    pub fn daemon_runs(&self) -> bool {
        self.occupant().is_running()
    }

    /// The directory of the docker CLI's configuration.
    pub fn cli_config(&self) -> Option<PathBuf> {
        let set = self.env.nonempty(crate::vars::DOCKER_CONFIG).map(PathBuf::from);
        set.or_else(|| Some(hostenv::dirs::home(&self.env).ok()?.join(".docker")))
    }

    pub fn cli_json(&self) -> Option<serde_json::Value> {
        let file = self.cli_config()?.join("config.json");
        serde_json::from_slice(&hostenv::file::read(&file).ok()?).ok()
    }

    /// The runtime directory: `$XDG_RUNTIME_DIR`, else that of logind if there is one, else `~/.docker/run`.
    pub fn runtime_dir(&self) -> Option<PathBuf> {
        if let Some(dir) = self.env.nonempty(vars::XDG_RUNTIME_DIR) {
            return Some(dir.into());
        }
        let logind = self.logind_dir();
        if logind.is_dir() {
            return Some(logind);
        }
        Some(hostenv::dirs::home(&self.env).ok()?.join(".docker/run"))
    }
}

/// `unix:///run/user/1000/docker.sock`.
pub fn docker_host(runtime_dir: &Path) -> String {
    format!("unix://{}", runtime_dir.join("docker.sock").display())
}

/// The directory of a program, for PATH.
pub fn dir_of(program: &Path) -> &Path {
    program.parent().unwrap_or(Path::new("/usr/bin"))
}

pub fn name_of(program: &Path) -> &OsStr {
    program.file_name().unwrap_or(program.as_os_str())
}
