//! What the gateway process gives up before it touches its first packet.
//!
//! # Theory of operation
//! The gateway parses what containers send, so it is the part of us that is attacked first. It needs no file, no other
//! process and no privilege: all descriptors came from the supervisor. (What it may do with sockets of the gateway
//! namespace it may because its user owns the gateway namespace's user namespace, capabilities(7); that takes no
//! capability of its own.) So, in this order:
//!
//! * not dumpable: no core file with the users' traffic, no ptrace(2) by other processes of the user;
//! * no capability, in no set, and none to be had from an exec (`no_new_privs`);
//! * Landlock: no file system, no signals and no abstract sockets out of the sandbox;
//! * seccomp: the system calls that are left (`filter`).
//!
//! `rootlessctl capture` reads packets as well and gives up the same.
//!
//! Kernel features that are missing weaken this and are reported. They are no reason to do without a network.

use std::fmt;

use anyhow::{Context, anyhow};
use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr,
    RulesetStatus, Scope,
};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod filter;

/// The level of Landlock that is used where there is one: the first that knows scopes (Linux 6.12). Later ones restrict
/// nothing that seccomp leaves.
const LANDLOCK: ABI = ABI::V6;

/// Which parts hold. What cannot be missing is not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the bounding set of capabilities is empty too; only a process with `CAP_SETPCAP` can do that, and
    /// without an exec it changes nothing.
    pub bounding: bool,
    /// The ABI level of Landlock that is enforced (landlock(7)), at most 6, or why none is. Level 5 and lower leave
    /// signals and abstract sockets to seccomp.
    pub landlock: Result<i32, String>,
    /// Whether the system call filter is in force, or why not.
    pub seccomp: Result<(), String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.landlock {
            Ok(level) => write!(f, "Landlock level {level}")?,
            Err(why) => write!(f, "no Landlock ({why})")?,
        }
        match &self.seccomp {
            Ok(()) => write!(f, ", seccomp filter")?,
            Err(why) => write!(f, ", no seccomp filter ({why})")?,
        }
        f.write_str(", no capabilities")?;
        if self.bounding { f.write_str(", empty bounding set") } else { Ok(()) }
    }
}

/// Gives everything up. To be called on the only thread of the process, with all descriptors open that are needed;
/// later threads inherit it. There is no way back.
///
/// # Errors
/// When the kernel refuses to take capabilities away or to set `no_new_privs`, which it does to nobody.
pub fn enter() -> anyhow::Result<Report> {
    set_dumpable(false).context("PR_SET_DUMPABLE")?;
    let bounding = drop_capabilities()?;
    set_no_new_privs().context("PR_SET_NO_NEW_PRIVS")?;
    let landlock = restrict_files();
    Ok(Report { bounding, landlock, seccomp: restrict_calls() })
}

/// Returns whether the bounding set is empty as well.
fn drop_capabilities() -> anyhow::Result<bool> {
    let bounding = caps::clear(None, CapSet::Bounding).is_ok();
    // The effective set before the permitted one: it must be a subset at all times.
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(|e| anyhow!("{set:?} capabilities: {e}"))?;
    }
    Ok(bounding)
}

/// Handles every right and grants none.
fn restrict_files() -> Result<i32, String> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|e| e.to_string())?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. }
            if status.ruleset != RulesetStatus::NotEnforced =>
        {
            Ok((effective_abi as i32).min(LANDLOCK as i32))
        }
        LandlockStatus::NotImplemented => {
            Err("not supported by this kernel, or blocked".to_owned())
        }
        LandlockStatus::NotEnabled => {
            Err("not enabled: see lsm= in kernel-command-line(7)".to_owned())
        }
        LandlockStatus::Available { .. } => Err("not enforced".to_owned()),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn restrict_calls() -> Result<(), String> {
    filter::install().map_err(|e| e.to_string())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn restrict_calls() -> Result<(), String> {
    Err(format!("not available for {}", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;
    use std::fs::File;

    /// What seccomp would hide in a whole sandbox. Landlock binds the calling thread only.
    #[test]
    fn landlock_alone_keeps_files_and_processes_out_of_reach() {
        assert!(kill(Pid::parent(), None).is_ok());
        let restricted = std::thread::spawn(|| {
            let level = restrict_files();
            let file = File::open("/etc/passwd").map_err(|e| e.raw_os_error());
            (level, file.err(), kill(Pid::parent(), None))
        });
        let (level, file, signal) = restricted.join().unwrap();
        assert!(matches!(level, Ok(1..=6)), "{level:?}");
        assert_eq!(file, Some(Some(Errno::EACCES as i32)));
        if level == Ok(6) {
            assert_eq!(signal, Err(Errno::EPERM));
        }
        assert!(File::open("/etc/passwd").is_ok());
    }

    #[test]
    fn a_report_says_what_is_missing() {
        let mut report = Report { bounding: true, landlock: Ok(6), seccomp: Ok(()) };
        let whole = "Landlock level 6, seccomp filter, no capabilities, empty bounding set";
        assert_eq!(report.to_string(), whole);
        report = Report {
            bounding: false,
            landlock: Err("off".into()),
            seccomp: Err("not available for s390x".into()),
        };
        assert_eq!(
            report.to_string(),
            "no Landlock (off), no seccomp filter (not available for s390x), no capabilities"
        );
    }
}
