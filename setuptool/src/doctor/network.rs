//! The network stack, NAT, ports and ping.

use super::{Finding, Remedy, Wish};
use crate::distro::Package;
use crate::facts::{Device, Facts, Net};
use crate::probe::{Outcome, Probe};
use crate::symptoms;

/// The first port that every user may bind on a Linux that nobody changed.
const USUAL_PORT_START: u64 = 1024;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    driver(facts, findings);
    nat(facts, findings);
    if facts.tools.nsenter.is_none() {
        findings.push(
            Finding::class(
                "nsenter-missing",
                "nsenter is not in PATH",
                "dockerd 29.5 and later reaches the network namespace of the containers with it",
            )
            .remedy(facts.distro.install(Package::UtilLinux, "install nsenter")),
        );
    }
    ping(facts, findings);
    ports(facts, findings);
    if !facts.host.bridge_netfilter {
        findings.push(
            Finding::advisory(
                "br-netfilter",
                "the module br_netfilter is not loaded",
                "without it containers see the gateway as the source of connections when the userland proxy is off, \
                 and rules between containers do not hold",
            )
            .remedy(facts.distro.modules(&["br_netfilter"], "load br_netfilter")),
        );
    }
    if !facts.host.ipv6 {
        findings.push(Finding::advisory(
            "ipv6-off",
            "the kernel has no IPv6",
            "ports are published on IPv4 only; nothing else is affected",
        ));
    }
    if let Some(target) = &facts.host.resolv_conf {
        findings.push(
            Finding::advisory(
                "resolv-conf-link",
                format!("/etc/resolv.conf leads to {}", target.display()),
                "a sandboxed slirp4netns sees /etc and /run only, and then knows no name server",
            )
            .remedy(Remedy::said("DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false")),
        );
    }
}

fn driver(facts: &Facts, findings: &mut Vec<Finding>) {
    let net = match &facts.tools.net {
        Net::None(why_not) => {
            findings.push(
                Finding::fatal(
                    "network-helper-missing",
                    format!("there is no network stack: {why_not}"),
                    "the network namespace of the containers reaches the outside through one",
                )
                .remedy(facts.distro.install(Package::Network, "install a network stack")),
            );
            return;
        }
        net => net.driver().unwrap_or_default(),
    };
    if net == "lxc-user-nic" && !facts.tools.lxc_usernet {
        let name = &facts.account.name;
        let line = super::quoted(&format!("{name} veth lxcbr0 1"));
        findings.push(
            Finding::fatal(
                "lxc-usernet",
                format!("/etc/lxc/lxc-usernet has no line for {name}"),
                "lxc-user-nic makes network interfaces only for the users in that file",
            )
            .remedy(Remedy::admin(
                "allow an interface on lxcbr0",
                [
                    "mkdir -p /etc/lxc".to_owned(),
                    format!("printf '%s\\n' {line} >> /etc/lxc/lxc-usernet"),
                ],
            )),
        );
    }
    let needs_tun = !matches!(net, "lxc-user-nic" | "none") && !facts.works(Probe::Network);
    match facts.host.tun {
        Device::Missing if needs_tun => findings.push(
            Finding::fatal(
                "tun-missing",
                "/dev/net/tun is not there",
                "the network stack makes the interface of the containers with it",
            )
            .remedy(facts.distro.modules(&["tun"], "make /dev/net/tun"))
            .remedy(Remedy::said("in a container, run that with --device /dev/net/tun")),
        ),
        Device::Closed if needs_tun => findings.push(
            Finding::fatal(
                "tun-closed",
                "/dev/net/tun cannot be opened by this user",
                "the network stack makes the interface of the containers with it",
            )
            .remedy(Remedy::admin(
                "open /dev/net/tun for all, as it usually is",
                ["chmod 0666 /dev/net/tun"],
            )),
        ),
        _ => {}
    }
    if let Outcome::Fails(text) = facts.outcome(Probe::Network)
        && !findings.iter().any(|finding| finding.code.starts_with("tun-"))
    {
        let said = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let remedy = match symptoms::find(text) {
            Some(symptom) => format!("{}: {}", symptom.cause, symptom.fix),
            None => format!("try it: rootlesskit --net={net} --copy-up=/etc --copy-up=/run true"),
        };
        findings.push(
            Finding::fatal(
                "network-fails",
                format!("rootlesskit works, but not with --net={net}: {said}"),
                "the daemon would not start",
            )
            .remedy(Remedy::said(remedy))
            .forcible(),
        );
    }
}

fn nat(facts: &Facts, findings: &mut Vec<Finding>) {
    let tools = &facts.tools;
    if tools.nftables_backend {
        return;
    }
    let why = "published ports and the way out of bridge networks need NAT";
    if tools.iptables.is_none() {
        findings.push(
            Finding::fatal("iptables-missing", "iptables is not in PATH, /usr/sbin or /sbin", why)
                .remedy(facts.distro.install(Package::Iptables, "install iptables"))
                .about_iptables(),
        );
        return;
    }
    if let Outcome::Fails(text) = facts.outcome(Probe::Nat) {
        let modules = facts.distro.nat_modules(tools.iptables_legacy);
        let said = text.lines().next().unwrap_or_default();
        findings.push(
            Finding::fatal(
                "nat-fails",
                format!("iptables cannot make a NAT chain in a namespace: {said}"),
                why,
            )
            .remedy(facts.distro.modules(modules, "load the modules for NAT"))
            .about_iptables(),
        );
    }
}

fn ping(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.host.ping_group_range.is_none_or(|(first, last)| first <= last) {
        return;
    }
    let key = "net.ipv4.ping_group_range";
    findings.push(
        Finding::class(
            "ping",
            format!("{key} is \"1 0\": nobody"),
            "ping gets no answer in containers",
        )
        .remedy(facts.distro.sysctl(
            "52-rootless-ping.conf",
            key,
            "0 2147483647",
            &format!("set {key}"),
        )),
    );
}

fn ports(facts: &Facts, findings: &mut Vec<Finding>) {
    let start = facts.host.port_start.unwrap_or(USUAL_PORT_START);
    if start <= 80 || facts.tools.low_port_caps {
        return;
    }
    let key = "net.ipv4.ip_unprivileged_port_start";
    let kit = facts.tools.rootlesskit.as_ref().map(|kit| kit.to_string_lossy().into_owned());
    let mut finding = Finding::advisory(
        "low-ports",
        format!("{key} is {start}"),
        "lower ports cannot be published (\"cannot expose privileged port\")",
    );
    if let Some(kit) = kit {
        finding = finding.remedy(Remedy::said(format!(
            "for this program: sudo setcap cap_net_bind_service=ep {} (again after each upgrade)",
            super::quoted(&kit)
        )));
    }
    findings.push(finding.remedy(Remedy::said(format!(
        "or for all users: echo '{key} = 0' | sudo tee /etc/sysctl.d/53-rootless-ports.conf; sudo sysctl --system"
    ))));
}
