//! What the target namespace sends: connections, datagrams, echo requests.

use std::io::Read;

use netlink::sysctl;
use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    packets::{self, assert_syn, assert_udp},
    world::{
        World, address, assert_bytes_pass, bound, connected, dual_stack, local, peer, proc_sys,
        read_tun, receive, start_connect, wait, write_tun,
    },
};

/// Connects from the target namespace as the gateway process lets it: the SYN is held, seen, and given back. Returns
/// both ends.
fn connect_through(world: &World, from: &str, to: &str) -> (Socket, Socket) {
    let to = address(to);
    let client = bound(Type::STREAM, from);
    start_connect(&client, to);
    let client_address = local(&client);
    let syn = read_tun(&world.inside.dial);
    assert_syn(&syn, client_address, to);
    write_tun(&world.inside.dial, &syn);
    let accepted = world.accept(to.is_ipv6());
    connected(&client).unwrap();
    assert_eq!((local(&accepted), peer(&accepted)), (to, client_address));
    assert!(accepted.tcp_nodelay().unwrap());
    accepted.set_nonblocking(true).unwrap();
    assert_bytes_pass(&client, &accepted);
    world.assert_silent();
    (client, accepted)
}

#[test]
fn a_connection_is_made_when_its_syn_is_given_back() {
    let world = dual_stack();
    connect_through(&world, "10.0.2.100:0", "192.0.2.1:80");
    connect_through(&world, "[fd00::100]:0", "[2001:db8::1]:80");
}

#[test]
fn the_addresses_of_the_gateway_are_destinations_like_others() {
    let world = dual_stack();
    for to in ["10.0.2.2:80", "10.0.2.3:53", "10.0.2.2:1"] {
        connect_through(&world, "10.0.2.100:0", to);
    }
    for to in ["[fd00::2]:80", "[fd00::3]:53"] {
        connect_through(&world, "[fd00::100]:0", to);
    }
}

#[test]
fn a_connection_is_refused_with_a_reset_from_the_tun() {
    let world = dual_stack();
    for (from, to) in [
        ("10.0.2.100:0", "192.0.2.1:80"),
        ("10.0.2.100:0", "10.0.2.2:80"),
        ("[fd00::100]:0", "[2001:db8::1]:80"),
    ] {
        let client = bound(Type::STREAM, from);
        start_connect(&client, address(to));
        let syn = read_tun(&world.inside.dial);
        write_tun(&world.inside.data, &packets::reset(&syn));
        let error = connected(&client).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
    }
    world.assert_silent();
}

/// The socket of the gateway namespace that closed first stays behind for a minute, and the client may use its port
/// again at once.
#[test]
fn a_port_is_used_again_after_the_far_end_has_closed() {
    let world = dual_stack();
    for (from, to) in
        [("10.0.2.100:50000", "192.0.2.1:80"), ("[fd00::100]:50000", "[2001:db8::1]:80")]
    {
        for _ in 0..3 {
            let (client, accepted) = connect_through(&world, from, to);
            drop(accepted);
            wait(&client, PollFlags::POLLIN);
            assert_eq!((&client).read(&mut [0; 8]).unwrap(), 0);
        }
    }
}

/// The kernel of the gateway namespace has to refuse it, and not to bother the gateway process.
#[test]
fn a_segment_of_no_connection_is_refused_at_the_second_look() {
    let world = dual_stack();
    for (from, to) in [("10.0.2.100:0", "192.0.2.1:80"), ("[fd00::100]:0", "[2001:db8::1]:80")] {
        let client = bound(Type::STREAM, from);
        start_connect(&client, address(to));
        let syn = read_tun(&world.inside.dial);
        // The client now believes that it is connected, and acknowledges to nobody.
        write_tun(&world.inside.data, &packets::syn_ack(&syn));
        // The kernel of the gateway namespace knows no such connection, and leaves it to the gateway process to ask
        // again.
        let ack = read_tun(&world.inside.dial);
        write_tun(&world.inside.dial, &ack);
        wait(&client, PollFlags::POLLHUP);
        let error = client.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{to}");
    }
    world.assert_silent();
}

#[test]
fn datagrams_arrive_on_data_and_dns_on_dial() {
    let world = dual_stack();
    for (from, other, dns) in [
        ("10.0.2.100:0", ["192.0.2.1:9", "10.0.2.2:53", "10.0.2.3:54"], "10.0.2.3:53"),
        ("[fd00::100]:0", ["[2001:db8::1]:9", "[fd00::2]:53", "[fd00::3]:54"], "[fd00::3]:53"),
    ] {
        let client = bound(Type::DGRAM, from);
        for to in other.map(address) {
            client.send_to(b"other", &to.into()).unwrap();
            assert_udp(&read_tun(&world.inside.data), local(&client), to, b"other");
        }
        client.send_to(b"query", &address(dns).into()).unwrap();
        assert_udp(&read_tun(&world.inside.dial), local(&client), address(dns), b"query");
    }
    world.assert_silent();
}

#[test]
fn answers_written_to_a_tun_reach_the_socket_that_asked() {
    let world = dual_stack();
    for (from, others, dns) in [
        ("10.0.2.100:0", ["192.0.2.1:9", "10.0.2.2:9"], "10.0.2.3:53"),
        ("[fd00::100]:0", ["[2001:db8::1]:9", "[fd00::2]:9"], "[fd00::3]:53"),
    ] {
        let client = bound(Type::DGRAM, from);
        for other in others.map(address) {
            write_tun(&world.inside.data, &packets::udp(other, local(&client), b"answer"));
            assert_eq!(receive(&client), (b"answer".to_vec(), other));
        }
        let dns = address(dns);
        for tun in [&world.inside.dial, &world.inside.data] {
            write_tun(tun, &packets::udp(dns, local(&client), b"name"));
            assert_eq!(receive(&client), (b"name".to_vec(), dns));
        }
    }
    world.assert_silent();
}

/// Sends an echo request from the target namespace; the socket that gets the answer.
fn ping(to: &str) -> Socket {
    let to = address(to);
    sysctl::write(proc_sys(), "net.ipv4.ping_group_range", "0 0").unwrap();
    let (protocol, kind) =
        if to.is_ipv4() { (Protocol::ICMPV4, 8) } else { (Protocol::ICMPV6, 128) };
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol)).unwrap();
    socket.send_to(&[kind, 0, 0, 0, 0, 0, 0, 1, b'x'], &to.into()).unwrap();
    socket
}

#[test]
fn the_gateway_answers_pings_itself_and_leaves_others_to_the_tun() {
    let world = dual_stack();
    for (gateway, answer) in [("10.0.2.2:0", 0), ("[fd00::2]:0", 129)] {
        let (reply, from) = receive(&ping(gateway));
        assert_eq!((reply[0], from.ip()), (answer, address(gateway).ip()));
    }
    world.assert_silent();
    for (other, request) in
        [("192.0.2.1:0", 8), ("10.0.2.3:0", 8), ("[2001:db8::1]:0", 128), ("[fd00::3]:0", 128)]
    {
        let _socket = ping(other);
        let packet = read_tun(&world.inside.data);
        assert_eq!(packets::icmp(&packet), (request, address(other).ip()));
    }
    world.assert_silent();
}

/// `tproxy` has the kernel put fragments together before a rule sees them, so each of them has the ports' mark. On the
/// way to the tun the kernel cuts the datagram again as it was cut before, although it would fit: what arrives is a row
/// of fragments, complete and in order.
#[test]
fn a_datagram_over_the_mtu_arrives_in_fragments_in_order() {
    let world = dual_stack();
    let data: Vec<u8> = (0..=255).cycle().take(3000).collect();
    for (from, to, sizes) in [
        ("10.0.2.100:0", "192.0.2.1:9", [1480, 1480, 48]),
        ("[fd00::100]:0", "[2001:db8::1]:9", [1448, 1448, 112]),
    ] {
        let client = bound(Type::DGRAM, from);
        client.send_to(&data, &address(to).into()).unwrap();
        let mut whole = Vec::<u8>::new();
        for (at, size) in sizes.into_iter().enumerate() {
            let packet = read_tun(&world.inside.data);
            let fragment = packets::fragment(&packet);
            let expected = (whole.len(), at < 2, size);
            assert_eq!((fragment.offset, fragment.more, fragment.payload.len()), expected, "{to}");
            whole.extend(fragment.payload);
        }
        assert!(whole[8..] == data, "the datagram behind its header has changed");
    }
    world.assert_silent();
}
