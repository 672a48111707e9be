//! Datagrams in batches: recvmmsg(2), sendmmsg(2), and the control messages that go with them.
//!
//! * which local address a datagram was sent to, and which one an answer shall leave from:
//!   `IP_PKTINFO` (ip(7)), `IPV6_PKTINFO` (ipv6(7));
//! * segment sizes of coalesced datagrams: `UDP_GRO` inwards (Linux 5.0), `UDP_SEGMENT` outwards
//!   (Linux 4.18), udp(7).
//!
//! Header arrays are built on the stack of each call, so nothing here keeps a pointer into itself. Addresses and control
//! messages are bytes in the kernel's layout, which leaves the calls themselves as the only unsafe part.

use std::io::IoSlice;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, mmsghdr, socklen_t};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use crate::cmsg::{self, array, int};
use crate::pages;

/// The most datagrams that one call moves.
pub const BATCH: usize = 64;

/// Room for one datagram of any size, or for a coalesced run of them (both end at 65,535 bytes).
const SLOT: usize = 65_536;

/// A socket address as the kernel lays it out (ip(7), ipv6(7)); the longer, IPv6's, is 28 bytes.
type Name = [u8; 28];
const NAME_LEN: socklen_t = 28;

/// Room for the control messages of one datagram: packet info of either family and a segment size.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 128]);

/// A local address as `IP_PKTINFO` and `IPV6_PKTINFO` report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// The address that the datagram was sent to; IPv4 seen through an IPv6 socket is v4-mapped. Where IPv4 was sent to
    /// a broadcast or multicast address, the address of ours to answer from, if the socket has `IP_PKTINFO` (an IPv6
    /// socket may have both).
    pub addr: IpAddr,
    /// The interface it came in by; 0 in an outgoing message leaves the choice to routing.
    pub ifindex: u32,
}

/// One received datagram, or several of equal size coalesced by `UDP_GRO`.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The payload.
    pub data: &'a [u8],
    /// Who sent it; `None` for an address family that is neither IPv4 nor IPv6.
    pub from: Option<SocketAddr>,
    /// Where it was sent to, if the socket has packet info switched on.
    pub local: Option<Local>,
    /// The size of each original datagram (the last may be shorter) if the kernel coalesced some.
    pub segment: Option<usize>,
    /// It came in fragments, if the socket reports that ([`crate::whole::report_cuts`]).
    pub cut: bool,
}

impl<'a> Datagram<'a> {
    /// One of which only the payload counts.
    pub fn alone(data: &'a [u8]) -> Self {
        Self { data, from: None, local: None, segment: None, cut: false }
    }
}

/// What the kernel filled in for one slot besides the payload.
#[derive(Clone, Copy, Default)]
struct Meta {
    len: usize,
    from: Option<SocketAddr>,
    local: Option<Local>,
    segment: Option<usize>,
    cut: bool,
}

/// Preallocated room for up to [`BATCH`] datagrams. Pages are touched as they are used, until [`Receiver::trim`].
pub struct Receiver {
    payload: Vec<u8>,
    /// The most bytes of one call since memory was given back, and since the last [`Receiver::trim`].
    held: usize,
    used: usize,
    names: Box<[Name; BATCH]>,
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
    /// Reserves the room: 4 MiB of address space, of which memory is used only as datagrams fill it.
    pub fn new() -> Self {
        Self {
            payload: vec![0; BATCH * SLOT],
            held: 0,
            used: 0,
            names: Box::new([[0; size_of::<Name>()]; BATCH]),
            control: Box::new([Control([0; 128]); BATCH]),
            meta: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what is there, up to `max` (and [`BATCH`]) datagrams, without waiting; returns how many.
    ///
    /// # Errors
    /// Those of recvmmsg(2): `EAGAIN` when there is nothing; pending errors of a connected socket, such
    /// as `ECONNREFUSED`, once each.
    pub fn recv(&mut self, sock: BorrowedFd<'_>, max: usize) -> nix::Result<usize> {
        self.recv_by(max, |headers, count| {
            // musl declares the flags unsigned, glibc signed.
            let flags = (libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) as _;
            // SAFETY: so many headers are initialised and point to memory that `recv_by` has exclusively borrowed.
            let n =
                unsafe { libc::recvmmsg(sock.as_raw_fd(), headers, count, flags, ptr::null_mut()) };
            Ok(usize::try_from(Errno::result(n)?).unwrap_or(0))
        })
    }

    /// Receives by a call that fills in headers as recvmmsg(2) does, up to so many, and returns how many.
    fn recv_by(
        &mut self,
        max: usize,
        call: impl FnOnce(*mut mmsghdr, libc::c_uint) -> nix::Result<usize>,
    ) -> nix::Result<usize> {
        self.meta.clear();
        let count = max.min(BATCH);
        let mut iovecs = [MaybeUninit::<libc::iovec>::uninit(); BATCH];
        let mut headers = [MaybeUninit::<mmsghdr>::uninit(); BATCH];
        let slots =
            self.payload.chunks_exact_mut(SLOT).zip(&mut *self.names).zip(&mut *self.control);
        for (((slot, name), control), (iov, header)) in
            slots.zip(iovecs.iter_mut().zip(&mut headers)).take(count)
        {
            let iov = iov.write(libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT });
            let room = (control.0.as_mut_ptr().cast(), control.0.len());
            header.write(build((iov, 1), (name.as_mut_ptr().cast(), NAME_LEN), room));
        }
        let n = call(headers.as_mut_ptr().cast(), vlen(count))?.min(count);
        for (i, header) in headers.iter().take(n).enumerate() {
            // SAFETY: the first n ≤ count headers were initialised above.
            let header = unsafe { header.assume_init_ref() };
            #[allow(clippy::unnecessary_cast, reason = "musl declares this length as 32 bits")]
            let filled = (header.msg_hdr.msg_controllen as usize).min(size_of::<Control>());
            self.meta.push(Meta {
                len: (header.msg_len as usize).min(SLOT),
                from: parse_name(&self.names[i]),
                ..parse_control(&self.control[i].0[..filled])
            });
        }
        self.used = self.used.max(self.meta.iter().map(|meta| meta.len).sum());
        self.held = self.held.max(self.used);
        Ok(n)
    }

    /// Gives back what a burst has filled, and the datagrams in it, unless half of it was needed since the last call.
    pub fn trim(&mut self) {
        if std::mem::take(&mut self.used) <= self.held / 2 {
            self.release();
        }
    }

    /// Gives back all memory of datagrams; those of the last [`Self::recv`] are gone.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.held) > 0 {
            self.meta.clear();
            pages::discard(&mut self.payload);
        }
    }

    /// The `index`th datagram of the last [`Self::recv`].
    pub fn get(&self, index: usize) -> Option<Datagram<'_>> {
        let meta = self.meta.get(index)?;
        let data = self.payload.get(index * SLOT..index * SLOT + meta.len)?;
        let Meta { from, local, segment, cut, .. } = *meta;
        Some(Datagram { data, from, local, segment, cut })
    }

    /// The datagrams of the last [`Self::recv`], in order.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        (0..self.meta.len()).filter_map(|i| self.get(i))
    }
}

/// Where outgoing datagrams go and come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Route {
    /// The destination; `None` for a connected socket.
    pub to: Option<SocketAddr>,
    /// The source address; `None` leaves the choice to routing.
    pub from: Option<Local>,
}

/// Sends each slice as one datagram, up to [`BATCH`] of them, all along one route, without waiting.
/// Returns how many were sent.
///
/// # Errors
/// Those of sendmmsg(2) for the first datagram; a later failure shows as a short count.
pub fn send_each(
    sock: BorrowedFd<'_>,
    datagrams: &[IoSlice<'_>],
    route: Route,
) -> nix::Result<usize> {
    let count = datagrams.len().min(BATCH);
    let envelope = Envelope::new(route, None);
    let mut headers = [MaybeUninit::<mmsghdr>::uninit(); BATCH];
    for (slot, datagram) in headers.iter_mut().zip(&datagrams[..count]) {
        slot.write(envelope.header(std::slice::from_ref(datagram)));
    }
    // SAFETY: the first `count` headers are initialised; names, control data and payload that they
    // point to outlive the call and are only read by it.
    let n = unsafe {
        libc::sendmmsg(
            sock.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            vlen(count),
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    Ok(usize::try_from(Errno::result(n)?).unwrap_or(0))
}

/// Sends the concatenation of `parts` as datagrams of `segment` bytes each (the last may be shorter)
/// in one pass through the network stack (`UDP_SEGMENT`), without waiting.
///
/// # Errors
/// Those of sendmsg(2); `EINVAL`, `EMSGSIZE`, `EIO` or `EOPNOTSUPP` when the kernel or the device cannot
/// segment this, in which case nothing was sent and [`send_each`] does it.
pub fn send_segmented(
    sock: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    segment: u16,
    route: Route,
) -> nix::Result<()> {
    let envelope = Envelope::new(route, Some(segment));
    let header = envelope.header(parts);
    // SAFETY: the header's name, control data and payload outlive the call and are only read by it.
    let n = unsafe {
        libc::sendmsg(
            sock.as_raw_fd(),
            &raw const header.msg_hdr,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    Errno::result(n).map(drop)
}

/// Bytes written to a TCP socket that its peer has not acknowledged yet (`SIOCOUTQ`, tcp(7)).
///
/// # Errors
/// Those of ioctl(2); `EINVAL` for a listening socket.
pub fn unacknowledged(sock: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: SIOCOUTQ writes one int to the address it is given. (Its value is TIOCOUTQ's.)
    let ret = unsafe { libc::ioctl(sock.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(ret)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// recvmmsg(2) and sendmmsg(2) count in unsigned ints.
fn vlen(count: usize) -> libc::c_uint {
    libc::c_uint::try_from(count).unwrap_or(0)
}

/// One header of payload, name and control data, each a pointer and a length; valid for as long as what they point to.
fn build(
    (iov, iovlen): (*mut libc::iovec, usize),
    (name, namelen): (*mut libc::c_void, socklen_t),
    (control, controllen): (*mut libc::c_void, usize),
) -> mmsghdr {
    // SAFETY: both structures are integers and pointers, for which all zeroes is a value; zeroing also
    // covers the private padding fields that musl has.
    let mut out: mmsghdr = unsafe { std::mem::zeroed() };
    out.msg_hdr.msg_iov = iov;
    out.msg_hdr.msg_iovlen = iovlen as _;
    (out.msg_hdr.msg_name, out.msg_hdr.msg_namelen) = (name, namelen);
    if controllen > 0 {
        out.msg_hdr.msg_control = control;
        out.msg_hdr.msg_controllen = controllen as _;
    }
    out
}

/// Name and control data shared by every datagram of one call.
struct Envelope {
    name: Option<SockaddrStorage>,
    control: Control,
    controllen: usize,
}

impl Envelope {
    fn new(route: Route, segment: Option<u16>) -> Self {
        let name = route.to.map(SockaddrStorage::from);
        let mut out = Self { name, control: Control([0; 128]), controllen: 0 };
        if let Some(segment) = segment {
            out.push(libc::SOL_UDP, libc::UDP_SEGMENT, &[&segment.to_ne_bytes()]);
        }
        match route.from {
            // struct in_pktinfo: interface, source address, and a destination that sending ignores.
            Some(Local { addr: IpAddr::V4(addr), ifindex }) => {
                let value = [&ifindex.to_ne_bytes()[..], &addr.octets(), &[0; 4]];
                out.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &value);
            }
            // struct in6_pktinfo: source address, interface.
            Some(Local { addr: IpAddr::V6(addr), ifindex }) => {
                let value = [&addr.octets()[..], &ifindex.to_ne_bytes()];
                out.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
            }
            None => {}
        }
        out
    }

    /// Appends one control message; the two that a call can need are 24 and 40 bytes long.
    fn push(&mut self, level: c_int, kind: c_int, value: &[&[u8]]) {
        let len = cmsg::HEADER + value.iter().map(|part| part.len()).sum::<usize>();
        let mut rest = &mut self.control.0[self.controllen..];
        let header: [&[u8]; 3] = [&len.to_ne_bytes(), &level.to_ne_bytes(), &kind.to_ne_bytes()];
        for part in header.iter().chain(value) {
            let (at, after) = rest.split_at_mut(part.len());
            at.copy_from_slice(part);
            rest = after;
        }
        self.controllen += len.next_multiple_of(cmsg::WORD);
    }

    /// A header to send one datagram made of `parts`; valid while `self` and `parts` are. All headers of a call point to
    /// the same name and control data, which is sound because the kernel only reads them.
    fn header(&self, parts: &[IoSlice<'_>]) -> mmsghdr {
        // IoSlice is guaranteed to have the layout of iovec.
        let iov = parts.as_ptr().cast::<libc::iovec>().cast_mut();
        let name = self.name.as_ref().map_or(ptr::null(), SockaddrLike::as_ptr);
        let namelen = self.name.as_ref().map_or(0, SockaddrLike::len);
        let control = self.control.0.as_ptr().cast_mut().cast();
        build((iov, parts.len()), (name.cast_mut().cast(), namelen), (control, self.controllen))
    }
}

fn parse_control(control: &[u8]) -> Meta {
    let (mut local, mut own, mut segment, mut cut) = (None, None, None, false);
    for (level, kind, value) in cmsg::Messages(control) {
        match (level, kind) {
            // struct in_pktinfo: interface, our own address (even if this was a broadcast), destination.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if value.len() >= 12 => {
                let addr = Ipv4Addr::from(array::<4>(&value[4..8]));
                own = Some((addr, int(value).cast_unsigned()));
            }
            // struct in6_pktinfo: destination, interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if value.len() >= 20 => {
                let addr = Ipv6Addr::from(array::<16>(&value[..16]));
                local =
                    Some(Local { addr: addr.into(), ifindex: int(&value[16..]).cast_unsigned() });
            }
            (libc::SOL_UDP, libc::UDP_GRO) if value.len() >= 4 => {
                segment = usize::try_from(int(value)).ok().filter(|size| *size > 0);
            }
            // There is one for a datagram in fragments only.
            (libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE)
            | (libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE) => cut = true,
            _ => {}
        }
    }
    if let Some((v4, ifindex)) = own {
        let seen_by_v6 = local.is_some();
        let addr = if seen_by_v6 { v4.to_ipv6_mapped().into() } else { v4.into() };
        local = Some(Local { addr, ifindex });
    }
    Meta { local, segment, cut, ..Meta::default() }
}

fn parse_name(name: &Name) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(array(&name[2..]));
    match c_int::from(u16::from_ne_bytes(array(name))) {
        libc::AF_INET => Some(SocketAddr::from((Ipv4Addr::from(array::<4>(&name[4..])), port))),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(array::<16>(&name[8..]));
            let scope = u32::from_ne_bytes(array(&name[24..]));
            // The flow label belongs to the sender's packets, not to ours.
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
