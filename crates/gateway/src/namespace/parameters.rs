//! Kernel parameters of the gateway namespace.

use std::io::ErrorKind;
use std::path::Path;

use netlink::{Result, sysctl};

/// For all links and for those still to be made: the links of the gateway namespace are made after this and begin with
/// these values.
const IPV4: [(&str, &str); 9] = [
    ("net.ipv4.ip_forward", "1"),
    // A source may be any address of the world, also one of the gateway namespace's own: answers of the gateway and of
    // DNS.
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.accept_local", "1"),
    ("net.ipv4.conf.default.accept_local", "1"),
    // What comes from the target namespace often leaves towards the target namespace again, which must not be told as a
    // shorter way.
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    // Nobody in the target namespace changes the routes of the gateway namespace.
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
];

/// New links look for no duplicates of their addresses: nobody else is on them. The kernel would begin to look after a random
/// time of up to one second (`rtr_solicit_delay`), also with `dad_transmits` 0. Until then a link has no link-local
/// address to solicit its neighbours from, so packets wait for it.
const NO_DUPLICATE_ADDRESS_DETECTION: (&str, &str) = ("net.ipv6.conf.default.accept_dad", "0");

const IPV6: [(&str, &str); 7] = [
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    NO_DUPLICATE_ADDRESS_DETECTION,
    // Whether packets are forwarded is decided for all. Of a single link it says whether the gateway namespace reports
    // itself there as a router (MLD), and by a tun it has nothing to report.
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv6.conf.default.forwarding", "0"),
];

/// Good to have, and not offered to user namespaces by each kernel.
const OPTIONAL: [(&str, &str); 7] = [
    // Who knows a smaller size for the way into the target namespace is not listened to (`rules`). Packets of IPv4 may
    // be cut in the target namespace instead (no "don't fragment"), and TCP finds out by itself what arrives (RFC
    // 4821), which is what is left for IPv6.
    ("net.ipv4.ip_no_pmtu_disc", "2"),
    ("net.ipv4.tcp_mtu_probing", "1"),
    // `tproxy` has datagrams put together before the rules. What the target namespace left incomplete on purpose would
    // fill the memory for that, and keep everybody else's fragments out for half a minute. Fragments that belong
    // together come together.
    ("net.ipv4.ipfrag_time", "2"),
    ("net.ipv6.ip6frag_time", "2"),
    ("net.netfilter.nf_conntrack_frag6_timeout", "2"),
    // A SYN whose addresses are those of a socket in TIME_WAIT would be given to it before its mark is looked at, and
    // then be dropped as something that cannot be forwarded. `tproxy` finds sockets without this. It is for IPv6 too.
    ("net.ipv4.ip_early_demux", "0"),
    // The most that a listener keeps waiting; 128 before Linux 5.4.
    ("net.core.somaxconn", "4096"),
];

/// The sizes of TCP buffers in bytes, "min default max" (tcp(7)); each network namespace has its own since Linux 4.15.
const BUFFERS: [&str; 2] = ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"];

/// The most that a TCP buffer of the gateway namespace holds, in bytes. The other end is in the target namespace: at 50
/// Gbit/s this lasts for 170 µs, several round trips. The host's limits (6 to 32 MiB) are for long distances. Here they
/// cost memory, and a sender in the target namespace with that much in flight is limited by its congestion window: it
/// sends packets of 9 KiB instead of 52 as acknowledgements come in, at half the speed.
const LARGEST_BUFFER: u64 = 1 << 20;

/// Sets what holds for the gateway namespace as a whole. Without `ipv6` it has none at all, also where the kernel has
/// it.
pub(super) fn set_for_namespace(proc_sys: &Path, ipv6: bool) -> Result<()> {
    for (key, value) in IPV4 {
        sysctl::write(proc_sys, key, value)?;
    }
    for (key, value) in OPTIONAL {
        if let Err(error) = sysctl::write(proc_sys, key, value) {
            tracing::debug!("{error}");
        }
    }
    for key in BUFFERS {
        if let Err(error) = bound_buffer(proc_sys, key) {
            tracing::debug!("{error}");
        }
    }
    if ipv6 {
        return IPV6.iter().try_for_each(|(key, value)| sysctl::write(proc_sys, key, value));
    }
    for link in ["all", "default"] {
        let key = format!("net.ipv6.conf.{link}.disable_ipv6");
        sysctl::write(proc_sys, &key, "1").or_else(missing_is_success)?;
    }
    Ok(())
}

fn bound_buffer(proc_sys: &Path, key: &str) -> Result<()> {
    let sizes = sysctl::read(proc_sys, key)?;
    let bounded: Vec<String> = sizes
        .split_whitespace()
        .filter_map(|size| size.parse::<u64>().ok())
        .map(|size| size.min(LARGEST_BUFFER).to_string())
        .collect();
    sysctl::write(proc_sys, key, &bounded.join(" "))
}

/// For a tun that is still down: without an address there, the kernel sends nothing of its own to it.
pub(super) fn set_for_tun(proc_sys: &Path, name: &str) -> Result<()> {
    // `IN6_ADDR_GEN_MODE_NONE` (Linux ≥ 4.11)
    sysctl::write(proc_sys, &format!("net.ipv6.conf.{name}.addr_gen_mode"), "1")
}

/// For the veth: towards the target namespace, the gateway namespace calls itself a router.
pub(super) fn set_for_veth(proc_sys: &Path, name: &str) -> Result<()> {
    sysctl::write(proc_sys, &format!("net.ipv6.conf.{name}.forwarding"), "1")
}

/// For the target namespace, before it has an end of the veth. `proc_sys` is that of the target namespace.
///
/// # Errors
/// The kernel does not let it be written. Addresses work anyway, after up to one second.
pub fn set_for_target(proc_sys: &Path) -> Result<()> {
    let (key, value) = NO_DUPLICATE_ADDRESS_DETECTION;
    sysctl::write(proc_sys, key, value)
}

fn missing_is_success(error: netlink::Error) -> Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
