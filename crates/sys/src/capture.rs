//! Packet sockets that watch a link: all frames that it receives and sends, chosen by a program of the kernel's packet
//! filter (packet(7), the kernel's documentation networking/filter).
//!
//! The kernel puts frames into a ring of blocks that it shares with us (`TPACKET_V3`, its documentation
//! networking/packet_mmap). A socket's buffer, which `net.core.rmem_max` limits, would hold six of the segments of 64 KiB
//! that containers exchange, and the rest would be lost. A block belongs to the kernel or to us, which a word in it says.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{c_int, socklen_t};
use nix::errno::Errno;
use nix::sys::socket::sockopt::SocketError;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};

use crate::cmsg::array;
use crate::packet::{bind, len};

/// The ring: its blocks, and the bytes of each, in which the longest IP packet has room.
const BLOCKS: usize = 32;
const BLOCK: usize = 256 << 10;
/// A block that is not full is ours after this time.
pub const LATENCY: Duration = Duration::from_millis(50);

/// From linux/if_packet.h; libc does not have all of them.
const PACKET_RX_RING: c_int = 5;
const PACKET_VERSION: c_int = 10;
const TPACKET_V3: c_int = 2;
const TP_STATUS_KERNEL: u32 = 0;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;

/// Places in a `struct tpacket_block_desc`: to whom it belongs, the number of frames, the first of them.
const STATUS: usize = 8;
const COUNT: usize = 12;
const FIRST: usize = 16;
/// Places in a `struct tpacket3_hdr`: the next one, time, lengths, status, where the frame begins. A `struct sockaddr_ll`
/// is behind it, with the type of the packet in it.
const NEXT: usize = 0;
const SECONDS: usize = 4;
const NANOSECONDS: usize = 8;
const KEPT: usize = 12;
const LENGTH: usize = 16;
const FRAME_STATUS: usize = 20;
const BEGIN: usize = 24;
const KIND: usize = 48 + 10;

/// `struct tpacket_req3`.
#[repr(C)]
struct Request {
    block_size: u32,
    block_count: u32,
    frame_size: u32,
    frame_count: u32,
    retire_milliseconds: u32,
    private_size: u32,
    features: u32,
}

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
    ring: Ring,
    /// The block that is read next.
    next: usize,
}

/// Memory that the kernel shares with us.
#[derive(Debug)]
struct Ring(NonNull<u8>);

impl Ring {
    /// Maps the ring of a socket that has one.
    fn map(socket: &OwnedFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (length, fd) = (BLOCKS * BLOCK, socket.as_raw_fd());
        // SAFETY: a new mapping, at an address that the kernel chooses, takes nobody's memory.
        let memory =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(NonNull::new(memory.cast()).ok_or(Errno::EFAULT)?))
    }

    /// A place in one of the blocks.
    fn place(&self, block: usize, at: usize) -> *mut u8 {
        assert!(block < BLOCKS && at < BLOCK);
        self.0.as_ptr().wrapping_add(block * BLOCK + at)
    }

    /// The word that says to whom a block belongs.
    fn status(&self, block: usize) -> &AtomicU32 {
        // SAFETY: the place is inside of the mapping, which lives as long as `self`, and aligned, as blocks are aligned
        // to pages. The kernel writes it while we look, so nothing but this atomic ever reads or writes it.
        unsafe { AtomicU32::from_ptr(self.place(block, STATUS).cast()) }
    }

    /// What is behind that word, while the block is ours; the kernel does not write there then.
    fn ours(&self, block: usize) -> Option<&[u8]> {
        if self.status(block).load(Ordering::Acquire) & TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the bytes are inside of the mapping. The kernel has written them before it gave the block to us, and
        // writes there again only when `give_back`, which takes `self` exclusively, has ended this borrow.
        Some(unsafe { std::slice::from_raw_parts(self.place(block, COUNT), BLOCK - COUNT) })
    }

    fn give_back(&mut self, block: usize) {
        self.status(block).store(TP_STATUS_KERNEL, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made above, and nothing borrows from it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), BLOCKS * BLOCK) };
    }
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
        set_value(socket.as_fd(), libc::SOL_PACKET, PACKET_VERSION, &TPACKET_V3)?;
        let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        // In this version, the size of frames only has to divide that of blocks.
        let frame = 2048;
        let request = Request {
            block_size: size(BLOCK)?,
            block_count: size(BLOCKS)?,
            frame_size: size(frame)?,
            frame_count: size(BLOCKS * BLOCK / frame)?,
            retire_milliseconds: u32::try_from(LATENCY.as_millis()).map_err(io::Error::other)?,
            private_size: 0,
            features: 0,
        };
        set_value(socket.as_fd(), libc::SOL_PACKET, PACKET_RX_RING, &request)?;
        let ring = Ring::map(&socket)?;
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
        Ok(Self { socket, ring, next: 0 })
    }

    /// Shows the frames of the next block, in order, until `each` says no; false if there is no block yet. poll(2) tells
    /// when there is one.
    ///
    /// # Errors
    /// `ENETDOWN` once when the link went down or away.
    pub fn read(&mut self, mut each: impl FnMut(&Frame<'_>) -> bool) -> io::Result<bool> {
        let Some(block) = self.ring.ours(self.next) else {
            return match getsockopt(&self.socket, SocketError)? {
                0 => Ok(false),
                error => Err(io::Error::from_raw_os_error(error)),
            };
        };
        for frame in frames(block) {
            if !each(&frame) {
                break;
            }
        }
        self.ring.give_back(self.next);
        self.next = (self.next + 1) % BLOCKS;
        Ok(true)
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
    /// When the kernel saw it, since 1970-01-01 00:00:00 UTC.
    pub time: Duration,
    /// The checksum of its transport protocol is left to the hardware and not final in `data`.
    pub checksum_pending: bool,
}

/// The frames of a block, of which [`COUNT`] bytes at the beginning are not here.
fn frames(block: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let count = word(block, 0).unwrap_or(0);
    let mut place = word(block, FIRST - COUNT).map(|first| first as usize);
    (0..count).map_while(move |_| {
        let at = place?.checked_sub(COUNT)?;
        let header = block.get(at..)?;
        let next = word(header, NEXT)? as usize;
        place = (next != 0).then(|| next.checked_add(at + COUNT)).flatten();
        frame(header)
    })
}

fn frame(header: &[u8]) -> Option<Frame<'_>> {
    let begin = usize::from(u16::from_ne_bytes(array(header.get(BEGIN..)?)));
    let kept = word(header, KEPT)? as usize;
    let direction = match *header.get(KIND)? {
        libc::PACKET_OUTGOING => Direction::Sent,
        libc::PACKET_BROADCAST => Direction::Received(Reception::Broadcast),
        libc::PACKET_MULTICAST => Direction::Received(Reception::Multicast),
        libc::PACKET_OTHERHOST => Direction::Received(Reception::Promiscuous),
        _ => Direction::Received(Reception::Unicast),
    };
    let nanos = word(header, NANOSECONDS)?.min(999_999_999);
    Some(Frame {
        data: header.get(begin..begin.checked_add(kept)?)?,
        length: word(header, LENGTH)?,
        direction,
        time: Duration::new(word(header, SECONDS)?.into(), nanos),
        checksum_pending: word(header, FRAME_STATUS)? & TP_STATUS_CSUMNOTREADY != 0,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + size_of::<u32>()).map(|bytes| u32::from_ne_bytes(array(bytes)))
}

fn set_value<T>(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let (pointer, length): (_, socklen_t) = (ptr::from_ref(value).cast(), len::<T>());
    // SAFETY: the pointer and the length are those of `value`, which outlives the call. The options that this module
    // sets take values of their types, and what a value points to is borrowed by the caller of this function.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length) };
    Ok(Errno::result(set).map(drop)?)
}

#[cfg(test)]
mod tests;
