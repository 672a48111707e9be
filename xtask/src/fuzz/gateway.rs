//! The storm of packets against a running gateway process: a scenario of `tests/`, again and again with another seed.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask_support::stages::{self, Stages};
use xtask_support::{cargo, command, host};

use crate::test::{BOX_NEEDS, PRODUCT, ensure_machine};

/// A storm lasts so long, so that a seed which fails fails again after no longer than that.
const ROUND: Duration = Duration::from_secs(60);
/// The scenario, and its variables (`tests/tests/gateway/storm.rs`).
const SCENARIO: &str = "storm_of_malformed_packets_and_broken_connections_harms_nothing";
const SECONDS: &str = "STORM_SECONDS";
const SEED: &str = "STORM_SEED";

/// Runs storms for this time; the first has this seed, each further one the next.
pub(super) fn run(time: Duration, first: NonZeroU32) -> Result<()> {
    ensure_machine()?;
    host::ensure_programs(BOX_NEEDS)?;
    let mut stages = Stages::new(stages::LOGGED);
    stages.run("build", || {
        let mut build = cargo::build("dev")?;
        build.args(PRODUCT.iter().chain(&["tests"]).flat_map(|package| ["--package", package]));
        command::visibly(&mut build)
    })?;
    let programs = cargo::programs("dev")?;
    let mut left = time;
    for seed in first.get()..=u32::MAX {
        let seconds = left.min(ROUND).as_secs().max(1);
        stages.run(&format!("storm of {seconds} s with the seed {seed}"), || {
            let mut scenario = cargo::command();
            scenario.current_dir(cargo::workspace()?);
            scenario.args(["test", "--quiet", "--package", "tests", "--test", "gateway"]);
            scenario.args([SCENARIO, "--", "--nocapture"]);
            scenario.env(SECONDS, seconds.to_string()).env(SEED, seed.to_string());
            scenario.env("TEST_BINARIES", &programs).env("RUST_BACKTRACE", "0");
            command::visibly(&mut scenario).with_context(|| {
                format!(
                    "the gateway failed\nto repeat it: cargo xtask fuzz --only gateway --seed {seed} --minutes {}",
                    seconds.div_ceil(60)
                )
            })
        })?;
        left = left.saturating_sub(ROUND);
        if left.is_zero() {
            break;
        }
    }
    stages.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter that names no test would run none, and find nothing.
    #[test]
    fn the_scenario_and_its_variables_are_there() {
        let scenario = include_str!("../../../tests/tests/gateway/storm.rs");
        assert!(scenario.contains(&format!("fn {SCENARIO}()")));
        for variable in [SECONDS, SEED] {
            assert!(scenario.contains(&format!("{variable:?}")), "{variable}");
        }
    }
}
