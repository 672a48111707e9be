//! Links, addresses, routes and rules in a network namespace of the test's own.

use std::{io::ErrorKind, net::Ipv4Addr};

use netlink::{Address, Family, Rt};

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

    let expected = |text, prefix| Address {
        index: tap,
        link: Some("tap0".to_owned()),
        address: address(text),
        prefix,
    };
    let addresses = rt.addresses().unwrap();
    assert!(addresses.contains(&expected("10.0.2.100", 24)), "{addresses:?}");
    assert!(addresses.contains(&expected("fd00::100", 64)), "{addresses:?}");
    let loopback = addresses.iter().find(|found| found.address == address("127.0.0.1")).unwrap();
    assert_eq!((loopback.link.as_deref(), loopback.prefix), (Some("lo"), 8));
    assert!(!run("ip -6 -o address show dev tap0 scope global", "").contains("tentative"));

    assert_eq!(run("ip route show default", "").trim(), "default via 10.0.2.2 dev tap0");
    assert!(run("ip -6 route show default", "").starts_with("default via fd00::2 dev tap0"));

    rt.delete_link(tap).unwrap();
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
fn lists_more_addresses_than_one_datagram_holds() {
    let (_netns, mut rt) = fresh();
    let lo = rt.link_index("lo").unwrap();
    for at in 0..1500u16 {
        let [high, low] = at.to_be_bytes();
        rt.add_address(lo, Ipv4Addr::new(10, 1, high, low).into(), 32).unwrap();
    }
    let listed = rt.addresses().unwrap();
    assert_eq!(listed.iter().filter(|found| found.prefix == 32).count(), 1500);
}
