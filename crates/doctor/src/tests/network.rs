//! Situations of the network. The file is long because its tables, in this order, become sections of one page.

use drivers::{NetworkDriver, PORTS_RELAYED, PortDriver};

use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, INSTALL, all, case};
use crate::facts::Device;
use crate::findings::{Wish, diagnose};
use crate::probe::{Outcome, Probe};

const NO_LIBRARY: &str = "slirp4netns: error while loading shared libraries: libslirp.so.0";

#[test]
fn situations_of_a_network_stack() {
    all(&a_network_stack());
}

fn fails_with_iproute2(h: &mut Host) {
    h.says("rootlesskit", "--net [host, none, slirp4netns]");
    h.program("bin/ip");
    h.says("ip", "ip utility, iproute2-6.15.0");
    h.fails(Probe::Network, "slirp4netns: exit status 1");
}

pub(super) fn a_network_stack() -> Vec<Case> {
    vec![
        case(
            "no network helper is installed, and rootlesskit has no gateway driver",
            Fatal,
            "network-helper-missing",
            "apt-get install -y slirp4netns",
            |h| {
                h.remove("bin/slirp4netns");
            },
        ),
        case(
            "no network helper is installed on RHEL 10",
            Fatal,
            "network-helper-missing",
            "dnf install -y passt",
            |h| {
                h.os("ID=\"rhel\"\nVERSION_ID=\"10.1\"\n");
                h.remove("bin/slirp4netns");
            },
        ),
        case(
            "Debian 10's slirp4netns is too old",
            Fatal,
            "network-helper-missing",
            "put slirp4netns 0.4.0 or later (https://github.com/rootless-containers/slirp4netns/releases) into",
            |h| {
                h.says("slirp4netns", "Usage: slirp4netns [OPTION]... PID TAPNAME");
            },
        ),
        case(
            "slirp4netns does not run",
            Fatal,
            "network-helper-missing",
            "install slirp4netns again (package slirp4netns), because ",
            |h| h.says("slirp4netns", NO_LIBRARY),
        ),
        case(
            "slirp4netns does not run on RHEL 10",
            Fatal,
            "network-helper-missing",
            "dnf install -y passt",
            |h| {
                h.os("ID=\"rhel\"\nVERSION_ID=\"10.1\"\n");
                h.says("slirp4netns", NO_LIBRARY);
            },
        ),
        case(
            "slirp4netns is too old on RHEL 10",
            Fatal,
            "network-helper-missing",
            "dnf install -y passt",
            |h| {
                h.os("ID=\"rhel\"\nVERSION_ID=\"10.1\"\n");
                h.says("slirp4netns", "Usage: slirp4netns [OPTION]... PID TAPNAME");
            },
        ),
        case(
            "pasta does not run on RHEL 10",
            Fatal,
            "network-helper-missing",
            "install pasta again (package passt), because ",
            |h| {
                h.os("ID=\"rhel\"\nVERSION_ID=\"10.1\"\n");
                h.remove("bin/slirp4netns");
                h.program("bin/pasta");
                h.says("pasta", "pasta: error while loading shared libraries: libc.so.6");
            },
        ),
        case("Debian 12's pasta is too old", Fatal, "network-helper-missing", "slirp4netns", |h| {
            h.remove("bin/slirp4netns");
            h.program("bin/pasta");
            h.says("pasta", "pasta 0.0~git20230309.7c7625d-1+deb12u1");
        }),
        case("pasta is installed", Fatal, "", "", |h| {
            h.remove("bin/slirp4netns");
            h.program("bin/pasta");
            h.says("pasta", "pasta 2024_12_11.09478d5");
        }),
        case("rootlesskit has gvisor-tap-vsock, which needs no helper", Fatal, "", "", |h| {
            h.remove("bin/slirp4netns");
            h.says("rootlesskit", "--net [host, none, gvisor-tap-vsock]");
        }),
        case(
            "Alpine has BusyBox's `ip`, and rootlesskit is not this project's",
            Fatal,
            "iproute2",
            "apk add iproute2",
            |h| {
                h.os("ID=alpine\n");
                h.says("rootlesskit", "--net [host, none, slirp4netns]");
                h.program("bin/ip");
                h.says("ip", "BusyBox v1.36.1 multi-call binary.");
                h.fails(Probe::Network, "ip: invalid argument 'tuntap' to 'ip'");
            },
        ),
        case(
            "`ip` is missing, and rootlesskit is not this project's",
            Fatal,
            "iproute2",
            "install -y iproute2",
            |h| {
                h.says("rootlesskit", "--net [host, none, slirp4netns]");
                h.fails(Probe::Network, "exec: \"ip\": executable file not found in $PATH");
            },
        ),
        case(
            "the trial run fails for another reason, with iproute2",
            Fatal,
            "network-fails",
            "rootlesskit --net",
            fails_with_iproute2,
        ),
        case("`ip` is missing, with --force", Class, "iproute2", "install -y iproute2", |h| {
            h.says("rootlesskit", "--net [host, none, slirp4netns]");
            h.fails(Probe::Network, "exec: \"ip\": executable file not found in $PATH");
        })
        .wish(Wish { force: true, ..INSTALL }),
        case(
            "the trial run fails for another reason, with --force",
            Class,
            "network-fails",
            "",
            fails_with_iproute2,
        )
        .wish(Wish { force: true, ..INSTALL }),
        case(
            "the trial run fails for another reason, without `ip`",
            Fatal,
            "network-fails",
            "rootlesskit --net",
            |h| {
                h.says("rootlesskit", "--net [host, none, slirp4netns]");
                h.fails(Probe::Network, "slirp4netns: exit status 1");
            },
        ),
        case(
            "Ubuntu's AppArmor profile blocks pasta",
            Fatal,
            "network-fails",
            "install slirp4netns and set DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns",
            |h| {
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "pasta");
                h.fails(
                    Probe::Network,
                    "Couldn't open network namespace /proc/7/ns/net: Permission denied",
                );
            },
        ),
        case(
            "slirp4netns does not start",
            Fatal,
            "network-fails",
            "rootlesskit --net=slirp4netns",
            |h| {
                h.fails(Probe::Network, "slirp4netns: exit status 1");
            },
        ),
        case(
            "lxc-user-nic is selected but not allowed",
            Fatal,
            "lxc-usernet",
            "printf '%s\\n' 'jo veth lxcbr0 1' >> /etc/lxc/lxc-usernet",
            |h| {
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "lxc-user-nic");
            },
        ),
        case("lxc-user-nic is selected and allowed", Fatal, "", "", |h| {
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "lxc-user-nic");
            h.write("etc/lxc/lxc-usernet", "jo veth lxcbr0 1\n");
        }),
        case("the module tun is not loaded", Fatal, "tun-missing", "modprobe tun", |h| {
            h.fails(Probe::Network, "failed to create the tun device: No such device");
        })
        .facts(|facts| facts.host.tun = Device::Driverless),
        case("/dev/net/tun does not exist", Fatal, "tun-missing", "modprobe tun", |h| {
            h.remove("dev/net/tun");
            h.fails(Probe::Network, "open /dev/net/tun: no such file or directory");
        }),
        case(
            "/dev/net/tun does not exist in a container",
            Fatal,
            "tun-missing in-container",
            "then start this container with --device /dev/net/tun",
            |h| {
                h.write(".dockerenv", "");
                h.remove("dev/net/tun");
                h.fails(Probe::Network, "open /dev/net/tun: no such file or directory");
            },
        ),
        case(
            "only root can open /dev/net/tun",
            Fatal,
            "tun-closed",
            "chmod 0666 /dev/net/tun",
            |h| {
                h.fails(Probe::Network, "open /dev/net/tun: permission denied");
            },
        )
        .facts(|facts| facts.host.tun = Device::Closed),
    ]
}

const GATEWAY: &str = "--net value  [host, none, gateway, slirp4netns]";
const REFUSAL: &str = "[rootlesskit:child ] error: no such chain type\nhint: use --net=pasta or --net=slirp4netns\n\
                       [rootlesskit:parent] error: child exited: exit status 1";
const SEE_THE_ERROR: &str = "run this to see the whole error: rootlesskit --net=gateway";
const INSTALL_PASTA: &str = "install pasta 2023_06_25 or later (package passt) and set DOCKERD_ROOTLESS_ROOTLESSKIT_NET to pasta";
const NEW_PASTA: &str = "pasta 2024_12_11.09478d5";
const NO_TPROXY: &str = "[rootlesskit:child ] error: nft: tproxy: No such file or directory";

#[test]
fn situations_of_the_gateway_needs_no_package() {
    all(&the_gateway_needs_no_package());
}

pub(super) fn the_gateway_needs_no_package() -> Vec<Case> {
    vec![
        case("the gateway driver works, and no helper is installed", Fatal, "", "", |h| {
            h.says("rootlesskit", GATEWAY);
            h.remove("bin/slirp4netns");
            h.fails(Probe::Network, "not to be tried");
        }),
        case("the gateway driver is selected, and no helper is installed", Fatal, "", "", |h| {
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway");
            h.remove("bin/slirp4netns");
            h.fails(Probe::Gateway, "not to be tried");
        }),
        case(
            "the selected port driver does not support the gateway driver, but slirp4netns is installed",
            Fatal,
            "",
            "",
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "slirp4netns");
                h.fails(Probe::Gateway, "not to be tried");
            },
        ),
        case(
            "rootlesskit has no gateway driver, but slirp4netns is installed",
            Fatal,
            "",
            "",
            |h| {
                h.fails(Probe::Gateway, "not to be tried");
            },
        ),
        case(
            "/etc/resolv.conf is a link to a path outside /etc and /run, and the gateway driver works",
            Advisory,
            "",
            "",
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.link("etc/resolv.conf", "/var/lib/resolved/resolv.conf");
            },
        ),
    ]
}

#[test]
fn situations_of_why_the_gateway_does_not_work() {
    all(&why_the_gateway_does_not_work());
}

pub(super) fn why_the_gateway_does_not_work() -> Vec<Case> {
    vec![
        case(
            "the gateway works, and relays published ports",
            Advisory,
            "ports-relayed",
            "\"userland-proxy\": false",
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.warns(Probe::Gateway, &format!("warning: {PORTS_RELAYED}, so"));
            },
        ),
        case("another driver relays published ports anyway", Advisory, "", "", |h| {
            h.says("rootlesskit", GATEWAY);
            h.warns(Probe::Network, PORTS_RELAYED);
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway");
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "builtin");
        }),
        case("slirp4netns works", Advisory, "gateway-fails", SEE_THE_ERROR, |h| {
            h.says("rootlesskit", GATEWAY);
            h.fails(Probe::Gateway, REFUSAL);
        }),
        case(
            "no helper is installed",
            Fatal,
            "gateway-fails network-helper-missing",
            SEE_THE_ERROR,
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.remove("bin/slirp4netns");
                h.fails(Probe::Gateway, REFUSAL);
            },
        ),
        case(
            "no helper is installed, and rootlesskit's gvisor-tap-vsock is based on the gateway driver",
            Fatal,
            "gateway-fails network-helper-missing",
            SEE_THE_ERROR,
            |h| {
                h.says("rootlesskit", &format!("{GATEWAY} gvisor-tap-vsock"));
                h.remove("bin/slirp4netns");
                h.fails(Probe::Gateway, REFUSAL);
            },
        ),
        case(
            "neither the gateway driver nor slirp4netns works",
            Fatal,
            "gateway-fails network-fails",
            INSTALL_PASTA,
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.fails(Probe::Gateway, REFUSAL);
                h.fails(Probe::Network, "slirp4netns: exit status 1");
            },
        ),
        case(
            "neither the gateway driver nor pasta works, and slirp4netns is too old",
            Fatal,
            "gateway-fails network-fails",
            "/bin/slirp4netns to 0.4.0 or later and set DOCKERD_ROOTLESS_ROOTLESSKIT_NET to slirp4netns",
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.says("slirp4netns", "Usage: slirp4netns [OPTION]... PID TAPNAME");
                h.program("bin/pasta");
                h.says("pasta", NEW_PASTA);
                h.fails(Probe::Gateway, REFUSAL);
                h.fails(Probe::Network, "pasta: exit status 1");
            },
        ),
        case(
            "the gateway driver does not work, with --force",
            Class,
            "gateway-fails",
            "set DOCKERD_ROOTLESS_ROOTLESSKIT_NET to slirp4netns",
            |h| {
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway");
                h.fails(Probe::Network, REFUSAL);
            },
        )
        .wish(Wish { force: true, ..INSTALL }),
        case(
            "the gateway port driver is selected",
            Fatal,
            "gateway-fails",
            "NET to slirp4netns, and remove DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER",
            |h| {
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "gateway");
                h.fails(Probe::Network, REFUSAL);
            },
        ),
        case("a kernel module is missing", Advisory, "gateway-fails", "modprobe nft_tproxy", |h| {
            h.says("rootlesskit", GATEWAY);
            h.fails(Probe::Gateway, NO_TPROXY);
        }),
        case(
            "a kernel module is missing on NixOS",
            Advisory,
            "gateway-fails",
            "\"nft_tproxy\"",
            |h| {
                h.os("ID=nixos\n");
                h.says("rootlesskit", GATEWAY);
                h.fails(Probe::Gateway, NO_TPROXY);
            },
        ),
        case(
            "the trial run fails without a message",
            Advisory,
            "gateway-fails",
            "rootlesskit --net=gateway",
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.fails(Probe::Gateway, "killed");
            },
        ),
        case("/dev/net/tun does not exist", Fatal, "tun-missing", "modprobe tun", |h| {
            h.says("rootlesskit", GATEWAY);
            h.remove("bin/slirp4netns");
            h.remove("dev/net/tun");
            h.fails(Probe::Gateway, "open /dev/net/tun: no such file or directory");
        }),
        case(
            "only root can open /dev/net/tun",
            Fatal,
            "tun-closed",
            "chmod 0666 /dev/net/tun",
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.fails(Probe::Gateway, "open /dev/net/tun: permission denied");
                h.fails(Probe::Network, "open /dev/net/tun: permission denied");
            },
        )
        .facts(|facts| facts.host.tun = Device::Closed),
        case(
            "namespaces do not work, so the gateway driver was not tested",
            Fatal,
            "rootlesskit-fails",
            "",
            |h| {
                h.says("rootlesskit", GATEWAY);
                h.remove("bin/slirp4netns");
                h.fails(Probe::Namespaces, "something odd");
                h.fails(Probe::Gateway, "not to be tried");
            },
        ),
    ]
}

#[test]
fn the_reason_is_the_first_error_of_rootlesskit() {
    let mut host = Host::healthy();
    host.says("rootlesskit", GATEWAY);
    host.fails(Probe::Gateway, REFUSAL);
    let facts = host.facts();
    assert_eq!(facts.tools.net.driver(), Some(NetworkDriver::Slirp4netns));
    let findings = diagnose(&facts, Wish::default());
    assert_eq!(findings[0].seen, "the gateway network driver does not work: no such chain type");
    assert_eq!(
        findings[0].remedy.said,
        [format!("{SEE_THE_ERROR} --copy-up=/etc --copy-up=/run true")]
    );
}

fn gateway_fails(host: &Host) -> Vec<String> {
    let findings = diagnose(&host.facts(), Wish::default());
    let finding = findings.into_iter().find(|finding| finding.code == "gateway-fails");
    finding.expect("it fails").remedy.said
}

/// Another driver is no remedy where the launcher uses it anyway.
#[test]
fn a_hint_of_rootlesskit_is_one_for_the_launcher() {
    let hint = "hint: load the kernel module veth: sudo modprobe veth, or use --net=pasta or --net=slirp4netns";
    let text = format!("[rootlesskit:child ] error: no veth\n{hint}\n");
    let mut host = Host::healthy();
    host.says("rootlesskit", GATEWAY);
    host.fails(Probe::Gateway, &text);
    let remedy = "load the kernel module veth: sudo modprobe veth";
    assert_eq!(gateway_fails(&host), [remedy]);
    host.fails(Probe::Network, "slirp4netns: exit status 1");
    assert_eq!(gateway_fails(&host), [remedy.to_owned(), format!("or {INSTALL_PASTA}")]);
}

#[test]
fn a_driver_that_was_tried_in_vain_is_not_proposed() {
    let others = "set DOCKERD_ROOTLESS_ROOTLESSKIT_NET to";
    let remove = "and remove DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER from the daemon's settings";
    let mut host = Host::healthy();
    host.says("rootlesskit", GATEWAY);
    host.fails(Probe::Gateway, REFUSAL);
    host.fails(Probe::Network, "exit status 1");
    host.program("bin/pasta");
    host.says("pasta", NEW_PASTA);
    assert_eq!(gateway_fails(&host), [format!("{others} pasta")], "slirp4netns was tried");
    host.set("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "builtin");
    assert_eq!(gateway_fails(&host), [format!("{others} pasta, {remove}")]);
    host.remove("bin/slirp4netns");
    assert_eq!(
        gateway_fails(&host),
        [format!(
            "install slirp4netns 0.4.0 or later (package slirp4netns) and {others} slirp4netns"
        )],
        "pasta was tried"
    );
    host.remove("bin/pasta");
    host.program("bin/vpnkit");
    host.os("ID=\"rhel\"\nVERSION_ID=\"10.1\"\n");
    assert_eq!(gateway_fails(&host), [format!("{INSTALL_PASTA}, {remove}")], "vpnkit was tried");
    host.unset("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER");
    host.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway");
    host.fails(Probe::Network, REFUSAL);
    assert_eq!(gateway_fails(&host), [INSTALL_PASTA], "none is there");
    host.program("bin/slirp4netns");
    host.program("bin/pasta");
    assert_eq!(gateway_fails(&host), [format!("{others} pasta or slirp4netns")]);
    host.set(FLAGS, "--net=gateway");
    let remove = format!("and remove --net from {FLAGS}");
    assert_eq!(gateway_fails(&host), [format!("{others} pasta or slirp4netns, {remove}")]);
    host.unset(FLAGS);
    host.says("slirp4netns", NO_LIBRARY);
    assert_eq!(gateway_fails(&host), [format!("{others} pasta")]);
}

#[test]
fn the_drivers_that_go_with_the_gateway() {
    let mut host = Host::healthy();
    host.says("rootlesskit", GATEWAY);
    let tools = host.facts().tools;
    assert_eq!(
        (tools.net.driver(), tools.net.port_driver()),
        (Some(NetworkDriver::Gateway), Some(PortDriver::Gateway))
    );
    host.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gvisor-tap-vsock");
    let tools = host.facts().tools;
    assert_eq!(
        (tools.net.driver(), tools.net.port_driver()),
        (Some(NetworkDriver::GvisorTapVsock), Some(PortDriver::Builtin))
    );
}

#[test]
fn situations_of_nat() {
    all(&nat());
}

pub(super) fn nat() -> Vec<Case> {
    let skip = Wish { skip_iptables: true, ..INSTALL };
    let fails =
        "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist";
    assert!(fails.contains("legacy"));
    vec![
        case(
            "iptables is missing",
            Fatal,
            "iptables-missing",
            "apt-get install -y iptables",
            |h| {
                h.remove("bin/iptables");
            },
        ),
        case(
            "iptables is missing on RHEL 9",
            Fatal,
            "iptables-missing",
            "dnf install -y iptables-nft",
            |h| {
                h.os("ID=\"rhel\"\nVERSION_ID=\"9.4\"\n");
                h.remove("bin/iptables");
            },
        ),
        case("iptables is in /usr/sbin, but not in PATH", Fatal, "", "", |h| {
            h.remove("bin/iptables");
            h.program("usr/sbin/iptables");
        }),
        case(
            "iptables is missing, with --skip-iptables",
            Class,
            "iptables-missing",
            "iptables",
            |h| {
                h.remove("bin/iptables");
            },
        )
        .wish(skip),
        case(
            "daemon.json selects nftables, but nft is missing",
            Fatal,
            "nft-missing",
            "apt-get install -y nftables",
            |h| h.write("home/.config/docker/daemon.json", "{\"firewall-backend\":\"nftables\"}"),
        ),
        case("daemon.json selects nftables", Fatal, "", "", |h| {
            h.program("usr/sbin/nft");
            h.remove("bin/iptables");
            h.write("home/.config/docker/daemon.json", "{\"firewall-backend\":\"nftables\"}");
        }),
        case("the module nf_tables is missing", Fatal, "nat-fails", "modprobe nf_tables", |h| {
            h.fails(Probe::Nat, "no nat");
        }),
        case("the module ip_tables is missing", Fatal, "nat-fails", "modprobe ip_tables", |h| {
            h.says("iptables", "iptables v1.8.9 (legacy)");
            h.fails(Probe::Nat, "no nat");
        }),
        case(
            "modules for NAT are missing on openSUSE",
            Fatal,
            "nat-fails",
            "modprobe iptable_mangle",
            |h| {
                h.os("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n");
                h.fails(Probe::Nat, "no nat");
            },
        ),
        case("iptables does not run", Fatal, "nat-fails", "install iptables again", |h| {
            h.says("iptables", "iptables: error while loading shared libraries: libxtables.so.12");
            h.fails(Probe::Nat, "iptables: error while loading shared libraries: libxtables.so.12");
        }),
        case(
            "modules for NAT are missing in a container",
            Fatal,
            "nat-fails in-container",
            "as root, on this container's host: modprobe nf_tables",
            |h| {
                h.write(".dockerenv", "");
                h.fails(Probe::Nat, "no nat");
            },
        ),
        case("NAT does not work, with --skip-iptables", Class, "nat-fails", "", |h| {
            h.fails(Probe::Nat, "no nat");
        })
        .wish(skip),
        case("NAT was not tested", Fatal, "", "", |h| {
            h.prober.outcomes.insert(Probe::Nat, Outcome::Unknown);
        }),
    ]
}

#[test]
fn situations_of_ports_ping_and_more() {
    all(&ports_ping_and_more());
}

pub(super) fn ports_ping_and_more() -> Vec<Case> {
    vec![
        case("ping is disabled", Class, "ping", "net.ipv4.ping_group_range = 0 2147483647", |h| {
            h.write("proc/sys/net/ipv4/ping_group_range", "1\t0\n");
        }),
        case("ping is allowed only for other groups", Class, "ping", "0 2147483647", |h| {
            h.write("proc/sys/net/ipv4/ping_group_range", "100\t200\n");
        }),
        case("ping is allowed for a supplementary group", Class, "", "", |h| {
            h.write("proc/sys/net/ipv4/ping_group_range", "27\t27\n");
        }),
        case("ps is missing", Class, "ps-missing", "apt-get install -y procps", |h| {
            h.remove("bin/ps");
        }),
        case("ps is missing on Fedora", Class, "ps-missing", "dnf install -y procps-ng", |h| {
            h.os("ID=fedora\n");
            h.remove("bin/ps");
        }),
        case(
            "low ports are restricted",
            Advisory,
            "low-ports",
            "setcap cap_net_bind_service=ep",
            |h| {
                h.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
            },
        ),
        case("low ports are restricted on Alpine", Advisory, "low-ports", "sysctl -p /etc/", |h| {
            h.os("ID=alpine\n");
            h.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
        }),
        case(
            "low ports are restricted on NixOS",
            Advisory,
            "low-ports",
            "configuration.nix",
            |h| {
                h.os("ID=nixos\n");
                h.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
            },
        ),
        case(
            "low ports are restricted, with pasta",
            Advisory,
            "low-ports",
            "for all programs: echo",
            |h| {
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "pasta");
                h.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
            },
        )
        .facts(|facts| facts.tools.low_port_caps = true),
        case("all users may publish ports from 80 upwards", Advisory, "", "", |h| {
            h.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "80\n");
        }),
        case("rootlesskit has a capability for low ports", Advisory, "", "", |h| {
            h.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
        })
        .facts(|facts| facts.tools.low_port_caps = true),
        case(
            "the module br_netfilter is not loaded",
            Advisory,
            "br-netfilter",
            "modprobe br_netfilter",
            |h| {
                h.remove("proc/sys/net/bridge");
            },
        ),
        case("the kernel does not support IPv6", Advisory, "ipv6-off", "", |h| {
            h.remove("proc/sys/net/ipv6");
        }),
        case("nsenter is missing on Alpine", Class, "nsenter-missing", "apk add util-linux", |h| {
            h.os("ID=alpine\n");
            h.remove("bin/nsenter");
        }),
        case(
            "/etc/resolv.conf is a link to a path outside /etc and /run",
            Advisory,
            "resolv-conf-link",
            "SANDBOX=false",
            |h| {
                h.link("etc/resolv.conf", "/var/lib/resolved/resolv.conf");
            },
        ),
        case("slirp4netns's sandbox is off", Advisory, "", "", |h| {
            h.link("etc/resolv.conf", "/var/lib/resolved/resolv.conf");
            let sandbox = "Environment=DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false";
            h.write(DROP_IN, &format!("[Service]\n{sandbox}\n"));
        }),
        case("pasta has no sandbox that hides /etc/resolv.conf", Advisory, "", "", |h| {
            h.link("etc/resolv.conf", "/var/lib/resolved/resolv.conf");
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "pasta");
        }),
        case("/etc/resolv.conf is a link to systemd-resolved's file", Advisory, "", "", |h| {
            h.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
        }),
    ]
}

/// Lines of `/proc/net/route`, in the order of bytes of the machine: the default route, and 10.0.2.0/24.
fn v4_routes(h: &Host, networks: &[([u8; 4], [u8; 4])]) {
    let number = |bytes: [u8; 4]| u32::from_ne_bytes(bytes);
    let lines = networks.iter().map(|(address, mask)| {
        let (address, mask) = (number(*address), number(*mask));
        format!("eth0\t{address:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0\n")
    });
    h.write("proc/net/route", &lines.collect::<String>());
}

fn v6_default(h: &Host) {
    let zero = "0".repeat(32);
    let line = format!(
        "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003 eth0\n"
    );
    h.write("proc/net/ipv6_route", &line);
}

const DEFAULT: ([u8; 4], [u8; 4]) = ([0; 4], [0; 4]);
const OURS: ([u8; 4], [u8; 4]) = ([10, 0, 2, 0], [255, 255, 255, 0]);
const FLAGS: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS";
const DROP_IN: &str = "home/.config/systemd/user/docker.service.d/override.conf";

#[test]
fn ways_out() {
    all(&the_ways_out());
}

pub(super) fn the_ways_out() -> Vec<Case> {
    vec![
        case("the host has only IPv6 connectivity", Class, "ipv6-only", "\"fixed-cidr-v6\"", |h| {
            v6_default(h);
        }),
        case(
            "the host has only IPv6 connectivity, with lxc-user-nic",
            Class,
            "ipv6-only",
            "remove DOCKERD",
            |h| {
                v6_default(h);
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "lxc-user-nic");
                h.write("etc/lxc/lxc-usernet", "jo veth lxcbr0 1\n");
            },
        ),
        case(
            "the host has only IPv6 connectivity, with lxc-user-nic in the flags",
            Class,
            "ipv6-only",
            "remove --net from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS: the selected driver",
            |h| {
                v6_default(h);
                h.set(FLAGS, "--net=lxc-user-nic");
                h.write("etc/lxc/lxc-usernet", "jo veth lxcbr0 1\n");
            },
        ),
        case(
            "the host has only IPv6 connectivity, and only VPNKit is installed",
            Class,
            "ipv6-only",
            "apt-get install -y slirp4netns",
            |h| {
                v6_default(h);
                h.remove("bin/slirp4netns");
                h.program("bin/vpnkit");
            },
        ),
        case(
            "the host has only IPv6 connectivity, and bridge networks have IPv6",
            Class,
            "",
            "",
            |h| {
                v6_default(h);
                h.write("home/.config/docker/daemon.json", "{\"ipv6\": true}");
            },
        ),
        case("the host has IPv4 and IPv6 connectivity", Class, "", "", |h| {
            v6_default(h);
            v4_routes(h, &[DEFAULT]);
        }),
        case(
            "a VirtualBox network overlaps the namespace's network",
            Advisory,
            "cidr-overlap",
            "FLAGS=--cidr=10.41.0.0/24; containers then reach the host at 10.41.0.2",
            |h| v4_routes(h, &[DEFAULT, OURS]),
        ),
        case(
            "the network of a VPN contains the namespace's network",
            Advisory,
            "cidr-overlap",
            "=192.168.240.0/24",
            |h| v4_routes(h, &[DEFAULT, ([10, 0, 0, 0], [255, 0, 0, 0])]),
        ),
        case(
            "a VPN has two routes instead of a default route (0.0.0.0/1 and 128.0.0.0/1)",
            Advisory,
            "",
            "",
            |h| {
                v4_routes(
                    h,
                    &[DEFAULT, ([0; 4], [128, 0, 0, 0]), ([128, 0, 0, 0], [128, 0, 0, 0])],
                );
            },
        ),
        case("another --cidr is set", Advisory, "", "", |h| {
            v4_routes(h, &[DEFAULT, OURS]);
            h.write(
                DROP_IN,
                &format!("[Service]\nEnvironment=\"{FLAGS}=--debug --cidr 10.41.0.0/24\"\n"),
            );
        }),
        case(
            "another --cidr is set and also overlaps",
            Advisory,
            "cidr-overlap",
            "=10.41.0.0/24",
            |h| {
                v4_routes(h, &[DEFAULT, ([10, 99, 0, 0], [255, 255, 0, 0])]);
                h.set(FLAGS, "--cidr=10.99.1.0/24");
            },
        ),
        case("lxc-user-nic uses other addresses", Advisory, "", "", |h| {
            v4_routes(h, &[DEFAULT, OURS]);
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "lxc-user-nic");
            h.write("etc/lxc/lxc-usernet", "jo veth lxcbr0 1\n");
        }),
        case(
            "a drop-in sets a proxy on loopback",
            Class,
            "proxy-loopback",
            "or set the proxy to 10.0.2.2:3128, and set DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false",
            |h| {
                h.write(
                    "home/.config/systemd/user/docker.service.d/proxy.conf",
                    "[Service]\nEnvironment=\"HTTP_PROXY=http://jo:secret@127.0.0.1:3128\" NO_PROXY=localhost\n",
                );
            },
        ),
        case(
            "a proxy is on loopback, and gvisor-tap-vsock has another gateway",
            Class,
            "proxy-loopback",
            "or set the proxy to 10.0.2.1:3128, and set DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false",
            |h| {
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gvisor-tap-vsock");
                h.write("home/.config/environment.d/p.conf", "https_proxy=http://127.0.0.1:3128\n");
            },
        ),
        case(
            "a host network has the addresses of gvisor-tap-vsock",
            Advisory,
            "cidr-overlap",
            "reach the host at 10.41.0.1 instead of 10.0.2.1",
            |h| {
                v4_routes(h, &[DEFAULT, OURS]);
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gvisor-tap-vsock");
            },
        ),
        case(
            "daemon.json sets a proxy on loopback",
            Class,
            "proxy-loopback",
            "10.0.2.2:8080",
            |h| {
                h.write(
                    "home/.config/docker/daemon.json",
                    "{\"proxies\": {\"http-proxy\": \"http://localhost:8080\"}}",
                );
            },
        ),
        case(
            "environment.d sets a proxy on loopback",
            Class,
            "proxy-loopback",
            "set the proxy to [fd00::2]:3128, add --ipv6 to DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS, and set DOCKERD",
            |h| {
                h.write("home/.config/environment.d/p.conf", "https_proxy=http://[::1]:3128\n");
            },
        ),
        case(
            "a proxy is on loopback, and the daemon is on the host's network",
            Class,
            "",
            "",
            |h| {
                h.write("home/.config/environment.d/p.conf", "HTTPS_PROXY=http://127.0.0.1:3128\n");
                h.says("dockerd", "Docker version 29.8.0, build 1\n");
            },
        ),
        case(
            "config.json sets a proxy on loopback for containers",
            Class,
            "proxy-loopback",
            "10.0.2.2:3128",
            |h| {
                h.says("dockerd", "Docker version 29.8.0, build 1\n");
                h.write(
                    "home/.docker/config.json",
                    "{\"proxies\": {\"default\": {\"httpProxy\": \"http://127.0.0.1:3128\"}}}",
                );
            },
        ),
        case(
            "the variables of another supervisor set a proxy on loopback",
            Class,
            "proxy-loopback",
            "10.0.2.2:3128",
            |h| {
                h.write(
                    "home/.config/docker-rootless/env",
                    "HTTPS_PROXY='http://127.0.0.1:3128'; NO_PROXY=localhost\n",
                );
            },
        ),
        case(
            "an EnvironmentFile= of the unit sets a proxy on loopback, on a line that continues on the next one",
            Class,
            "proxy-loopback",
            "10.0.2.2:3128",
            |h| {
                h.write(
                    "home/.config/systemd/user/docker.service.d/proxy.conf",
                    "[Service]\nEnvironmentFile=-/etc/proxy.env\n",
                );
                h.write("etc/proxy.env", "HTTPS_PROXY=\"http://\\\n127.0.0.1:3128\"\n");
            },
        ),
        case("a later drop-in removes the proxy on loopback", Class, "", "", |h| {
            let dir = "home/.config/systemd/user/docker.service.d";
            h.write(
                &format!("{dir}/a.conf"),
                "[Service]\nEnvironment=HTTP_PROXY=http://127.0.0.1:3128\nEnvironmentFile=/etc/proxy.env\n",
            );
            h.write("etc/proxy.env", "HTTPS_PROXY=http://127.0.0.1:3128\n");
            h.write(&format!("{dir}/b.conf"), "[Service]\nEnvironment=\nEnvironmentFile=\n");
        }),
        case("the proxy on loopback is in comments", Class, "", "", |h| {
            h.write(
                "home/.config/systemd/user/docker.service.d/proxy.conf",
                "[Service]\n# HTTP_PROXY=http://127.0.0.1:3128\n; HTTP_PROXY=http://127.0.0.1:3128\n",
            );
            h.write("home/.config/environment.d/p.conf", "# HTTP_PROXY=http://127.0.0.1:3128\n");
        }),
        case(
            "a proxy is on loopback, and a drop-in keeps the daemon off the host's network",
            Class,
            "proxy-loopback",
            "10.0.2.2:3128",
            |h| {
                h.write("home/.config/environment.d/p.conf", "HTTPS_PROXY=http://127.0.0.1:3128\n");
                h.write(
                    DROP_IN,
                    "[Service]\nEnvironment=DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS=false\n",
                );
                h.says("dockerd", "Docker version 29.8.0, build 1\n");
            },
        ),
        case("the proxy is on another host", Class, "", "", |h| {
            h.write("home/.config/environment.d/p.conf", "HTTP_PROXY=http://192.0.2.1:3128\n");
        }),
    ]
}
