//! What happens on purpose: helpers are killed, and the host's name servers change.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::kit::number;
use tests::procs::{Proc, TESTER};
use tests::{PATIENCE, TestBox, containers, wait};

use crate::record::{Journal, Label, What};
use crate::world::{GATEWAY, Instance, RESOLVERS};

/// The shortest time between two deaths of a helper: one that served for 5 seconds is restarted at once.
const KILL_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest time between two changes of the name servers.
const RESOLVER_INTERVAL: Duration = Duration::from_secs(12);
/// A kill, and a change of name servers, happens every 1/PARTS of the soak.
const PARTS: u32 = 20;

/// Uses the way out of a namespace.
const CONNECT: &str = "exec fixture probe 20 tcp/10.77.0.2:80";

/// When the helpers of an instance are killed, as shares of the soak. In the other half they live on, so that growth
/// shows.
fn span(label: Label) -> [f64; 2] {
    match label {
        Label::Gateway => [0.55, 0.95],
        Label::Slirp4netns => [0.57, 0.95],
        Label::Docker => [0.1, 0.45],
    }
}

/// Whose helper is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Victim<'b> {
    Of(&'b Instance<'b>),
    OfDocker(&'b TestBox),
}

impl Victim<'_> {
    fn label(self) -> Label {
        match self {
            Self::Of(instance) => instance.kind.label,
            Self::OfDocker(_) => Label::Docker,
        }
    }

    fn b(&self) -> &TestBox {
        match self {
            Self::Of(instance) => instance.b,
            Self::OfDocker(b) => b,
        }
    }

    /// The helper that runs, if it is not the process `but`.
    fn helper(self, but: Option<i32>) -> Option<Proc> {
        let (uid, program) = match self {
            Self::Of(instance) => (instance.kind.account.uid, instance.kind.helper),
            Self::OfDocker(_) => (TESTER, GATEWAY.helper),
        };
        self.b().user_processes().into_iter().find(|p| {
            p.uid == uid && p.program() == program && p.state != 'Z' && Some(p.pid) != but
        })
    }

    /// How often its gateway process was replaced, if one answers now.
    fn restarts(self) -> Option<u64> {
        let text = match self {
            Self::Of(instance) => instance.ctl("stats --json").ok(),
            Self::OfDocker(b) => containers::rootlessctl(b, "stats --json"),
        };
        let stats: Value = serde_json::from_str(&text.ok()?).ok()?;
        Some(number(&stats, &["restarts"]))
    }

    /// Kills its helper, and waits until another one serves.
    fn lose_helper(self, journal: &Journal) -> Result<()> {
        let label = self.label();
        let found =
            wait::until(&format!("a helper of {label} runs"), PATIENCE, || Ok(self.helper(None)))?;
        let counted = || wait::until("statistics", PATIENCE, || Ok(self.restarts()));
        let before = if label == Label::Slirp4netns { 0 } else { counted()? };
        // Noted first: whatever fails from here on may have failed because of it.
        journal.note(What::Killed(label));
        self.b()
            .signal(found.pid, "KILL")
            .with_context(|| format!("killing a helper of {label}"))?;
        wait::until_true(&format!("a helper of {label} serves again"), PATIENCE, || match self {
            Self::Of(instance) if label == Label::Slirp4netns => {
                Ok(self.helper(Some(found.pid)).is_some()
                    && instance.inside(CONNECT).run()?.stdout.contains(" connected "))
            }
            _ => Ok(self.restarts().is_some_and(|restarts| restarts > before)),
        })?;
        journal.note(What::Replaced(label));
        Ok(())
    }
}

/// Kills a helper every now and then.
pub(crate) fn kill(
    victim: Victim<'_>,
    journal: &Journal,
    (start, length): (Instant, Duration),
) -> Result<()> {
    let [from, to] = span(victim.label()).map(|share| start + length.mul_f64(share));
    let interval = (length / PARTS).max(KILL_INTERVAL);
    let mut next = from;
    while next < to {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        victim.lose_helper(journal)?;
        next += interval;
    }
    Ok(())
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
