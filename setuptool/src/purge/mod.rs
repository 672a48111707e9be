//! `uninstall --purge`: deletes what the daemon made, and nothing else.
//!
//! # Theory of operation
//! [`Purge::prepare`] looks before anything is touched: where the daemon's directories are ([`settings`]), what they
//! really are if they are links, whose entries are in them ([`marks`]), and what is mounted below them ([`mounts`]). A
//! mount ends it there, with the commands that unmount it. [`Purge::carry_out`] comes when the daemon has been stopped: it
//! looks for whoever uses the data nevertheless ([`life`], [`processes`]), and then has each directory deleted by a run of
//! this program in the user's namespace ([`inside`]), which looks again and enters no mount and follows no link
//! ([`walk`]). rm(1) could do neither: it passes through a mount, and `--one-file-system` does not see a mount of the same
//! file system.
//!
//! # What goes
//! In the usual places: entries that dockerd or rootlesskit makes, if something proves that they made them. The directory
//! itself goes if nothing else is in it. A data root elsewhere, in a directory of the user's own choice (`data-root`) or
//! at the end of a symbolic link, goes only if it holds nothing else at all, and otherwise ends the purge, too: in somebody's home `tmp` and `volumes` need not
//! be dockerd's. A link goes when what it leads to is gone.

mod inside;
mod life;
mod locks;
mod marks;
mod mounts;
mod processes;
mod settings;
mod walk;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run::{self, Failed};
use crate::ui::Ui;
use doctor::place::World;
use hostenv::shellwords::quoted;
use marks::{Inventory, Kind, list};
use settings::Settings;

pub(crate) use inside::{VERB, run as delete};

/// Deleting a million files takes its time.
const LIMIT: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Place {
    kind: Kind,
    /// As it is named.
    given: PathBuf,
    /// What it really is.
    real: PathBuf,
    link: bool,
    /// It is where the user wants it, not where the daemon puts it by itself.
    elsewhere: bool,
    found: Inventory,
}

impl Place {
    /// Looks at a directory; `None` if there is none.
    fn look(kind: Kind, given: &Path, chosen: bool) -> Result<Option<Self>, String> {
        let shown = given.display();
        let link = match fs::symlink_metadata(given) {
            Ok(meta) => meta.is_symlink(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot examine {shown}: {error}")),
        };
        let real = fs::canonicalize(given).map_err(|error| match fs::read_link(given) {
            Ok(to) => format!(
                "{shown} is a link to {}, which cannot be reached ({error}), so it was kept\n\
                 hint: if its target is on another disk, mount the disk and run this again; otherwise, delete the \
                 link: rm {}",
                to.display(),
                quoted(given)
            ),
            Err(_) => format!("cannot examine {shown}: {error}"),
        })?;
        let found = Inventory::of(&real, kind)
            .map_err(|error| format!("cannot read {}: {error}", real.display()))?;
        Ok(Some(Self {
            kind,
            given: given.to_owned(),
            real,
            link,
            elsewhere: chosen || link,
            found,
        }))
    }

    /// Whether anything in it may be deleted.
    fn goes(&self) -> bool {
        // An empty directory elsewhere may be where a disk is to be mounted that has the data.
        let others = self.found.is_shared() || self.found.is_bare();
        self.found.proven && !(self.elsewhere && others)
    }

    /// Whether it holds the daemon's data and, in a directory of the user's choice, something else.
    fn is_mixed(&self) -> bool {
        self.found.proven && self.elsewhere && self.found.is_shared()
    }

    /// Why one that [is mixed](Self::is_mixed) stays, and what to do.
    fn refusal(&self) -> String {
        let others: Vec<_> = self.found.foreign.iter().chain(&self.found.links).cloned().collect();
        format!(
            "{} was kept, because it also contains files that are not Docker's: {}\nDocker's files are: {}\n\
             hint: move your own files elsewhere; if an entry is a link to Docker's data, delete that data (rootlesskit rm -rf \
             TARGET) and the link; then run this again. To keep everything, run uninstall without --purge",
            self.real.display(),
            list(&others),
            list(&self.found.ours)
        )
    }

    fn tell(&self, ui: &mut Ui) {
        let (shown, maker) = (self.real.display(), self.kind.maker());
        let Inventory { ours, foreign, links, .. } = &self.found;
        if self.found.is_bare() {
            ui.warning(&format!("{shown} is empty and was kept"));
        } else {
            let all: Vec<_> = ours.iter().chain(foreign).chain(links).cloned().collect();
            ui.warning(&format!(
                "{shown} was kept, because nothing in it shows that {maker} created it: {}",
                list(&all)
            ));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Purge {
    settings: Settings,
    places: Vec<Place>,
    problems: Vec<String>,
}

impl Purge {
    /// Looks at everything that is to be deleted; changes nothing. To be called as long as the unit is there, since it
    /// may say where things are.
    pub(crate) fn prepare(world: &World) -> Result<Self, Failed> {
        if let Some(problem) = world.daemon_json_problem() {
            return Err(Failed::new(format!(
                "{problem}; the file may name the data root, so nothing was changed\nhint: correct the file, or \
                 move it away"
            )));
        }
        let settings = Settings::gather(world);
        let default = world.default_data_root();
        let mut candidates: Vec<(Kind, PathBuf, bool)> = Vec::new();
        for root in &settings.data_roots {
            candidates.push((Kind::Data, root.clone(), default.as_ref() != Some(root)));
        }
        if let Some(runtime) = runtime_dir(world) {
            candidates.push((Kind::Exec, runtime.join("docker"), false));
            candidates.push((Kind::State, runtime.join("dockerd-rootless"), false));
        }
        let (mut places, mut problems): (Vec<Place>, _) = (Vec::new(), Vec::new());
        for (kind, given, chosen) in candidates {
            match Place::look(kind, &given, chosen) {
                Ok(Some(place)) if places.iter().all(|other| other.real != place.real) => {
                    places.push(place);
                }
                Ok(_) => {}
                Err(problem) => problems.push(problem),
            }
        }
        let mounts = mounts::of(&world.at("proc/self"))
            .map_err(|error| Failed::new(format!("cannot read /proc/self/mountinfo: {error}")))?;
        let mounted = places
            .iter()
            .filter(|place| place.goes())
            .map(|place| (&place.real, mounts::below(&mounts, &place.real)))
            .filter(|(_, below)| !below.is_empty())
            .map(|(real, below)| mounts::refusal(real, &below));
        let shared = places.iter().filter(|place| place.is_mixed()).map(Place::refusal);
        let refusals: Vec<String> = mounted.chain(shared).collect();
        if refusals.is_empty() {
            return Ok(Self { settings, places, problems });
        }
        Err(Failed::new(format!("{}\nnothing was changed", refusals.join("\n"))))
    }

    /// Deletes. The daemon has been stopped, if it was one that can be. While this runs, no rootlesskit can start with one
    /// of the known state directories ([`locks`]). One with another state directory is looked for before each directory,
    /// and at the end. `begin` is called before anything is deleted, if there is anything to delete.
    pub(crate) fn carry_out(
        self,
        ui: &mut Ui,
        world: &World,
        problems: &mut Vec<String>,
        begin: impl FnOnce(&mut Ui, &mut Vec<String>),
    ) {
        problems.extend(self.problems);
        let mut places = Vec::new();
        for place in self.places {
            // What the daemon did at its end is to be seen, too.
            match Place::look(place.kind, &place.given, place.elsewhere && !place.link) {
                Ok(Some(now)) => places.push(now),
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        let going = places.iter().filter(|place| place.goes());
        let dirs: Vec<PathBuf> = going.map(|place| place.real.clone()).collect();
        let (_locks, kept) = locks::take(&self.settings.state_dirs);
        if let Some(refusal) = life::refusal(world, &self.settings, &kept, &dirs, life::KEPT) {
            problems.push(refusal);
            return;
        }
        let (mut targets, mut links) = (Vec::new(), Vec::new());
        for place in places {
            if place.is_mixed() {
                problems.push(place.refusal());
                continue;
            }
            if !place.goes() {
                place.tell(ui);
                continue;
            }
            if place.link {
                let (given, real) = (place.given.display(), place.real.display());
                ui.info(&format!("{given} is a link; the data is in {real}"));
            }
            targets.push((place.kind, place.real.clone()));
            links.extend(place.link.then_some(place));
        }
        if !targets.is_empty() {
            begin(ui, problems);
        }
        for at in 0..=targets.len() {
            let rest = &targets[at..];
            // Before the first one this has just been done.
            let dirs: Vec<PathBuf> = rest.iter().map(|(_, path)| path.clone()).collect();
            let came_up =
                (at > 0).then(|| life::refusal(world, &self.settings, &[], &dirs, life::CAME_UP));
            if let Some(refusal) = came_up.flatten() {
                problems.push(refusal);
                return;
            }
            if let Some((_, path)) = rest.first()
                && let Err(failed) = delete_first(ui, world, rest, path)
            {
                problems.push(failed.text);
                if failed.code != inside::INCOMPLETE {
                    return;
                }
            }
        }
        small_things(world, problems);
        for link in links {
            let left = fs::read_dir(&link.real).map(|mut entries| entries.next().is_some());
            if !left.unwrap_or_else(|error| error.kind() != io::ErrorKind::NotFound) {
                let gone = fs::remove_file(&link.given);
                if gone.is_ok() {
                    ui.info(&format!("Removed {}", link.given.display()));
                }
                run::note(problems, &link.given, gone);
            }
        }
    }
}

/// Has the first of the directories deleted by root of the user's namespace, which looks at all of them first; without
/// rootlesskit by this process, which may not delete what containers wrote.
fn delete_first(
    ui: &mut Ui,
    world: &World,
    targets: &[inside::Target],
    first: &Path,
) -> Result<(), Failed> {
    let Some(kit) = rootlesskit(world) else { return inside::delete(ui, targets) };
    let own = world.own_program();
    let words = inside::words(targets);
    let args: Vec<&OsStr> =
        [own.as_os_str()].into_iter().chain(words.iter().map(|word| word.as_os_str())).collect();
    ui.trace(&run::command_line(&kit.to_string_lossy(), &args));
    let status = run::shown(&kit, &args, &doctor::systemd::with_runtime_dir(world), true, LIMIT)?;
    if status.success() {
        return Ok(());
    }
    let text = format!(
        "cannot delete all of {} (rootlesskit failed with {status})\nhint: fix the errors above, then run this again",
        first.display()
    );
    Err(Failed { text, code: run::code_of(status) })
}

/// Deletes a directory of ours, if it is there, with everything in it, by the rules of [`walk`]; a link goes as it is.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut failures = walk::Failures::default();
    walk::Root::open(&fs::canonicalize(above)?)?.delete(name, &mut failures);
    match failures.told.into_iter().next() {
        Some(first) => Err(io::Error::other(first)),
        None => Ok(()),
    }
}

/// Files: the daemon's key, its socket and its pid.
fn small_things(world: &World, problems: &mut Vec<String>) {
    // The daemon's identity, until Docker 24.
    if let Some(key) = world.config_home().map(|dir| dir.join("docker/key.json")) {
        run::remove(problems, &key);
    }
    let Some(runtime) = runtime_dir(world) else { return };
    // A link may lead to the socket of another engine.
    let is = |path: &Path, right: fn(fs::FileType) -> bool| {
        fs::symlink_metadata(path).is_ok_and(|meta| right(meta.file_type()))
    };
    for (name, right) in [
        ("docker.sock", (|kind| kind.is_socket()) as fn(fs::FileType) -> bool),
        ("docker.pid", |kind| kind.is_file()),
    ] {
        let path = runtime.join(name);
        if is(&path, right) {
            run::remove(problems, &path);
        }
    }
}

/// The runtime directory, unless that is the home: what is called `docker` there is the user's.
fn runtime_dir(world: &World) -> Option<PathBuf> {
    let home = hostenv::dirs::home(&world.env).ok();
    world.runtime_dir().filter(|dir| home.as_ref() != Some(dir))
}

pub(crate) fn rootlesskit(world: &World) -> Option<PathBuf> {
    world.find_companion("docker-rootlesskit").or_else(|| world.find_companion("rootlesskit"))
}

/// The command that deletes the data, for a person to run. Docker's own tool always says `rootlesskit rm -rf`; so does
/// this where that deletes nothing else: no link, no mount, nothing of somebody else's, and, if `idle` is asked for, nobody
/// who uses it.
pub(crate) fn advice(world: &World, kit: &Path, idle: bool) -> Option<String> {
    let data = world.data_root()?;
    let rm = format!("{} rm -rf {}", quoted(kit), quoted(&data));
    let in_use = || {
        let dirs: Vec<PathBuf> = fs::canonicalize(&data).into_iter().collect();
        life::refusal(world, &Settings::gather(world), &[], &dirs, life::KEPT).is_some()
    };
    if is_plain(world, &data) && !(idle && in_use()) {
        return Some(rm);
    }
    Some(format!("{} uninstall --purge", quoted(world.own_program())))
}

fn is_plain(world: &World, data: &Path) -> bool {
    match fs::symlink_metadata(data) {
        Ok(meta) if !meta.is_symlink() => {}
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
        Ok(_) => return false,
    }
    let Ok(real) = fs::canonicalize(data) else { return false };
    let mounts = mounts::of(&world.at("proc/self"));
    mounts.is_ok_and(|mounts| mounts::below(&mounts, &real).is_empty())
        && Inventory::of(&real, Kind::Data).is_ok_and(|found| found.proven && !found.is_shared())
}
