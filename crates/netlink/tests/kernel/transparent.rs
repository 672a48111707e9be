//! Servers see the address of the client, on the namespace's own addresses and behind DNAT.

use std::{net::SocketAddr, time::Duration};

use netlink::{
    Rt, sysctl,
    transparent::{self, Backend, Choice, Installed},
};

use crate::netns::{
    Netns, add_uplink, address, assert_transparent, dial, dial_within, listen, proc_sys, run,
};
use socket2::{Domain, Protocol, Socket, Type};

const CLIENT_V4: &str = "203.0.113.5:40000";
const CLIENT_V6: &str = "[2001:db8::5]:40000";
const NFT: Choice = Choice::Only(Backend::Nft);
const IPTABLES: Choice = Choice::Only(Backend::Iptables);

fn install(choice: Choice) -> Installed {
    let installed = transparent::prepare(proc_sys(), choice).unwrap();
    transparent::arm(installed.backend).unwrap();
    installed
}

/// The namespace of rootlesskit; the calling thread is in it.
fn rootlesskit() -> Netns {
    let netns = Netns::enter_new();
    add_uplink(&mut Rt::open().unwrap());
    netns
}

/// What dockerd makes of a namespace with `userland-proxy=false`: a bridge, a container on it that listens on port 80,
/// and port 8080 of each local address led there.
struct Container {
    listener: Socket,
    _netns: Netns,
}

fn container(host: &Netns) -> Container {
    let netns = Netns::enter_new();
    host.enter();
    run("ip link add br0 type bridge", "");
    run(&format!("ip link add veth0 type veth peer name eth0 netns {}", netns.path()), "");
    run("ip link set veth0 master br0", "");
    // A neighbour is solicited from a link-local address, for which a new bridge would otherwise take up to two seconds.
    sysctl::write(proc_sys(), "net.ipv6.conf.br0.accept_dad", "0").unwrap();
    let mut rt = Rt::open().unwrap();
    for name in ["br0", "veth0"] {
        let index = rt.link_index(name).unwrap();
        rt.link_up(index).unwrap();
    }
    let bridge = rt.link_index("br0").unwrap();
    rt.add_address(bridge, address("172.18.0.1"), 16).unwrap();
    rt.add_address(bridge, address("fd01::1"), 64).unwrap();
    sysctl::write(proc_sys(), "net.ipv4.conf.br0.route_localnet", "1").unwrap();
    run(
        "nft -f -",
        "table inet docker {
            chain output {
                type nat hook output priority -100
                fib daddr type local tcp dport 8080 dnat ip to 172.18.0.2:80
                fib daddr type local tcp dport 8080 dnat ip6 to [fd01::2]:80
            }
            chain postrouting {
                type nat hook postrouting priority 100
                oifname br0 fib saddr type local masquerade
            }
        }",
    );
    netns.enter();
    let mut rt = Rt::open().unwrap();
    let eth0 = rt.link_index("eth0").unwrap();
    rt.link_up(eth0).unwrap();
    rt.add_address(eth0, address("172.18.0.2"), 16).unwrap();
    rt.add_default_route(address("172.18.0.1"), eth0).unwrap();
    rt.add_address(eth0, address("fd01::2"), 64).unwrap();
    rt.add_default_route(address("fd01::1"), eth0).unwrap();
    let listener = listen("[::]:80");
    host.enter();
    Container { listener, _netns: netns }
}

#[test]
fn without_the_set_up_the_answer_is_lost() {
    let _netns = rootlesskit();
    let _listener = listen("127.0.0.1:80");
    let limit = Duration::from_millis(1500);
    let error = dial_within(limit, CLIENT_V4, "127.0.0.1:80".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn local_server_v4() {
    let _netns = rootlesskit();
    let installed = install(NFT);
    assert_eq!(installed.backend.to_string(), "nft");
    installed.ipv6.unwrap();
    assert_transparent(&listen("127.0.0.1:80"), CLIENT_V4, "127.0.0.1:80");
    let any = listen("0.0.0.0:81");
    assert_transparent(&any, CLIENT_V4, "127.0.0.1:81");
    assert_transparent(&any, CLIENT_V4, "10.0.2.100:81");
}

#[test]
fn local_server_v6() {
    let _netns = rootlesskit();
    install(NFT).ipv6.unwrap();
    assert_transparent(&listen("[::1]:80"), CLIENT_V6, "[::1]:80");
    let any = listen("[::]:81");
    assert_transparent(&any, CLIENT_V6, "[::1]:81");
    assert_transparent(&any, CLIENT_V6, "[fd00::100]:81");
}

/// Listeners of programs built with Go ≥ 1.24 are of this kind.
#[test]
fn local_multipath_tcp_server() {
    let _netns = rootlesskit();
    install(NFT);
    let listener = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::MPTCP))
        .expect("this test needs a kernel with multipath TCP (CONFIG_MPTCP, net.mptcp.enabled)");
    listener.bind(&"[::]:80".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(16).unwrap();
    assert_transparent(&listener, CLIENT_V4, "127.0.0.1:80");
    assert_transparent(&listener, CLIENT_V6, "[::1]:80");
}

#[test]
fn container_behind_dnat() {
    let netns = rootlesskit();
    let container = container(&netns);
    install(NFT).ipv6.unwrap();
    assert_transparent(&container.listener, CLIENT_V4, "127.0.0.1:8080");
    // Another port: both lead to one address of the container, and NAT keeps connections apart by their source.
    assert_transparent(&container.listener, "203.0.113.5:40001", "10.0.2.100:8080");
    assert_transparent(&container.listener, CLIENT_V6, "[fd00::100]:8080");
}

#[test]
fn iptables_backend() {
    let netns = rootlesskit();
    let container = container(&netns);
    for _ in 0..2 {
        let installed = install(IPTABLES);
        assert_eq!(installed.backend.to_string(), "iptables");
        installed.ipv6.unwrap();
    }
    for program in ["iptables", "ip6tables"] {
        let rules = run(&format!("{program} -t mangle -S"), "");
        assert_eq!(rules.lines().filter(|line| line.starts_with("-A")).count(), 2, "{rules}");
    }
    assert_transparent(&listen("127.0.0.1:80"), CLIENT_V4, "127.0.0.1:80");
    assert_transparent(&listen("[::1]:80"), CLIENT_V6, "[::1]:80");
    assert_transparent(&container.listener, CLIENT_V4, "127.0.0.1:8080");
    assert_transparent(&container.listener, CLIENT_V6, "[fd00::100]:8080");
}

#[test]
fn installing_again_changes_nothing() {
    let _netns = rootlesskit();
    let state = || {
        let commands = [
            "nft list table inet rootlesskit",
            "ip rule",
            "ip -6 rule",
            "ip route show table 100",
            "ip -6 route show table 100",
        ];
        commands.map(|command| run(command, ""))
    };
    install(Choice::Auto).ipv6.unwrap();
    let first = state();
    assert_eq!(first[0].matches("meta l4proto tcp").count(), 2, "{}", first[0]);
    assert!(first[0].contains("meta mark 0x00000065 ct mark set 0x00000064"), "{}", first[0]);
    assert!(first[0].contains("ct mark 0x00000064 meta mark set 0x00000064"), "{}", first[0]);
    install(Choice::Auto).ipv6.unwrap();
    assert_eq!(first, state());
    assert_transparent(&listen("127.0.0.1:80"), CLIENT_V4, "127.0.0.1:80");
}

#[test]
fn a_closed_port_refuses_at_once() {
    let netns = rootlesskit();
    let _container = container(&netns);
    install(NFT).ipv6.unwrap();
    run(
        "nft -f -",
        "table inet docker { chain output { tcp dport 9090 dnat ip to 172.18.0.2:81; }; }",
    );
    for (client, server) in [
        (CLIENT_V4, "127.0.0.1:80"),
        (CLIENT_V4, "10.0.2.100:80"),
        (CLIENT_V4, "10.0.2.100:9090"),
        (CLIENT_V6, "[::1]:80"),
    ] {
        let error = dial(client, server.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{server}: {error}");
    }
}

/// A hardened host (`rp_filter=1`) that runs WireGuard (`src_valid_mark=1`) hands both on to new namespaces.
#[test]
fn inherited_source_validation_does_not_drop_replies() {
    let netns = rootlesskit();
    let container = container(&netns);
    for key in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.all.src_valid_mark"] {
        sysctl::write(proc_sys(), key, "1").unwrap();
    }
    install(NFT);
    assert_transparent(&listen("127.0.0.1:80"), CLIENT_V4, "127.0.0.1:80");
    assert_transparent(&container.listener, CLIENT_V4, "10.0.2.100:8080");
}

#[test]
fn a_client_whose_address_is_local_here() {
    let netns = rootlesskit();
    let _container = container(&netns);
    install(NFT);
    assert_transparent(&listen("127.0.0.1:80"), "10.0.2.100:40000", "127.0.0.1:80");
}

#[test]
fn ordinary_connections_are_not_touched() {
    let _netns = rootlesskit();
    install(NFT);
    let listener = listen("127.0.0.1:80");
    let near = std::net::TcpStream::connect("127.0.0.1:80").unwrap();
    let (far, peer) = listener.accept().unwrap();
    assert_eq!(peer.as_socket().unwrap(), near.local_addr().unwrap());
    assert_eq!(far.mark().unwrap(), 0);
}

#[test]
fn without_ipv6_there_is_ipv4_and_a_reason() {
    let _netns = Netns::enter_new();
    sysctl::write(proc_sys(), "net.ipv6.conf.all.disable_ipv6", "1").unwrap();
    let installed = install(NFT);
    let reason = installed.ipv6.unwrap_err().to_string();
    assert!(reason.contains("-6 route add local default dev lo table 100"), "{reason}");
    assert_transparent(&listen("127.0.0.1:80"), CLIENT_V4, "127.0.0.1:80");
}
