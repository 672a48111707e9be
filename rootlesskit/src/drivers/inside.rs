//! The child's half of the network drivers: the interface that leads out of its network namespace.
//!
//! Everything here runs on the thread that lives in that namespace.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use netlink::Rt;

use crate::plan::{Interface, Leased, Uplink};

/// What [`build`] has made.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Descriptors for the parent's half.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether the port driver of the gateway network has to relay ports that lead to loopback addresses from inside the
    /// namespace, because the kernel does not let the gateway reach them.
    pub(crate) loopback_relayed: bool,
}

/// Makes and configures the interface, as far as that is the child's business and does not need the helper.
pub(crate) fn build(uplink: &Uplink, rt: &mut Rt) -> anyhow::Result<Link> {
    match uplink {
        Uplink::None | Uplink::ByHelper | Uplink::Dhcp(_) => Ok(Link::default()),
        Uplink::Tap(interface) => {
            super::tap::create(&interface.name)?;
            configure(rt, interface)?;
            Ok(Link::default())
        }
        #[cfg(feature = "gateway")]
        Uplink::Gateway(interface, plan) => {
            let fds = super::gateway::inside::connect(plan)?;
            configure(rt, interface)?;
            let loopback_relayed = !super::gateway::inside::admit(plan)?;
            Ok(Link { fds, loopback_relayed })
        }
    }
}

/// Configures the interface that is there now that the helper serves; `None` if [`build`] has done everything. Waits for
/// the DHCP server.
pub(crate) fn connect(uplink: &Uplink, state_dir: &Path) -> anyhow::Result<Option<Leased>> {
    let Uplink::Dhcp(dhcp) = uplink else { return Ok(None) };
    #[cfg(feature = "vpnkit")]
    if let crate::plan::Device::Vpnkit { uuid } = &dhcp.device {
        let socket = super::vpnkit::socket(state_dir);
        super::vpnkit::pump::start(&dhcp.name, &socket, uuid)?;
    }
    super::dhcp::connect(dhcp, state_dir).map(Some)
}

fn configure(rt: &mut Rt, interface: &Interface) -> anyhow::Result<()> {
    let Interface { name, mtu, addresses, gateways } = interface;
    let index = rt.link_index(name)?;
    rt.set_mtu(index, *mtu)?;
    let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    if ipv6 && gateways.iter().any(IpAddr::is_ipv6) {
        ignore_advertisements(name);
    }
    rt.link_up(index)?;
    if !ipv6 && addresses.iter().any(|(ip, _)| ip.is_ipv6()) {
        tracing::warn!("the kernel does not support IPv6, so --ipv6 has no effect");
    }
    for &(ip, prefix) in addresses.iter().filter(|(ip, _)| ip.is_ipv4() || ipv6) {
        rt.add_address(index, ip, prefix)?;
    }
    for &ip in gateways.iter().filter(|ip| ip.is_ipv4() || ipv6) {
        rt.add_default_route(ip, index)?;
    }
    Ok(())
}

/// libslirp advertises itself as a router. What the kernel would make of that lasts until something turns on forwarding, as
/// dockerd does, and takes the metric that somebody's own default route would have.
fn ignore_advertisements(name: &str) {
    let key = format!("net/ipv6/conf/{name}/accept_ra");
    if let Err(e) = netlink::sysctl::write(Path::new("/proc/sys"), &key, "0") {
        tracing::debug!("failed to disable router advertisements: {e}");
    }
}
