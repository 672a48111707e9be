use hostenv::vars::{
    DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK as DISABLE,
    DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW as ALLOW, DOCKERD_ROOTLESS_NET as NET,
    DOCKERD_ROOTLESS_PORT_DRIVER as PORT_DRIVER,
};

use super::Severity::{Class, Fatal};
use super::host::Host;
use super::{Case, all, case};
use crate::probe::Probe;

const DROP_IN: &str = "home/.config/systemd/user/docker.service.d/override.conf";

/// A host with the gateway, on which some ports are open.
fn allows(h: &mut Host) {
    h.says("rootlesskit", "--net [host, none, gateway]");
    h.set(ALLOW, "tcp:5432,udp:53");
}

#[test]
fn situations_of_ports_of_the_hosts_loopback() {
    all(&ports_of_the_hosts_loopback());
}

pub(super) fn ports_of_the_hosts_loopback() -> Vec<Case> {
    vec![
        case("some ports of the host's loopback are open", Fatal, "", "", allows),
        case(
            "the list of open ports is malformed",
            Fatal,
            "host-loopback-value",
            "or unset DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW",
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
                h.says("rootlesskit", "--net [host, none, gateway]");
                h.write(DROP_IN, &format!("[Service]\nEnvironment={ALLOW}=tcp:90-80\n"));
            },
        ),
        case(
            "the variable names a driver that cannot open single ports",
            Fatal,
            "host-loopback-driver",
            "unset DOCKERD_ROOTLESS_ROOTLESSKIT_NET",
            |h| {
                allows(h);
                h.set(NET, "slirp4netns");
            },
        ),
        case(
            "the port driver does not go with the gateway",
            Fatal,
            "host-loopback-driver",
            "unset DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER",
            |h| {
                allows(h);
                h.set(PORT_DRIVER, "slirp4netns");
            },
        ),
        case(
            "ports are to be open, and the gateway does not work",
            Fatal,
            "host-loopback-driver gateway-fails",
            "fix the gateway network",
            |h| {
                allows(h);
                h.fails(Probe::Gateway, "[rootlesskit:child ] error: no tproxy");
            },
        ),
        case(
            "some ports are open, and another variable opens all",
            Fatal,
            "host-loopback-open",
            "to open only some ports, unset DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK",
            |h| {
                allows(h);
                h.set(DISABLE, "false");
            },
        ),
        case("another variable opens nothing", Fatal, "", "", |h| {
            allows(h);
            h.set(DISABLE, "0");
        }),
        case(
            "a proxy is on loopback, and the gateway can open its port",
            Class,
            "proxy-loopback",
            "set DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW=tcp:3128; of the host's loopback",
            |h| {
                h.says("rootlesskit", "--net [host, none, gateway]");
                h.write("home/.config/environment.d/p.conf", "HTTPS_PROXY=http://127.0.0.1:3128\n");
            },
        ),
    ]
}
