//! Interleaving: in each round every side is measured once, in an order that turns, so that whatever changes on the
//! machine meanwhile meets all of them.

use anyhow::{Context, Result};

use crate::instance::Instance;
use crate::machine::Machine;
use crate::options::Options;
use crate::procs::{Quiet, pss_mb};
use crate::results::{CPU_SECONDS, MEMORY_MB};
use crate::sheet::{Sheet, Side};

/// What every part needs.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) options: &'a Options,
    pub(crate) sheet: &'a mut Sheet,
}

/// Values of one sample, each with the end of its row's name (empty for the row itself).
pub(crate) type Values = Vec<(&'static str, f64)>;

impl Bench<'_> {
    /// Enters a sample's values. A sample that fails is a note in the report.
    pub(crate) fn enter(
        &mut self,
        row: &str,
        side: Side,
        round: usize,
        take: impl FnOnce() -> Result<Values>,
    ) -> Result<()> {
        super::go_on()?;
        let quiet = Quiet::watch(self.machine.accounts.uids());
        match take() {
            Ok(values) => {
                let quiet = quiet.is();
                for (end, value) in values {
                    self.sheet.add(&format!("{row}{end}"), side, round, value, quiet);
                }
            }
            Err(error) => {
                self.machine.note(format!("{}, {row}: {error:#}", side.name()));
                self.sheet.miss(row, side, Some(round), format!("{error:#}"));
            }
        }
        Ok(())
    }

    /// Notes that nothing of a side can be measured in this part.
    pub(crate) fn leave_out(&mut self, side: Side, error: &anyhow::Error) {
        self.machine.note(format!("{error:#}"));
        self.sheet.miss("", side, None, format!("{error:#}"));
    }

    /// Measures each row of each side in turns, on forwarders that live for this part only.
    pub(crate) fn interleave(
        &mut self,
        sides: &[Side],
        rows: &[&str],
        mut measure: impl FnMut(&mut Instance, &str) -> Result<Values>,
    ) -> Result<()> {
        let mut instances = Vec::new();
        for side in sides {
            super::go_on()?;
            match Instance::start(self.machine, *side) {
                Ok(instance) => instances.push(instance),
                Err(error) if *side == Side::Ours || *side == Side::Theirs => return Err(error),
                Err(error) => self.leave_out(*side, &error),
            }
        }
        for round in 0..self.options.rounds() {
            eprintln!("    round {} of {}", round + 1, self.options.rounds());
            instances.rotate_left(1);
            for row in rows {
                for instance in &mut instances {
                    let side = instance.side;
                    self.enter(row, side, round, || measure(instance, row))?;
                }
            }
        }
        Ok(())
    }

    /// The sides that forward, those that can be had here.
    pub(crate) fn forwarders(&self, others: &[Side]) -> Vec<Side> {
        let mut sides = vec![Side::Ours, Side::Theirs];
        sides.extend(others.iter().filter(|s| **s != Side::Pasta || self.machine.pasta.is_some()));
        sides
    }
}

/// A number of a report of the load generator.
pub(crate) fn number(report: &serde_json::Value, key: &str) -> Result<f64> {
    report[key].as_f64().with_context(|| format!("the load generator says no {key}: {report}"))
}

/// The rate of a report of requests, and how long they took.
pub(crate) fn answered(report: &serde_json::Value) -> Result<Values> {
    let rows = [("", "rate"), (".p50", "p50_us"), (".p99", "p99_us")];
    rows.into_iter().map(|(end, key)| Ok((end, number(report, key)?))).collect()
}

/// What a sample cost the forwarder's processes: `each` is the processor time per unit of work, `cpu_seconds` all of it.
pub(crate) fn cost(pids: &[i32], each: f64, cpu_seconds: f64) -> Result<Values> {
    if pids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![(".cpu", each), (CPU_SECONDS, cpu_seconds), (MEMORY_MB, pss_mb(pids)?)])
}
