//! What a scenario needs from the machine, and what happens when it is not there.
//!
//! An unmet need fails the test: a suite that silently skips proves nothing. With `SKIP_UNMET=1` in the environment the
//! test is skipped instead and one line is appended to the file named by `SKIP_FILE`, which `cargo xtask test` counts.

use std::io::Write as _;

use anyhow::Result;

/// Variable that turns unmet needs into skips when it is `1`.
pub const SKIP_VARIABLE: &str = "SKIP_UNMET";

/// Variable that names the file to which skips are written.
pub const SKIP_FILE_VARIABLE: &str = "SKIP_FILE";

/// Ends the test (as a failure, or as a recorded skip) unless a condition holds: `need!(cond, "what is missing")`.
#[macro_export]
macro_rules! need {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return $crate::needs::unmet(&format!($($what)+));
        }
    };
}

/// Records an unmet need of the test that runs on this thread; see [`need!`](crate::need).
///
/// # Errors
/// Always, unless skips are allowed.
pub fn unmet(what: &str) -> Result<()> {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    if std::env::var(SKIP_VARIABLE).is_ok_and(|v| v == "1") {
        eprintln!("skipped {test}: {what}");
        if let Some(path) = std::env::var_os(SKIP_FILE_VARIABLE) {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
            writeln!(file, "{test}: {what}")?;
        }
        return Ok(());
    }
    anyhow::bail!("unmet need: {what}\nhint: set {SKIP_VARIABLE}=1 to skip such tests instead")
}
