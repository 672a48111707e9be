use std::collections::HashMap;
use std::net::IpAddr;

use super::*;

fn sender(last: u8) -> Holder {
    Holder::Sender(IpAddr::from([172, 17, 0, last]))
}

/// Connections under way, with the times of their first SYNs, where nothing comes of any.
#[derive(Default)]
struct Table {
    queue: FairQueue<u64>,
    born: HashMap<u64, (Holder, Duration)>,
    started: u64,
}

impl Table {
    fn begin(&mut self, of: Holder, now: Duration) {
        self.started += 1;
        let of = self.queue.insert(of, self.started, self.started);
        self.born.insert(self.started, (of, now));
    }

    /// A SYN for which there is no room: how old the connection was that made room, unless the SYN was ignored.
    fn syn(&mut self, what: Full, of: Holder, now: Duration) -> Option<Duration> {
        let (key, chance) = victim(&self.queue, what, of).unwrap();
        let (holder, born) = self.born[&key];
        let age = now - born;
        if age < chance {
            return None;
        }
        self.queue.remove(holder, key).unwrap();
        self.born.remove(&key);
        self.begin(of, now);
        Some(age)
    }
}

#[test]
fn two_senders_that_have_about_as_much_give_each_other_time() {
    let millisecond = Duration::from_millis(1);
    for (what, limit, chance) in [
        (Full::Destination, MAX_DIALS_TO_ONE, CHANCE),
        (Full::Table, MAX_DIALS, CHANCE),
        (Full::Descriptors, 40, SHORT_CHANCE),
    ] {
        let mut table = Table::default();
        for number in 0..limit {
            table.begin(sender(u8::from(number > limit / 2)), Duration::ZERO);
        }
        let mut made_room = 0;
        for n in 0..50_000_u32 {
            // 10,000 a second.
            let of = sender(u8::from(n % 2 == 0));
            if let Some(age) = table.syn(what, of, n * millisecond / 10) {
                assert!(age >= chance, "{what:?}: after {age:?}");
                made_room += 1;
            }
        }
        assert!(made_room >= limit, "{what:?}: {made_room}");
    }
}

#[test]
fn whoever_has_clearly_more_makes_room_at_once() {
    for what in [Full::Destination, Full::Table, Full::Descriptors] {
        for flood in [sender(1), Holder::Unknown] {
            let mut table = Table::default();
            (0..40).for_each(|_| table.begin(flood, Duration::ZERO));
            for _ in 0..10 {
                assert_eq!(table.syn(what, sender(2), Duration::ZERO), Some(Duration::ZERO));
            }
            let has_time = table.syn(what, sender(1), Duration::ZERO).is_none();
            assert_eq!(has_time, flood == sender(1), "{what:?}");
        }
    }
}
