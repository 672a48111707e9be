//! Where datagrams of overlay networks are finished: a veth pair with both ends in the gateway namespace.
//!
//! # Theory of operation
//!
//! A link of the target namespace that encapsulates frames (VXLAN, Geneve) leaves two things to the link below it: the
//! checksum of the inner packet, and the cutting of an inner segment of up to 64 KiB into packets that fit. Between the
//! ends of a veth pair nobody needs either, so the kernel passes such packets on as they are, and at a veth's other end
//! they are whole packets to a link that decapsulates. But a socket that receives one gets bytes with a checksum that
//! is half done, and sends them to a host that finds it wrong.
//!
//! So overlay datagrams ([`relay::overlay`]) take a way round. The first end of this pair has no checksums and no
//! segmentation to offer, so that the kernel does both in software before it sends there. The second end puts
//! datagrams of one sender together again (`UDP_GRO`), which are of the right size now; a socket reads up to 64 KiB of
//! them at once. The rules send what comes out of it to the sockets for overlay networks ([`crate::Sockets`]).
//!
//! Without the pair (no generic netlink of ethtool: before Linux 5.6), they take the tun device as others do at first,
//! and stay there. The kernel finishes packets for a tun device as well, but hands them over one by one.

use std::path::Path;

use netlink::{Family, Result, Rt, ethtool};

use super::links::LARGEST_MTU;
use super::parameters;

/// The ends of the pair: where datagrams go in, and where they come out.
const ENTRY: &str = "overlay0";
const EXIT: &str = "overlay1";
/// Mark of packets for the pair, their table of routes, and the priority of the rule that connects the two.
pub(super) const OVERLAY: u32 = 4;
const OVERLAY_TABLE: u32 = 103;
const OVERLAY_PRIORITY: u32 = 13;

/// What the first end leaves to the kernel (ethtool(8), `-K`).
const FINISH: [(&str, bool); 3] = [
    ("tx-udp_tnl-segmentation", false),
    ("tx-udp_tnl-csum-segmentation", false),
    ("tx-checksum-ip-generic", false),
];
/// What the second end does: coalesce, also where no socket of this namespace is known to want it (Linux ≥ 5.12).
const COALESCE: [(&str, bool); 2] = [("rx-gro", true), ("rx-udp-gro-forwarding", true)];

/// Makes the pair and leads its mark there. The index of the second end; `None` where the kernel does not offer
/// what is needed.
pub(super) fn add_loop(rt: &mut Rt, families: &[Family], proc_sys: &Path) -> Option<u32> {
    match try_add_loop(rt, families, proc_sys) {
        Ok(exit) => Some(exit),
        Err(error) => {
            tracing::debug!("overlay networks of containers are slow: {error}");
            None
        }
    }
}

fn try_add_loop(rt: &mut Rt, families: &[Family], proc_sys: &Path) -> Result<u32> {
    rt.add_veth(ENTRY, EXIT, None, LARGEST_MTU)?;
    ethtool::set_features(ENTRY, &FINISH)?;
    if let Err(error) = ethtool::set_features(EXIT, &COALESCE) {
        tracing::debug!("{error}");
    }
    let mut set_up = |name| {
        if families.contains(&Family::V6) {
            parameters::set_for_tun(proc_sys, name)?;
        }
        let index = rt.link_index(name)?;
        // Both have one address: what is sent to the neighbour that nobody asks for is addressed to the sender's own.
        rt.set_mac(index, MAC)?;
        rt.set_no_arp(index)?;
        rt.link_up(index)?;
        Ok(index)
    };
    let (entry, exit) = (set_up(ENTRY)?, set_up(EXIT)?);
    for &family in families {
        rt.add_default_link_route(family, entry, OVERLAY_TABLE)?;
        rt.add_fwmark_rule(family, OVERLAY, OVERLAY_TABLE, OVERLAY_PRIORITY)?;
    }
    Ok(exit)
}

/// A locally administered address (IEEE 802).
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
