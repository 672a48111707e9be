//! `check`: everything the doctor knows, as text or as JSON. Changes nothing on the host.
//!
//! Exit status: 1 if something is fatal, otherwise 0.

use std::path::Path;

use drivers::PortDriver;
use serde::Serialize;

use crate::report;
use crate::ui::Ui;
use doctor::facts::{Facts, Found};
use doctor::findings::limits::{self, Limit};
use doctor::findings::script::script;
use doctor::findings::{self, Finding, Severity, Wish};
use doctor::managed::State;
use doctor::place::{World, docker_host};

/// The JSON document. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    ok: bool,
    distribution: &'a str,
    user: &'a str,
    uid: u32,
    kernel: &'a str,
    effective: Effective<'a>,
    findings: &'a [Finding],
    limits: &'a [Limit],
    /// Files of an earlier installation, and what `install` would do with them.
    files: Vec<File<'a>>,
    admin_script: Option<String>,
}

#[derive(Debug, Serialize)]
struct Effective<'a> {
    net: Option<&'a str>,
    port_driver: Option<&'a str>,
    /// As `docker info` calls it.
    storage_driver: Option<&'a str>,
    systemd: bool,
    runtime_dir: Option<&'a Path>,
    docker_host: Option<String>,
    data_root: Option<&'a Path>,
    launcher: Option<&'a Path>,
    rootlesskit: Option<&'a Path>,
    dockerd: Option<&'a Path>,
    docker: Option<&'a Path>,
    iptables: Option<&'a Path>,
    unit: Option<std::path::PathBuf>,
    socket_unit: Option<std::path::PathBuf>,
    /// What `install --supervise` would take, where there is no systemd.
    supervisor: Option<&'static str>,
}

/// A file that is there, and that `install` would write.
#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a Path,
    /// `current`, `outdated`, `unsealed` (by an early version, without checksums), `edited`, `foreign`, `masked`, `absent` (a
    /// link to nothing), or none of these if it cannot be read.
    state: Option<State>,
    /// `nothing`, `update`, `keep`, `replace`, `create`, `remove` or `fail`.
    install: &'static str,
}

/// What `install` with these options would do with a file; `--socket` is not among them.
fn fate(file: &Found, wish: Wish) -> &'static str {
    let socket = file.path.extension().is_some_and(|end| end == "socket");
    match &file.state {
        Ok(State::Edited | State::Foreign) if !wish.force => "keep",
        Ok(State::Masked) | Err(_) if !socket => "fail",
        Ok(State::Masked) => "nothing",
        _ if socket => "remove",
        Ok(State::Edited | State::Foreign) => "replace",
        Ok(State::Absent) => "create",
        Ok(State::Current) => "nothing",
        Ok(State::Outdated | State::Unsealed) => "update",
        Err(_) => "fail",
    }
}

pub(crate) fn run(ui: &mut Ui, world: &World, facts: &Facts, wish: Wish, json: bool) -> u8 {
    let findings = findings::diagnose(facts, wish);
    let limits = limits::predict(facts);
    let ok = findings.iter().all(|finding| finding.severity != Severity::Fatal);
    if json {
        ui.plain(&document(world, facts, wish, &findings, &limits));
        return u8::from(!ok);
    }
    report::findings(ui, &findings);
    if findings::can_judge(facts) {
        effective(ui, facts, &limits);
        files(ui, facts, wish);
    }
    report::block(ui, &findings);
    if ok {
        ui.info("Requirements are satisfied");
    }
    u8::from(!ok)
}

fn effective(ui: &mut Ui, facts: &Facts, limits: &[Limit]) {
    if let (Some(net), Some(port)) = (facts.tools.net.name(), port_driver(facts)) {
        ui.info(&format!("Network driver: {net}, port driver: {port}"));
    }
    if let Some(driver) = findings::storage_driver(facts) {
        ui.info(&format!("Storage driver: {driver}"));
    }
    let (line, reasons) = limit_lines(limits);
    ui.info(&line);
    for reason in reasons {
        ui.plain(&format!("    why: {reason}"));
    }
}

/// What `install` would do, where that is not a finding.
fn files(ui: &mut Ui, facts: &Facts, wish: Wish) {
    for file in &facts.files {
        let shown = file.path.display();
        match fate(file, wish) {
            "update" => ui.info(&format!("install would update {shown}")),
            "replace" => ui.info(&format!("install would replace {shown} and keep a copy")),
            "create" => {
                ui.info(&format!("install would follow the link {shown} and write to its target"));
            }
            "remove" => {
                ui.info(&format!("install would remove {shown}; install --socket keeps it"));
            }
            _ => {}
        }
    }
}

/// Which options of `docker run` hold, and why the others do not, each reason once.
fn limit_lines(limits: &[Limit]) -> (String, Vec<&str>) {
    let options = |works: bool| {
        let names = limits.iter().filter(|limit| limit.works == works).map(|limit| limit.option);
        names.collect::<Vec<_>>().join(", ")
    };
    let line = match (options(true), options(false)) {
        (all, none) if none.is_empty() => format!("Resource limits that work: {all}"),
        (none, others) if none.is_empty() && limits.iter().any(|limit| limit.fails) => {
            format!("Resource limits of `docker run` that do not work: {others}")
        }
        (none, _) if none.is_empty() => {
            "Resource limits of `docker run` will be ignored".to_owned()
        }
        (some, others) => format!("Resource limits that work: {some}; that do not work: {others}"),
    };
    let mut reasons: Vec<&str> =
        limits.iter().filter_map(|limit| limit.why_not.as_deref()).collect();
    reasons.dedup();
    (line, reasons)
}

fn port_driver(facts: &Facts) -> Option<&str> {
    let default = || facts.tools.net.port_driver().map(PortDriver::name);
    facts.tools.choices.port_driver().or_else(default)
}

fn document(
    world: &World,
    facts: &Facts,
    wish: Wish,
    findings: &[Finding],
    limits: &[Limit],
) -> String {
    let ok = findings.iter().all(|finding| finding.severity != Severity::Fatal);
    let files = facts.files.iter().map(|file| {
        let state = file.state.as_ref().ok().copied();
        File { path: &file.path, state, install: fate(file, wish) }
    });
    let tools = &facts.tools;
    let runtime_dir = facts.account.runtime.dir.as_deref();
    let document = Document {
        version: 1,
        ok,
        distribution: &facts.distro.name,
        user: &facts.account.name,
        uid: facts.account.uid,
        kernel: &facts.host.release,
        effective: Effective {
            net: tools.net.name(),
            port_driver: port_driver(facts),
            storage_driver: findings::storage_driver(facts),
            systemd: facts.works(doctor::probe::Probe::UserManager),
            runtime_dir,
            docker_host: runtime_dir.map(docker_host),
            data_root: facts.storage.data_root.as_deref(),
            launcher: tools.launcher.as_deref(),
            rootlesskit: tools.rootlesskit.as_deref(),
            dockerd: tools.dockerd.as_deref(),
            docker: tools.docker.as_deref(),
            iptables: tools.iptables.as_deref(),
            unit: world.unit().filter(|unit| unit.exists()),
            socket_unit: world.socket_unit().filter(|unit| unit.exists()),
            supervisor: (!facts.works(doctor::probe::Probe::UserManager))
                .then(|| doctor::supervisor::best(world).name()),
        },
        findings,
        limits,
        files: files.collect(),
        admin_script: script(findings),
    };
    // A path that is no UTF-8 is the one thing that can go wrong.
    serde_json::to_string_pretty(&document).unwrap_or_else(|error| {
        serde_json::json!({ "version": 1, "ok": false, "error": error.to_string() }).to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(option: &'static str, why_not: Option<&str>) -> Limit {
        let why_not = why_not.map(str::to_owned);
        Limit { option, controller: "x", works: why_not.is_none(), why_not, fails: false }
    }

    #[test]
    fn limits_that_do_not_hold_have_a_reason() {
        for (limits, line, reasons) in [
            (
                vec![limit("--cpus", None), limit("--memory", None)],
                "Resource limits that work: --cpus, --memory",
                vec![],
            ),
            (
                vec![limit("--cpus", Some("v1")), limit("--memory", Some("v1"))],
                "Resource limits of `docker run` will be ignored",
                vec!["v1"],
            ),
            (
                vec![
                    Limit { fails: true, ..limit("--cpus", Some("refused")) },
                    limit("--memory", Some("absent")),
                ],
                "Resource limits of `docker run` that do not work: --cpus, --memory",
                vec!["refused", "absent"],
            ),
            (
                vec![
                    limit("--cpus", Some("a")),
                    limit("--cpuset-cpus", Some("b")),
                    limit("--memory", None),
                ],
                "Resource limits that work: --memory; that do not work: --cpus, --cpuset-cpus",
                vec!["a", "b"],
            ),
        ] {
            assert_eq!(limit_lines(&limits), (line.to_owned(), reasons));
        }
    }
}
