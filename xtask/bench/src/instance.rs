//! One forwarder with a server behind it, under one of the five names that [`Side`] has for what forwards.
//!
//! The target of each is cat(1) on a pipe that this process holds: when the pipe closes, the target ends, and what
//! started it follows in its own good time. The same holds for servers and proxies, so even an abrupt end of the
//! benchmark leaves nothing running.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use loadgen::{TCP_PORTS, UDP_PORTS};
use serde_json::Value;

use crate::machine::Machine;
use crate::process::{Killed, PROCESS_TIMEOUT, Process};
use crate::procs;
use crate::sheet::Side;

/// A forwarder and the server behind it. Fields end in this order.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) side: Side,
    /// The first port of the server, inside and outside.
    pub(crate) base: u16,
    /// Whose processor time and memory count.
    pub(crate) pids: Vec<i32>,
    /// Of rootlesskit.
    state: Option<PathBuf>,
    server: Option<Process>,
    _proxy: Option<Process>,
    _pasta: Option<Killed>,
    holder: Option<Process>,
}

impl Instance {
    /// Starts a forwarder of this kind with its ports published.
    pub(crate) fn start(machine: &Machine, side: Side) -> Result<Self> {
        let base = base(side);
        let mut this = match side {
            Side::Ours | Side::Theirs => {
                let tcp = TCP_PORTS.map(|offset| format!("{}/tcp", base + offset));
                let udp = UDP_PORTS.map(|offset| format!("{}/udp", base + offset));
                let specs = tcp.iter().chain(&udp).map(|port| {
                    let number = port.split('/').next().unwrap_or_default();
                    format!("127.0.0.1:{number}:{port}")
                });
                rootlesskit(machine, side, &specs.collect::<Vec<_>>())
            }
            Side::Splice | Side::Pasta | Side::Floor => between(machine, side),
            Side::Loopback => Ok(Self::empty(side)),
            _ => bail!("{} is a network, not a forwarder of ports", side.name()),
        }
        .with_context(|| format!("starting {}", side.name()))?;
        this.serve(machine)?;
        if let Err(error) = this.wait_until_it_forwards(machine) {
            return Err(error.context(format!("{}: {}", side.name(), last_words(machine, side))));
        }
        machine.pin_forwarder(&this.pids)?;
        Ok(this)
    }

    fn empty(side: Side) -> Self {
        let (pids, state, server, holder) = (Vec::new(), None, None, None);
        let base = base(side);
        Self { side, base, pids, state, server, holder, _proxy: None, _pasta: None }
    }

    /// rootlesskit alone: no ports, no server.
    pub(crate) fn bare(machine: &Machine, side: Side) -> Result<Self> {
        rootlesskit(machine, side, &[]).with_context(|| format!("starting {}", side.name()))
    }

    /// The socket of its API.
    pub(crate) fn api(&self) -> Result<PathBuf> {
        Ok(self.state.as_ref().context("no state directory")?.join("api.sock"))
    }

    /// Starts the server where the forwarder leads to.
    pub(crate) fn serve(&mut self, machine: &Machine) -> Result<()> {
        let netns = self.holder.as_ref().map(namespace).transpose()?;
        self.server = Some(serve(machine, self.base, netns.as_deref())?);
        Ok(())
    }

    /// Datagrams that the server counted so far, and its clock in seconds.
    pub(crate) fn counted(&mut self) -> Result<(f64, f64)> {
        self.server.as_mut().context("no server")?.counted()
    }

    fn wait_until_it_forwards(&self, machine: &Machine) -> Result<()> {
        let end = Instant::now() + PROCESS_TIMEOUT;
        loop {
            // Both of its TCP servers; what refuses is not there yet.
            let answers = ["close", "keep"].into_iter().all(|mode| {
                let options = ["--flight", "1", "--ms", "20"];
                client(machine, mode, self.base, &options)
                    .is_ok_and(|report| report["failed"] == 0 && report["done"] != 0)
            });
            if answers {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "the published ports do not answer within {PROCESS_TIMEOUT:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Starts the load generator's server, in a network namespace or in ours.
pub(crate) fn serve(machine: &Machine, base: u16, netns: Option<&str>) -> Result<Process> {
    let mut command = Command::new(&machine.loadgen);
    command.args(["serve", "--base", &base.to_string()]);
    if let Some(netns) = netns {
        command.args(["--netns", netns]);
    }
    let mut server = Process::start(&mut command)?;
    server.line().context("starting the server")?;
    Ok(server)
}

/// Runs a client of the load generator against a server's ports. What fails is loud on standard error.
pub(crate) fn client(machine: &Machine, mode: &str, base: u16, options: &[&str]) -> Result<Value> {
    let mut command = Command::new(&machine.loadgen);
    command.arg(mode).args(["--base", &base.to_string()]).args(options).stdin(Stdio::null());
    let output = command.output().context("starting loadgen")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", error.trim());
    serde_json::from_slice(&output.stdout).map_err(|error| anyhow!("loadgen {mode}: {error}"))
}

/// Each side has ports of its own, outside the range that the kernel gives to clients.
pub(crate) fn base(side: Side) -> u16 {
    match side {
        Side::Ours => 20_100,
        Side::Theirs => 20_200,
        Side::Floor | Side::Splice => 20_300,
        Side::Pasta => 20_400,
        Side::Loopback => 20_500,
        Side::Gateway => 20_600,
        Side::Slirp => 20_610,
        Side::Slirp1500 => 20_620,
        Side::PastaNet => 20_630,
        Side::Pasta1500 => 20_640,
        Side::Gvisor => 20_650,
        Side::Kernel => 20_660,
        Side::DockerProxy => 20_670,
        Side::GatewayBuiltin => 20_680,
        Side::Overlay => 20_690,
        Side::RootVxlan | Side::HostToHost => 20_700,
        Side::GatewayRules => 20_710,
        Side::GatewayBefore => 20_720,
        Side::GatewaySenders => 20_730,
    }
}

fn log_path(machine: &Machine, side: Side) -> PathBuf {
    machine.path(&format!("{}.log", side.name()))
}

/// The end of a side's log; of pasta's, which begins with its whole configuration, only the last line.
fn last_words(machine: &Machine, side: Side) -> String {
    let log = fs::read_to_string(log_path(machine, side)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let count = if side == Side::Pasta { 1 } else { 8 };
    lines[lines.len().saturating_sub(count)..].join("\n").trim().to_owned()
}

fn rootlesskit(machine: &Machine, side: Side, specs: &[String]) -> Result<Instance> {
    let program = if side == Side::Ours { &machine.ours } else { &machine.theirs };
    let state = machine.tmp_of(side).join(side.name());
    let mut command = machine.command_of(side, &program.path);
    command.arg(format!("--net={}", machine.driver())).arg("--port-driver=builtin");
    command.arg("--state-dir").arg(&state);
    for spec in specs {
        command.args(["--publish", spec]);
    }
    command.arg(procs::TARGET).stderr(File::create(log_path(machine, side))?);
    let mut holder = Process::start(&mut command)?;
    // cat(1) repeats what it is given: once it does, everything before it has happened.
    if let Err(error) = holder.echo() {
        drop(holder);
        return Err(error.context(last_words(machine, side)));
    }
    let replaces = machine.replaces_congestion(side);
    machine.congestion.borrow_mut().settle(side.name(), &holder, replaces)?;
    let pids = procs::tree(holder.pid());
    Ok(Instance { pids, state: Some(state), holder: Some(holder), ..Instance::empty(side) })
}

/// The network namespace of an instance's target.
pub(crate) fn namespace(holder: &Process) -> Result<String> {
    let target = procs::target(holder.pid()).context("the target has gone")?;
    Ok(format!("/proc/{target}/ns/net"))
}

/// A namespace like rootlesskit's, made by unshare(1), and something else that forwards into it.
fn between(machine: &Machine, side: Side) -> Result<Instance> {
    let mut command = machine.command_of(side, "unshare");
    command.args(["-r", "--map-auto", "--mount", "--net", "sh", "-c"]);
    command.arg(format!("ip link set lo up && exec {}", procs::TARGET));
    let mut holder = Process::start(&mut command)?;
    holder.echo()?;
    machine.congestion.borrow_mut().settle(side.name(), &holder, false)?;
    let mut this = Instance::empty(side);
    let log = File::create(log_path(machine, side))?;
    match side {
        Side::Pasta => {
            let target = procs::target(holder.pid()).context("the target has gone")?;
            let pasta = machine.pasta.as_ref().context("there is no pasta")?;
            let mut command = machine.command_of(side, &pasta.path);
            command.args(["--foreground", "--config-net", "-t", "auto", "-u", "auto"]);
            command.arg(target.to_string()).stdout(Stdio::null()).stderr(log);
            let child = command.spawn().context("starting pasta")?;
            this.pids = vec![i32::try_from(child.id())?];
            this._pasta = Some(Killed(child));
        }
        Side::Splice => {
            let mut command = Command::new(&machine.loadgen);
            command.args(["proxy", "--base", &this.base.to_string()]).stderr(log);
            let mut proxy = Process::start(command.args(["--netns", &namespace(&holder)?]))?;
            proxy.line().context("starting the splice proxy")?;
            this.pids = vec![proxy.pid()];
            this._proxy = Some(proxy);
        }
        _ => bail!("{} does not forward", side.name()),
    }
    this.holder = Some(holder);
    Ok(this)
}
