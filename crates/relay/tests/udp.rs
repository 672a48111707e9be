//! Datagrams through the engine: boundaries, addresses, flows.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{rig, rig_with, udp, udp_echo};
use relay::{Options, Proto, Service, Traffic};

fn ask(client: &UdpSocket, to: SocketAddr, data: &[u8]) -> SocketAddr {
    client.send_to(data, to).unwrap();
    let mut buf = vec![0; 65_536];
    let (n, from) = client.recv_from(&mut buf).unwrap();
    assert!(buf[..n] == *data, "{n} bytes instead of {}", data.len());
    from
}

#[test]
fn datagrams_of_every_size_keep_their_boundaries() {
    let rig = rig();
    for (id, ip) in [(1, "127.0.0.1"), (2, "::1")] {
        let target = udp_echo(&SocketAddr::new(ip.parse().unwrap(), 0).to_string());
        let addr = rig.publish(id, Proto::Udp, ip, target);
        let client = udp(&SocketAddr::new(ip.parse().unwrap(), 0).to_string());
        for len in [0, 1, 2, 0, 512, 1472, 1473, 9000, 65_507, 0, 7] {
            let data: Vec<u8> = (0..=255).cycle().take(len).collect();
            assert_eq!(ask(&client, addr, &data), addr);
        }
    }
}

#[test]
fn bursts_arrive_in_order_and_uncut() {
    let rig = rig();
    let server = udp("127.0.0.1:0");
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", server.local_addr().unwrap());
    let client = udp("127.0.0.1:0");
    let mut buf = [0; 2048];
    for round in 0..20u8 {
        // Runs of equal size, a shorter end, empty ones in between.
        let sizes = [100, 100, 100, 40, 0, 0, 7, 100, 1400, 1400, 1, 1, 1];
        for (i, size) in (0u8..).zip(sizes) {
            client.send_to(&vec![round ^ i; size], addr).unwrap();
        }
        let mut peer = None;
        for (i, size) in (0u8..).zip(sizes) {
            let (n, from) = server.recv_from(&mut buf).unwrap();
            assert_eq!((n, buf[..n].iter().all(|b| *b == round ^ i)), (size, true));
            peer = Some(from);
        }
        for (i, size) in (0u8..).zip(sizes) {
            server.send_to(&vec![i; size], peer.unwrap()).unwrap();
        }
        for (i, size) in (0u8..).zip(sizes) {
            let n = client.recv(&mut buf).unwrap();
            assert_eq!((n, buf[..n].iter().all(|b| *b == i)), (size, true));
        }
    }
}

#[test]
fn segmented_senders_are_passed_on_as_separate_datagrams() {
    let rig = rig();
    let server = udp("127.0.0.1:0");
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", server.local_addr().unwrap());
    let client = udp("127.0.0.1:0");
    client.connect(addr).unwrap();
    let data: Vec<u8> = (0..=255).cycle().take(1000 * 10 + 5).collect();
    let route = sys::mmsg::Route::default();
    sys::mmsg::send_segmented(client.as_fd(), &[std::io::IoSlice::new(&data)], 1000, route)
        .unwrap();
    let mut buf = [0; 2048];
    for want in data.chunks(1000) {
        let n = server.recv(&mut buf).unwrap();
        assert!(buf[..n] == *want, "{n} bytes instead of {}", want.len());
    }
}

#[test]
fn many_clients_get_their_own_answers() {
    let rig = rig();
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", udp_echo("127.0.0.1:0"));
    let clients: Vec<UdpSocket> = (0..200).map(|_| udp("127.0.0.1:0")).collect();
    for round in 0..3u32 {
        for (i, client) in (0u32..).zip(&clients) {
            // All of them fit in the buffer of one socket, so none is lost however late it is read.
            client.send_to(&(round * 1000 + i).to_le_bytes(), addr).unwrap();
        }
        for (i, client) in (0u32..).zip(&clients) {
            let mut buf = [0; 8];
            assert_eq!(client.recv_from(&mut buf).unwrap(), (4, addr));
            assert_eq!(buf[..4], (round * 1000 + i).to_le_bytes());
        }
    }
}

#[test]
fn a_port_serves_only_the_clients_that_are_allowed() {
    let rig = rig();
    let server = udp("127.0.0.1:0");
    let traffic = Arc::new(Traffic::default());
    let allowed = vec!["127.0.0.2/31".parse().unwrap()].into();
    let target = server.local_addr().unwrap();
    let service = Service { target, allowed, traffic: Arc::clone(&traffic) };
    let addr = rig.serve(1, Proto::Udp, "127.0.0.1", service);
    for (client, data) in [("127.0.0.1:0", b"no"), ("127.0.0.3:0", b"ok"), ("127.0.0.4:0", b"no")] {
        udp(client).send_to(data, addr).unwrap();
    }
    let mut buf = [0; 8];
    udp("127.0.0.2:0").send_to(b"end", addr).unwrap();
    assert_eq!(server.recv_from(&mut buf).unwrap().0, 2);
    assert_eq!(&buf[..2], b"ok");
    assert_eq!(server.recv_from(&mut buf).unwrap().0, 3);
    assert_eq!(traffic.refused.load(Ordering::Relaxed), 2);
    assert_eq!(traffic.opened.load(Ordering::Relaxed), 2);
}

/// A VXLAN header and a frame, of which the last byte is `content`.
fn overlay(content: u8) -> Vec<u8> {
    let header = [8, 0, 0, 0, 0, 0, 42, 0];
    [&header[..], &[0; 12], &[0x08, 0x00], &[content]].concat()
}

#[test]
fn an_overlay_network_has_one_flow_whatever_ports_it_sends_from() {
    let rig = rig();
    let server = udp("127.0.0.1:0");
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", server.local_addr().unwrap());
    let clients: Vec<UdpSocket> = (0..100).map(|_| udp("127.0.0.1:0")).collect();
    let mut buf = [0; 64];
    let mut backend = None;
    for (number, client) in (0..).zip(&clients) {
        client.send_to(&overlay(number), addr).unwrap();
        let (length, from) = server.recv_from(&mut buf).unwrap();
        assert_eq!(buf[..length], overlay(number));
        assert_eq!(*backend.get_or_insert(from), from, "client {number}");
    }
    // What is nobody's frame has a flow of its own, also beside one.
    clients[1].send_to(b"hello", addr).unwrap();
    assert_ne!(backend.unwrap(), server.recv_from(&mut buf).unwrap().1);
    // Answers are for the first.
    server.send_to(b"answer", backend.unwrap()).unwrap();
    let (length, from) = clients[0].recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..length], from), (&b"answer"[..], addr));
}

#[test]
fn what_only_looks_like_an_overlay_network_gets_its_answers_at_each_port() {
    let rig = rig();
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", udp_echo("127.0.0.1:0"));
    for number in 0..5 {
        let client = udp("127.0.0.1:0");
        assert_eq!(ask(&client, addr, &overlay(number)), addr, "client {number}");
        assert_eq!(ask(&client, addr, b"and something else"), addr, "client {number}");
    }
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let rig = rig();
    let target = udp_echo("127.0.0.1:0");
    let dual = rig.publish(1, Proto::Udp, "::", target).port();
    let v4 = rig.publish(2, Proto::Udp4, "0.0.0.0", target).port();
    let client = udp("127.0.0.1:0");
    // One client, several of our addresses: the answers must not be mixed up.
    for ip in [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 1], [127, 0, 0, 2]] {
        for port in [dual, v4] {
            let to = SocketAddr::from((ip, port));
            assert_eq!(ask(&client, to, b"who"), to);
        }
    }
    let to = SocketAddr::new("::1".parse().unwrap(), dual);
    assert_eq!(ask(&udp("[::1]:0"), to, b"who"), to);
}

#[test]
fn families_may_differ_on_the_two_sides() {
    let rig = rig();
    let addr = rig.publish(1, Proto::Udp6, "::1", udp_echo("127.0.0.1:0"));
    ask(&udp("[::1]:0"), addr, b"six to four");
    let addr = rig.publish(2, Proto::Udp4, "127.0.0.1", udp_echo("[::1]:0"));
    ask(&udp("127.0.0.1:0"), addr, b"four to six");
}

#[test]
fn a_flow_lives_while_either_side_talks_and_not_longer() {
    const IDLE: Duration = Duration::from_secs(2);
    // Short against IDLE, so that a busy machine makes no silence; all of them are longer than it.
    const STEP: Duration = Duration::from_millis(100);
    const STEPS: u32 = 25;
    let rig = rig_with(Options { udp_flow_idle_timeout: IDLE, ..Options::default() });
    let server = udp("127.0.0.1:0");
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", server.local_addr().unwrap());
    let client = udp("127.0.0.1:0");
    let mut buf = [0; 8];
    let mut arrive = |server: &UdpSocket| {
        client.send_to(b"x", addr).unwrap();
        server.recv_from(&mut buf).unwrap().1
    };
    let first = arrive(&server);
    // Only the client talks.
    for _ in 0..STEPS {
        std::thread::sleep(STEP);
        assert_eq!(arrive(&server), first);
    }
    // Only the server talks.
    for _ in 0..STEPS {
        std::thread::sleep(STEP);
        server.send_to(b"y", first).unwrap();
        client.recv(&mut [0; 8]).unwrap();
    }
    assert_eq!(arrive(&server), first);
    std::thread::sleep(IDLE * 2);
    assert_ne!(arrive(&server), first, "the flow outlived its silence");
}

#[test]
fn the_longest_silent_flow_makes_room() {
    let rig = rig_with(Options { flows_per_port: 3, ..Options::default() });
    let server = udp("127.0.0.1:0");
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", server.local_addr().unwrap());
    let clients: Vec<UdpSocket> = (0..4).map(|_| udp("127.0.0.1:0")).collect();
    let exchange = |i: usize| {
        clients[i].send_to(b"x", addr).unwrap();
        let from = server.recv_from(&mut [0; 8]).unwrap().1;
        server.send_to(b"y", from).unwrap();
        clients[i].recv(&mut [0; 8]).unwrap();
        from
    };
    let first: Vec<SocketAddr> = (0..3).map(exchange).collect();
    assert_eq!(exchange(0), first[0]);
    exchange(3);
    assert_eq!((exchange(0), exchange(2)), (first[0], first[2]));
    assert_ne!(exchange(1), first[1]);
}

/// As clients of a name server do it: each query comes from a port of its own, and some ports come again soon.
#[test]
fn no_query_is_lost_while_clients_come_and_go() {
    const CLIENTS: usize = 48;
    const IN_FLIGHT: usize = 16;
    let rig = rig_with(Options { flows_per_port: 32, ..Options::default() });
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", udp_echo("127.0.0.1:0"));
    let clients: Vec<UdpSocket> = (0..CLIENTS).map(|_| udp("127.0.0.1:0")).collect();
    for round in 0..3000usize {
        let asking = (0..IN_FLIGHT).map(|n| &clients[(round * 7 + n * 5) % CLIENTS]);
        for client in asking.clone() {
            client.send_to(&round.to_le_bytes(), addr).unwrap();
        }
        for client in asking {
            let mut answer = [0; 16];
            let n = client.recv(&mut answer).unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_eq!(answer[..n], round.to_le_bytes());
        }
    }
}

#[test]
fn a_server_that_comes_late_or_again_is_heard() {
    let rig = rig();
    // At an address of its own the port is not taken by another test meanwhile.
    let server = udp("127.98.76.2:0");
    let target = server.local_addr().unwrap();
    drop(server);
    let addr = rig.publish(1, Proto::Udp, "127.0.0.1", target);
    let client = udp("127.0.0.1:0");
    // Refused again and again, without harm.
    for _ in 0..10 {
        client.send_to(b"nobody", addr).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    udp_echo(&target.to_string());
    ask(&client, addr, b"somebody");
}

#[test]
fn a_removed_port_is_free_again() {
    let rig = rig();
    let addr = rig.publish(1, Proto::Udp, "127.98.76.3", udp_echo("127.0.0.1:0"));
    ask(&udp("127.0.0.1:0"), addr, b"x");
    assert!(rig.engine.remove(1));
    UdpSocket::bind(addr).unwrap();
}

/// Discovery asks everybody on the network; whoever answers does so from its own address.
#[test]
fn who_asks_a_broadcast_or_multicast_address_is_answered() {
    let rig = rig();
    let target = udp_echo("127.0.0.1:0");
    let dual = rig.publish(1, Proto::Udp, "::", target).port();
    let v4 = rig.publish(2, Proto::Udp4, "0.0.0.0", target).port();
    // The kernel gives IPv4 multicast to no IPv6 socket that has not joined the group.
    for (group, port) in [
        ("127.255.255.255", dual),
        ("127.255.255.255", v4),
        ("255.255.255.255", dual),
        ("255.255.255.255", v4),
        ("224.0.0.1", v4),
    ] {
        let client = udp("127.0.0.1:0");
        client.set_broadcast(true).unwrap();
        let local = std::net::Ipv4Addr::LOCALHOST;
        socket2::SockRef::from(&client).set_multicast_if_v4(&local).unwrap();
        socket2::SockRef::from(&client).bind_device(Some(b"lo")).unwrap();
        let from = ask(&client, SocketAddr::new(group.parse().unwrap(), port), b"anybody");
        assert_eq!(from, SocketAddr::from((local, port)), "{group}");
        // The flow is the one that goes on with that address.
        assert_eq!(ask(&client, from, b"you"), from);
    }
}
