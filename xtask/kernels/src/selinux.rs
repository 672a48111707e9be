//! SELinux with Debian's policy, permissive and enforcing: what `check` says, which storage driver dockerd takes, whether
//! Docker and rootlesskit work, and what the policy denies to the processes of the user.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::docker::MAKE_IMAGE;
use tests::{Flavour, Kernel, Machine, Suite, Vm, ensure};

use crate::results::{Guarded, Kept};
use crate::trial::{self, COMMON, DRIVER, NETWORK};

const SELINUX: &str = include_str!("trials/selinux.sh");

/// What is different from a Docker that was just installed.
pub(crate) struct Case {
    /// What messages call it, and the name in the stored results.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What root does, with the functions of `trials/selinux.sh`.
    begin: &'static str,
    trial: Trial,
    /// The codes that `check` has to report beside those that have nothing to do with SELinux.
    codes: &'static [&'static str],
    /// What `check` says in words, as commands for root. Without, all has to work as it is.
    remedy: Option<&'static str>,
    /// Makes the machine what it was.
    end: &'static str,
}

/// What is tried.
#[derive(Clone, Copy)]
enum Trial {
    /// A daemon is installed, does what daemons do, and is removed.
    Docker,
    /// A namespace of rootlesskit with this network driver, and with this port driver and port.
    Network([&'static str; 3]),
}

/// The modes, in this order. The machine starts in the first, which is Debian's default.
pub(crate) const MODES: [&str; 2] = ["permissive", "enforcing"];

const fn case(id: &'static str, title: &'static str, begin: &'static str) -> Case {
    Case { id, title, begin, trial: Trial::Docker, codes: &["selinux"], remedy: None, end: "" }
}

const NO_CONFIGURATION: &str = "rm -f /home/tester/.config/docker/daemon.json";

pub(crate) const CASES: &[Case] = &[
    case("fuse", "fuse-overlayfs is installed", ""),
    Case {
        codes: &["overlay", "selinux"],
        end: "chmod 755 /usr/bin/fuse-overlayfs",
        ..case("no-fuse", "fuse-overlayfs is not installed", "chmod 0 /usr/bin/fuse-overlayfs")
    },
    Case {
        end: NO_CONFIGURATION,
        ..case(
            "containerd",
            "`daemon.json` turns on the containerd image store",
            "configure '{\"features\":{\"containerd-snapshotter\":true}}'",
        )
    },
    Case {
        codes: &["overlay-selinux", "selinux"],
        remedy: Some("earlier; configure '{\"storage-driver\":\"fuse-overlayfs\"}'"),
        end: NO_CONFIGURATION,
        ..case("earlier", "the data root has images of `overlay2`", "earlier")
    },
    Case {
        trial: Trial::Network(["slirp4netns", "builtin", "8082"]),
        ..case("slirp4netns", "`rootlesskit --net=slirp4netns --port-driver=builtin`", "")
    },
    Case {
        trial: Trial::Network(["pasta", "implicit", "8080"]),
        ..case("pasta", "`rootlesskit --net=pasta --port-driver=implicit`", "")
    },
];

/// The machine. The kernel has AppArmor, too, and can have only one of them; and it is to print all that is denied.
fn machine() -> Machine {
    let kernel = Kernel { suite: "trixie", flavour: Flavour::Generic };
    Machine {
        kernel,
        packages: &["selinux-policy-default"],
        prepared: false,
        append: "security=selinux log_buf_len=8M audit_backlog_limit=8192 sysctl.kernel.printk_ratelimit=0"
            .to_owned(),
        ..Machine::of(Suite::Trixie)
    }
}

/// Boots the machine and tries everything.
///
/// # Errors
/// The machine fails, or what happens is not what [`CASES`] says.
pub(crate) fn run(
    say: &dyn Fn(&str, &str, &Guarded),
) -> Result<BTreeMap<String, BTreeMap<String, Guarded>>> {
    let mut vm = Vm::boot(&machine())?;
    let (mut all, mut wrong) = (BTreeMap::<String, BTreeMap<_, _>>::new(), Vec::new());
    for mode in MODES {
        start(&mut vm, mode)?;
        let usual: Vec<_> = trial::codes_without_log(&check(&mut vm)?)
            .into_iter()
            .filter(|code| code != "selinux")
            .collect();
        for case in CASES {
            let (found, problems) = try_case(&mut vm, case, &usual)?;
            wrong.extend(problems.iter().map(|problem| format!("{}, {mode}: {problem}", case.id)));
            say(case.id, mode, &found);
            all.entry(case.id.to_owned()).or_default().insert(mode.to_owned(), found);
        }
    }
    for (id, modes) in &all {
        let drivers: BTreeSet<_> = modes.values().map(|found| &found.kept.driver).collect();
        if drivers.len() > 1 {
            wrong.push(format!("{id}: the storage driver depends on the mode: {drivers:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(all)
}

/// Has the machine be in the mode from the start, as administrators do it, and brings the network.
fn start(vm: &mut Vm, mode: &str) -> Result<()> {
    if mode == "enforcing" {
        root(vm, "sed -i s/^SELINUX=.*/SELINUX=enforcing/ /etc/selinux/config")?;
        vm.reboot()?;
    } else {
        // The programs under test came without a package manager, which would have labelled them. The policy confines ip,
        // and what it starts on the other machine, but not a copy in another place.
        root(vm, "restorecon -R /usr/bin /usr/local/bin /opt; cp /usr/sbin/ip /usr/local/sbin")?;
    }
    let seen = vm.root("getenforce")?.ok()?;
    ensure!(seen.trim().to_lowercase() == mode, "the mode is {seen} and not {mode}");
    root(vm, NETWORK)
}

/// Tries one, and says what is not as it should be.
fn try_case(vm: &mut Vm, case: &Case, usual: &[String]) -> Result<(Guarded, Vec<String>)> {
    let mut wrong = Vec::new();
    let mut driver = String::new();
    root(vm, case.begin)?;
    root(vm, "dmesg --clear; date +@%s >/run/began")?;
    let report = check(vm)?;
    let mut said = trial::codes_without_log(&report);
    said.retain(|code| !usual.contains(code));
    if said != case.codes {
        wrong.push(format!("check says {said:?} and not {:?}", case.codes));
    }
    let failure = attempt(vm, case.trial, &mut driver)?;
    let mut predicted = prediction(&report);
    let fixed = trial::remedied(failure.as_ref(), &said, case.remedy, &mut wrong, |commands| {
        root(vm, commands)?;
        predicted = prediction(&check(vm)?);
        attempt(vm, case.trial, &mut driver)
    })?;
    if !driver.is_empty() && predicted.as_ref() != Some(&driver) {
        wrong.push(format!(
            "check predicts the storage driver {predicted:?}, and dockerd takes {driver}"
        ));
    }
    let denied = denied(&vm.root(MESSAGES)?.ok()?);
    root(vm, case.end)?;
    let (works, seen) = (failure.is_none(), failure.unwrap_or_default());
    Ok((Guarded { kept: Kept { codes: said, driver, works, fixed, seen }, denied }, wrong))
}

/// Tries it, and says what fails.
fn attempt(vm: &mut Vm, trial: Trial, driver: &mut String) -> Result<Option<String>> {
    let rows = match trial {
        Trial::Docker => {
            let script = [SELINUX, "whole"].join("\n");
            trial::rows(vm, &script, &[("MAKE_IMAGE", MAKE_IMAGE)])?
        }
        Trial::Network([net, ports, port]) => {
            let variables = [("NET", net), ("PORTS", ports), ("PORT", port)];
            let mut rows = trial::rows(vm, &[SELINUX, DRIVER].join("\n"), &variables)?;
            // No user may ping on this machine, and that is not for SELinux.
            rows.retain(|row| !row.name.starts_with("ping"));
            rows
        }
    };
    if let Some(row) = rows.iter().find(|row| row.name == "driver" && row.works) {
        driver.clone_from(&row.seen);
    }
    let failed = rows.iter().filter(|row| !row.works);
    let failed: Vec<String> = failed.map(|row| format!("{}: {}", row.name, row.seen)).collect();
    Ok((!failed.is_empty()).then(|| failed.join("; ")))
}

/// Runs commands as root with the functions of the script.
fn root(vm: &mut Vm, commands: &str) -> Result<()> {
    vm.root(&[COMMON, SELINUX, commands].join("\n"))?.ok().map(drop)
}

/// What `check` says to the user in a session. [`trial::check`] asks the service manager from outside of it, which the policy
/// does not allow.
fn check(vm: &mut Vm) -> Result<Value> {
    let commands = "user dockerd-rootless-setuptool.sh check --json || true";
    let text = vm.root(&[COMMON, SELINUX, commands].join("\n"))?.ok()?;
    serde_json::from_str(&text).with_context(|| format!("check --json: {text}"))
}

/// The storage driver that `check` predicts.
fn prediction(check: &Value) -> Option<String> {
    check["effective"]["storage_driver"].as_str().map(str::to_owned)
}

/// Prints what the kernel and the service manager of the user have said since the case began. The policy does not let these
/// programs write to the agent's files, but to a pipe.
const MESSAGES: &str =
    "dmesg | cat; journalctl --quiet --since \"$(cat /run/began)\" _UID=1001 | cat";

/// What these messages say was denied to processes of the user, each once: the name of the program, the permissions, and the
/// class and type of the object.
fn denied(messages: &str) -> BTreeSet<String> {
    let denial = |line: &str| {
        let (_, rest) = line.split_once("avc:  denied  { ")?;
        let (permissions, rest) = rest.split_once(" }")?;
        let field = |name: &str| {
            let value = rest.split_whitespace().find_map(|word| word.strip_prefix(name));
            value.map(|value| value.trim_matches('"'))
        };
        // The processes of daemons have another user.
        field("scontext=")?.strip_prefix("unconfined_u:")?;
        let kind = field("tcontext=")?.split(':').nth(2)?;
        // The kernel has the name of the program, systemd the command line.
        let program = field("comm=").or_else(|| field("cmdline="))?;
        Some(format!("{program}: {permissions} {} {kind}", field("tclass=")?))
    };
    messages.lines().filter_map(denial).collect()
}

#[cfg(test)]
mod tests_of_messages {
    use super::*;

    #[test]
    fn what_was_denied_to_the_user_counts_once_and_nothing_else_does() {
        let messages = "[  1.0] audit: type=1400 audit(1.0:2): avc:  denied  { search } for  pid=1 comm=\"systemd-journal\" \
            name=\"1\" dev=\"proc\" ino=2 scontext=system_u:system_r:syslogd_t:s0 \
            tcontext=unconfined_u:unconfined_r:unconfined_t:s0 tclass=dir permissive=1\n\
            [  2.0] audit: type=1400 audit(2.0:3): avc:  denied  { read open } for  pid=7 comm=\"rootlesskit\" \
            path=\"/x y\" scontext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 \
            tcontext=system_u:object_r:tun_tap_device_t:s0 tclass=chr_file permissive=1\n\
            [  3.0] audit: type=1400 audit(3.0:4): avc:  denied  { read open } for  pid=8 comm=\"rootlesskit\" \
            scontext=unconfined_u:unconfined_r:unconfined_t:s0 tcontext=system_u:object_r:tun_tap_device_t:s0 \
            tclass=chr_file permissive=0\n\
            [  4.0] veth0: renamed\n\
            Nov 02 10:00:00 machine systemd[977]: selinux: avc:  denied  { start } for auid=1001 uid=1001 gid=1001 \
            path=\"/home/x/.config/systemd/user/docker.service\" cmdline=\"systemctl --user start docker.service\" \
            function=\"method_start_unit_generic\" scontext=unconfined_u:unconfined_r:unconfined_t:s0 \
            tcontext=unconfined_u:object_r:user_home_t:s0 tclass=service permissive=0\n";
        let found: Vec<_> = denied(messages).into_iter().collect();
        let expected = [
            "rootlesskit: read open chr_file tun_tap_device_t",
            "systemctl: start service user_home_t",
        ];
        assert_eq!(found, expected);
    }
}
