//! Rules with host names: who has asked may go there, as long as the answer holds.

use std::time::{Duration, Instant};

use tests::egress::{self, ZONE, goes_on, write};
use tests::{Result, Running, TestBox, ensure};

use super::{Egress, Who};
use crate::kit;

const POLICY: &str = r#"
    default = "deny"
    [[rule]]
    name = "shop"
    action = "allow"
    to = "shop.test"
    [[rule]]
    name = "below"
    action = "allow"
    to = "*.cdn.test"
    protocol = "tcp"
"#;

fn name_server(b: &TestBox) -> Result<Running<'_>> {
    egress::name_server(b, "shop.test 10.77.0.11 fd77::11\n")
}

/// What the gateway's resolver, or another server, answers; several lines if there are aliases.
fn ask(e: &Egress<'_>, who: Who, query: &str) -> Result<String> {
    e.command(who, &format!("dig +short +tries=3 +time=20 {query}")).ok()
}

#[test]
fn egress_a_name_opens_its_addresses_for_whom_has_asked() -> Result<()> {
    let b = kit::boot()?;
    let _server = name_server(&b)?;
    let e = Egress::start(&b, "", POLICY)?;
    let eleven = "tcp/10.77.0.11:7000";
    e.expect(Who::One, &[(eleven, "denied")])?;
    assert_eq!(ask(&e, Who::One, "shop.test @10.0.2.3")?, "10.77.0.11\n");
    // All protocols and ports, for this address and this sender only.
    e.expect(
        Who::One,
        &[
            (eleven, "open"),
            ("tcp/10.77.0.11:7010", "open"),
            ("udp/10.77.0.11:7011", "open"),
            ("tcp/10.77.0.12:7000", "denied"),
        ],
    )?;
    e.expect(Who::Two, &[(eleven, "denied")])?;
    e.expect(Who::Namespace, &[(eleven, "denied"), ("tcp/[fd77::11]:7000", "denied")])?;
    // As a program does it, with upper-case letters.
    let page = e.command(Who::Two, "fixture get Shop.TEST:7000").ok()?;
    ensure!(page.starts_with("peer from "), "{page}");
    assert_eq!(ask(&e, Who::Namespace, "AAAA shop.test @10.0.2.3")?, "fd77::11\n");
    e.expect(Who::Namespace, &[("tcp/[fd77::11]:7000", "open"), ("tcp/[fd77::2]:7000", "denied")])?;

    // The name moves: the new address opens, and the old one is still open.
    let moved = "shop.test 10.77.0.12 10.77.0.13\na.b.cdn.test 10.77.0.2\ncdn.test 10.77.0.2\nelse.test 10.77.0.2\n\
                 alias.test shop.test\nwww.cdn.test pool.example.test\npool.example.test 169.254.169.254\n";
    write(&b, ZONE, moved)?;
    assert_eq!(ask(&e, Who::One, "shop.test @10.0.2.3")?, "10.77.0.12\n10.77.0.13\n");
    e.expect(
        Who::One,
        &[("tcp/10.77.0.12:7000", "open"), ("tcp/10.77.0.13:7000", "open"), (eleven, "open")],
    )?;
    // Below a name, at any depth, but not the name itself, nor another one.
    for name in ["cdn.test", "else.test"] {
        assert_eq!(ask(&e, Who::One, &format!("{name} @10.0.2.3"))?, "10.77.0.2\n");
        e.expect(Who::One, &[("tcp/10.77.0.2:7000", "denied")])?;
    }
    assert_eq!(ask(&e, Who::One, "a.b.cdn.test @10.0.2.3")?, "10.77.0.2\n");
    e.expect(Who::One, &[("tcp/10.77.0.2:7000", "open")])?;
    // The name that was asked for counts: not what it stands for, and not what stands for it.
    ask(&e, Who::Two, "alias.test @10.0.2.3")?;
    e.expect(Who::Two, &[("tcp/10.77.0.12:7000", "denied")])?;
    let both = ask(&e, Who::Two, "www.cdn.test @10.0.2.3")?;
    ensure!(both.ends_with("169.254.169.254\n"), "{both}");
    e.expect(
        Who::Two,
        &[("tcp/169.254.169.254:7000", "open"), ("udp/169.254.169.254:7011", "denied")],
    )?;
    // A gateway process that takes over knows no names until they are asked for again.
    b.signal(e.net.gateway()?.0.pid, "KILL")?;
    e.becomes(Who::One, "tcp/10.77.0.12:7000", "denied")?;
    assert_eq!(ask(&e, Who::One, "shop.test @10.0.2.3")?, "10.77.0.12\n10.77.0.13\n");
    e.expect(Who::One, &[("tcp/10.77.0.12:7000", "open")])?;
    // `policy test` takes names.
    for (to, code) in
        [("shop.test:7000", 0), ("x.cdn.test:443", 0), ("cdn.test:443", 1), ("else.test:443", 1)]
    {
        let (found, said) = e.tested(super::ONE, to, "tcp")?;
        ensure!(found == code, "{to}: {said}");
    }
    // It does not know which names a container has looked up, and says what that may change.
    let (found, said) = e.tested(super::ONE, "10.77.0.12:7000", "tcp")?;
    let note = "\nnote: rule \"shop\" of ";
    ensure!(
        found == 1 && said.starts_with("denied by the default of ") && said.contains(note),
        "{said}"
    );
    e.stop()
}

#[test]
fn egress_answers_over_tcp_and_of_other_servers_open_nothing() -> Result<()> {
    let b = kit::boot()?;
    let _server = name_server(&b)?;
    let server =
        "[[rule]]\nname = 'their own server'\naction = 'allow'\nto = '10.77.0.2'\nports = 53\n";
    let e = Egress::start(&b, "", &format!("{POLICY}{server}"))?;
    let eleven = "tcp/10.77.0.11:7000";
    for query in ["+tcp shop.test @10.0.2.3", "shop.test @10.77.0.2"] {
        assert_eq!(ask(&e, Who::One, query)?, "10.77.0.11\n");
        e.expect(Who::One, &[(eleven, "denied")])?;
    }
    ask(&e, Who::One, "shop.test @10.0.2.3")?;
    e.expect(Who::One, &[(eleven, "open")])?;
    e.stop()
}

/// A record that is valid for a second counts for a minute.
#[test]
fn egress_an_address_closes_when_its_record_is_old_and_connections_go_on() -> Result<()> {
    let b = kit::boot()?;
    let _server = name_server(&b)?;
    let e = Egress::start(&b, "", POLICY)?;
    let eleven = "tcp/10.77.0.11:7000";
    let asked = Instant::now();
    ask(&e, Who::One, "shop.test @10.0.2.3")?;
    e.expect(Who::One, &[(eleven, "open")])?;
    let mut stream = e.keep(Who::One, "tcp", "10.77.0.11:7010")?;
    let mut flow = e.keep(Who::One, "udp", "10.77.0.11:7011")?;
    write(&b, ZONE, "shop.test 10.77.0.12\n")?;
    // Another answer does not make the old one older.
    ask(&e, Who::One, "shop.test @10.0.2.3")?;
    e.becomes(Who::One, eleven, "denied")?;
    let after = asked.elapsed();
    ensure!(after >= Duration::from_secs(55), "it closes after {after:?}");
    for kept in [&mut stream, &mut flow] {
        goes_on(kept)?;
    }
    // A change of the file that is none to them leaves them alone, old as their names are.
    write(
        &b,
        super::FILE,
        &format!(
            "{POLICY}# the same\n[[rule]]\nname = 'more'\naction = 'allow'\nto = '10.77.0.13'"
        ),
    )?;
    e.becomes(Who::One, "tcp/10.77.0.13:7000", "open")?;
    for kept in [&mut stream, &mut flow] {
        goes_on(kept)?;
    }
    drop((stream, flow));
    e.stop()
}
