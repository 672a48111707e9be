//! Servers on the loopback addresses of the target namespace, as published ports of Docker lead there.

use std::io::{Error, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use gateway::namespace::loopback::reached_at;
use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{
    World, add_to_loopback, address, assert_bytes_pass, bound, connected, dual_stack, listen,
    local, peer, receive, start_connect, wait,
};

const CLIENT: &str = "203.0.113.77:40001";
const CLIENT_V6: &str = "[2001:db8::77]:40001";

/// As the port driver hands an address over.
pub(crate) fn reached(server: &str) -> SocketAddr {
    let server = address(server);
    SocketAddr::new(reached_at(server.ip()), server.port())
}

fn call(world: &World, client: &str, server: &str) -> Socket {
    let socket = world.foreign(Type::STREAM, client);
    start_connect(&socket, reached(server));
    socket
}

#[test]
fn a_stream_server_on_a_loopback_address_sees_the_client() {
    let world = dual_stack();
    for (client, server) in [
        (CLIENT, "127.0.0.1:8080"),
        (CLIENT, "127.1.2.3:8080"),
        (CLIENT_V6, "[::1]:8080"),
        ("10.0.2.2:40001", "127.0.0.1:8081"),
        ("[fd00::2]:40001", "[::1]:8081"),
    ] {
        let listener = listen(server);
        let socket = call(&world, client, server);
        connected(&socket).unwrap();
        wait(&listener, PollFlags::POLLIN);
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!((local(&accepted), peer(&accepted)), (address(server), address(client)));
        assert_bytes_pass(&socket, &accepted);
    }
    world.assert_silent();
}

#[test]
fn a_datagram_server_on_a_loopback_address_sees_the_client() {
    let world = dual_stack();
    for (client, server) in [(CLIENT, "127.0.0.2:8080"), (CLIENT_V6, "[::1]:8080")] {
        let listener = bound(Type::DGRAM, server);
        let socket = world.foreign(Type::DGRAM, client);
        socket.connect(&reached(server).into()).unwrap();
        socket.send(b"question").unwrap();
        assert_eq!(receive(&listener), (b"question".to_vec(), address(client)));
        listener.send_to(b"answer", &address(client).into()).unwrap();
        assert_eq!(receive(&socket).0, b"answer");
    }
    world.assert_silent();
}

#[test]
fn a_closed_port_on_a_loopback_address_is_told_to_the_socket() {
    let world = dual_stack();
    let refused = |error: Error| {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    };
    for (client, server) in [(CLIENT, "127.0.0.1:81"), (CLIENT_V6, "[::1]:81")] {
        refused(connected(&call(&world, client, server)).unwrap_err());
        let datagram = world.foreign(Type::DGRAM, client);
        datagram.connect(&reached(server).into()).unwrap();
        datagram.send(b"anyone?").unwrap();
        wait(&datagram, PollFlags::POLLERR);
        refused(datagram.take_error().unwrap().unwrap());
    }
    world.assert_silent();
}

/// The rules are those of dockerd 28 and later: what comes to a loopback address from outside is dropped, and what gets
/// through is for the container.
#[test]
fn dockers_rules_let_the_client_through_to_the_container() {
    let world = dual_stack();
    for ip in ["172.17.0.2", "fd01::2"] {
        add_to_loopback(ip.parse().unwrap());
    }
    nft("table ip nat { chain pre { type nat hook prerouting priority dstnat;
           ip daddr 127.0.0.1 tcp dport 8080 dnat to 172.17.0.2:80; }; }
         table ip6 nat { chain pre { type nat hook prerouting priority dstnat;
           ip6 daddr ::1 tcp dport 8080 dnat to [fd01::2]:80; }; }
         table ip raw { chain pre { type filter hook prerouting priority raw;
           iifname != lo ip daddr 127.0.0.1 tcp dport 8080 drop; }; }");
    for (client, published, server) in
        [(CLIENT, "127.0.0.1:8080", "172.17.0.2:80"), (CLIENT_V6, "[::1]:8080", "[fd01::2]:80")]
    {
        let listener = listen(server);
        let socket = call(&world, client, published);
        connected(&socket).unwrap();
        wait(&listener, PollFlags::POLLIN);
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!((local(&accepted), peer(&accepted)), (address(server), address(client)));
        assert_bytes_pass(&socket, &accepted);
    }
    world.assert_silent();
}

fn nft(rules: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Nothing that the rules for TCP, UDP and echo requests know; from an address that the target namespace does not have,
/// as a container's may be.
#[test]
fn no_protocol_comes_back_to_the_loopback_by_way_of_the_gateway() {
    let _world = dual_stack();
    let raw = |protocol: i32| {
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol))).unwrap()
    };
    // An experimental protocol (RFC 3692).
    let (server, sender) = (raw(253), raw(253));
    server.bind(&address("127.0.0.1:0").into()).unwrap();
    server.set_nonblocking(true).unwrap();
    sender.set_ip_transparent_v4(true).unwrap();
    sender.bind(&address("203.0.113.9:0").into()).unwrap();
    sender.send_to(b"hairpin", &reached("127.0.0.1:0").into()).unwrap();
    // What comes later by a shorter way.
    let direct = raw(253);
    direct.send_to(b"direct", &address("127.0.0.1:0").into()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let mut packets = Vec::new();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 128];
    while let Ok((length, from)) = server.recv_from(&mut buffer) {
        packets.push((length, from.as_socket().unwrap().ip().to_string()));
    }
    assert_eq!(packets, [(20 + "direct".len(), "127.0.0.1".to_owned())]);
}
