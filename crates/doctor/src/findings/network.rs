//! NAT, ports, ping and what else belongs to the network; [`super::driver`] has what connects it.

use drivers::NetworkDriver;
use hostenv::shellwords::quoted;

use super::{Finding, Wish, modules};
use crate::distro::{Family, Package};
use crate::facts::Facts;
use crate::probe::{Outcome, Probe};

/// The first port that every user may bind on a Linux that nobody changed.
const USUAL_PORT_START: u64 = 1024;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    nat(facts, findings);
    if facts.tools.nsenter.is_none() {
        findings.push(
            Finding::class(
                "nsenter-missing",
                "nsenter is not in PATH",
                "dockerd 29.5 and later uses nsenter to enter the containers' network namespace",
            )
            .remedy(facts.distro.install(Package::UtilLinux, "install nsenter")),
        );
    }
    if facts.tools.ps.is_none() {
        findings.push(
            Finding::class(
                "ps-missing",
                "ps is not in PATH, /usr/sbin or /sbin",
                "`docker top` uses ps to list the processes of a container",
            )
            .remedy(facts.distro.install(Package::Procps, "install ps")),
        );
    }
    ping(facts, findings);
    ports(facts, findings);
    if !facts.host.bridge_netfilter {
        findings.push(
            Finding::advisory(
                "br-netfilter",
                "the kernel module br_netfilter is not loaded",
                "without it, containers see the gateway as the source address if the userland proxy is off, and \
                 rules that isolate containers are not enforced",
            )
            .remedy(modules(facts, &["br_netfilter"], "load br_netfilter")),
        );
    }
    if !facts.host.ipv6 {
        findings.push(Finding::advisory(
            "ipv6-off",
            "the kernel does not support IPv6",
            "ports are published on IPv4 only; nothing else is affected",
        ));
    }
    if let Some(target) = &facts.host.resolv_conf
        && facts.tools.net.driver() == Some(NetworkDriver::Slirp4netns)
    {
        findings.push(
            Finding::advisory(
                "resolv-conf-link",
                format!("/etc/resolv.conf is a symbolic link to {}", target.display()),
                "a sandboxed slirp4netns sees only /etc and /run, so it finds no name server",
            )
            .fix("set DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false"),
        );
    }
}

fn nat(facts: &Facts, findings: &mut Vec<Finding>) {
    let tools = &facts.tools;
    if tools.nftables_backend {
        if tools.nft.is_none() {
            findings.push(
                Finding::fatal(
                    "nft-missing",
                    "daemon.json sets \"firewall-backend\": \"nftables\", but nft is not in PATH, /usr/sbin or /sbin",
                    "dockerd uses nft to create the rules of bridge networks",
                )
                .remedy(facts.distro.install(Package::Nftables, "install nft")),
            );
        }
        return;
    }
    let why = "published ports and outbound traffic from bridge networks need NAT";
    if tools.iptables.is_none() {
        findings.push(
            Finding::fatal("iptables-missing", "iptables is not in PATH, /usr/sbin or /sbin", why)
                .remedy(facts.distro.install(Package::Iptables, "install iptables"))
                .about_iptables(),
        );
        return;
    }
    if let Outcome::Fails(text) = facts.outcome(Probe::Nat)
        && !facts.host.forbids("net")
    {
        let said = text.lines().next().unwrap_or_default();
        let finding = Finding::fatal(
            "nat-fails",
            format!("iptables cannot create a NAT chain in a namespace: {said}"),
            why,
        )
        .about_iptables();
        findings.push(match (&tools.iptables, tools.iptables_runs) {
            // No module helps a program whose libraries are missing.
            (Some(iptables), false) => finding.fix(format!(
                "install iptables again, because {} does not run (for details: {} --version)",
                iptables.display(),
                quoted(iptables)
            )),
            _ => {
                let names = facts.distro.nat_modules(tools.iptables_legacy);
                finding.remedy(modules(facts, names, "load the modules for NAT"))
            }
        });
    }
}

fn ping(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some((first, last)) = facts.host.ping_group_range else { return };
    let groups = &facts.account.groups;
    let who = if first > last {
        "unprivileged ping is disabled for everyone".to_owned()
    } else if groups.is_empty() || groups.iter().any(|group| (first..=last).contains(group)) {
        return;
    } else {
        format!("{} is in none of these groups", facts.account.name)
    };
    let key = "net.ipv4.ping_group_range";
    findings.push(
        Finding::class(
            "ping",
            format!("{key} is \"{first} {last}\": {who}"),
            "ping does not work in containers",
        )
        .remedy(facts.distro.sysctl("52-rootless-ping.conf", key, "0 2147483647")),
    );
}

fn ports(facts: &Facts, findings: &mut Vec<Finding>) {
    let start = facts.host.port_start.unwrap_or(USUAL_PORT_START);
    // pasta binds ports by itself.
    let by_kit = facts.tools.net.driver() != Some(NetworkDriver::Pasta);
    if start <= 80 || by_kit && facts.tools.low_port_caps {
        return;
    }
    let key = "net.ipv4.ip_unprivileged_port_start";
    let kit = facts.tools.rootlesskit.as_ref().filter(|_| by_kit);
    let mut finding = Finding::advisory(
        "low-ports",
        format!("{key} is {start}"),
        "ports below this number cannot be published (\"cannot expose privileged port\")",
    );
    let mut or = "";
    if let Some(kit) = kit {
        or = "or ";
        finding = finding.fix(format!(
            "allow them for rootlesskit only (this affects every user who runs it): sudo setcap cap_net_bind_service=ep {} (repeat this after each upgrade)",
            quoted(kit)
        ));
    }
    let file = "/etc/sysctl.d/53-rootless-ports.conf";
    findings.push(finding.fix(match facts.distro.family {
        Family::Nix => format!(
            "{or}allow them for all programs: in configuration.nix, set boot.kernel.sysctl.\"{key}\" = 0;"
        ),
        // busybox's sysctl has no --system.
        Family::Alpine => format!(
            "{or}allow them for all programs: as root, echo '{key} = 0' > {file}; sysctl -p {file}"
        ),
        _ => format!(
            "{or}allow them for all programs: echo '{key} = 0' | sudo tee {file}; sudo sysctl --system"
        ),
    }));
}
