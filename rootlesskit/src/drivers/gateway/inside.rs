//! The child's part of the gateway network: the namespace next to the target's.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::mpsc;

use anyhow::Context as _;
use drivers::PORTS_RELAYED;

/// Builds the gateway's namespace, with an interface here that leads to it. The thread that lives there stays, to make
/// sockets. Returns the descriptors for the parent's half.
pub(crate) fn connect(plan: &gateway::NetworkConfig) -> anyhow::Result<Vec<OwnedFd>> {
    if plan.v6.is_some()
        && let Err(e) = gateway::namespace::set_for_target(Path::new("/proc/sys"))
    {
        tracing::debug!("{e}");
    }
    let here =
        File::open("/proc/thread-self/ns/net").context("failed to open the network namespace")?;
    let (factory, ours) = relay::factory::pair()?;
    let (conntrack, queries) = gateway::conntrack::pair()?;
    std::thread::Builder::new().name("conntrack".to_owned()).stack_size(256 << 10).spawn(
        move || {
            if let Err(e) = gateway::conntrack::serve(&queries) {
                tracing::warn!(
                    "statistics per container are unavailable, and rules of an egress policy that depend on the sender fail closed: cannot query connection tracking: {e}\nhint: load the kernel module: sudo modprobe nf_conntrack_netlink"
                );
            }
        },
    )?;
    let (report, result) = mpsc::sync_channel(1);
    let plan = plan.clone();
    std::thread::Builder::new().name("gateway".to_owned()).stack_size(256 << 10).spawn(
        move || {
            let inside =
                gateway::namespace::build(&plan, here.as_fd(), Path::new("/proc/sys"), conntrack);
            let works = inside.is_ok();
            if report.send(inside).is_ok()
                && works
                && let Err(e) = relay::factory::serve(ours, || false)
            {
                tracing::error!("the gateway's socket factory failed: {e}");
            }
        },
    )?;
    let inside = result.recv().context("the gateway's network thread exited unexpectedly")??;
    Ok(inside.into_fds(factory))
}

/// Lets the gateway reach servers on loopback addresses here, once the interface is up. False if the kernel does not.
pub(crate) fn admit(plan: &gateway::NetworkConfig) -> anyhow::Result<bool> {
    // As the gateway's namespace is made: without IPv6 where the kernel has none.
    let v6 = plan.v6.filter(|_| Path::new("/proc/sys/net/ipv6/conf").exists());
    let plan = gateway::NetworkConfig { v6, ..plan.clone() };
    let admitted = gateway::namespace::loopback::admit(&plan, Path::new("/proc/sys"))
        .context("failed to let the gateway reach servers on loopback addresses")?;
    if !admitted {
        tracing::warn!(
            "{PORTS_RELAYED}, so published ports are forwarded as with --port-driver=builtin, and containers may not see \
             the addresses of clients"
        );
    }
    Ok(admitted)
}
