mod policy;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::types::{from_json, to_json};

fn traffic(base: u64) -> Traffic {
    Traffic {
        active: base,
        opened: base + 1,
        failed: base + 2,
        bytes_out: base + 3,
        bytes_in: base + 4,
    }
}

/// Statistics whose numbers are all different.
fn counters(base: u64) -> ContainerCounters {
    let (dns_queries, echo_requests, denied) = (base + 40, base + 41, base + 42);
    ContainerCounters {
        tcp: traffic(base),
        udp: traffic(base + 10),
        published_tcp: traffic(base + 20),
        published_udp: traffic(base + 30),
        events: ContainerEvents { dns_queries, echo_requests, denied },
    }
}

fn sample() -> Stats {
    Stats {
        driver: "gateway".into(),
        uptime_seconds: 61,
        restarts: 2,
        tcp: traffic(10),
        udp: traffic(20),
        events: Events {
            dialing: 3,
            dns_queries: 4,
            dns_failed: 5,
            echo_requests: 6,
            denied: 7,
            evicted: 8,
            dropped: 9,
            unattributed: 10,
        },
        ports: vec![PortTraffic {
            id: 1,
            port: "0.0.0.0:8080:80/tcp".into(),
            refused: 29,
            traffic: traffic(30),
        }],
        destinations: vec![DestinationTraffic {
            proto: "udp".into(),
            ip: "2001:db8::1".parse().unwrap(),
            port: 443,
            traffic: traffic(40),
        }],
        other_destinations: traffic(50),
        containers: vec![ContainerTraffic {
            ip: "172.17.0.2".parse().unwrap(),
            container: None,
            network: None,
            counters: counters(60),
        }],
        other_containers: counters(110),
        policy: None,
    }
}

#[test]
fn json_has_every_number_even_zero() {
    let traffic = |n: u64| {
        let [a, b, c, d, e] = [n, n + 1, n + 2, n + 3, n + 4];
        format!("\"active\":{a},\"opened\":{b},\"failed\":{c},\"bytesOut\":{d},\"bytesIn\":{e}")
    };
    let expected = format!(
        concat!(
            r#"{{"driver":"gateway","uptimeSeconds":61,"restarts":2,"tcp":{{{}}},"udp":{{{}}},"#,
            r#""events":{{"dialing":3,"dnsQueries":4,"dnsFailed":5,"echoRequests":6,"denied":7,"evicted":8,"dropped":9,"unattributed":10}},"#,
            r#""ports":[{{"id":1,"port":"0.0.0.0:8080:80/tcp","refused":29,{}}}],"#,
            r#""destinations":[{{"proto":"udp","ip":"2001:db8::1","port":443,{}}}],"otherDestinations":{{{}}},"#,
            r#""containers":[{{"ip":"172.17.0.2","tcp":{{{}}},"udp":{{{}}},"publishedTcp":{{{}}},"publishedUdp":{{{}}},"dnsQueries":100,"echoRequests":101,"denied":102}}],"otherContainers":{{"tcp":{{{}}},"udp":{{{}}},"publishedTcp":{{{}}},"publishedUdp":{{{}}},"dnsQueries":150,"echoRequests":151,"denied":152}}}}"#,
        ),
        traffic(10),
        traffic(20),
        traffic(30),
        traffic(40),
        traffic(50),
        traffic(60),
        traffic(70),
        traffic(80),
        traffic(90),
        traffic(110),
        traffic(120),
        traffic(130),
        traffic(140),
    );
    assert_eq!(to_json(&sample()), expected);
    assert_eq!(from_json::<Stats>(expected.as_bytes()).unwrap(), sample());
    let zero = to_json(&Stats::default());
    assert!(zero.contains("\"tcp\":{\"active\":0,") && zero.contains("\"ports\":[]"), "{zero}");
}

#[test]
fn what_is_missing_or_unknown_is_no_error() {
    assert_eq!(from_json::<Stats>(b"{}").unwrap(), Stats::default());
    assert_eq!(from_json::<Stats>(b"null").unwrap(), Stats::default());
    let newer = br#"{"tcp":{"active":1,"new":2},"new":[],"ports":[{"id":7,"port":"x","bytesIn":3,"new":{}}]}"#;
    let stats = from_json::<Stats>(newer).unwrap();
    assert_eq!((stats.tcp.active, stats.tcp.opened), (1, 0));
    assert_eq!((stats.ports[0].id, stats.ports[0].traffic.bytes_in), (7, 3));
    for bad in [&b"{\"restarts\":-1}"[..], b"{\"ports\":[{}]}", b"[1]", b"", b"{\"tcp\":{"] {
        assert!(from_json::<Stats>(bad).is_err(), "{bad:?}");
    }
}

/// A sample as it is checked: its name, labels and value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads OpenMetrics text and refuses whatever the specification does not allow in what we write: no timestamps, no
/// exemplars, no blank lines.
fn check(text: &str) -> Result<Vec<Sample>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let (mut families, mut seen, mut samples) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let (mut family, mut kind) = (String::new(), String::new());
    let mut described = BTreeSet::new();
    for line in body.split_terminator('\n') {
        if let Some(line) = line.strip_prefix("# ") {
            let mut words = line.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().ok_or("a short comment")?);
            let value = words.next().ok_or("a short comment")?;
            if name != family {
                if what != "TYPE" || !is_name(name) || !families.insert(name.to_owned()) {
                    return Err(format!("a family must begin with its TYPE, once: {line}"));
                }
                (family, kind) = (name.to_owned(), value.to_owned());
                described.clear();
            }
            if !described.insert(what.to_owned()) || samples_of(&samples, &family) {
                return Err(format!("twice, or behind the samples: {line}"));
            }
            match what {
                "TYPE" if ["counter", "gauge", "info"].contains(&value) => {}
                "UNIT" if family.ends_with(&format!("_{value}")) => {}
                "HELP" if !value.contains(['\\', '"']) => {}
                _ => return Err(format!("bad comment: {line}")),
            }
            continue;
        }
        let (name, labels, value) = sample_of(line)?;
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        if name != format!("{family}{suffix}") {
            return Err(format!("{name} is no sample of the {kind} {family}"));
        }
        if !described.contains("HELP") || value < 0.0 || (kind == "info" && value != 1.0) {
            return Err(format!("no help, or a bad value: {line}"));
        }
        if !seen.insert((name.clone(), labels.clone())) {
            return Err(format!("twice: {line}"));
        }
        samples.push((name, labels, value));
    }
    Ok(samples)
}

fn samples_of(samples: &[Sample], family: &str) -> bool {
    let names = [family.to_owned(), format!("{family}_total"), format!("{family}_info")];
    samples.iter().any(|(name, ..)| names.contains(name))
}

fn is_name(text: &str) -> bool {
    text.starts_with("rootlesskit_")
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn sample_of(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or_else(|| format!("no value: {line}"))?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inner.split_once("=\"").ok_or_else(|| format!("label: {line}"))?;
            let (value, after) = unescape(after).ok_or_else(|| format!("escape: {line}"))?;
            if label.is_empty() || !label.bytes().all(|b| b.is_ascii_lowercase()) {
                return Err(format!("label name: {line}"));
            }
            labels.push((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(more) => inner = more,
                None => {
                    rest = after.strip_prefix('}').ok_or_else(|| format!("brace: {line}"))?;
                    break;
                }
            }
        }
    }
    let number = rest.strip_prefix(' ').ok_or_else(|| format!("space: {line}"))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return Err(format!("number: {line}"));
    }
    Ok((name.to_owned(), labels, number.parse().map_err(|_| format!("number: {line}"))?))
}

/// The value up to its closing quote, and what follows.
fn unescape(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

#[test]
fn the_checker_refuses_bad_text() {
    let good = "# TYPE rootlesskit_x counter\n# HELP rootlesskit_x X.\nrootlesskit_x_total{a=\"b\"} 1\n# EOF\n";
    assert_eq!(check(good).unwrap().len(), 1);
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("_total", ""),
        ("# HELP rootlesskit_x X.\n", ""),
        ("# TYPE rootlesskit_x counter\n", ""),
        ("counter", "count"),
        ("rootlesskit_x", "other_x"),
        ("\"b\"", "\"b"),
        ("\"b\"", "\"\\b\""),
        ("\"b\"", "\"a\"b\""),
        ("} 1", "}1"),
        ("} 1", "} x"),
        ("} 1", "} -1"),
        ("# HELP", "# UNIT rootlesskit_x bytes\n# HELP"),
        ("# EOF", "rootlesskit_x_total{a=\"b\"} 2\n# EOF"),
        ("# EOF", "# TYPE rootlesskit_x counter\n# EOF"),
    ] {
        let bad = good.replacen(from, to, if from == "rootlesskit_x" { 9 } else { 1 });
        assert_ne!(bad, good);
        assert!(check(&bad).is_err(), "{bad}");
    }
}

#[test]
fn every_number_is_a_sample() {
    let text = openmetrics(&sample());
    let samples = check(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let find = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = samples.iter().find(|sample| sample.0 == name && sample.1 == labels);
        found.unwrap_or_else(|| panic!("no {name} {labels:?} in {text}")).2
    };
    assert_eq!(find("rootlesskit_network_info", &[("driver", "gateway")]), 1.0);
    assert_eq!(find("rootlesskit_uptime_seconds", &[]), 61.0);
    assert_eq!(find("rootlesskit_restarts_total", &[]), 2.0);
    let port = [("id", "1"), ("name", "0.0.0.0:8080:80/tcp")];
    let destination = [("proto", "udp"), ("ip", "2001:db8::1"), ("port", "443")];
    for (prefix, labels, base) in [
        ("outbound", &[("proto", "tcp")][..], 10.0),
        ("outbound", &[("proto", "udp")], 20.0),
        ("port", &port, 30.0),
        ("destination", &destination, 40.0),
        ("other_destinations", &[], 50.0),
        ("container", &[("ip", "172.17.0.2"), ("proto", "tcp")], 60.0),
        ("container", &[("ip", "172.17.0.2"), ("proto", "udp")], 70.0),
        ("container_published", &[("ip", "172.17.0.2"), ("proto", "tcp")], 80.0),
        ("container_published", &[("ip", "172.17.0.2"), ("proto", "udp")], 90.0),
        ("other_containers", &[("proto", "tcp")], 110.0),
        ("other_containers", &[("proto", "udp")], 120.0),
        ("other_containers_published", &[("proto", "tcp")], 130.0),
        ("other_containers_published", &[("proto", "udp")], 140.0),
    ] {
        for (name, offset) in [
            ("active", 0.0),
            ("opened_total", 1.0),
            ("failed_total", 2.0),
            ("out_bytes_total", 3.0),
            ("in_bytes_total", 4.0),
        ] {
            assert_eq!(find(&format!("rootlesskit_{prefix}_{name}"), labels), base + offset);
        }
    }
    for (name, value) in [
        ("dialing", 3.0),
        ("dns_queries_total", 4.0),
        ("dns_failed_total", 5.0),
        ("echo_requests_total", 6.0),
        ("denied_attempts_total", 7.0),
        ("evicted_flows_total", 8.0),
        ("dropped_packets_total", 9.0),
        ("unattributed_total", 10.0),
    ] {
        assert_eq!(find(&format!("rootlesskit_{name}"), &[]), value);
    }
    let ip = [("ip", "172.17.0.2")];
    for (prefix, labels, base) in [("container", &ip[..], 60.0), ("other_containers", &[], 110.0)] {
        for (name, offset) in
            [("dns_queries", 40.0), ("echo_requests", 41.0), ("denied_attempts", 42.0)]
        {
            let name = format!("rootlesskit_{prefix}_{name}_total");
            assert_eq!(find(&name, labels), base + offset);
        }
    }
    assert_eq!(samples.len(), 3 + 13 * 5 + 1 + 6 + 8);
    assert!(text.contains("# UNIT rootlesskit_port_in_bytes bytes\n"), "{text}");
}

#[test]
fn names_of_containers_are_labels() {
    let mut stats = sample();
    stats.containers.push(ContainerTraffic {
        ip: "fd99::2".parse().unwrap(),
        container: Some("web".into()),
        network: Some("two \"2\"".into()),
        counters: counters(1),
    });
    let text = openmetrics(&stats);
    check(&text).unwrap();
    for line in [
        r#"rootlesskit_container_opened_total{ip="fd99::2",container="web",network="two \"2\"",proto="tcp"} 2"#,
        r#"rootlesskit_container_dns_queries_total{ip="fd99::2",container="web",network="two \"2\""} 41"#,
        r#"rootlesskit_container_active{ip="172.17.0.2",proto="tcp"} 60"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
}

fn any_traffic() -> impl Strategy<Value = Traffic> {
    any::<[u64; 5]>().prop_map(|[active, opened, failed, bytes_out, bytes_in]| Traffic {
        active,
        opened,
        failed,
        bytes_out,
        bytes_in,
    })
}

proptest! {
    #[test]
    fn any_statistics_survive_json_and_are_sound_openmetrics(
        driver in any::<String>(), tcp in any_traffic(), other_destinations in any_traffic(),
        ports in prop::collection::btree_map(any::<i64>(), (any::<String>(), any::<u64>(), any_traffic()), 0..4),
        destinations in prop::collection::btree_map((any::<String>(), any::<IpAddr>(), any::<u16>()), any_traffic(), 0..4),
        containers in prop::collection::btree_map(any::<IpAddr>(), (any::<Option<String>>(), any::<Option<String>>(), any_traffic()), 0..4),
    ) {
        let ports = ports.into_iter().map(|(id, (port, refused, traffic))| {
            PortTraffic { id, port, refused, traffic }
        });
        let destinations = destinations.into_iter().map(|((proto, ip, port), traffic)| {
            DestinationTraffic { proto, ip, port, traffic }
        });
        let containers = containers.into_iter().map(|(ip, (container, network, tcp))| {
            let counters = ContainerCounters { tcp, ..ContainerCounters::default() };
            ContainerTraffic { ip, container, network, counters }
        });
        let (ports, destinations) = (ports.collect(), destinations.collect());
        let containers = containers.collect();
        let stats = Stats {
            driver, tcp, ports, destinations, other_destinations, containers, ..Stats::default()
        };
        prop_assert_eq!(&from_json::<Stats>(to_json(&stats).as_bytes()).unwrap(), &stats);
        let text = openmetrics(&stats);
        let samples = check(&text).map_err(TestCaseError::fail)?;
        let find = |name: &str| samples.iter().filter(|sample| sample.0 == name).collect::<Vec<_>>();
        prop_assert_eq!(&find("rootlesskit_network_info")[0].1[0].1, &stats.driver);
        let names: Vec<_> = find("rootlesskit_port_active").iter().map(|sample| &sample.1[1].1).collect();
        prop_assert_eq!(names, stats.ports.iter().map(|port| &port.port).collect::<Vec<_>>());
    }
}
