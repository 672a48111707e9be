//! Who runs this, and home.

use std::path::Path;

use super::{Finding, Remedy, Wish, quoted};
use crate::distro::Package;
use crate::facts::{Facts, Home};

/// Root has no use for any of this.
pub(super) fn root(facts: &Facts) -> Option<Finding> {
    (facts.account.uid == 0).then(|| {
        Finding::fatal(
            "root",
            "this runs as root",
            "rootless Docker belongs to an ordinary user; root would install it for itself",
        )
        .remedy(Remedy::said(
            "log in as the user who shall have Docker (ssh USER@localhost or machinectl shell USER@) and run this again",
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
                "the daemon and this program learn from /proc what the kernel allows",
            )
            .remedy(Remedy::admin("mount /proc", ["mount -t proc proc /proc"])),
        );
    };
    // WSL 1 calls itself Linux: 4.4.0-19041-Microsoft. That of WSL 2 is one: 5.15.90.1-microsoft-standard-WSL2.
    let imitated = host.release.ends_with("-Microsoft");
    (ostype != "Linux" || imitated).then(|| {
        let finding = Finding::fatal(
            "not-linux",
            format!("the kernel is {ostype} {}, not Linux itself", host.release),
            "containers are made of namespaces, which only Linux has",
        );
        finding.remedy(Remedy::said(if imitated {
            "in PowerShell: wsl --set-version DISTRIBUTION 2"
        } else {
            "use a Linux host or a virtual machine with Linux"
        }))
    })
}

pub(super) fn examine(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    home(facts, findings);
    closed(facts, wish, findings);
    daemon_json(facts, findings);
    programs(facts, wish, findings);
}

fn home(facts: &Facts, findings: &mut Vec<Finding>) {
    let why = "the unit, the configuration and the data of the daemon are below HOME";
    let name = quoted(&facts.account.name);
    match &facts.account.home {
        Home::Fine(_) => {}
        Home::Unset => findings.push(Finding::fatal("home-unset", "HOME is not set", why).remedy(
            Remedy::said(format!("export HOME=\"$(getent passwd {name} | cut -d: -f6)\"")),
        )),
        Home::Missing(path) => findings.push(
            Finding::fatal(
                "home-missing",
                format!("HOME={} is not a directory", path.display()),
                why,
            )
            .remedy(Remedy::admin(
                "make the home directory",
                [format!("install -d -m 0700 -o {name} {}", quoted(&path.to_string_lossy()))],
            )),
        ),
        Home::Relative(path) => findings.push(
            Finding::fatal(
                "home-relative",
                format!("HOME={} is not an absolute path", path.display()),
                why,
            )
            .remedy(Remedy::said(format!("export HOME=\"$(getent passwd {name} | cut -d: -f6)\""))),
        ),
        Home::Withheld(path, owner) => findings.push(
            Finding::fatal(
                "home-foreign",
                format!("HOME={} belongs to user {owner}", path.display()),
                why,
            )
            // Homes of services are sometimes directories of the system.
            .remedy(Remedy::said(format!(
                "if it is this user's alone: sudo chown {name}: {}",
                quoted(&path.to_string_lossy())
            ))),
        ),
        Home::Foreign(path, owner) => findings.push(
            Finding::fatal(
                "home-foreign",
                format!(
                    "HOME={} belongs to user {owner}, and {} cannot write there",
                    path.display(),
                    facts.account.name
                ),
                why,
            )
            .remedy(Remedy::said(format!("export HOME=\"$(getent passwd {name} | cut -d: -f6)\""))),
        ),
        Home::ReadOnly(path) => findings.push(
            Finding::fatal(
                "home-read-only",
                format!("HOME={} cannot be written by {}", path.display(), facts.account.name),
                why,
            )
            .remedy(Remedy::said(format!("chmod u+rwx {}", quoted(&path.to_string_lossy()))))
            .remedy(Remedy::said("if its file system is mounted read-only: mount it for writing")),
        ),
    }
}

fn not_executable(file: &Path, noexec: bool, why: &'static str) -> Finding {
    let shown = file.display();
    let (reason, remedy) = if noexec {
        let other = format!(
            "install it where programs may run, or: sudo mount -o remount,exec MOUNTPOINT (findmnt -T {} names it)",
            quoted(&file.to_string_lossy())
        );
        ("its file system is mounted with noexec", other)
    } else {
        let chmod = format!("chmod 0755 {}", quoted(&file.to_string_lossy()));
        ("it has no permission x for this user", chmod)
    };
    Finding::fatal("not-executable", format!("{shown} cannot be run: {reason}"), why)
        .remedy(Remedy::said(remedy))
}

fn closed(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    if !matches!(facts.account.home, Home::Fine(_)) {
        return;
    }
    let name = &facts.account.name;
    for dir in &facts.account.closed {
        // A daemon without a unit starts.
        let finding = if wish.install { Finding::fatal } else { Finding::class };
        let seen = format!("{name} cannot write into {}", dir.display());
        let why = "the unit, or the context of the docker command, belongs there; a docker under sudo leaves \
                   directories of root behind";
        findings.push(finding("config-closed", seen, why).remedy(Remedy::admin(
            "give the user's directory back",
            [format!("chown -R {}: {}", quoted(name), quoted(&dir.to_string_lossy()))],
        )));
    }
}

fn daemon_json(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some((path, error)) = &facts.daemon.bad_config else { return };
    findings.push(
        Finding::fatal(
            "daemon-json",
            format!("{}: {error}", path.display()),
            "dockerd does not start with a configuration that it cannot read",
        )
        .remedy(Remedy::said(format!(
            "correct the file; dockerd --validate --config-file={} says more",
            quoted(&path.to_string_lossy())
        ))),
    );
}

fn programs(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    let (distro, tools) = (&facts.distro, &facts.tools);
    for (missing, code, name, why) in [
        (
            tools.launcher.is_none(),
            "launcher-missing",
            "dockerd-rootless.sh",
            "it starts the daemon",
        ),
        (
            tools.rootlesskit.is_none(),
            "rootlesskit-missing",
            "rootlesskit",
            "the daemon runs under it",
        ),
    ] {
        if let (true, Some((file, noexec))) = (missing, facts.tools.unusable.get(name)) {
            findings.push(not_executable(file, *noexec, why));
        } else if missing {
            let seen = format!("{name} is neither in PATH nor beside this program");
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
                "it is the daemon that is to be started",
            )
            .remedy(distro.install(Package::Engine, "install the Docker engine")),
        );
    }
    if tools.docker.is_none() {
        findings.push(
            needed(
                "docker-cli-missing",
                "docker is not in PATH".to_owned(),
                "the installation is verified, and its context is made, with it",
            )
            .remedy(distro.install(Package::DockerCli, "install the docker command")),
        );
    }
}
