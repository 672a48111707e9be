//! File systems for the data root: what `check` says about each, which storage driver dockerd takes, whether images and
//! containers work, and whether all of it can be removed.
//!
//! Each is the home of a user who has nothing else. Where a disk or a quota is used up, a daemon that works runs into
//! that, and works again when there is room, without another installation.

use std::collections::BTreeMap;

use anyhow::Result;
use tests::docker::MAKE_IMAGE;
use tests::{Flavour, Kernel, Machine, Suite, Vm, ensure};

use crate::results::Kept;
use crate::trial::{self, COMMON, NETWORK};

const STORAGE: &str = include_str!("trials/storage.sh");

/// A file system in a state.
pub(crate) struct Place {
    /// What messages call it, and the name in the stored results.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What root does, with the functions of `trials/storage.sh`.
    begin: &'static str,
    /// What the user's daemon meets.
    trial: Trial,
    /// The codes that `check` has to report beside those of the untouched machine.
    codes: &'static [&'static str],
    /// What `check` says in words, as commands for root. Without, all has to work as it is.
    remedy: Option<&'static str>,
}

/// What is tried on a file system. All that was installed is purged in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// A daemon is installed, does what daemons do, and removes what it made.
    Whole,
    /// The same, and an image is larger than the quota.
    Quota,
    /// A daemon is installed. Then these commands of root use all the room up, and it is restarted.
    Full(&'static str),
}

/// The machine: the packages make file systems.
fn machine() -> Machine {
    let kernel = Kernel { suite: "trixie", flavour: Flavour::Generic };
    Machine {
        kernel,
        packages: &["btrfs-progs", "e2fsprogs", "nfs-kernel-server", "quota", "xfsprogs"],
        prepared: false,
        ..Machine::of(Suite::Trixie)
    }
}

const fn place(id: &'static str, title: &'static str, begin: &'static str) -> Place {
    Place { id, title, begin, trial: Trial::Whole, codes: &[], remedy: None }
}

pub(crate) const PLACES: &[Place] = &[
    place("btrfs", "btrfs", "home btrfs defaults 3G"),
    place(
        "btrfs-driver",
        "btrfs, and `storage-driver` is `btrfs`",
        "home btrfs defaults 3G; configure '{\"storage-driver\":\"btrfs\"}'",
    ),
    place(
        "btrfs-driver-removal",
        "the same, mounted with `user_subvol_rm_allowed`",
        "home btrfs user_subvol_rm_allowed 3G; configure '{\"storage-driver\":\"btrfs\"}'",
    ),
    Place {
        trial: Trial::Quota,
        codes: &["quota-low"],
        ..place(
            "xfs-quota",
            "XFS, with a quota of 100 MiB",
            "home xfs uquota 3G; setquota -u tester 0 100M 0 0 /home/tester",
        )
    },
    Place {
        trial: Trial::Full("setquota -u tester 0 100M 0 0 /home/tester; fill"),
        codes: &["quota-full"],
        remedy: Some("setquota -u tester 0 200M 0 0 /home/tester; start"),
        ..place("xfs-quota-full", "XFS with a used-up quota", "home xfs uquota 3G")
    },
    Place {
        trial: Trial::Quota,
        codes: &["quota-low"],
        ..place(
            "ext4-quota",
            "ext4, with a quota of 100 MiB",
            "home ext4 usrquota 3G -O quota; setquota -u tester 0 100M 0 0 /home/tester",
        )
    },
    Place {
        trial: Trial::Full("setquota -u tester 0 100M 0 0 /home/tester; fill"),
        codes: &["quota-full"],
        remedy: Some("rm /home/tester/fill.*; start"),
        ..place("ext4-quota-full", "ext4 with a used-up quota", "home ext4 usrquota 3G -O quota")
    },
    Place {
        trial: Trial::Full("fill"),
        codes: &["space-full"],
        remedy: Some("rm /home/tester/fill.*; start"),
        ..place("ext4-full", "a full ext4 file system", "home ext4 defaults 300M")
    },
    Place {
        codes: &["space-low"],
        ..place("ext4-small", "ext4 with a size of 300 MiB", "home ext4 defaults 300M")
    },
    Place {
        codes: &["data-root-nfs"],
        remedy: Some(
            "install -d -o tester /srv/local; configure '{\"data-root\":\"/srv/local/docker\"}'",
        ),
        ..place(
            "nfs",
            "NFS 4.2",
            "install -d -o tester /srv/home
            echo '/srv/home 127.0.0.1(rw,sync,no_subtree_check)' >/etc/exports; exportfs -ra
            mount -t nfs 127.0.0.1:/srv/home /home/tester",
        )
    },
];

/// The home of the machine is back.
const END: &str = "umount -l /home/tester; rm -f /home.img";

/// Boots the machine and tries everything.
///
/// # Errors
/// The machine fails, or what happens is not what [`PLACES`] says.
pub(crate) fn run(say: &dyn Fn(&str, &Kept)) -> Result<BTreeMap<String, Kept>> {
    let mut vm = Vm::boot(&machine())?;
    vm.root(&[COMMON, NETWORK].join("\n"))?.ok()?;
    let usual = trial::codes_without_log(&trial::check(&mut vm)?);
    let (mut all, mut wrong) = (BTreeMap::new(), Vec::new());
    for place in PLACES {
        let (kept, problems) = try_place(&mut vm, place, &usual)?;
        wrong.extend(problems.iter().map(|problem| format!("{}: {problem}", place.id)));
        say(place.id, &kept);
        all.insert(place.id.to_owned(), kept);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(all)
}

/// Tries one, and says what is not as it should be.
fn try_place(vm: &mut Vm, place: &Place, usual: &[String]) -> Result<(Kept, Vec<String>)> {
    let mut wrong = Vec::new();
    let mut driver = String::new();
    root(vm, place.begin)?;
    let repeated = match place.trial {
        Trial::Whole => "whole",
        Trial::Quota => "quota",
        Trial::Full(fill) => {
            let installed = step(vm, "install", &mut driver)?;
            wrong.extend(installed.map(|failure| format!("before it is full: {failure}")));
            root(vm, fill)?;
            "restart"
        }
    };
    let mut said = trial::codes_without_log(&trial::check(vm)?);
    said.retain(|code| !usual.contains(code));
    if said != place.codes {
        wrong.push(format!("check says {said:?} and not {:?}", place.codes));
    }
    let failure = step(vm, repeated, &mut driver)?;
    let remedy = place.remedy;
    let fixed = trial::remedied(failure.as_ref(), &said, remedy, &mut wrong, |commands| {
        root(vm, commands)?;
        step(vm, repeated, &mut driver)
    })?;
    if repeated == "restart" {
        wrong.extend(step(vm, "purge", &mut driver)?);
    }
    root(vm, END)?;
    let (works, seen) = (failure.is_none(), failure.unwrap_or_default());
    Ok((Kept { codes: said, driver, works, fixed, seen }, wrong))
}

/// Runs a step of the script, and gives the first failure.
fn step(vm: &mut Vm, step: &str, driver: &mut String) -> Result<Option<String>> {
    let rows = trial::rows(vm, STORAGE, &[("STEP", step), ("MAKE_IMAGE", MAKE_IMAGE)])?;
    if let Some(row) = rows.iter().find(|row| row.name == "driver" && row.works) {
        driver.clone_from(&row.seen);
    }
    let failed = rows.iter().find(|row| !row.works);
    Ok(failed.map(|row| format!("{}: {}", row.name, row.seen)))
}

/// Runs commands as root with the functions of the script.
fn root(vm: &mut Vm, commands: &str) -> Result<()> {
    vm.root(&[COMMON, "STEP=", STORAGE, commands].join("\n"))?.ok().map(drop)
}
