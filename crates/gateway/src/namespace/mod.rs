//! Builds the gateway namespace, the namespace in which TCP ends and from which packets are read.
//!
//! # Theory of operation
//!
//! The gateway namespace knows three kinds of packets by a mark that `rules` gives them as they arrive, and a table of
//! routes for each:
//!
//! | mark | what | table | leads to |
//! |---|---|---|---|
//! | 1 | the SYN of a new connection, segments of no connection, DNS | 101 | tun "dial" |
//! | 2 | other datagrams, echo requests | 102 | tun "data" |
//! | 4 | datagrams of overlay networks | 103 | a veth pair whose other end is read by a packet socket, see [`overlay`] |
//! | 3 | what belongs to a socket of the gateway namespace, and ICMP errors about it | 100 | that socket, as if each address were local |
//! | none | answers that were written to a tun, and what is meant for the gateway namespace itself | main, local | the target namespace, or the kernel of the gateway namespace |
//!
//! A SYN is read from "dial", and written there again once its real destination has accepted; only then it reaches the
//! listener, which takes it for any address and port. It is held back in a tun because the kernel has no other place
//! that is free of modules that are often missing (a queue of netfilter would be one).
//!
//! The rules for marks are asked before the one for local addresses, which is why it is moved: the gateway's own
//! address is a destination like others. Packets to a socket of the gateway namespace find it by `tproxy`, which looks
//! at established connections and connected datagram sockets first; so an answer to a socket that is bound to a
//! client's address needs no rule of its own. There is no connection tracking and no address translation in the gateway
//! namespace.
//!
//! The target namespace gets its end of the veth pair, which is left down and without addresses, and two rules with
//! which the gateway namespace reaches servers on the target namespace's loopback addresses ([`loopback`]). The
//! descriptors of [`Descriptors`] keep the gateway namespace alive; with the last of them it goes away.

mod links;
mod listener;
pub mod loopback;
mod overlay;
mod parameters;
mod reason;
mod rules;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use netlink::{Family, Rt};
use nix::sched::{CloneFlags, unshare};

pub use self::parameters::set_for_target;
use self::reason::cannot;
use crate::{Descriptors, NetworkConfig};

/// Port of the two listeners in the gateway namespace. No client connects to it; it only has to be one that no client
/// connects *from*, for a socket bound to such a client's address would be in the listener's way.
pub const PORT: u16 = 1;

/// A port at which there is never a listener, for packets that belong to connections only.
const NOBODY: u16 = 2;

const TUN_DEVICE: &str = "/dev/net/tun";

/// Moves the calling thread into a new network namespace, makes it the gateway namespace, and connects it with the
/// target namespace, which is `child`. The target namespace's end of the veth pair is called [`NetworkConfig::ifname`]
/// and has the MTU of the plan; the target namespace's owner gives it addresses and sets it up. `proc_sys` is
/// `/proc/sys`, writable. `conntrack` is passed on. IPv6 is left out with a warning if the kernel has none.
///
/// Wants `CAP_SYS_ADMIN`, `CAP_NET_ADMIN` and `CAP_NET_BIND_SERVICE` in the user namespace of the thread, which has to
/// be the one that the target namespace belongs to.
///
/// # Errors
/// What the kernel or the host does not offer, and how that is changed. The thread is then in a namespace of no use.
pub fn build(
    plan: &NetworkConfig,
    child: BorrowedFd<'_>,
    proc_sys: &Path,
    conntrack: OwnedFd,
) -> anyhow::Result<Descriptors> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(reason::no_namespace)?;
    let plan = NetworkConfig { v6: plan.v6.filter(|_| kernel_has_ipv6(proc_sys)), ..plan.clone() };
    let families: &[Family] =
        if plan.v6.is_some() { &[Family::V4, Family::V6] } else { &[Family::V4] };

    parameters::set_for_namespace(proc_sys, plan.v6.is_some())
        .map_err(|error| cannot("set parameters of", &error, "mount /proc/sys writable"))?;
    let mut rt = Rt::open().map_err(|error| cannot("configure", &error, ""))?;
    let (dial, data) = (
        links::open_tun(Path::new(TUN_DEVICE), "dial")?,
        links::open_tun(Path::new(TUN_DEVICE), "data")?,
    );
    let links = links::set_up(&mut rt, &plan, child, proc_sys)?;
    links::route(&mut rt, families, links).map_err(|error| reason::no_routing(&error))?;
    let overlay = overlay::open(&mut rt, families, proc_sys);
    let exit = overlay.as_ref().map(|(exit, _)| *exit);
    rules::install(&plan, links, exit).map_err(|error| reason::no_rules(&error))?;
    let listen = |family| listener::open(family).map_err(|error| cannot("listen in", &error, ""));
    Ok(Descriptors {
        dial,
        data,
        v4: listen(Family::V4)?,
        v6: plan.v6.map(|_| listen(Family::V6)).transpose()?,
        conntrack,
        overlay: overlay.map(|(_, descriptors)| descriptors),
    })
}

/// A kernel without IPv6, or started with `ipv6.disable=1`, has no parameters of it.
fn kernel_has_ipv6(proc_sys: &Path) -> bool {
    let found = proc_sys.join("net/ipv6/conf").exists();
    if !found {
        tracing::warn!("the kernel does not support IPv6, so the gateway network has only IPv4");
    }
    found
}
