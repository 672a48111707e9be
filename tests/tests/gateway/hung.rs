//! A gateway process that hangs, here one that is stopped, is replaced although nobody asks it anything, and keeps nobody
//! waiting meanwhile.

use std::time::Duration;

use tests::{PATIENCE, Result, ensure, wait};

use crate::kit::{self, FLAGS, Net};

/// Well beyond the 5 s between two checks, the 10 s of silence, and a new start.
const NOTICED: Duration = PATIENCE;

#[test]
fn hung_gateway_is_replaced_although_nobody_asks_it_anything() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::with(&b, &format!("{FLAGS} -p 0.0.0.0:8080:80/tcp"))?;
    let inner = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    let old = net.gateway()?.0.pid;
    b.signal(old, "STOP")?;
    wait::until_true("another gateway runs", NOTICED, || {
        Ok(net.gateway().is_ok_and(|gateway| gateway.0.pid != old))
    })?;
    wait::until_true("the port answers", PATIENCE, || {
        Ok(b.peer("fixture get 10.77.0.1:8080").run()?.stdout == "page from 10.77.0.2\n")
    })?;
    let said = net.kit.printed()?;
    ensure!(said.contains("was killed: it did not answer Ping within 10 s"), "{said}");
    assert_eq!(net.stats()?["restarts"], 1);
    drop(inner);
    net.stop()
}

#[test]
fn hung_gateway_keeps_neither_api_nor_publishing_nor_signals_waiting() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::with(&b, &format!("{FLAGS} -p 0.0.0.0:8080:80/tcp"))?;
    let inner = kit::ready(net.inside("exec fixture http 0.0.0.0:80 page"))?;
    let old = net.gateway()?.0.pid;
    b.signal(old, "STOP")?;
    // While somebody waits for statistics, which only the gateway has.
    let stats = net.ctl("stats --json").spawn()?;
    net.ctl("add-ports 0.0.0.0:8081:80/tcp").ok()?;
    net.ctl("info").ok()?;
    assert_eq!(net.ctl("list-ports --json").ok()?.lines().count(), 2);
    net.ctl("remove-ports 1").ok()?;
    assert_eq!(net.ctl("list-ports --json").ok()?.lines().count(), 1);
    ensure!(net.gateway()?.0.pid == old, "the gateway was killed before anybody could wait for it");
    stats.wait(NOTICED)?;
    // What was published meanwhile is served by the next gateway, what was removed is not.
    wait::until_true("the new port answers", NOTICED, || {
        Ok(b.peer("fixture get 10.77.0.1:8081").run()?.stdout == "page from 10.77.0.2\n")
    })?;
    b.peer("curl -sS -m3 http://10.77.0.1:8080/").fails_with(7)?;
    drop(inner);
    // The end does not wait for one that hangs, either.
    b.signal(net.gateway()?.0.pid, "STOP")?;
    net.ctl("add-ports 0.0.0.0:8082:80/tcp").spawn()?;
    net.stop()
}

#[test]
fn hung_gateway_of_a_new_start_is_given_up_and_signals_pass() -> Result<()> {
    let b = kit::boot()?;
    let net = Net::start(&b)?;
    // The successor hangs from its first moment: it is stopped while the old one dies.
    let first = net.gateway()?.0.pid;
    b.root(&format!(
        "kill -KILL {first}
         for i in $(seq 1000); do
             for pid in $(pgrep -f '[r]ootlesskit-gateway'); do
                 [ $pid = {first} ] || {{ kill -STOP $pid; exit 0; }}
             done
         done; exit 1"
    ))
    .limit(30)
    .ok()?;
    net.ctl("info").ok()?;
    net.ctl("list-ports").ok()?;
    ensure!(
        net.gateway()?.0.state == 'T',
        "the second one was replaced before anybody could wait for it"
    );
    wait::until_true("a third one serves", NOTICED, || Ok(net.stats().is_ok()))?;
    net.stop()
}
