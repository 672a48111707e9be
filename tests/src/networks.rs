//! What network drivers find on a host that an administrator has prepared: a bridge with a DHCP server for
//! lxc-user-nic, and a vpnkit.

use anyhow::{Result, ensure};

use crate::{PATIENCE, Running, TestBox, install, paths, wait};

/// What lxc-net would do: a bridge that leads out, and the user's permission.
const BRIDGE: &str = "set -e
    ip link add lxcbr0 type bridge; ip addr add 10.0.3.1/24 dev lxcbr0; ip link set lxcbr0 up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    nft add table ip t; nft 'add chain ip t post { type nat hook postrouting priority 100; }'
    nft add rule ip t post ip saddr 10.0.3.0/24 oifname eth0 masquerade
    mkdir -p /etc/lxc; echo 'tester veth lxcbr0 10' >/etc/lxc/lxc-usernet";

/// A DHCP server on that bridge, which passes names on to the usual name server of a box.
const SERVER: &str = "exec dnsmasq --conf-file=/dev/null --keep-in-foreground --log-facility=- --log-dhcp --user=root
    --pid-file= --interface=lxcbr0 --bind-interfaces --no-resolv --server=10.77.0.2 --no-hosts --dhcp-authoritative";

/// The addresses that the server of [`dhcp_server`] usually lends.
pub const RANGE: &str = "--dhcp-range=10.0.3.100,10.0.3.149,2m";

/// What lxc-user-nic leaves: its list of who has how many.
pub const LEFT_BY_LXC: &[&str] = &["/run/lxc"];

/// Makes the bridge that `--net=lxc-user-nic` looks for, with a way out; in a box of a suite that has the program.
///
/// # Errors
/// A step fails.
pub fn lxc_bridge(b: &TestBox) -> Result<()> {
    b.root(BRIDGE).ok().map(drop)
}

/// Starts a DHCP server on that bridge; `options` are dnsmasq's.
///
/// # Errors
/// It ended, or does not serve within 10 seconds.
pub fn dhcp_server<'b>(b: &'b TestBox, options: &str) -> Result<Running<'b>> {
    // A file of its own each time: no server remembers what the one before has lent.
    let leases = format!("--dhcp-leasefile=$(mktemp /run/box/leases.XXXX) {options}");
    let line = format!("{SERVER} {leases}").replace('\n', " ");
    let mut server = b.root(&line).spawn()?;
    wait::until_true("the DHCP server serves", PATIENCE, || {
        ensure!(server.alive()?, "it ended: {}", server.printed()?);
        Ok(server.printed()?.contains("DHCP, sockets bound"))
    })?;
    Ok(server)
}

/// Installs the stand-in for vpnkit.
///
/// # Errors
/// It was not built.
pub fn vpnkit(b: &TestBox) -> Result<()> {
    let program = paths::target()?.join("debug/vpnkit-standin");
    install::copy(&program, &b.path("/usr/local/bin/vpnkit"))
}
