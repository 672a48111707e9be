//! What [`gateway::namespace::build`] leaves behind, and what it says when it fails.

use std::{fs, os::unix::fs::symlink};

use gateway::{NetworkConfig, namespace::PORT};
use netlink::{Rt, sysctl};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use socket2::SockRef;

use crate::world::{
    IPV4, IPV6, addresses, build_beside, dual_stack, enter_a, plan, proc_sys, world,
};

#[test]
fn the_gateway_may_be_the_name_server_too() {
    let world = world(&plan("192.168.127.2 192.168.127.1 192.168.127.1", None));
    assert!(world.inside.v6.is_none());
    let addresses = world.in_g(addresses);
    let texts: Vec<_> = addresses.iter().map(|found| found.ip.to_string()).collect();
    assert_eq!(texts, ["127.0.0.1", "192.168.127.1"], "no IPv6 either");
}

#[test]
fn descriptors_are_ready_for_an_event_loop() {
    let world = dual_stack();
    let inside = &world.inside;
    let (v4, v6) = (&inside.v4, inside.v6.as_ref().unwrap());
    let overlay = inside.overlay.as_ref().unwrap();
    let of_overlays = [&overlay.reader, overlay.writer.as_ref().unwrap()];
    for fd in [&inside.dial, &inside.data, v4, v6].into_iter().chain(of_overlays) {
        let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }
    for (of, bound) in [(v4, "0.0.0.0"), (v6, "[::]")] {
        let address = SockRef::from(of).local_addr().unwrap().as_socket().unwrap();
        assert_eq!(address.to_string(), format!("{bound}:{PORT}"));
    }
}

#[test]
fn what_the_listeners_accept_does_not_pace_itself_within_the_machine() {
    let world = dual_stack();
    let inside = &world.inside;
    for of in [&inside.v4, inside.v6.as_ref().unwrap()] {
        let name = SockRef::from(of).tcp_congestion().unwrap();
        assert!(!relay::congestion::is_replaceable_name(&name), "{}", name.escape_ascii());
    }
}

/// A link-local address is tentative for up to one second otherwise. Until then neighbours are not solicited, so the
/// first packet to an IPv6 address would wait, and a SYN be sent twice.
#[test]
fn addresses_of_new_links_are_usable_at_once() {
    let world = dual_stack();
    let tentative = || {
        // Address, index, prefix, scope, flags (`IFA_F_TENTATIVE` is 0x40), name.
        let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let flags = |line: &str| u32::from_str_radix(line.split_whitespace().nth(4).unwrap(), 16);
        assert!(table.lines().any(|line| line.starts_with("fe80")), "{table}");
        table.lines().filter(|line| flags(line).unwrap() & 0x40 != 0).count()
    };
    assert_eq!((tentative(), world.in_g(tentative)), (0, 0));
}

#[test]
fn links_are_as_planned() {
    let a = enter_a();
    let plan = NetworkConfig { mtu: 1400, ifname: "eth7".to_owned(), ..plan(IPV4, Some(IPV6)) };
    let world = build_beside(&a, &plan, proc_sys()).unwrap();
    // The target namespace's end is there, and nothing else has been done to it.
    Rt::open().unwrap().link_index("eth7").unwrap();
    let ours = addresses();
    assert!(ours.iter().all(|found| found.link != "eth7"), "{ours:?}");
    let addresses = world.in_g(addresses);
    let on = |name: &str| -> Vec<String> {
        let on_link = addresses.iter().filter(|found| found.link == name);
        on_link.map(|found| format!("{}/{}", found.ip, found.prefix)).collect()
    };
    let veth = on("gw0");
    assert_eq!(veth[..2], ["10.0.2.2/24", "10.0.2.3/24"], "{veth:?}");
    assert!(veth.contains(&"fd00::2/64".to_owned()) && veth.contains(&"fd00::3/64".to_owned()));
    assert!(on("dial").is_empty() && on("data").is_empty(), "{addresses:?}");
    let parameter = |key: &str| world.in_g(|| sysctl::read(proc_sys(), key).unwrap());
    for name in ["gw0", "dial", "data"] {
        assert_eq!(parameter(&format!("net.ipv4.conf.{name}.rp_filter")), "0");
        assert_eq!(parameter(&format!("net.ipv4.conf.{name}.accept_local")), "1");
        assert_eq!(parameter(&format!("net.ipv6.conf.{name}.accept_ra")), "0");
    }
    assert_eq!(parameter("net.ipv6.conf.gw0.mtu"), "1400");
    assert_eq!(parameter("net.ipv6.conf.data.mtu"), "65535");
}

#[test]
fn tcp_buffers_are_no_larger_than_the_way_into_the_namespace_needs() {
    let world = dual_stack();
    for key in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
        let sizes = |text: String| -> Vec<u64> {
            text.split_whitespace().map(|size| size.parse().unwrap()).collect()
        };
        let host = sizes(sysctl::read(proc_sys(), key).unwrap());
        let gateway = sizes(world.in_g(|| sysctl::read(proc_sys(), key).unwrap()));
        let most = host[2].min(1 << 20);
        assert_eq!(gateway, [host[0], host[1].min(most), most], "{key}; the host has {host:?}");
    }
}

#[test]
fn a_kernel_without_ipv6_gets_a_network_without() {
    let a = enter_a();
    let parameters = tempfile::tempdir().unwrap();
    fs::create_dir(parameters.path().join("net")).unwrap();
    for part in ["net/core", "net/ipv4"] {
        symlink(proc_sys().join(part), parameters.path().join(part)).unwrap();
    }
    let world = build_beside(&a, &plan(IPV4, Some(IPV6)), parameters.path()).unwrap();
    assert!(world.inside.v6.is_none());
}

#[test]
fn a_name_taken_in_a_is_told_with_its_remedy() {
    let a = enter_a();
    let plan = NetworkConfig { ifname: "lo".to_owned(), ..plan(IPV4, None) };
    let error = build_beside(&a, &plan, proc_sys()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "failed to connect the gateway's network namespace to the child's: \
         add veth gw0 with peer lo and mtu 1500: File exists (os error 17)\n\
         hint: remove the network interface of that name from the child, or use --net=pasta or --net=slirp4netns"
    );
}

#[test]
fn parameters_that_cannot_be_written_are_named() {
    let a = enter_a();
    let empty = tempfile::tempdir().unwrap();
    let error = build_beside(&a, &plan(IPV4, None), empty.path()).err().unwrap().to_string();
    assert!(error.contains("write sysctl net.ipv4.ip_forward=1 to "), "{error}");
    assert!(error.contains("\nhint: mount /proc/sys writable, or use --net=pasta"), "{error}");
}
