//! Who runs this, and home.

use std::path::Path;

use hostenv::shellwords::quoted;

use super::{Finding, Wish, make_writable, remount};
use crate::distro::Package;
use crate::facts::{Closed, Facts, Home, Unusable, WhyClosed};
use crate::remedy::Remedy;

/// Root has no use for any of this.
pub(super) fn root(facts: &Facts) -> Option<Finding> {
    (facts.account.uid == 0).then(|| {
        let machinectl =
            if facts.account.systemd { " or machinectl shell USER@" } else { "" };
        Finding::fatal(
            "root",
            "this tool runs as root",
            "rootless Docker runs as an ordinary user; as root, you would set it up for root itself",
        )
        .fix(format!(
            "log in as the user who will run Docker (ssh USER@localhost{machinectl}), and run this again"
        ))
    })
}

/// Without a Linux with its `/proc` nothing else that could be seen here means anything.
pub(super) fn platform(facts: &Facts) -> Option<Finding> {
    let host = &facts.host;
    let Some(ostype) = &host.ostype else {
        return Some(
            Finding::fatal(
                "proc-missing",
                "/proc/sys/kernel/ostype cannot be read: /proc is not mounted",
                "the daemon and this tool read kernel settings from /proc",
            )
            .admin("mount /proc", ["mount -t proc proc /proc"]),
        );
    };
    // WSL 1 calls itself Linux: 4.4.0-19041-Microsoft. That of WSL 2 is one: 5.15.90.1-microsoft-standard-WSL2.
    let imitated = host.release.ends_with("-Microsoft");
    (ostype != "Linux" || imitated).then(|| {
        let finding = Finding::fatal(
            "not-linux",
            format!("the kernel is {ostype} {}, not a real Linux kernel", host.release),
            "containers need namespaces, which only Linux has",
        );
        finding.fix(if imitated {
            "switch to WSL 2, in PowerShell: wsl --set-version DISTRIBUTION 2"
        } else {
            "use a Linux host or a virtual machine with Linux"
        })
    })
}

pub(super) fn examine(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    home(facts, findings);
    closed(facts, wish, findings);
    daemon_json(facts, findings);
    programs(facts, wish, findings);
}

fn home(facts: &Facts, findings: &mut Vec<Finding>) {
    let account = &facts.account.name;
    let name = quoted(account);
    let export = || Remedy::said(format!("export HOME=\"$(getent passwd {name} | cut -d: -f6)\""));
    let home = |path: &Path, what: &str| format!("HOME={} {what}", path.display());
    let (code, seen, remedy) = match &facts.account.home {
        Home::Fine(_) => return,
        Home::Unset => ("home-unset", "HOME is not set".to_owned(), export()),
        Home::Missing(path) => (
            "home-missing",
            home(path, "is not a directory"),
            Remedy::admin(
                "create the home directory",
                [format!("install -d -m 0700 -o {name} {}", quoted(path))],
            ),
        ),
        Home::Relative(path) => ("home-relative", home(path, "is not an absolute path"), export()),
        // Homes of services are sometimes directories of the system.
        Home::Withheld(path, owner) => (
            "home-foreign",
            home(path, &format!("belongs to user {owner}")),
            Remedy::said(format!(
                "if no other user needs this directory: sudo chown {name}: {}",
                quoted(path)
            )),
        ),
        Home::Foreign(path, owner) => {
            let what = format!("belongs to user {owner}, and {account} cannot write to it");
            ("home-foreign", home(path, &what), export())
        }
        Home::ReadOnly(path) => (
            "home-read-only",
            home(path, &format!("cannot be written by {account}")),
            make_writable(path),
        ),
    };
    let why = "the daemon's unit, configuration and data are stored below HOME";
    findings.push(Finding::fatal(code, seen, why).remedy(remedy));
}

fn not_executable(found: &Unusable, why: &'static str) -> Finding {
    let (shown, file) = (found.file.display(), quoted(&found.file));
    let (reason, remedy) = if found.noexec {
        let other = format!(
            "install it on a file system without noexec, or: {}",
            remount("exec", &found.file)
        );
        ("its file system is mounted with noexec", Remedy::said(other))
    } else {
        let chmod = format!("chmod 0755 {file}");
        let remedy = if found.own {
            Remedy::said(chmod)
        } else {
            Remedy::admin("make it executable for everyone", [chmod])
        };
        ("this user lacks execute permission", remedy)
    };
    Finding::fatal("not-executable", format!("{shown} cannot be run: {reason}"), why).remedy(remedy)
}

fn closed(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    if !matches!(facts.account.home, Home::Fine(_)) {
        return;
    }
    for closed in &facts.account.closed {
        // A daemon without a unit starts.
        let finding = if wish.install { Finding::fatal } else { Finding::class };
        let seen = format!("{} cannot write to {}", facts.account.name, closed.dir.display());
        let why = "install writes the unit or the docker CLI context there";
        findings
            .push(finding("config-closed", seen, why).remedy(open(closed, &facts.account.name)));
    }
}

fn open(closed: &Closed, name: &str) -> Remedy {
    let (shown, real) = (closed.real.display(), quoted(&closed.real));
    match closed.why {
        WhyClosed::Foreign => Remedy::admin(
            "restore the user's ownership (running docker with sudo can leave files that belong to root)",
            [format!("chown -R {}: {real}", quoted(name))],
        ),
        WhyClosed::Mode => Remedy::said(format!("chmod u+rwx {real}")),
        WhyClosed::ReadOnly => {
            let writable = Remedy::said(format!(
                "make its file system writable: {}",
                remount("rw", &closed.real)
            ));
            if closed.dir == closed.real {
                return writable;
            }
            writable.and(Remedy::said(format!(
                "or replace the symbolic link that leads to {shown} with a directory of your own"
            )))
        }
        // It may be for others, who would lose it.
        WhyClosed::Outside => Remedy::said(format!(
            "replace the symbolic link to {shown}, which belongs to another user, with a directory of your own"
        )),
    }
}

fn daemon_json(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some((path, error)) = &facts.daemon.bad_config else { return };
    findings.push(
        Finding::fatal(
            "daemon-json",
            format!("{}: {error}", path.display()),
            "dockerd does not start if it cannot read its configuration",
        )
        .fix(format!(
            "correct the file (for details: dockerd --validate --config-file={})",
            quoted(path)
        )),
    );
}

fn programs(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    let (distro, tools) = (&facts.distro, &facts.tools);
    for (missing, code, name, why) in [
        (
            tools.launcher.is_none(),
            "launcher-missing",
            "dockerd-rootless.sh",
            "dockerd-rootless.sh starts the daemon",
        ),
        (
            tools.rootlesskit.is_none(),
            "rootlesskit-missing",
            "rootlesskit",
            "rootlesskit creates the namespaces that the daemon runs in",
        ),
    ] {
        if let (true, Some(found)) = (missing, tools.unusable.get(name)) {
            findings.push(not_executable(found, why));
        } else if missing {
            let seen = format!("{name} is neither in PATH nor in the directory of this tool");
            findings.push(
                Finding::fatal(code, seen, why)
                    .remedy(distro.install(Package::Extras, "install the rootless extras")),
            );
        }
    }
    // Only looking does not need them, and installers look before they install them.
    let needed = if wish.install { Finding::fatal } else { Finding::class };
    if tools.dockerd.is_none() {
        findings.push(
            needed(
                "dockerd-missing",
                "dockerd is not in PATH".to_owned(),
                "dockerd is the Docker daemon",
            )
            .remedy(distro.install(Package::Engine, "install the Docker engine")),
        );
    }
    if tools.docker.is_none() {
        findings.push(
            needed(
                "docker-cli-missing",
                "docker is not in PATH".to_owned(),
                "install uses the docker CLI to test the daemon and to create the \"rootless\" context",
            )
            .remedy(distro.install(Package::DockerCli, "install the docker CLI")),
        );
    }
}
