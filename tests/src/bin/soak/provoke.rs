//! What happens on purpose: helpers are killed, and the host's name servers change.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::{PATIENCE, TestBox, wait};

use crate::record::{Journal, Label, What};
use crate::world::{GATEWAY, Kind, RESOLVERS, SLIRP4NETNS};

/// The shortest time between two deaths of a helper: one that served for 5 seconds is restarted at once.
const KILL_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest time between two changes of the name servers.
const RESOLVER_INTERVAL: Duration = Duration::from_secs(12);
/// How many parts of the soak are between two deaths, and between two changes.
const PARTS: u32 = 20;

/// When the helpers of an instance are killed, as shares of the soak. In the other half they live on, so that growth
/// shows.
fn span(label: Label) -> [f64; 2] {
    match label {
        Label::Gateway => [0.55, 0.95],
        Label::Slirp4netns => [0.57, 0.95],
        Label::Docker => [0.1, 0.45],
    }
}

/// Kills the helper of an instance every now and then.
pub(crate) fn kill(
    b: &TestBox,
    label: Label,
    journal: &Journal,
    (start, length): (Instant, Duration),
) -> Result<()> {
    let (uid, program) = match label {
        Label::Gateway => helper(GATEWAY),
        Label::Slirp4netns => helper(SLIRP4NETNS),
        Label::Docker => (1001, GATEWAY.helper),
    };
    let [from, to] = span(label).map(|share| start + length.mul_f64(share));
    let interval = (length / PARTS).max(KILL_INTERVAL);
    let mut next = from;
    while next < to {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let running = |but: Option<i32>| {
            let mut all = b.user_processes().into_iter();
            all.find(|p| {
                p.uid == uid && p.program() == program && p.state != 'Z' && Some(p.pid) != but
            })
        };
        let found =
            wait::until(&format!("{program} of {label} runs"), PATIENCE, || Ok(running(None)))?;
        // Noted first: whatever fails from here on may have failed because of it.
        journal.note(What::Killed(label));
        b.signal(found.pid, "KILL").with_context(|| format!("killing {program} of {label}"))?;
        let replaced = || Ok(running(Some(found.pid)));
        wait::until(&format!("{program} of {label} is replaced"), PATIENCE, replaced)?;
        journal.note(What::Replaced(label));
        next += interval;
    }
    Ok(())
}

fn helper(kind: Kind) -> (u32, &'static str) {
    (kind.account.uid, kind.helper)
}

/// Alternates between two name servers: once by writing the file, once by putting another in its place, as different
/// programs do.
pub(crate) fn change_resolvers(
    b: &TestBox,
    journal: &Journal,
    (start, length): (Instant, Duration),
) -> Result<()> {
    let interval = (length / PARTS).max(RESOLVER_INTERVAL);
    let mut turn = 0;
    let mut next = start + interval;
    while next + interval < start + length {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        turn += 1;
        let (tag, text) = RESOLVERS[turn % 2];
        if turn % 4 < 2 {
            b.write("/etc/resolv.conf", text)?;
        } else {
            b.write("/etc/resolv.conf.new", text)?;
            b.root("mv /etc/resolv.conf.new /etc/resolv.conf").ok()?;
        }
        journal.note(What::Resolver(tag.to_owned()));
        next += interval;
    }
    Ok(())
}
