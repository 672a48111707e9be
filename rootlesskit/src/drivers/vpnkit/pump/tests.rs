//! The pump between a real TAP device and a server that speaks vpnkit's protocol.

use super::*;
use nix::sched::{CloneFlags, unshare};
use std::os::unix::net::UnixListener;

/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const MAC: [u8; 6] = [2, 0x50, 0, 0, 0, 9];

/// Takes one client in and gives it a port.
fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut hello = [0; 49];
    stream.read_exact(&mut hello).unwrap();
    stream.write_all(&hello).unwrap();
    let mut request = [0; 41];
    stream.read_exact(&mut request).unwrap();
    assert_eq!(&request[1..37], "u".repeat(36).as_bytes());
    let mut port = vec![1, 0xdc, 5, 0x0e, 6];
    port.extend(MAC);
    port.resize(258, 0);
    stream.write_all(&port).unwrap();
    stream
}

/// The next frame that is an ARP request.
fn arp(stream: &mut UnixStream) -> Vec<u8> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::from(u16::from_le_bytes(length))];
        stream.read_exact(&mut frame).unwrap();
        if frame[12..14] == [8, 6] {
            return frame;
        }
    }
}

#[test]
fn frames_cross_with_the_assigned_address_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    // A thread of its own, because it changes its namespace.
    let inside = {
        let path = path.clone();
        move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            start("tap7", &path, &"u".repeat(36)).unwrap();
            let mut rt = Rt::open().unwrap();
            let index = rt.link_index("tap7").unwrap();
            rt.link_up(index).unwrap();
            rt.add_address(index, "10.8.0.2".parse().unwrap(), 24).unwrap();
            let socket = std::net::UdpSocket::bind("10.8.0.2:0").unwrap();
            // Neighbours are asked for one after the other, and again when nobody has answered for a few seconds,
            // until the test has seen two such questions.
            let begin = Instant::now();
            for host in (3..=250u8).cycle().take_while(|_| begin.elapsed() < PATIENCE) {
                let _ =
                    socket.send_to(b"x", ("10.8.0.0".replace(".0.0", &format!(".0.{host}")), 9));
                std::thread::sleep(Duration::from_millis(20));
                if !path.exists() {
                    return;
                }
            }
            panic!("nobody saw the frames");
        }
    };
    let thread = std::thread::spawn(inside);
    let mut stream = accept(&listener);
    assert_eq!(arp(&mut stream)[6..12], MAC);
    // vpnkit dies, its successor listens anew.
    drop((stream, listener));
    std::fs::remove_file(&path).unwrap();
    let other = dir.path().join("t");
    let listener = UnixListener::bind(&other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let mut stream = accept(&listener);
    assert_eq!(arp(&mut stream)[6..12], MAC);
    std::fs::remove_file(&path).unwrap();
    thread.join().unwrap();
}
