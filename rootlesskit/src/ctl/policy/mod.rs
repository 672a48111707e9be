//! `rootlessctl policy`: the egress policy in force, and files that may become one.

mod attempt;
mod own;
mod view;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use api::client::Client;
use clap::ArgMatches;
use hostenv::Env;

use crate::policy_file;

/// The exit status for an attempt that would be denied, and if that cannot be said.
const DENIED: u8 = 1;
const UNKNOWN: u8 = 2;

/// Runs one of the commands below `policy` and gives the exit status.
pub(super) fn run(
    policy: &clap::Command,
    mut arguments: Vec<OsString>,
    global: &ArgMatches,
    env: &Env,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    if arguments.is_empty() {
        return super::help(policy, None, out);
    }
    let name = arguments.remove(0).to_string_lossy().into_owned();
    let Some(command) = policy.find_subcommand(&name) else {
        return super::help(policy, Some(&name), out);
    };
    let program = format!("{} {name}", policy.get_bin_name().unwrap_or(super::NAME));
    let command = command.clone().bin_name(program);
    let socket = || super::socket(global, env);
    if name == "test" {
        return Ok(test(policy, command, arguments, socket, env, (out, &mut io::stderr())));
    }
    let (matches, arguments) = super::read(command, arguments, out)?;
    if matches.get_flag("help") {
        return super::help(policy, Some(&name), out);
    }
    if name == "check" {
        return check(Path::new("/"), &arguments, env, (out, &mut io::stderr()));
    }
    if let Some(argument) = arguments.first() {
        bail!("unexpected argument {argument:?}: policy show takes no arguments");
    }
    let status = Client::new(socket()?).policy()?;
    if matches.get_flag("json") {
        writeln!(out, "{}", api::types::to_json(&status))?;
    } else {
        out.write_all(view::table(&status).as_bytes())?;
    }
    Ok(0)
}

/// Tries an attempt. Whoever asks must not take a wrong question for the answer that it is denied.
fn test(
    policy: &clap::Command,
    command: clap::Command,
    arguments: Vec<OsString>,
    socket: impl Fn() -> anyhow::Result<PathBuf>,
    env: &Env,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> u8 {
    let asked = || -> anyhow::Result<u8> {
        let (matches, arguments) = super::read(attempt::collecting(command), arguments, out)?;
        if matches.get_flag("help") {
            return super::help(policy, Some("test"), out);
        }
        let allowed = attempt::run(&matches, &arguments, socket, env, (&mut *out, &mut *err))?;
        Ok(if allowed { 0 } else { DENIED })
    };
    asked().unwrap_or_else(|error| {
        // Nothing is left to do if this fails.
        writeln!(err, "error: {error:#}").ok();
        UNKNOWN
    })
}

/// Reads the files, all of them whatever is wrong with one. Rules that never decide are worth a warning.
fn check(
    root: &Path,
    files: &[OsString],
    env: &Env,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<u8> {
    let mut files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    if files.is_empty() {
        files = hostenv::egress_policy::files(root, env);
    }
    if files.is_empty() {
        writeln!(out, "no egress policy: {}", searched(root, env))?;
    }
    let mut code = 0;
    for file in files {
        match policy_file::read(&file) {
            Ok(read) => {
                let rules = match read.rules() {
                    1 => "1 rule".to_owned(),
                    many => format!("{many} rules"),
                };
                let name = file.display();
                let default = read.default_action().word();
                let mode = match read.mode() {
                    egress::Mode::Enforce => "enforced",
                    egress::Mode::DryRun => "dry run",
                };
                writeln!(out, "{name}: {rules}, default {default}, {mode}")?;
                for rule in read.unreachable() {
                    writeln!(err, "warning: egress policy {name}: {rule}")?;
                }
            }
            Err(error) => {
                // Nothing is left to do if this fails.
                writeln!(err, "error: {error:#}").ok();
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Where [`hostenv::egress_policy::files`] has found nothing.
fn searched(root: &Path, env: &Env) -> String {
    const VARIABLE: &str = hostenv::vars::DOCKERD_ROOTLESS_EGRESS_POLICY;
    let system = root.join(hostenv::egress_policy::SYSTEM);
    let system = system.display();
    if env.get(VARIABLE).is_some() {
        return format!("{system} does not exist, and {VARIABLE} is empty");
    }
    match hostenv::dirs::config_home(env) {
        Ok(dir) => {
            let user = dir.join(hostenv::egress_policy::USER);
            format!("neither {system} nor {} exists", user.display())
        }
        Err(error) => {
            format!("{system} does not exist, and your own file cannot be found: {error}")
        }
    }
}

#[cfg(test)]
mod tests;
