use std::net::Ipv4Addr;

use super::*;

const WHO: Source = Source::Container(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2)));
const OTHER: Source = Source::Container(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 3)));

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn numbered(number: usize) -> IpAddr {
    let number = u32::try_from(number).expect("small");
    Ipv4Addr::from_bits(0x0a00_0000 | number).into()
}

/// All pairs that are remembered, counted in each of the places that have to agree.
fn pairs(openings: &Openings) -> usize {
    let counted: usize = openings
        .senders
        .values()
        .map(|sender| {
            let pairs = sender.addresses.values().map(Vec::len).sum();
            assert_eq!(sender.ages.len(), pairs);
            assert!(pairs > 0 && sender.addresses.values().all(|known| !known.is_empty()));
            pairs
        })
        .sum();
    assert_eq!(openings.ages.len(), counted);
    counted
}

#[test]
fn an_answer_opens_its_addresses_for_the_sender_that_asked() {
    let now = Instant::now();
    let mut openings = Openings::default();
    openings.learn(
        now,
        WHO,
        "Example.ORG.",
        &[(numbered(1), seconds(60)), (numbered(2), seconds(60))],
    );
    openings.learn(now, WHO, "example.com", &[(numbered(2), seconds(60))]);
    assert_eq!(openings.names(now, WHO, numbered(1)), ["example.org"]);
    assert_eq!(openings.names(now, WHO, numbered(2)), ["example.org", "example.com"]);
    let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into();
    assert_eq!(openings.names(now, WHO, mapped), ["example.org"]);
    for (who, address) in [(WHO, 3), (OTHER, 1), (Source::Namespace, 1)] {
        assert!(openings.names(now, who, numbered(address)).is_empty());
        assert!(openings.remembered(who, numbered(address)).is_empty());
    }
    assert_eq!(pairs(&openings), 3);
}

#[test]
fn an_answer_for_the_namespace_opens_its_addresses_for_containers_and_not_the_other_way_round() {
    let now = Instant::now();
    let mut openings = Openings::default();
    openings.learn(now, Source::Namespace, "a.org", &[(numbered(1), seconds(60))]);
    openings.learn(now, WHO, "b.org", &[(numbered(1), seconds(60))]);
    assert_eq!(openings.names(now, Source::Namespace, numbered(1)), ["a.org"]);
    assert_eq!(openings.names(now, WHO, numbered(1)), ["b.org", "a.org"]);
    assert_eq!(openings.remembered(OTHER, numbered(1)), ["a.org"]);
    assert!(openings.names(now + seconds(60), OTHER, numbered(1)).is_empty());
}

#[test]
fn an_address_is_open_for_the_time_to_live_but_at_least_a_minute_and_at_most_a_day() {
    let now = Instant::now();
    for (ttl, open) in [
        (Duration::ZERO, 60),
        (seconds(59), 60),
        (seconds(60), 60),
        (seconds(61), 61),
        (seconds(86_400), 86_400),
        (seconds(86_401), 86_400),
        (Duration::MAX, 86_400),
    ] {
        let mut openings = Openings::default();
        openings.learn(now, WHO, "a.org", &[(numbered(1), ttl)]);
        let just = now + seconds(open) - Duration::from_millis(1);
        assert_eq!(openings.names(just, WHO, numbered(1)), ["a.org"], "{ttl:?}");
        let after = now + seconds(open);
        assert!(openings.names(after, WHO, numbered(1)).is_empty(), "{ttl:?}");
        // What began before goes on.
        assert_eq!(openings.remembered(WHO, numbered(1)), ["a.org"]);
    }
}

#[test]
fn a_new_answer_prolongs_and_never_shortens() {
    let now = Instant::now();
    let mut openings = Openings::default();
    let at = |ttl| [(numbered(1), seconds(ttl))];
    openings.learn(now, WHO, "a.org", &at(300));
    openings.learn(now + seconds(10), WHO, "A.org", &at(60));
    assert_eq!(openings.names(now + seconds(299), WHO, numbered(1)), ["a.org"]);
    assert!(openings.names(now + seconds(300), WHO, numbered(1)).is_empty());
    openings.learn(now + seconds(400), WHO, "a.org", &at(100));
    assert_eq!(openings.names(now + seconds(499), WHO, numbered(1)), ["a.org"]);
    assert_eq!(pairs(&openings), 1);
}

#[test]
fn what_a_sender_learnt_first_goes_first_and_only_its_own() {
    let now = Instant::now();
    let mut openings = Openings::default();
    openings.learn(now, OTHER, "other.org", &[(numbered(0), seconds(60))]);
    let many: Vec<_> = (0..MAX_PER_SENDER).map(|number| (numbered(number), seconds(60))).collect();
    openings.learn(now, WHO, "a.org", &many);
    // Asked for again, so it is not the oldest any more.
    openings.learn(now, WHO, "a.org", &many[..1]);
    assert_eq!(pairs(&openings), MAX_PER_SENDER + 1);
    openings.learn(now, WHO, "b.org", &[(numbered(9_999), seconds(60))]);
    assert_eq!(pairs(&openings), MAX_PER_SENDER + 1);
    assert_eq!(openings.remembered(WHO, numbered(0)), ["a.org"]);
    assert!(openings.remembered(WHO, numbered(1)).is_empty());
    assert_eq!(openings.remembered(WHO, numbered(2)), ["a.org"]);
    assert_eq!(openings.remembered(WHO, numbered(9_999)), ["b.org"]);
    assert_eq!(openings.remembered(OTHER, numbered(0)), ["other.org"]);
}

#[test]
fn an_address_has_a_bounded_number_of_names() {
    let now = Instant::now();
    let mut openings = Openings::default();
    for number in 0..=MAX_PER_ADDRESS {
        openings.learn(now, WHO, &format!("{number}.org"), &[(numbered(1), seconds(60))]);
    }
    let names = openings.remembered(WHO, numbered(1));
    assert_eq!((names.len(), names[0]), (MAX_PER_ADDRESS, "1.org"));
    assert_eq!(pairs(&openings), MAX_PER_ADDRESS);
}

#[test]
fn all_senders_together_are_bounded() {
    let now = Instant::now();
    let mut openings = Openings::default();
    let senders = MAX + 10;
    for number in 0..senders {
        let who = Source::Container(numbered(number));
        openings.learn(now, who, "a.org", &[(numbered(1), seconds(60))]);
    }
    assert_eq!(pairs(&openings), MAX);
    assert_eq!(openings.senders.len(), MAX);
    assert!(openings.remembered(Source::Container(numbered(9)), numbered(1)).is_empty());
    assert_eq!(openings.remembered(Source::Container(numbered(10)), numbered(1)), ["a.org"]);
}

proptest::proptest! {
    /// Against a list of all answers, without bounds, which few answers do not reach.
    #[test]
    fn names_are_those_of_all_answers_that_have_not_expired(
        answers in proptest::collection::vec((0..3_usize, 0..3_usize, 0..3_usize, 0..200_u64), 0..40),
    ) {
        let start = Instant::now();
        let mut openings = Openings::default();
        for (index, (who, name, address, ttl)) in answers.iter().enumerate() {
            let now = start + seconds(10) * u32::try_from(index).expect("small");
            let who = Source::Container(numbered(*who));
            openings.learn(now, who, &format!("{name}.org"), &[(numbered(*address), seconds(*ttl))]);
        }
        let now = start + seconds(10) * u32::try_from(answers.len()).expect("small");
        for (who, address) in (0..9).map(|number| (number / 3, number % 3)) {
            let of = |fresh: bool| {
                let answers = answers.iter().enumerate().filter(|(index, answer)| {
                    let until = 10 * *index as u64 + answer.3.max(60);
                    (answer.0, answer.2) == (who, address)
                        && (!fresh || until > 10 * answers.len() as u64)
                });
                let mut names: Vec<_> = answers.map(|(_, answer)| format!("{}.org", answer.1)).collect();
                names.sort();
                names.dedup();
                names
            };
            let who = Source::Container(numbered(who));
            let mut names = openings.names(now, who, numbered(address));
            names.sort_unstable();
            assert_eq!(names, of(true));
            let mut remembered = openings.remembered(who, numbered(address));
            remembered.sort_unstable();
            assert_eq!(remembered, of(false));
        }
        pairs(&openings);
    }
}

#[test]
fn who_is_gone_leaves_nothing_behind() {
    let now = Instant::now();
    let mut openings = Openings::default();
    for who in [WHO, OTHER] {
        openings.learn(now, who, "a.org", &[(numbered(1), seconds(60))]);
    }
    openings.forget_sender(WHO);
    assert!(openings.remembered(WHO, numbered(1)).is_empty());
    assert_eq!((openings.names(now, OTHER, numbered(1)), pairs(&openings)), (vec!["a.org"], 1));
}

#[test]
fn an_address_that_nobody_was_given_is_known_to_have_no_name_unless_there_are_many_senders() {
    let now = Instant::now();
    let mut openings = Openings::default();
    openings.learn(now, WHO, "a.org", &[(numbered(1), seconds(60))]);
    openings.learn(now, OTHER, "b.org", &[(numbered(2), seconds(60))]);
    assert_eq!([1, 2, 3].map(|number| openings.may_have(numbered(number))), [true, true, false]);
    openings.forget_sender(WHO);
    assert!(!openings.may_have(numbered(1)));
    for number in 0..MAX_SENDERS_ASKED {
        let who = Source::Container(numbered(1000 + number));
        openings.learn(now, who, "c.org", &[(numbered(4), seconds(60))]);
    }
    assert!(openings.may_have(numbered(3)), "nobody looks");
}
