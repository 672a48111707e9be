//! Others who want the same places.

use super::{Finding, Remedy, Wish};
use crate::facts::Facts;
use crate::place::docker_host;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    if let Some((socket, writable)) = &facts.tools.rootful {
        let remedy =
            Remedy::said("to stop it: sudo systemctl disable --now docker.service docker.socket")
                .and(Remedy::said("then: sudo rm -f /var/run/docker.sock"));
        let seen = socket.display();
        let why = "tools that use the default socket talk to the rootful daemon, with its rights";
        findings.push(if *writable {
            Finding::fatal(
                "rootful-docker",
                format!("a rootful Docker is here, and this user may use it: {seen}"),
                why,
            )
            .remedy(remedy)
            .remedy(Remedy::said("to keep both: run this again with --force"))
            .forcible()
        } else {
            Finding::advisory(
                "rootful-docker-beside",
                format!("a rootful Docker is here: {seen}"),
                why,
            )
            .remedy(remedy)
        });
    }
    if let (None, Some(seen)) = (&facts.tools.rootful, &facts.tools.rootful_runs) {
        findings.push(
            Finding::advisory(
                "rootful-docker-beside",
                format!("a rootful Docker runs without the usual socket: {seen}"),
                "both work side by side; published ports and names of interfaces are shared, and it is root's",
            )
            .remedy(Remedy::said(
                "to stop it: sudo systemctl disable --now docker.service docker.socket",
            )),
        );
    }
    if let Some((name, value)) = &facts.tools.other_daemon {
        findings.push(
            Finding::advisory(
                "docker-host-elsewhere",
                format!("{name}={value} names another daemon than the one of this user"),
                "the docker command obeys it instead of the context that install makes",
            )
            .remedy(Remedy::said(format!("unset {name}, also in ~/.bashrc and the like"))),
        );
    }
    contexts(facts, findings);
    if let Some(dir) = &facts.tools.containerd_rootless {
        let seen = format!("a containerd-rootless is running in {}", dir.display());
        findings.push(
            Finding::fatal(
                "containerd-rootless",
                seen,
                "both would use the same directories below /run (https://github.com/moby/moby/issues/52171)",
            )
            .remedy(Remedy::said("containerd-rootless-setuptool.sh uninstall")),
        );
    }
}

fn contexts(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(name) = &facts.daemon.lost_context {
        findings.push(
            Finding::class(
                "context-missing",
                format!("the current context \"{name}\" of the docker command is not there"),
                "the docker command refuses everything until it has another one (\"is not found on the file system\")",
            )
            .remedy(Remedy::said("docker --context=default context use default")),
        );
    }
    let runtime_dir = facts.account.runtime.usable();
    if let (Some(host), Some(dir)) = (&facts.daemon.other_host, runtime_dir) {
        let own = super::quoted(&docker_host(dir));
        findings.push(
            Finding::advisory(
                "context-elsewhere",
                format!("the context \"rootless\" of the docker command is for {host}"),
                "with that context the docker command talks to another daemon than the one of this user; install \
                 updates it if its socket is gone, or with --force",
            )
            .remedy(Remedy::said(format!("docker context update rootless --docker host={own}"))),
        );
    }
}
