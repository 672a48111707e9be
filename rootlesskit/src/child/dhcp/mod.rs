//! DHCP: the address of an interface that comes with a helper.
//!
//! The first lease is waited for, at most [`LIMIT`]; then a thread that lives in the network namespace keeps it
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

use crate::handshake::{Dynamic, Leased, Link};
use crate::net::VPNKIT_SOCKET;
use interface::Interface;
use keeper::Network as _;
use lease::Lease;
use network::Kernel;

/// How long servers have for the first lease.
const LIMIT: Duration = Duration::from_secs(30);

/// Configures the interface, in the network namespace of the calling thread, and keeps its lease from then on.
///
/// # Errors
/// There is no such interface, or no lease for it.
pub(super) fn connect(dynamic: &Dynamic, state_dir: &Path) -> anyhow::Result<Leased> {
    if let Link::Vpnkit { uuid } = &dynamic.link {
        super::pump::start(&dynamic.name, &state_dir.join(VPNKIT_SOCKET), uuid)?;
    }
    let mut rt = Rt::open()?;
    let index = rt.link_index(&dynamic.name)?;
    rt.set_mtu(index, dynamic.mtu)?;
    rt.link_up(index)?;
    let mut interface = Interface::named(&dynamic.name)?;
    let mac = interface.mac();
    let lease =
        client::acquire(&mut interface, mac, LIMIT).with_context(|| explanation(dynamic))?;
    let mut kernel = Kernel::new(&dynamic.name, &state_dir.join("resolv.conf"));
    kernel.install(&lease)?;
    tracing::debug!("{} has the address {}/{}", dynamic.name, lease.address, lease.prefix);
    let leased = Leased {
        address: lease.address.into(),
        dns: lease.dns.iter().copied().map(Into::into).collect(),
    };
    keep(interface, lease, kernel)?;
    Ok(leased)
}

/// What failed, and what a person can do.
fn explanation(dynamic: &Dynamic) -> String {
    let name = &dynamic.name;
    match dynamic.link {
        Link::Veth => format!(
            "the network interface {name} cannot be configured\nhint: a DHCP server must run on the bridge, for lxcbr0 usually by: sudo systemctl enable --now lxc-net; a rootful Docker may have closed the host's firewall for it"
        ),
        Link::Vpnkit { .. } => {
            format!("the network interface {name} cannot be configured: vpnkit should do it")
        }
    }
}

/// Starts the thread that keeps the lease.
fn keep(mut interface: Interface, lease: Lease, mut kernel: Kernel) -> anyhow::Result<()> {
    let keeper = std::thread::Builder::new().name("dhcp".to_owned()).stack_size(256 << 10);
    keeper.spawn(move || {
        let mut lease = lease;
        let mac = interface.mac();
        while let Some(next) = keeper::turn(&mut interface, mac, &lease, &mut kernel) {
            lease = next;
        }
    })?;
    Ok(())
}
