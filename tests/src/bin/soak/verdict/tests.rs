//! What must fail fails, and what may happen does not.

use super::*;

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

fn grown(figures: impl Fn(f64) -> [f64; 4]) -> Vec<String> {
    let samples = process("rootlesskit-gateway", figures);
    of(&Record { length: HOUR, samples, ..Record::default() }).complaints
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

/// A soak of an hour in which `failures` happened, while answers came to the end.
fn with_failures(failures: Vec<Failure>) -> Verdict {
    let traffic = ["short", "keep-alive"].map(|kind| traffic(kind, HOUR - 10_000, HOUR)).to_vec();
    of(&Record {
        length: HOUR,
        events: vec![killed(100_000), replaced(101_000)],
        traffic,
        failures,
        ..Record::default()
    })
}

#[test]
fn every_figure_that_grows_is_found() {
    // In an hour: 60 descriptors, 3 threads, 3 MiB.
    let flat = [100.0, 3.0, 4000.0, 3000.0];
    for (index, (name, rate)) in
        [("descriptors", 1.0), ("threads", 0.05), ("RSS", 50.0), ("PSS", 50.0)]
            .into_iter()
            .enumerate()
    {
        let complaints = grown(|minutes| {
            let mut figures = flat;
            figures[index] += rate * minutes;
            figures
        });
        let [complaint] = complaints.as_slice() else { panic!("{name}: {complaints:?}") };
        assert!(complaint.starts_with(name), "{complaint}");
    }
    assert_eq!(grown(|_| flat), Vec::<String>::new());
}

#[test]
fn growth_is_found_in_noise_and_noise_is_no_growth() {
    let noise = |minutes: f64| (minutes * 977.0).sin() * 40.0;
    assert_eq!(grown(|m| [300.0 + noise(m), 3.0, 4000.0, 3000.0]), Vec::<String>::new());
    assert_eq!(grown(|m| [300.0 + noise(m) + 2.0 * m, 3.0, 4000.0, 3000.0]).len(), 1);
}

#[test]
fn descriptors_may_grow_with_the_flows_and_no_further() {
    // 0.2 more flows per second after half an hour: 36 more are kept for three minutes.
    let flow =
        |at: u64| Traffic { done: if at > HOUR / 2 { 7 } else { 5 }, ..traffic("udp", 0, at) };
    let judged = |growth: f64| {
        let figures = |m: f64| [100.0 + growth * m, 3.0, 4000.0, 3000.0];
        let traffic = (10_000..HOUR).step_by(10_000).map(flow).collect();
        let samples = process("rootlesskit-gateway", figures);
        of(&Record { length: HOUR, samples, traffic, ..Record::default() }).complaints.len()
    };
    assert_eq!((judged(0.8), judged(2.0)), (0, 1));
}

#[test]
fn a_start_and_a_peak_are_no_growth() {
    let start = |m: f64| [if m < 4.0 { 50.0 * m } else { 200.0 }, 3.0, 4000.0, 3000.0];
    assert_eq!(grown(start), Vec::<String>::new());
    let peak = |m: f64| [if m > 58.0 { 900.0 } else { 200.0 }, 3.0, 4000.0, 3000.0];
    assert_eq!(grown(peak), Vec::<String>::new());
    // What each death of a helper leaves behind is growth.
    let stairs = |m: f64| [200.0 + 10.0 * (m / 5.0).floor(), 3.0, 4000.0, 3000.0];
    assert_eq!(grown(stairs).len(), 1);
}

#[test]
fn programs_of_others_and_short_lives_are_not_judged() {
    let growing = |m: f64| [100.0 + m * 10.0, 3.0, 4000.0, 3000.0];
    let record = |samples| Record { length: HOUR, samples, ..Record::default() };
    let verdict = of(&record(process("slirp4netns", growing)));
    assert_eq!((verdict.judged, verdict.is_good()), (0, true));
    let mut short = process("rootlesskit parent", growing);
    short.retain(|sample| sample.at < WARM_UP + JUDGED_SPAN - 10_000);
    let verdict = of(&record(short));
    assert_eq!((verdict.judged, verdict.is_good()), (0, true));
    assert_eq!(of(&record(process("rootlesskit parent", growing))).judged, Figure::ALL.len());
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
    assert!(excused(failure(105_900, 124_000)));
    assert!(!excused(failure(90_000, 99_990)));
    assert!(!excused(failure(106_100, 106_200)));
    let kept = |since| Failure { kind: "keep-alive".to_owned(), ..failure(since, since + 10) };
    assert!(excused(kept(125_000)) && !excused(kept(127_000)));
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
    assert!(judged(traffic("dns second", 110_000, 120_000)).is_empty());
    // The change is within the interval.
    assert!(judged(traffic("dns first", 95_000, 105_000)).is_empty());
    assert!(judged(traffic("dns second", 301_000, 311_000)).is_empty());
    assert_eq!(judged(traffic("dns first", 110_000, 120_000)).len(), 1);
    assert_eq!(judged(traffic("dns second", 310_000, 320_000)).len(), 1);
}

#[test]
fn traffic_that_ceases_is_found() {
    let judged = |traffic, failures| {
        silent(&Record { length: HOUR, traffic, failures, ..Record::default() })
    };
    assert!(judged(vec![traffic("short", 0, HOUR - 1000)], vec![failure(0, 1)]).is_empty());
    assert_eq!(judged(vec![traffic("short", 0, HOUR / 2)], vec![]).len(), 1);
    // Never answered at all.
    assert_eq!(judged(vec![], vec![failure(0, 1)]).len(), 1);
    // One of both name servers answers.
    let names = ["dns first", "dns second"];
    let both = names.map(|kind| traffic(kind, 0, if kind == "dns first" { 1000 } else { HOUR }));
    assert!(judged(both.to_vec(), vec![]).is_empty());
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
}
