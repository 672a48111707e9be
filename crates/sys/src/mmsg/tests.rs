use super::*;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, UdpGroSegment};
use nix::unistd::{SysconfVar, sysconf};

fn pair(addr: &str) -> (UdpSocket, UdpSocket) {
    let (a, b) = (UdpSocket::bind(addr).unwrap(), UdpSocket::bind(addr).unwrap());
    a.connect(b.local_addr().unwrap()).unwrap();
    (a, b)
}

#[test]
#[cfg_attr(miri, ignore = "miri knows no UDP sockets")]
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
#[cfg_attr(miri, ignore = "miri knows no UDP sockets")]
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
#[cfg_attr(miri, ignore = "miri knows no UDP sockets")]
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
#[cfg_attr(miri, ignore = "miri knows no UDP sockets")]
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
#[cfg_attr(miri, ignore = "miri knows no UDP sockets")]
fn refusal_is_reported_once() {
    let (a, b) = pair("127.0.0.1:0");
    drop(b);
    a.send(b"x").unwrap();
    let mut rx = Receiver::new();
    assert_eq!(rx.recv(a.as_fd(), BATCH), Err(Errno::ECONNREFUSED));
    assert_eq!(rx.recv(a.as_fd(), BATCH), Err(Errno::EAGAIN));
}

fn local(addr: &str, ifindex: u32) -> Local {
    Local { addr: addr.parse().unwrap(), ifindex }
}

/// What a header points to, as sendmmsg(2) reads it: name, control messages, payload.
fn read(header: &mmsghdr) -> (Name, Vec<u8>, Vec<u8>) {
    let header = &header.msg_hdr;
    let bytes = |from: *const u8, length: usize| {
        if length == 0 {
            return Vec::new();
        }
        // SAFETY: the header says that so many bytes are there.
        unsafe { std::slice::from_raw_parts(from, length) }.to_vec()
    };
    let mut name = Name::default();
    // The kernel is given the whole storage, and reads what the family has.
    let given = bytes(header.msg_name.cast(), header.msg_namelen as usize);
    let length = given.len().min(name.len());
    name[..length].copy_from_slice(&given[..length]);
    #[allow(clippy::unnecessary_cast, reason = "musl declares these lengths as 32 bits")]
    let (controllen, parts) = (header.msg_controllen as usize, header.msg_iovlen as usize);
    let control = bytes(header.msg_control.cast(), controllen);
    let mut payload = Vec::new();
    for index in 0..parts {
        // SAFETY: the header says that so many parts are there.
        let part = unsafe { header.msg_iov.add(index) };
        // SAFETY: the same.
        let part = unsafe { *part };
        payload.extend(bytes(part.iov_base.cast(), part.iov_len));
    }
    (name, control, payload)
}

#[test]
fn headers_of_a_batch_lead_to_what_they_share_and_to_their_own() {
    for (to, from) in [("192.0.2.1:53", "127.0.0.2"), ("[2001:db8::1]:53", "2001:db8::2")] {
        let (to, from): (SocketAddr, _) = (to.parse().unwrap(), local(from, 7));
        let route = Route { to: Some(to), from: Some(from) };
        let envelope = Envelope::new(route, Some(1200));
        let parts = [IoSlice::new(b"one"), IoSlice::new(b"two"), IoSlice::new(b"")];
        let headers = [envelope.header(&parts[..1]), envelope.header(&parts)];
        for (header, payload) in headers.iter().zip([&b"one"[..], b"onetwo"]) {
            let (name, control, got) = read(header);
            assert_eq!((parse_name(&name), &got[..]), (Some(to), payload));
            assert_eq!(parse_control(&control).local, Some(from));
        }
    }
    let nothing = Envelope::new(Route::default(), None);
    assert_eq!(read(&nothing.header(&[])), (Name::default(), Vec::new(), Vec::new()));
}

#[test]
fn what_the_kernel_writes_behind_the_headers_is_what_is_received() {
    let datagrams: [(&[u8], &str, Local); 3] = [
        (b"one", "192.0.2.1:53", local("127.0.0.2", 1)),
        (b"", "[2001:db8::1]:4242", local("2001:db8::2", 2)),
        (&[7; SLOT], "192.0.2.3:1", local("127.0.0.4", 3)),
    ];
    let mut rx = Receiver::new();
    for max in [2, 64, 1000, 0] {
        let n = rx.recv_by(max, |headers, count| {
            for (index, (data, from, local)) in datagrams.iter().take(count as usize).enumerate() {
                // SAFETY: there are `count` headers.
                let header = unsafe { headers.add(index) };
                // SAFETY: the same, and nobody else uses them during this call.
                let header = unsafe { &mut *header };
                // SAFETY: the header leads to one live iovec.
                let iov = unsafe { *header.msg_hdr.msg_iov };
                assert_eq!(iov.iov_len, SLOT);
                let name = SockaddrStorage::from(from.parse::<SocketAddr>().unwrap());
                let route = Route { to: None, from: Some(*local) };
                let control = Envelope::new(route, None);
                let put = |from: *const u8, to: *mut libc::c_void, length| {
                    // SAFETY: the lengths are within those that the header tells.
                    unsafe { ptr::copy_nonoverlapping(from, to.cast(), length) };
                };
                put(data.as_ptr(), iov.iov_base, data.len());
                header.msg_len = u32::try_from(data.len()).unwrap();
                let room = header.msg_hdr.msg_namelen.min(name.len()) as usize;
                put(name.as_ptr().cast(), header.msg_hdr.msg_name, room);
                put(control.control.0.as_ptr(), header.msg_hdr.msg_control, control.controllen);
                header.msg_hdr.msg_controllen = control.controllen as _;
            }
            Ok(datagrams.len().min(count as usize))
        });
        assert_eq!(n, Ok(max.min(3)));
        let got = rx.iter().map(|d| (d.data, d.from.unwrap(), d.local.unwrap()));
        assert!(got.eq(datagrams.iter().take(max).map(|d| (d.0, d.1.parse().unwrap(), d.2))));
    }
    assert_eq!(rx.recv_by(1, |_, _| Err(Errno::EAGAIN)), Err(Errno::EAGAIN));
    assert!(rx.get(0).is_none());
}

/// How many pages of a buffer are in memory (proc_pid_pagemap(5): bit 63 of each entry).
fn pages_in_memory(buffer: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;
    let page = usize::try_from(sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap()).unwrap();
    let pages = buffer.as_ptr().addr() / page..(buffer.as_ptr().addr() + buffer.len()) / page;
    let mut entries = vec![[0u8; 8]; pages.len()];
    let map = std::fs::File::open("/proc/self/pagemap").unwrap();
    map.read_exact_at(entries.as_flattened_mut(), (pages.start * 8).try_into().unwrap()).unwrap();
    entries.iter().filter(|entry| u64::from_ne_bytes(**entry) >> 63 == 1).count()
}

#[test]
#[cfg_attr(miri, ignore = "miri knows no UDP sockets")]
fn memory_of_a_burst_is_given_back_when_it_is_not_needed_again() {
    let (a, b) = pair("127.0.0.1:0");
    let mut rx = Receiver::new();
    let burst = |size: usize, count: usize, rx: &mut Receiver| {
        let datagram = vec![7u8; size];
        let slices = vec![IoSlice::new(&datagram); count];
        assert_eq!(send_each(a.as_fd(), &slices, Route::default()), Ok(count));
        assert_eq!(rx.recv(b.as_fd(), BATCH), Ok(count));
        assert!(rx.iter().all(|received| received.data == datagram));
    };
    // As many as a socket holds with its usual room for two hundred thousand bytes.
    burst(40_000, 3, &mut rx);
    let full = pages_in_memory(&rx.payload);
    assert!(full >= 3, "{full}");
    // What is needed again stays.
    rx.trim();
    burst(30_000, 3, &mut rx);
    rx.trim();
    assert_eq!(pages_in_memory(&rx.payload), full);
    assert_eq!(rx.iter().count(), 3);
    burst(1000, 1, &mut rx);
    rx.trim();
    assert!(pages_in_memory(&rx.payload) <= 1, "{}", pages_in_memory(&rx.payload));
    assert_eq!(rx.iter().count(), 0);
    burst(40_000, 3, &mut rx);
    rx.release();
    assert!(pages_in_memory(&rx.payload) <= 1);
    burst(100, 2, &mut rx);
}
