use super::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io::{Read, Write};
use std::os::fd::AsFd;

#[test]
#[cfg_attr(miri, ignore = "miri knows no seqpacket sockets")]
fn descriptors_travel_with_their_message() {
    let (a, b) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (r, w) = std::io::pipe().unwrap();
    send(a.as_fd(), b"hello", &[w.as_fd()]).unwrap();
    drop(w);
    let mut buf = [0u8; 16];
    let (n, mut fds) = recv(b.as_fd(), &mut buf).unwrap();
    assert_eq!((&buf[..n], fds.len()), (&b"hello"[..], 1));
    let mut w = std::fs::File::from(fds.remove(0));
    w.write_all(b"x").unwrap();
    drop(w);
    let mut got = String::new();
    std::fs::File::from(OwnedFd::from(r)).read_to_string(&mut got).unwrap();
    assert_eq!(got, "x");
    send(a.as_fd(), &[7u8; 32], &[]).unwrap();
    assert_eq!(recv(b.as_fd(), &mut buf).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    drop(a);
    assert!(matches!(recv(b.as_fd(), &mut buf), Ok((0, fds)) if fds.is_empty()));
}

#[test]
#[cfg_attr(miri, ignore = "miri makes no processes")]
fn descriptors_for_which_there_is_no_room_leave_nothing_open() {
    let fork = std::env::args().any(|arg| arg == "--exact");
    if !fork {
        // The limit is the process's, and other tests share it.
        let name = "fdpass::tests::descriptors_for_which_there_is_no_room_leave_nothing_open";
        let program = std::env::current_exe().unwrap();
        let ran = std::process::Command::new(program).args(["--exact", name]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        return;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let kind = SockType::SeqPacket;
    let (a, b) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (r, _w) = std::io::pipe().unwrap();
    let many = [r.as_fd(); 5];
    send(a.as_fd(), b"five", &many).unwrap();
    let before = open();
    // Room for two of the five.
    let lowest = u64::try_from(r.try_clone().unwrap().as_raw_fd()).unwrap();
    let limit = lowest + 2;
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let mut buf = [0u8; 16];
    let got = recv(b.as_fd(), &mut buf);
    send(a.as_fd(), b"again", &many).unwrap();
    let mut again = [0u8; 16];
    let kept = recv_what_fits(b.as_fd(), &mut again);
    setrlimit(Resource::RLIMIT_NOFILE, 1024, hard).unwrap();
    assert_eq!(got.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    assert!(matches!(kept, Ok(Received { bytes: 5, fds: None })), "{kept:?}");
    assert_eq!((open(), &buf[..4], &again[..5]), (before, &b"five"[..], &b"again"[..]));
}

#[test]
fn every_descriptor_behind_every_header_is_found() {
    use std::os::fd::IntoRawFd;
    let (r, w) = std::io::pipe().unwrap();
    let (one, other) = std::io::pipe().unwrap();
    let sent = [[r.into_raw_fd(), w.into_raw_fd()], [one.into_raw_fd(), other.into_raw_fd()]];
    // As recvmsg(2) leaves them: rights, something else, and rights again.
    let kinds = [
        (libc::SCM_RIGHTS, sent[0]),
        (libc::SCM_CREDENTIALS, [-1, -1]),
        (libc::SCM_RIGHTS, sent[1]),
    ];
    let mut control = Vec::new();
    for (kind, fds) in kinds {
        control.extend((cmsg::HEADER + size_of_val(&fds)).to_ne_bytes());
        control.extend([libc::SOL_SOCKET, kind].iter().flat_map(|int| int.to_ne_bytes()));
        control.extend(fds.iter().flat_map(|fd| fd.to_ne_bytes()));
        control.resize(control.len().next_multiple_of(cmsg::WORD), 0);
    }
    // SAFETY: the descriptors are open, and nobody else owns them.
    let got = unsafe { super::rights(&control) };
    assert_eq!(got.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), sent.concat());
}
