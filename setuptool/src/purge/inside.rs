//! The deletion itself, as root of the user's namespace: rootlesskit runs this program again with the verb `delete`,
//! because files of containers have subordinate ids.
//!
//! Rootlesskit makes a mount namespace, a copy of ours. What counts is what is mounted there, so everything is looked at
//! once more, through the open directory and before anything is deleted: whose it is, and what is mounted below. A mount
//! that comes later is not entered ([`super::walk`]); if it does not even come into this namespace, what is deleted is
//! the directory under it.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::marks::{Inventory, Kind, list};
use super::mounts;
use super::walk::{Failures, Root};
use crate::run::Failed;
use crate::ui::Ui;

pub(crate) const VERB: &str = "delete";

/// The exit status if something in the directory could not be deleted, which is no reason to keep the other directories.
/// Any other failure is a look that found something wrong.
pub(super) const INCOMPLETE: u8 = 2;

/// A directory, by its canonical path, and what it is.
pub(super) type Target = (Kind, PathBuf);

pub(super) fn words(targets: &[Target]) -> Vec<OsString> {
    let words = targets.iter().flat_map(|(kind, path)| [kind.name().into(), path.into()]);
    [OsString::from(VERB)].into_iter().chain(words).collect()
}

/// Does what [`words`] say.
pub(crate) fn run(ui: &mut Ui, words: &[OsString]) -> Result<(), Failed> {
    if !is_in_users_namespace() {
        return Err(Failed::new(
            "delete runs only inside rootlesskit's user namespace\n\
             hint: run: dockerd-rootless-setuptool.sh uninstall --purge",
        ));
    }
    let mut targets = Vec::new();
    for pair in words.chunks(2) {
        let (Some(kind), [_, path]) = (pair[0].to_str().and_then(Kind::from_name), pair) else {
            return Err(Failed::new(
                "delete is an internal command of uninstall --purge\n\
                 hint: run: dockerd-rootless-setuptool.sh uninstall --purge",
            ));
        };
        targets.push((kind, PathBuf::from(path)));
    }
    delete(ui, &targets)
}

/// Whether this is root of a user namespace that rootlesskit made. Root of a system container has another map than the
/// host's root, too, hence the variable.
fn is_in_users_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let env = hostenv::Env::current();
    !initial
        && nix::unistd::geteuid().is_root()
        && env.nonempty(hostenv::vars::ROOTLESSKIT_STATE_DIR).is_some()
}

/// Looks at all directories, then deletes what is theirs in the first one.
pub(super) fn delete(ui: &mut Ui, targets: &[Target]) -> Result<(), Failed> {
    let mounts = mounts::of(Path::new("/proc/self"))
        .map_err(|error| Failed::new(format!("cannot read /proc/self/mountinfo: {error}")))?;
    let mut work = Vec::new();
    for (kind, path) in targets {
        let failed = |error: &dyn std::fmt::Display| {
            Failed::new(format!("cannot delete {}: {error}", path.display()))
        };
        let below = mounts::below(&mounts, path);
        if !below.is_empty() {
            return Err(Failed::new(mounts::refusal(path, &below)));
        }
        let root = Root::open(path).map_err(|error| failed(&error.desc()))?;
        let found = Inventory::of(&root.held(), *kind).map_err(|error| failed(&error))?;
        if !found.proven {
            let maker = kind.maker();
            return Err(failed(&format!("nothing in it shows that {maker} created it")));
        }
        work.push((path, kind, root, found));
    }
    let mut failures = Failures::default();
    let Some((path, kind, root, found)) = work.first() else { return Ok(()) };
    for name in &found.ours {
        root.delete(name, &mut failures);
    }
    let links = finish(ui, path, **kind, root);
    if !failures.any() {
        return links.map_or(Ok(()), |text| Err(Failed { text, code: INCOMPLETE }));
    }
    let mut lines = failures.told.clone();
    if failures.more() > 0 {
        lines.push(format!("and {} more", failures.more()));
    }
    Err(Failed { text: lines.join("\n"), code: INCOMPLETE })
}

/// Removes the directory if nothing is left in it, and says what became of it. What links of the daemon's names lead to
/// may be its data, so the problem with them is returned.
fn finish(ui: &mut Ui, path: &Path, kind: Kind, root: &Root) -> Option<String> {
    let shown = path.display();
    match Inventory::of(&root.held(), kind) {
        Ok(left) if left.is_bare() => match fs::remove_dir(path) {
            Ok(()) => ui.info(&format!("Removed {shown}")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                ui.info(&format!("Emptied {shown}, which is a mount point"));
            }
            // Such as the mount point's lost+found, or a directory in one of root's.
            Err(error) => ui.info(&format!("Emptied {shown} (the directory was kept: {error})")),
        },
        Ok(left) => {
            let maker = kind.maker();
            if !left.foreign.is_empty() {
                ui.warning(&format!(
                    "{shown} was kept, because it contains files that {maker} did not create: {}",
                    list(&left.foreign)
                ));
            }
            if !left.links.is_empty() {
                return Some(format!(
                    "{shown} was kept, because these entries are links to other places: {}\n\
                     hint: if the data at the links' targets is Docker's, delete it (rootlesskit rm -rf TARGET); \
                     then delete the links with rm, and run this again",
                    list(&left.links)
                ));
            }
        }
        Err(error) => ui.warning(&format!("{shown} stays: {error}")),
    }
    None
}
