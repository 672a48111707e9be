//! Links, addresses, routes and rules in a network namespace of the test's own.

use std::time::{Duration, Instant};
use std::{fs::File, io::ErrorKind, os::fd::AsFd};

use netlink::{Family, Route, Rt};

use crate::netns::{Netns, add_uplink, address, run};

fn fresh() -> (Netns, Rt) {
    (Netns::enter_new(), Rt::open().unwrap())
}

#[test]
fn a_link_as_a_network_helper_leaves_it() {
    let (_netns, mut rt) = fresh();
    add_uplink(&mut rt);
    let tap = rt.link_index("tap0").unwrap();
    rt.set_mtu(tap, 1400).unwrap();
    assert!(run("ip -o link show tap0", "").contains("UP,LOWER_UP> mtu 1400 "));

    let addresses = run("ip -o address show", "");
    for expected in
        ["tap0    inet 10.0.2.100/24", "tap0    inet6 fd00::100/64", "lo    inet 127.0.0.1/8"]
    {
        assert!(addresses.contains(expected), "{addresses}");
    }
    assert!(!run("ip -6 -o address show dev tap0 scope global", "").contains("tentative"));

    assert_eq!(run("ip route show default", "").trim(), "default via 10.0.2.2 dev tap0");
    assert!(run("ip -6 route show default", "").starts_with("default via fd00::2 dev tap0"));
    // As units do that were written for RootlessKit.
    run("ip route add default via fd00::2 dev tap0", "");
    run("ip -6 route add default via fd00::3 dev tap0 metric 512", "");
    rt.add_default_route(address("fd00::2"), tap).unwrap();
    assert_eq!(run("ip -6 route show default", "").lines().count(), 3);

    run("ip link delete tap0", "");
    let error = rt.link_index("tap0").unwrap_err();
    assert_eq!(error.to_string(), "look up link tap0: No such device (os error 19)");
}

#[test]
fn repetition_is_success_and_a_second_gateway_replaces_the_first() {
    let (_netns, mut rt) = fresh();
    add_uplink(&mut rt);
    let tap = rt.link_index("tap0").unwrap();
    for family in [Family::V4, Family::V6] {
        for _ in 0..2 {
            rt.add_local_default(family, 300).unwrap();
            rt.add_fwmark_rule(family, 7, 300, 50).unwrap();
        }
    }
    for flag in ["-4", "-6"] {
        let rules = run(&format!("ip {flag} rule show priority 50"), "");
        assert_eq!(rules.trim(), "50:\tfrom all fwmark 0x7 lookup 300", "{flag}");
        let routes = run(&format!("ip {flag} route show table 300"), "");
        assert!(routes.starts_with("local default dev lo"), "{flag}: {routes}");
        assert_eq!(routes.lines().count(), 1, "{flag}: {routes}");
    }
    rt.add_address(tap, address("10.0.2.100"), 24).unwrap();
    rt.add_address(tap, address("fd00::100"), 64).unwrap();
    rt.add_default_route(address("10.0.2.3"), tap).unwrap();
    assert_eq!(run("ip route show default", "").trim(), "default via 10.0.2.3 dev tap0");
}

#[test]
fn an_address_goes_and_an_ethernet_address_changes() {
    let (_netns, mut rt) = fresh();
    add_uplink(&mut rt);
    let tap = rt.link_index("tap0").unwrap();
    rt.set_mac(tap, [2, 0x50, 0, 0, 0, 7]).unwrap();
    let shown = run("ip -o link show tap0", "");
    assert!(shown.contains("link/ether 02:50:00:00:00:07"), "{shown}");
    let error = rt.set_mac(tap, [1, 0, 0, 0, 0, 7]).unwrap_err();
    assert!(error.to_string().contains("Ethernet address of link"), "{error}");
    for (ip, prefix) in [("10.0.2.100", 24), ("fd00::100", 64)] {
        rt.delete_address(tap, address(ip), prefix).unwrap();
        let left = run("ip -o addr show tap0", "");
        assert!(!left.contains(ip), "{left}");
        let error = rt.delete_address(tap, address(ip), prefix).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable, "{error}");
    }
    assert_eq!(run("ip route show default", ""), "", "its routes go with it");
}

#[test]
fn a_veth_pair_across_two_namespaces() {
    let (far, mut far_rt) = fresh();
    let file = File::open(far.path()).unwrap();
    let (near, mut rt) = fresh();
    rt.add_veth("gw0", "tap0", Some(file.as_fd()), 1400).unwrap();
    let shown = run("ip -d -o link show gw0", "");
    assert!(shown.contains("mtu 1400 ") && shown.contains("state DOWN"), "{shown}");
    assert!(shown.contains(" veth "), "{shown}");
    let tap = far_rt.link_index("tap0").unwrap();
    far.enter();
    let shown = run("ip -o link show tap0", "");
    assert!(shown.contains("mtu 1400 ") && shown.contains("state DOWN"), "{shown}");
    // They are one: both ends up make a carrier.
    far_rt.link_up(tap).unwrap();
    let gw = rt.link_index("gw0").unwrap();
    rt.link_up(gw).unwrap();
    assert!(run("ip -o link show tap0", "").contains("UP,LOWER_UP"));
    near.enter();
    rt.add_veth("here", "too", None, 1500).unwrap();
    let here = rt.link_index("here").unwrap();
    rt.set_no_arp(here).unwrap();
    assert!(run("ip -o link show here", "").contains("NOARP") && rt.link_index("too").is_ok());
    let error = rt.add_veth("gw0", "tap1", Some(file.as_fd()), 1500).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(error.to_string().starts_with("add veth gw0 with peer tap1 and mtu 1500: "), "{error}");
}

#[test]
fn marked_packets_are_routed_before_local_ones_are_recognised() {
    let (_netns, mut rt) = fresh();
    add_uplink(&mut rt);
    let tap = rt.link_index("tap0").unwrap();
    for (family, flag, own) in [(Family::V4, "-4", "10.0.2.100"), (Family::V6, "-6", "fd00::100")] {
        rt.add_default_link_route(family, tap, 101).unwrap();
        rt.add_fwmark_rule(family, 1, 101, 10).unwrap();
        let routes = run(&format!("ip {flag} route show table 101"), "");
        assert!(routes.starts_with("default dev tap0"), "{flag}: {routes}");
        let route = |mark: &str| run(&format!("ip {flag} route get {own}{mark}"), "");
        assert!(route(" mark 1").starts_with("local"), "{}", route(" mark 1"));
        rt.move_local_rule(family, 1000).unwrap();
        let rules = run(&format!("ip {flag} rule show"), "");
        let rules: Vec<_> = rules.lines().map(str::trim_end).collect();
        assert_eq!(rules[0], "10:\tfrom all fwmark 0x1 lookup 101", "{flag}");
        assert_eq!(rules[1], "1000:\tfrom all lookup local", "{flag}");
        assert!(route(" mark 1").contains("dev tap0 table 101"), "{}", route(" mark 1"));
        assert!(route("").starts_with("local"), "{}", route(""));
        let error = rt.move_local_rule(family, 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("rule del lookup local priority 0"), "{error}");
    }
}

#[test]
fn a_refusal_names_operation_object_and_reason() {
    let (_netns, mut rt) = fresh();
    add_uplink(&mut rt);
    let tap = rt.link_index("tap0").unwrap();
    let error = rt.set_mtu(tap, 70_000).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("set mtu 70000 on link {tap}: Invalid argument (os error 22)")
    );
    let error = rt.add_address(99, address("10.9.9.9"), 24).unwrap_err();
    assert_eq!(
        error.to_string(),
        "add address 10.9.9.9/24 to link 99: No such device (os error 19)"
    );
    let error = rt.add_default_route(address("192.0.2.1"), tap).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{error}");
    assert!(error.to_string().starts_with("add default route via 192.0.2.1 on link"), "{error}");
    // The connection is in order after each refusal.
    assert_eq!(rt.link_index("tap0").unwrap(), tap);
}

#[test]
fn the_way_to_an_address_is_known() {
    let (_netns, mut rt) = fresh();
    for nowhere in ["192.0.2.1", "2001:db8::1"] {
        let error = rt.route(address(nowhere)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{error}");
        assert!(error.to_string().starts_with(&format!("look up the route to {nowhere}: ")));
    }
    add_uplink(&mut rt);
    let index = rt.link_index("tap0").unwrap();
    // The kernel makes the route to an IPv6 address of its own later, in a work queue (`addrconf_dad_work()`).
    let end = Instant::now() + Duration::from_secs(60);
    while rt.route(address("fd00::100")).unwrap() != Route::Local {
        assert!(Instant::now() < end, "the address has no route");
        std::thread::sleep(Duration::from_millis(1));
    }
    for (to, expected) in [
        ("192.0.2.1", Route::Link { index, by_gateway: true }),
        ("2001:db8::1", Route::Link { index, by_gateway: true }),
        ("10.0.2.7", Route::Link { index, by_gateway: false }),
        ("fd00::7", Route::Link { index, by_gateway: false }),
        ("10.0.2.100", Route::Local),
        ("fd00::100", Route::Local),
        ("127.0.0.1", Route::Local),
        ("10.0.2.255", Route::Nowhere),
    ] {
        assert_eq!(rt.route(address(to)).unwrap(), expected, "{to}");
    }
    // A gateway of the other family.
    run("ip route add 198.51.100.0/24 via inet6 fd00::2 dev tap0", "");
    let there = rt.route(address("198.51.100.1")).unwrap();
    assert_eq!(there, Route::Link { index, by_gateway: true });
}
