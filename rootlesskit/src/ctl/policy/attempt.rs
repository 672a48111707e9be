//! `rootlessctl policy test`: what would become of an attempt.

mod destination;
mod sender;
mod verdict;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use api::client::Client;
use clap::{ArgAction, ArgMatches};
use egress::{Directory, File, Policies, Protocol, Source};
use hostenv::Env;

use super::own::{Addresses, own};
use super::view;
use crate::docker::Docker;
use crate::policy_file;
use crate::visible::visible_lines;
use destination::{Destination, destination};
use sender::senders;
use verdict::{judge, told};

/// Judges an attempt, says so, and gives whether it would be allowed.
pub(super) fn run(
    matches: &ArgMatches,
    arguments: &[OsString],
    socket: impl Fn() -> anyhow::Result<PathBuf>,
    env: &Env,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<bool> {
    if let Some(argument) = arguments.first() {
        bail!(
            "unexpected argument {argument:?}\nhint: use policy test --from WHO --to DESTINATION"
        );
    }
    let protocol = protocol(once(matches, "protocol")?.unwrap_or_default())?;
    let from = once(matches, "from")?.context(
        "--from is missing\nhint: add --from with the name of a container, an address, or daemon",
    )?;
    let to = once(matches, "to")?
        .context("--to is missing\nhint: add --to, such as --to 192.0.2.7:443")?;
    let (destination, port) = destination(to, protocol)?;
    let docker = Docker::of(&socket().unwrap_or_default(), env);
    let files: Vec<_> = matches.get_many::<String>("file").into_iter().flatten().collect();
    let (own, addresses, policies) = if files.is_empty() {
        let client = Client::new(socket()?);
        let status = client.policy()?;
        for warning in status.files.iter().filter_map(view::outdated) {
            // The answer counts for more.
            writeln!(err, "{warning}").ok();
        }
        let own = match (&status.gateway, &destination) {
            (Some(gateway), Destination::Address(ip)) => own(gateway, protocol, *ip, port),
            _ => Ok(None),
        };
        (own, status.gateway.as_ref().map(Addresses::of), status.policies())
    } else {
        (Ok(None), None, of_files(&files, &docker)?)
    };
    if let Ok(Some(reason)) = own {
        writeln!(out, "allowed: {reason}")?;
        return Ok(true);
    }
    let addresses =
        || addresses.unwrap_or_else(|| running(&socket).unwrap_or_else(Addresses::usual));
    let senders = senders(from, &destination, addresses, || docker.directory())?;
    if from != "daemon" && senders.iter().any(|(_, source)| *source == Source::Namespace) {
        let line = format!(
            "note: {from} is the address of the namespace, so this is the same as --from daemon\n"
        );
        // The answer counts for more.
        write!(err, "{}", visible_lines(&line)).ok();
    }
    let judged = senders
        .iter()
        .map(|(who, source)| Ok((who, judge(&policies, *source, protocol, &destination, port)?)));
    let judged: Vec<_> = judged.collect::<anyhow::Result<_>>()?;
    let mut allowed = true;
    let mut before = "";
    if let Err(reason) = own {
        writeln!(out, "denied by the gateway, whatever the policy says: {reason}")?;
        (allowed, before) = (false, "note: by the policy alone, ");
    }
    for (who, judged_as) in &judged {
        let who = if judged.len() > 1 { format!("{who}: ") } else { String::new() };
        write!(out, "{}", visible_lines(&format!("{before}{who}{}", told(&policies, judged_as))))?;
        allowed &= judged_as.decision.is_allowed();
    }
    Ok(allowed)
}

/// The flags that can be given once. They collect what is given, so that [`once`] can see it.
pub(super) fn collecting(command: clap::Command) -> clap::Command {
    let flags = ["from", "to", "protocol"].into_iter();
    flags
        .fold(command, |command, flag| command.mut_arg(flag, |flag| flag.action(ArgAction::Append)))
}

/// The value of a flag of [`collecting`].
fn once<'a>(matches: &'a ArgMatches, flag: &str) -> anyhow::Result<Option<&'a str>> {
    let mut values = matches.get_many::<String>(flag).into_iter().flatten();
    let value = values.next().map(String::as_str);
    if values.next().is_some() {
        bail!("--{flag} can be used only once\nhint: run the command once for each question");
    }
    Ok(value)
}

fn protocol(text: &str) -> anyhow::Result<Protocol> {
    let mut known = Protocol::WORDS.iter();
    let found = known.find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, of)| *of);
    found
        .with_context(|| format!("invalid value {text:?} for --protocol: must be tcp, udp or icmp"))
}

/// What the files say, with the containers that Docker has now.
fn of_files(files: &[&String], docker: &Docker) -> anyhow::Result<Policies> {
    let read = files.iter().map(|file| Ok((*file, policy_file::read(Path::new(file))?)));
    let files = read.collect::<anyhow::Result<Vec<(&String, File)>>>()?;
    let directory = if files.iter().any(|(_, file)| file.names_containers()) {
        docker.directory().context("the files name containers")?
    } else {
        Directory::default()
    };
    Ok(Policies {
        policies: files.iter().map(|(path, file)| file.resolve(path, &directory)).collect(),
        known: directory.known(),
        ..Policies::default()
    })
}

/// Addresses of the network of a daemon, if one answers that could have a policy.
fn running(socket: impl Fn() -> anyhow::Result<PathBuf>) -> Option<Addresses> {
    let info = Client::new(socket().ok()?).info().ok()?;
    Addresses::of_network(&info.network_driver?)
}
