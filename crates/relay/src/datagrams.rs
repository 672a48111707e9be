//! Sending datagrams in as few calls as their sizes allow.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use sys::mmsg::{BATCH, Datagram, Route, send_each, send_segmented};
use tracing::debug;

/// The most bytes and datagrams of one segmented send (udp(7), `UDP_MAX_SEGMENTS`).
const SEGMENTED_BYTES: usize = 65_000;
const SEGMENTS: usize = 64;

/// The original datagrams of one that the kernel may have put together.
pub fn pieces(datagram: Datagram<'_>) -> impl Iterator<Item = &[u8]> {
    // An empty datagram is one piece, where `chunks` would find none.
    let empty = datagram.data.is_empty().then_some(datagram.data);
    let size = datagram.segment.unwrap_or(datagram.data.len()).max(1);
    empty.into_iter().chain(datagram.data.chunks(size))
}

/// Which datagrams the kernel has not refused to cut out of a segmented send: those below a size. It refuses those that do
/// not fit the path, and smaller ones may.
#[derive(Clone, Copy, Debug)]
pub struct Segmented {
    below: usize,
}

impl Default for Segmented {
    fn default() -> Self {
        Self { below: usize::MAX }
    }
}

impl Segmented {
    /// How many datagrams from the start can go out as one segmented send.
    fn run(self, datagrams: &[IoSlice<'_>]) -> usize {
        match datagrams.first() {
            Some(first) if first.len() < self.below => equal_run(datagrams),
            _ => 1,
        }
    }

    /// How many datagrams from the start are each the beginning of no run.
    fn single(self, datagrams: &[IoSlice<'_>]) -> usize {
        (1..datagrams.len()).find(|at| self.run(&datagrams[*at..]) > 1).unwrap_or(datagrams.len())
    }
}

/// What became of datagrams that were to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Of what went out.
    pub bytes: u64,
    /// The last error that was not a full queue. It can be about an earlier datagram (ICMP), and nobody is told again.
    pub error: Option<Errno>,
}

/// Sends datagrams along one route, in order. `segmented` remembers what the kernel refuses to cut. What a full queue does
/// not take is lost, as on any network.
pub fn send_all<'a>(
    sock: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Datagram<'a>>,
    route: Route,
    segmented: &mut Segmented,
) -> Sent {
    let mut pending = Vec::with_capacity(BATCH);
    pending.extend(datagrams.flat_map(pieces).map(IoSlice::new));
    send_pending(&sock, &pending, route, segmented)
}

/// The calls that send, so that tests can count them and make them fail.
trait Calls {
    /// See [`send_each`].
    fn each(&self, datagrams: &[IoSlice<'_>], route: Route) -> nix::Result<usize>;

    /// See [`send_segmented`].
    fn run(&self, parts: &[IoSlice<'_>], segment: u16, route: Route) -> nix::Result<()>;
}

impl Calls for BorrowedFd<'_> {
    fn each(&self, datagrams: &[IoSlice<'_>], route: Route) -> nix::Result<usize> {
        send_each(*self, datagrams, route)
    }

    fn run(&self, parts: &[IoSlice<'_>], segment: u16, route: Route) -> nix::Result<()> {
        send_segmented(*self, parts, segment, route)
    }
}

fn send_pending(
    calls: &impl Calls,
    mut rest: &[IoSlice<'_>],
    route: Route,
    segmented: &mut Segmented,
) -> Sent {
    let mut all = Sent::default();
    // The run at the start of `rest` has failed before.
    let mut failed = false;
    while !rest.is_empty() {
        let run = segmented.run(rest);
        let sent = if run > 1 {
            let size = u16::try_from(rest[0].len()).unwrap_or(u16::MAX);
            send(route, &mut all, |route| calls.run(&rest[..run], size, route).map(|()| run))
        } else {
            // Up to the next run, or everything.
            send(route, &mut all, |route| calls.each(&rest[..segmented.single(rest)], route))
        };
        let again = std::mem::take(&mut failed);
        match sent {
            Err(Errno::EINVAL | Errno::EMSGSIZE) if run > 1 => segmented.below = rest[0].len(),
            Err(Errno::EIO | Errno::EOPNOTSUPP) if run > 1 => segmented.below = 0,
            Ok(n) => {
                let (sent, left) = rest.split_at(n.min(rest.len()));
                all.bytes += sent.iter().map(|d| d.len() as u64).sum::<u64>();
                rest = left;
            }
            // Full queues: the rest would not fit either.
            Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
            // As with ECONNREFUSED in `send`, the error can be about an earlier datagram (an ICMP message of a firewall, for
            // instance), and is cleared by having been reported. Nothing of the run has been sent.
            Err(e) if run > 1 && !again => {
                all.error = Some(e);
                failed = true;
            }
            // Routing and packet rules treat a run as one packet, so the error is about all of it: its datagrams would fail
            // one by one. Datagrams of their own may differ, and the error is about the first.
            Err(e) => {
                debug!("cannot send {run} datagrams of {} bytes: {}", rest[0].len(), e.desc());
                all.error = Some(e);
                rest = &rest[run..];
            }
        }
    }
    all
}

/// How many datagrams from the start can go out as one segmented send: all of the first one's size
/// but for a shorter last one.
fn equal_run(datagrams: &[IoSlice<'_>]) -> usize {
    let Some(size) = datagrams.first().map(|d| d.len()).filter(|size| *size > 0) else { return 1 };
    let most = (SEGMENTED_BYTES / size).clamp(1, SEGMENTS);
    let equal = datagrams.iter().take(most).take_while(|d| d.len() == size).count();
    let tail = datagrams.get(equal).is_some_and(|d| equal < most && (1..size).contains(&d.len()));
    equal + usize::from(tail)
}

/// Sends, and once more if the error is about something else than these datagrams.
fn send(
    route: Route,
    all: &mut Sent,
    mut send: impl FnMut(Route) -> nix::Result<usize>,
) -> nix::Result<usize> {
    match send(route) {
        // About an earlier datagram, and cleared by having been reported.
        Err(refused @ Errno::ECONNREFUSED) => {
            all.error = Some(refused);
            send(route)
        }
        // The address that was asked is none to answer from: it has gone meanwhile, or its interface has. `ENETUNREACH` is
        // what IPv4 says then.
        Err(Errno::EINVAL | Errno::ENETUNREACH | Errno::EADDRNOTAVAIL | Errno::ENODEV)
            if route.from.is_some() =>
        {
            send(Route { from: None, ..route })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Takes what follows the errors, and remembers how many datagrams each call had.
    struct Fake {
        /// Of the calls, in this order.
        errors: RefCell<Vec<Errno>>,
        /// Of every call.
        always: Option<Errno>,
        made: RefCell<Vec<usize>>,
    }

    impl Fake {
        fn call(&self, datagrams: usize) -> nix::Result<usize> {
            self.made.borrow_mut().push(datagrams);
            let mut errors = self.errors.borrow_mut();
            let next = if errors.is_empty() { self.always } else { Some(errors.remove(0)) };
            next.map_or(Ok(datagrams), Err)
        }
    }

    impl Calls for Fake {
        fn each(&self, datagrams: &[IoSlice<'_>], _: Route) -> nix::Result<usize> {
            self.call(datagrams.len())
        }

        fn run(&self, parts: &[IoSlice<'_>], _: u16, _: Route) -> nix::Result<()> {
            self.call(parts.len()).map(drop)
        }
    }

    /// What went out, and the calls.
    fn sent(errors: &[Errno], always: Option<Errno>, sizes: &[usize]) -> (Sent, Vec<usize>) {
        let fake = Fake { errors: RefCell::new(errors.into()), always, made: RefCell::default() };
        let mut segmented = Segmented::default();
        let sent = send_pending(&fake, &slices(sizes), Route::default(), &mut segmented);
        assert_eq!(segmented.below, usize::MAX);
        (sent, fake.made.into_inner())
    }

    #[test]
    fn a_run_that_cannot_be_sent_is_given_up_as_a_whole() {
        let sizes = [&[9; 50][..], &[7; 3], &[5]].concat();
        let error = Some(Errno::EPERM);
        // 50 nines and a seven, twice; two sevens and a five, twice.
        let all = (Sent { bytes: 0, error }, vec![51, 51, 3, 3]);
        assert_eq!(sent(&[], error, &sizes), all);
        let next_run = (Sent { bytes: 19, error }, vec![51, 51, 3]);
        assert_eq!(sent(&[Errno::EPERM, Errno::EPERM], None, &sizes), next_run);
    }

    #[test]
    fn datagrams_that_do_not_fit_leave_smaller_ones_in_runs() {
        let sizes = [&[9; 50][..], &[7; 50]].concat();
        for (errno, calls, below) in [
            // The nines once more, one by one.
            (Errno::EINVAL, &[51, 50, 50][..], 9),
            (Errno::EMSGSIZE, &[51, 50, 50], 9),
            (Errno::EIO, &[51, 100], 0),
        ] {
            let fake = Fake { errors: vec![errno].into(), always: None, made: RefCell::default() };
            let mut segmented = Segmented::default();
            let sent = send_pending(&fake, &slices(&sizes), Route::default(), &mut segmented);
            let all = Sent { bytes: 800, error: None };
            assert_eq!((sent, segmented.below), (all, below), "{errno}");
            assert_eq!(fake.made.into_inner(), calls, "{errno}");
        }
    }

    #[test]
    fn errors_about_earlier_datagrams_cost_none_of_a_run() {
        let refused = Errno::ECONNREFUSED;
        for errors in [&[refused][..], &[refused, refused], &[refused; 3], &[Errno::EHOSTUNREACH]] {
            let all = Sent { bytes: 450, error: errors.last().copied() };
            let calls = vec![50; errors.len() + 1];
            assert_eq!(sent(errors, None, &[9; 50]), (all, calls), "{errors:?}");
        }
        let none = Sent { bytes: 0, error: Some(refused) };
        assert_eq!(sent(&[], Some(refused), &[9; 50]), (none, vec![50; 4]));
    }

    #[test]
    fn single_datagrams_fail_one_by_one() {
        let error = Some(Errno::EPERM);
        assert_eq!(sent(&[Errno::EPERM], None, &[1, 2, 3]), (Sent { bytes: 5, error }, vec![3, 2]));
    }

    #[test]
    fn an_error_about_an_earlier_datagram_is_told_also_if_the_next_one_goes_out() {
        let error = Some(Errno::ECONNREFUSED);
        let all = Sent { bytes: 5, error };
        assert_eq!(sent(&[Errno::ECONNREFUSED], None, &[5]), (all, vec![1, 1]));
    }

    #[test]
    fn a_full_queue_is_no_error() {
        for full in [Errno::EAGAIN, Errno::ENOBUFS] {
            assert_eq!(sent(&[], Some(full), &[5, 5]), (Sent::default(), vec![2]), "{full}");
        }
    }

    fn slices(sizes: &[usize]) -> Vec<IoSlice<'static>> {
        static ZEROES: [u8; 65_507] = [0; 65_507];
        sizes.iter().map(|n| IoSlice::new(&ZEROES[..*n])).collect()
    }

    #[test]
    fn runs_end_where_sizes_or_limits_do() {
        for (sizes, run) in [
            (&[5, 5, 5][..], 3),
            (&[5, 5, 3, 5], 3),
            (&[5, 5, 6], 2),
            (&[5, 0], 1),
            (&[0, 0], 1),
            (&[5], 1),
            (&[3, 5], 1),
            (&[5, 3], 2),
            (&[32_000, 32_000, 32_000], 2),
            (&[65_507, 1], 1),
            (&[40_000, 30_000], 1),
        ] {
            assert_eq!(equal_run(&slices(sizes)), run, "{sizes:?}");
        }
        assert_eq!(equal_run(&slices(&[1; 100])), SEGMENTS);
        assert_eq!(Segmented::default().single(&slices(&[0, 1, 2, 2])), 2);
        assert_eq!(Segmented::default().single(&slices(&[0, 1, 2])), 3);
    }

    #[test]
    fn coalesced_datagrams_come_apart_where_they_were_joined() {
        let cut = |data: &'static [u8], segment| {
            pieces(Datagram { segment, ..Datagram::alone(data) }).collect::<Vec<_>>()
        };
        assert_eq!(cut(b"abcdefg", Some(3)), [&b"abc"[..], b"def", b"g"]);
        assert_eq!(cut(b"abc", None), [b"abc"]);
        assert_eq!(cut(b"", None), [b""]);
    }
}
