//! `install`: writes the unit, starts the daemon, waits until it answers, enables it, and points the docker CLI at it.
//!
//! Nothing is touched before everything that could be missing has been looked at. Every step may be repeated. Files that
//! an earlier `install` wrote are brought up to date; files that the user edited or wrote stay, and are used
//! ([`crate::managed`]).

use std::path::Path;
use std::time::Duration;

use doctor::facts::{Facts, RuntimeState};
use doctor::findings::{self, Finding, Severity, Wish};
use doctor::managed::{self, Managed};
use doctor::names::{SOCKET_UNIT, UNIT};
use doctor::place::{World, dir_of, docker_host, name_of};
use doctor::probe::Probe;
use doctor::systemd::{property, with_runtime_dir};
use doctor::{supervisor, units};
use hostenv::shellwords::quoted;

use crate::cli::Cli;
use crate::plan::{Plan, make_private, version};
use crate::run::{self, Failed};
use crate::swarm::{self, Order, Starter};
use crate::systemd::{self, Systemctl};
use crate::ui::Ui;
use crate::write::{Policy, Put};
use crate::{activation, context, purge, ready, report, supervise};

/// dockerd has said that it is ready before this begins.
const API_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn run(
    ui: &mut Ui,
    world: &World,
    facts: &Facts,
    wish: Wish,
    options: &Cli,
) -> Result<(), Failed> {
    let findings = findings::diagnose(facts, wish);
    let manager = facts.works(Probe::UserManager).then(|| Systemctl::find(world)).flatten();
    if let Some(file) = &options.print {
        suits(manager.as_ref(), options)?;
        let plan = plan(world, facts, &findings, wish, options, manager.is_some())?;
        let files = wanted(world, &plan, facts, options, manager.is_some())?;
        return print(ui, &files, Path::new(file));
    }
    let fatal: Vec<_> =
        findings.iter().filter(|f| f.severity != Severity::Advisory).cloned().collect();
    if fatal.iter().any(|finding| finding.severity == Severity::Fatal) {
        report::findings(ui, &fatal);
        report::block(ui, &fatal);
        return Err(Failed::silent(1));
    }
    suits(manager.as_ref(), options)?;
    report::summary(ui, &findings);
    let plan = plan(world, facts, &findings, wish, options, manager.is_some())?;
    match (manager, options.supervise) {
        (Some(manager), _) => with_systemd(ui, world, &plan, &manager, facts)?,
        (None, Some(choice)) => supervise::install(ui, world, &plan, facts, choice)?,
        (None, None) => by_hand(ui, world, &plan, facts, options.swarm.as_ref())?,
    }
    let host = docker_host(&plan.runtime_dir);
    let docker = context::Cli::new(plan.docker.clone(), with_runtime_dir(world));
    docker.adopt(ui, world, &host, wish.force)?;
    swarm::next_steps(ui, world, options.swarm.as_ref());
    trailer(ui, &plan, facts);
    Ok(())
}

fn plan(
    world: &World,
    facts: &Facts,
    findings: &[Finding],
    wish: Wish,
    options: &Cli,
    systemd: bool,
) -> Result<Plan, Failed> {
    let tools = &facts.tools;
    // The doctor has made sure of all four.
    let (Some(launcher), Some(docker), Some(rootlesskit), Some(runtime_dir)) = (
        tools.launcher.clone(),
        tools.docker.clone(),
        tools.rootlesskit.clone(),
        facts.account.runtime.dir.clone(),
    ) else {
        return Err(Failed::new(
            "a prerequisite is missing\nhint: run dockerd-rootless-setuptool.sh check to see which one",
        ));
    };
    let without_iptables = findings::without_iptables(findings, wish);
    let socket = options.socket;
    let policy = Policy { force: wish.force, printer: printer(world, wish, options) };
    let starter = match options.supervise {
        _ if systemd => Starter::Systemd,
        Some(_) => Starter::Supervisor,
        None => Starter::Hand,
    };
    let swarm = Order::of(world, options.swarm.as_ref(), starter);
    Ok(Plan { launcher, docker, rootlesskit, runtime_dir, without_iptables, socket, swarm, policy })
}

/// This command, for printing what it would write.
fn printer(world: &World, wish: Wish, options: &Cli) -> String {
    let supervise = options.supervise.map(|choice| choice.kind(world).name());
    let swarm = options.swarm.as_ref().map(swarm::Choice::value);
    let words = [
        (wish.skip_iptables, " --skip-iptables".to_owned()),
        (options.socket, " --socket".to_owned()),
        (supervise.is_some(), format!(" --supervise={}", supervise.unwrap_or_default())),
        (options.swarm.is_some(), format!(" --swarm={}", swarm.unwrap_or_default())),
    ];
    let words = words.into_iter().filter_map(|(given, word)| given.then_some(word));
    managed::command(world, "install") + &words.collect::<String>()
}

fn wanted(
    world: &World,
    plan: &Plan,
    facts: &Facts,
    options: &Cli,
    systemd: bool,
) -> Result<Vec<Managed>, Failed> {
    let mut files = match options.supervise {
        _ if systemd => units(world, plan)?,
        Some(choice) => supervise::wanted(world, plan, &facts.account.name, choice)?,
        None => Vec::new(),
    };
    files.extend(plan.swarm.wanted());
    Ok(files)
}

fn units(world: &World, plan: &Plan) -> Result<Vec<Managed>, Failed> {
    units::wanted(world, &plan.launcher, plan.without_iptables, plan.socket)
        .ok_or_else(|| Failed::new("HOME is not set"))
}

fn print(ui: &mut Ui, files: &[Managed], path: &Path) -> Result<(), Failed> {
    if let Some(file) = files.iter().find(|file| file.path == path) {
        ui.plain(file.text.strip_suffix('\n').unwrap_or(&file.text));
        return Ok(());
    }
    let names: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let shown = path.display();
    Err(Failed::new(format!("install does not write {shown}\nhint: the files it writes: {names}")))
}

fn suits(manager: Option<&Systemctl>, options: &Cli) -> Result<(), Failed> {
    let wrong = match (manager, options) {
        (Some(_), Cli { supervise: Some(_), .. }) => {
            "the user's systemd is available, so --supervise is not needed\n\
             hint: omit --supervise"
        }
        (None, Cli { socket: true, .. }) => {
            "--socket needs the user's systemd, which cannot be reached\n\
             hint: run dockerd-rootless-setuptool.sh check to see why"
        }
        _ => return Ok(()),
    };
    Err(Failed::new(wrong))
}

fn with_systemd(
    ui: &mut Ui,
    world: &World,
    plan: &Plan,
    manager: &Systemctl,
    facts: &Facts,
) -> Result<(), Failed> {
    let units = units(world, plan)?;
    refuse(&units, plan)?;
    plan.swarm.wanted().map_or(Ok(()), |file| file.check())?;
    if supervisor::is_installed(world) {
        // From a time when systemd could not be reached; two daemons would be in each other's way.
        let mut problems = Vec::new();
        supervise::uninstall(ui, world, &mut problems);
        if !problems.is_empty() {
            return Err(Failed::new(problems.join("\n")));
        }
    }
    if !plan.socket {
        activation::remove(ui, world, manager, !plan.policy.force)?;
    }
    let mut kept = false;
    let mut changed = plan.swarm.carry_out(ui, &plan.policy)?;
    if changed && !manager.quiet(&["daemon-reload"]) {
        return Err(Failed::new("`systemctl --user daemon-reload` failed"));
    }
    for unit in &units {
        let put = manager.put(ui, unit, &plan.policy)?;
        kept |= put == Put::Kept;
        changed |= put == Put::Replaced;
    }
    if plan.socket {
        activation::start(ui, manager)?;
    }
    unseen_variables(ui, world);
    let running = manager.quiet(&["--no-pager", "status", UNIT]);
    let explain_failure = |ui: &mut Ui| {
        if kept {
            ui.error("It was started with your own unit, not with this tool's; see above");
        }
        explain_failure(ui, world, plan)
    };
    if changed && running {
        ui.warning(&format!(
            "The running daemon does not use the new settings yet; to apply them, run: `systemctl --user restart \
             {UNIT}`"
        ));
    }
    if !running {
        ui.info(&format!("Starting systemd unit {UNIT}"));
        // After three failures within a minute systemd would refuse, though the cause may be gone by now.
        manager.quiet(&["reset-failed", UNIT]);
        if !manager.traced(ui, &["start", UNIT])?.success() {
            explain_result(ui, world);
            if manager.is_mislabelled(&units[0].path) {
                explain_label(ui, &units[0].path);
            }
            return Err(explain_failure(ui));
        }
    }
    let socket = plan.runtime_dir.join("docker.sock");
    if let Err(error) = ready::wait(&socket, API_LIMIT) {
        let seconds = API_LIMIT.as_secs();
        ui.error(&format!(
            "the daemon did not answer on {} within {seconds} s: {error}",
            socket.display()
        ));
        return Err(explain_failure(ui));
    }
    if !manager.traced(ui, &["--no-pager", "--full", "status", UNIT])?.success() {
        return Err(explain_failure(ui));
    }
    version(ui, world, plan)?;
    let unit = if plan.socket { SOCKET_UNIT } else { UNIT };
    let enabled = manager.traced(ui, &["enable", unit])?;
    if !enabled.success() {
        let text = format!(
            "the daemon is running, but `systemctl --user enable {unit}` failed with {enabled}"
        );
        return Err(Failed { text, code: run::code_of(enabled) });
    }
    if plan.socket && manager.quiet(&["is-enabled", UNIT]) {
        manager.disable(ui, &units[0].path)?;
    }
    ui.info(&format!("Installed {UNIT} successfully."));
    ui.info(&format!("To control {UNIT}, run: `systemctl --user (start|stop|restart) {UNIT}`"));
    if plan.socket {
        ui.info(&format!(
            "{UNIT} starts on the first connection; containers with a restart policy also start only then"
        ));
    }
    ui.info(&format!(
        "To run {unit} on system startup, run: `sudo loginctl enable-linger {}`",
        quoted(&facts.account.name)
    ));
    ui.plain("");
    Ok(())
}

/// Finds what no step could go on with, before the first of them.
fn refuse(units: &[Managed], plan: &Plan) -> Result<(), Failed> {
    for unit in units {
        unit.check()?;
    }
    let Some(service) = units.first().filter(|_| plan.socket && !plan.policy.force) else {
        return Ok(());
    };
    let state = service.state()?;
    let takes_socket =
        || hostenv::file::text(&service.path).is_ok_and(|text| text.contains("fd://"));
    if state.is_users() && !takes_socket() {
        let shown = service.path.display();
        return Err(Failed::new(format!(
            "{shown} {} and does not support socket activation\n\
             hint: add `-H fd://` to its ExecStart=, or use --force to replace it",
            state.words()
        )));
    }
    Ok(())
}

/// The launcher's variables in this shell mean nothing to a service, which surprises.
fn unseen_variables(ui: &mut Ui, world: &World) {
    let names = world.env.iter().map(|(name, _)| name.to_string_lossy());
    for name in names.filter(|name| name.starts_with("DOCKERD_ROOTLESS_")) {
        let how = match &*name {
            hostenv::vars::DOCKERD_ROOTLESS_SWARM => "install --swarm=VALUE".to_owned(),
            name if name.starts_with("DOCKERD_ROOTLESS_ROOTLESSKIT_") => {
                format!("systemctl --user edit {UNIT}")
            }
            _ => continue,
        };
        ui.warning(&format!(
            "The service does not inherit {name} from this shell; set it with `{how}`"
        ));
    }
}

/// systemd's own word about the failure, where it says more than the journal.
fn explain_result(ui: &mut Ui, world: &World) {
    match property(world, "Result", UNIT).as_deref() {
        Some("timeout") => ui.error("The daemon was not ready within its unit's TimeoutStartSec"),
        Some("oom-kill") => ui.error("The kernel killed the daemon: out of memory"),
        Some("resources") => ui.error("systemd could not start the unit: out of resources"),
        _ => {}
    }
}

/// systemd itself says no more than "Access denied".
fn explain_label(ui: &mut Ui, unit: &Path) {
    ui.error(&format!(
        "The SELinux label of {} is not the one that the policy has for this path, so SELinux may not allow systemd to \
         start it. To restore the label, run:",
        unit.display()
    ));
    ui.error(&format!("  restorecon -R {}", quoted(dir_of(unit))));
}

fn explain_failure(ui: &mut Ui, world: &World, plan: &Plan) -> Failed {
    ui.error("Failed to start the daemon. Its log:");
    ui.error(&format!("  journalctl -n 20 --no-pager --user --unit {UNIT}"));
    let journal = systemd::journal(world, name_of(&plan.launcher));
    report::log(ui, &journal);
    if let Some(command) = purge::advice(world, &plan.rootlesskit, false) {
        ui.error("To start over (this deletes all containers and images), run:");
        ui.error(&format!("  dockerd-rootless-setuptool.sh uninstall -f && {command}"));
    }
    Failed::silent(1)
}

fn by_hand(
    ui: &mut Ui,
    world: &World,
    plan: &Plan,
    facts: &Facts,
    swarm: Option<&swarm::Choice>,
) -> Result<(), Failed> {
    plan.swarm.carry_out(ui, &plan.policy)?;
    if facts.account.runtime.state == RuntimeState::Unset {
        make_private(&plan.runtime_dir).map_err(run::cannot("create", &plan.runtime_dir))?;
    }
    let flags = if plan.without_iptables { " --iptables=false" } else { "" };
    ui.info(&format!(
        "systemd not detected, {} needs to be started manually:",
        name_of(&plan.launcher).to_string_lossy()
    ));
    let path = format!("{}:/sbin:/usr/sbin:$PATH", quoted(dir_of(&plan.launcher)));
    let name = quoted(name_of(&plan.launcher));
    let command = format!("{}PATH={path} {name}{flags}", swarm::assignment(world, swarm));
    ui.plain("");
    let variable = hostenv::vars::XDG_RUNTIME_DIR;
    if world.env.nonempty(variable).is_none() {
        let dir = quoted(&plan.runtime_dir);
        ui.plain(&format!("{variable}={dir} {command}"));
    } else {
        ui.plain(&command);
    }
    ui.plain("");
    ui.info(
        "To start the daemon automatically and keep it running, run install again with --supervise",
    );
    Ok(())
}

fn trailer(ui: &mut Ui, plan: &Plan, facts: &Facts) {
    // One directory as a rule.
    let (ours, docker) = (dir_of(&plan.launcher), dir_of(&plan.docker));
    let dirs = [ours, docker].map(quoted);
    let bin = if ours == docker { dirs[1].clone() } else { dirs.join(":") };
    let dir = quoted(&plan.runtime_dir);
    ui.plain("");
    ui.info("Make sure the following environment variable(s) are set (or add them to ~/.bashrc):");
    match facts.account.runtime.state {
        RuntimeState::Unset => {
            ui.plain(&format!("# WARNING: delete {dir} at every logout"));
            ui.plain(&format!("export XDG_RUNTIME_DIR={dir}"));
        }
        RuntimeState::Found => ui.plain(&format!("export XDG_RUNTIME_DIR={dir}")),
        _ => {}
    }
    ui.plain(&format!("export PATH={bin}:$PATH"));
    ui.plain("");
    ui.info("Some applications may require the following environment variable too:");
    ui.plain(&format!("export DOCKER_HOST={}", quoted(docker_host(&plan.runtime_dir))));
    ui.plain("");
}
