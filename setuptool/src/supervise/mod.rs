//! Keeping the daemon running where the user has no systemd: `install --supervise`.
//!
//! # Theory of operation
//! Every kind runs one script of ours ([`script`]), which sets what a login would have set and becomes the launcher, under
//! a process that ends what a crashed daemon leaves ([`daemon`]). What differs is who starts it again: OpenRC's user services, a runsvdir(8) or an s6-svscan(8) of this user, or, where there
//! is none of them, this program itself (`supervise`, [`daemon`]), with a back-off, a lock and a log of bounded size. A
//! record of what was installed is kept beside the script, so that `uninstall` and a later `install` of another kind find
//! it whatever the environment says then.
//!
//! OpenRC before 0.60 knows no services of users: then the administrator gets a block with a service of the system that
//! runs our supervisor as the user.

pub(crate) mod daemon;
mod log;
mod openrc;
mod orphans;
mod pidfile;
mod plain;
mod runit;
mod s6;
mod service;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use doctor::facts::Facts;
use doctor::managed::Managed;
use doctor::place::World;
use doctor::supervisor::{Files, Kind, Record, best, script, service_files};
use hostenv::state_dir::Occupant;

use crate::plan::{self, Plan, make_private};
use crate::run::{self, Failed};
use crate::ui::Ui;
use crate::write::{self, Policy, Put};
use crate::{purge, ready, report};

/// Image stores of many layers take a while, and so does a service directory until it is seen.
const API_LIMIT: Duration = Duration::from_secs(90);
/// A start that fails so often does not get better by waiting.
const FAILED_STARTS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    Auto,
    Named(Kind),
}

impl Choice {
    pub(crate) fn kind(self, world: &World) -> Kind {
        match self {
            Self::Named(kind) => kind,
            Self::Auto => best(world),
        }
    }
}

/// What the kinds need to know.
struct Job<'a> {
    world: &'a World,
    files: &'a Files,
    kind: Kind,
    user: &'a str,
    policy: &'a Policy,
}

impl Job<'_> {
    fn wanted(&self, place: &Path) -> Vec<Managed> {
        service_files(
            self.world,
            self.files,
            &Record { kind: self.kind, place: place.into() },
            self.user,
        )
    }
}

enum Begun {
    Started {
        words: Vec<String>,
        /// A file of the user's starts it.
        kept: bool,
    },
    /// Somebody else has to do the rest, and was told.
    Left,
}

/// Installs the daemon under a supervisor, starts it and waits until it answers.
pub(crate) fn install(
    ui: &mut Ui,
    world: &World,
    plan: &Plan,
    facts: &Facts,
    choice: Choice,
) -> Result<(), Failed> {
    let files = Files::of(world).ok_or_else(|| Failed::new("HOME is not set"))?;
    let kind = choice.kind(world);
    let wanted = Record { kind, place: place(world, &files, kind)? };
    let found = Record::read(&files);
    if let Some(other) = found.as_ref().filter(|record| **record != wanted) {
        ui.info(&format!("Removing the service of {}", other.kind.name()));
        remove_service(ui, world, &files, other)?;
    }
    let same = found.as_ref() == Some(&wanted);
    if !same {
        refuse_another(world, plan)?;
    }
    make_private(&plan.runtime_dir).map_err(run::cannot("create", &plan.runtime_dir))?;
    let script = write_script(ui, world, &files, plan)?;
    let swarm = plan.swarm.carry_out(ui, &plan.policy)?;
    wanted.write(&files).map_err(run::cannot("write", &files.record()))?;
    let job = Job { world, files: &files, kind, user: &facts.account.name, policy: &plan.policy };
    let running = same && occupant(world, plan).is_running();
    let begun = match kind {
        Kind::Openrc => openrc::start(ui, &job, &wanted.place)?,
        Kind::Runit => runit::start(ui, &job, &wanted.place)?,
        Kind::S6 => s6::start(ui, &job, &wanted.place)?,
        Kind::Plain => plain::start(ui, &job)?,
    };
    let Begun::Started { words, kept } = begun else { return Ok(()) };
    if let Err(error) = wait(&files, plan, kind) {
        let socket = plan.runtime_dir.join("docker.sock");
        ui.error(&format!("the daemon did not answer on {}: {error}", socket.display()));
        explain_failure(ui, &files);
        if kept || script == Put::Kept {
            ui.error("It was started with your own files, not with this tool's (see above), and is still being restarted");
            words.iter().for_each(|line| ui.info(line));
            return Err(Failed::silent(1));
        }
        // Trying for ever is what a supervisor does, and nobody would look.
        remove_service(ui, world, &files, &wanted)?;
        return Err(Failed::silent(1));
    }
    plan::version(ui, world, plan)?;
    ui.info(&format!("Installed the daemon under {} successfully.", kind.name()));
    for line in words {
        ui.info(&line);
    }
    if (script == Put::Replaced || swarm) && running {
        ui.warning(
            "The running daemon does not use the new settings yet; restart it to apply them",
        );
    }
    ui.info(&format!("Put your own settings in {}", files.settings().display()));
    ui.plain("");
    Ok(())
}

/// The service directory or file of the kind.
fn place(world: &World, files: &Files, kind: Kind) -> Result<PathBuf, Failed> {
    match kind {
        Kind::Openrc => openrc::place(world),
        Kind::Runit => runit::place(world),
        Kind::S6 => s6::place(world),
        Kind::Plain => Ok(files.pid()),
    }
}

fn refuse_another(world: &World, plan: &Plan) -> Result<(), Failed> {
    let occupant = occupant(world, plan);
    if !occupant.is_running() {
        return Ok(());
    }
    let hint = occupant.pid().map(|pid| format!("\nhint: stop it first: kill {pid}"));
    let (dir, hint) = (world.state_dir(&plan.runtime_dir), hint.unwrap_or_default());
    Err(Failed::new(format!("a daemon is already running in {}{hint}", dir.display())))
}

/// Who runs in the state directory of the daemon.
fn occupant(world: &World, plan: &Plan) -> Occupant {
    Occupant::of(&world.state_dir(&plan.runtime_dir), &world.at("proc"))
}

/// The files that an installation under a supervisor consists of.
pub(crate) fn wanted(
    world: &World,
    plan: &Plan,
    user: &str,
    choice: Choice,
) -> Result<Vec<Managed>, Failed> {
    let files = Files::of(world).ok_or_else(|| Failed::new("HOME is not set"))?;
    let kind = choice.kind(world);
    let record = Record { kind, place: place(world, &files, kind)? };
    let mut all = vec![script_file(world, &files, plan)];
    all.extend(service_files(world, &files, &record, user));
    Ok(all)
}

fn script_file(world: &World, files: &Files, plan: &Plan) -> Managed {
    script::wanted(world, files, &plan.launcher, &plan.runtime_dir, plan.without_iptables)
}

fn write_script(ui: &mut Ui, world: &World, files: &Files, plan: &Plan) -> Result<Put, Failed> {
    let put = write::put(&script_file(world, files, plan), ui, &plan.policy)?;
    fs::create_dir_all(&files.state).map_err(run::cannot("create", &files.state))?;
    Ok(put)
}

fn wait(files: &Files, plan: &Plan, kind: Kind) -> std::io::Result<()> {
    let hopeless = || {
        kind == Kind::Plain
            && pidfile::holder(&files.pid()).is_none_or(|holder| holder.starts >= FAILED_STARTS)
    };
    ready::wait_unless(&plan.runtime_dir.join("docker.sock"), API_LIMIT, hopeless)
}

fn explain_failure(ui: &mut Ui, files: &Files) {
    let Some((path, text)) = files.last_log() else { return };
    ui.error(&format!("Failed to start the daemon. The end of its log, {}:", path.display()));
    report::log(ui, &text);
}

/// Stops the daemon and removes the service, not the script, the log and the record.
fn remove_service(
    ui: &mut Ui,
    world: &World,
    files: &Files,
    record: &Record,
) -> Result<(), Failed> {
    match record.kind {
        Kind::Openrc => openrc::remove(ui, world, &record.place),
        Kind::Runit => runit::remove(ui, world, &record.place),
        Kind::S6 => s6::remove(ui, world, &record.place),
        Kind::Plain => plain::stop(ui, files),
    }
}

/// Undoes [`install`], if there is something to undo. Settings and files of the user stay.
pub(crate) fn uninstall(ui: &mut Ui, world: &World, problems: &mut Vec<String>) {
    match stop(ui, world) {
        Ok(()) => remove_files(ui, world, problems),
        // Whatever still runs needs its files.
        Err(failed) => problems.push(failed.text),
    }
}

/// Stops the daemon and removes its service, if there is one, but not the files that say how the daemon was started. Can be
/// repeated.
pub(crate) fn stop(ui: &mut Ui, world: &World) -> Result<(), Failed> {
    let Some(files) = Files::of(world) else { return Ok(()) };
    let Some(record) = Record::read(&files) else { return Ok(()) };
    remove_service(ui, world, &files, &record)?;
    ui.info(&format!("Uninstalled the service of {}", record.kind.name()));
    Ok(())
}

/// Removes what [`stop`] leaves. Settings and files of the user stay.
pub(crate) fn remove_files(ui: &mut Ui, world: &World, problems: &mut Vec<String>) {
    let Some(files) = Files::of(world) else { return };
    if files.settings().exists() {
        ui.info(&format!("Your own settings stay in {}", files.settings().display()));
    }
    write::put_away_or_note(ui, &files.script(), problems);
    let swarm = files.swarm();
    run::note(problems, &swarm, crate::swarm::remove(ui, &swarm).map(drop));
    run::remove(problems, &files.record());
    // By their names: the directory may be one that others use, too.
    let old_log = files.log().with_extension("log.1");
    for file in [files.pid(), files.state.join("openrc.pid"), files.log(), old_log] {
        run::remove(problems, &file);
    }
    run::note(problems, &files.log_dir(), purge::remove_tree(&files.log_dir()));
    for dir in [&files.config, &files.state] {
        let _ = fs::remove_dir(dir);
    }
}
