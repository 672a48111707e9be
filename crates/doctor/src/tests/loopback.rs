use hostenv::vars::{
    DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK as DISABLE, DOCKERD_ROOTLESS_FLAGS as FLAGS,
    DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW as ALLOW, DOCKERD_ROOTLESS_NET as NET,
    DOCKERD_ROOTLESS_PORT_DRIVER as PORT_DRIVER,
};

use super::Severity::{Class, Fatal};
use super::host::Host;
use super::{Case, all, case};
use crate::findings::{Wish, diagnose};
use crate::probe::Probe;

const DROP_IN: &str = "home/.config/systemd/user/docker.service.d/override.conf";

/// A host with the gateway.
fn gateway(h: &mut Host) {
    h.says("rootlesskit", "--net [host, none, gateway]");
}

/// The same, on which some ports are open.
fn allows(h: &mut Host) {
    gateway(h);
    h.set(ALLOW, "tcp:5432,udp:53");
}

/// A drop-in with these variables.
fn drop_in(h: &Host, variables: &[(&str, &str)]) {
    let line = |(name, value): &(&str, &str)| format!("Environment=\"{name}={value}\"\n");
    h.write(DROP_IN, &format!("[Service]\n{}", variables.iter().map(line).collect::<String>()));
}

/// A proxy of the daemon.
fn proxy(h: &Host, url: &str) {
    h.write("home/.config/environment.d/p.conf", &format!("HTTPS_PROXY={url}\n"));
}

#[test]
fn situations_of_ports_of_the_hosts_loopback() {
    all(&ports_of_the_hosts_loopback());
}

pub(super) fn ports_of_the_hosts_loopback() -> Vec<Case> {
    let mut all = values();
    all.extend(drivers());
    all.extend(all_ports());
    all.extend(proxies());
    all
}

fn values() -> Vec<Case> {
    vec![
        case("some ports of the host's loopback are open", Fatal, "", "", allows),
        case(
            "the list of open ports is malformed",
            Fatal,
            "host-loopback-value",
            "or remove DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW from the daemon's settings",
            |h| {
                allows(h);
                h.set(ALLOW, "5432");
            },
        ),
        case(
            "the list in a drop-in is malformed",
            Fatal,
            "host-loopback-value",
            "HOST_LOOPBACK_ALLOW from /",
            |h| {
                gateway(h);
                drop_in(h, &[(ALLOW, "tcp:90-80")]);
            },
        ),
        case(
            "a list in the flags is malformed",
            Fatal,
            "host-loopback-value",
            "or remove --host-loopback-allow from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            |h| {
                allows(h);
                h.set(FLAGS, "--host-loopback-allow=5432");
            },
        ),
        case("a list is in comments", Fatal, "", "", |h| {
            gateway(h);
            let line = format!("# {ALLOW}=5432\n; {ALLOW}=5432\n  #{ALLOW}=5432\n");
            h.write(DROP_IN, &format!("[Service]\n{line}# Environment={ALLOW}=5432\n"));
            h.write("home/.config/environment.d/a.conf", &line);
            h.write("home/.config/docker-rootless/env", &format!("{line}A=b # {ALLOW}=5432\n"));
        }),
        case("a list in environment.d has blanks", Fatal, "", "", |h| {
            gateway(h);
            let line = format!("{ALLOW}=tcp:5432, udp:53\n{FLAGS}=--debug --net=gateway\n");
            h.write("home/.config/environment.d/a.conf", &line);
        }),
    ]
}

fn drivers() -> Vec<Case> {
    vec![
        case(
            "the variable names a driver that cannot open individual ports",
            Fatal,
            "host-loopback-driver",
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_NET from the daemon's settings",
            |h| {
                allows(h);
                h.set(NET, "slirp4netns");
            },
        ),
        case(
            "a drop-in names the driver and the ports",
            Fatal,
            "host-loopback-driver",
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_NET from /",
            |h| {
                gateway(h);
                drop_in(h, &[(NET, "slirp4netns"), (ALLOW, "tcp:5432")]);
            },
        ),
        case(
            "the flags name a driver that cannot open individual ports",
            Fatal,
            "host-loopback-driver",
            "remove --net from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            |h| {
                allows(h);
                h.set(FLAGS, "--debug --net=pasta");
            },
        ),
        case(
            "both a variable and the flags in a drop-in select such drivers",
            Fatal,
            "host-loopback-driver",
            "docker.service.d/override.conf\nremove DOCKERD_ROOTLESS_ROOTLESSKIT_NET from the daemon's settings",
            |h| {
                allows(h);
                drop_in(h, &[(FLAGS, "--net pasta --debug")]);
                h.set(NET, "slirp4netns");
            },
        ),
        case(
            "the variable names such a driver, but the flags select the gateway",
            Fatal,
            "",
            "",
            |h| {
                allows(h);
                h.set(FLAGS, "--net=gateway");
                h.set(NET, "slirp4netns");
            },
        ),
        case(
            "a list is in the flags only, and the network driver is not the gateway",
            Fatal,
            "host-loopback-driver",
            "or remove --host-loopback-allow from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            |h| {
                gateway(h);
                h.set(FLAGS, "--host-loopback-allow=tcp:5432");
                h.set(NET, "slirp4netns");
            },
        ),
        case(
            "the port driver is not compatible with the gateway",
            Fatal,
            "host-loopback-driver",
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER from the daemon's settings",
            |h| {
                allows(h);
                h.set(PORT_DRIVER, "slirp4netns");
            },
        ),
        case(
            "the port driver in a drop-in is not compatible with the gateway",
            Fatal,
            "host-loopback-driver",
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER from /",
            |h| {
                allows(h);
                drop_in(h, &[(PORT_DRIVER, "slirp4netns")]);
            },
        ),
        case(
            "the port driver in the flags is not compatible with the gateway",
            Fatal,
            "host-loopback-driver",
            "remove --port-driver from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            |h| {
                allows(h);
                h.set(FLAGS, "--port-driver=slirp4netns");
            },
        ),
        case(
            "ports should be open, but the gateway does not work",
            Fatal,
            "host-loopback-driver gateway-fails",
            "fix the gateway network",
            |h| {
                allows(h);
                h.fails(Probe::Gateway, "[rootlesskit:child ] error: no tproxy");
            },
        ),
    ]
}

fn all_ports() -> Vec<Case> {
    vec![
        case(
            "some ports are open, and another variable opens all",
            Fatal,
            "host-loopback-open",
            "to open only some ports, remove DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK",
            |h| {
                allows(h);
                h.set(DISABLE, "false");
            },
        ),
        case(
            "some ports are open, and the flags in a drop-in open all",
            Fatal,
            "host-loopback-open",
            "to open only some ports, remove --disable-host-loopback from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS in /",
            |h| {
                allows(h);
                drop_in(h, &[(FLAGS, "--disable-host-loopback=false")]);
            },
        ),
        case(
            "some ports are open, and both a flag and a variable open all",
            Fatal,
            "host-loopback-open",
            "FLAGS and remove DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK from",
            |h| {
                allows(h);
                h.set(FLAGS, "--disable-host-loopback=false");
                h.set(DISABLE, "false");
            },
        ),
        case(
            "a flag closes the ports that DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK opens",
            Fatal,
            "",
            "",
            |h| {
                allows(h);
                h.set(DISABLE, "false");
                h.set(FLAGS, "--disable-host-loopback");
            },
        ),
        case(
            "DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK is set, but opens no ports",
            Fatal,
            "",
            "",
            |h| {
                allows(h);
                h.set(DISABLE, "0");
            },
        ),
    ]
}

fn proxies() -> Vec<Case> {
    vec![
        case(
            "a proxy is on loopback, and the gateway can open its port",
            Class,
            "proxy-loopback",
            "set DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW=tcp:3128; containers can then reach only this port",
            |h| {
                gateway(h);
                proxy(h, "http://127.0.0.1:3128");
            },
        ),
        case(
            "a proxy is on loopback, and other ports are open",
            Class,
            "proxy-loopback",
            "and set DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW=tcp:3128,tcp:5432,udp:53; containers can",
            |h| {
                allows(h);
                proxy(h, "http://127.0.0.1:3128");
            },
        ),
        case(
            "a proxy without a port is on loopback, and other ports are open",
            Class,
            "proxy-loopback",
            "10.0.2.2:PORT, and set DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW=tcp:5432,udp:53,tcp:PORT",
            |h| {
                allows(h);
                proxy(h, "http://localhost:");
            },
        ),
        case(
            "a proxy on ::1 is reached over IPv6",
            Class,
            "proxy-loopback",
            "or set the proxy to [fd00::2]:3128, and set DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW=tcp:3128",
            |h| {
                gateway(h);
                drop_in(h, &[(FLAGS, "--ipv6")]);
                proxy(h, "http://[::1]:3128");
            },
        ),
    ]
}

/// What is advised besides an address of the host's network.
fn through_gateway(spoil: impl FnOnce(&mut Host)) -> Option<String> {
    let mut h = Host::healthy();
    gateway(&mut h);
    spoil(&mut h);
    let findings = diagnose(&h.facts(), Wish::default());
    let finding = findings.into_iter().find(|finding| finding.code == "proxy-loopback");
    let said = finding.expect("a proxy on loopback").remedy.said;
    assert!(said.len() <= 2 && said[0].starts_with("make the proxy listen"), "{said:?}");
    said.get(1).cloned()
}

#[test]
fn a_port_that_is_open_already_stays_as_it_is() {
    for variable in [(ALLOW, "tcp:3000-4000"), (DISABLE, "false")] {
        let advice = through_gateway(|h| {
            drop_in(h, &[variable]);
            proxy(h, "http://127.0.0.1:3128");
        });
        assert_eq!(advice.as_deref(), Some("or set the proxy to 10.0.2.2:3128"), "{variable:?}");
    }
    let advice = through_gateway(|h| {
        drop_in(h, &[(FLAGS, "--host-loopback-allow=tcp:3128")]);
        proxy(h, "http://127.0.0.1:3128");
    });
    assert_eq!(advice.as_deref(), Some("or set the proxy to 10.0.2.2:3128"));
    // A list in the flags stays in force beside that of the variable.
    let advice = through_gateway(|h| {
        drop_in(h, &[(FLAGS, "--host-loopback-allow=tcp:22")]);
        proxy(h, "http://127.0.0.1:3128");
    });
    let advice = advice.unwrap();
    assert!(advice.contains(&format!("and set {ALLOW}=tcp:3128; ")), "{advice}");
    assert!(!advice.contains("only"), "{advice}");
}

#[test]
fn a_proxy_that_the_gateway_does_not_lead_to_has_to_listen_elsewhere() {
    assert_eq!(through_gateway(|h| proxy(h, "http://127.1.2.3:8080")), None);
    for net in ["none", "lxc-user-nic", "vpnkit"] {
        let advice = through_gateway(|h| {
            h.set(NET, net);
            proxy(h, "http://127.0.0.1:3128");
        });
        assert_eq!(advice, None, "{net}");
    }
    let of_containers = |h: &Host| {
        h.write(
            "home/.docker/config.json",
            "{\"proxies\": {\"default\": {\"httpProxy\": \"http://[::1]:3128\"}}}",
        );
    };
    assert_eq!(through_gateway(|h| of_containers(h)), None, "bridges have IPv4 only");
    let advice = through_gateway(|h| {
        of_containers(h);
        h.write("home/.config/docker/daemon.json", "{\"ipv6\": true}");
    });
    assert!(advice.unwrap().contains("[fd00::2]:3128, add --ipv6 to "));
    let advice = through_gateway(|h| {
        h.set(NET, "gvisor-tap-vsock");
        proxy(h, "http://[::1]:3128");
    });
    assert_eq!(advice, None, "gvisor-tap-vsock has no IPv6");
}
