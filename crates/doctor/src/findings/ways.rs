//! Ways out that lead nowhere from the namespace: IPv4 on a host without, a network with the same addresses, a proxy on
//! loopback.

use drivers::{Cidr, NetworkDriver};
use hostenv::vars;

use super::{Finding, Wish};
use crate::facts::{Facts, Net, Proxy};

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    only_ipv6(facts, findings);
    overlap(facts, findings);
    let ways = &facts.ways;
    findings.extend(ways.of_daemon.iter().map(|proxy| {
        of_loopback(
            facts,
            proxy,
            "the daemon uses the loopback of its own network namespace, where no proxy listens (\"proxyconnect tcp: \
             … connection refused\")",
        )
    }));
    findings.extend(ways.of_containers.iter().map(|proxy| {
        of_loopback(
            facts,
            proxy,
            "docker passes the proxy setting to containers; each container has its own loopback, where no proxy \
             listens",
        )
    }));
}

fn only_ipv6(facts: &Facts, findings: &mut Vec<Finding>) {
    let ways = &facts.ways;
    if !ways.routes.only_v6() {
        return;
    }
    let able = facts.tools.net.driver().is_none_or(NetworkDriver::has_ipv6);
    if able && ways.bridges_have_ipv6 {
        return;
    }
    let mut finding = Finding::class(
        "ipv6-only",
        "this host reaches other networks only over IPv6",
        "by default, bridge networks have only IPv4, so containers on them cannot reach other networks (\"network is \
         unreachable\")",
    );
    if !able && matches!(facts.tools.net, Net::Named(_)) {
        finding = finding.fix(
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_NET from the daemon's settings: the selected driver does not support IPv6; \
             gateway, slirp4netns and pasta do",
        );
    } else if !able {
        // The launcher found nothing better.
        finding = finding.remedy(super::driver::helper(facts));
    }
    if !ways.bridges_have_ipv6 {
        finding = finding.fix(
            "in ~/.config/docker/daemon.json, set \"ipv6\": true and \"fixed-cidr-v6\": \"fd00:d0c:1::/64\" (before Docker \
             27, also \"experimental\": true and \"ip6tables\": true)",
        );
    }
    findings.push(finding.fix(
        "if you use Docker's own dockerd-rootless.sh, also set DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--ipv6 (this \
         project's launcher adds it by itself)",
    ));
}

fn overlap(facts: &Facts, findings: &mut Vec<Finding>) {
    let ways = &facts.ways;
    let shortest = Cidr::SHORTEST_CHECKED;
    let theirs =
        ways.cidr.overlapping(&ways.routes.v4).filter(|theirs| theirs.prefix_len() >= shortest);
    let Some(theirs) =
        theirs.filter(|_| facts.tools.net.driver().is_some_and(NetworkDriver::has_cidr))
    else {
        return;
    };
    let finding = Finding::advisory(
        "cidr-overlap",
        format!("this host's network {theirs} overlaps the namespace's network {}", ways.cidr),
        "containers cannot reach the host network's addresses in that range",
    );
    findings.push(match Cidr::beside(&ways.routes.v4) {
        Some(free) => finding.fix(format!(
            "if containers need to reach that network, set DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--cidr={free}; containers then \
             reach the host at {} instead of {}",
            free.gateway(),
            ways.cidr.gateway()
        )),
        None => finding,
    });
}

fn of_loopback(facts: &Facts, proxy: &Proxy, why: &'static str) -> Finding {
    let host = facts.ways.cidr.gateway();
    let single = facts.tools.net.driver().is_some_and(NetworkDriver::has_loopback_ports);
    // Without the port, it depends on the scheme.
    let port = proxy.port.strip_prefix(':').filter(|_| single);
    let open = match port {
        Some(port) => format!(
            "{}=tcp:{port}; of the host's loopback, containers can then reach this port only",
            vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW
        ),
        None => format!(
            "{}=false; containers can then reach every service on the host's loopback",
            vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK
        ),
    };
    Finding::class("proxy-loopback", format!("{} in {}", proxy.setting, proxy.file.display()), why)
        .fix("make the proxy listen on an address of the host's network, and use that address")
        .fix(format!("or set the proxy to {host}{}, and set {open}", proxy.port))
}
