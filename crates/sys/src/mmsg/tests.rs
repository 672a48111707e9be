use super::*;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, UdpGroSegment};

fn pair(addr: &str) -> (UdpSocket, UdpSocket) {
    let (a, b) = (UdpSocket::bind(addr).unwrap(), UdpSocket::bind(addr).unwrap());
    a.connect(b.local_addr().unwrap()).unwrap();
    (a, b)
}

#[test]
fn boundaries_order_and_sender_survive() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let (a, b) = pair(addr);
        let big = vec![7u8; 65_507];
        let out: Vec<&[u8]> = vec![b"one", b"", &big, b"four"];
        let slices: Vec<IoSlice<'_>> = out.iter().map(|d| IoSlice::new(d)).collect();
        assert_eq!(send_each(a.as_fd(), &slices, Route::default()), Ok(4));
        let mut rx = Receiver::new();
        assert_eq!(rx.recv(b.as_fd(), 3), Ok(3));
        assert!(rx.iter().map(|d| d.data).eq(out[..3].iter().copied()));
        assert_eq!(rx.get(0).unwrap().from, Some(a.local_addr().unwrap()));
        assert_eq!(rx.recv(b.as_fd(), BATCH), Ok(1));
        assert_eq!(rx.get(0).unwrap().data, b"four");
        assert!(rx.get(1).is_none());
        assert_eq!(rx.recv(b.as_fd(), BATCH), Err(Errno::EAGAIN));
    }
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let server = UdpSocket::bind("0.0.0.0:0").unwrap();
    setsockopt(&server, Ipv4PacketInfo, &true).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 2], server.local_addr().unwrap().port()));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hi", to).unwrap();
    let mut rx = Receiver::new();
    assert_eq!(rx.recv(server.as_fd(), 1), Ok(1));
    let got = rx.get(0).unwrap();
    assert_eq!(got.local.unwrap().addr, to.ip());
    let route = Route { to: got.from, from: got.local };
    assert_eq!(send_each(server.as_fd(), &[IoSlice::new(b"ho")], route), Ok(1));
    let mut buf = [0; 8];
    assert_eq!(client.recv_from(&mut buf).unwrap(), (2, to));
}

#[test]
fn a_dual_stack_socket_answers_both_families() {
    let server = UdpSocket::bind("[::]:0").unwrap();
    setsockopt(&server, Ipv6RecvPacketInfo, &true).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut rx = Receiver::new();
    for (from, to) in [("127.0.0.1:0", "127.0.0.3"), ("[::1]:0", "::1")] {
        let client = UdpSocket::bind(from).unwrap();
        let to = SocketAddr::new(to.parse().unwrap(), port);
        client.send_to(b"hi", to).unwrap();
        assert_eq!(rx.recv(server.as_fd(), 1), Ok(1));
        let got = rx.get(0).unwrap();
        assert_eq!(got.local.unwrap().addr.to_canonical(), to.ip());
        let from = got.local.map(|l| Local { ifindex: 0, ..l });
        let route = Route { to: got.from, from };
        assert_eq!(send_segmented(server.as_fd(), &[IoSlice::new(b"abcde")], 2, route), Ok(()));
        let mut buf = [0; 8];
        for want in [&b"ab"[..], b"cd", b"e"] {
            let (n, peer) = client.recv_from(&mut buf).unwrap();
            assert_eq!((&buf[..n], peer), (want, to));
        }
    }
}

#[test]
fn coalesced_runs_name_their_segment_size() {
    let (a, b) = pair("127.0.0.1:0");
    setsockopt(&b, UdpGroSegment, &true).unwrap();
    let parts = [IoSlice::new(b"abc"), IoSlice::new(b"def"), IoSlice::new(b"g")];
    assert_eq!(send_segmented(a.as_fd(), &parts, 3, Route::default()), Ok(()));
    let mut rx = Receiver::new();
    assert_eq!(rx.recv(b.as_fd(), BATCH), Ok(1));
    let got = rx.get(0).unwrap();
    assert_eq!((got.data, got.segment), (&b"abcdefg"[..], Some(3)));
}

#[test]
fn refusal_is_reported_once() {
    let (a, b) = pair("127.0.0.1:0");
    drop(b);
    a.send(b"x").unwrap();
    let mut rx = Receiver::new();
    assert_eq!(rx.recv(a.as_fd(), BATCH), Err(Errno::ECONNREFUSED));
    assert_eq!(rx.recv(a.as_fd(), BATCH), Err(Errno::EAGAIN));
}
