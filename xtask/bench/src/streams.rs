//! One TCP stream through a route, in both directions of connecting and of the bytes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::instance::{client, serve};
use crate::machine::{ADDRESS, Machine};
use crate::process::{PROCESS_TIMEOUT, Process};
use crate::procs::cpu_seconds;
use crate::rounds::{Values, cost, number};
use crate::route::Route;
use crate::sheet::Side;

/// How long the rest of a stream may take after its time, in milliseconds. Some sides never recover.
const PATIENCE_MS: &str = "1000";

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// The end of its row's name.
    pub(crate) end: &'static str,
    pub(crate) title: &'static str,
    /// Whether the namespace connects. Otherwise the machine does, to a published port.
    pub(crate) outbound: bool,
    /// Which way the bytes go as the client sees it.
    direction: &'static str,
}

/// All of them, in the order of the tables.
pub(crate) const STREAMS: [Stream; 4] = [
    Stream { end: "pub.up", title: "published, upload", outbound: false, direction: "up" },
    Stream { end: "pub.down", title: "published, download", outbound: false, direction: "down" },
    Stream { end: "out.up", title: "outbound, upload", outbound: true, direction: "up" },
    Stream { end: "out.down", title: "outbound, download", outbound: true, direction: "down" },
];

/// A route with servers at both ends, which end first.
#[derive(Debug)]
pub(crate) struct Line {
    /// In the namespace, for published ports.
    _inner: Process,
    /// On the machine.
    outer: Option<(Process, u16)>,
    pub(crate) route: Route,
}

impl Line {
    /// Starts a side. `variant` is the route's; `outbound` says whether its way out is used.
    pub(crate) fn start(
        machine: &Machine,
        side: Side,
        variant: u16,
        outbound: bool,
    ) -> Result<Self> {
        let route = Route::start(machine, side, variant)?;
        let inner = serve(machine, route.base, route.netns()?.as_deref())?;
        let outer = match side {
            Side::Loopback => None,
            // Not the ports that the route publishes.
            _ => {
                let base = route.base + 1000;
                Some((serve(machine, base, None)?, base))
            }
        };
        let this = Self { _inner: inner, outer, route };
        for out in [false, true] {
            if !out || outbound {
                this.wait_until_answered(machine, out)?;
            }
        }
        Ok(this)
    }

    fn client(&self, machine: &Machine, out: bool, mode: &str, options: &[&str]) -> Result<Value> {
        let netns = self.route.netns()?;
        let mut all = options.to_vec();
        if out {
            all.extend(["--to", ADDRESS]);
            if let Some(netns) = &netns {
                all.extend(["--netns", netns]);
            }
        }
        let outer = self.outer.as_ref().filter(|_| out).map(|(_, base)| *base);
        client(machine, mode, outer.unwrap_or(self.route.base), &all)
    }

    fn wait_until_answered(&self, machine: &Machine, out: bool) -> Result<()> {
        let end = Instant::now() + PROCESS_TIMEOUT;
        loop {
            let report = self.client(machine, out, "keep", &["--flight", "1", "--ms", "20"]);
            if report.is_ok_and(|report| report["failed"] == 0 && report["done"] != 0) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{}: nothing comes back within {PROCESS_TIMEOUT:?}: {}",
                self.route.side.name(),
                self.route.last_words()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One sample: Gbit/s, and what they cost.
    pub(crate) fn stream(&self, machine: &Machine, stream: Stream, ms: &str) -> Result<Values> {
        let options = [
            ["--direction", stream.direction],
            ["--streams", "1"],
            ["--ms", ms],
            ["--patience", PATIENCE_MS],
        ];
        let pids = self.route.pids();
        let before = cpu_seconds(&pids)?;
        let report = self.client(machine, stream.outbound, "bulk", options.as_flattened())?;
        let used = cpu_seconds(&pids)? - before;
        let bytes = number(&report, "bytes")?;
        ensure!(bytes > 0.0, "nothing arrived");
        let mut values: Values = vec![("", number(&report, "rate")? * 8.0 / 1e9)];
        if number(&report, "stalled")? == 0.0 {
            values.extend(cost(&pids, used / (bytes / 1e9), used)?);
        } else {
            // Then nobody knows how many bytes the processor time was for.
            let side = self.route.side.name();
            machine.note(format!(
                "{side}, {}: what was under way at the end took over {PATIENCE_MS} ms",
                stream.title
            ));
        }
        Ok(values)
    }
}
