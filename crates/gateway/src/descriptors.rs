//! The descriptors of the gateway's namespace, on their way from the child that made them over the parent to the
//! gateway process.

use std::os::fd::OwnedFd;

use anyhow::bail;
use socket2::{Domain, SockRef};

/// Descriptors that the gateway's namespace is used through, all non-blocking. They keep it alive.
#[derive(Debug)]
pub struct Descriptors {
    /// Tun of the packets that want a decision: SYNs, segments of no connection, and DNS. A SYN that is written back
    /// connects, another segment is refused unless it belongs to a connection after all, and a datagram goes to the socket
    /// that it answers to, or to `data`.
    pub dial: OwnedFd,
    /// Tun of all other packets: UDP and echo requests.
    pub data: OwnedFd,
    /// Stream listener of IPv4, for whatever address and port packets are sent to. What it accepts has the addresses of
    /// the SYN.
    pub v4: OwnedFd,
    /// That of IPv6; `None` if the plan has no IPv6 or the kernel has none.
    pub v6: Option<OwnedFd>,
    /// To query the connection tracking of the target namespace ([`crate::conntrack`]).
    pub conntrack: OwnedFd,
    /// For overlay networks; `None` if the kernel does not offer what they need.
    pub overlay: Option<OverlayDescriptors>,
}

/// Descriptors through which datagrams of overlay networks go ([`relay::overlay`]).
#[derive(Debug)]
pub struct OverlayDescriptors {
    /// A packet socket that gets those of the target namespace.
    pub reader: OwnedFd,
    /// A tap device that takes long ones for the target namespace; `None` before Linux 6.17.
    pub writer: Option<OwnedFd>,
}

/// How many a message carries: the end of the socket factory, two devices, the connection tracking, the listeners of one or
/// both families, and those for overlay networks.
pub(crate) const fn count(ipv6: bool, overlay: usize) -> usize {
    5 + ipv6 as usize + overlay
}

/// The most descriptors for overlay networks.
pub(crate) const MOST_OF_OVERLAYS: usize = 2;

impl OverlayDescriptors {
    pub(crate) fn count(&self) -> usize {
        1 + usize::from(self.writer.is_some())
    }
}

impl Descriptors {
    /// For a message that carries them, with our end of the namespace's socket factory.
    pub fn into_fds(self, factory: OwnedFd) -> Vec<OwnedFd> {
        let Self { dial, data, v4, v6, conntrack, overlay } = self;
        let overlay =
            overlay.into_iter().flat_map(|of| std::iter::once(of.reader).chain(of.writer));
        [factory, dial, data, conntrack, v4].into_iter().chain(v6).chain(overlay).collect()
    }

    /// Those of such a message, and the end of the socket factory. What is for overlay networks begins with the packet
    /// socket, which is known by its family.
    ///
    /// # Errors
    /// There are more or fewer of them.
    pub fn try_from_fds(mut fds: Vec<OwnedFd>) -> anyhow::Result<(Self, OwnedFd)> {
        let count = fds.len();
        let is_packet =
            |fd: &OwnedFd| SockRef::from(fd).domain().is_ok_and(|of| of == Domain::PACKET);
        let at = fds.iter().position(is_packet).unwrap_or(count);
        let mut of_overlays = fds.split_off(at).into_iter();
        let reader = of_overlays.next();
        let overlay =
            reader.map(|reader| OverlayDescriptors { reader, writer: of_overlays.next() });
        let mut fds = fds.into_iter();
        let (Some(factory), Some(dial), Some(data), Some(conntrack), Some(v4)) =
            (fds.next(), fds.next(), fds.next(), fds.next(), fds.next())
        else {
            bail!("{count} descriptors of the gateway network arrived, too few");
        };
        let v6 = fds.next();
        if fds.next().is_some() || of_overlays.next().is_some() {
            bail!("{count} descriptors of the gateway network arrived, too many");
        }
        Ok((Self { dial, data, v4, v6, conntrack, overlay }, factory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn fds(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
    }

    #[test]
    fn they_arrive_as_they_were_sent() {
        for ipv6 in [false, true] {
            let sent = fds(count(ipv6, 0));
            let numbers: Vec<_> = sent.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
            let (descriptors, factory) = Descriptors::try_from_fds(sent).unwrap();
            assert_eq!((descriptors.v6.is_some(), descriptors.overlay.is_some()), (ipv6, false));
            let again = descriptors.into_fds(factory);
            assert_eq!(again.iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>(), numbers);
        }
    }

    #[test]
    fn a_wrong_number_is_refused() {
        for count in [0, 4, 7] {
            let error = Descriptors::try_from_fds(fds(count)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{count} descriptors")), "{error}");
        }
    }
}
