//! Situations of a node of a swarm. The file is long because its tables, in this order, become one section of a page.

use hostenv::vars::{
    DOCKERD_ROOTLESS_NET, DOCKERD_ROOTLESS_PORT_DRIVER, DOCKERD_ROOTLESS_SWARM as SWARM,
};

use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, INSTALL, all, case};
use crate::findings::Wish;
use crate::probe::{Outcome, Probe};

const VALUE: &str = "192.0.2.10,peers=192.0.2.0/24";
const DROP_IN: &str = "home/.config/systemd/user/docker.service.d/swarm.conf";
const TRIE: &str = "\
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.10
           /32 host LOCAL
        |-- 192.0.2.11
           /32 host LOCAL
        |-- 198.51.100.0
           /24 host LOCAL
";
const INET6: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
";
/// The form of `/proc/net/tcp`.
const HEAD: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";

/// A host with addresses, the gateway, and everything that a node needs.
fn able(h: &mut Host) {
    h.says("rootlesskit", "--net [host, none, gateway]");
    h.program("usr/sbin/ip");
    h.says("ip", "ip utility, iproute2-6.15.0");
    h.write("proc/net/fib_trie", TRIE);
    h.write("proc/net/if_inet6", INET6);
}

fn node(h: &mut Host) {
    able(h);
    h.set(SWARM, VALUE);
}

/// A socket, with the address as this machine has it in memory.
fn socket(address: [u8; 4], port: u16, state: &str, uid: u32) -> String {
    let address = u32::from_ne_bytes(address);
    format!(
        "   0: {address:08X}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 1 1 0\n"
    )
}

fn listens(h: &Host, file: &str, sockets: &[String]) {
    h.write(&format!("proc/net/{file}"), &format!("{HEAD}{}", sockets.concat()));
}

const ADDRESS: [u8; 4] = [192, 0, 2, 10];

#[test]
fn situations_of_a_node_of_a_swarm() {
    all(&a_node_of_a_swarm());
}

pub(super) fn a_node_of_a_swarm() -> Vec<Case> {
    let mut cases = values_and_addresses();
    cases.extend(ports());
    cases.extend(advertised_addresses());
    cases.extend(drivers_and_kernel());
    cases
}

/// A node that is in a swarm, and what dockerd keeps about that.
fn member(h: &mut Host, state: &str) {
    node(h);
    h.write("home/.local/share/docker/swarm/docker-state.json", &format!("{{{state}}}"));
}

/// One that has joined.
fn joined(h: &mut Host, state: &str) {
    member(h, &format!("\"RemoteAddr\":\"192.0.2.9:2377\",{state}"));
}

fn advertised_addresses() -> Vec<Case> {
    let named = "swarm-advertise swarm-limits";
    vec![
        case("the node advertises its address", Advisory, "swarm-limits", "", |h| {
            joined(h, "\"AdvertiseAddr\":\"192.0.2.10:2377\"");
        }),
        case(
            "the node joined its swarm without --advertise-addr",
            Class,
            named,
            "-addr 192.0.2.10 --token",
            |h| {
                joined(h, "\"AdvertiseAddr\":\"\"");
            },
        ),
        case("the node advertises another address", Advisory, named, "docker swarm leave", |h| {
            joined(h, "\"AdvertiseAddr\":\"192.0.2.77:2377\"");
        }),
        case(
            "the address of the first manager changed",
            Advisory,
            named,
            "DOCKERD_ROOTLESS_SWARM to 192.0.2.77,peers=192.0.2.0/24, and",
            |h| {
                let pool = "\"DefaultAddressPool\":[\"10.20.0.0/16\"]";
                member(
                    h,
                    &format!("\"AdvertiseAddr\":\"192.0.2.77:2377\",\"RemoteAddr\":\"\",{pool}"),
                );
            },
        ),
        case("an IPv6 node advertises its address", Advisory, "swarm-limits", "", |h| {
            joined(h, "\"AdvertiseAddr\":\"[fd00::2]:2377\"");
            h.set(SWARM, "fd00::2,peers=fd00::/64");
        }),
        case(
            "the node advertises its address, but the variable contains another host's",
            Fatal,
            "swarm-address swarm-limits",
            "",
            |h| {
                joined(h, "\"AdvertiseAddr\":\"192.0.2.10:2377\"");
                h.set(SWARM, "192.0.2.70,peers=192.0.2.0/24");
            },
        ),
        case(
            "dockerd stays in the host's network namespace, and joined without --advertise-addr",
            Advisory,
            "swarm-limits",
            "",
            |h| {
                joined(h, "\"AdvertiseAddr\":\"\"");
            },
        )
        .facts(|facts| facts.swarm.as_mut().expect("a node").detached = true),
        case(
            "dockerd stays in the host's network namespace, and has a data path address",
            Advisory,
            "swarm-limits",
            "",
            |h| {
                joined(h, "\"AdvertiseAddr\":\"192.0.2.11:2377\",\"DataPathAddr\":\"192.0.2.10\"");
            },
        )
        .facts(|facts| facts.swarm.as_mut().expect("a node").detached = true),
        case("dockerd's record of its swarm cannot be parsed", Advisory, "swarm-limits", "", |h| {
            joined(h, "\"AdvertiseAddr\":");
        }),
    ]
}

fn values_and_addresses() -> Vec<Case> {
    vec![
        case(
            "the host could be a node, but DOCKERD_ROOTLESS_SWARM is not set",
            Advisory,
            "",
            "",
            able,
        ),
        case(
            "DOCKERD_ROOTLESS_SWARM is set",
            Advisory,
            "swarm-limits",
            "endpoint_mode: dnsrr",
            node,
        ),
        case(
            "the host uses addresses in 10.20.0.0/16, the pool that `check` usually suggests",
            Advisory,
            "swarm-limits",
            "run `docker swarm init --default-addr-pool 10.22.0.0/16`",
            |h| {
                node(h);
                let route = |second: u8| {
                    let network = u32::from_ne_bytes([10, second, 7, 0]);
                    let mask = u32::from_ne_bytes([255, 255, 255, 0]);
                    format!("eth0 {network:08X} 00000000 0001 0 0 0 {mask:08X} 0 0 0\n")
                };
                h.write("proc/net/route", &(route(20) + &route(21)));
            },
        ),
        case(
            "a VPN routes 10.0.0.0/9",
            Advisory,
            "swarm-limits cidr-overlap",
            "run `docker swarm init --default-addr-pool 10.140.0.0/16`",
            |h| {
                node(h);
                h.write("proc/net/route", "tun0 0000000A 00000000 0001 0 0 0 000080FF 0 0 0\n");
            },
        ),
        case("--cidr is outside the default pool of a swarm", Advisory, "swarm-limits", "", |h| {
            node(h);
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--cidr=192.168.240.0/24");
        }),
        case(
            "a drop-in sets DOCKERD_ROOTLESS_SWARM",
            Advisory,
            "swarm-limits",
            "add --advertise-addr ADDRESS to the `docker swarm join` command",
            |h| {
                able(h);
                h.write(DROP_IN, &format!("[Service]\nEnvironment={SWARM}={VALUE}+fd00::/64\n"));
            },
        ),
        case("a later drop-in sets the variable to an empty value", Advisory, "", "", |h| {
            able(h);
            h.write(DROP_IN, &format!("[Service]\nEnvironment={SWARM}={VALUE}\n"));
            let later = DROP_IN.replace("swarm.conf", "zone.conf");
            h.write(&later, &format!("[Service]\nEnvironment=\"{SWARM}=\"\n"));
        }),
        case("the variable is set to an empty value", Advisory, "", "", |h| {
            able(h);
            h.write(DROP_IN, &format!("[Service]\nEnvironment={SWARM}={VALUE}\n"));
            h.set(SWARM, "");
        }),
        case(
            "the value names no peers",
            Fatal,
            "swarm-value",
            "remove the variable from the daemon",
            |h| {
                able(h);
                h.set(SWARM, "192.0.2.10");
            },
        ),
        case(
            "the value in a file is wrong",
            Fatal,
            "swarm-value",
            "remove the variable from that file",
            |h| {
                able(h);
                h.write(
                    "home/.config/docker-rootless/swarm",
                    &format!("{SWARM}=eth0,peers=192.0.2.1\n"),
                );
            },
        ),
        case(
            "the address belongs to another host",
            Fatal,
            "swarm-address swarm-limits",
            "one of this host's addresses: 192.0.2.10, 192.0.2.11",
            |h| {
                able(h);
                h.set(SWARM, "192.0.2.99,peers=192.0.2.0/24");
            },
        ),
        case(
            "the IPv6 address belongs to another host",
            Fatal,
            "swarm-address swarm-limits",
            "addresses: fd00::2",
            |h| {
                able(h);
                h.set(SWARM, "fd00::3,peers=fd00::/64");
            },
        ),
        case(
            "the host has a new address, but the drop-in contains the old one",
            Fatal,
            "swarm-address swarm-limits",
            "run `dockerd-rootless-setuptool.sh install --swarm=`, with nothing",
            |h| {
                able(h);
                let value = VALUE.replace(".10,", ".99,");
                h.write(DROP_IN, &format!("[Service]\nEnvironment={SWARM}={value}\n"));
            },
        ),
        case("the IPv6 address belongs to this host", Advisory, "swarm-limits", "", |h| {
            able(h);
            h.set(SWARM, "fd00::2,peers=fd00::/64");
        }),
        case(
            "a local route makes the address one of this host's",
            Advisory,
            "swarm-limits",
            "",
            |h| {
                able(h);
                h.set(SWARM, "198.51.100.7,peers=192.0.2.0/24");
            },
        ),
        case(
            "programs may listen on addresses that the host does not have (ip_nonlocal_bind)",
            Advisory,
            "swarm-limits",
            "",
            |h| {
                able(h);
                h.set(SWARM, "192.0.2.99,peers=192.0.2.0/24");
                h.write("proc/sys/net/ipv4/ip_nonlocal_bind", "1\n");
            },
        ),
    ]
}

fn another_users_node(h: &mut Host) {
    node(h);
    listens(h, "udp", &[socket(ADDRESS, 4789, "07", 4711)]);
}

fn ports() -> Vec<Case> {
    vec![
        case(
            "rootful Docker is a node on all addresses",
            Fatal,
            "swarm-port-taken swarm-limits",
            "where ADDRESS is another address of this host: 192.0.2.11",
            |h| {
                node(h);
                listens(h, "tcp", &[socket([0; 4], 2377, "0A", 0)]);
                listens(h, "udp", &[socket([0; 4], 7946, "07", 0), socket([0; 4], 4789, "07", 0)]);
            },
        ),
        case(
            "another user's node uses the address",
            Fatal,
            "swarm-port-taken swarm-limits",
            "or stop the other program",
            another_users_node,
        ),
        case(
            "another user's node uses the address, with --force",
            Class,
            "swarm-port-taken swarm-limits",
            "",
            another_users_node,
        )
        .wish(Wish { force: true, ..INSTALL }),
        case(
            "another node uses the address, and dockerd stays in the host's network namespace",
            Fatal,
            "swarm-port-taken swarm-limits",
            "--listen-addr=192.0.2.11:2377",
            |h| {
                node(h);
                h.says("dockerd", "Docker version 29.5.0, build x");
                listens(h, "tcp", &[socket(ADDRESS, 2377, "0A", 4711)]);
            },
        ),
        case(
            "other programs use other addresses, ports or protocols",
            Advisory,
            "swarm-limits",
            "",
            |h| {
                node(h);
                let others = [
                    socket([192, 0, 2, 11], 2377, "0A", 0),
                    socket(ADDRESS, 2377, "01", 0),
                    socket(ADDRESS, 22, "0A", 0),
                ];
                listens(h, "tcp", &others);
                listens(h, "udp", &[socket(ADDRESS, 2377, "07", 0)]);
            },
        ),
    ]
}

fn drivers_and_kernel() -> Vec<Case> {
    vec![
        case(
            "the port driver does not keep the addresses of the nodes",
            Fatal,
            "swarm-driver swarm-limits",
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER from",
            |h| {
                node(h);
                h.set(DOCKERD_ROOTLESS_NET, "gateway");
                h.set(DOCKERD_ROOTLESS_PORT_DRIVER, "builtin");
            },
        ),
        case(
            "the network driver cannot restrict the clients of a port",
            Fatal,
            "swarm-driver swarm-limits",
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_NET from",
            |h| {
                node(h);
                h.set(DOCKERD_ROOTLESS_NET, "slirp4netns");
            },
        ),
        case(
            "the flags in a drop-in name such a driver",
            Fatal,
            "swarm-driver swarm-limits",
            "remove --net from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS in /",
            |h| {
                node(h);
                let flags = "Environment=DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--net=pasta";
                let drop_in = DROP_IN.replace("swarm.conf", "override.conf");
                h.write(&drop_in, &format!("[Service]\n{flags}\n"));
            },
        ),
        case(
            "the flags select the gateway network driver, but a different port driver",
            Fatal,
            "swarm-driver swarm-limits",
            "remove --port-driver from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            |h| {
                node(h);
                h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--net=gateway --port-driver=builtin");
                h.set(DOCKERD_ROOTLESS_NET, "slirp4netns");
            },
        ),
        case(
            "the gateway network does not work",
            Fatal,
            "swarm-driver gateway-fails swarm-limits",
            "fix the gateway network",
            |h| {
                node(h);
                h.fails(Probe::Gateway, "no nf_tables");
            },
        ),
        case(
            "the kernel does not support VXLAN",
            Class,
            "swarm-vxlan swarm-limits",
            "vxlan",
            |h| {
                node(h);
                h.fails(
                Probe::Vxlan,
                "Error: Unknown device type.\n[rootlesskit:parent] error: child exited: exit status 2",
            );
            },
        ),
        case(
            "the kernel does not support VXLAN, and iproute2 is not installed",
            Class,
            "swarm-vxlan swarm-limits",
            "modprobe vxlan",
            |h| {
                node(h);
                h.remove("usr/sbin/ip");
                h.prober.outcomes.insert(Probe::Vxlan, Outcome::Unknown);
                h.write("lib/modules/6.12.0-1-amd64/modules.dep", "kernel/net/ipv4/ipip.ko.xz:\n");
            },
        ),
        case(
            "the kernel supports VXLAN, and iproute2 is not installed",
            Advisory,
            "swarm-limits",
            "",
            |h| {
                node(h);
                h.says("ip", "BusyBox v1.37.0");
                h.prober.outcomes.insert(Probe::Vxlan, Outcome::Unknown);
                let modules =
                    "kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz\n";
                h.write("lib/modules/6.12.0-1-amd64/modules.dep", modules);
            },
        ),
    ]
}

/// The sockets of the daemon that runs are the node's own.
#[test]
fn a_node_that_runs_is_not_in_its_own_way() {
    let mut h = Host::healthy();
    node(&mut h);
    let uid = h.world.uid;
    listens(&h, "tcp", &[socket(ADDRESS, 2377, "0A", uid), socket(ADDRESS, 7946, "0A", 0)]);
    let taken = |h: &Host| {
        let facts = h.facts();
        facts.swarm.unwrap().taken.iter().map(|taken| taken.port).collect::<Vec<_>>()
    };
    assert_eq!(taken(&h), [2377, 7946], "no daemon runs");
    h.runs(&[]);
    assert_eq!(taken(&h), [7946]);
}
