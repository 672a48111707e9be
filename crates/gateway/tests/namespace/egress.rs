//! The egress policy, enforced by the engine of the gateway process, which runs in a third namespace: the host's.
//!
//! The test answers in the place of the connection tracking. Whose something is follows from its port: those from 40000
//! are of the container "web", those from 50000 of "db", others of the namespace.

mod process;
pub(crate) mod rig;

use std::{
    io::ErrorKind,
    net::IpAddr,
    time::{Duration, Instant},
};

use relay::flow_log::FlowEnd;
use socket2::{Socket, Type};

use crate::world::{address, bound, connected, local, start_connect};
use rig::{
    DNS, ECHO, ECHO_V6, Gateway, LISTED, NEW, PATIENCE, PING, PING_V6, SERVER, SERVER_V6, SILENT,
    Tracking, WEB, WEB_V6, connect, datagrams, exchange, pings, query, receive,
};

const PROHIBITED: ErrorKind = ErrorKind::HostUnreachable;

#[test]
fn what_a_rule_denies_is_prohibited_at_once_and_recorded() {
    let gateway = Gateway::start(&[r#"
        [[rule]]
        name = "not web"
        action = "deny"
        from = { container = "web" }
    "#]);
    for (server, echo, ping, prohibited) in [
        (SERVER, ECHO, PING, PROHIBITED),
        (SERVER_V6, ECHO_V6, PING_V6, ErrorKind::PermissionDenied),
    ] {
        assert_eq!(connect(40_001, server).err(), Some(prohibited));
        assert_eq!(exchange(&datagrams(40_001, echo), b"hello"), Err(prohibited));
        assert_eq!(exchange(&pings(40_001, server), ping), Err(prohibited));
        for other in [50_001, 20_001] {
            exchange(&connect(other, server).unwrap(), b"hello").unwrap();
            assert_eq!(exchange(&datagrams(other, echo), b"hello").unwrap(), b"hello");
            exchange(&pings(other, server), ping).unwrap();
        }
    }
    let record = gateway.record(40_001);
    assert_eq!((record.end, record.rule.as_deref()), (FlowEnd::Denied, Some("not web")));
    assert_eq!(record.container, Some(WEB.parse().unwrap()));
    let stats = gateway.statistics.stats();
    assert_eq!((stats.events.denied, stats.events.unattributed), (6, 0));
    assert_eq!(gateway.matched(), [("not web".to_owned(), 6), ("default".to_owned(), 12)]);
    let web = stats.containers.iter().find(|of| of.ip == WEB.parse::<IpAddr>().unwrap());
    assert_eq!(web.unwrap().counters.events.denied, 3);
}

#[test]
fn in_a_dry_run_everything_goes_on_and_is_counted() {
    let gateway = Gateway::start(&["mode = \"dry-run\"\ndefault = \"deny\""]);
    exchange(&connect(40_001, SERVER).unwrap(), b"hello").unwrap();
    exchange(&datagrams(40_001, ECHO), b"hello").unwrap();
    exchange(&pings(40_001, SERVER), PING).unwrap();
    assert_eq!(gateway.matched(), [("default".to_owned(), 3)]);
    assert_eq!(gateway.statistics.stats().events.denied, 0);
}

#[test]
fn a_dry_run_marks_the_record_of_what_it_would_deny() {
    let rule = |action: &str| {
        format!(
            "mode = \"dry-run\"\ndefault = \"deny\"\n[[rule]]\nname = \"not web\"\naction = \"{action}\"\n\
             from = {{ container = \"web\" }}\n"
        )
    };
    let gateway = Gateway::start(&[&rule("deny")]);
    let all = |port| {
        exchange(&connect(port, SERVER).unwrap(), b"hello").unwrap();
        exchange(&datagrams(port, ECHO), b"hello").unwrap();
        exchange(&pings(port, SERVER), PING).unwrap();
    };
    all(40_001);
    all(50_001);
    gateway.change_with(&[&rule("allow")], &[]);
    for (port, rule) in [(40_001, "not web"), (50_001, "default")] {
        let records = [(); 2].map(|()| gateway.record(port));
        assert!(records.iter().all(|of| of.start.dry_run_rule.as_deref() == Some(rule)));
        assert!(records.iter().all(|of| of.end != FlowEnd::Denied && of.rule.is_none()));
    }
}

#[test]
fn what_another_policy_denies_is_not_marked_by_a_dry_run() {
    let dry = "mode = \"dry-run\"\ndefault = \"deny\"";
    let deny = "[[rule]]\nname = \"closed\"\naction = \"deny\"\nprotocol = \"udp\"";
    let gateway = Gateway::start(&[dry, deny]);
    assert_eq!(exchange(&datagrams(20_001, ECHO), b"hello"), Err(PROHIBITED));
    let denied = gateway.record(20_001);
    assert_eq!((denied.rule.as_deref(), denied.start.dry_run_rule), (Some("closed"), None));
}

const ONLY_BY_NAME: &str = r#"
    default = "deny"
    [[rule]]
    name = "the server"
    action = "allow"
    to = "server.example"
"#;

#[test]
fn an_answer_opens_its_addresses_for_whoever_has_asked() {
    let gateway = Gateway::start(&[ONLY_BY_NAME]);
    assert_eq!(connect(40_001, SERVER).err(), Some(PROHIBITED));
    let asking = datagrams(40_002, DNS);
    for other in ["other.example", "sub.server.example"] {
        exchange(&asking, &query(other)).unwrap();
        assert_eq!(connect(40_001, SERVER).err(), Some(PROHIBITED), "{other}");
    }
    exchange(&asking, &query("Server.Example")).unwrap();
    exchange(&connect(40_001, SERVER).unwrap(), b"hello").unwrap();
    exchange(&datagrams(40_001, ECHO), b"hello").unwrap();
    exchange(&pings(40_001, SERVER), PING).unwrap();
    for other in [50_001, 20_001] {
        assert_eq!(connect(other, SERVER).err(), Some(PROHIBITED), "{other}");
    }
    // Each that waited for its sender counts for it once.
    let stats = gateway.statistics.stats();
    let web = stats.containers.iter().find(|of| of.ip == WEB.parse::<IpAddr>().unwrap()).unwrap();
    assert_eq!((web.counters.events.dns_queries, web.counters.events.denied), (3, 3));
    assert_eq!((stats.events.dns_queries, stats.events.unattributed), (3, 0));
}

#[test]
fn a_change_ends_what_is_not_allowed_any_more_and_spares_the_rest() {
    let gateway = Gateway::start(&["default = \"allow\""]);
    let all = |port| (connect(port, SERVER).unwrap(), datagrams(port, ECHO), pings(port, SERVER));
    let goes_on = |(stream, flow, ping): &(Socket, Socket, Socket)| {
        exchange(stream, b"hello").unwrap();
        exchange(flow, b"hello").unwrap();
        exchange(ping, PING).unwrap();
    };
    let (web, db) = (all(40_001), all(50_001));
    for of in [&web, &db] {
        // Enough for a flow to leave the tun device.
        (0..20).for_each(|_| goes_on(of));
    }
    let deny_web =
        "[[rule]]\nname = \"not web\"\naction = \"deny\"\nfrom = { container = \"web\" }";
    gateway.change(&[&format!("mode = \"dry-run\"\n{deny_web}")]);
    [&web, &db].into_iter().for_each(goes_on);
    gateway.change(&[deny_web]);
    assert_eq!(receive(&web.0), Err(ErrorKind::ConnectionReset));
    assert_eq!(receive(&web.1), Err(PROHIBITED));
    assert_eq!(receive(&web.2), Err(PROHIBITED));
    for _ in 0..3 {
        let record = gateway.record(40_001);
        assert_eq!((record.end, record.rule.as_deref()), (FlowEnd::Denied, Some("not web")));
    }
    assert_eq!(exchange(&web.1, b"hello"), Err(PROHIBITED));
    goes_on(&db);
    // Names that were learned before the change still count for what goes on.
    exchange(&datagrams(50_002, DNS), &query("server.example")).unwrap();
    gateway.change(&[ONLY_BY_NAME]);
    assert_eq!(receive(&db.0), Err(ErrorKind::ConnectionReset), "nobody knew who asked");
    exchange(&datagrams(50_002, DNS), &query("server.example")).unwrap();
    let db = all(50_003);
    goes_on(&db);
    gateway.change(&[&format!("{ONLY_BY_NAME}\n[[rule]]\nname = \"other\"\naction = \"deny\"")]);
    goes_on(&db);
    gateway.change(&[]);
    goes_on(&all(40_003));
}

#[test]
fn datagrams_that_wait_for_their_sender_keep_their_order_and_are_judged_once() {
    let gateway = Gateway::start(&[r#"
        default = "deny"
        [[rule]]
        name = "web"
        action = "allow"
        from = { container = "web" }
    "#]);
    let flow = datagrams(40_001, ECHO);
    gateway.tracking(Tracking::Waits);
    for number in 0..9 {
        flow.send(&[number]).unwrap();
    }
    gateway.tracking(Tracking::Answers);
    for number in 9..12 {
        flow.send(&[number]).unwrap();
    }
    for number in 0..12 {
        assert_eq!(receive(&flow).unwrap(), [number]);
    }
    assert_eq!(gateway.matched(), [("web".to_owned(), 1), ("default".to_owned(), 0)]);
}

#[test]
fn what_is_the_same_for_all_senders_does_not_wait_for_its_sender() {
    let gateway = Gateway::start(&[r#"
        [[rule]]
        name = "closed"
        action = "deny"
        to = "192.0.2.1"
        ports = 81
        [[rule]]
        name = "others"
        action = "deny"
        from = { container = "web" }
        to = ["203.0.113.0/24", "elsewhere.example"]
    "#]);
    gateway.tracking(Tracking::Waits);
    exchange(&connect(40_001, SERVER).unwrap(), b"hello").unwrap();
    exchange(&datagrams(40_002, ECHO), b"hello").unwrap();
    assert_eq!(connect(40_003, SILENT).err(), Some(PROHIBITED));
    gateway.tracking(Tracking::Answers);
    assert_eq!(gateway.record(40_003).rule.as_deref(), Some("closed"));
}

#[test]
fn a_connection_of_an_unknown_container_is_judged_when_it_becomes_known() {
    let gateway = Gateway::start(&["default = \"allow\""]);
    gateway.tracking(Tracking::Waits);
    let [web, db] = [40_001, 50_001].map(|port| connect(port, SERVER).unwrap());
    gateway.change(&[r#"
        [[rule]]
        name = "not web"
        action = "deny"
        from = { container = "web" }
    "#]);
    exchange(&web, b"hello").unwrap();
    gateway.tracking(Tracking::Answers);
    assert_eq!(receive(&web), Err(ErrorKind::ConnectionReset));
    exchange(&db, b"hello").unwrap();
    assert_eq!(gateway.record(local(&web).port()).end, FlowEnd::Denied);
}

/// What the connection tracking cannot tell could be any container's.
#[test]
fn without_connection_tracking_rules_that_allow_senders_allow_nobody() {
    let gateway = Gateway::start(&[r#"
        default = "deny"
        [[rule]]
        name = "all that are known"
        action = "allow"
        from = { container = "*" }
        [[rule]]
        name = "the daemon"
        action = "allow"
        from = { daemon = true }
    "#]);
    exchange(&connect(20_001, SERVER).unwrap(), b"hello").unwrap();
    exchange(&connect(40_001, SERVER).unwrap(), b"hello").unwrap();
    gateway.tracking(Tracking::Fails);
    for port in [20_002, 40_002] {
        assert_eq!(connect(port, SERVER).err(), Some(PROHIBITED), "{port}");
    }
}

#[test]
fn without_connection_tracking_rules_that_deny_senders_deny_everybody_and_end_pings() {
    let gateway = Gateway::start(&["default = \"allow\""]);
    gateway.tracking(Tracking::Fails);
    let ping = pings(40_001, SERVER);
    exchange(&ping, PING).unwrap();
    gateway.change(&[r#"
        [[rule]]
        name = "not these"
        action = "deny"
        from = { address = "172.18.0.0/16" }
    "#]);
    assert_eq!(receive(&ping), Err(PROHIBITED));
    assert_eq!(connect(20_001, SERVER).err(), Some(PROHIBITED));
    gateway.tracking(Tracking::Answers);
    exchange(&connect(20_002, SERVER).unwrap(), b"hello").unwrap();
}

/// The connection tracking has forgotten the first container's.
#[test]
fn a_new_connection_between_the_ends_of_one_that_waits_is_judged_for_its_own_container() {
    let gateway = Gateway::start(&[r#"
        [[rule]]
        name = "not db"
        action = "deny"
        from = { container = "db" }
    "#]);
    let waiting = bound(Type::STREAM, "10.0.2.100:40001");
    start_connect(&waiting, address(SILENT));
    wait_until(|| gateway.statistics.stats().events.dialing == 1);
    drop(waiting);
    gateway.tracking(Tracking::Swapped);
    assert_eq!(connect(40_001, SILENT).err(), Some(PROHIBITED));
    assert_eq!(gateway.record(40_001).end, FlowEnd::ClientReset);
    assert_eq!(gateway.record(40_001).end, FlowEnd::Denied);
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Docker lists a container only when its program already runs.
#[test]
fn what_a_new_container_begins_at_first_waits_until_docker_lists_it() {
    let files: &[&str] = &[r#"
        default = "deny"
        [[rule]]
        name = "new ones"
        action = "allow"
        from = { container = ["new", "web"] }
    "#];
    let gateway = Gateway::start(files);
    let stream = bound(Type::STREAM, "10.0.2.100:30001");
    start_connect(&stream, address(SERVER));
    let flow = datagrams(30_001, ECHO);
    for number in 0..3 {
        flow.send(&[number]).unwrap();
    }
    // Who has come before is known by now.
    exchange(&connect(40_001, SERVER).unwrap(), b"hello").unwrap();
    exchange(&datagrams(40_001, ECHO), b"hello").unwrap();
    assert_eq!(gateway.matched(), [("new ones".to_owned(), 2), ("default".to_owned(), 0)]);
    gateway.change_with(files, &[LISTED, &[("new", &[NEW])]].concat());
    connected(&stream).unwrap();
    exchange(&stream, b"hello").unwrap();
    (0..3).for_each(|number| assert_eq!(receive(&flow).unwrap(), [number]));
    // Whoever is in no list is denied after a while.
    gateway.change(files);
    assert_eq!(receive(&stream), Err(ErrorKind::ConnectionReset));
    for port in [30_002, 30_003] {
        assert_eq!(connect(port, SERVER).err(), Some(PROHIBITED), "{port}");
    }
}

#[test]
fn a_name_that_was_asked_for_over_ipv4_counts_over_ipv6_too_until_its_container_is_gone() {
    let files: &[&str] = &[ONLY_BY_NAME];
    let gateway = Gateway::start(files);
    assert_eq!(connect(40_001, SERVER_V6).err(), Some(ErrorKind::PermissionDenied));
    exchange(&datagrams(40_002, DNS), &query("server.example")).unwrap();
    exchange(&connect(40_001, SERVER_V6).unwrap(), b"hello").unwrap();
    assert_eq!(
        connect(50_001, SERVER_V6).err(),
        Some(ErrorKind::PermissionDenied),
        "another container"
    );
    // Another address of a container may come and go.
    let more = [("web", &["172.16.0.9", WEB, WEB_V6][..]), LISTED[1]];
    for (port, listed) in [(40_003, &more[..]), (40_004, LISTED)] {
        gateway.change_with(files, listed);
        exchange(&connect(port, SERVER_V6).unwrap(), b"hello").unwrap();
    }
    gateway.change_with(files, &LISTED[1..]);
    gateway.change(files);
    assert_eq!(
        connect(40_005, SERVER_V6).err(),
        Some(ErrorKind::PermissionDenied),
        "one with its address"
    );
}

#[test]
fn a_flow_of_a_container_that_is_gone_is_not_anothers_that_gets_its_port() {
    let files: &[&str] =
        &["[[rule]]\nname = \"no db\"\naction = \"deny\"\nfrom = { container = \"db\" }"];
    let gateway = Gateway::start(files);
    let flow = datagrams(40_001, ECHO);
    exchange(&flow, b"hello").unwrap();
    gateway.change_with(files, &LISTED[1..]);
    let record = gateway.record(40_001);
    assert_eq!((record.end, record.container), (FlowEnd::Closed, Some(WEB.parse().unwrap())));
}

/// A container that may send raw packets can have the connection tracking forget a connection by a reset.
#[test]
fn what_the_connection_tracking_has_forgotten_is_not_the_namespaces() {
    let _gateway = Gateway::start(&[r#"
        default = "deny"
        [[rule]]
        name = "the daemon"
        action = "allow"
        from = { daemon = true }
    "#]);
    // Nobody is known yet, so perhaps there is no masquerade, and addresses are those of senders.
    exchange(&connect(60_001, SERVER).unwrap(), b"hello").unwrap();
    exchange(&connect(20_001, SERVER).unwrap(), b"hello").unwrap();
    exchange(&datagrams(20_001, ECHO), b"hello").unwrap();
    assert_eq!(connect(60_002, SERVER).err(), Some(PROHIBITED));
    assert_eq!(exchange(&datagrams(60_002, ECHO), b"hello"), Err(PROHIBITED));
}
