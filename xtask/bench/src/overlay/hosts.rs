//! Two network namespaces that stand for two hosts, each with an ordinary user's rootlesskit and the links of both
//! overlay networks.
//!
//! ```text
//! host 1, 198.51.100.1 ───────── veth, MTU 1500 ───────── host 2, 198.51.100.2
//!   rootlesskit, gateway 1: 4789/udp, VXLAN 10.0.77.1       rootlesskit, gateway 2: the same, 10.0.77.2, server
//!   VXLAN of root, port 4790, 10.0.78.1                     the same, 10.0.78.2, another server
//! ```
//!
//! All of it ends with the processes that [`Hosts`] holds.

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use loadgen::{TCP_PORTS, UDP_PORTS};
use netlink::ethtool::set_features;
use serde_json::Value;

use crate::congestion::inside;
use crate::instance::{self, base, serve};
use crate::machine::Machine;
use crate::process::{PROCESS_TIMEOUT, Process};
use crate::procs::{self, TARGET};
use crate::script;
use crate::sheet::Side;

/// On the link between the hosts.
const ADDRESSES: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

/// In the first host; `$1` is a process of the second.
const JOIN: &str = "ip link add eth0 type veth peer name eth0 netns $1";

/// In a host; the arguments are its own address and the other's.
const HOST: &str = "
ip link set lo up
ip address add $1/24 dev eth0
ip link set eth0 up
ip route add default via $2
";

/// Where a VXLAN link begins; the arguments are its number, the other host's address, the port and its own address. The
/// MTU is what Docker makes of 1500.
const VXLAN: &str = "
ip link add vx type vxlan id $1 remote $2 dstport $3
ip link set vx mtu 1450 up
ip address add $4/24 dev vx
";

/// What a veth leaves to whoever receives a packet, and what cards do with packets that arrive.
const UNFINISHED: [&str; 3] =
    ["tx-checksum-ip-generic", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
const MERGED: &str = "rx-gro";

/// Everything that runs for this part. Fields end in this order.
#[derive(Debug)]
pub(super) struct Hosts {
    /// In the namespace of the second host's rootlesskit, and on that host itself.
    inner: Process,
    outer: Process,
    rootlesskits: [Process; 2],
    hosts: [Process; 2],
    /// The processes of both rootlesskits, without their targets.
    forwarders: Vec<i32>,
}

impl Hosts {
    pub(super) fn start(machine: &Machine) -> Result<Self> {
        let hosts = [host()?, host()?];
        join(machine, &hosts)?;
        let rootlesskits = [rootlesskit(machine, &hosts, 0)?, rootlesskit(machine, &hosts, 1)?];
        for (number, (holder, host)) in rootlesskits.iter().zip(&hosts).enumerate() {
            let other = ADDRESSES[1 - number];
            let end = |network: u8| format!("10.0.{network}.{}", number + 1);
            vxlan(&instance::namespace(holder)?, ["42", other, "4789", &end(77)])?;
            vxlan(&netns(host), ["43", other, "4790", &end(78)])?;
        }
        let inside = instance::namespace(&rootlesskits[1])?;
        let inner = serve(machine, base(Side::Overlay), Some(&inside))?;
        let outer = serve(machine, base(Side::HostToHost), Some(&netns(&hosts[1])))?;
        let of = |holder: &Process| procs::everything(holder.pid());
        let forwarders: Vec<i32> = rootlesskits.iter().flat_map(of).collect();
        machine.pin_forwarder(&forwarders)?;
        Ok(Self { inner, outer, rootlesskits, hosts, forwarders })
    }

    /// Whose processor time and memory count.
    pub(super) fn pids(&self, side: Side) -> Vec<i32> {
        if has_gateways(side) { self.forwarders.clone() } else { Vec::new() }
    }

    /// Runs a client of the load generator on the first host, against the server that a side leads to.
    pub(super) fn client(
        &self,
        machine: &Machine,
        side: Side,
        mode: &str,
        options: &[&str],
    ) -> Result<Value> {
        let place = self.place(side)?;
        instance::client(machine, mode, place.base, &[options, &place.options()].concat())
    }

    /// A client that the caller waits for.
    pub(super) fn background(&self, machine: &Machine, side: Side, mode: &str) -> Result<Command> {
        let place = self.place(side)?;
        let mut command = Command::new(&machine.loadgen);
        command.args([mode, "--base", &place.base.to_string()]).args(place.options());
        Ok(command)
    }

    /// Datagrams that the server of a side counted so far, and its clock in seconds.
    pub(super) fn counted(&mut self, side: Side) -> Result<(f64, f64)> {
        if has_gateways(side) { self.inner.counted() } else { self.outer.counted() }
    }

    fn place(&self, side: Side) -> Result<Place> {
        let netns = if has_gateways(side) {
            instance::namespace(&self.rootlesskits[0])?
        } else {
            netns(&self.hosts[0])
        };
        let to = match side {
            Side::Overlay => "10.0.77.2",
            Side::RootVxlan => "10.0.78.2",
            Side::Gateway | Side::HostToHost => ADDRESSES[1],
            _ => bail!("{} does not lead from host to host", side.name()),
        };
        // Both sides with gateways have one server, and so have the others.
        let server = if has_gateways(side) { Side::Overlay } else { Side::HostToHost };
        Ok(Place { netns, to, base: base(server) })
    }

    pub(super) fn wait_until_answered(&self, machine: &Machine, side: Side) -> Result<()> {
        let end = Instant::now() + PROCESS_TIMEOUT;
        loop {
            let report = self.client(machine, side, "keep", &["--flight", "1", "--ms", "20"]);
            let why = match report {
                Ok(report) if report["failed"] == 0 && report["done"] != 0 => return Ok(()),
                Ok(report) => report["error"].to_string(),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > end {
                let words = [0, 1].map(|number| last_words(machine, number)).concat();
                bail!(
                    "{}: nothing comes back within {PROCESS_TIMEOUT:?}: {why}: {words}",
                    side.name()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether whole packets cross the link, as they do on a veth, or cut ones that the other end puts together, as
    /// with cards.
    pub(super) fn cut(&self, cut: bool) -> Result<()> {
        let mut features = UNFINISHED.map(|name| (name, !cut)).to_vec();
        features.push((MERGED, cut));
        for host in &self.hosts {
            inside(&netns(host), || Ok(set_features("eth0", &features)?))?;
        }
        Ok(())
    }
}

/// Where a client is, and where it connects to.
struct Place {
    netns: String,
    to: &'static str,
    base: u16,
}

impl Place {
    fn options(&self) -> [&str; 4] {
        ["--to", self.to, "--netns", &self.netns]
    }
}

fn has_gateways(side: Side) -> bool {
    matches!(side, Side::Overlay | Side::Gateway)
}

fn netns(host: &Process) -> String {
    script::netns_of(host.pid())
}

/// A namespace, which lives as long as its process.
fn host() -> Result<Process> {
    let mut host = Process::start(Command::new("unshare").args(["--net", TARGET]))?;
    host.echo()?;
    Ok(host)
}

fn join(machine: &Machine, hosts: &[Process; 2]) -> Result<()> {
    script::run(Some(&netns(&hosts[0])), JOIN, &[hosts[1].pid().to_string()])?;
    for (number, host) in hosts.iter().enumerate() {
        // Before anything listens there.
        machine.congestion.borrow_mut().settle_host(&netns(host))?;
        let addresses = [ADDRESSES[number], ADDRESSES[1 - number]].map(str::to_owned);
        script::run(Some(&netns(host)), HOST, &addresses)?;
    }
    Ok(())
}

fn vxlan(netns: &str, args: [&str; 4]) -> Result<()> {
    script::run(Some(netns), VXLAN, &args.map(str::to_owned))
}

/// What the gateway of a host publishes: the overlay network, and the server's ports for connections without one.
fn published(number: usize) -> Vec<String> {
    let address = ADDRESSES[number];
    let ports = |offsets: &[u16], proto: &'static str| {
        let spec = move |offset: &u16| {
            let port = base(Side::Overlay) + offset;
            format!("{address}:{port}:{port}/{proto}")
        };
        offsets.iter().map(spec).collect::<Vec<_>>()
    };
    let overlay = vec![format!("{address}:4789:4789/udp")];
    [overlay, ports(&TCP_PORTS, "tcp"), ports(&UDP_PORTS, "udp")].concat()
}

fn log_path(machine: &Machine, number: usize) -> std::path::PathBuf {
    machine.path(&format!("overlay-{number}.log"))
}

fn last_words(machine: &Machine, number: usize) -> String {
    let log = fs::read_to_string(log_path(machine, number)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(4)..].join("\n")
}

/// Our rootlesskit on a host, as a user of that host.
fn rootlesskit(machine: &Machine, hosts: &[Process; 2], number: usize) -> Result<Process> {
    let account = machine.accounts.of_host(number);
    let mut command = machine.command_as(account, &machine.ours.path);
    command.args(["--net=gateway", "--port-driver=gateway", "--mtu=1500"]);
    for spec in published(number) {
        command.args(["--publish", &spec]);
    }
    command.arg("--state-dir").arg(account.folder.join(format!("tmp/overlay-{number}")));
    command.arg(TARGET).stderr(File::create(log_path(machine, number))?);
    // A process begins in the network namespace of the thread that starts it.
    let mut holder = inside(&netns(&hosts[number]), || Process::start(&mut command))?;
    if let Err(error) = holder.echo() {
        drop(holder);
        return Err(error.context(last_words(machine, number)));
    }
    let name = Side::Overlay.name();
    machine.congestion.borrow_mut().settle(name, &holder, true).context("congestion control")?;
    Ok(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_publishes_the_overlay_and_every_port_of_the_server_on_its_own_address() {
        assert_eq!(
            published(1),
            [
                "198.51.100.2:4789:4789/udp",
                "198.51.100.2:20690:20690/tcp",
                "198.51.100.2:20691:20691/tcp",
                "198.51.100.2:20692:20692/tcp",
                "198.51.100.2:20693:20693/udp",
                "198.51.100.2:20694:20694/udp",
            ]
        );
        assert!(published(0).iter().all(|spec| spec.starts_with("198.51.100.1:")));
        // The other server listens on the same host.
        assert!(base(Side::Overlay) + 5 <= base(Side::HostToHost));
    }
}
