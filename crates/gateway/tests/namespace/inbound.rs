//! What sockets of the gateway namespace send to the target namespace: published ports with the addresses of their
//! clients.

use std::os::fd::AsFd;

use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::packets;
use crate::world::{
    address, assert_bytes_pass, bound, connected, dual_stack, listen, local, peer, receive,
    start_connect, wait,
};

const CLIENT: &str = "203.0.113.77:40001";
const CLIENT_V6: &str = "[2001:db8::77]:40001";

#[test]
fn a_datagram_server_sees_the_client_and_answers_its_socket() {
    let world = dual_stack();
    for (client, server) in [(CLIENT, "10.0.2.100:8080"), (CLIENT_V6, "[fd00::100]:8080")] {
        let server = bound(Type::DGRAM, server);
        let socket = world.foreign(Type::DGRAM, client);
        socket.connect(&local(&server).into()).unwrap();
        socket.send(b"question").unwrap();
        assert_eq!(receive(&server), (b"question".to_vec(), address(client)));
        server.send_to(b"answer", &address(client).into()).unwrap();
        assert_eq!(receive(&socket).0, b"answer");
    }
    world.assert_silent();
}

#[test]
fn a_stream_server_sees_the_client() {
    let world = dual_stack();
    for (client, server) in [
        (CLIENT, "10.0.2.100:8080"),
        (CLIENT_V6, "[fd00::100]:8080"),
        // What stands for clients of the host itself.
        ("10.0.2.2:40001", "10.0.2.100:8081"),
        ("[fd00::2]:40001", "[fd00::100]:8081"),
    ] {
        let listener = listen(server);
        let socket = world.foreign(Type::STREAM, client);
        start_connect(&socket, local(&listener));
        connected(&socket).unwrap();
        wait(&listener, PollFlags::POLLIN);
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!((local(&accepted), peer(&accepted)), (address(server), address(client)));
        assert_bytes_pass(&socket, &accepted);
    }
    world.assert_silent();
}

#[test]
fn a_closed_port_in_a_is_told_to_the_socket() {
    let world = dual_stack();
    for (client, server) in [(CLIENT, "10.0.2.100:81"), (CLIENT_V6, "[fd00::100]:81")] {
        let stream = world.foreign(Type::STREAM, client);
        start_connect(&stream, address(server));
        let error = connected(&stream).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{server}");

        let datagram = world.foreign(Type::DGRAM, client);
        datagram.connect(&address(server).into()).unwrap();
        datagram.send(b"anyone?").unwrap();
        wait(&datagram, PollFlags::POLLERR);
        let error = datagram.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{server}");
    }
    world.assert_silent();
}

/// "Too big" as a router of the target namespace would say it: about a packet from `from` to `to`.
fn too_big(from: &str, to: &str, mtu: u16) {
    let (from, to) = (address(from), address(to));
    let quoted = packets::udp(from, to, &[0; 8]);
    let [m0, m1] = mtu.to_be_bytes();
    // Type, code, checksum, two bytes that are unused, and the MTU; the checksum of ICMPv6 is the kernel's.
    let (kind, protocol, code) =
        if from.is_ipv4() { (3, Protocol::ICMPV4, 4) } else { (2, Protocol::ICMPV6, 0) };
    let mut message = vec![kind, code, 0, 0, 0, 0, m0, m1];
    message.extend(quoted);
    if from.is_ipv4() {
        let words = message.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        message[2..4].copy_from_slice(&(!folded).to_be_bytes());
    }
    let socket = Socket::new(Domain::for_address(from), Type::RAW, Some(protocol)).unwrap();
    let router = std::net::SocketAddr::new(from.ip(), 0);
    socket.send_to(&message, &router.into()).unwrap();
}

/// A size belongs to an address, and everybody in the target namespace has the same.
#[test]
fn a_size_that_one_in_a_claims_changes_no_route_for_others() {
    let world = dual_stack();
    for (client, server, ipv4) in [
        (CLIENT, "10.0.2.100:8080", true),
        (CLIENT_V6, "[fd00::100]:8080", false),
        // The client of the host itself has an address that is one of the gateway namespace's.
        ("10.0.2.2:40002", "10.0.2.100:8081", true),
        ("[fd00::2]:40002", "[fd00::100]:8081", false),
    ] {
        let server = bound(Type::DGRAM, server);
        let victim = world.foreign(Type::DGRAM, client);
        victim.connect(&local(&server).into()).unwrap();
        victim.send(b"before").unwrap();
        assert_eq!(receive(&server).0, b"before");
        too_big(client, &local(&server).to_string(), if ipv4 { 68 } else { 1280 });
        sys::whole::keep_whole(victim.as_fd(), ipv4, true).unwrap();
        victim.send(&[7; 1400]).unwrap_or_else(|e| panic!("{client}: {e}"));
        assert_eq!(receive(&server).0, [7; 1400]);
    }
    world.assert_silent();
}
