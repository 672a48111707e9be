//! Others who want the same places.

use hostenv::shellwords::quoted;

use super::{Finding, Wish};
use crate::facts::Facts;
use crate::place::docker_host;
use crate::remedy::Remedy;

pub(super) fn examine(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    if let Some((socket, writable)) = &facts.tools.rootful {
        let remedy =
            Remedy::said(stop(facts)).and(Remedy::said("then: sudo rm -f /var/run/docker.sock"));
        let seen = socket.display();
        let why = "tools that use the default socket reach the rootful daemon and get its root privileges";
        findings.push(if *writable {
            let finding = Finding::fatal(
                "rootful-docker",
                format!("rootful Docker is installed, and this user can access it: {seen}"),
                why,
            )
            .remedy(remedy)
            .forcible();
            if wish.force {
                finding
            } else {
                finding.fix("or, to keep both, run this again with --force")
            }
        } else {
            Finding::advisory(
                "rootful-docker-beside",
                format!("rootful Docker is installed: {seen}"),
                why,
            )
            .remedy(remedy)
        });
    }
    if let (None, Some(seen)) = (&facts.tools.rootful, &facts.tools.rootful_runs) {
        findings.push(
            Finding::advisory(
                "rootful-docker-beside",
                format!("rootful Docker is running without the usual socket: {seen}"),
                "both can run side by side, but they compete for published ports and interface names, and the \
                 rootful daemon has root privileges",
            )
            .fix(stop(facts)),
        );
    }
    if let Some((name, value)) = &facts.tools.other_daemon {
        findings.push(
            Finding::advisory(
                "docker-host-elsewhere",
                format!("{name}={value} points to a daemon other than this user's"),
                "the docker CLI uses this variable instead of the context that install creates",
            )
            .fix(format!("unset {name}, and remove it from ~/.bashrc and similar files")),
        );
    }
    contexts(facts, findings);
    if let Some(dir) = &facts.tools.containerd_rootless {
        let seen = format!("containerd-rootless is running in {}", dir.display());
        findings.push(
            Finding::fatal(
                "containerd-rootless",
                seen,
                "both would use the same directories below /run (https://github.com/moby/moby/issues/52171)",
            )
            .fix("stop it: systemctl --user disable --now containerd.service")
            .fix("or remove it: containerd-rootless-setuptool.sh uninstall"),
        );
    }
}

fn stop(facts: &Facts) -> String {
    let how = if facts.account.systemd {
        "sudo systemctl disable --now docker.service docker.socket"
    } else {
        "with OpenRC, sudo rc-service docker stop && sudo rc-update del docker; otherwise, sudo kill \"$(cat \
         /run/docker.pid)\""
    };
    format!("if no user needs rootful Docker, stop it: {how}")
}

fn contexts(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(name) = &facts.daemon.lost_context {
        findings.push(
            Finding::class(
                "context-missing",
                format!("the current docker CLI context \"{name}\" does not exist"),
                "every docker command fails until you select another context (\"is not found on the file system\")",
            )
            .fix("docker --context=default context use default"),
        );
    }
    let runtime_dir = facts.account.runtime.usable();
    if let (Some(host), Some(dir)) = (&facts.daemon.other_host, runtime_dir) {
        let own = quoted(docker_host(dir));
        findings.push(
            Finding::advisory(
                "context-elsewhere",
                format!("the docker CLI context \"rootless\" points to {host}"),
                "with this context, docker connects to a daemon other than this user's; install updates the \
                 context if its socket no longer exists, or with --force",
            )
            .fix(format!("docker context update rootless --docker host={own}")),
        );
    }
}
