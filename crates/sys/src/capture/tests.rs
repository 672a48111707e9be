//! Blocks as the kernel writes them, and frames of the loopback.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

/// A block with one frame, as the kernel would write it.
fn block(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; 512];
    for (at, word) in [
        (COUNT, 1),
        (FIRST, 48),
        (48 + SECONDS, 1_700_000_000),
        (48 + NANOSECONDS, 123_456_789),
        (48 + KEPT, 20),
        (48 + LENGTH, 1514),
        (48 + FRAME_STATUS, 9u32),
    ] {
        block[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    block[48 + BEGIN..48 + BEGIN + 2].copy_from_slice(&80u16.to_ne_bytes());
    block[48 + KIND] = libc::PACKET_OUTGOING;
    block[48 + 80..48 + 100].fill(7);
    change(&mut block);
    block.split_off(COUNT)
}

#[test]
fn a_frame_has_what_the_kernel_says_of_it() {
    let whole = block(|_| {});
    let all: Vec<Frame<'_>> = frames(&whole).collect();
    let [frame] = all[..] else { panic!("{all:?}") };
    assert_eq!(frame.time, Duration::new(1_700_000_000, 123_456_789));
    assert_eq!((frame.data, frame.length, frame.checksum_pending), (&[7; 20][..], 1514, true));
    assert_eq!(frame.direction, Direction::Sent);
}

#[test]
fn nothing_outside_of_a_block_is_read() {
    for (at, bytes) in [(FIRST, 4), (48 + KEPT, 4), (48 + BEGIN, 2)] {
        let wrong = block(|block| block[at..at + bytes].fill(0xff));
        assert_eq!(frames(&wrong).count(), 0, "{at}");
    }
    let more = block(|block| block[COUNT] = 9);
    assert_eq!(frames(&more).count(), 1, "there is no next one");
}

#[test]
#[cfg_attr(miri, ignore = "miri knows no packet filters")]
fn a_program_that_is_none_is_refused() {
    let (socket, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let accept = Instruction { code: 6, jt: 0, jf: 0, k: u32::MAX };
    attach_filter(socket.as_fd(), &[accept]).unwrap();
    let endless = Instruction { code: 0, ..accept };
    for bad in [&[][..], &[endless], &[accept; 4097]] {
        let error = attach_filter(socket.as_fd(), bad).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{}", bad.len());
    }
}

/// Frames of the loopback pass twice: sent and received.
#[test]
#[cfg_attr(miri, ignore = "miri knows no packet sockets")]
fn frames_of_a_link_have_time_and_direction() {
    const LENGTH: u32 = 14 + 20 + 8 + 1777;
    // Others use the loopback as well: the length of the frame, is it ours, then 20 bytes of it, else nothing.
    let program = [(0x80, 0, 0), (0x15, 1, LENGTH), (0x06, 0, 20), (0x06, 0, 0)];
    let program = program.map(|(code, jf, k)| Instruction { code, jt: 0, jf, k });
    let mut capture = Capture::open(1, &program, false).unwrap();
    assert_eq!(capture.hardware().unwrap(), libc::ARPHRD_LOOPBACK);
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&[7; 1777], server.local_addr().unwrap()).unwrap();
    server.recv(&mut [0; 100]).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let mut fds = [PollFd::new(capture.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000u16)).unwrap(), 1, "no frame");
        let each = |frame: &Frame<'_>| {
            assert_eq!((frame.length, frame.data.len()), (LENGTH, 20));
            assert_eq!(frame.data[12..15], [8, 0, 0x45]);
            assert!(now - frame.time < Duration::from_secs(60));
            seen.push(frame.direction);
            true
        };
        assert!(capture.read(each).unwrap());
    }
    assert_eq!(seen, [Direction::Sent, Direction::Received(Reception::Unicast)]);
    assert!(!capture.read(|_| true).unwrap());
    let both = Statistics { accepted: 2, dropped: 0 };
    assert_eq!(capture.statistics().unwrap(), both);
    assert_eq!(capture.statistics().unwrap(), Statistics::default());
}

/// Each block is used several times.
#[test]
#[cfg_attr(miri, ignore = "miri knows no packet sockets")]
fn the_ring_goes_round_without_loss() {
    const LENGTH: u32 = 14 + 20 + 8 + 60_001;
    let program = [(0x80, 0, 0), (0x15, 1, LENGTH), (0x06, 0, u32::MAX), (0x06, 0, 0)];
    let program = program.map(|(code, jf, k)| Instruction { code, jt: 0, jf, k });
    let mut capture = Capture::open(1, &program, false).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (to, mut sum) = (socket.local_addr().unwrap(), 0);
    for round in 0..200u8 {
        socket.send_to(&[round; 60_001], to).unwrap();
        socket.recv(&mut [0; 1]).unwrap();
        for _ in 0..2 {
            let mut fds = [PollFd::new(capture.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).unwrap();
            capture
                .read(|frame| {
                    assert_eq!(frame.data.len(), LENGTH as usize);
                    sum += 1;
                    true
                })
                .unwrap();
        }
    }
    while sum < 400 {
        let mut fds = [PollFd::new(capture.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000u16)).unwrap(), 1, "{sum} frames");
        capture
            .read(|_| {
                sum += 1;
                true
            })
            .unwrap();
    }
    assert_eq!(capture.statistics().unwrap(), Statistics { accepted: 400, dropped: 0 });
}
