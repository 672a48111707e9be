//! F036, F043, F049 to F052, F088 to F090: every network driver with every port driver, attached and detached.
//!
//! `docs/reference/drivers.md` is what this suite found. It has to say the same; `UPDATE=1` writes it anew. What the page does not
//! show is asserted on the way: a port answers, and is closed, when the request for that returns; the API describes what
//! is there; nothing is left behind.

mod facts;
mod kit;
mod live;
mod network;
mod page;
mod ports;
mod refused;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::{Context as _, Error, Result};

use facts::Facts;
use kit::{Host, Kit};

/// All of `--net`, those that take longest first.
const NETWORKS: [&str; 8] = [
    "pasta",
    "slirp4netns",
    "gateway",
    "gvisor-tap-vsock",
    "vpnkit",
    "lxc-user-nic",
    "none",
    "host",
];

/// All of `--port-driver`.
const PORTS: [&str; 7] =
    ["none", "builtin", "implicit", "pesto", "slirp4netns", "gateway", "gvisor-tap-vsock"];

/// How many networks are looked at at a time.
const THREADS: usize = 2;

/// What one network did.
struct Column {
    network: &'static str,
    facts: Facts,
    /// For each port driver why it is refused, or what it did.
    pairs: Vec<(&'static str, Result<Facts, String>)>,
}

/// All pairs of one network, in a host of its own.
fn column(network: &'static str) -> Result<Column> {
    let host = Host::boot(network)?;
    let _services = host.services()?;
    let mut facts = Facts::default();
    let mut pairs = Vec::new();
    for port in PORTS {
        let what = || format!("--net={network} --port-driver={port}");
        if let Some(text) = refused::text(&host, port).with_context(what)? {
            pairs.push((port, Err(text)));
            continue;
        }
        let (net, served) = pair(&host, port).with_context(what)?;
        facts.agree(net).with_context(what)?;
        pairs.push((port, Ok(served)));
    }
    Ok(Column { network, facts, pairs })
}

/// One pair: what its network is like, and its ports.
fn pair(host: &Host, port: &'static str) -> Result<(Facts, Facts)> {
    let mut sides = Vec::new();
    let mut published = [None, None];
    for detached in [false, true] {
        let (mut net, mut served) = (Facts::default(), Facts::default());
        for (full, published) in [false, true].into_iter().zip(&mut published) {
            let what = || format!("detached: {detached}, with --ipv6 and the like: {full}");
            let mut one = || -> Result<()> {
                let kit = Kit::start(host, port, detached, full, published)?;
                net.agree(network::facts(&kit)?)?;
                served.agree(ports::facts(&kit)?)?;
                kit.stop()
            };
            one().with_context(what)?;
        }
        sides.push((net, served));
    }
    let (detached, attached) = (sides.pop().context("two")?, sides.pop().context("two")?);
    Ok((attached.0.beside(&detached.0)?, attached.1.beside(&detached.1)?))
}

#[test]
fn every_pair_does_what_the_page_says() -> Result<()> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // A box ends with the thread that booted it.
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            while let Some(network) = NETWORKS.get(next.fetch_add(1, Ordering::Relaxed)) {
                let column = column(network)?;
                found.lock().map_err(|_| Error::msg("a thread panicked"))?.push(column);
            }
            Ok(())
        };
        let threads = [(); THREADS].map(|()| scope.spawn(work));
        let ends = threads.map(|thread| thread.join().map_err(|_| Error::msg("it panicked"))?);
        ends.into_iter().collect()
    })?;
    let text = page::render(&found.into_inner().map_err(|_| Error::msg("a thread panicked"))?)?;
    tests::page::compare("reference/drivers.md", &text)
}
