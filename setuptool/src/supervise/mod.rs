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
mod detect;
mod log;
mod openrc;
mod orphans;
mod pidfile;
mod plain;
mod runit;
mod s6;
mod script;
mod service;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostenv::state_dir::Occupant;

use crate::facts::Facts;
use crate::install::{self, Plan};
use crate::managed::{Managed, Policy, Put};
use crate::place::World;
use crate::probe::make_private;
use crate::run::Failed;
use crate::systemd::LAST_LINES;
use crate::ui::Ui;
use crate::{managed, ready, symptoms};

pub(crate) use detect::best;

/// Image stores of many layers take a while, and so does a service directory until it is seen.
const API_LIMIT: Duration = Duration::from_secs(90);
/// A start that fails so often does not get better by waiting.
const FAILED_STARTS: u32 = 4;
/// The last lines of the log that are shown after a failure.
const LAST_WORDS: usize = 5;

/// Who keeps the daemon running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A service of OpenRC.
    Openrc,
    /// A directory for runsvdir(8).
    Runit,
    /// A directory for s6-svscan(8).
    S6,
    /// This program.
    Plain,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 4] = [Kind::Openrc, Kind::Runit, Kind::S6, Kind::Plain];

    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Openrc => "openrc",
            Kind::Runit => "runit",
            Kind::S6 => "s6",
            Kind::Plain => "plain",
        }
    }

    /// The kind of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What `--supervise` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Whatever suits the host.
    Auto,
    /// This one.
    Named(Kind),
}

impl Choice {
    /// The kind that this means here.
    pub(crate) fn kind(self, world: &World) -> Kind {
        match self {
            Self::Named(kind) => kind,
            Self::Auto => best(world),
        }
    }
}

/// Where the files of an installation are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// `~/.config/docker-rootless`.
    config: PathBuf,
    /// `~/.local/state/docker-rootless`: what is the same on every boot must not be below `/run`.
    state: PathBuf,
}

impl Files {
    /// Those of this user; `None` without a home.
    pub(crate) fn of(world: &World) -> Option<Self> {
        Some(Self {
            config: world.config_home()?.join("docker-rootless"),
            state: world.state_home()?.join("docker-rootless"),
        })
    }

    /// The script that becomes the launcher.
    pub(crate) fn script(&self) -> PathBuf {
        self.config.join("run")
    }

    /// The user's own settings, which the script reads.
    pub(crate) fn settings(&self) -> PathBuf {
        self.config.join("env")
    }

    fn record(&self) -> PathBuf {
        self.config.join("supervisor")
    }

    /// Lock and pid of our own supervisor.
    fn pid(&self) -> PathBuf {
        self.state.join("supervise.pid")
    }

    /// The log of our own supervisor; the logger of a service gets a directory.
    fn log(&self) -> PathBuf {
        self.state.join("docker.log")
    }

    /// The daemon's last words, and the file that they are in. A log that is not the newest is of another kind of
    /// supervisor, which was there before.
    pub(crate) fn last_log(&self) -> Option<(PathBuf, String)> {
        let logs = [self.log(), self.log_dir().join("current")].into_iter();
        let written = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let newest = logs.filter(|path| path.is_file()).max_by_key(written)?;
        let text = String::from_utf8_lossy(&hostenv::file::read(&newest).ok()?).into_owned();
        Some((newest, last_lines(&text, LAST_LINES)))
    }

    fn log_dir(&self) -> PathBuf {
        self.state.join("log")
    }
}

/// An installation: its kind, and the file or directory that it consists of besides ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    kind: Kind,
    place: PathBuf,
}

impl Record {
    fn read(files: &Files) -> Option<Self> {
        let text = hostenv::file::text(&files.record()).ok()?;
        let (kind, place) = text.trim_end_matches('\n').split_once(' ')?;
        Some(Self { kind: Kind::from_name(kind)?, place: place.into() })
    }

    fn write(&self, files: &Files) -> Result<(), Failed> {
        let path = files.record();
        let text = format!("{} {}\n", self.kind.name(), self.place.display());
        fs::write(&path, text)
            .map_err(|error| Failed::new(format!("cannot write {}: {error}", path.display())))
    }
}

/// What the kinds need to know.
struct Job<'a> {
    world: &'a World,
    files: &'a Files,
    user: &'a str,
    policy: &'a Policy,
}

/// What became of the start.
enum Begun {
    /// The daemon is on its way.
    Started {
        /// How to control it.
        words: Vec<String>,
        /// A file of the user's starts it.
        kept: bool,
    },
    /// Somebody else has to do the rest, and was told.
    Left,
}

/// Installs the daemon under a supervisor, starts it and waits until it answers.
///
/// # Errors
/// There is no such supervisor, another daemon runs, a file cannot be written, or the daemon does not start.
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
    make_private(&plan.runtime_dir).map_err(|error| {
        Failed::new(format!("cannot create {}: {error}", plan.runtime_dir.display()))
    })?;
    let script = write_script(ui, world, &files, plan)?;
    wanted.write(&files)?;
    let job = Job { world, files: &files, user: &facts.account.name, policy: &plan.policy };
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
    install::version(ui, world, plan)?;
    ui.info(&format!("Installed the daemon under {} successfully.", kind.name()));
    for line in words {
        ui.info(&line);
    }
    if script == Put::Replaced && running {
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
///
/// # Errors
/// There is no such supervisor, or no home.
pub(crate) fn wanted(
    world: &World,
    plan: &Plan,
    user: &str,
    choice: Choice,
) -> Result<Vec<Managed>, Failed> {
    let files = Files::of(world).ok_or_else(|| Failed::new("HOME is not set"))?;
    let kind = choice.kind(world);
    let record = Record { kind, place: place(world, &files, kind)? };
    let mut all = vec![script(world, &files, plan)];
    all.extend(service_files(world, &files, &record, user));
    Ok(all)
}

/// Those of the installation that is here, whatever runs now, with another launcher.
pub(crate) fn wanted_files(
    world: &World,
    launcher: &Path,
    runtime_dir: &Path,
    without_iptables: bool,
    user: &str,
) -> Vec<Managed> {
    let Some((files, record)) = installed(world) else { return Vec::new() };
    let mut all = vec![script::wanted(world, &files, launcher, runtime_dir, without_iptables)];
    all.extend(service_files(world, &files, &record, user));
    all
}

/// The files of the installation that is here, and its kind.
pub(crate) fn installed_files(world: &World) -> Vec<(Kind, PathBuf)> {
    let Some((files, record)) = installed(world) else { return Vec::new() };
    let service = service_files(world, &files, &record, "").into_iter().map(|file| file.path);
    std::iter::once(files.script()).chain(service).map(|path| (record.kind, path)).collect()
}

fn installed(world: &World) -> Option<(Files, Record)> {
    let files = Files::of(world)?;
    let record = Record::read(&files)?;
    Some((files, record))
}

fn service_files(world: &World, files: &Files, record: &Record, user: &str) -> Vec<Managed> {
    let place = &record.place;
    match record.kind {
        Kind::Openrc => vec![openrc::wanted(world, files, place, user)],
        Kind::Runit => runit::wanted(world, files, place),
        Kind::S6 => s6::wanted(world, files, place),
        Kind::Plain => Vec::new(),
    }
}

fn script(world: &World, files: &Files, plan: &Plan) -> Managed {
    script::wanted(world, files, &plan.launcher, &plan.runtime_dir, plan.without_iptables)
}

fn write_script(ui: &mut Ui, world: &World, files: &Files, plan: &Plan) -> Result<Put, Failed> {
    let put = script(world, files, plan).put(ui, &plan.policy)?;
    fs::create_dir_all(&files.state).map_err(|error| {
        Failed::new(format!("cannot create {}: {error}", files.state.display()))
    })?;
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
    for line in last_lines(&text, LAST_WORDS).lines() {
        ui.aside(&format!("    {line}"));
    }
    if let Some(symptom) = symptoms::find(&text) {
        ui.error(&format!("The log contains \"{}\": {}", symptom.token, symptom.cause));
        ui.error(&format!("  {}", symptom.fix));
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
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

/// Whether the daemon is one of [`install`].
pub(crate) fn is_installed(world: &World) -> bool {
    Files::of(world).is_some_and(|files| Record::read(&files).is_some())
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
///
/// # Errors
/// It still runs.
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
    let script = files.script();
    match managed::put_away(&script) {
        Ok(away) => away.tell(ui, &script),
        Err(error) => note(problems, &script, Err(error)),
    }
    let record = files.record();
    note(problems, &record, hostenv::file::remove_if_present(&record).map(drop));
    // By their names: the directory may be one that others use, too.
    let old_log = files.log().with_extension("log.1");
    for file in [files.pid(), files.state.join("openrc.pid"), files.log(), old_log] {
        note(problems, &file, hostenv::file::remove_if_present(&file).map(drop));
    }
    match crate::purge::remove_tree(&files.log_dir()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        other => note(problems, &files.log_dir(), other),
    }
    for dir in [&files.config, &files.state] {
        let _ = fs::remove_dir(dir);
    }
}

fn note(problems: &mut Vec<String>, path: &Path, result: std::io::Result<()>) {
    if let Err(error) = result {
        problems.push(format!("cannot remove {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_end_of_the_newest_log() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { config: dir.path().to_owned(), state: dir.path().to_owned() };
        assert_eq!(files.last_log(), None);
        let current = files.log_dir().join("current");
        fs::create_dir(files.log_dir()).unwrap();
        fs::write(&current, "of another kind\n").unwrap();
        let file = fs::File::options().write(true).open(&current).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(files.last_log(), Some((current, "of another kind".to_owned())));
        let text: Vec<String> = (0..=LAST_LINES).map(|number| number.to_string()).collect();
        fs::write(files.log(), text.join("\n")).unwrap();
        assert_eq!(files.last_log(), Some((files.log(), text[1..].join("\n"))));
    }
}
