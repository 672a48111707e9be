//! Where datagrams of overlay networks are read: at the other end of a veth pair with both ends in the gateway namespace.
//!
//! # Theory of operation
//!
//! A link of the target namespace that encapsulates frames (VXLAN, Geneve) leaves two things to the link below it: the
//! checksum of the inner packet, and the cutting of an inner segment of up to 64 KiB into packets that fit. Between the
//! ends of a veth pair nobody needs either, so the kernel passes such packets on as they are, and at a veth's other end
//! they are whole packets to a link that decapsulates. But a socket that receives one gets bytes with a checksum that
//! is half done, and sends them to a host that finds it wrong.
//!
//! So the rules lead overlay datagrams ([`relay::overlay`]) through this pair. At its other end, a packet socket reads each
//! with what is left to do about it, and the gateway process does that. The kernel could do it in software, but would then
//! move forty packets where there was one.
//!
//! In the other direction, the gateway process joins segments and writes long packets into a tap device, if the kernel
//! understands what they are (Linux ≥ 6.17). From there they are routed like any others.
//!
//! Without the pair or the packet socket (no generic netlink of ethtool: before Linux 5.6), these datagrams take the tun
//! device as others do at first, and stay there. The kernel finishes packets for a tun device, and hands them over one by
//! one.

use std::path::Path;

use netlink::{Family, Rt, ethtool};
use relay::overlay::MAC;
use socket2::SockRef;

use super::links::LARGEST_MTU;
use super::{TUN_DEVICE, parameters};
use crate::OverlayDescriptors;

/// The ends of the pair: where datagrams go in, and where they are read.
const ENTRY: &str = "overlay0";
const EXIT: &str = "overlay1";
/// The tap device into which long packets are written.
const LONG: &str = "long";
/// Mark of packets for the pair, their table of routes, and the priority of the rule that connects the two.
pub(super) const OVERLAY: u32 = 4;
const OVERLAY_TABLE: u32 = 103;
const OVERLAY_PRIORITY: u32 = 13;

/// What the first end leaves to the kernel (ethtool(8), `-K`), because the gateway process does not: the rarer ways of
/// cutting. Before Linux 6.2, a packet socket could not even tell that a packet is a UDP datagram to be cut.
const FINISH: [(&str, bool); 2] = [("tx-udp-segmentation", false), ("tx-sctp-segmentation", false)];
/// Room for packets that wait to be read, in bytes, as far as the host allows it (`net.core.rmem_max`).
const RECEIVE_BUFFER: usize = 4 << 20;

/// Makes the pair, leads its mark there, and opens the descriptors. With them the index of the second end; `None` where the
/// kernel does not offer what is needed.
pub(super) fn open(
    rt: &mut Rt,
    families: &[Family],
    proc_sys: &Path,
) -> Option<(u32, OverlayDescriptors)> {
    match try_open(rt, families, proc_sys) {
        Ok(open) => Some(open),
        Err(error) => {
            tracing::debug!("overlay networks of containers are slow: {error:#}");
            None
        }
    }
}

fn try_open(
    rt: &mut Rt,
    families: &[Family],
    proc_sys: &Path,
) -> anyhow::Result<(u32, OverlayDescriptors)> {
    rt.add_veth(ENTRY, EXIT, None, LARGEST_MTU)?;
    ethtool::set_features(ENTRY, &FINISH)?;
    let (entry, exit) =
        (set_up(rt, families, proc_sys, ENTRY)?, set_up(rt, families, proc_sys, EXIT)?);
    let reader = sys::packet::open(exit)?;
    let _ = SockRef::from(&reader).set_recv_buffer_size(RECEIVE_BUFFER);
    for &family in families {
        rt.add_default_link_route(family, entry, OVERLAY_TABLE)?;
        rt.add_fwmark_rule(family, OVERLAY, OVERLAY_TABLE, OVERLAY_PRIORITY)?;
    }
    let writer =
        sys::tap::open_offloading(Path::new(TUN_DEVICE), LONG).map_err(anyhow::Error::from);
    let writer = writer.and_then(|tap| {
        set_up(rt, families, proc_sys, LONG)?;
        Ok(tap)
    });
    let writer = writer.inspect_err(|error| {
        tracing::debug!("long packets from overlay networks arrive in pieces: {error:#}");
    });
    Ok((exit, OverlayDescriptors { reader, writer: writer.ok() }))
}

/// Sets a link up, without anything that the kernel would send by itself.
fn set_up(rt: &mut Rt, families: &[Family], proc_sys: &Path, name: &str) -> netlink::Result<u32> {
    if families.contains(&Family::V6) {
        parameters::set_for_tun(proc_sys, name)?;
    }
    let index = rt.link_index(name)?;
    rt.set_mac(index, MAC)?;
    rt.set_no_arp(index)?;
    rt.link_up(index)?;
    Ok(index)
}
