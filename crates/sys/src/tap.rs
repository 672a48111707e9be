//! TAP and TUN devices (`/dev/net/tun`, Documentation/networking/tuntap.rst in the kernel tree).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// From linux/if_tun.h; libc has them as C ints, `TUNSETIFF` wants a short.
const IFF_TUN: libc::c_short = 0x0001;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// Checksums, TCP segments of both families, and those in UDP (Linux ≥ 6.17).
const TUN_F_CSUM: libc::c_int = 0x01;
const TUN_F_TSO4: libc::c_int = 0x02;
const TUN_F_TSO6: libc::c_int = 0x04;
const TUN_F_UDP_TUNNEL_GSO: libc::c_int = 0x80;

/// Bytes in front of each frame of a device of [`open_offloading`] (`struct virtio_net_hdr_v1_hash_tunnel` of
/// linux/virtio_net.h, in little-endian order).
pub const OFFLOAD_LEN: usize = 24;

/// Private to this file: the macros of nix take no doc comments, and their functions are `pub`.
mod ioctl {
    nix::ioctl_readwrite_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        tun_set_persist,
        nix::request_code_write!(b'T', 203, size_of::<libc::c_int>())
    );
    nix::ioctl_write_int_bad!(
        tun_set_offload,
        nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>())
    );
    nix::ioctl_write_ptr_bad!(
        tun_set_vnet_hdr_size,
        nix::request_code_write!(b'T', 216, size_of::<libc::c_int>()),
        libc::c_int
    );
    nix::ioctl_write_ptr_bad!(
        tun_set_vnet_le,
        nix::request_code_write!(b'T', 220, size_of::<libc::c_int>()),
        libc::c_int
    );
}

/// Creates a TAP interface in the network namespace of the calling thread that stays when its last user
/// goes, so that a helper that died can be replaced without losing addresses and routes. An existing
/// interface of that name is opened. The frames carry no packet information header.
///
/// # Errors
/// `ENOENT` or `EACCES` on the device node (module `tun`, its mode), `EPERM` without `CAP_NET_ADMIN`,
/// `EBUSY` when the name is another kind of interface or in use, `EINVAL` for a name over 15 bytes.
pub fn create(device: &Path, name: &str) -> io::Result<OwnedFd> {
    let file = attach(device, name, IFF_TAP, 0)?;
    // SAFETY: TUNSETPERSIST takes an integer.
    unsafe { ioctl::tun_set_persist(file.as_raw_fd(), 1) }?;
    Ok(file)
}

/// Creates a TUN interface in the network namespace of the calling thread that goes with the last copy of the
/// descriptor. Each read gives one IP packet that left by the interface, each write makes one arrive on it, without a
/// header in front. The descriptor is non-blocking and keeps the namespace alive.
///
/// # Errors
/// `ENOENT`, `ENODEV` or `EACCES` on the device node (module `tun`, its mode), `EPERM` without `CAP_NET_ADMIN`,
/// `EBUSY` when the name is another kind of interface or in use, `EINVAL` for a name over 15 bytes.
pub fn open_tun(device: &Path, name: &str) -> io::Result<OwnedFd> {
    attach(device, name, IFF_TUN, libc::O_NONBLOCK)
}

/// Creates a TAP interface like [`open_tun`], whose frames may carry packets in UDP that are to be cut and whose checksums
/// are to be completed. [`OFFLOAD_LEN`] bytes in front of each frame say what and where.
///
/// # Errors
/// As [`open_tun`]; `EINVAL` before Linux 6.17.
pub fn open_offloading(device: &Path, name: &str) -> io::Result<OwnedFd> {
    let file = attach(device, name, IFF_TAP | IFF_VNET_HDR, libc::O_NONBLOCK)?;
    let length = libc::c_int::try_from(OFFLOAD_LEN).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a live integer, which TUNSETVNETHDRSZ reads.
    unsafe { ioctl::tun_set_vnet_hdr_size(file.as_raw_fd(), &raw const length) }?;
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a live integer, which TUNSETVNETLE reads.
    unsafe { ioctl::tun_set_vnet_le(file.as_raw_fd(), &raw const on) }?;
    let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_UDP_TUNNEL_GSO;
    // SAFETY: TUNSETOFFLOAD takes an integer.
    unsafe { ioctl::tun_set_offload(file.as_raw_fd(), offloads) }?;
    Ok(file)
}

/// Opens the device node and makes the descriptor the queue of an interface without packet information header.
fn attach(
    device: &Path,
    name: &str,
    kind: libc::c_short,
    open_flags: libc::c_int,
) -> io::Result<OwnedFd> {
    let mut req = request(name, kind)?;
    // Close-on-exec is what std opens every file with.
    let file = OpenOptions::new().read(true).write(true).custom_flags(open_flags).open(device)?;
    // SAFETY: the pointer is to a live ifreq, which TUNSETIFF reads and writes.
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), &raw mut req) }?;
    Ok(file.into())
}

/// What `TUNSETIFF` is asked: an interface of this name and kind.
fn request(name: &str, kind: libc::c_short) -> io::Result<libc::ifreq> {
    let bytes = name.as_bytes();
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    if bytes.is_empty() || bytes.len() >= req.ifr_name.len() || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in req.ifr_name.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    req.ifr_ifru.ifru_flags = kind | IFF_NO_PI;
    Ok(req)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_with_its_end_or_is_refused() {
        for name in ["", "exactly16letters", "a\0b"] {
            let error = request(name, IFF_TAP).err().unwrap();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name:?}");
        }
        let request = request("only-15-letters", IFF_TUN).unwrap();
        let name: Vec<u8> = request.ifr_name.iter().map(|c| c.to_ne_bytes()[0]).collect();
        assert_eq!(name, b"only-15-letters\0");
        // SAFETY: the field that was written; all of its values are integers.
        assert_eq!(unsafe { request.ifr_ifru.ifru_flags }, IFF_TUN | IFF_NO_PI);
    }
}
