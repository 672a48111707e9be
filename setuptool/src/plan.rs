//! What `install` is going to do, under systemd and under the other supervisors, and the steps that both have.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use doctor::place::{World, docker_host};
use doctor::systemd::with_runtime_dir;
use doctor::vars;
use hostenv::shellwords::quoted;

use crate::run::{self, Failed};
use crate::swarm::Order;
use crate::ui::Ui;
use crate::write::Policy;

/// `docker version` asks a daemon that answers.
const VERSION_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) launcher: PathBuf,
    pub(crate) docker: PathBuf,
    pub(crate) rootlesskit: PathBuf,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) without_iptables: bool,
    pub(crate) socket: bool,
    pub(crate) swarm: Order,
    pub(crate) policy: Policy,
}

/// Shows that the docker command and the daemon understand each other.
pub(crate) fn version(ui: &mut Ui, world: &World, plan: &Plan) -> Result<(), Failed> {
    let host = docker_host(&plan.runtime_dir);
    let mut env = with_runtime_dir(world);
    env.set(hostenv::vars::DOCKER_HOST, &host);
    env.remove(vars::DOCKER_CONTEXT);
    let args = [OsStr::new("version")];
    let command = run::command_line(&plan.docker.to_string_lossy(), &args);
    ui.trace(&format!("{}={} {command}", hostenv::vars::DOCKER_HOST, quoted(host)));
    let status = run::shown(&plan.docker, &args, &env, true, VERSION_LIMIT)?;
    if status.success() {
        return Ok(());
    }
    let text = format!("the daemon is running, but `docker version` failed with {status}");
    Err(Failed { text, code: run::code_of(status) })
}

/// Makes a directory that only its owner can enter, with its parents.
pub(crate) fn make_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
