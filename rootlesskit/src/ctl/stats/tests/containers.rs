//! What is listed by container.

use api::stats::{ContainerCounters, ContainerEvents, ContainerTraffic};

use super::*;

fn container(ip: &str, name: Option<&str>, counters: ContainerCounters) -> ContainerTraffic {
    ContainerTraffic {
        ip: ip.parse().unwrap(),
        container: name.map(str::to_owned),
        network: name.map(|_| "bridge".to_owned()),
        counters,
    }
}

fn tcp(traffic: Traffic) -> ContainerCounters {
    ContainerCounters { tcp: traffic, ..ContainerCounters::default() }
}

/// Containers without names, as a server lists them.
fn with_containers() -> Stats {
    let mut stats = sample();
    let events = ContainerEvents { denied: 3, echo_requests: 4, ..ContainerEvents::default() };
    stats.containers = vec![
        container("fd99::2", None, ContainerCounters { events, ..ContainerCounters::default() }),
        container(
            "172.17.0.2",
            None,
            ContainerCounters {
                published_udp: traffic(0, 3 << 20, 1),
                events: ContainerEvents { dns_queries: 42, ..ContainerEvents::default() },
                ..tcp(traffic(1, 1024, 1))
            },
        ),
    ];
    stats.other_containers =
        ContainerCounters { events, udp: traffic(0, 1 << 20, 0), ..ContainerCounters::default() };
    stats.events.unattributed = 7;
    stats
}

#[test]
fn a_table_of_containers() {
    let server = Server::with(Some(with_containers()));
    let text = server.ok(&["stats", "--by", "container"]);
    let expected = concat!(
        "\n",
        "CONTAINER   NETWORK  TRAFFIC        ACTIVE  OPENED  FAILED       IN  OUT\n",
        "172.17.0.2           tcp out             1      11       2  1.0 KiB  1 B\n",
        "172.17.0.2           udp published       0      10       1  3.0 MiB  1 B\n",
        "others               udp out             0      10       1  1.0 MiB  0 B\n",
        "\n",
        "CONTAINER   NETWORK  DNS QUERIES  ECHO REQUESTS  DENIED\n",
        "172.17.0.2                    42              0       0\n",
        "fd99::2                        0              4       3\n",
        "others                         0              4       3\n",
        "7 lookups failed; this traffic may be listed for the wrong address\n",
    );
    assert!(text.ends_with(expected), "{text}");
    assert!(!text.contains("DESTINATION"), "{text}");
    assert_eq!(server.ok(&["stats", "--by=destination"]), server.ok(&["stats"]));
    let json = server.ok(&["stats", "--by=container", "--json"]);
    assert_eq!(json, api::types::to_json(&with_containers()) + "\n");
    let (outcome, _) = server.run(&["stats", "--by=name"]);
    let error = outcome.unwrap_err();
    assert!(error.contains("destination") && error.contains("container"), "{error}");

    let server = Server::with(Some(Stats { driver: "gateway".into(), ..Stats::default() }));
    let idle = server.ok(&["stats", "--by", "container"]);
    assert_eq!(idle.lines().count(), 5, "{idle}");
}

#[test]
fn rates_of_containers_are_those_of_the_same_name() {
    let named = |ip, bytes| Stats {
        containers: vec![container(ip, Some("web"), tcp(traffic(0, bytes, 0)))],
        uptime_seconds: 4000,
        ..sample()
    };
    // It has got another address of its network.
    let (stats, before) = (named("172.17.0.3", 3072), named("172.17.0.2", 1024));
    let look = Look { stats, before: Some((before, Duration::from_secs(2))) };
    let text = view::table(&look, List::Containers, Some(9));
    let line = text.lines().find(|line| line.starts_with("web")).unwrap();
    assert!(line.starts_with("web        bridge   tcp out "), "{text}");
    assert!(line.ends_with("  1.0 KiB/s  0 B/s"), "{text}");
}

#[test]
fn a_container_with_two_addresses_is_one_and_the_busiest_is_first() {
    let stats = Stats {
        containers: vec![
            container("172.18.0.9", Some("small"), tcp(traffic(0, 15, 0))),
            container("172.18.0.2", Some("web"), tcp(traffic(0, 10, 0))),
            container("fd99::2", Some("web"), tcp(traffic(0, 10, 0))),
        ],
        ..sample()
    };
    let text = view::table(&Look { stats, before: None }, List::Containers, None);
    let rows: Vec<_> = text.lines().filter(|line| line.contains("tcp out")).collect();
    assert!(rows[0].starts_with("web ") && rows[0].contains(" 20 B "), "{text}");
    assert!(rows[1].starts_with("small ") && rows.len() == 2, "{text}");
}

#[test]
fn names_of_strangers_do_not_reach_the_terminal_as_they_are() {
    let name = Some("\u{1b}[31mred\u{202e}\n\u{200f}");
    let stats =
        Stats { containers: vec![container("::1", name, tcp(traffic(0, 1, 1)))], ..sample() };
    let text = view::table(&Look { stats, before: None }, List::Containers, None);
    assert!(text.contains(r"\u{1b}[31mred\u{202e}\n\u{200f}  bridge"), "{text}");
}

#[test]
fn a_watch_shows_as_many_rows_as_fit() {
    let counters = ContainerCounters {
        events: ContainerEvents { denied: 1, ..ContainerEvents::default() },
        udp: traffic(0, 1, 1),
        ..tcp(traffic(0, 1, 1))
    };
    let all = (0..9).map(|n| container(&format!("172.17.0.{n}"), None, counters)).collect();
    let stats = Stats { containers: all, ..sample() };
    let text = view::table(&Look { stats, before: None }, List::Containers, Some(7));
    assert_eq!(text.matches("172.17.0.").count(), 9, "three containers, three rows each: {text}");
    assert!(text.ends_with("\n6 more; run without --watch to see all\n"), "{text}");
}
