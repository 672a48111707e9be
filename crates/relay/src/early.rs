//! Datagrams of a flow that has no socket yet: a few are kept, and of all flows together not many. When the namespace
//! makes no sockets for a while, nothing waits longer than the sender would.

use crate::kept::Kept;
use crate::total::Total;

/// Datagrams and bytes kept for one flow …
const MAX_DATAGRAMS_PER_FLOW: usize = 32;
const MAX_BYTES_PER_FLOW: usize = 128 << 10;
/// … and bytes for all of them. What does not fit is lost, as on any network.
const MAX_BYTES_OF_ALL_FLOWS: usize = 8 << 20;

/// What came before there was a socket.
#[derive(Debug, Default)]
pub(crate) struct Early {
    bytes: Kept,
    lengths: Vec<usize>,
}

impl Early {
    pub(crate) fn push(&mut self, datagram: &[u8], total: &Total) {
        let fits = self.lengths.len() < MAX_DATAGRAMS_PER_FLOW
            && self.bytes.rest().len() + datagram.len() <= MAX_BYTES_PER_FLOW
            && total.bytes() + datagram.len() <= MAX_BYTES_OF_ALL_FLOWS;
        if fits {
            self.bytes.push(datagram, total);
            self.lengths.push(datagram.len());
        }
    }

    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.rest();
        self.lengths.iter().map(move |length| {
            let (datagram, others) = rest.split_at_checked(*length).unwrap_or_default();
            rest = others;
            datagram
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_back_as_they_came() {
        let (total, mut early) = (Total::default(), Early::default());
        for datagram in [&b"one"[..], b"", b"three"] {
            early.push(datagram, &total);
        }
        assert_eq!(early.datagrams().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        drop(early);
        assert_eq!(total.bytes(), 0);
    }

    #[test]
    fn one_flow_and_all_flows_together_have_a_bound() {
        let total = Total::default();
        let datagram = vec![7; 30_000];
        let mut flows = Vec::new();
        for _ in 0..4096 {
            let mut early = Early::default();
            for _ in 0..100 {
                early.push(&datagram, &total);
            }
            assert!(early.datagrams().map(<[u8]>::len).sum::<usize>() <= MAX_BYTES_PER_FLOW);
            flows.push(early);
        }
        assert!(
            total.bytes() <= MAX_BYTES_OF_ALL_FLOWS
                && total.bytes() > MAX_BYTES_OF_ALL_FLOWS - datagram.len()
        );
        let mut small = Early::default();
        drop(flows);
        (0..100).for_each(|_| small.push(b"x", &total));
        assert_eq!(small.datagrams().count(), MAX_DATAGRAMS_PER_FLOW);
    }
}
