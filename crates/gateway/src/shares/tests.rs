use proptest::prelude::*;

use super::*;

fn sender(last: u8) -> Holder {
    Holder::Sender(IpAddr::from([172, 17, 0, last]))
}

#[test]
fn whoever_holds_the_most_makes_room_and_its_oldest_entry_goes() {
    let mut queue = FairQueue::default();
    assert_eq!(queue.victim(sender(1)), None);
    queue.insert(sender(1), 1, 'q');
    for (number, key) in [(3, 'b'), (2, 'a'), (4, 'c')] {
        queue.insert(sender(2), number, key);
    }
    assert_eq!(queue.victim(sender(1)), Some((sender(2), 'a')));
    assert_eq!(queue.victim(sender(2)), Some((sender(2), 'a')));
    assert_eq!(queue.victim(Holder::Pending), Some((sender(2), 'a')));
}

#[test]
fn of_those_that_hold_as_much_the_newcomer_makes_room() {
    let mut queue = FairQueue::default();
    for number in 0..4 {
        queue.insert(sender(1), number, number);
        queue.insert(sender(2), number, number);
    }
    for newcomer in [1, 2].map(sender) {
        assert_eq!(queue.victim(newcomer), Some((newcomer, 0)));
    }
}

#[test]
fn a_slot_is_used_again_when_its_holder_has_nothing_left() {
    let mut occupancy = Occupancy::default();
    let (_, one) = occupancy.join(sender(1));
    assert_eq!(occupancy.join(sender(1)), (sender(1), one));
    let (_, other) = occupancy.join(sender(2));
    assert_ne!(one, other);
    (0..3).for_each(|_| occupancy.leave(sender(1)));
    assert_eq!(occupancy.victim(sender(1)), Some((sender(2), other)), "once too often");
    assert_eq!(occupancy.join(sender(3)), (sender(3), one));
    assert_eq!(occupancy.slots.len(), 2);
}

fn forged(number: u32) -> Holder {
    Holder::Sender(IpAddr::from((0xac12_0000_u32 + number).to_be_bytes()))
}

#[test]
fn new_senders_share_one_slot_when_there_are_as_many_holders_as_may_be() {
    let mut occupancy = Occupancy::default();
    let of: Vec<Holder> = (0..17).map(|number| occupancy.join(forged(number)).0).collect();
    assert!((0..16).all(|number| of[number as usize] == forged(number)));
    assert_eq!(of[16], Holder::Unknown);
    assert_eq!(occupancy.join(forged(3)).0, forged(3), "it has one");
    assert_eq!(occupancy.join(Holder::Pending).0, Holder::Pending);
    occupancy.leave(Holder::Pending);
    occupancy.leave(Holder::Unknown);
    occupancy.leave(forged(0));
    assert_eq!(occupancy.join(forged(16)).0, forged(16));
    (0..100_000).for_each(|number| _ = occupancy.join(forged(number)));
    assert_eq!(occupancy.by_holder.len(), MAX_HOLDERS);
}

#[test]
fn senders_with_forged_addresses_push_out_nothing_that_was_there_before() {
    // Those of pings, of name queries and connections to one destination, of connections, and of flows.
    for limit in [256, 1024, 4096, 8192] {
        // As much as a share is, if there are as many as may be and one for all others.
        let most = limit / (MAX_HOLDERS.min(limit / ENTRIES_PER_HOLDER) + 1);
        for quiet in [1, 2, most] {
            let (mut queue, mut of) = (FairQueue::default(), HashMap::new());
            for number in 0..quiet as u64 {
                of.insert(number, queue.insert(sender(1), number, number));
            }
            let forging = (0..2).flat_map(|_| (0..4096).map(forged));
            let filling = (0..8192).map(|n| forged(n % 4096));
            for (number, newcomer) in (1000..).zip(filling.chain(forging)) {
                if queue.len() >= limit {
                    let (holder, key) = queue.victim(newcomer).unwrap();
                    assert!(key >= 1000, "{limit}: {quiet} of {holder:?}");
                    queue.remove(of[&key], key).unwrap();
                }
                of.insert(number, queue.insert(newcomer, number, number));
            }
        }
    }
}

#[test]
fn somebody_has_clearly_more_if_that_stays_so_after_an_entry_has_changed_hands() {
    for (theirs, own, is_clear) in [
        (1, 0, false),
        (2, 0, true),
        (2, 1, false),
        (3, 1, true),
        (512, 511, false),
        (512, 447, false),
        (512, 446, true),
    ] {
        let mut occupancy = Occupancy::default();
        (0..theirs).for_each(|_| _ = occupancy.join(sender(1)));
        (0..own).for_each(|_| _ = occupancy.join(sender(2)));
        assert_eq!(occupancy.has_clearly_more(sender(1), sender(2)), is_clear, "{theirs} {own}");
        assert!(!occupancy.has_clearly_more(sender(1), sender(1)));
    }
}

#[test]
fn entries_are_found_in_the_order_in_which_they_came() {
    let mut lookups = Lookups::default();
    (0..6).for_each(|key| lookups.push(key));
    let lookup = |key| match key {
        0 | 2 => Lookup::Gone,
        4 => Lookup::Open,
        _ => Lookup::Known(sender(key)),
    };
    let next = [(); 3].map(|()| lookups.next(lookup));
    assert_eq!(next, [Some((1, sender(1))), Some((3, sender(3))), None]);
    let all = |key| Lookup::Known(sender(key));
    let next = [(); 3].map(|()| lookups.next(all));
    assert_eq!(next, [Some((4, sender(4))), Some((5, sender(5))), None]);
}

/// What happens to a table that is full with this many entries.
const LIMIT: usize = 12;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Something new of a holder comes; whoever has to, makes room.
    New(u8),
    /// The entry at this place in the order of age goes.
    End(usize),
    /// The entry at this place is found to be of a holder.
    Move(usize, u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..6u8).prop_map(Event::New),
        1 => any::<usize>().prop_map(Event::End),
        2 => (any::<usize>(), 0..6u8).prop_map(|(at, holder)| Event::Move(at, holder)),
    ]
}

fn holder(number: u8) -> Holder {
    match number {
        0 => Holder::Pending,
        1 => Holder::Unknown,
        _ => sender(number),
    }
}

/// A list of everything, by age, which is counted anew each time.
#[derive(Debug, Default)]
struct Reference(Vec<(Holder, u64)>);

impl Reference {
    fn count(&self, holder: Holder) -> usize {
        self.0.iter().filter(|(of, _)| *of == holder).count()
    }

    /// All that may be the victim: of several that hold the most, the newcomer only.
    fn possible_victims(&self, newcomer: Holder) -> Vec<(Holder, u64)> {
        let most = self.0.iter().map(|(of, _)| self.count(*of)).max().unwrap_or(0);
        let heavy = |of: Holder| self.count(of) == most;
        let own_only = heavy(newcomer);
        let first = |of: Holder| self.0.iter().find(|(other, _)| *other == of).copied();
        let all = (0..6).map(holder).filter(|of| heavy(*of) && (!own_only || *of == newcomer));
        all.filter_map(first).collect()
    }
}

#[test]
fn a_full_bucket_allows_a_burst_and_then_a_thousand_a_second() {
    let (start, mut rate_limit) = (Instant::now(), RateLimit::default());
    let take = |rate_limit: &mut RateLimit, at| {
        let now = start + Duration::from_millis(at);
        (0..10_000).filter(|_| rate_limit.has_token(now) && rate_limit.try_take(now)).count()
    };
    let taken = [0, 0, 1, 11, 20_000, 20_000].map(|at| take(&mut rate_limit, at));
    assert_eq!(taken, [100, 0, 1, 10, 100, 0]);
}

#[test]
fn only_what_is_known_to_come_too_fast_is_not_allowed() {
    let (now, mut rate_limit) = (Instant::now(), RateLimit::default());
    while rate_limit.try_take(now) {}
    assert!(!rate_limit.allows(true, sender(1), now));
    assert!(
        rate_limit.allows(false, sender(1), now) && rate_limit.allows(true, Holder::Pending, now)
    );
}

#[test]
fn a_known_newcomer_needs_a_token_only_beside_a_sender_that_has_about_as_much() {
    let mut occupancy = Occupancy::default();
    (0..40).for_each(|_| _ = occupancy.join(sender(1)));
    (0..38).for_each(|_| _ = occupancy.join(sender(2)));
    occupancy.join(sender(3));
    for (victim, newcomer, limited) in [
        (sender(1), sender(1), true),
        (sender(1), sender(2), true),
        (sender(1), sender(3), false),
        (sender(1), sender(4), false),
        (sender(1), Holder::Pending, true),
        (Holder::Pending, sender(4), false),
        (Holder::Unknown, sender(4), false),
        (Holder::Unknown, Holder::Unknown, false),
        (Holder::Unknown, Holder::Pending, true),
    ] {
        assert_eq!(occupancy.needs_token(victim, newcomer), limited, "{victim:?} {newcomer:?}");
    }
}

proptest! {
    #[test]
    fn queues_are_those_of_a_list_that_is_counted(
        events in proptest::collection::vec(event(), 1..200)
    ) {
        let (mut queue, mut reference) = (FairQueue::default(), Reference::default());
        let mut holders: HashMap<u64, Holder> = HashMap::new();
        for (number, event) in (0..).zip(events) {
            match event {
                Event::New(of) => {
                    let newcomer = holder(of);
                    let victim = queue.victim(newcomer);
                    let possible = reference.possible_victims(newcomer);
                    prop_assert_eq!(victim.is_some(), !possible.is_empty());
                    if let Some(victim) = victim {
                        prop_assert!(possible.contains(&victim), "{:?} of {:?}", victim, possible);
                    }
                    if queue.len() >= LIMIT && let Some((from, key)) = victim {
                        // Nobody loses anything to somebody who holds more.
                        prop_assert!(reference.count(from) >= reference.count(newcomer));
                        queue.remove(holders[&key], key);
                        reference.0.retain(|(_, other)| *other != key);
                    }
                    queue.insert(newcomer, number, number);
                    holders.insert(number, newcomer);
                    reference.0.push((newcomer, number));
                }
                Event::End(at) if !reference.0.is_empty() => {
                    let (_, key) = reference.0.remove(at % reference.0.len());
                    prop_assert_eq!(queue.remove(holders[&key], key), Some(key));
                    prop_assert_eq!(queue.remove(holders[&key], key), None);
                }
                Event::Move(at, of) if !reference.0.is_empty() => {
                    let at = at % reference.0.len();
                    let (from, key) = &mut reference.0[at];
                    let key = *key;
                    *from = holder(of);
                    queue.remove(holders[&key], key);
                    queue.insert(holder(of), key, key);
                    holders.insert(key, holder(of));
                }
                Event::End(_) | Event::Move(..) => {}
            }
            prop_assert!(queue.len() <= LIMIT);
            prop_assert_eq!(queue.len(), reference.0.len());
            prop_assert_eq!(queue.is_empty(), reference.0.is_empty());
            let held = queue.occupancy.ranking.iter().map(|(count, _)| count).sum::<usize>();
            prop_assert_eq!(held, queue.len());
        }
    }

    #[test]
    fn a_flood_never_pushes_out_what_others_have(quiet in 1..LIMIT / 2, flood in 1..500u64) {
        let mut queue = FairQueue::default();
        for number in 0..quiet as u64 {
            queue.insert(sender(1), number, number);
        }
        for number in 1000..1000 + flood {
            if queue.len() >= LIMIT {
                let (_, key) = queue.victim(sender(2)).unwrap();
                prop_assert!(key >= 1000);
                queue.remove(sender(2), key);
            }
            queue.insert(sender(2), number, number);
        }
    }
}
