//! Situations: what an administrator or a distribution does to a machine, what `check` says about it, and whether
//! rootlesskit works, before and after what `check` proposes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tests::{Flavour, Kernel, Machine, Suite, Vm, ensure};

use crate::results::Found;
use crate::trial::{self, COMMON, NETWORK};

/// One thing that is different from the machine as Debian installs it.
pub(crate) struct Situation {
    /// What messages call it, and the name in the stored results.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What root does.
    begin: &'static str,
    /// The codes that `check` has to report beside those of the untouched machine.
    codes: &'static [&'static str],
    /// Whether [`TRIAL`] works all the same.
    works: bool,
    remedy: Remedy,
    /// Makes the machine what it was.
    end: &'static str,
}

/// What is done about a situation.
#[derive(Clone, Copy)]
enum Remedy {
    /// Nothing is wrong.
    Unneeded,
    /// The commands that `check` prints for root.
    Block,
    /// What `check` says in words, as commands for root.
    Words(&'static str),
}

/// The machine: the packages bring profiles of AppArmor.
pub(crate) fn machine() -> Machine {
    let kernel = Kernel { suite: "trixie", flavour: Flavour::Generic };
    Machine { kernel, packages: &["apparmor"], prepared: false, ..Machine::of(Suite::Trixie) }
}

/// What is tried: a namespace with a network, from which another machine is reached, with a new `/proc` as for a
/// container.
const TRIAL: &str = "rootlesskit --net=gateway --port-driver=gateway --disable-host-loopback --copy-up=/etc \
     --copy-up=/run unshare --pid --fork --mount-proc fixture get 10.77.0.2:7000";

const fn sysctl(
    id: &'static str,
    title: &'static str,
    begin: &'static str,
    codes: &'static [&'static str],
    end: &'static str,
) -> Situation {
    let works = codes.is_empty();
    let remedy = if works { Remedy::Unneeded } else { Remedy::Block };
    Situation { id, title, begin, codes, works, remedy, end }
}

/// Loads an AppArmor profile for rootlesskit with these flags and rules. It also allows all that does not matter here.
macro_rules! profile {
    ($flags:literal, $rules:literal) => {
        concat!(
            "systemctl start apparmor.service
            printf '%s\\n' 'abi <abi/4.0>,' 'profile rootlesskit /usr/bin/rootlesskit ",
            $flags,
            " {' 'file, network, capability, mount, umount, pivot_root, signal, ptrace, unix, ",
            $rules,
            " }' | apparmor_parser -r"
        )
    };
}

/// In this order; the last ones cannot be undone.
pub(crate) const SITUATIONS: &[Situation] = &[
    sysctl(
        "userns_clone",
        "`kernel.unprivileged_userns_clone` is 0",
        "sysctl -qw kernel.unprivileged_userns_clone=0",
        &["userns-clone"],
        "rm -f /etc/sysctl.d/50-rootless.conf",
    ),
    sysctl(
        "max_user_namespaces",
        "`user.max_user_namespaces` is 0",
        "sysctl -qw user.max_user_namespaces=0",
        &["userns-none"],
        "rm -f /etc/sysctl.d/51-rootless.conf",
    ),
    sysctl(
        "max_net_namespaces",
        "`user.max_net_namespaces` is 0",
        "sysctl -qw user.max_net_namespaces=0",
        &["namespaces-none"],
        "rm -f /etc/sysctl.d/51-rootless-net.conf",
    ),
    sysctl(
        "max_mnt_namespaces",
        "`user.max_mnt_namespaces` is 0",
        "sysctl -qw user.max_mnt_namespaces=0",
        &["namespaces-none"],
        "rm -f /etc/sysctl.d/51-rootless-mnt.conf",
    ),
    sysctl(
        "max_pid_namespaces",
        "`user.max_pid_namespaces` is 0",
        "sysctl -qw user.max_pid_namespaces=0",
        &["namespaces-none"],
        "rm -f /etc/sysctl.d/51-rootless-pid.conf",
    ),
    Situation {
        id: "tun",
        title: "the module tun is not loaded, and opening `/dev/net/tun` does not load it",
        begin: "modprobe -r tun
            printf 'alias %s off\\n' char-major-10-200 devname:net/tun >/etc/modprobe.d/local.conf",
        codes: &["tun-missing"],
        works: false,
        remedy: Remedy::Block,
        end: "rm -f /etc/modprobe.d/local.conf /etc/modules-load.d/docker-tun.conf",
    },
    sysctl(
        "hidepid",
        "`/proc` is mounted with `hidepid=2`",
        "mount -o remount,hidepid=2 /proc",
        &[],
        "mount -o remount,hidepid=0 /proc",
    ),
    sysctl(
        "io_uring",
        "`kernel.io_uring_disabled` is 2",
        "sysctl -qw kernel.io_uring_disabled=2",
        &[],
        "sysctl -qw kernel.io_uring_disabled=0",
    ),
    Situation {
        id: "apparmor",
        title: "an AppArmor profile for rootlesskit that does not allow user namespaces",
        begin: profile!("", ""),
        codes: &["rootlesskit-fails"],
        works: false,
        remedy: Remedy::Words(profile!("flags=(attach_disconnected)", "userns,")),
        end: "aa-teardown",
    },
    Situation {
        id: "apparmor-disconnected",
        title: "an AppArmor profile for rootlesskit that allows them, without the flag `attach_disconnected`",
        begin: profile!("", "userns,"),
        codes: &["rootlesskit-fails"],
        works: false,
        remedy: Remedy::Words(profile!("flags=(attach_disconnected)", "userns,")),
        end: "aa-teardown",
    },
    sysctl(
        "bpf",
        "`kernel.unprivileged_bpf_disabled` is 1",
        "sysctl -qw kernel.unprivileged_bpf_disabled=1",
        &[],
        "",
    ),
    sysctl(
        "yama",
        "`kernel.yama.ptrace_scope` is 3",
        "sysctl -qw kernel.yama.ptrace_scope=3",
        &[],
        "",
    ),
    sysctl(
        "lockdown",
        "the kernel is locked down (`confidentiality`)",
        "echo confidentiality >/sys/kernel/security/lockdown",
        &[],
        "",
    ),
];

/// Boots the machine and tries everything.
///
/// # Errors
/// The machine fails, or what happens is not what [`SITUATIONS`] says.
pub(crate) fn run(say: &dyn Fn(&str, &Found)) -> Result<BTreeMap<String, Found>> {
    let mut vm = Vm::boot(&machine())?;
    root(&mut vm, NETWORK)?;
    // Opened once, so that the modules are there, as after the first start of a daemon.
    ensure!(trial(&mut vm)?.is_none(), "the trial does not work on the machine as it is");
    let usual = trial::seen(&trial::check(&mut vm)?);
    let mut all = BTreeMap::new();
    let mut wrong = Vec::new();
    for situation in SITUATIONS {
        root(&mut vm, situation.begin)?;
        let check = trial::check(&mut vm)?;
        let mut said = trial::seen(&check);
        said.retain(|code, _| !usual.contains_key(code));
        let error = trial(&mut vm)?;
        let works = error.is_none();
        let mut fail = |what: String| wrong.push(format!("{}: {what}", situation.id));
        if !said.keys().eq(situation.codes) {
            fail(format!("check says {said:?} and not {:?}", situation.codes));
        }
        if works != situation.works {
            fail(format!("works: {works}: {}", error.clone().unwrap_or_default()));
        }
        if error.is_some_and(|error| said.is_empty() && !error.contains("hint: ")) {
            fail("nothing says why".to_owned());
        }
        let commands = match situation.remedy {
            Remedy::Unneeded => None,
            Remedy::Block => Some(trial::block(&check).context("check prints no commands")?),
            Remedy::Words(commands) => Some(commands.to_owned()),
        };
        let fixed = match commands {
            None => None,
            Some(commands) => {
                root(&mut vm, &commands)?;
                let error = trial(&mut vm)?;
                if let Some(error) = &error {
                    fail(format!("it does not work after what check proposes: {error}"));
                }
                Some(error.is_none())
            }
        };
        root(&mut vm, situation.end)?;
        let mut left = trial::seen(&trial::check(&mut vm)?);
        left.retain(|code, _| !usual.contains_key(code));
        if !left.is_empty() {
            fail(format!("in the end check still says {left:?}"));
        }
        let found = Found { works, said, fixed };
        say(situation.id, &found);
        all.insert(situation.id.to_owned(), found);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(all)
}

fn root(vm: &mut Vm, script: &str) -> Result<()> {
    vm.root(&[COMMON, script].join("\n"))?.ok().map(drop)
}

/// The error of the trial, if it fails.
fn trial(vm: &mut Vm) -> Result<Option<String>> {
    let out = vm.user(TRIAL)?;
    Ok((!out.stdout.contains("peer from 10.77.0.1")).then_some(out.stderr))
}
