//! One way between the machine and a namespace, in both directions: ports published to the namespace, and addresses of
//! the machine reached from it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::instance::{base, namespace};
use crate::machine::Machine;
use crate::process::Process;
use crate::procs;
use crate::sheet::Side;

/// The ways that are compared, the machine itself among them.
pub(crate) fn sides(machine: &Machine) -> Vec<Side> {
    let mut sides = vec![Side::Gateway, Side::GatewayBuiltin, Side::Slirp];
    if machine.pasta.is_some() {
        sides.push(Side::PastaNet);
    }
    sides.extend([Side::Theirs, Side::Loopback]);
    sides
}

/// Whether the way out is measured too: those that are left out have another one's.
pub(crate) fn has_way_out(side: Side) -> bool {
    // `builtin` is a port driver only, and the Go program's network is slirp4netns.
    !matches!(side, Side::GatewayBuiltin | Side::Theirs)
}

/// A namespace with a network and published ports, or none of it for [`Side::Loopback`].
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) side: Side,
    /// The first of its ports, ten of which are published.
    pub(crate) base: u16,
    log: PathBuf,
    holder: Option<Process>,
}

/// How many ports each has.
pub(crate) const PORTS: u16 = 10;

impl Route {
    /// `variant` tells those of one side apart: its ports and its folders.
    pub(crate) fn start(machine: &Machine, side: Side, variant: u16) -> Result<Self> {
        let base = base(side) + 1000 * (1 + variant);
        let log = machine.path(&format!("route-{base}.log"));
        let mut this = Self { side, base, log, holder: None };
        if side != Side::Loopback {
            let holder = this.rootlesskit(machine);
            this.holder = Some(holder.with_context(|| format!("starting {}", side.name()))?);
        }
        machine.pin_forwarder(&this.pids())?;
        Ok(this)
    }

    fn rootlesskit(&self, machine: &Machine) -> Result<Process> {
        let (program, net, port, mtu) = match self.side {
            Side::Gateway => (&machine.ours, "gateway", "gateway", "1500"),
            Side::GatewayBuiltin => (&machine.ours, "gateway", "builtin", "1500"),
            Side::Slirp => (&machine.ours, "slirp4netns", "slirp4netns", "65520"),
            Side::PastaNet => (&machine.ours, "pasta", "implicit", "65520"),
            Side::Theirs => (&machine.theirs, "slirp4netns", "builtin", "65520"),
            _ => bail!("{} is no way into a namespace and out", self.side.name()),
        };
        let mut command = machine.command_of(self.side, &program.path);
        command.arg(format!("--net={net}")).arg(format!("--port-driver={port}"));
        command.arg(format!("--mtu={mtu}"));
        if net == "slirp4netns" {
            // As Docker's launcher runs it.
            command.arg("--slirp4netns-sandbox=auto").arg("--slirp4netns-seccomp=auto");
        }
        // The implicit driver publishes whatever listens.
        for port in (self.base..self.base + PORTS).filter(|_| port != "implicit") {
            for proto in ["tcp", "udp"] {
                command.arg("--publish").arg(format!("127.0.0.1:{port}:{port}/{proto}"));
            }
        }
        command
            .arg("--state-dir")
            .arg(machine.tmp_of(self.side).join(format!("route-{}", self.base)));
        command.arg(procs::TARGET).stderr(File::create(&self.log)?);
        let mut holder = Process::start(&mut command)?;
        if let Err(error) = holder.echo() {
            drop(holder);
            return Err(error.context(self.last_words()));
        }
        let replaces = machine.replaces_congestion(self.side);
        machine.congestion.borrow_mut().settle(self.side.name(), &holder, replaces)?;
        Ok(holder)
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(4)..].join("\n")
    }

    /// Its network namespace, unless that is the machine's own.
    pub(crate) fn netns(&self) -> Result<Option<String>> {
        self.holder.as_ref().map(namespace).transpose()
    }

    /// Whose processor time and memory count, as they are now: helpers are started again when they die.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.holder.as_ref().map(|holder| procs::everything(holder.pid())).unwrap_or_default()
    }
}

/// A command that runs as the ordinary user in a network namespace, or in the machine's own, and dies with this process.
pub(crate) fn command_in(
    machine: &Machine,
    netns: Option<&str>,
    program: &std::path::Path,
) -> Result<Command> {
    use std::os::unix::process::CommandExt as _;
    // Entering takes root; what follows gives that up.
    let mut command = machine.command("nsenter");
    command.uid(0).gid(0).arg(format!("--net={}", netns.unwrap_or("/proc/self/ns/net")));
    command.args(["setpriv", "--pdeathsig", "KILL"]);
    let account = machine.accounts.main();
    command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
    command.args(["--clear-groups", "--"]).arg(program);
    Ok(command)
}
