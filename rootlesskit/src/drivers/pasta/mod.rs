//! `--net=pasta`: passt's pasta(1) makes and configures the interface by itself.
//!
//! It runs in the foreground so that its death is seen, and tells that it is ready by writing its pid to a
//! FIFO in the state directory (`--pid`).

mod pesto;

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use drivers::choose::pasta_too_old;
use drivers::{NetworkDriver, PortDriver};
use nix::sys::stat::Mode;

pub(super) use pesto::Pesto;

use super::helper::{fresh_socket, path_text};
use super::settings::{Settings, ask, ns_file};
use super::{Flags, Namespace, Network, Program, Service, Starting};
use crate::plan::{NetworkPlan, Uplink};

const HINT: &str = "use pasta 2023_06_25 or later (2023_12_04 or later is recommended), and make sure that /dev/net/tun is writable for your user: sudo modprobe tun; sudo chmod 0666 /dev/net/tun";

/// The network, as the flags have it. Probes the program.
pub(super) fn network(flags: Flags<'_>) -> anyhow::Result<Network> {
    tracing::warn!(
        "\"pasta\" network driver is experimental. Needs pasta 2023_06_25 or later, 2023_12_04 or later is recommended"
    );
    let driver = NetworkDriver::Pasta;
    if !flags.ports.is_some_and(|ports| driver.goes_with(ports)) {
        bail!(
            "network \"pasta\" requires port driver \"none\", \"implicit\" or \"pesto\", got {:?}",
            flags.cli.port_driver
        );
    }
    let settings = Settings::read(driver, flags, &flags.cli.pasta_binary)?;
    let version = ask(&settings.binary, &["--version"], flags.env)?;
    if !version.status.success() {
        bail!("{} --version failed: {}", settings.binary.display(), version.all().trim());
    }
    let help =
        || ask(&settings.binary, &["--help"], flags.env).map(|help| help.all()).unwrap_or_default();
    if let Some(why) = pasta_too_old(&version.all(), help) {
        tracing::warn!(
            "{} is too old: {why}; published ports, for example, do not work",
            settings.binary.display()
        );
    }
    let lo = ask(&settings.binary, &["--host-lo-to-ns-lo", "--version"], flags.env)?;
    let dns = vec![settings.cidr.dns().into()];
    let info = settings.info(driver, &dns);
    let plan = NetworkPlan { uplink: Uplink::ByHelper, dns };
    let implicit = flags.ports == Some(PortDriver::Implicit);
    let pasta = Pasta { settings, implicit, host_lo_to_ns_lo: lo.status.success() };
    Ok(Network { info, plan, service: Service::Program(Box::new(pasta)) })
}

#[derive(Debug)]
struct Pasta {
    settings: Settings,
    /// Ports that listen in the namespace are published by pasta (`--port-driver=implicit`).
    implicit: bool,
    /// `--host-lo-to-ns-lo`, passt 2024_10_30: connections to the host's loopback arrive at the namespace's.
    host_lo_to_ns_lo: bool,
}

impl Pasta {
    fn command(&self, ns: &Namespace, fifo: &Path) -> anyhow::Result<Command> {
        let s = &self.settings;
        let mut cmd = Command::new(&s.binary);
        cmd.args(["--foreground", "--config-net", "--pid", path_text(fifo)?]);
        cmd.arg(format!("--ns-ifname={}", s.ifname));
        cmd.arg(format!("--mtu={}", s.mtu));
        cmd.arg(format!("--address={}", s.cidr.child()));
        cmd.arg(format!("--netmask={}", s.cidr.prefix()));
        cmd.arg(format!("--gateway={}", s.cidr.gateway(NetworkDriver::Pasta)));
        cmd.arg(format!("--dns-forward={}", s.cidr.dns()));
        if s.disable_host_loopback {
            // By default pasta also forwards what listens on the host's loopback into the namespace's.
            cmd.args(["--no-map-gw", "--tcp-ns=none", "--udp-ns=none"]);
        }
        if let Some(name) = s.control_socket {
            cmd.args(["--conf-path", path_text(fresh_socket(&ns.state_dir.join(name)))?]);
        }
        if !s.ipv6 {
            cmd.arg("--ipv4-only");
        }
        let ports = if self.implicit { "auto" } else { "none" };
        cmd.arg(format!("--tcp-ports={ports}")).arg(format!("--udp-ports={ports}"));
        // Not with pesto: its ports lead to the tap's address alone, where dockerd listens, whoever connects.
        if self.host_lo_to_ns_lo && s.control_socket.is_none() {
            cmd.arg("--host-lo-to-ns-lo");
        }
        match &ns.netns {
            Some(netns) => {
                cmd.arg(format!("--userns={}", ns_file(ns.child, "user")));
                cmd.arg(format!("--netns={}", path_text(netns)?));
            }
            None => {
                cmd.arg(ns.child.to_string());
            }
        }
        Ok(cmd)
    }
}

/// Makes the FIFO anew and opens it for reading, which does not wait for a writer.
fn ready_fifo(path: &Path) -> anyhow::Result<OwnedFd> {
    hostenv::file::remove_if_present(path)
        .with_context(|| format!("failed to remove {}", path.display()))?;
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
        .with_context(|| format!("failed to create the FIFO {}", path.display()))?;
    let flags = nix::libc::O_NONBLOCK;
    Ok(OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
}

impl Program for Pasta {
    fn start(&self, ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        let fifo: PathBuf = ns.state_dir.join(drivers::PASTA_READY_FIFO);
        let ready = ready_fifo(&fifo)?;
        Ok(Some(Starting::spawn("pasta", HINT, self.command(ns, &fifo)?, ready)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::settings::example;
    use nix::unistd::Pid;

    #[test]
    fn the_command_line() {
        let driver = Pasta { settings: example(), implicit: true, host_lo_to_ns_lo: false };
        let ns =
            Namespace { child: Pid::from_raw(42), netns: None, state_dir: PathBuf::from("/state") };
        let words = |driver: &Pasta, ns: &Namespace| {
            let cmd = driver.command(ns, Path::new("/state/fifo")).unwrap();
            cmd.get_args().map(|a| a.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            words(&driver, &ns),
            "--foreground --config-net --pid /state/fifo --ns-ifname=tap0 --mtu=65520 \
             --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 \
             --no-map-gw --tcp-ns=none --udp-ns=none --ipv4-only --tcp-ports=auto --udp-ports=auto 42"
        );
        let ns = Namespace { netns: Some("/n".into()), ..ns };
        let driver = Pasta { implicit: false, host_lo_to_ns_lo: true, ..driver };
        let text = words(&driver, &ns);
        assert!(text.ends_with("--tcp-ports=none --udp-ports=none --host-lo-to-ns-lo --userns=/proc/42/ns/user --netns=/n"), "{text}");
        let settings = Settings { control_socket: PortDriver::Pesto.socket(), ..driver.settings };
        let text = words(&Pasta { settings, ..driver }, &ns);
        assert!(text.contains("/.pasta.sock ") && !text.contains("--host-lo-to-ns-lo"), "{text}");
    }
}
