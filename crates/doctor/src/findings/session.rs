//! What a login session brings: the runtime directory, the service manager, the bus, lingering.

use hostenv::shellwords::quoted;

use super::{Finding, Wish, make_writable};
use crate::distro::Package;
use crate::facts::{Facts, RuntimeState};
use crate::managed::State;
use crate::place::docker_host;
use crate::probe::{Outcome, Probe};
use crate::remedy::Remedy;
use crate::symptoms;

/// Room in `sockaddr_un` (unix(7)), the closing NUL included.
const SOCKET_PATH_MAX: usize = 108;

pub(super) fn examine(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    runtime_dir(facts, findings);
    if facts.account.runtime.below_tmp {
        findings.push(
            Finding::advisory(
                "runtime-dir-tmp",
                "XDG_RUNTIME_DIR is below /tmp",
                "tmp cleaners delete files there, and another user could create a directory with that name first",
            )
            .remedy(runtime_dir_remedy(facts)),
        );
    }
    if facts.account.runtime.usable().is_some() {
        manager(facts, wish, findings);
    }
    daemon(facts, findings);
    if facts.account.system_unit {
        findings.push(
            Finding::advisory(
                "system-unit",
                "this process runs in a system unit's cgroup (/system.slice)",
                "a system unit with User= is not supported: the daemon could not manage cgroups",
            )
            .fix("instead of this unit, use the one that install creates: dockerd-rootless-setuptool.sh install"),
        );
    }
}

fn runtime_dir(facts: &Facts, findings: &mut Vec<Finding>) {
    let account = &facts.account;
    let why = "the daemon keeps its sockets and its state in XDG_RUNTIME_DIR; su and sudo do not set this variable, \
               or keep the previous user's value";
    let dir = account.runtime.dir.as_deref();
    let shown = dir.map(|dir| dir.display().to_string()).unwrap_or_default();
    let seen = match &account.runtime.state {
        RuntimeState::Fine => {
            too_long(dir, findings);
            return;
        }
        RuntimeState::Found => {
            findings.push(
                Finding::advisory(
                    "runtime-dir-found",
                    format!("XDG_RUNTIME_DIR is not set; using {shown}"),
                    why,
                )
                .fix(format!("export XDG_RUNTIME_DIR={}", quoted(&shown))),
            );
            return;
        }
        RuntimeState::Open(mode) => {
            findings.push(
                Finding::advisory(
                    "runtime-dir-open",
                    format!("XDG_RUNTIME_DIR={shown} has mode {mode:04o}"),
                    "other users can try to reach the daemon's sockets; the mode should be 0700",
                )
                .fix(format!("chmod 0700 {}", quoted(&shown))),
            );
            return;
        }
        // A directory of our own will do; install makes it.
        RuntimeState::Unset if !account.systemd => return,
        RuntimeState::Unset => "XDG_RUNTIME_DIR is not set".to_owned(),
        RuntimeState::Relative => format!("XDG_RUNTIME_DIR={shown} is not an absolute path"),
        RuntimeState::Missing => format!("XDG_RUNTIME_DIR={shown} is not a directory"),
        RuntimeState::Foreign(uid) => {
            format!("XDG_RUNTIME_DIR={shown} belongs to user {uid}, not to {}", account.name)
        }
        RuntimeState::ReadOnly => {
            format!("XDG_RUNTIME_DIR={shown} cannot be written by {}", account.name)
        }
    };
    findings.push(Finding::fatal("runtime-dir", seen, why).remedy(runtime_dir_remedy(facts)));
}

fn runtime_dir_remedy(facts: &Facts) -> Remedy {
    let account = &facts.account;
    if let Some(dir) = &account.runtime.logind {
        if account.runtime.state == RuntimeState::ReadOnly
            && account.runtime.dir.as_ref() == Some(dir)
        {
            return make_writable(dir);
        }
        return Remedy::said(format!("export XDG_RUNTIME_DIR={}", quoted(dir)));
    }
    if !account.systemd {
        return Remedy::said(
            "mkdir -p -m 0700 \"$HOME/.docker/run\"; export XDG_RUNTIME_DIR=\"$HOME/.docker/run\"",
        );
    }
    let name = quoted(&account.name);
    linger(facts)
    .and(Remedy::said(format!(
        "then: export XDG_RUNTIME_DIR=\"$(loginctl show-user --property=RuntimePath --value {name})\""
    )))
    .and(Remedy::said(format!(
        "or open a login session (su and sudo do not open one): ssh {name}@localhost, or sudo machinectl shell {name}@"
    )))
}

fn linger(facts: &Facts) -> Remedy {
    let name = &facts.account.name;
    facts.distro.linger(name).unwrap_or_else(|| {
        Remedy::admin(
            &format!("start a service manager for {name} at boot, without a login"),
            [format!("loginctl enable-linger {}", quoted(name))],
        )
    })
}

fn too_long(dir: Option<&std::path::Path>, findings: &mut Vec<Finding>) {
    let Some(dir) = dir else { return };
    // The longest one that dockerd makes below it.
    let longest = dir.join("docker/containerd/containerd-debug.sock");
    let length = longest.as_os_str().len() + 1;
    if length > SOCKET_PATH_MAX {
        let seen = format!("the path {} takes {length} bytes", longest.display());
        findings.push(
            Finding::fatal(
                "runtime-dir-long",
                seen,
                "the path of a Unix socket can have at most 107 bytes (unix(7))",
            )
            .fix("create a directory with a shorter path, a mode of 0700 and yourself as the owner, and set XDG_RUNTIME_DIR to it"),
        );
    }
}

/// logind's directory, if `XDG_RUNTIME_DIR` names a good one that is not it.
fn elsewhere(facts: &Facts) -> Option<&std::path::Path> {
    let runtime = &facts.account.runtime;
    runtime.logind.as_deref().filter(|logind| runtime.dir.as_deref() != Some(logind))
}

fn manager(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    let account = &facts.account;
    if !account.systemd {
        return;
    }
    let name = quoted(&account.name);
    if let Outcome::Fails(text) = facts.outcome(Probe::UserManager) {
        let finding = Finding::class(
            "user-manager",
            format!("systemctl --user does not work: {}", text.lines().next().unwrap_or_default()),
            "without the user manager (systemd --user), you have to start the daemon by hand, and containers have no \
             resource limits; a session started with su or sudo cannot reach it",
        );
        findings.push(match elsewhere(facts) {
            Some(dir) => finding.fix(format!(
                "use the directory of the user manager: export XDG_RUNTIME_DIR={}",
                quoted(dir)
            )),
            None => {
                let finding = if facts.tools.machinectl {
                    finding
                } else {
                    finding.remedy(facts.distro.install(Package::Machinectl, "install machinectl"))
                };
                finding
                    .remedy(linger(facts))
                    .fix(format!("then open a login session: sudo machinectl shell {name}@"))
            }
        });
        return;
    }
    if !account.bus && !account.bus_unit {
        // The unit requires dbus.socket.
        let severity = if wish.install { Finding::fatal } else { Finding::class };
        findings.push(
            severity(
                "user-bus",
                "this user has no D-Bus session, and systemd has no dbus.socket for users".to_owned(),
                "the unit needs dbus.socket, and the daemon requests cgroups from systemd over the user's bus",
            )
            .remedy(facts.distro.install(Package::UserBus, "install D-Bus for user sessions"))
            .fix("then log out and in again"),
        );
    } else if !account.bus {
        findings.push(
            Finding::class(
                "user-bus-stopped",
                "this user's D-Bus session is not running",
                "the daemon requests cgroups from systemd over D-Bus",
            )
            .fix("systemctl --user enable --now dbus.socket"),
        );
    }
    if !account.linger {
        findings.push(
            Finding::advisory(
                "linger",
                format!("lingering is off for {}", account.name),
                "the daemon starts at the first login and stops at the last logout, not at boot and shutdown",
            )
            .remedy(facts.distro.linger(&account.name).unwrap_or_else(|| {
                Remedy::said(format!("sudo loginctl enable-linger {name}"))
            })),
        );
    }
    if let Some(dir) = account.runtime.usable()
        && !dir.join("docker.sock").exists()
        && facts.daemon.installed
        && facts.daemon.lost_program.is_none()
        && !facts.files.iter().any(|file| file.is_service() && file.state == Ok(State::Masked))
    {
        findings.push(
            Finding::advisory(
                "daemon-stopped",
                format!("the daemon is installed but not running ({} does not exist)", docker_host(dir)),
                "docker cannot connect; if DOCKER_HOST names another user's socket, docker reports \"permission \
                 denied\"",
            )
            .fix("systemctl --user start docker.service"),
        );
    }
}

/// An installed daemon that does not run, and why.
fn daemon(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some((program, there)) = &facts.daemon.lost_program {
        let (seen, why) = if *there {
            (
                "cannot be run",
                "the daemon can no longer start: the file is not executable, or its file system is mounted with noexec",
            )
        } else {
            ("does not exist", "the daemon can no longer start: its programs were moved or removed")
        };
        findings.push(
            Finding::class(
                "unit-stale",
                format!("docker.service starts {}, which {seen}", program.display()),
                why,
            )
            .fix(
                "update the unit: dockerd-rootless-setuptool.sh install (if you wrote or edited the unit, add --force)",
            ),
        );
    }
    if let Some(symptom) = symptoms::find(&facts.daemon.log) {
        findings.push(
            Finding::class(
                symptom.code,
                format!("the daemon is not running, and its log contains \"{}\"", symptom.token),
                symptom.cause,
            )
            .fix(symptom.fix),
        );
    }
}

/// What makes settings of a session take effect.
pub(super) fn again(facts: &Facts) -> String {
    let account = &facts.account;
    if !account.systemd {
        "then log in again and restart the daemon".to_owned()
    } else if account.linger {
        // The service manager, and with it the daemon, outlives every login.
        format!(
            "then reboot, or: sudo systemctl restart user@{}.service, which ends all services and containers of {}",
            account.uid, account.name
        )
    } else {
        "then log out of all sessions and in again, or reboot".to_owned()
    }
}
