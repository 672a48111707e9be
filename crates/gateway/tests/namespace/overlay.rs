//! Datagrams of overlay networks, without an overlay network: only their beginning counts for the rules.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use gateway::packet::{self, Packet, Reassembly, Udp};
use nix::poll::PollFlags;
use relay::overlay::{MAC, Reader};
use socket2::Type;

use crate::inbound_loopback::reached;
use crate::packets::{assert_udp, udp};
use crate::world::{
    World, address, bound, dual_stack, local, proc_sys, read_tun, receive, wait, write_tun,
};

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

fn reader(world: &World) -> Reader {
    world.inside.overlay.as_ref().unwrap().reader.try_clone().unwrap().into()
}

/// The next datagram at the packet socket, put together from fragments: sender, destination, content.
fn taken(world: &World) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let (mut reader, mut fragments) = (reader(world), Reassembly::default());
    let seen = |udp: Udp<'_>| (udp.src, udp.dst, udp.payload.to_vec());
    loop {
        wait(&reader, PollFlags::POLLIN);
        let received = reader.receive().unwrap().unwrap();
        match packet::parse(received.packet).unwrap() {
            Packet::Udp(udp) => return seen(udp),
            Packet::Fragment(fragment) => {
                if let Some(whole) = fragments.add(Instant::now(), &fragment)
                    && let Ok(Packet::Udp(udp)) = packet::parse(whole)
                {
                    return seen(udp);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Gives the next datagram at the packet socket back, as the gateway process does with one of no flow.
fn look_again(world: &World) -> SocketAddr {
    let (from, to, content) = taken(world);
    write_tun(&world.inside.dial, &udp(from, to, &content));
    from
}

/// Nothing is left at the packet socket and the tun devices.
fn assert_silent(world: &World) {
    assert!(reader(world).receive().is_none());
    world.assert_silent();
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
                assert_eq!(taken(&world), (local(&client), address(to), vxlan(content)));
            }
        }
    }
    assert_silent(&world);
}

#[test]
fn long_ones_arrive_whole_although_the_link_is_narrow() {
    let world = world();
    let client = bound(Type::DGRAM, "10.0.2.100:0");
    let long = vxlan(&[9; 9000]);
    client.send_to(&long, &address("192.0.2.1:4789").into()).unwrap();
    assert_eq!(taken(&world).2, long);
    assert_silent(&world);
}

#[test]
fn what_must_not_be_cut_is_seen_on_the_tun_device() {
    let world = world();
    let client = bound(Type::DGRAM, "10.0.2.100:0");
    sys::whole::keep_whole(client.as_fd(), true, true).unwrap();
    let to = address("192.0.2.1:4789");
    client.send_to(&vxlan(b"whole"), &to.into()).unwrap();
    assert!(read_tun(&world.inside.data).ends_with(b"whole"));
    assert_silent(&world);
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
    assert_silent(&world);
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
    assert_eq!(look_again(&world), local(&server));
    assert_eq!(receive(&client).0, vxlan(b"back"));
    // From another port it is none, and may begin a flow.
    let stranger = bound(Type::DGRAM, "10.0.2.100:4790");
    stranger.send_to(&vxlan(b"new"), &from.into()).unwrap();
    look_again(&world);
    assert_udp(&read_tun(&world.inside.data), local(&stranger), from, &vxlan(b"new"));
    assert_silent(&world);
}

#[test]
fn nothing_comes_back_to_the_loopback_by_way_of_them() {
    let world = world();
    let server = bound(Type::DGRAM, "127.0.0.1:4789");
    let client = bound(Type::DGRAM, "10.0.2.100:0");
    client.send_to(&vxlan(b"hairpin"), &reached("127.0.0.1:4789").into()).unwrap();
    // It may not leave, and so does what claims to come from there.
    assert_silent(&world);
    let (inner, outer) = (reached("127.0.0.1:4789"), address("192.0.2.1:4789"));
    write_tun(&world.inside.dial, &udp(inner, outer, &vxlan(b"out")));
    write_tun(&world.inside.dial, &udp(local(&client), outer, &vxlan(b"last")));
    assert_udp(&read_tun(&world.inside.data), local(&client), outer, &vxlan(b"last"));
    let direct = bound(Type::DGRAM, "127.0.0.1:0");
    direct.send_to(b"direct", &local(&server).into()).unwrap();
    assert_eq!(receive(&server).0, b"direct");
    assert_silent(&world);
}

#[test]
fn what_the_gateway_process_sends_there_reaches_the_target_namespace() {
    let world = world();
    let writer = world.inside.overlay.as_ref().unwrap().writer.as_ref().unwrap();
    for (from, to) in
        [("198.51.100.7:40000", "10.0.2.100:4789"), ("[2001:db8::7]:40000", "[fd00::100]:4789")]
    {
        let server = bound(Type::DGRAM, to);
        let (from, to) = (address(from), address(to));
        let ether_type: [u8; 2] = if from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        let frame = [&[0; 24][..], &MAC, &MAC, &ether_type, &udp(from, to, b"in")].concat();
        nix::unistd::write(writer, &frame).unwrap();
        assert_eq!(receive(&server), (b"in".to_vec(), from));
    }
    assert_silent(&world);
}
