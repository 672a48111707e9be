//! `--net=slirp4netns`: a user-space TCP/IP stack behind a TAP device
//! (github.com/rootless-containers/slirp4netns, slirp4netns(1)).
//!
//! The child makes and configures the TAP device; slirp4netns opens it inside the namespace and writes a
//! byte to its ready pipe.

mod ports;

use std::path::Path;
use std::process::Command;

use anyhow::bail;
use drivers::{NetworkDriver, SLIRP6};

pub(super) use ports::Slirp4netns as Ports;

use super::helper::{fresh_socket, path_text};
use super::settings::{Settings, ask, ns_file};
use super::{Flags, Namespace, Network, Program, Service, Starting, TUN_HINT};
use crate::plan::{Interface, NetworkPlan, Uplink};

/// The network, as the flags have it. Probes the program.
pub(super) fn network(flags: Flags<'_>) -> anyhow::Result<Network> {
    let driver = NetworkDriver::Slirp4netns;
    let sandbox = Switch::parse("slirp4netns-sandbox", &flags.cli.slirp4netns_sandbox)?;
    let seccomp = Switch::parse("slirp4netns-seccomp", &flags.cli.slirp4netns_seccomp)?;
    let settings = Settings::read(driver, flags, &flags.cli.slirp4netns_binary)?;
    let help = ask(&settings.binary, &["--help"], flags.env)?.all();
    let plan = plan(&settings);
    let info = settings.info(driver, &plan.dns);
    let program = Slirp4netns::new(settings, sandbox, seccomp, &help)?;
    Ok(Network { info, plan, service: Service::Program(Box::new(program)) })
}

fn plan(s: &Settings) -> NetworkPlan {
    let mut addresses = vec![(s.cidr.child().into(), s.cidr.prefix())];
    let mut gateways = vec![s.cidr.gateway(NetworkDriver::Slirp4netns).into()];
    let mut dns = vec![s.cidr.dns().into()];
    if s.ipv6 {
        addresses.push((SLIRP6[0].into(), 64));
        gateways.push(SLIRP6[1].into());
        dns.push(SLIRP6[2].into());
    }
    let interface = Interface { name: s.ifname.clone(), mtu: s.mtu, addresses, gateways };
    NetworkPlan { uplink: Uplink::Tap(interface), dns }
}

/// A flag of `auto`, `true`, `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    Auto,
    On,
    Off,
}

impl Switch {
    fn parse(flag: &str, value: &str) -> anyhow::Result<Self> {
        match value {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::On),
            "false" | "" => Ok(Self::Off),
            _ => bail!("unsupported {flag} mode: {value:?} (must be auto, true or false)"),
        }
    }
}

#[derive(Debug)]
struct Slirp4netns {
    settings: Settings,
    sandbox: bool,
    seccomp: bool,
}

impl Slirp4netns {
    /// `help` is what `slirp4netns --help` says, which names the flags that it knows.
    fn new(
        settings: Settings,
        sandbox: Switch,
        seccomp: Switch,
        help: &str,
    ) -> anyhow::Result<Self> {
        let binary = settings.binary.display();
        let lacks = |what: &str, since: &str| {
            anyhow::anyhow!(
                "{binary} does not support {what}\nhint: install slirp4netns {since} or later"
            )
        };
        let has = |flag: &str| help.contains(flag);
        for (needed, flag, since) in [
            (true, "--netns-type", "0.4.0"),
            (settings.disable_host_loopback, "--disable-host-loopback", "0.3.0"),
            (settings.control_socket.is_some(), "--api-socket", "0.3.0"),
            (settings.cidr_given, "--cidr", "0.3.0"),
            (settings.ipv6, "--enable-ipv6", "0.2.0"),
        ] {
            if needed && !has(flag) {
                return Err(lacks(flag, since));
            }
        }
        let (can_sandbox, can_seccomp) = (has("--enable-sandbox"), has("--enable-seccomp"));
        let sandbox = match sandbox {
            Switch::Off => false,
            Switch::Auto => can_sandbox && !settings.detach_netns,
            Switch::On if settings.detach_netns => {
                bail!("--slirp4netns-sandbox=true is not compatible with --detach-netns")
            }
            Switch::On if !can_sandbox => return Err(lacks("--enable-sandbox", "0.4.0")),
            Switch::On => true,
        };
        let kernel = Path::new("/proc/sys/kernel/seccomp/actions_avail").exists();
        let seccomp = match seccomp {
            Switch::Off => false,
            Switch::Auto => can_seccomp && kernel,
            Switch::On if !can_seccomp => return Err(lacks("--enable-seccomp", "0.4.0")),
            Switch::On if !kernel => {
                bail!("the kernel does not support seccomp, which --slirp4netns-seccomp=true needs")
            }
            Switch::On => true,
        };
        Ok(Self { settings, sandbox, seccomp })
    }

    fn command(&self, ns: &Namespace, ready: i32) -> anyhow::Result<Command> {
        let s = &self.settings;
        let mut cmd = Command::new(&s.binary);
        cmd.args(["--mtu", &s.mtu.to_string(), "-r", &ready.to_string()]);
        let flags = [
            (s.disable_host_loopback, "--disable-host-loopback"),
            (self.sandbox, "--enable-sandbox"),
            (self.seccomp, "--enable-seccomp"),
            (s.ipv6, "--enable-ipv6"),
        ];
        cmd.args(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| flag));
        if let Some(name) = s.control_socket {
            let socket = ns.state_dir.join(name);
            cmd.args(["--api-socket", path_text(fresh_socket(&socket))?]);
        }
        if s.cidr_given {
            cmd.args(["--cidr", &s.cidr.to_string()]);
        }
        match &ns.netns {
            Some(netns) => {
                cmd.arg(format!("--userns-path={}", ns_file(ns.child, "user")));
                cmd.args(["--netns-type=path", path_text(netns)?]);
            }
            None => {
                cmd.arg(ns.child.to_string());
            }
        }
        cmd.arg(&s.ifname);
        Ok(cmd)
    }
}

impl Program for Slirp4netns {
    fn start(&self, ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        let (ready, writer) = std::io::pipe()?;
        let writer: std::os::fd::OwnedFd = writer.into();
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let mut cmd = self.command(ns, number)?;
        sys::command::inherit_fd(&mut cmd, writer);
        Ok(Some(Starting::spawn("slirp4netns", TUN_HINT, cmd, ready.into())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::settings::example;
    use nix::unistd::Pid;

    const ALL: &str = "--netns-type --disable-host-loopback --cidr --enable-sandbox --enable-seccomp --enable-ipv6";

    fn driver(settings: Settings, help: &str, sandbox: Switch) -> anyhow::Result<Slirp4netns> {
        Slirp4netns::new(settings, sandbox, Switch::Off, help)
    }

    fn words(driver: &Slirp4netns, netns: Option<&str>) -> String {
        let ns = Namespace {
            child: Pid::from_raw(42),
            netns: netns.map(Into::into),
            state_dir: "/state".into(),
        };
        let cmd = driver.command(&ns, 3).unwrap();
        cmd.get_args().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_line() {
        let plain = driver(example(), ALL, Switch::Auto).unwrap();
        assert_eq!(
            words(&plain, None),
            "--mtu 65520 -r 3 --disable-host-loopback --enable-sandbox 42 tap0"
        );
        let detached = Settings { detach_netns: true, cidr_given: true, ipv6: true, ..example() };
        let detached = driver(detached, ALL, Switch::Auto).unwrap();
        assert_eq!(
            words(&detached, Some("/proc/42/root/state/netns")),
            "--mtu 65520 -r 3 --disable-host-loopback --enable-ipv6 --cidr 10.0.2.0/24 \
             --userns-path=/proc/42/ns/user --netns-type=path /proc/42/root/state/netns tap0"
        );
        let plan = plan(&detached.settings);
        assert_eq!(plan.dns.len(), 2);
        let info = detached.settings.info(NetworkDriver::Slirp4netns, &plan.dns);
        assert_eq!(info.child_ip, Some("10.0.2.100".parse().unwrap()));
    }

    #[test]
    fn what_an_old_or_contradictory_setup_is_told() {
        let old = driver(example(), "", Switch::Off).unwrap_err().to_string();
        assert!(old.contains("--netns-type") && old.contains("hint:"), "{old}");
        let detached = Settings { detach_netns: true, ..example() };
        let error = driver(detached, ALL, Switch::On).unwrap_err().to_string();
        assert!(error.contains("not compatible with --detach-netns"), "{error}");
        let error = Switch::parse("slirp4netns-sandbox", "maybe").unwrap_err().to_string();
        assert!(error.contains("unsupported slirp4netns-sandbox mode: \"maybe\""), "{error}");
    }
}
