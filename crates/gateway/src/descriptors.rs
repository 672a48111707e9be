//! The descriptors of the gateway's namespace, on their way from the child that made them over the parent to the
//! gateway process.

use std::os::fd::OwnedFd;

use anyhow::bail;

/// Descriptors that the gateway's namespace is used through, all non-blocking. They keep it alive.
#[derive(Debug)]
pub struct Descriptors {
    /// Tun of the packets that want a decision: SYNs, segments of no connection, and DNS. A SYN that is written back
    /// connects, another segment is refused unless it belongs to a connection after all.
    pub dial: OwnedFd,
    /// Tun of all other packets: UDP and echo requests.
    pub data: OwnedFd,
    /// The sockets of IPv4.
    pub v4: Sockets,
    /// Those of IPv6; `None` if the plan has no IPv6 or the kernel has none.
    pub v6: Option<Sockets>,
}

/// The sockets of one family, for whatever address and port packets are sent to.
#[derive(Debug)]
pub struct Sockets {
    /// Stream listener; what it accepts has the addresses of the SYN.
    pub listener: OwnedFd,
    /// Datagram socket for overlay networks ([`relay::overlay`]); it reports where each datagram was sent to.
    pub overlay: OwnedFd,
}

/// How many a message carries: the end of the socket factory, two devices, and the sockets of one or both families.
pub(crate) const fn count(ipv6: bool) -> usize {
    if ipv6 { 7 } else { 5 }
}

impl Descriptors {
    /// For a message that carries them, with our end of the namespace's socket factory.
    pub fn into_fds(self, factory: OwnedFd) -> Vec<OwnedFd> {
        let Self { dial, data, v4, v6 } = self;
        let sockets = [v4].into_iter().chain(v6).flat_map(|of| [of.listener, of.overlay]);
        [factory, dial, data].into_iter().chain(sockets).collect()
    }

    /// Those of such a message, and the end of the socket factory.
    ///
    /// # Errors
    /// There are more or fewer of them.
    pub fn try_from_fds(fds: Vec<OwnedFd>) -> anyhow::Result<(Self, OwnedFd)> {
        let count = fds.len();
        let mut fds = fds.into_iter();
        let sockets = |fds: &mut std::vec::IntoIter<OwnedFd>| {
            Some(Sockets { listener: fds.next()?, overlay: fds.next()? })
        };
        let (Some(factory), Some(dial), Some(data), Some(v4)) =
            (fds.next(), fds.next(), fds.next(), sockets(&mut fds))
        else {
            bail!("{count} descriptors of the gateway network arrived, too few");
        };
        let v6 = if fds.len() == 0 { None } else { sockets(&mut fds) };
        if count != self::count(v6.is_some()) {
            bail!("{count} descriptors of the gateway network arrived, not 5 or 7");
        }
        Ok((Self { dial, data, v4, v6 }, factory))
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
        for count in [5, 7] {
            let sent = fds(count);
            let numbers: Vec<_> = sent.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
            let (descriptors, factory) = Descriptors::try_from_fds(sent).unwrap();
            assert_eq!(descriptors.v6.is_some(), count == 7);
            let again = descriptors.into_fds(factory);
            assert_eq!(again.iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>(), numbers);
        }
    }

    #[test]
    fn a_wrong_number_is_refused() {
        for count in [0, 4, 6, 8] {
            let error = Descriptors::try_from_fds(fds(count)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{count} descriptors")), "{error}");
        }
    }
}
