//! `rootlessctl stats`: one look at the statistics, or one after the other.

pub(super) mod pause;
pub(super) mod view;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use api::Stats;
use api::client::{Client, ClientError};
use clap::ArgMatches;
use hostenv::Env;

use crate::docker::Docker;
use pause::Pause;
use view::{List, Look};

/// What traffic may be listed by; the first is the default.
pub(super) const BY: [&str; 2] = ["destination", "container"];
/// Time between two looks if `--watch` has no value.
pub(super) const EVERY: &str = "2s";
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
/// Moves the cursor home and clears the screen (console_codes(4)).
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    form: Form,
    by_container: bool,
    every: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
    OpenMetrics,
}

/// Gives a bare `--watch` its default value: `goflags`, as Go, knows no values that may be left out.
pub(super) fn complete_watch(args: &mut [OsString]) {
    for arg in args.iter_mut().take_while(|arg| arg.to_string_lossy().starts_with('-')) {
        if *arg == "--" {
            break;
        }
        if *arg == "--watch" || *arg == "-watch" {
            *arg = format!("--watch={EVERY}").into();
        }
    }
}

impl Options {
    pub(super) fn new(matches: &ArgMatches, arguments: &[OsString]) -> anyhow::Result<Self> {
        let every = matches.get_one::<String>("watch").map(|text| interval(text)).transpose()?;
        if let Some(argument) = arguments.first() {
            let hint = if every.is_some() {
                "\nhint: write the interval with an equals sign: --watch=5s"
            } else {
                ""
            };
            bail!("unexpected argument {argument:?}: stats takes no arguments{hint}");
        }
        let form = match (matches.get_flag("json"), matches.get_flag("openmetrics")) {
            (true, true) => bail!("--json and --openmetrics cannot be combined"),
            (false, true) if every.is_some() => {
                bail!("--openmetrics and --watch cannot be combined")
            }
            (false, true) => Form::OpenMetrics,
            (true, false) => Form::Json,
            (false, false) => Form::Table,
        };
        let by = matches.get_one::<String>("by").map_or(BY[0], String::as_str);
        if !BY.contains(&by) {
            bail!("invalid value {by:?} for --by: must be {}", BY.join(" or "));
        }
        let by_container = by == BY[1];
        Ok(Self { form, by_container, every })
    }
}

/// Reads an interval: seconds, or numbers with the units ms, s, m, h in the style of Go.
fn interval(text: &str) -> anyhow::Result<Duration> {
    duration(text).filter(|interval| INTERVALS.contains(interval)).with_context(|| {
        format!("invalid value {text:?} for --watch: must be 0.1 to 86400 seconds, or a duration such as 500ms or 1m30s")
    })
}

/// A number of seconds, or numbers with units.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if text.chars().all(is_number) {
        return Duration::try_from_secs_f64(text.parse().ok()?).ok();
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, next) = behind.split_at(behind.find(is_number).unwrap_or(behind.len()));
        let seconds = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        (total, rest) = (total.checked_add(part)?, next);
    }
    Some(total)
}

/// Looks once, or until the user, or whoever reads the output, has seen enough.
pub(super) fn run(
    client: &Client,
    options: &Options,
    env: &Env,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let docker = options.by_container.then(|| Docker::of(client.socket(), env));
    let stats = || -> Result<Stats, ClientError> {
        let mut stats = client.stats()?;
        if let Some(docker) = &docker {
            docker.name(&mut stats);
        }
        Ok(stats)
    };
    let list = if options.by_container { List::Containers } else { List::Destinations };
    let Some(every) = options.every else {
        let text = match options.form {
            Form::Table => view::table(&Look { stats: stats()?, before: None }, list, None),
            Form::Json => api::types::to_json(&stats()?) + "\n",
            Form::OpenMetrics if docker.is_some() => api::stats::openmetrics(&stats()?),
            Form::OpenMetrics => client.stats_openmetrics()?,
        };
        return Ok(out.write_all(text.as_bytes())?);
    };
    let pause = Pause::new().context("cannot wait for signals")?;
    let json = options.form == Form::Json;
    let watch = Watch { json, list, screen: io::stdout().is_terminal() };
    watch.run(stats, &mut || pause.wait(every, io::stdout()), out)
}

struct Watch {
    json: bool,
    list: List,
    /// Whether a look takes the place of the one before.
    screen: bool,
}

impl Watch {
    /// Looks until `wait` says that it is enough. A gateway that is being replaced is no reason to end: once there was a
    /// look, a failure inside of the server is shown, and the next look may succeed.
    fn run(
        &self,
        mut look: impl FnMut() -> Result<Stats, ClientError>,
        wait: &mut dyn FnMut() -> io::Result<bool>,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let mut before: Option<(Stats, Instant)> = None;
        loop {
            let now = Instant::now();
            match look() {
                Ok(stats) => {
                    let first = before.is_none();
                    let before_then = before.take().map(|(stats, then)| (stats, now - then));
                    let look = Look { stats, before: before_then };
                    out.write_all(self.frame(&look, first).as_bytes())?;
                    before = Some((look.stats, now));
                }
                Err(ClientError::Refused { status: 500.., message }) if before.is_some() => {
                    // Nothing is left to do if this fails.
                    writeln!(io::stderr(), "error: {message}").ok();
                }
                Err(error) => return Err(error.into()),
            }
            out.flush()?;
            if !wait()? {
                return Ok(());
            }
        }
    }

    fn frame(&self, look: &Look, first: bool) -> String {
        if self.json {
            return api::types::to_json(&look.stats) + "\n";
        }
        let separator = match (self.screen, first) {
            (true, _) => CLEAR,
            (false, true) => "",
            (false, false) => "---\n",
        };
        format!("{separator}{}", view::table(look, self.list, Some(view::WATCHED)))
    }
}

#[cfg(test)]
mod tests;
