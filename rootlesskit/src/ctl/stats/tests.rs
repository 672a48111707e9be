mod containers;

use std::cell::RefCell;

use api::stats::{DestinationTraffic, Events, PortTraffic, Traffic};
use nix::sys::signal::{SigSet, Signal, raise};

use super::super::tests::Server;
use super::*;

fn traffic(active: u64, bytes_in: u64, bytes_out: u64) -> Traffic {
    Traffic { active, opened: active + 10, failed: active + 1, bytes_in, bytes_out }
}

fn destination(ip: &str, port: u16, traffic: Traffic) -> DestinationTraffic {
    DestinationTraffic { proto: "tcp".into(), ip: ip.parse().unwrap(), port, traffic }
}

fn sample() -> Stats {
    Stats {
        driver: "gateway".into(),
        uptime_seconds: 3725,
        restarts: 2,
        tcp: traffic(3, 5 << 20, 2048),
        udp: traffic(0, 100, 99),
        events: Events { dialing: 1, dns_queries: 42, dropped: 7, ..Events::default() },
        ports: vec![PortTraffic {
            id: 12,
            port: "0.0.0.0:8080:80/tcp".into(),
            refused: 3,
            traffic: traffic(1, 1 << 30, 0),
        }],
        destinations: vec![
            destination("192.0.2.1", 80, traffic(1, 1024, 1)),
            destination("2001:db8::1", 443, traffic(2, 4 << 20, 1024)),
        ],
        other_destinations: traffic(0, 1 << 20, 0),
        ..Stats::default()
    }
}

#[test]
fn a_table_for_people() {
    let server = Server::with(Some(sample()));
    let expected = concat!(
        "Network gateway: counters started 1h 2m 5s ago, restarted 2 times\n",
        "\n",
        "OUTBOUND  ACTIVE  OPENED  FAILED       IN      OUT\n",
        "tcp            3      13       4  5.0 MiB  2.0 KiB\n",
        "udp            0      10       1    100 B     99 B\n",
        "\n",
        "Events: connecting 1, DNS queries 42, refused 3, dropped 7\n",
        "\n",
        "ID  PUBLISHED            ACTIVE  OPENED  FAILED       IN  OUT\n",
        "12  0.0.0.0:8080:80/tcp       1      11       2  1.0 GiB  0 B\n",
        "\n",
        "PROTO  DESTINATION        ACTIVE  OPENED  FAILED       IN      OUT\n",
        "tcp    [2001:db8::1]:443       2      12       3  4.0 MiB  1.0 KiB\n",
        "tcp    192.0.2.1:80            1      11       2  1.0 KiB      1 B\n",
        "       others                  0      10       1  1.0 MiB      0 B\n",
    );
    assert_eq!(server.ok(&["stats"]), expected);

    let server = Server::with(Some(Stats { driver: "gateway".into(), ..Stats::default() }));
    let idle = server.ok(&["stats"]);
    assert!(
        idle.starts_with("Network gateway: counters started 0s ago\n\nOUTBOUND  ACTIVE"),
        "{idle}"
    );
    assert_eq!(idle.lines().count(), 5, "{idle}");
}

#[test]
fn forms_for_programs() {
    let server = Server::with(Some(sample()));
    let json = api::types::to_json(&sample()) + "\n";
    assert_eq!(server.ok(&["stats", "--json"]), json);
    assert_eq!(server.ok(&["stats", "-json=true"]), json);
    let text = server.ok(&["stats", "--openmetrics"]);
    assert_eq!(text, api::stats::openmetrics(&sample()));
}

#[test]
fn a_network_without_statistics_says_so() {
    let server = Server::with(None);
    for args in [["stats"].as_slice(), &["stats", "--json"], &["stats", "--openmetrics"]] {
        let (outcome, output) = server.run(args);
        let error = outcome.unwrap_err();
        assert!(error.contains("\"slirp4netns\"") && error.contains("--net=gateway"), "{error}");
        assert_eq!(output, "");
    }
}

fn options(args: &[&str]) -> Result<Options, String> {
    let mut args: Vec<_> = args.iter().map(OsString::from).collect();
    complete_watch(&mut args);
    let definition = super::super::definition().find_subcommand("stats").unwrap().clone();
    let (matches, rest) = super::super::read(definition, args, &mut io::sink()).unwrap();
    Options::new(&matches, &rest).map_err(|error| format!("{error:#}"))
}

#[test]
fn the_value_of_watch_may_be_left_out() {
    let every = |args: &[&str]| options(args).unwrap().every.map(|every| every.as_millis());
    assert_eq!(every(&[]), None);
    for (args, millis) in [
        (&["--watch"][..], 2000),
        (&["-watch"], 2000),
        (&["--json", "--watch"], 2000),
        (&["--watch", "--json"], 2000),
        (&["--watch=5"], 5000),
        (&["-watch=0.25"], 250),
        (&["--watch=500ms"], 500),
        (&["--watch=1m30s"], 90_000),
        (&["--watch=1.5s"], 1500),
        (&["--watch=24h"], 86_400_000),
        (&["--watch=9", "--watch"], 2000),
    ] {
        assert_eq!(every(args), Some(millis), "{args:?}");
    }
}

#[test]
fn bad_command_lines_are_explained() {
    for text in [
        "",
        "x",
        "5x",
        "-1",
        "0",
        "99ms",
        "25h",
        "1e3",
        ".",
        "1..2",
        "s",
        "5s5",
        "inf",
        "true",
        " 5",
        "99999999999999999999999h",
    ] {
        let error = options(&[&format!("--watch={text}")]).unwrap_err();
        assert!(error.starts_with(&format!("invalid value {text:?} for --watch: ")), "{error}");
        assert!(error.contains("1m30s"), "{error}");
    }
    for (args, token) in [
        (&["--watch", "5"][..], "unexpected argument \"5\": stats takes no arguments\nhint: "),
        (&["x"], "unexpected argument \"x\""),
        (&["--", "--watch"], "unexpected argument \"--watch\""),
        (&["--json", "--openmetrics"], "cannot be combined"),
        (&["--openmetrics", "--watch"], "cannot be combined"),
    ] {
        let error = options(args).unwrap_err();
        assert!(error.contains(token), "{args:?}: {error}");
    }
}

#[test]
fn rates_are_reckoned_from_the_look_before() {
    let later = |restarts| {
        let mut stats = Stats { restarts, uptime_seconds: 3727, ..sample() };
        stats.tcp.bytes_in += 8192;
        stats.ports[0].traffic.bytes_out += 2047;
        stats.destinations[1].traffic.bytes_out += 2 << 20;
        let new = destination("198.51.100.7", 22, traffic(0, 0, 0));
        stats.destinations.push(new);
        let port =
            PortTraffic { id: 13, port: "new".into(), refused: 0, traffic: traffic(0, 20, 10) };
        stats.ports.push(port);
        stats
    };
    let before = || Some((sample(), Duration::from_secs(2)));
    let text =
        view::table(&Look { stats: later(2), before: before() }, List::Destinations, Some(2));
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in {text}")).to_owned()
    };
    assert!(line("OUTBOUND").ends_with("       IN/S  OUT/S"), "{text}");
    assert!(line("tcp ").ends_with("  4.0 KiB/s  0 B/s"), "{text}");
    assert!(line("12 ").ends_with("   0 B/s  1023 B/s"), "{text}");
    assert!(line("13 ").ends_with("  10 B/s     5 B/s"), "{text}");
    assert!(line("tcp    [2001:db8::1]:443").ends_with("  0 B/s  1.0 MiB/s"), "{text}");
    assert!(!text.contains("198.51.100.7"), "{text}");
    assert!(text.ends_with("\n1 more; run without --watch to see all\n"), "{text}");

    // One that was not there: unknown, and not a burst.
    let all = view::table(&Look { stats: later(2), before: before() }, List::Destinations, Some(9));
    let new = all.lines().find(|line| line.contains("198.51.100.7")).unwrap();
    assert!(new.ends_with("      -          -"), "{all}");
    // A gateway that was replaced, and a first look: nothing to reckon from.
    for look in [Look { stats: later(3), before: before() }, Look { stats: later(2), before: None }]
    {
        let text = view::table(&look, List::Destinations, Some(9));
        assert!(!text.contains("B/s") && text.contains("IN/S"), "{text}");
    }
}

fn refused(status: u16) -> ClientError {
    ClientError::Refused { status, message: "the gateway is being replaced".into() }
}

/// Shows the looks in order and ends behind the last.
fn watch(
    json: bool,
    screen: bool,
    looks: Vec<Result<Stats, ClientError>>,
) -> (anyhow::Result<()>, String) {
    let looks = RefCell::new(looks.into_iter());
    let mut out = Vec::new();
    let outcome = Watch { json, list: List::Destinations, screen }.run(
        || looks.borrow_mut().next().unwrap(),
        &mut || Ok(looks.borrow().len() > 0),
        &mut out,
    );
    (outcome, String::from_utf8(out).unwrap())
}

#[test]
fn a_watch_shows_look_after_look() {
    let (outcome, text) = watch(false, false, vec![Ok(sample()), Ok(sample()), Ok(sample())]);
    outcome.unwrap();
    let frames: Vec<_> = text.split("---\n").collect();
    assert_eq!(frames.len(), 3, "{text}");
    assert!(frames.iter().all(|frame| frame.starts_with("Network gateway:")), "{text}");
    assert!(!frames[0].contains("0 B/s") && frames[1].contains("  0 B/s"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");

    let (_, text) = watch(false, true, vec![Ok(sample()), Ok(sample())]);
    assert_eq!(text.matches("\x1b[H\x1b[2JNetwork gateway:").count(), 2, "{text}");
    assert!(!text.contains("---"), "{text}");

    let (_, text) = watch(true, true, vec![Ok(sample()), Ok(Stats::default())]);
    let lines = [sample(), Stats::default()].map(|stats| api::types::to_json(&stats) + "\n");
    assert_eq!(text, lines.concat());
}

#[test]
fn a_watch_survives_a_gateway_that_is_replaced_and_nothing_else() {
    let (outcome, text) = watch(true, false, vec![Ok(sample()), Err(refused(500)), Ok(sample())]);
    outcome.unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    for looks in [
        vec![Err(refused(500)), Ok(sample())],
        vec![Err(refused(404)), Ok(sample())],
        vec![
            Ok(sample()),
            Err(ClientError::Timeout { path: "/s".into(), timeout: Duration::ZERO }),
            Ok(sample()),
        ],
    ] {
        let left = looks.len();
        let (outcome, text) = watch(true, false, looks);
        assert!(outcome.is_err() && text.lines().count() < left, "{text}");
    }
}

#[test]
fn a_watch_of_a_real_server_ends_with_it() {
    let mut server = Some(Server::with(Some(sample())));
    let client = server.as_ref().unwrap().client();
    let mut out = Vec::new();
    let mut end_it = || {
        server.take();
        Ok(true)
    };
    let outcome = Watch { json: true, list: List::Destinations, screen: false }.run(
        || client.stats(),
        &mut end_it,
        &mut out,
    );
    let error = outcome.unwrap_err().to_string();
    assert!(error.starts_with("no RootlessKit API socket at "), "{error}");
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 1);
}

/// A pipe whose reader is gone.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_went_away_is_told_from_other_errors() {
    let watch = Watch { json: true, list: List::Destinations, screen: false };
    let error = watch.run(|| Ok(sample()), &mut || Ok(true), &mut Broken).unwrap_err();
    assert!(super::super::is_broken_pipe(&error), "{error}");
}

#[test]
fn a_pause_ends_with_time_with_signals_and_with_the_reader() {
    let (short, long) = (Duration::from_millis(20), Duration::from_secs(60));
    let start = Instant::now();
    let pause = Pause::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    assert!(pause.wait(short, &writer).unwrap());
    assert!(start.elapsed() >= short);
    let blocked = |signal| SigSet::thread_get_mask().unwrap().contains(signal);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        assert!(!blocked(signal), "it must end the program outside of a pause");
        let set = SigSet::from_iter([signal]);
        set.thread_block().unwrap();
        // To this thread only.
        raise(signal).unwrap();
        assert!(!pause.wait(long, &writer).unwrap());
        assert!(blocked(signal), "it would end the program with an error");
        assert_eq!(set.wait().unwrap(), signal);
        assert!(pause.wait(Duration::ZERO, &writer).unwrap());
    }
    drop(reader);
    assert!(!pause.wait(long, &writer).unwrap());
    assert!(start.elapsed() < long);
}
