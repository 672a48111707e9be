//! Datagrams of overlay networks, without an overlay network: only their beginning counts for the rules.

use std::os::fd::AsFd;

use nix::poll::PollFlags;
use socket2::Type;
use sys::mmsg::{BATCH, Receiver};

use crate::inbound_loopback::reached;
use crate::world::{World, address, bound, dual_stack, local, proc_sys, read_tun, receive, wait};

/// A VXLAN header and a frame of IPv4 with this content.
fn vxlan(content: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0, 42, 0][..], &[0; 12], &[0x08, 0x00], content].concat()
}

/// Sockets of the target namespace let what they send be cut, as links that encapsulate do.
fn world() -> World {
    let world = dual_stack();
    netlink::sysctl::write(proc_sys(), "net.ipv4.ip_no_pmtu_disc", "1").unwrap();
    world
}

/// What has come to the socket for overlay networks: sender, destination, content.
fn taken(world: &World, ipv6: bool) -> Vec<(String, String, Vec<u8>)> {
    let sockets = if ipv6 { world.inside.v6.as_ref().unwrap() } else { &world.inside.v4 };
    wait(&sockets.overlay, PollFlags::POLLIN);
    let mut receiver = Receiver::new();
    receiver.recv(sockets.overlay.as_fd(), BATCH).unwrap();
    let each = receiver.iter().flat_map(|datagram| {
        let (from, to) =
            (datagram.from.unwrap().to_string(), datagram.sent_to.unwrap().to_string());
        let pieces = relay::datagrams::pieces(datagram);
        pieces.map(|piece| (from.clone(), to.clone(), piece.to_vec())).collect::<Vec<_>>()
    });
    each.collect()
}

#[test]
fn they_come_to_one_socket_from_whatever_port_to_whatever_port() {
    let world = world();
    for (from, others) in [
        ("10.0.2.100:0", ["192.0.2.1:4789", "192.0.2.2:8472"]),
        ("[fd00::100]:0", ["[2001:db8::1]:4789", "[2001:db8::2]:9999"]),
    ] {
        for to in others {
            for content in [&b"one"[..], &[7; 1300]] {
                let client = bound(Type::DGRAM, from);
                client.send_to(&vxlan(content), &address(to).into()).unwrap();
                let expected = (local(&client).to_string(), to.to_owned(), vxlan(content));
                assert_eq!(
                    taken(&world, client.domain().unwrap() == socket2::Domain::IPV6),
                    [expected]
                );
            }
        }
    }
    world.assert_silent();
}

#[test]
fn long_ones_arrive_whole_although_the_link_is_narrow() {
    let world = world();
    let client = bound(Type::DGRAM, "10.0.2.100:0");
    let long = vxlan(&[9; 9000]);
    client.send_to(&long, &address("192.0.2.1:4789").into()).unwrap();
    assert_eq!(taken(&world, false)[0].2, long);
    world.assert_silent();
}

#[test]
fn what_must_not_be_cut_is_seen_on_the_tun_device() {
    let world = world();
    let client = bound(Type::DGRAM, "10.0.2.100:0");
    sys::whole::keep_whole(client.as_fd(), true, true).unwrap();
    let to = address("192.0.2.1:4789");
    client.send_to(&vxlan(b"whole"), &to.into()).unwrap();
    assert!(read_tun(&world.inside.data).ends_with(b"whole"));
    world.assert_silent();
}

#[test]
fn names_are_asked_for_and_other_datagrams_go_on_as_ever() {
    let world = world();
    let client = bound(Type::DGRAM, "10.0.2.100:0");
    // What a query would have to look like to be taken for one.
    client.send_to(&vxlan(b"query"), &address("10.0.2.3:53").into()).unwrap();
    assert!(read_tun(&world.inside.dial).ends_with(b"query"));
    let other = [&[9, 0, 0, 0, 0, 0, 42, 0][..], b"other"].concat();
    client.send_to(&other, &address("192.0.2.1:4789").into()).unwrap();
    assert!(read_tun(&world.inside.data).ends_with(b"other"));
    world.assert_silent();
}

#[test]
fn answers_of_a_published_server_find_the_socket_of_its_client() {
    let world = world();
    let server = bound(Type::DGRAM, "10.0.2.100:4789");
    let client = world.foreign(Type::DGRAM, "198.51.100.7:40000");
    client.connect(&address("10.0.2.100:4789").into()).unwrap();
    client.send(&vxlan(b"in")).unwrap();
    let (content, from) = receive(&server);
    assert_eq!((content, from), (vxlan(b"in"), address("198.51.100.7:40000")));
    server.send_to(&vxlan(b"back"), &from.into()).unwrap();
    assert_eq!(receive(&client).0, vxlan(b"back"));
    // From another port it is none.
    let stranger = bound(Type::DGRAM, "10.0.2.100:4790");
    stranger.send_to(&vxlan(b"new"), &from.into()).unwrap();
    let expected = ("10.0.2.100:4790".to_owned(), from.to_string(), vxlan(b"new"));
    assert_eq!(taken(&world, false), [expected]);
    world.assert_silent();
}

#[test]
fn nothing_comes_back_to_the_loopback_by_way_of_them() {
    let world = world();
    let server = bound(Type::DGRAM, "127.0.0.1:4789");
    let client = bound(Type::DGRAM, "10.0.2.100:0");
    client.send_to(&vxlan(b"hairpin"), &reached("127.0.0.1:4789").into()).unwrap();
    // What comes later by a shorter way, and what comes later to the gateway namespace.
    let direct = bound(Type::DGRAM, "127.0.0.1:0");
    direct.send_to(b"direct", &local(&server).into()).unwrap();
    assert_eq!(receive(&server).0, b"direct");
    client.send_to(&vxlan(b"out"), &address("192.0.2.1:4789").into()).unwrap();
    assert_eq!(taken(&world, false).len(), 1);
    world.assert_silent();
}
