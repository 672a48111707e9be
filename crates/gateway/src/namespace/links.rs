//! The links of the gateway namespace and its tables of routes.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use netlink::{Family, Result, Rt};

use super::reason::{cannot, no_tun, no_veth};
use super::{loopback, parameters};
use crate::network_config::NetworkConfig;

/// The gateway namespace's end of the veth pair.
pub(super) const VETH: &str = "gw0";
/// Marks of packets for the tun devices "dial" and "data", and for a socket of the gateway namespace.
pub(super) const DIAL: u32 = 1;
pub(super) const DATA: u32 = 2;
pub(super) const SOCKET: u32 = 3;

/// The largest that IPv4 packets can be, in bytes: a link of the gateway namespace must not be what cuts a datagram.
pub(super) const LARGEST_MTU: u32 = 65_535;
/// Packets that a tun holds for the gateway process: some milliseconds of a flood.
const TUN_QUEUE: u32 = 4096;
const DIAL_TABLE: u32 = 101;
const DATA_TABLE: u32 = 102;
const SOCKET_TABLE: u32 = 100;
/// Priorities of the rules for marks, and of the one for local addresses behind them.
const PRIORITIES: [(u32, u32, u32); 3] =
    [(DIAL, DIAL_TABLE, 10), (DATA, DATA_TABLE, 11), (SOCKET, SOCKET_TABLE, 12)];
const LOCAL_PRIORITY: u32 = 1000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) veth: u32,
    pub(super) dial: u32,
    pub(super) data: u32,
}

/// Makes a tun device, which is down.
pub(super) fn open_tun(device: &Path, name: &str) -> anyhow::Result<OwnedFd> {
    sys::tap::open_tun(device, name)
        .map_err(|error| no_tun(&device.display().to_string(), name, &error))
}

/// Makes the veth pair and sets all links of the gateway namespace up, the tun devices "dial" and "data" among them.
pub(super) fn set_up(
    rt: &mut Rt,
    plan: &NetworkConfig,
    child: BorrowedFd<'_>,
    proc_sys: &Path,
) -> anyhow::Result<Links> {
    rt.add_veth(VETH, &plan.ifname, Some(child), plan.mtu).map_err(|error| no_veth(&error))?;
    configure(rt, plan, proc_sys).map_err(|error| cannot("set up links in", &error, ""))
}

fn configure(rt: &mut Rt, plan: &NetworkConfig, proc_sys: &Path) -> Result<Links> {
    let index = rt.link_index("lo")?;
    rt.link_up(index)?;
    let veth = rt.link_index(VETH)?;
    for net in plan.nets() {
        rt.add_address(veth, net.gateway, net.prefix)?;
        if net.dns != net.gateway {
            // The kernel of the gateway namespace speaks as the gateway.
            rt.add_deprecated_address(veth, net.dns, net.prefix)?;
        }
    }
    if plan.v6.is_some() {
        parameters::set_for_veth(proc_sys, VETH)?;
    }
    rt.link_up(veth)?;
    for net in plan.nets() {
        let (network, prefix) = loopback::seen_from_gateway(net.child);
        rt.add_route(network, prefix, net.child, veth)?;
    }
    let mut tun = |name| {
        if plan.v6.is_some() {
            parameters::set_for_tun(proc_sys, name)?;
        }
        let index = rt.link_index(name)?;
        rt.set_mtu(index, LARGEST_MTU)?;
        rt.set_queue_length(index, TUN_QUEUE)?;
        rt.link_up(index)?;
        Ok(index)
    };
    Ok(Links { veth, dial: tun("dial")?, data: tun("data")? })
}

/// Leads each mark to where it belongs.
pub(super) fn route(rt: &mut Rt, families: &[Family], links: Links) -> Result<()> {
    for &family in families {
        rt.add_default_link_route(family, links.dial, DIAL_TABLE)?;
        rt.add_default_link_route(family, links.data, DATA_TABLE)?;
        rt.add_local_default(family, SOCKET_TABLE)?;
        for (mark, table, priority) in PRIORITIES {
            rt.add_fwmark_rule(family, mark, table, priority)?;
        }
        rt.move_local_rule(family, LOCAL_PRIORITY)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_node_is_named_with_its_remedy() {
        let error = open_tun(Path::new("/nonexistent/tun"), "dial").unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to create the tun device dial with /nonexistent/tun: No such file or directory (os error 2)\n\
             hint: load the kernel module tun: sudo modprobe tun"
        );
    }
}
