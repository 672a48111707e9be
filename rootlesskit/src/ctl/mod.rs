//! `rootlessctl`: the API of a running rootlesskit on the command line.
//!
//! The flags of the program come before the command and the flags of a command before its arguments, both in Go's style
//! (see `goflags`); what clap defines here is also where the help, the man page and the completions come from.

mod capture;
mod command;
mod flows;
mod policy;
mod print;
mod stats;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use api::client::Client;
use api::{PortId, PortSpec};
use clap::ArgMatches;
use hostenv::{Env, vars};

use crate::visible::visible_lines;

pub use command::definition;

const NAME: &str = "rootlessctl";

/// Entry point of the binary `rootlessctl`: 0, or 1 after an `error: ` line on standard error; 3 if help is asked for a
/// command that there is none of.
#[must_use]
pub fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let args = std::env::args_os().skip(1).collect();
    let result = run(args, &Env::current(), &mut out);
    let flushed = out.flush();
    match result.and_then(|code| flushed.context("cannot write the output").map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // It may quote another user's daemon. Nothing is left to do if this fails as well.
            write!(io::stderr(), "{}", visible_lines(&format!("error: {error:#}"))).ok();
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// Runs a command line (without `argv[0]`) and gives the exit status.
fn run(args: Vec<OsString>, env: &Env, out: &mut dyn Write) -> anyhow::Result<u8> {
    let definition = definition();
    let (global, mut rest) = read(definition.clone(), args, out)?;
    if global.get_flag("version") {
        writeln!(out, "{NAME} version {}", api::ROOTLESSKIT_VERSION)?;
        return Ok(0);
    }
    if global.get_flag("help") || rest.is_empty() {
        return help(&definition, None, out);
    }
    let name = rest.remove(0).to_string_lossy().into_owned();
    if matches!(name.as_str(), "help" | "h") {
        let topic = rest.first().map(|topic| topic.to_string_lossy());
        return help(&definition, topic.as_deref(), out);
    }
    let Some(command) = definition.find_subcommand(&name) else {
        return help(&definition, Some(&name), out);
    };
    let command = command.clone().bin_name(format!("{NAME} {name}"));
    if command.get_name() == "stats" {
        stats::complete_watch(&mut rest);
    }
    let (matches, arguments) = read(command.clone(), rest, out)?;
    if matches.get_flag("help") {
        return help(&definition, Some(&name), out);
    }
    if command.has_subcommands() {
        return policy::run(&command, arguments, &global, env, out);
    }
    let json = matches.try_get_one("json").ok().flatten().copied().unwrap_or(false);
    let client = || socket(&global, env).map(Client::new);
    match command.get_name() {
        "list-ports" => list_ports(&client()?, json, out)?,
        "add-ports" => add_ports(client, &arguments, json, out)?,
        "stats" => {
            let options = stats::Options::new(&matches, &arguments)?;
            stats::run(&client()?, &options, env, out)?;
        }
        "flows" => {
            flows::check(&matches, &arguments)?;
            flows::run(&client()?, json, env, out)?;
        }
        "remove-ports" => remove_ports(client, &arguments, out)?,
        "capture" => capture::run(&socket(&global, env)?, &matches, &arguments, env)?,
        _ => print::info(&client()?.info()?, json, out)?,
    }
    Ok(0)
}

/// Parses the flags of one level; the arguments behind them are returned as they are. A bad flag is explained on `out` as
/// Go's RootlessKit does, in addition to being an error.
fn read(
    definition: clap::Command,
    args: Vec<OsString>,
    out: &mut dyn Write,
) -> anyhow::Result<(ArgMatches, Vec<OsString>)> {
    match goflags::normalize(&definition, args) {
        Ok(mut normalized) => {
            let rest = std::mem::take(&mut normalized.rest);
            let matches = definition.try_get_matches_from(normalized.to_clap_args(NAME))?;
            Ok((matches, rest))
        }
        Err(error) => {
            let help = definition.clone().render_help();
            write!(out, "Incorrect Usage: {error}\n\n{help}")?;
            Err(error.into())
        }
    }
}

fn help(
    definition: &clap::Command,
    topic: Option<&str>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let mut command = match topic.map(|topic| (topic, definition.find_subcommand(topic))) {
        None => definition.clone(),
        Some((topic, Some(command))) => {
            let program = definition.get_bin_name().unwrap_or(NAME);
            command.clone().bin_name(format!("{program} {topic}"))
        }
        Some((topic, None)) => {
            writeln!(io::stderr(), "No help topic for '{topic}'")?;
            return Ok(3);
        }
    };
    write!(out, "{}", command.render_help())?;
    Ok(0)
}

fn socket(global: &ArgMatches, env: &Env) -> anyhow::Result<PathBuf> {
    match (global.get_one::<OsString>("socket"), env.nonempty(vars::ROOTLESSKIT_STATE_DIR)) {
        (Some(socket), _) if !socket.is_empty() => Ok(socket.into()),
        (_, Some(dir)) => Ok(Path::new(dir).join(api::SOCKET_NAME)),
        _ => bail!(
            "no RootlessKit instance specified\n\
             hint: use --socket STATE_DIR/{}, or set {} to its state directory",
            api::SOCKET_NAME,
            vars::ROOTLESSKIT_STATE_DIR
        ),
    }
}

fn list_ports(client: &Client, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut ports = client.list_ports()?;
    ports.sort_by_key(|status| status.id);
    if json {
        for status in &ports {
            writeln!(out, "{}", api::types::to_json(status))?;
        }
        return Ok(());
    }
    Ok(print::table(&ports, out)?)
}

/// Every spec is parsed before the first is published; publishing stops at the first failure, what was published stays.
fn add_ports(
    client: impl Fn() -> anyhow::Result<Client>,
    specs: &[OsString],
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if specs.is_empty() {
        bail!("no port specified");
    }
    let parse = |spec: &OsString| spec.to_string_lossy().parse::<PortSpec>();
    let specs = specs.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let client = client()?;
    for spec in specs {
        let status = client.add_port(&spec).with_context(|| format!("cannot publish {spec}"))?;
        if json {
            writeln!(out, "{}", api::types::to_json(&status))?;
        } else {
            writeln!(out, "{}", status.id)?;
        }
    }
    Ok(())
}

/// As [`add_ports`]: all are parsed, then they go one by one until one fails.
fn remove_ports(
    client: impl Fn() -> anyhow::Result<Client>,
    ids: &[OsString],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if ids.is_empty() {
        bail!("no ID specified");
    }
    let parse = |id: &OsString| -> anyhow::Result<PortId> {
        let id = id.to_string_lossy();
        id.parse().map_err(|_| {
            anyhow::anyhow!("invalid port ID {id:?}: not a number\nhint: use one of the IDs that list-ports shows")
        })
    };
    let ids = ids.iter().map(parse).collect::<anyhow::Result<Vec<_>>>()?;
    let client = client()?;
    for id in ids {
        client.remove_port(id).with_context(|| format!("cannot remove port {id}"))?;
        writeln!(out, "{id}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
