//! `nsenter`: a program in the namespaces of the running daemon, for debugging.
//!
//! The user and the mount namespace of rootlesskit's child are entered, and its network namespace unless that is
//! detached: then the child shares the host's, which a user could not enter. The detached one is reached from within,
//! by `nsenter -n$ROOTLESSKIT_STATE_DIR/netns`. The `ROOTLESSKIT_…` variables are those of the child.
//!
//! The credentials stay as they are (the user is root in the daemon's user namespace), so does the working directory.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use hostenv::state_dir;
use nix::sched::{CloneFlags, setns};

use crate::run::Failed;
use doctor::place::World;
use doctor::{supervisor, vars};

pub(crate) fn run(world: &World, words: &[OsString]) -> Result<Infallible, Failed> {
    let none = "neither XDG_RUNTIME_DIR nor HOME is set, so the daemon cannot be found\n\
                hint: export XDG_RUNTIME_DIR=/run/user/UID";
    let runtime_dir = world.runtime_dir().ok_or_else(|| Failed::new(none))?;
    let dir = world.state_dir(&runtime_dir);
    let start = if supervisor::is_installed(world) {
        "dockerd-rootless-setuptool.sh install --supervise"
    } else {
        "systemctl --user start docker.service"
    };
    let child = state_dir::child(&dir, &world.at("proc")).ok_or_else(|| {
        Failed::new(format!(
            "the rootless daemon is not running: rootlesskit has no running child in {}\n\
             hint: start it: {start}",
            dir.display()
        ))
    })?;
    let mut kinds = vec![("user", CloneFlags::CLONE_NEWUSER), ("mnt", CloneFlags::CLONE_NEWNS)];
    if !dir.join("netns").exists() {
        kinds.push(("net", CloneFlags::CLONE_NEWNET));
    }
    enter(&world.at(&format!("proc/{}/ns", child.pid)), &kinds)?;

    let shell = world.env.nonempty(vars::SHELL).unwrap_or("/bin/sh".as_ref()).to_owned();
    let (program, args) =
        words.split_first().map_or((&shell, &[][..]), |(program, args)| (program, args));
    let mut command = Command::new(program);
    command.args(args).envs(child.variables);
    let error = command.exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    let text = format!("cannot run {}: {error}", program.to_string_lossy());
    Err(Failed { text, code })
}

/// Opens all namespaces, then enters them: the first gives the right to enter the others, and the second hides `/proc`.
fn enter(dir: &Path, kinds: &[(&str, CloneFlags)]) -> Result<(), Failed> {
    let failed = |kind: &str, error: &dyn std::fmt::Display| {
        Failed::new(format!(
            "cannot enter the {kind} namespace {}: {error}",
            dir.join(kind).display()
        ))
    };
    let cwd = std::env::current_dir();
    let mut files = Vec::new();
    for (kind, flag) in kinds {
        let file = File::open(dir.join(kind)).map_err(|error| failed(kind, &error))?;
        files.push((kind, *flag, file));
    }
    for (kind, flag, file) in files {
        setns(file, flag).map_err(|error| failed(kind, &error))?;
    }
    // Entering a mount namespace leads to its root (setns(2)); if the directory is not there, that is where we are.
    if let Ok(cwd) = cwd {
        let _ = std::env::set_current_dir(cwd);
    }
    Ok(())
}
