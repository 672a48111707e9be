//! What connects the network namespace of the containers with the outside: there must be a driver that works.

use drivers::choose::Helper;
use drivers::{NetworkDriver, PORTS_RELAYED, PortDriver, Reason};
use hostenv::shellwords::quoted;
use hostenv::vars;

use super::{Finding, Wish, device, modules};
use crate::distro::Package;
use crate::facts::{Device, Facts, Net, UserSetting};
use crate::probe::{Outcome, Probe};
use crate::remedy::Remedy;
use crate::symptoms;

/// What to do if the launcher has to use the gateway and does not, with a port driver that suits.
pub(super) fn gateway_in_force(
    facts: &Facts,
    ports_suit: impl Fn(PortDriver) -> bool,
) -> Vec<String> {
    let choices = &facts.tools.choices;
    let nets = choices.unsuitable_nets(|net| net == NetworkDriver::Gateway);
    let removals: Vec<String> =
        nets.chain(choices.unsuitable_port_drivers(ports_suit)).map(UserSetting::removal).collect();
    if removals.is_empty() { vec![MAKE_GATEWAY_WORK.to_owned()] } else { removals }
}

const MAKE_GATEWAY_WORK: &str = "fix the gateway network; to see why it does not work, run: rootlesskit --net=gateway \
     --copy-up=/etc --copy-up=/run true";

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let tun = tun(facts);
    let tun_is_fine = tun.is_none();
    missing(facts, tun_is_fine, findings);
    lxc_usernet(facts, findings);
    findings.extend(tun);
    // Every network that is tried needs that device.
    if tun_is_fine && !facts.host.forbids("net") {
        if !iproute(facts, findings) {
            fails(facts, findings);
        }
        gateway(facts, findings);
    }
    relayed_ports(facts, findings);
}

/// The kernel takes from the gateway what keeps the addresses of clients.
fn relayed_ports(facts: &Facts, findings: &mut Vec<Finding>) {
    let Outcome::Warns(text) = facts.outcome(Probe::Network) else { return };
    let other =
        facts.tools.choices.port_driver().is_some_and(|ports| ports != PortDriver::Gateway.name());
    if !text.contains(PORTS_RELAYED) || other || !facts.tools.userland_proxy {
        return;
    }
    findings.push(
        Finding::advisory(
            "ports-relayed",
            PORTS_RELAYED,
            "the gateway then forwards published ports as the port driver builtin does, and containers see the address of \
             Docker's bridge, 172.17.0.1, instead of the client's",
        )
        .fix(
            "if containers need the IPv4 addresses of TCP clients, use Docker 28 or later, and set \"userland-proxy\": false in \
             ~/.config/docker/daemon.json (a port is then not published on IPv6 unless the container has an IPv6 address)",
        ),
    );
}

/// There is no program. A gateway that lacks nothing but a device needs none.
fn missing(facts: &Facts, tun_is_fine: bool, findings: &mut Vec<Finding>) {
    let Net::None { why: why_not } = &facts.tools.net else { return };
    if facts.tools.tries_gateway && !tun_is_fine {
        return;
    }
    let finding = Finding::fatal(
        "network-helper-missing",
        format!("no network driver is available: {why_not}"),
        "containers need a network driver to reach the network",
    );
    findings.push(finding.remedy(helper(facts)));
}

/// How to get a helper that works, given those that do not.
pub(super) fn helper(facts: &Facts) -> Remedy {
    let packaged = packaged(facts);
    let helper = facts.tools.helper(packaged);
    match (helper, helper.remedy(packaged)) {
        // The distribution's package is the one that is there.
        (Helper::TooOld(..), _) if packaged == NetworkDriver::Slirp4netns => Remedy::said(
            "put slirp4netns 0.4.0 or later (https://github.com/rootless-containers/slirp4netns/releases) into a \
             directory that comes first in PATH, or upgrade the distribution",
        ),
        (Helper::TooOld(..), Some(remedy)) => Remedy::said(remedy),
        (Helper::Broken(..), Some(remedy)) => {
            // A distribution whose package is passt has no slirp4netns.
            let pasta = facts.tools.pasta.remedy(NetworkDriver::Pasta);
            let pasta = pasta.filter(|_| packaged != NetworkDriver::Pasta);
            let or = pasta.map(|remedy| Remedy::said(format!("or {remedy}")));
            Remedy::said(remedy).and(or.unwrap_or_default())
        }
        _ => facts.distro.install(Package::Network, "install a network helper"),
    }
}

/// The driver whose helper is what the distribution's package contains.
fn packaged(facts: &Facts) -> NetworkDriver {
    match facts.distro.package(Package::Network) {
        Some("passt") => NetworkDriver::Pasta,
        _ => NetworkDriver::Slirp4netns,
    }
}

/// The other one of the two drivers that distributions have packages for.
fn beside(driver: NetworkDriver) -> NetworkDriver {
    match driver {
        NetworkDriver::Slirp4netns => NetworkDriver::Pasta,
        _ => NetworkDriver::Slirp4netns,
    }
}

fn lxc_usernet(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.tools.net.driver() != Some(NetworkDriver::LxcUserNic) || facts.tools.lxc_usernet {
        return;
    }
    let name = &facts.account.name;
    let line = quoted(format!("{name} veth lxcbr0 1"));
    findings.push(
        Finding::fatal(
            "lxc-usernet",
            format!("/etc/lxc/lxc-usernet has no entry for {name}"),
            "lxc-user-nic creates network interfaces only for users listed in that file",
        )
        .admin(
            "allow an interface on lxcbr0",
            [
                "mkdir -p /etc/lxc".to_owned(),
                format!("printf '%s\\n' {line} >> /etc/lxc/lxc-usernet"),
            ],
        ),
    );
}

/// The device, unless it is not needed or something that needs it works.
fn tun(facts: &Facts) -> Option<Finding> {
    let needed = match facts.tools.net.driver() {
        Some(net) => net.needs_tun() && !facts.works(Probe::Network),
        None => facts.tools.tries_gateway,
    };
    if !needed {
        return None;
    }
    let (code, seen) = match facts.host.tun {
        Device::Fine => return None,
        Device::Missing => ("tun-missing", "/dev/net/tun does not exist"),
        Device::Driverless => {
            ("tun-missing", "/dev/net/tun exists, but the kernel module tun is not loaded")
        }
        Device::Closed => ("tun-closed", "/dev/net/tun cannot be opened by this user"),
    };
    let why = "the network driver creates the containers' interface through /dev/net/tun";
    let remedy = device(facts, facts.host.tun, "/dev/net/tun", "tun", "then");
    Some(Finding::fatal(code, seen, why).remedy(remedy))
}

/// Whether the network fails for want of a program that a rootlesskit other than ours runs.
fn iproute(facts: &Facts, findings: &mut Vec<Finding>) -> bool {
    let (Outcome::Fails(text), Some(seen)) =
        (facts.outcome(Probe::Network), &facts.tools.no_iproute)
    else {
        return false;
    };
    // One of ours without the gateway looks like another by its help, and fails for other reasons.
    if !["ip tuntap", "'tuntap'", "exec: \"ip\""].iter().any(|part| text.contains(part)) {
        return false;
    }
    findings.push(
        Finding::fatal("iproute2", seen, "this rootlesskit creates interfaces with `ip tuntap`")
            .remedy(facts.distro.install(Package::Iproute, "install iproute2"))
            .forcible(),
    );
    true
}

fn fails(facts: &Facts, findings: &mut Vec<Finding>) {
    let Outcome::Fails(text) = facts.outcome(Probe::Network) else { return };
    if facts.tools.net.driver() == Some(NetworkDriver::Gateway) {
        return;
    }
    let net = facts.tools.net.name().unwrap_or_default();
    let said = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let remedy = match symptoms::find(text) {
        Some(symptom) => format!("{}: {}", symptom.cause, symptom.fix),
        None => format!(
            "run this to see the whole error: rootlesskit --net={net} --copy-up=/etc --copy-up=/run true"
        ),
    };
    findings.push(
        Finding::fatal(
            "network-fails",
            format!("rootlesskit works, but not with --net={net}: {said}"),
            "the daemon would not start",
        )
        .fix(remedy)
        .forcible(),
    );
}

/// What rootlesskit itself says about a gateway network that does not work.
fn gateway(facts: &Facts, findings: &mut Vec<Finding>) {
    let named = facts.tools.net.driver() == Some(NetworkDriver::Gateway);
    let probe = if named { Probe::Network } else { Probe::Gateway };
    let Outcome::Fails(text) = facts.outcome(probe) else { return };
    let reason = Reason::find(text);
    let seen = format!("the gateway network driver does not work: {}", reason.what);
    let other = facts.tools.net.driver().filter(|_| !named && facts.works(Probe::Network));
    let mut finding = match other {
        Some(_) => Finding::advisory(
            "gateway-fails",
            seen,
            "the launcher falls back to another network driver, which is slower",
        ),
        None => Finding::fatal("gateway-fails", seen, "the daemon would not start").forcible(),
    };
    finding = finding.fixes(reason.remedies());
    if text.contains("tproxy") || text.contains("nf_tables") {
        // nf_tables comes with it.
        let comment = "load the module for the gateway network driver";
        finding = finding.remedy(modules(facts, &["nft_tproxy"], comment));
    }
    if other.is_none()
        && reason.proposes_others()
        && let Some(text) = another_driver(facts)
    {
        let or = if finding.remedy == Remedy::default() { "" } else { "or " };
        finding = finding.fix(format!("{or}{text}"));
    }
    if finding.remedy == Remedy::default() {
        finding = finding.fix(
            "run this to see the whole error: rootlesskit --net=gateway --copy-up=/etc --copy-up=/run true",
        );
    }
    findings.push(finding);
}

/// The drivers to use instead of the one that does not work. The launcher sets `--net` itself. It has nothing to choose if
/// there is no helper at all, which is a finding of its own.
fn another_driver(facts: &Facts) -> Option<String> {
    let failed = facts.tools.net.driver()?;
    let others = [NetworkDriver::Pasta, NetworkDriver::Slirp4netns];
    let others = others.into_iter().filter(|driver| *driver != failed);
    let usable: Vec<_> =
        others.clone().filter(|driver| facts.tools.helper(*driver).is_used()).collect();
    let (first, drivers) = if usable.is_empty() {
        let packaged = packaged(facts);
        let driver = if packaged == failed { beside(packaged) } else { packaged };
        let first = facts.tools.helper(driver).remedy(driver)?;
        (format!("{first} and "), vec![driver])
    } else {
        (String::new(), usable)
    };
    let names = drivers.iter().map(|driver| driver.name()).collect::<Vec<_>>().join(" or ");
    // A flag would win over the variable.
    let choices = &facts.tools.choices;
    let flags = choices.nets.iter().filter(|setting| setting.flag.is_some());
    let ports = choices
        .unsuitable_port_drivers(|ports| drivers.iter().all(|driver| driver.goes_with(ports)));
    let also: String =
        flags.chain(ports).map(|setting| format!(", and {}", setting.removal())).collect();
    Some(format!("{first}set {} to {names}{also}", vars::DOCKERD_ROOTLESS_NET))
}
