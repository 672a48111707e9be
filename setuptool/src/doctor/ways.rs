//! Ways out that lead nowhere from the namespace: IPv4 on a host without, a network with the same addresses, a proxy on
//! loopback.

use drivers::{Cidr, NetworkDriver};

use super::{Finding, Remedy, Wish};
use crate::facts::{Facts, Proxy};

/// Networks with shorter prefixes (bits) are hardly networks.
const SHORTEST: u8 = 8;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    only_ipv6(facts, findings);
    overlap(facts, findings);
    let ways = &facts.ways;
    findings.extend(ways.of_daemon.iter().map(|proxy| {
        of_loopback(
            facts,
            proxy,
            "the daemon's loopback is that of its network namespace, where no proxy listens (\"proxyconnect tcp: … connection \
             refused\")",
        )
    }));
    findings.extend(ways.of_containers.iter().map(|proxy| {
        of_loopback(
            facts,
            proxy,
            "docker gives it to containers, and a container's loopback is its own, where no proxy listens",
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
        "this host has a way out over IPv6 only",
        "bridges have IPv4 only unless daemon.json says otherwise, and containers on them reach nothing outside (\"network is \
         unreachable\")",
    );
    if !able {
        finding = finding.remedy(Remedy::said(
            "unset DOCKERD_ROOTLESS_ROOTLESSKIT_NET: that network has no IPv6; gateway, slirp4netns and pasta have",
        ));
    }
    if !ways.bridges_have_ipv6 {
        finding = finding.remedy(Remedy::said(
            "put {\"ipv6\": true, \"fixed-cidr-v6\": \"fd00:d0c:1::/64\"} into ~/.config/docker/daemon.json (before Docker 27 with \
             \"experimental\": true, \"ip6tables\": true)",
        ));
    }
    findings.push(finding.remedy(Remedy::said(
        "Docker's own dockerd-rootless.sh needs DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--ipv6 as well; ours adds that by itself",
    )));
}

fn overlap(facts: &Facts, findings: &mut Vec<Finding>) {
    let ways = &facts.ways;
    let theirs =
        ways.cidr.overlapping(&ways.routes.v4).filter(|theirs| theirs.prefix_len() >= SHORTEST);
    let Some(theirs) =
        theirs.filter(|_| facts.tools.net.driver().is_some_and(NetworkDriver::has_cidr))
    else {
        return;
    };
    let finding = Finding::advisory(
        "cidr-overlap",
        format!(
            "the network {theirs} of this host and {} of the namespace share addresses",
            ways.cidr
        ),
        "containers cannot reach those addresses of the host's network",
    );
    findings.push(match Cidr::beside(&ways.routes.v4) {
        Some(free) => finding.remedy(Remedy::said(format!(
            "if they need to: DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--cidr={free}; the host is {} for them then, instead of {}",
            free.gateway(),
            ways.cidr.gateway()
        ))),
        None => finding,
    });
}

fn of_loopback(facts: &Facts, proxy: &Proxy, why: &'static str) -> Finding {
    let host = facts.ways.cidr.gateway();
    Finding::class(
        "proxy-loopback",
        format!("{} in {}", proxy.setting, proxy.file.display()),
        why,
    )
    .remedy(Remedy::said(
        "let the proxy listen on an address of the host's network, and name that",
    ))
    .remedy(Remedy::said(format!(
        "or name {host}{} and set DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false: then containers reach whatever listens \
         on the host's loopback",
        proxy.port
    )))
}
