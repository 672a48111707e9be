//! `rootlessctl flows`: the flow log, line by line.

mod names;
mod view;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::time::Instant;

use anyhow::{Context as _, bail};
use api::client::Client;
use api::flows::FlowEvent;
use clap::ArgMatches;
use hostenv::Env;

use crate::docker::Docker;

use super::stats::pause::{Over, Pause};
use names::Names;

/// Refuses a command line that does not ask to follow the log.
pub(super) fn check(matches: &ArgMatches, arguments: &[OsString]) -> anyhow::Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("unexpected argument {argument:?}: flows takes no arguments");
    }
    if !matches.get_flag("follow") {
        bail!(
            "flows requires --follow, because RootlessKit keeps no log\n\
             hint: use flows --follow to see connections as they end, or stats to see totals"
        );
    }
    Ok(())
}

/// Shows what ends until the user, or whoever reads the output, has seen enough.
pub(super) fn run(
    client: &Client,
    json: bool,
    env: &Env,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let pause = Pause::new().context("cannot wait for signals")?;
    let mut flows = client.flows()?;
    let docker = Docker::of(client.socket(), env);
    let mut names = Names::new(Instant::now(), || docker.known_names());
    if !json {
        out.write_all(view::header().as_bytes())?;
    }
    let input = flows.as_fd().try_clone_to_owned()?;
    let mut goes_on = true;
    loop {
        while let Some(mut event) = flows.next_event()? {
            if let FlowEvent::Flow(flow) = &mut event {
                names.name(Instant::now(), flow);
            }
            out.write_all(text(&event, json).as_bytes())?;
        }
        out.flush()?;
        if !goes_on {
            bail!(
                "RootlessKit has closed the flow log\nhint: run the command again when the daemon is running"
            );
        }
        let left = names.refresh(Instant::now());
        match pause.wait_for(Some(input.as_fd()), left, io::stdout())? {
            Over::Time => {}
            Over::End => return Ok(()),
            // What came with the end is told before it.
            Over::Input => goes_on = flows.fill()?,
        }
    }
}

fn text(event: &FlowEvent, json: bool) -> String {
    match event {
        // Of a later version: a script may know it, but we cannot pass on what we have not read.
        FlowEvent::Unknown => String::new(),
        event if json => api::types::to_json(event) + "\n",
        event => view::line(event),
    }
}
