//! What sockets of G send to A: published ports with the addresses of their clients.

use nix::poll::PollFlags;
use socket2::Type;

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
