//! Ways out that lead nowhere from the namespace: IPv4 on a host without, a network with the same addresses, a proxy on
//! loopback.

use std::net::{Ipv4Addr, Ipv6Addr};

use drivers::{Cidr, LoopbackPorts, NetworkDriver, SLIRP6};
use hostenv::vars;

use super::{Finding, Wish};
use crate::facts::{Facts, HostLoopback, Net, Proxy, UserSetting};

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    only_ipv6(facts, findings);
    overlap(facts, findings);
    let ways = &facts.ways;
    findings.extend(ways.of_daemon.iter().map(|proxy| {
        of_loopback(
            facts,
            proxy,
            true,
            "the daemon uses the loopback of its own network namespace, where no proxy listens (\"proxyconnect tcp: \
             … connection refused\")",
        )
    }));
    findings.extend(ways.of_containers.iter().map(|proxy| {
        of_loopback(
            facts,
            proxy,
            ways.bridges_have_ipv6,
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
        let unsuitable = facts.tools.choices.unsuitable_nets(NetworkDriver::has_ipv6);
        let removals: Vec<String> = unsuitable.map(UserSetting::removal).collect();
        finding = finding.fix(format!(
            "{}: the selected driver does not support IPv6; gateway, slirp4netns and pasta do",
            removals.join(" and ")
        ));
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
         project's launcher adds it automatically)",
    ));
}

fn overlap(facts: &Facts, findings: &mut Vec<Finding>) {
    let ways = &facts.ways;
    let shortest = Cidr::SHORTEST_CHECKED;
    let theirs =
        ways.cidr.overlapping(&ways.routes.v4).filter(|theirs| theirs.prefix_len() >= shortest);
    let driver = facts.tools.net.driver().filter(|driver| driver.has_cidr());
    let (Some(theirs), Some(driver)) = (theirs, driver) else { return };
    let finding = Finding::advisory(
        "cidr-overlap",
        format!("this host's network {theirs} overlaps the namespace's network {}", ways.cidr),
        "containers cannot reach the host network's addresses in that range",
    );
    findings.push(finding.fixes(Cidr::beside(&ways.routes.v4).map(|free| {
        format!(
            "if containers need to reach that network, set DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--cidr={free}; containers then \
             reach the host at {} instead of {}",
            free.gateway(driver),
            ways.cidr.gateway(driver)
        )
    })));
}

fn of_loopback(facts: &Facts, proxy: &Proxy, has_ipv6: bool, why: &'static str) -> Finding {
    let seen = format!("{} in {}", proxy.setting, proxy.file.display());
    Finding::class("proxy-loopback", seen, why)
        .fix("make the proxy listen on an address of the host's network, and use that address")
        .fixes(through_gateway(facts, proxy, has_ipv6))
}

/// How to reach the proxy at the gateway's address. `has_ipv6` says whether what uses the proxy can have IPv6. `None` if
/// there is no way: the gateway's addresses lead to 127.0.0.1 and ::1 only, and to nothing with a driver whose addresses are
/// not known here.
fn through_gateway(facts: &Facts, proxy: &Proxy, has_ipv6: bool) -> Option<String> {
    let (ways, driver) = (&facts.ways, facts.tools.net.driver());
    if !driver.is_none_or(NetworkDriver::has_cidr) {
        return None;
    }
    let port = proxy.port.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
    let mut steps = Vec::new();
    if proxy.address == Ipv4Addr::LOCALHOST {
        let gateway = ways.cidr.gateway(driver.unwrap_or(NetworkDriver::Gateway));
        steps.push(format!("set the proxy to {gateway}:{port}"));
    } else if proxy.address == Ipv6Addr::LOCALHOST
        && has_ipv6
        && driver.is_some_and(NetworkDriver::has_ipv6)
    {
        let [_, gateway, _] = SLIRP6;
        steps.push(format!("set the proxy to [{gateway}]:{port}"));
        if !ways.ipv6 {
            steps.push(format!("add --ipv6 to {}", vars::DOCKERD_ROOTLESS_FLAGS));
        }
    } else {
        return None;
    }
    let reach = &facts.loopback;
    let mut effect = "";
    // A list requires the gateway, so a driver that cannot have one is not there to stay.
    if !reach.lists.is_empty()
        || reach.opened_by.is_empty() && driver.is_some_and(NetworkDriver::has_loopback_ports)
    {
        if !proxy.port.is_some_and(|port| reach.allows_tcp(port)) {
            steps.push(allow(reach, &port));
            effect = if reach.lists.is_empty() {
                "; containers can then reach only this port of the host's loopback"
            } else {
                "; containers can then reach this port of the host's loopback, too"
            };
        }
    } else if reach.opened_by.is_empty() {
        steps.push(format!("set {}=false", vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK));
        effect = "; containers can then reach every service on the host's loopback";
    }
    let named = if proxy.port.is_none() { "; PORT is the port of the proxy" } else { "" };
    let last = steps.pop()?;
    let steps = match steps.as_slice() {
        [] => last,
        before => format!("{}, and {last}", before.join(", ")),
    };
    Some(format!("or {steps}{effect}{named}"))
}

/// How to add a TCP port to the list of the variable. A number keeps its list in order.
fn allow(reach: &HostLoopback, port: &str) -> String {
    let name = vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW;
    let entry = format!("tcp:{port}");
    match reach.of_variable().map(|list| &list.ports) {
        None => format!("set {name}={entry}"),
        Some(Ok(ports)) => {
            let longer = format!("{ports},{entry}");
            let merged: Result<LoopbackPorts, _> = longer.parse();
            format!("set {name}={}", merged.map_or(longer, |ports| ports.to_string()))
        }
        Some(Err(_)) => format!("add {entry} to {name}"),
    }
}
