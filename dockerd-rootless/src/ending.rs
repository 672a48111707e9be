//! Ends processes in a user namespace that the user made earlier.
//!
//! Processes of subordinate ids can be killed only with CAP_KILL in their user namespace, which its owner gets by joining it
//! (user_namespaces(7)). A process cannot come back from there, so the launcher starts itself once more for it.

use std::convert::Infallible;
use std::fs::File;
use std::time::Duration;

use hostenv::Env;
use hostenv::helper::Helper;
use hostenv::vars;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use sys::pidfd::PidFd;

use crate::report::Failure;

/// How long killed processes may take to end. The kernel tears down their memory and namespaces meanwhile.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// Kills processes and waits for their end. They are in the user namespace of the first.
pub(crate) fn end(env: &Env, pids: &[u32]) -> Result<(), String> {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let mut env = env.clone();
    env.set(vars::DOCKERD_ROOTLESS_END, &list);
    let done = std::env::current_exe().map_err(|e| e.to_string()).and_then(|myself| {
        let no_args: [&str; 0] = [];
        let helper = Helper::start(&myself, &no_args, &env, KILL_TIMEOUT + Duration::from_secs(5));
        helper.and_then(Helper::finish).map_err(|e| e.to_string())
    })?;
    if done.status.success() {
        Ok(())
    } else {
        Err(done.text().trim_start_matches("ERROR: ").to_owned())
    }
}

/// What the launcher does when it was started for that: `pids` are in decimal, separated by spaces.
pub(crate) fn run(pids: &str) -> Result<Infallible, Failure> {
    let pids: Option<Vec<i32>> = pids.split_whitespace().map(|pid| pid.parse().ok()).collect();
    let pids = pids.filter(|pids| pids.iter().all(|pid| *pid > 1)).unwrap_or_default();
    let failure = |pid: i32, e: &dyn std::fmt::Display| Failure::new(format!("process {pid}: {e}"));
    let Some(first) = pids.first() else {
        return Err(Failure::new(format!(
            "{} contains no process IDs",
            vars::DOCKERD_ROOTLESS_END
        )));
    };
    File::open(format!("/proc/{first}/ns/user"))
        .and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWUSER)?))
        .map_err(|e| failure(*first, &e))?;
    // Containers before their shims, which would clean up after them.
    let mut ending = Vec::new();
    let mut failed = Ok(());
    for pid in pids.iter().rev() {
        let Ok(process) = PidFd::open(Pid::from_raw(*pid)) else { continue };
        // The number may have been given to somebody else meanwhile. What has a user namespace of its own inside a container
        // ends with the container.
        if !is_here(*pid) {
            continue;
        }
        match process.kill() {
            Ok(()) => ending.push((*pid, process)),
            Err(e) => failed = Err(failure(*pid, &e)),
        }
    }
    for (pid, process) in ending {
        if !process.wait_ended(KILL_TIMEOUT).map_err(|e| failure(pid, &e))? {
            return Err(failure(pid, &"was killed, but has not exited"));
        }
    }
    failed?;
    std::process::exit(0)
}

fn is_here(pid: i32) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
    let own = namespace("self");
    own.is_some() && namespace(&pid.to_string()) == own
}
