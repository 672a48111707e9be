//! The parent pass: check, decide, become rootlesskit.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use hostenv::Env;
use hostenv::routes::Routes;
use hostenv::selinux::Selinux;
use hostenv::state_dir::Occupant;
use hostenv::vars;

use crate::dockerd::Dockerd;
use crate::exec::become_program;
use crate::host::System;
use crate::plan::{Plan, find_rootlesskit};
use crate::report::{Failure, Note};
use crate::settings::Settings;
use crate::{dirs, ending, guard, help, leftover, swarm};

pub(crate) fn run(env: &Env, args: Vec<OsString>) -> Result<Infallible, Failure> {
    guard::check(&args)?;
    let host = System::new(env);
    if guard::only_prints(&args) {
        if guard::asks_for_help(&args) {
            help::print();
        }
        let dockerd = Dockerd::find(env.get(vars::DOCKERD), &host)?;
        let mut command = Command::new(dockerd.program);
        command.args(dockerd.args).args(args);
        return become_program(command);
    }
    let mut notes = Vec::new();
    dirs::check(env, &mut notes)?;
    // Not argv[0]: it may be relative or a shell's name for a script. Resolved here because in the child
    // /proc/self/exe would be rootlesskit.
    let myself = std::env::current_exe().map_err(|e| {
        Failure::new(format!("cannot determine where dockerd-rootless is installed: {e}"))
    })?;
    let rootlesskit = find_rootlesskit(&host, myself.parent())?;
    let settings = Settings::read(env)?;
    check_state_dirs(&settings, Path::new("/proc"), &mut notes)?;
    let runtime_dir = Path::new(env.nonempty(vars::XDG_RUNTIME_DIR).unwrap_or_default());
    let end = |pids: &[u32]| ending::end(env, pids);
    notes.extend(leftover::clean_up(Path::new("/proc"), &runtime_dir.join("docker"), end));
    let plan = Plan::new(settings, &host, &rootlesskit, &args)?;
    let root = Path::new("/");
    let plan = plan.with_egress_policy(root, env)?;
    let mut plan = plan.on(&Routes::read(root)).with_directory(root, env, &args)?;
    plan.check_config(env, &args)?;
    if let Some(address) = plan.swarm_address() {
        swarm::await_address(address, swarm::ADDRESS_TIMEOUT)?;
    }

    let mut command = Command::new(rootlesskit);
    command.args(plan.arguments(&myself, &args)).env(vars::DOCKERD_ROOTLESS_CHILD, "1");
    command.env(vars::DOCKERD_ROOTLESS_NET_IN_FORCE, plan.net_in_force());
    match plan.host_gateway() {
        Some(families) => command.env(vars::DOCKERD_ROOTLESS_HOST_GATEWAY, families.to_string()),
        None => command.env_remove(vars::DOCKERD_ROOTLESS_HOST_GATEWAY),
    };
    if Selinux::of(Path::new("/")).on() {
        // For the child pass, and for dockerd, which keeps away from overlay2 then.
        command.env(vars::DOCKERD_ROOTLESS_SELINUX, "1");
    }
    notes.iter().chain(&plan.notes).for_each(Note::print);
    Note::info(plan.to_string()).print();
    become_program(command)
}

/// Refuses to start beside a containerd-rootless (both want `/run/containerd`,
/// <https://github.com/moby/moby/issues/52171>) and beside another rootless dockerd on our directory.
fn check_state_dirs(
    settings: &Settings,
    proc: &Path,
    notes: &mut Vec<Note>,
) -> Result<(), Failure> {
    let theirs = settings.containerd_state_dir.display();
    match Occupant::that_stays(&settings.containerd_state_dir, proc) {
        Occupant::Absent => {}
        Occupant::Gone => notes.push(Note::warn(format!(
            "{theirs} is stale (containerd-rootless is no longer running); ignoring it"
        ))),
        running @ Occupant::Running { .. } => {
            let pid = running.pid_text();
            return Err(Failure::new(format!(
                "conflicts with containerd-rootless, which is running{pid} with the state directory {theirs}"
            ))
            .hint("stop it first: systemctl --user stop containerd"));
        }
    }
    let ours = settings.state_dir.display();
    match Occupant::that_stays(&settings.state_dir, proc) {
        // Without the lock its owner was killed, and rootlesskit cleans up.
        running @ Occupant::Running { locked: true, .. } => {
            let pid = running.pid_text();
            Err(Failure::new(format!(
                "another RootlessKit is running{pid} with the same state directory, {ours}"
            ))
            .hint(
                "stop it first (systemctl --user stop docker, or kill that process), or set \
                   DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR to another directory",
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::env_of;
    use nix::fcntl::{Flock, FlockArg};
    use std::fs::{self, File};

    #[test]
    fn the_stacks_exclude_each_other_while_they_run() {
        let run = tempfile::tempdir().unwrap();
        let settings =
            Settings::read(&env_of(&[("XDG_RUNTIME_DIR", run.path().to_str().unwrap())])).unwrap();
        let proc = run.path().join("proc");
        let mut notes = Vec::new();
        check_state_dirs(&settings, &proc, &mut notes).unwrap();
        assert_eq!(notes, []);
        for (name, token) in [
            ("containerd-rootless", "conflicts with containerd-rootless"),
            ("dockerd-rootless", "another RootlessKit"),
        ] {
            fs::create_dir(run.path().join(name)).unwrap();
            let lock = File::create(run.path().join(name).join("lock")).unwrap();
            let held = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
            let e = check_state_dirs(&settings, &proc, &mut notes).unwrap_err().to_string();
            assert!(e.contains(token) && e.contains(name), "{e}");
            drop(held);
            notes.clear();
            check_state_dirs(&settings, &proc, &mut notes).unwrap();
            assert_eq!(notes.len(), 1, "the stale directory of containerd-rootless is mentioned");
        }
    }
}
