//! Descriptors over unix sockets (unix(7), `SCM_RIGHTS`).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::cmsg;

/// The most descriptors that one message can carry (`SCM_MAX_FD`, unix(7)).
pub const MAX_FDS: usize = 253;
/// How often [`send_until`] tries again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Sends one message with descriptors. A stream or seqpacket peer that has gone away is `EPIPE`, never
/// a signal.
///
/// # Errors
/// Those of sendmsg(2); `EINTR` is retried.
pub fn send(sock: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let cmsgs: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(
            sock.as_raw_fd(),
            &[IoSlice::new(data)],
            cmsgs,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// As [`send`], but a shortage that passes ([`is_passing`]) is waited for until `deadline`.
///
/// # Errors
/// Those of sendmsg(2), of a shortage the last one.
pub fn send_until(
    sock: BorrowedFd<'_>,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
) -> io::Result<usize> {
    loop {
        match send(sock, data, fds) {
            // No descriptor tells when there is room.
            Err(error) if is_passing(&error) && Instant::now() < deadline => sleep(RETRY_INTERVAL),
            other => return other,
        }
    }
}

/// Whether sending may work later. Memory is short, or all processes of the user together have more descriptors in transit
/// than this one may have open (`ETOOMANYREFS`, unix(7)): other programs of the user, containers among them, can cause that.
pub fn is_passing(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ETOOMANYREFS | Errno::ENOMEM | Errno::ENOBUFS))
}

/// Receives one message and the descriptors that came with it, all close-on-exec. Zero bytes and no
/// descriptor is the end of the stream.
///
/// # Errors
/// Those of recvmsg(2), `EINTR` retried; `EMSGSIZE` when the message or its control part was cut off.
pub fn recv(sock: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    match recv_what_fits(sock, buf)? {
        Received { bytes, fds: Some(fds) } => Ok((bytes, fds)),
        Received { fds: None, .. } => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
    }
}

/// A message.
#[derive(Debug)]
pub struct Received {
    /// How long it is.
    pub bytes: usize,
    /// The descriptors that came with it. `None` if there was no room for all of them in this process
    /// (`RLIMIT_NOFILE`): those that came are closed.
    pub fds: Option<Vec<OwnedFd>>,
}

/// As [`recv`], but the bytes of a message for whose descriptors this process has no room are not lost.
///
/// # Errors
/// Those of recvmsg(2), `EINTR` retried; `EMSGSIZE` when the bytes were cut off.
pub fn recv_what_fits(sock: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; CONTROL_LEN]);
    loop {
        let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: msghdr is plain data for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        #[allow(clippy::unnecessary_cast, reason = "musl declares it as 32 bits")]
        {
            message.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: the header points to one buffer and a control buffer, both alive and of the lengths it tells.
        let ret =
            unsafe { libc::recvmsg(sock.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        let bytes = match Errno::result(ret) {
            Err(Errno::EINTR) => continue,
            other => usize::try_from(other?).unwrap_or(0),
        };
        #[allow(clippy::unnecessary_cast, reason = "musl declares it as 32 bits")]
        let length = message.msg_controllen as usize;
        // Also if some are missing: those that came are open, and would stay so.
        // SAFETY: recvmsg(2) has written the headers and descriptors up to this length, and they are read once.
        let fds = unsafe { rights(control.0.get(..length).unwrap_or_default()) };
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let complete = message.msg_flags & libc::MSG_CTRUNC == 0;
        return Ok(Received { bytes, fds: complete.then_some(fds) });
    }
}

/// Room for [`MAX_FDS`] descriptors behind their header.
const CONTROL_LEN: usize = (cmsg::HEADER + MAX_FDS * size_of::<RawFd>()).next_multiple_of(8) + 8;

/// Headers in it are aligned (cmsg(3)).
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// The descriptors that came with a message, which may be fewer than were sent.
///
/// # Safety
/// The bytes are control messages of recvmsg(2), whose descriptors nobody else owns.
unsafe fn rights(control: &[u8]) -> Vec<OwnedFd> {
    cmsg::Messages(control)
        .filter(|(level, kind, _)| (*level, *kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS))
        .flat_map(|(_, _, value)| value.chunks_exact(size_of::<RawFd>()))
        // SAFETY: the kernel has installed this descriptor for us.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(cmsg::int(fd)) })
        .collect()
}

#[cfg(test)]
mod tests;
