//! `rootlesskit-docker-proxy`: stands in for `docker-proxy` under rootless Docker before release 28.
//!
//! Theory of operation. dockerd runs inside the namespaces of rootlesskit and starts one userland proxy per published port,
//! which cannot open a port of the host. So dockerd starts us: we ask the API of rootlesskit to publish the port
//! on the host and to forward it to the loopback address of the namespace, start the real `docker-proxy` on that address,
//! and stay until dockerd interrupts us or the real proxy ends. Then the port is withdrawn.
//!
//! Descriptor 3 is dockerd's status pipe: two bytes `0` newline mean that the port is served (the real proxy writes them),
//! `1` newline and a text that it is not. Without a port driver that takes ports we become the real proxy.
//!
//! dockerd 28 and later call the API themselves and never start this program.

mod args;
mod plan;
mod real;
mod status;

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use api::client::Client;
use api::{Info, PortId};
use hostenv::{Env, vars};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use plan::Plan;
use status::Status;

/// Bound for each API request: dockerd gives a proxy 16 seconds to say that it serves.
const TIMEOUT: Duration = Duration::from_secs(7);

fn main() -> ExitCode {
    // First of all, before a descriptor of our own can get the number.
    let mut status = Status::adopt();
    match run(&mut status) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = format!("{error:#}");
            status.failed(&text);
            log(&format!("error: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn run(status: &mut Status) -> anyhow::Result<u8> {
    if let Some(help) = args::help(std::env::args_os().skip(1)) {
        writeln!(io::stdout(), "{}", help.trim_end()).ok();
        return Ok(0);
    }
    let env = Env::current();
    let state_dir = env.nonempty(vars::ROOTLESSKIT_STATE_DIR).with_context(|| {
        let name = vars::ROOTLESSKIT_STATE_DIR;
        format!(
            "{name} is not set\nhint: do not run this program yourself; dockerd starts it when running under rootlesskit"
        )
    })?;
    let client = Client::new(Path::new(state_dir).join(api::SOCKET_NAME)).with_timeout(TIMEOUT);
    let info = client
        .info()
        .context("cannot get information from rootlesskit; version 0.14.0 or later is required")?;
    if !takes_ports(&info) {
        return Err(real::become_it(&real::find(&env)?, std::env::args_os().skip(1), status));
    }
    let args = args::parse(std::env::args_os().skip(1))?;
    match plan::plan(&args, &info)? {
        Plan::Skip(reason) => {
            log(&format!("warning: {reason}"));
            status.serving();
            Ok(0)
        }
        Plan::Forward { spec, real_args } => {
            let program = real::find(&env)?;
            // From here on a signal must not leave a published port behind.
            let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD])
                .context("cannot catch signals")?;
            let id = client
                .add_port(&spec)
                .with_context(|| {
                    format!("error while calling RootlessKit PortManager.AddPort() for {spec}")
                })?
                .id;
            let code = real::start(&program, &real_args, status)
                .and_then(|child| attend(child, &mut signals));
            withdraw(&client, id);
            code
        }
    }
}

/// Whether the port driver has ports to manage; `implicit` forwards every port by itself.
fn takes_ports(info: &Info) -> bool {
    info.port_driver
        .as_ref()
        .is_some_and(|driver| !matches!(driver.driver.as_str(), "" | "none" | "implicit"))
}

/// Waits for a signal, which ends the real proxy, or for the real proxy to end by itself; our exit status.
fn attend(mut child: Child, signals: &mut Signals) -> anyhow::Result<u8> {
    for signal in signals.forever() {
        if signal != SIGCHLD {
            // The docker-proxy has no state to save, and its connections end with it in any case.
            child.kill().context("cannot kill docker-proxy")?;
            child.wait().context("cannot wait for docker-proxy")?;
            return Ok(0);
        }
        if let Some(status) = child.try_wait().context("cannot wait for docker-proxy")? {
            if !status.success() {
                log(&format!("warning: docker-proxy exited: {status}"));
            }
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
    // The iterator ends only when its handle is closed, and there is no handle.
    Ok(0)
}

/// Failure is no more than a warning: rootlesskit may be gone, and the port with it.
fn withdraw(client: &Client, id: PortId) {
    if let Err(error) = client.remove_port(id) {
        log(&format!("warning: cannot remove published port {id}: {error}"));
    }
}

/// A line on standard error, which dockerd copies into its log.
fn log(message: &str) {
    writeln!(io::stderr(), "rootlesskit-docker-proxy: {message}").ok();
}
