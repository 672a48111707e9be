//! Whether datagrams may be cut on their way ("don't fragment"), and whether they were: ip(7), ipv6(7).

use std::os::fd::BorrowedFd;

use crate::sockopt::set;

/// Has the socket refuse to cut datagrams, here and on the way, and fail with `EMSGSIZE` if one is larger than the path
/// allows; or lets it cut those that are larger than it knows the path to allow, which is what sockets do otherwise
/// (`IP_MTU_DISCOVER`). An IPv6 socket that sends to IPv4 as well goes by the option of IPv4 there.
///
/// # Errors
/// Those of setsockopt(2).
pub fn keep_whole(sock: BorrowedFd<'_>, ipv4: bool, keep: bool) -> nix::Result<()> {
    let (level, name, value) = match (ipv4, keep) {
        (true, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        (true, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT),
        (false, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
        (false, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
    };
    set(sock, level, name, value)
}

/// Has the socket say of each datagram that arrives whether it was put together from fragments (`IP_RECVFRAGSIZE`,
/// Linux 4.10), see [`crate::mmsg::Datagram::cut`].
///
/// # Errors
/// Those of setsockopt(2).
pub fn report_cuts(sock: BorrowedFd<'_>, ipv4: bool) -> nix::Result<()> {
    if ipv4 {
        set(sock, libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE, 1)
    } else {
        set(sock, libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri knows no UDP sockets")]
    fn a_datagram_that_must_stay_whole_is_refused_if_it_does_not_fit() {
        for (addr, ipv4) in [("127.0.0.1:0", true), ("[::1]:0", false)] {
            let (from, to) = (UdpSocket::bind(addr).unwrap(), UdpSocket::bind(addr).unwrap());
            from.connect(to.local_addr().unwrap()).unwrap();
            keep_whole(from.as_fd(), ipv4, true).unwrap();
            // With their headers, more than the 65,536 bytes of a packet on loopback.
            if !ipv4 {
                let refused = from.send(&[0; 65_500]).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
            }
            from.send(b"short").unwrap();
            keep_whole(from.as_fd(), ipv4, false).unwrap();
            from.send(&[0; 65_500]).unwrap();
            report_cuts(from.as_fd(), ipv4).unwrap();
        }
    }
}
