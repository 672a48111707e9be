//! The results of a run as a JSON file, for a later look and for charts ([`crate::plot`]).
//!
//! The fields are those of [`Results`]. [`SCHEMA`] counts changes that a reader of older files would not understand: a
//! field that is renamed, removed or gets another meaning. New fields do not count.
//!
//! Names of rows are `PART.MEASURE`, for networks `net.PLACE.MEASURE` (`ns`: from the namespace; `box`: from a container
//! in it; `pub`: through a published port to a container).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::congestion::CongestionFacts;
use crate::machine::{Machine, MachineFacts};
use crate::options::{FAIRNESS, Options};
use crate::sheet::{Missing, Sheet, Side};
use crate::tools::Tool;
use crate::units::unit;

/// The version of the format that this program writes and reads.
pub(crate) const SCHEMA: u32 = 1;

/// Everything that one run found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// See [`SCHEMA`].
    pub(crate) schema: u32,
    /// When the run began, in UTC (RFC 3339).
    pub(crate) date: String,
    pub(crate) machine: MachineFacts,
    /// What was compared: `ours`, `theirs`, `slirp4netns`, `pasta` and, if networks were measured, `networks:
    /// slirp4netns` and `networks: docker-proxy`, or `earlier build` if one was named. Null for a program that was not found: nothing of it was measured.
    pub(crate) programs: BTreeMap<String, Option<Program>>,
    pub(crate) congestion: CongestionFacts,
    /// Whether the run was a short one (`--quick`).
    pub(crate) quick: bool,
    /// Samples per figure, by kind of part.
    pub(crate) rounds: BTreeMap<String, usize>,
    /// What else the report says.
    pub(crate) notes: Vec<String>,
    /// Why the run ended early, if it did.
    pub(crate) error: Option<String>,
    pub(crate) cells: Vec<Cell>,
    /// What could not be measured.
    pub(crate) missing: Vec<Missing>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Program {
    /// The first line that it prints for `--version`.
    pub(crate) version: String,
    /// Where it was found.
    pub(crate) origin: String,
}

impl Program {
    /// The version without the program's name.
    pub(crate) fn number(&self) -> &str {
        self.version.rsplit_once("version ").map_or(&self.version, |(_, number)| number)
    }
}

impl From<&Tool> for Program {
    fn from(tool: &Tool) -> Self {
        Self { version: tool.version.clone(), origin: tool.origin.clone() }
    }
}

/// One row of one side.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) row: String,
    /// What was measured, by its name in the tables.
    pub(crate) side: String,
    /// The unit of `median`, `min`, `max` and every `value`.
    pub(crate) unit: String,
    /// Of the undisturbed samples, if there are two.
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Whether fewer than two samples were undisturbed, so that all count.
    pub(crate) disturbed: bool,
    pub(crate) samples: Vec<Sample>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) value: f64,
    /// Whether the rest of the machine left the processors alone meanwhile.
    pub(crate) quiet: bool,
    /// Processor seconds of the forwarder's processes during the sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_seconds: Option<f64>,
    /// Memory of the forwarder's processes after the sample (PSS), in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_mb: Option<f64>,
}

/// The time of now, as [`Results::date`] has it.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The file below `target` for a run that began at `date`, for which no other was named.
pub(crate) fn default_file(target: &Path, date: &str) -> PathBuf {
    target.join("bench").join(format!("{}.json", date.replace(':', "")))
}

impl Results {
    pub(crate) fn of(
        machine: &Machine,
        options: &Options,
        sheet: &Sheet,
        date: &str,
        error: Option<String>,
    ) -> Self {
        let mut programs = BTreeMap::new();
        let mut program = |name: &str, tool: Option<&Tool>| {
            programs.insert(name.to_owned(), tool.map(Program::from));
        };
        program("ours", Some(&machine.ours));
        program("theirs", Some(&machine.theirs));
        program("slirp4netns", Some(&machine.slirp4netns));
        program("pasta", machine.pasta.as_ref());
        if machine.before.is_some() {
            program("earlier build", machine.before.as_ref());
        }
        if let Some(net) = &machine.net {
            program("networks: slirp4netns", Some(&net.slirp4netns));
            program("networks: docker-proxy", net.docker_proxy.as_ref());
        }
        let rounds = [
            ("start", options.starts()),
            ("ports", options.rounds()),
            ("memory", options.publishes()),
            ("networks", options.net_rounds()),
            ("apps", options.app_rounds()),
            ("policy", options.policy_rounds()),
            ("fairness", options.fairness_rounds()),
        ];
        let mut notes = machine.notes();
        if options.wants(FAIRNESS) {
            notes.push(format!("floods: {} packets/s", options.flood_rate()));
        }
        Self {
            schema: SCHEMA,
            date: date.to_owned(),
            machine: machine.facts(),
            programs,
            congestion: machine.congestion.borrow().facts(),
            quick: options.quick,
            rounds: rounds.map(|(part, count)| (part.to_owned(), count)).into(),
            notes,
            error,
            cells: cells(sheet),
            missing: sheet.missing().to_vec(),
        }
    }

    /// Writes it to a file whose directory is made if there is none.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("creating {}", folder.display()))?;
        }
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Reads what [`Results::write`] wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_str(text)
            .context("this is no result of cargo xtask bench, which says its schema")?;
        ensure!(
            schema == SCHEMA,
            "its schema is {schema}, and this program reads {SCHEMA}\nhint: run the benchmark again"
        );
        Ok(serde_json::from_str(text)?)
    }

    /// The figures of a row of a side.
    pub(crate) fn cell(&self, row: &str, side: Side) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.row == row && cell.side == side.name())
    }

    /// Why a row of a side has no figures.
    pub(crate) fn reason(&self, part: &str, row: &str, side: Side) -> Option<&str> {
        let mine = self.missing.iter().find(|missing| {
            missing.side == side.name()
                && if missing.row.is_empty() { missing.part == part } else { missing.row == row }
        });
        mine.map(|missing| missing.reason.as_str())
    }
}

/// Ends of rows that become a field of another row's samples, [`Sample::cpu_seconds`].
pub(crate) const CPU_SECONDS: &str = ".cpu_seconds";
/// The same of [`Sample::memory_mb`].
pub(crate) const MEMORY_MB: &str = ".memory_mb";

fn cells(sheet: &Sheet) -> Vec<Cell> {
    let rows = sheet.rows().filter(|(row, _)| !is_field(row));
    let cells = rows.filter_map(|(row, side)| {
        let spread = sheet.spread(row, side)?;
        let field = |end: &str, round: usize| {
            let samples = sheet.samples(&format!("{row}{end}"), side);
            Some(samples.iter().find(|sample| sample.round == round)?.value)
        };
        let samples = sheet.samples(row, side).iter().map(|sample| Sample {
            round: sample.round,
            value: sample.value,
            quiet: sample.quiet,
            cpu_seconds: field(CPU_SECONDS, sample.round),
            memory_mb: field(MEMORY_MB, sample.round),
        });
        Some(Cell {
            row: row.to_owned(),
            side: side.name().to_owned(),
            unit: unit(row).to_owned(),
            median: spread.median,
            min: spread.min,
            max: spread.max,
            disturbed: spread.disturbed,
            samples: samples.collect(),
        })
    });
    cells.collect()
}

fn is_field(row: &str) -> bool {
    row.ends_with(CPU_SECONDS) || row.ends_with(MEMORY_MB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_its_unit_and_every_sample_with_what_it_cost() {
        let mut sheet = Sheet::default();
        for (round, value) in [4.0, 1.0, 3.0].into_iter().enumerate() {
            sheet.add("tcp.up1", Side::Ours, round, value, true);
            sheet.add("tcp.up1.cpu", Side::Ours, round, 0.25, true);
            sheet.add("tcp.up1.cpu_seconds", Side::Ours, round, value / 4.0, true);
            sheet.add("tcp.up1.memory_mb", Side::Ours, round, 5.0, true);
            sheet.add("tcp.up1", Side::Loopback, round, 9.0, false);
        }
        let cells = cells(&sheet);
        let names: Vec<(&str, &str)> = cells.iter().map(|cell| (&*cell.row, &*cell.side)).collect();
        assert_eq!(names, [("tcp.up1", "ours"), ("tcp.up1", "loopback"), ("tcp.up1.cpu", "ours")]);
        let [ours, loopback, cpu] = cells.as_slice() else { panic!("{cells:?}") };
        assert_eq!((ours.median, ours.min, ours.max, &*ours.unit), (3.0, 1.0, 4.0, "Gbit/s"));
        let cost: Vec<_> = ours.samples.iter().map(|s| (s.cpu_seconds, s.memory_mb)).collect();
        assert_eq!(
            cost,
            [(Some(1.0), Some(5.0)), (Some(0.25), Some(5.0)), (Some(0.75), Some(5.0))]
        );
        assert!(loopback.disturbed && loopback.samples.iter().all(|s| s.memory_mb.is_none()));
        assert_eq!(cpu.unit, "CPU s/GB");
    }

    #[test]
    fn files_of_other_schemas_are_refused() {
        let error = Results::parse("{\"schema\": 2}").unwrap_err().to_string();
        assert!(error.contains("schema is 2") && error.contains("\nhint: "), "{error}");
        let error = Results::parse("{\"rows\": {}}").unwrap_err().to_string();
        assert!(error.contains("no result of cargo xtask bench"), "{error}");
    }

    #[test]
    fn the_default_file_is_named_for_the_date() {
        let file = default_file(Path::new("target"), "2026-02-03T04:05:06Z");
        assert_eq!(file, Path::new("target/bench/2026-02-03T040506Z.json"));
        assert_eq!(now().len(), "2026-02-03T04:05:06Z".len());
    }
}
