use std::collections::HashMap;
use std::net::IpAddr;

use super::*;

fn sender(last: u8) -> Holder {
    Holder::Sender(IpAddr::from([172, 17, 0, last]))
}

/// Connections under way, with the times of their first SYNs, where nothing comes of any.
struct Table {
    queue: FairQueue<u64>,
    born: HashMap<u64, (Holder, Instant)>,
    started: u64,
    rate_limit: RateLimit,
    start: Instant,
}

impl Table {
    fn new() -> Self {
        let (queue, born, rate_limit) =
            (FairQueue::default(), HashMap::new(), RateLimit::default());
        Self { queue, born, started: 0, rate_limit, start: Instant::now() }
    }

    fn begin(&mut self, of: Holder, at: Duration) {
        self.started += 1;
        let of = self.queue.insert(of, self.started, self.started);
        self.born.insert(self.started, (of, self.start + at));
    }

    /// A SYN for which there is no room: how old the connection was that made room, unless the SYN was ignored.
    fn syn(&mut self, what: Full, of: Holder, at: Duration) -> Option<Duration> {
        let victim = victim(&self.queue, what, of).unwrap();
        let (key, (holder, born)) = (victim.key, self.born[&victim.key]);
        let now = self.start + at;
        let age = now - born;
        if !victim.makes_room(age, &mut self.rate_limit, of, now) {
            return None;
        }
        self.queue.remove(holder, key).unwrap();
        self.born.remove(&key);
        self.begin(of, at);
        Some(age)
    }
}

#[test]
fn two_senders_that_have_about_as_much_give_each_other_time() {
    let millisecond = Duration::from_millis(1);
    for (what, limit, min_age) in [
        (Full::Destination, MAX_DIALS_TO_ONE, MIN_AGE_TO_ONE),
        (Full::Table, MAX_DIALS, MIN_AGE),
        (Full::Descriptors, 40, MIN_AGE),
    ] {
        let mut table = Table::new();
        for number in 0..limit {
            table.begin(sender(u8::from(number > limit / 2)), Duration::ZERO);
        }
        let mut made_room = 0;
        for n in 0..50_000_u32 {
            // 10,000 a second.
            let of = sender(u8::from(n % 2 == 0));
            if let Some(age) = table.syn(what, of, n * millisecond / 10) {
                assert!(age >= min_age, "{what:?}: after {age:?}");
                made_room += 1;
            }
        }
        assert!(made_room >= limit, "{what:?}: {made_room}");
        // 1,000 a second, and 100 at once.
        assert!(made_room <= 5100, "{what:?}: {made_room}");
    }
}

#[test]
fn whoever_has_clearly_more_makes_room_at_once() {
    for what in [Full::Destination, Full::Table, Full::Descriptors] {
        for flood in [sender(1), Holder::Unknown] {
            let mut table = Table::new();
            (0..40).for_each(|_| table.begin(flood, Duration::ZERO));
            // It needs no token.
            while table.rate_limit.try_take(table.start) {}
            for _ in 0..10 {
                assert_eq!(table.syn(what, sender(2), Duration::ZERO), Some(Duration::ZERO));
            }
            table.rate_limit = RateLimit::default();
            let made_room = table.syn(what, sender(1), Duration::ZERO).is_some();
            assert_eq!(made_room, flood != sender(1), "{what:?}: only its own get time");
        }
    }
}
