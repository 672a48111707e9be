//! What must fail fails, and what may happen does not.

use super::growth::{JUDGED_SPAN, WARM_UP, slope};
use super::*;
use crate::record::{GATEWAY_PROCESS, Sample};

const HOUR: u64 = 3_600_000;

/// A process whose figures are made of the number of minutes that it has lived.
fn process(name: &str, figures: impl Fn(f64) -> [f64; 4]) -> Vec<Sample> {
    let sample = |at: u64| {
        let whole =
            figures(at as f64 / 60_000.0).map(|value| format!("{value:.0}").parse().unwrap());
        let [descriptors, threads, rss_kib, pss_kib] = whole;
        Sample {
            at,
            instance: Label::Gateway,
            process: name.to_owned(),
            pid: 7,
            descriptors,
            threads,
            rss_kib,
            pss_kib,
            cpu_s: 0.0,
        }
    };
    (0..HOUR).step_by(20_000).map(sample).collect()
}

/// Figures that do not change.
const FLAT: [f64; 4] = [100.0, 3.0, 4000.0, 3000.0];

/// A soak of an hour in which nothing happened, while answers of every kind came to the end.
fn sound() -> Record {
    let mut all = Vec::new();
    for (instances, ways, kinds) in EXPECTED {
        for instance in instances {
            for way in ways {
                all.extend(kinds.iter().map(|kind| Traffic {
                    instance: *instance,
                    way: (*way).to_owned(),
                    ..traffic(if *kind == "dns" { "dns first" } else { kind }, HOUR - 10_000, HOUR)
                }));
            }
        }
    }
    let samples = process(GATEWAY_PROCESS, |_| FLAT);
    Record { length: HOUR, samples, traffic: all, ..Record::default() }
}

fn grown_with(figures: impl Fn(f64) -> [f64; 4]) -> Vec<String> {
    of(&Record { samples: process(GATEWAY_PROCESS, figures), ..sound() }).complaints
}

/// A sound soak with this process besides.
fn with_process(samples: Vec<Sample>) -> Verdict {
    let mut record = sound();
    record.samples.extend(samples);
    of(&record)
}

fn failure(since: u64, at: u64) -> Failure {
    let (way, kind, error) = ("out, IPv4".to_owned(), "short".to_owned(), "refused".to_owned());
    Failure { since, at, instance: Label::Gateway, way, kind, wrong: false, error }
}

fn traffic(kind: &str, since: u64, at: u64) -> Traffic {
    let (way, kind) = ("out, IPv4".to_owned(), kind.to_owned());
    Traffic {
        since,
        at,
        instance: Label::Gateway,
        way,
        kind,
        done: 5,
        bytes: 0,
        repeated: 0,
        p50_us: 1,
        p99_us: 1,
        max_us: 1,
    }
}

fn killed(at: u64) -> Event {
    Event { at, what: What::Killed(Label::Gateway) }
}

fn replaced(at: u64) -> Event {
    Event { at, what: What::Replaced(Label::Gateway) }
}

fn resolver(at: u64, tag: &str) -> Event {
    Event { at, what: What::Resolver(tag.to_owned()) }
}

/// A sound soak with a death and these failures.
fn with_failures(failures: Vec<Failure>) -> Verdict {
    of(&Record { events: vec![killed(100_000), replaced(101_000)], failures, ..sound() })
}

#[test]
fn every_figure_that_grows_is_found() {
    // In an hour: 60 descriptors, 3 threads, 3 MiB.
    for (index, (name, rate)) in
        [("descriptors", 1.0), ("threads", 0.05), ("RSS", 50.0), ("PSS", 50.0)]
            .into_iter()
            .enumerate()
    {
        let complaints = grown_with(|minutes| {
            let mut figures = FLAT;
            figures[index] += rate * minutes;
            figures
        });
        let [complaint] = complaints.as_slice() else { panic!("{name}: {complaints:?}") };
        assert!(complaint.starts_with(name), "{complaint}");
    }
    assert_eq!(grown_with(|_| FLAT), Vec::<String>::new());
}

#[test]
fn growth_is_found_in_noise_and_noise_is_no_growth() {
    let noise = |minutes: f64| (minutes * 977.0).sin() * 40.0;
    assert_eq!(grown_with(|m| [300.0 + noise(m), 3.0, 4000.0, 3000.0]), Vec::<String>::new());
    assert_eq!(grown_with(|m| [300.0 + noise(m) + 2.0 * m, 3.0, 4000.0, 3000.0]).len(), 1);
}

#[test]
fn descriptors_may_grow_with_the_flows_and_no_further() {
    // 0.2 more flows per second after half an hour: 36 more are kept for three minutes.
    let flow =
        |at: u64| Traffic { done: if at > HOUR / 2 { 7 } else { 5 }, ..traffic("udp", 0, at) };
    let judged = |name: &str, growth: f64| {
        let figures = |m: f64| [100.0 + growth * m, 3.0, 4000.0, 3000.0];
        let mut record = sound();
        record.traffic.extend((10_000..HOUR).step_by(10_000).map(flow));
        record.samples.retain(|sample| sample.process != name);
        record.samples.extend(process(name, figures));
        of(&record).complaints.len()
    };
    assert_eq!((judged(GATEWAY_PROCESS, 0.8), judged(GATEWAY_PROCESS, 2.0)), (0, 1));
    // Its parent carries none.
    assert_eq!((judged("rootlesskit parent", 0.3), judged("rootlesskit parent", 0.8)), (0, 1));
}

#[test]
fn tables_of_flows_may_double_once_and_no_further() {
    // 1000 descriptors are as many flows: 440 KiB beside the bound of some 920 KiB. The quarters are 41 minutes apart.
    let figures = |kib_in_an_hour: f64| {
        move |minutes: f64| {
            let kib = 4000.0 + kib_in_an_hour * minutes / 60.0;
            [1000.0, 3.0, kib, kib]
        }
    };
    assert_eq!(grown_with(figures(1600.0)).len(), 0);
    assert_eq!(grown_with(figures(2300.0)).len(), 2);
    // A process without flows has no such tables.
    let parent = |kib| with_process(process("rootlesskit parent", figures(kib))).complaints.len();
    assert_eq!((parent(1200.0), parent(1600.0)), (0, 2));
}

#[test]
fn a_start_and_a_peak_are_no_growth() {
    let start = |m: f64| [if m < 4.0 { 50.0 * m } else { 200.0 }, 3.0, 4000.0, 3000.0];
    assert_eq!(grown_with(start), Vec::<String>::new());
    let peak = |m: f64| [if m > 58.0 { 900.0 } else { 200.0 }, 3.0, 4000.0, 3000.0];
    assert_eq!(grown_with(peak), Vec::<String>::new());
    // What each death of a helper leaves behind is growth.
    let stairs = |m: f64| [200.0 + 10.0 * (m / 5.0).floor(), 3.0, 4000.0, 3000.0];
    assert_eq!(grown_with(stairs).len(), 1);
}

#[test]
fn programs_of_others_and_short_lives_are_not_judged() {
    let growing = |m: f64| [100.0 + m * 10.0, 3.0, 4000.0, 3000.0];
    let alone = of(&sound()).judged;
    assert_eq!(alone, Figure::ALL.len());
    let verdict = with_process(process("slirp4netns", growing));
    assert_eq!((verdict.judged, verdict.is_good()), (alone, true));
    let mut short = process("rootlesskit parent", growing);
    short.retain(|sample| sample.at < WARM_UP + JUDGED_SPAN - 10_000);
    let verdict = with_process(short);
    assert_eq!((verdict.judged, verdict.is_good()), (alone, true));
    let verdict = with_process(process("rootlesskit parent", growing));
    assert_eq!((verdict.judged, verdict.is_good()), (2 * alone, false));
}

#[test]
fn a_long_soak_judges_a_gateway_process() {
    let mut record = sound();
    record.samples.retain(|sample| sample.at < WARM_UP + JUDGED_SPAN - 10_000);
    assert_eq!(of(&record).complaints.len(), 1);
    record.length = LONG - 1;
    assert!(of(&record).is_good());
}

#[test]
fn a_soak_that_was_aborted_and_a_panic_are_found() {
    let aborted = Record { aborted: Some("no room".to_owned()), ..sound() };
    assert_eq!(of(&aborted).complaints, ["the soak was aborted: no room"]);
    let panicked = Record { panics: vec!["gateway: panicked at x".to_owned()], ..sound() };
    assert_eq!(of(&panicked).complaints, ["a panic: gateway: panicked at x"]);
}

#[test]
fn a_helper_that_is_not_replaced_is_found() {
    let complaints = |events| of(&Record { events, ..sound() }).complaints.len();
    assert_eq!(complaints(vec![killed(1000), replaced(2000), killed(3000), replaced(4000)]), 0);
    assert_eq!(complaints(vec![killed(1000), replaced(2000), killed(3000)]), 1);
    assert_eq!(complaints(vec![killed(1000), killed(3000), replaced(4000)]), 1);
    let other = Event { at: 2000, what: What::Replaced(Label::Docker) };
    assert_eq!(complaints(vec![killed(1000), other]), 1);
}

#[test]
fn a_gateway_process_that_died_by_itself_is_found() {
    let mut record = sound();
    let second = |sample: &Sample| Sample { pid: 8, ..sample.clone() };
    record.samples.extend(sound().samples.iter().map(second));
    assert_eq!(of(&record).complaints.len(), 1);
    record.events = vec![killed(100_000), replaced(101_000)];
    assert!(of(&record).is_good());
}

#[test]
fn a_failure_is_excused_by_the_death_of_its_own_helper_only() {
    let excused = |failure: Failure| {
        let verdict = with_failures(vec![failure]);
        assert_eq!(verdict.excused, usize::from(verdict.is_good()), "{verdict:?}");
        verdict.is_good()
    };
    // Begun before and ended after, begun soon after.
    assert!(excused(failure(90_000, 100_010)));
    assert!(excused(failure(120_900, 124_000)));
    assert!(!excused(failure(90_000, 99_990)));
    assert!(!excused(failure(121_100, 121_200)));
    // Over a connection that is as old as the dead helper.
    assert!(excused(failure(90_000, 300_000)) && !excused(failure(122_000, 300_000)));
    assert!(!excused(Failure { instance: Label::Docker, ..failure(100_000, 100_010) }));
    assert!(!excused(Failure { wrong: true, ..failure(100_000, 100_010) }));
}

#[test]
fn ports_of_builtin_survive_the_helper() {
    let death = Event { at: 100_000, what: What::Killed(Label::Slirp4netns) };
    let of_slirp = |way: &str| Failure {
        instance: Label::Slirp4netns,
        way: way.to_owned(),
        ..failure(100_000, 100_100)
    };
    for (way, excused) in [
        ("out, IPv4", true),
        ("both", true),
        ("in, IPv4", false),
        ("in, IPv6", false),
        ("API", false),
    ] {
        assert_eq!(is_excused(&of_slirp(way), std::slice::from_ref(&death)), excused, "{way}");
    }
}

#[test]
fn answers_of_the_former_name_server_are_found() {
    let judged = |traffic| {
        let events = vec![resolver(100_000, "second"), resolver(300_000, "first")];
        stale(&Record { length: HOUR, events, traffic: vec![traffic], ..Record::default() })
    };
    assert!(judged(traffic("dns second", 130_000, 140_000)).is_empty());
    // The change is within the interval, or a moment before.
    assert!(judged(traffic("dns first", 95_000, 105_000)).is_empty());
    assert!(judged(traffic("dns first", 115_000, 125_000)).is_empty());
    assert!(judged(traffic("dns second", 301_000, 311_000)).is_empty());
    assert_eq!(judged(traffic("dns first", 130_000, 140_000)).len(), 1);
    assert_eq!(judged(traffic("dns second", 330_000, 340_000)).len(), 1);
}

#[test]
fn traffic_that_ceases_or_never_comes_is_found() {
    let changed = |length: u64, change: &dyn Fn(&mut Traffic) -> bool| {
        let mut record = sound();
        record.length = length;
        record.traffic.retain_mut(change);
        silent(&record)
    };
    let is_one =
        |t: &Traffic| (t.instance, &*t.way, &*t.kind) == (Label::Gateway, "out, IPv4", "short");
    assert!(silent(&sound()).is_empty());
    let ceased = changed(HOUR, &|t| {
        t.at = if is_one(t) { HOUR / 2 } else { t.at };
        true
    });
    assert_eq!(ceased, ["gateway, out, IPv4: no answer to short after 1800 s"]);
    // However short the soak is.
    assert_eq!(changed(30_000, &|t| !is_one(t)), ["gateway, out, IPv4: no answer to short"]);
    assert!(changed(30_000, &|_| true).is_empty());
    // One of both name servers answers.
    let mut record = sound();
    record.traffic.push(traffic("dns second", 0, 1000));
    assert!(silent(&record).is_empty());
}

#[test]
fn slopes_and_medians_are_those_of_small_examples() {
    assert_eq!(
        (median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])),
        (None, Some(2.0), Some(2.5))
    );
    let line: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), f64::from(2 * x))).collect();
    assert_eq!(slope(&line), Some(2.0));
    // One outlier changes nothing.
    let mut bent = line.clone();
    bent[4].1 = 1e6;
    assert_eq!(slope(&bent), Some(2.0));
    // Of many points, medians are enough.
    let long: Vec<(f64, f64)> = (0..100_000).map(|x| (f64::from(x), f64::from(2 * x))).collect();
    let found = slope(&long).unwrap();
    assert!((found - 2.0).abs() < 0.001, "{found}");
}
