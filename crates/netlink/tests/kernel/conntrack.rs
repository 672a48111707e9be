//! The container that has opened a connection is found behind the masquerade of its host, and the one that answers behind a
//! published port.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use netlink::Rt;
use netlink::conntrack::{Conntrack, Direction, Protocol, Query, Tuple};
use socket2::{Domain, Socket, Type};

use crate::netns::{Netns, address, run};

/// Outside, host and container; the calling thread is in the host.
struct World {
    outside: Netns,
    host: Netns,
    container: Netns,
}

fn up(name: &str, addresses: [(&str, u8); 2]) {
    let mut rt = Rt::open().unwrap();
    let link = rt.link_index(name).unwrap();
    netlink::sysctl::write(
        crate::netns::proc_sys(),
        &format!("net.ipv6.conf.{name}.accept_dad"),
        "0",
    )
    .unwrap();
    rt.link_up(link).unwrap();
    for (ip, prefix) in addresses {
        rt.add_address(link, address(ip), prefix).unwrap();
    }
}

fn world() -> World {
    let (outside, container) = (Netns::enter_new(), Netns::enter_new());
    let host = Netns::enter_new();
    for (mine, theirs, netns) in [("up0", "eth0", &outside), ("c0", "eth0", &container)] {
        run(&format!("ip link add {mine} type veth peer name {theirs} netns {}", netns.path()), "");
    }
    up("up0", [("10.0.2.100", 24), ("fd00::100", 64)]);
    up("c0", [("172.18.0.1", 16), ("fd01::1", 64)]);
    let proc_sys = crate::netns::proc_sys();
    netlink::sysctl::write(proc_sys, "net.ipv4.ip_forward", "1").unwrap();
    netlink::sysctl::write(proc_sys, "net.ipv6.conf.all.forwarding", "1").unwrap();
    run(
        "nft -f -",
        "table inet nat { chain out { type nat hook postrouting priority srcnat; oifname up0 masquerade; }; }",
    );
    outside.enter();
    up("eth0", [("10.0.2.2", 24), ("fd00::2", 64)]);
    container.enter();
    up("eth0", [("172.18.0.2", 16), ("fd01::2", 64)]);
    run("ip route add default via 172.18.0.1", "");
    run("ip -6 route add default via fd01::1", "");
    host.enter();
    World { outside, host, container }
}

/// The end inside, according to the host.
fn inside(
    world: &World,
    protocol: Protocol,
    direction: Direction,
    outside: Tuple,
) -> Option<SocketAddr> {
    world.host.enter();
    let query = Query { protocol, direction, outside };
    Conntrack::open().unwrap().look_up(&[query]).remove(0).unwrap()
}

#[test]
fn the_container_of_connections_and_datagrams_is_found() {
    let world = world();
    for (server, container, host) in
        [("10.0.2.2:80", "172.18.0.2", "10.0.2.100"), ("[fd00::2]:80", "fd01::2", "fd00::100")]
    {
        let server: SocketAddr = server.parse().unwrap();
        world.outside.enter();
        let (listener, udp) =
            (TcpListener::bind(server).unwrap(), UdpSocket::bind(server).unwrap());
        world.container.enter();
        let stream = TcpStream::connect(server).unwrap();
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let datagrams = UdpSocket::bind(any).unwrap();
        datagrams.connect(server).unwrap();
        datagrams.send(b"hello").unwrap();
        world.outside.enter();
        let seen_tcp = listener.accept().unwrap().1;
        let seen_udp = udp.recv_from(&mut [0; 16]).unwrap().1;
        for (protocol, seen, own) in [
            (Protocol::Tcp, seen_tcp, stream.local_addr().unwrap()),
            (Protocol::Udp, seen_udp, datagrams.local_addr().unwrap()),
        ] {
            assert_eq!((seen.ip(), own.ip()), (address(host), address(container)));
            let ends = Tuple { src: seen, dst: server };
            let found = inside(&world, protocol, Direction::Outbound, ends);
            assert_eq!(found, Some(own), "{protocol:?}");
            // The server has opened nothing, though the kernel knows a connection between these ends.
            let back = Tuple { src: server, dst: seen };
            assert_eq!(inside(&world, protocol, Direction::Inbound, back), None);
        }
    }
}

#[test]
fn the_container_that_answers_a_published_port_is_found() {
    let world = world();
    run(
        "nft -f -",
        "table inet in { chain in { type nat hook prerouting priority dstnat; \
         iifname up0 ip protocol { tcp, udp } th dport 8080 dnat ip to 172.18.0.2:80; \
         iifname up0 ip6 nexthdr { tcp, udp } th dport 8080 dnat ip6 to [fd01::2]:80; }; }",
    );
    for (published, container) in
        [("10.0.2.100:8080", "172.18.0.2:80"), ("[fd00::100]:8080", "[fd01::2]:80")]
    {
        let [published, container]: [SocketAddr; 2] =
            [published, container].map(|text| text.parse().unwrap());
        world.container.enter();
        let (listener, udp) =
            (TcpListener::bind(container).unwrap(), UdpSocket::bind(container).unwrap());
        world.outside.enter();
        let any = if published.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let stream = TcpStream::connect(published).unwrap();
        let datagrams = UdpSocket::bind(any).unwrap();
        datagrams.connect(published).unwrap();
        datagrams.send(b"hello").unwrap();
        for (protocol, src) in [
            (Protocol::Tcp, stream.local_addr().unwrap()),
            (Protocol::Udp, datagrams.local_addr().unwrap()),
        ] {
            let inbound = |dst| inside(&world, protocol, Direction::Inbound, Tuple { src, dst });
            assert_eq!(inbound(published), Some(container), "{protocol:?}");
            assert_eq!(inbound(container), None);
            // The server has opened nothing, though the kernel knows a connection between these ends.
            let back = Tuple { src: published, dst: src };
            assert_eq!(inside(&world, protocol, Direction::Outbound, back), None);
        }
        drop((listener, udp));
    }
}

#[test]
fn the_container_of_a_ping_is_found_by_its_identifier() {
    let world = world();
    // The kernel computes the checksum of ICMPv6 only.
    for (server, domain, protocol, header) in [
        ("10.0.2.2:0", Domain::IPV4, 1, [8, 0, 0xe5, 0xca]),
        ("[fd00::2]:0", Domain::IPV6, 58, [128, 0, 0, 0]),
    ] {
        let server: SocketAddr = server.parse().unwrap();
        world.container.enter();
        let ping = Socket::new(domain, Type::RAW, Some(protocol.into())).unwrap();
        ping.connect(&server.into()).unwrap();
        let own = ping.local_addr().unwrap().as_socket().unwrap().ip();
        ping.send(&[&header[..], &[0x12, 0x34, 0, 1]].concat()).unwrap();
        let end = |ip| SocketAddr::new(ip, 0x1234);
        let host = address(if server.is_ipv4() { "10.0.2.100" } else { "fd00::100" });
        let seen = Tuple { src: end(host), dst: end(server.ip()) };
        let found = inside(&world, Protocol::Echo, Direction::Outbound, seen);
        assert_eq!(found, Some(end(own)), "{server}");
    }
}

#[test]
fn many_are_looked_up_at_once_in_their_order() {
    let world = world();
    let server: SocketAddr = "10.0.2.2:80".parse().unwrap();
    world.outside.enter();
    let udp = UdpSocket::bind(server).unwrap();
    let unknown = Tuple { src: "10.0.2.100:1".parse().unwrap(), dst: server };
    let mut expected = Vec::new();
    let mut queries = Vec::new();
    // More than a buffer has room for.
    for n in 0..200 {
        world.container.enter();
        let client = UdpSocket::bind("172.18.0.2:0").unwrap();
        client.send_to(b"hello", server).unwrap();
        world.outside.enter();
        let src = udp.recv_from(&mut [0; 16]).unwrap().1;
        let known = n % 3 > 0;
        let outside = if known { Tuple { src, dst: server } } else { unknown };
        let direction = Direction::Outbound;
        queries.push(Query { protocol: Protocol::Udp, direction, outside });
        expected.push(known.then(|| client.local_addr().unwrap()));
    }
    world.host.enter();
    let mut conntrack = Conntrack::open().unwrap();
    let mut look_up = |queries: &[Query]| -> Vec<_> {
        conntrack.look_up(queries).into_iter().map(Result::unwrap).collect()
    };
    assert_eq!(look_up(&queries), expected);
    assert_eq!(look_up(&[]), []);
    assert_eq!(look_up(&queries[..2]), expected[..2]);
}
