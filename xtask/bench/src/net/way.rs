//! One side: how a namespace reaches the machine, with a server out there for it alone.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use loadgen::TCP_PORTS;

use super::{Place, client, container, rules};
use crate::instance::{base, namespace, serve};
use crate::machine::Machine;
use crate::process::{Killed, PROCESS_TIMEOUT, Process};
use crate::procs;
use crate::sheet::Side;

/// What runs for one side. Fields end in this order.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) side: Side,
    /// The server's first port.
    pub(super) base: u16,
    /// Whose processor time and memory count: everything but clients, servers and the target.
    pub(super) pids: Vec<i32>,
    /// Whether the load comes through published ports.
    published: bool,
    server: Option<Process>,
    proxies: Vec<Killed>,
    container: Option<Process>,
    holder: Option<Process>,
}

impl Way {
    /// Starts a side whose namespace reaches out, with a container where the MTU is not the point.
    pub(super) fn start(machine: &Machine, side: Side) -> Result<Self> {
        Self::out(machine, side).with_context(|| format!("starting {}", side.name()))
    }

    /// Starts a side whose ports are published to a container.
    pub(super) fn publishing(machine: &Machine, side: Side) -> Result<Self> {
        Self::into(machine, side).with_context(|| format!("starting {}", side.name()))
    }

    fn out(machine: &Machine, side: Side) -> Result<Self> {
        let holder = match side {
            Side::Loopback => None,
            Side::Kernel => Some(kernel(machine)?),
            _ => Some(rootlesskit(machine, side, &[])?),
        };
        let mut this = Self::of(side, holder);
        if !matches!(side, Side::Loopback | Side::Slirp1500 | Side::Pasta1500) {
            this.add_container(machine)?;
        }
        this.serve(machine, None)?;
        for place in [Place::Namespace, Place::Container] {
            if this.has(place) {
                this.wait_until_answered(machine, place)?;
            }
        }
        machine.pin_forwarder(&this.pids)?;
        Ok(this)
    }

    fn into(machine: &Machine, side: Side) -> Result<Self> {
        let base = base(side);
        let ports = TCP_PORTS.map(|offset| base + offset);
        let specs = ports.map(|port| format!("127.0.0.1:{port}:{port}/tcp"));
        let holder = match side {
            Side::Loopback => None,
            _ => Some(rootlesskit(machine, side, &specs)?),
        };
        let mut this = Self { published: true, ..Self::of(side, holder) };
        if side != Side::Loopback {
            this.add_container(machine)?;
            let inside = this.netns(Place::Namespace)?.context("no namespace")?;
            container::publish(&inside, &ports)?;
            if side == Side::DockerProxy {
                this.add_proxies(machine, &inside, &ports)?;
            }
        }
        let inside = this.netns(Place::Container)?;
        this.serve(machine, inside.as_deref())?;
        this.wait_until_answered(machine, Place::Outside)?;
        machine.pin_forwarder(&this.pids)?;
        Ok(this)
    }

    fn of(side: Side, holder: Option<Process>) -> Self {
        let own = holder.as_ref().filter(|_| side != Side::Kernel);
        let pids = own.map(|holder| procs::everything(holder.pid())).unwrap_or_default();
        let (published, server, proxies, container) = (false, None, Vec::new(), None);
        Self { side, base: base(side), pids, published, server, proxies, container, holder }
    }

    /// Whether there can be clients in a place.
    pub(super) fn has(&self, place: Place) -> bool {
        match place {
            Place::Namespace => !self.published,
            Place::Container => !self.published && self.container.is_some(),
            Place::Outside => self.published,
        }
    }

    /// The network namespace of a place, unless that is the machine's own.
    pub(super) fn netns(&self, place: Place) -> Result<Option<String>> {
        let of = match place {
            Place::Namespace => &self.holder,
            Place::Container => &self.container,
            Place::Outside => &None,
        };
        of.as_ref().map(namespace).transpose()
    }

    fn add_container(&mut self, machine: &Machine) -> Result<()> {
        let outer = self.netns(Place::Namespace)?.context("no namespace")?;
        let container = container::make(&outer)?;
        machine.congestion.borrow_mut().settle_container(&namespace(&container)?)?;
        self.container = Some(container);
        Ok(())
    }

    /// Docker's own proxies, one a port as dockerd starts them. They die with this process.
    fn add_proxies(&mut self, machine: &Machine, netns: &str, ports: &[u16]) -> Result<()> {
        let net = machine.net.as_ref().context("no programs for networks")?;
        let tool = net.docker_proxy.as_ref().context("there is no docker-proxy that runs here")?;
        for port in ports {
            let port = port.to_string();
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={netns}")).args(["setpriv", "--pdeathsig", "KILL"]);
            // It reports to its third descriptor whether it could listen.
            command.args(["sh", "-c", "exec 3>/dev/null; exec \"$@\"", "sh"]).arg(&tool.path);
            command.args(["-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", &port]);
            command.args(["-container-ip", container::ADDRESS, "-container-port", &port]);
            let log = File::create(machine.path("docker-proxy.log"))?;
            command.stdin(std::process::Stdio::null()).stderr(log);
            let child = command.spawn().context("starting docker-proxy")?;
            self.pids.push(i32::try_from(child.id())?);
            self.proxies.push(Killed(child));
        }
        Ok(())
    }

    fn serve(&mut self, machine: &Machine, netns: Option<&str>) -> Result<()> {
        self.server = Some(serve(machine, self.base, netns)?);
        Ok(())
    }

    /// Datagrams that the server counted so far, and its clock in seconds.
    pub(super) fn counted(&mut self) -> Result<(f64, f64)> {
        self.server.as_mut().context("no server")?.counted()
    }

    fn wait_until_answered(&self, machine: &Machine, place: Place) -> Result<()> {
        let end = Instant::now() + PROCESS_TIMEOUT;
        loop {
            let options = ["--flight", "1", "--ms", "20"];
            let report = client(machine, self, place, "keep", &options);
            let why = match report {
                Ok(report) if report["failed"] == 0 && report["done"] != 0 => return Ok(()),
                Ok(report) => report["error"].to_string(),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > end {
                bail!(
                    "nothing comes back within {PROCESS_TIMEOUT:?}: {why}: {}",
                    last_words(machine, self.side)
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn log_path(machine: &Machine, side: Side) -> std::path::PathBuf {
    machine.path(&format!("net-{}.log", base(side)))
}

fn last_words(machine: &Machine, side: Side) -> String {
    let log = fs::read_to_string(log_path(machine, side)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(4)..].join("\n")
}

/// A namespace of rootlesskit with a side's network driver.
fn rootlesskit(machine: &Machine, side: Side, specs: &[String]) -> Result<Process> {
    let program = match side {
        Side::Gvisor => &machine.theirs,
        Side::GatewayBefore => machine.before.as_ref().context("--before names no program")?,
        _ => &machine.ours,
    };
    let mut command = machine.command_of(side, &program.path);
    let (driver, mtu) = match side {
        Side::Gateway | Side::GatewayRules | Side::GatewaySenders | Side::GatewayBefore => {
            ("gateway", "1500")
        }
        Side::Slirp | Side::DockerProxy => ("slirp4netns", "65520"),
        Side::Slirp1500 => ("slirp4netns", "1500"),
        Side::PastaNet => ("pasta", "65520"),
        Side::Pasta1500 => ("pasta", "1500"),
        Side::Gvisor => ("gvisor-tap-vsock", "65520"),
        _ => bail!("{} is no network driver", side.name()),
    };
    command.arg(format!("--net={driver}")).arg(format!("--mtu={mtu}"));
    if driver == "slirp4netns" {
        let net = machine.net.as_ref().context("no programs for networks")?;
        // As Docker's launcher runs it, which is also its fastest.
        command.arg("--slirp4netns-sandbox=auto").arg("--slirp4netns-seccomp=auto");
        command.arg("--slirp4netns-binary").arg(&net.slirp4netns.path);
    }
    if let Side::GatewayRules | Side::GatewaySenders = side {
        let file = machine.path(&format!("egress-{}.toml", base(side)));
        fs::write(&file, rules::policy(side == Side::GatewaySenders))?;
        command.arg("--egress-policy").arg(file);
    }
    if !specs.is_empty() {
        let driver = if side == Side::Gateway { "gateway" } else { "builtin" };
        command.arg(format!("--port-driver={driver}"));
    }
    for spec in specs {
        command.args(["--publish", spec]);
    }
    command.arg("--state-dir").arg(state_dir(machine, side));
    command.arg(procs::TARGET).stderr(File::create(log_path(machine, side))?);
    let mut holder = Process::start(&mut command)?;
    if let Err(error) = holder.echo() {
        drop(holder);
        return Err(error.context(last_words(machine, side)));
    }
    let replaces = machine.replaces_congestion(side);
    machine.congestion.borrow_mut().settle(side.name(), &holder, replaces)?;
    Ok(holder)
}

fn state_dir(machine: &Machine, side: Side) -> PathBuf {
    machine.tmp_of(side).join(format!("net-{}", base(side)))
}

/// The socket of the API of a rootlesskit.
pub(super) fn api(machine: &Machine, side: Side) -> PathBuf {
    state_dir(machine, side).join("api.sock")
}

/// A namespace on a bridge of the machine, made by root: no process forwards anything.
fn kernel(machine: &Machine) -> Result<Process> {
    let mut command = machine.command("unshare");
    command.args(["-r", "--map-auto", "--net", "sh", "-c"]);
    command.arg(format!("ip link set lo up && exec {}", procs::TARGET));
    let mut holder = Process::start(&mut command)?;
    holder.echo()?;
    let target = procs::target(holder.pid()).context("the target has gone")?;
    container::connect_kernel(target)?;
    machine.congestion.borrow_mut().settle(Side::Kernel.name(), &holder, false)?;
    ensure!(procs::target(holder.pid()).is_some(), "the namespace has gone");
    Ok(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_has_ports_of_its_own() {
        let sides = [
            Side::Gateway,
            Side::GatewayRules,
            Side::GatewaySenders,
            Side::GatewayBefore,
            Side::Slirp,
            Side::Slirp1500,
            Side::PastaNet,
            Side::Pasta1500,
            Side::Gvisor,
            Side::Kernel,
            Side::DockerProxy,
            Side::Loopback,
        ];
        let mut bases: Vec<u16> = sides.iter().map(|side| base(*side)).collect();
        bases.sort_unstable();
        assert!(bases.windows(2).all(|pair| pair[0] + 5 <= pair[1]), "{bases:?}");
    }
}
