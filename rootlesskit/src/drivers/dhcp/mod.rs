//! DHCP: the address of an interface that comes with a helper.
//!
//! The first lease is waited for, at most [`ACQUIRE_TIMEOUT`]; then a thread that lives in the network namespace keeps it
//! ([`keeper`]).

mod client;
mod frame;
mod interface;
mod keeper;
mod lease;
mod network;
#[cfg(test)]
mod tests;
mod wire;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use netlink::Rt;

use crate::plan::{Device, Dhcp, Leased};
use interface::Interface;
use keeper::Network as _;
use lease::Lease;
use network::Kernel;

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Configures the interface, in the network namespace of the calling thread, and keeps its lease from then on.
pub(super) fn connect(dhcp: &Dhcp, state_dir: &Path) -> anyhow::Result<Leased> {
    let mut rt = Rt::open()?;
    let index = rt.link_index(&dhcp.name)?;
    rt.set_mtu(index, dhcp.mtu)?;
    rt.link_up(index)?;
    let mut interface = Interface::named(&dhcp.name)?;
    let mac = interface.mac;
    let lease =
        client::acquire(&mut interface, mac, ACQUIRE_TIMEOUT).with_context(|| explanation(dhcp))?;
    let mut kernel = Kernel::new(&dhcp.name, &state_dir.join("resolv.conf"));
    kernel.install(&lease)?;
    tracing::debug!("{} has the address {}/{}", dhcp.name, lease.address, lease.prefix);
    let leased = Leased {
        address: lease.address.into(),
        dns: lease.dns.iter().copied().map(Into::into).collect(),
    };
    keep(interface, lease, kernel)?;
    Ok(leased)
}

fn explanation(dhcp: &Dhcp) -> String {
    let name = &dhcp.name;
    match dhcp.device {
        Device::Veth => format!(
            "cannot configure the network interface {name}\nhint: start a DHCP server on the bridge, for lxcbr0 usually with: sudo systemctl enable --now lxc-net; also check that a rootful Docker's firewall rules do not block DHCP"
        ),
        Device::Vpnkit { .. } => {
            format!("cannot configure the network interface {name} with DHCP from vpnkit")
        }
    }
}

fn keep(mut interface: Interface, lease: Lease, mut kernel: Kernel) -> anyhow::Result<()> {
    let keeper = std::thread::Builder::new().name("dhcp".to_owned()).stack_size(256 << 10);
    let started = keeper.spawn(move || {
        let mut lease = lease;
        let mac = interface.mac;
        while let Some(next) = keeper::turn(&mut interface, mac, &lease, &mut kernel) {
            lease = next;
        }
    });
    started.context("failed to start the thread that keeps the DHCP lease")?;
    Ok(())
}
