//! Packet sockets that watch a link: all frames that it receives and sends, chosen by a program of the kernel's packet
//! filter (packet(7), the kernel's documentation networking/filter).

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, mmsghdr, socklen_t};
use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket};

use crate::cmsg::{Messages, array, int};
use crate::mmsg::{build, vlen};
use crate::packet::{bind, len, set};

/// The most frames that one call receives.
pub const BATCH: usize = 64;
/// Room for a frame, in bytes: the longest IP packet with an Ethernet header.
const SLOT: usize = 65_536 + 64;
/// What is asked for as the buffer of a socket, in bytes. The kernel gives as much of it as `net.core.rmem_max` allows.
const BUFFER: usize = 16 << 20;

/// From linux/if_packet.h; libc does not have all of them.
const PACKET_AUXDATA: c_int = 8;
const TP_STATUS_CSUMNOTREADY: c_int = 1 << 3;
/// From asm-generic/socket.h: times with 64 bits on each architecture (Linux 5.1).
const SO_TIMESTAMPNS_NEW: c_int = 64;

/// An instruction of the classic packet filter (`struct sock_filter` of linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// How many instructions a condition skips if it holds.
    pub jt: u8,
    /// How many it skips otherwise.
    pub jf: u8,
    /// An operand.
    pub k: u32,
}

/// Has a socket receive only that for which the program does not answer 0. (`SO_ATTACH_FILTER`, socket(7).)
///
/// # Errors
/// `EINVAL` if it is no valid program: empty, longer than 4,096 instructions, or without an end.
pub fn attach_filter(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(Errno::EINVAL))?;
    // The kernel copies the program and does not write to it.
    let filter = program.as_ptr().cast::<libc::sock_filter>().cast_mut();
    let value = libc::sock_fprog { len: length, filter };
    set_value(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &value)
}

/// A socket that gets each frame of a link that a filter accepts.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// What the kernel counted for a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that the filter accepted.
    pub accepted: u32,
    /// Those of them for which the socket's buffer had no room.
    pub dropped: u32,
}

impl Capture {
    /// Watches a link of the thread's network namespace; `promiscuous` makes it receive frames for others too, which a
    /// bridge passes on unseen otherwise. No frame gets in that the filter does not accept. The socket is non-blocking.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW` over the namespace, `EAFNOSUPPORT` if the kernel has no packet sockets, `ENODEV`
    /// if there is no such link, and those of [`attach_filter`].
    pub fn open(link: u32, filter: &[Instruction], promiscuous: bool) -> io::Result<Self> {
        // Without a protocol it gets nothing until it is bound to the link, when the filter is there.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        attach_filter(socket.as_fd(), filter)?;
        set(&socket, PACKET_AUXDATA)?;
        // Without it (Linux < 5.1), frames have the time at which they were read.
        let on: c_int = 1;
        let _ = set_value(socket.as_fd(), libc::SOL_SOCKET, SO_TIMESTAMPNS_NEW, &on);
        setsockopt(&socket, RcvBuf, &BUFFER)?;
        if promiscuous {
            let request = libc::packet_mreq {
                mr_ifindex: c_int::try_from(link).map_err(io::Error::other)?,
                mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(io::Error::other)?,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            let option = libc::PACKET_ADD_MEMBERSHIP;
            set_value(socket.as_fd(), libc::SOL_PACKET, option, &request)?;
        }
        bind(&socket, link)?;
        Ok(Self { socket })
    }

    /// The type of the link (`ARPHRD_…` of linux/if_arp.h).
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn hardware(&self) -> io::Result<u16> {
        // SAFETY: sockaddr_ll is plain data for which all zeroes is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = len::<libc::sockaddr_ll>();
        let pointer = (&raw mut address).cast();
        // SAFETY: the pointer and the length are those of `address`, which outlives the call.
        let named = unsafe { libc::getsockname(self.socket.as_raw_fd(), pointer, &raw mut length) };
        Errno::result(named)?;
        Ok(address.sll_hatype)
    }

    /// What was counted since the last call.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn statistics(&self) -> io::Result<Statistics> {
        // struct tpacket_stats: accepted frames, the dropped ones among them.
        let mut counts = [0u32; 2];
        let mut length = len::<[u32; 2]>();
        // SAFETY: the pointer and the length are those of `counts`, which outlives the call.
        let got = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counts.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        Errno::result(got)?;
        let [accepted, dropped] = counts;
        Ok(Statistics { accepted, dropped })
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How a frame was addressed, seen from the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The link received it.
    Received(Reception),
    /// The link sent it.
    Sent,
}

/// To whom a received frame was addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// To the link.
    Unicast,
    /// To a group.
    Multicast,
    /// To all.
    Broadcast,
    /// To another one.
    Promiscuous,
}

/// A frame as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its beginning, as much as the filter wanted of it: all 14 bytes of the Ethernet header, and what follows.
    pub data: &'a [u8],
    /// The length of the whole frame in bytes.
    pub length: u32,
    /// Which way it went.
    pub direction: Direction,
    /// When the kernel saw it, since 1970-01-01 00:00:00 UTC; `None` if it does not say.
    pub time: Option<Duration>,
    /// The checksum of its transport protocol is left to the hardware and not final in `data`.
    pub checksum_pending: bool,
}

/// What the kernel filled in for one slot besides the frame.
#[derive(Clone, Copy, Debug)]
struct Meta {
    read: usize,
    length: u32,
    direction: Direction,
    time: Option<Duration>,
    checksum_pending: bool,
}

/// Room for the control messages of one frame: time and auxiliary data.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 128]);

/// Preallocated room to receive up to [`BATCH`] frames; pages are touched only as they are used.
pub struct Receiver {
    data: Vec<u8>,
    names: Box<[libc::sockaddr_ll; BATCH]>,
    control: Box<[Control; BATCH]>,
    meta: Vec<Meta>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("held", &self.meta.len()).finish_non_exhaustive()
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// Reserves the room: 4 MiB of address space, of which memory is used only as frames fill it.
    pub fn new() -> Self {
        // SAFETY: sockaddr_ll is plain data for which all zeroes is a value.
        let name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        Self {
            data: vec![0; BATCH * SLOT],
            names: Box::new([name; BATCH]),
            control: Box::new([Control([0; 128]); BATCH]),
            meta: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what is there, up to [`BATCH`] frames, without waiting; returns how many.
    ///
    /// # Errors
    /// Those of recvmmsg(2): `EAGAIN` when there is nothing; `ENETDOWN` once when the link went down or away.
    pub fn receive(&mut self, capture: &Capture) -> io::Result<usize> {
        self.meta.clear();
        let mut iovecs = [MaybeUninit::<libc::iovec>::uninit(); BATCH];
        let mut headers = [MaybeUninit::<mmsghdr>::uninit(); BATCH];
        let slots = self.data.chunks_exact_mut(SLOT).zip(&mut *self.names).zip(&mut *self.control);
        for (((slot, name), control), (iov, header)) in
            slots.zip(iovecs.iter_mut().zip(&mut headers))
        {
            let iov = iov.write(libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT });
            let name = (ptr::from_mut(name).cast(), len::<libc::sockaddr_ll>());
            let room = (control.0.as_mut_ptr().cast(), control.0.len());
            header.write(build((iov, 1), name, room));
        }
        // musl declares the flags unsigned, glibc signed.
        let flags = libc::MSG_DONTWAIT as _;
        let (socket, first) = (capture.socket.as_raw_fd(), headers.as_mut_ptr().cast());
        // SAFETY: all headers are initialised and point to memory that this function has exclusively borrowed.
        let n = unsafe { libc::recvmmsg(socket, first, vlen(BATCH), flags, ptr::null_mut()) };
        let n = usize::try_from(Errno::result(n)?).unwrap_or(0).min(BATCH);
        for (at, header) in headers.iter().take(n).enumerate() {
            // SAFETY: all headers were initialised above.
            let header = unsafe { header.assume_init_ref() };
            #[allow(clippy::unnecessary_cast, reason = "musl declares this length as 32 bits")]
            let filled = (header.msg_hdr.msg_controllen as usize).min(size_of::<Control>());
            let read = (header.msg_len as usize).min(SLOT);
            let kind = self.names[at].sll_pkttype;
            self.meta.push(meta(read, kind, &self.control[at].0[..filled]));
        }
        Ok(n)
    }

    /// The frames of the last [`Self::receive`], in order.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.data.chunks_exact(SLOT).zip(&self.meta).map(|(slot, meta)| {
            let Meta { read, length, direction, time, checksum_pending } = *meta;
            Frame { data: &slot[..read], length, direction, time, checksum_pending }
        })
    }
}

fn meta(read: usize, kind: u8, control: &[u8]) -> Meta {
    let direction = match kind {
        libc::PACKET_OUTGOING => Direction::Sent,
        libc::PACKET_BROADCAST => Direction::Received(Reception::Broadcast),
        libc::PACKET_MULTICAST => Direction::Received(Reception::Multicast),
        libc::PACKET_OTHERHOST => Direction::Received(Reception::Promiscuous),
        _ => Direction::Received(Reception::Unicast),
    };
    let (mut time, mut checksum_pending) = (None, false);
    let mut length = u32::try_from(read).unwrap_or(u32::MAX);
    for (level, kind, value) in Messages(control) {
        match (level, kind) {
            // struct tpacket_auxdata: status, length, what the filter left of it, and more.
            (libc::SOL_PACKET, PACKET_AUXDATA) if value.len() >= 8 => {
                checksum_pending = int(value) & TP_STATUS_CSUMNOTREADY != 0;
                length = int(&value[4..]).cast_unsigned().max(length);
            }
            // struct __kernel_timespec: seconds, nanoseconds.
            (libc::SOL_SOCKET, SO_TIMESTAMPNS_NEW) if value.len() >= 16 => {
                let seconds = u64::try_from(i64::from_ne_bytes(array(value)));
                let nanos = u32::try_from(i64::from_ne_bytes(array(&value[8..])));
                time = seconds.ok().zip(nanos.ok()).map(|(s, ns)| Duration::new(s, ns));
            }
            _ => {}
        }
    }
    Meta { read, length, direction, time, checksum_pending }
}

fn set_value<T>(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let (pointer, length): (_, socklen_t) = (ptr::from_ref(value).cast(), len::<T>());
    // SAFETY: the pointer and the length are those of `value`, which outlives the call. The options that this module
    // sets take values of their types, and what a value points to is borrowed by the caller of this function.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length) };
    Ok(Errno::result(set).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: c_int, kind: c_int, value: &[u8]) -> Vec<u8> {
        let mut bytes = (crate::cmsg::HEADER + value.len()).to_ne_bytes().to_vec();
        bytes.extend([level.to_ne_bytes(), kind.to_ne_bytes()].concat());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(crate::cmsg::WORD), 0);
        bytes
    }

    #[test]
    fn time_length_and_pending_checksum_come_from_control_messages() {
        let time = [1_700_000_000i64.to_ne_bytes(), 123_456_789i64.to_ne_bytes()].concat();
        let aux: Vec<u8> =
            [9u32, 1514, 96, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let control = [
            message(libc::SOL_SOCKET, SO_TIMESTAMPNS_NEW, &time),
            message(libc::SOL_PACKET, PACKET_AUXDATA, &aux),
        ]
        .concat();
        let found = meta(96, libc::PACKET_OUTGOING, &control);
        assert_eq!(found.time, Some(Duration::new(1_700_000_000, 123_456_789)));
        assert_eq!((found.read, found.length, found.checksum_pending), (96, 1514, true));
        assert_eq!(found.direction, Direction::Sent);
        let bare = meta(60, libc::PACKET_OTHERHOST, &[]);
        assert_eq!((bare.time, bare.length, bare.checksum_pending), (None, 60, false));
        assert_eq!(bare.direction, Direction::Received(Reception::Promiscuous));
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
        let capture = Capture::open(1, &program, false).unwrap();
        assert_eq!(capture.hardware().unwrap(), libc::ARPHRD_LOOPBACK);
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&[7; 1777], server.local_addr().unwrap()).unwrap();
        server.recv(&mut [0; 100]).unwrap();
        let mut receiver = Receiver::new();
        assert_eq!(receiver.receive(&capture).unwrap(), 2);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        for (frame, direction) in
            receiver.frames().zip([Direction::Sent, Direction::Received(Reception::Unicast)])
        {
            assert_eq!((frame.length, frame.direction), (LENGTH, direction));
            assert_eq!((frame.data.len(), &frame.data[12..15]), (20, &[8, 0, 0x45][..]));
            assert!(frame.time.is_some_and(|time| now - time < Duration::from_secs(60)));
        }
        let error = receiver.receive(&capture).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(receiver.frames().count(), 0);
        let both = Statistics { accepted: 2, dropped: 0 };
        assert_eq!(capture.statistics().unwrap(), both);
        assert_eq!(capture.statistics().unwrap(), Statistics::default());
    }
}
