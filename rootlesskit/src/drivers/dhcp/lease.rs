//! A lease: an address for a time, and what goes with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::wire::{Reply, usable};

/// Of a server that names no time. Reference implementations take an hour as well.
const HOUR: u32 = 3600;
/// Times shorter than this would have us do nothing but renew.
const SHORTEST: u32 = 10;
/// "For ever" (RFC 2131, section 3.3).
const INFINITE: u32 = u32::MAX;
/// Of a server that names no mask.
const PREFIX: u8 = 24;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) router: Option<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    pub(super) server: Ipv4Addr,
    /// Absent for a lease without an end.
    pub(super) times: Option<Times>,
}

/// When what is to be done, on the clock of [`super::client::Port::now`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// From here on its server is asked for more time (T1).
    pub(super) renew: Duration,
    /// From here on any server is asked (T2).
    pub(super) rebind: Duration,
    /// From here on the address must not be used.
    pub(super) end: Duration,
}

impl Lease {
    /// The lease that an answer grants to a request of the time `begin`; `None` if it grants nothing that is of use.
    pub(super) fn granted(reply: &Reply, begin: Duration) -> Option<Self> {
        let server = reply.server.filter(usable)?;
        if !usable(&reply.address) {
            return None;
        }
        Some(Self {
            address: reply.address,
            prefix: reply.prefix.unwrap_or(PREFIX),
            router: reply.router,
            dns: reply.dns.clone(),
            server,
            times: Times::of(reply, begin),
        })
    }
}

impl Times {
    /// A half and seven eighths of the time are the standard's choice, also for a server that contradicts itself.
    fn of(reply: &Reply, begin: Duration) -> Option<Self> {
        let whole = reply.lease.unwrap_or(HOUR).max(SHORTEST);
        if whole == INFINITE {
            return None;
        }
        let rebind = reply.rebind.filter(|t| (2..whole).contains(t)).unwrap_or(whole - whole / 8);
        let renew =
            reply.renew.filter(|t| (1..rebind).contains(t)).unwrap_or(rebind.min(whole / 2));
        let at = |seconds: u32| begin + Duration::from_secs(seconds.into());
        Some(Self { renew: at(renew), rebind: at(rebind), end: at(whole) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{decode, tests::TALK, tests::answer};
    use super::*;

    fn granted(ip: [u8; 4], options: &[u8]) -> Option<Lease> {
        let reply = decode(TALK, &answer(TALK, 5, ip, options)).unwrap();
        Lease::granted(&reply, Duration::from_secs(100))
    }

    fn times(options: &[u8]) -> [u64; 3] {
        let times = granted([10, 0, 3, 9], options).unwrap().times.unwrap();
        [times.renew, times.rebind, times.end].map(|t| t.as_secs())
    }

    #[test]
    fn times_are_the_servers_or_the_standards() {
        assert_eq!(times(&[]), [100 + 1800, 100 + 3150, 100 + 3600]);
        assert_eq!(times(&[51, 4, 0, 0, 0, 80]), [140, 170, 180]);
        let own = [51, 4, 0, 0, 0, 80, 58, 4, 0, 0, 0, 2, 59, 4, 0, 0, 0, 7];
        assert_eq!(times(&own), [102, 107, 180]);
        let contradiction = [51, 4, 0, 0, 0, 80, 58, 4, 0, 0, 0, 90, 59, 4, 0, 0, 0, 90];
        assert_eq!(times(&contradiction), [140, 170, 180]);
        assert_eq!(times(&[51, 4, 0, 0, 0, 0]), [105, 109, 110]);
        let early = [51, 4, 0, 0, 0, 80, 59, 4, 0, 0, 0, 20];
        assert_eq!(times(&early), [120, 120, 180]);
        assert_eq!(granted([10, 0, 3, 9], &[51, 4, 255, 255, 255, 255]).unwrap().times, None);
    }

    #[test]
    fn an_answer_without_router_and_servers_is_a_lease_and_one_without_address_is_not() {
        let lease = granted([10, 0, 3, 9], &[]).unwrap();
        assert_eq!((lease.router, lease.dns.len(), lease.prefix), (None, 0, 24));
        for ip in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            assert_eq!(granted(ip, &[]), None, "{ip:?}");
        }
    }
}
