//! Looks at every process of the product every few seconds.

use std::fs;

use tests::TestBox;
use tests::procs::{Proc, TESTER};
use xtask_support::process;

use crate::record::{GATEWAY_PROCESS, Label, Load, Sample};
use crate::world::{GATEWAY, SLIRP4NETNS};

/// What is looked at, besides rootlesskit itself.
const PROGRAMS: [&str; 4] = [GATEWAY_PROCESS, "slirp4netns", "dockerd", "containerd"];

/// How busy the machine is; `None` if it does not tell.
pub(crate) fn load(at: u64) -> Option<Load> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    Some(Load { at, average: text.split_whitespace().next()?.parse().ok()? })
}

/// The processes of the product, and the programs that it starts, as they are now.
pub(crate) fn take(b: &TestBox, at: u64) -> Vec<Sample> {
    let all = b.user_processes();
    // One that ends meanwhile is left out.
    all.iter().filter_map(|found| sample(&all, found, at)).collect()
}

fn sample(all: &[Proc], found: &Proc, at: u64) -> Option<Sample> {
    let instance = match found.uid {
        uid if uid == GATEWAY.account.uid => Label::Gateway,
        uid if uid == SLIRP4NETNS.account.uid => Label::Slirp4netns,
        TESTER => Label::Docker,
        _ => return None,
    };
    let process = role(all, found)?;
    Some(Sample {
        at,
        instance,
        process,
        pid: found.pid,
        descriptors: found.descriptors().ok()?,
        threads: found.threads().ok()?,
        rss_kib: found.memory().ok()?,
        pss_kib: found.proportional_memory().ok()?,
        cpu_s: process::cpu_seconds(&[found.host_pid]).ok()?,
    })
}

/// What a process is called in the results, if it is of interest.
fn role(all: &[Proc], found: &Proc) -> Option<String> {
    let program = found.program();
    if PROGRAMS.contains(&program) {
        return Some(program.to_owned());
    }
    if !is_rootlesskit(found) {
        return None;
    }
    let below = all.iter().any(|p| p.host_pid == found.host_parent && is_rootlesskit(p));
    Some(format!("rootlesskit {}", if below { "child" } else { "parent" }))
}

/// Parent or child. Their command lines differ, but not their program.
fn is_rootlesskit(found: &Proc) -> bool {
    let is_it =
        |path: std::path::PathBuf| path.file_name().is_some_and(|name| name == "rootlesskit");
    found.program() != GATEWAY_PROCESS && fs::read_link(found.dir().join("exe")).is_ok_and(is_it)
}
