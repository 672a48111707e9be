//! Many connections that are open and do nothing, for those who look at what that costs.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::requests::ask_once;
use crate::{Args, until_end_of_input};

/// How long one of them may take to be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens `--count` connections, each with one request behind it, and keeps them until standard input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    let to = args.address(loadgen::KEEP)?;
    let count: u64 = args.get("count")?;
    let mut held = Vec::new();
    for number in 0..count {
        let stream = ask_once(to, number, ANSWER_TIMEOUT);
        held.push(stream.with_context(|| format!("connection {} of {count}", number + 1))?);
    }
    until_end_of_input()
}
