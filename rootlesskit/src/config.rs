//! What was typed, validated: every combination is accepted or refused here, before anything is touched.
//! The order of the checks is RootlessKit's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::{Context as _, bail};
use api::PortSpec;
use env::Env;
use nix::sched::CloneFlags;

use crate::child::{Propagation, Reaper};
use crate::cli::Cli;
use crate::handshake::SourceAddress;
use crate::net::{self, Cidr, Driver, Settings};

/// The largest MTU that slirp4netns and pasta take, in bytes.
const MAX_MTU: i64 = 65521;

/// Which port driver, and what it publishes at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ports {
    /// `none` and `implicit`: nothing that the API could manage.
    Unmanaged,
    /// `builtin`.
    Builtin { publish: Vec<PortSpec>, source_address: SourceAddress },
    /// `slirp4netns`; `child` is where ports lead that name no address.
    Slirp4netns { publish: Vec<PortSpec>, child: Ipv4Addr },
    /// `gateway`, also under the name `gvisor-tap-vsock`.
    #[cfg(feature = "gateway")]
    Gateway { publish: Vec<PortSpec>, name: &'static str, dual_stack: bool },
    /// `pesto`; `child` is the only address that ports can lead to.
    Pesto { publish: Vec<PortSpec>, binary: PathBuf, child: Ipv4Addr, ipv6: bool },
}

/// Everything the parent needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    /// Absolute; a temporary one if absent.
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) ports: Ports,
    pub(crate) detach_netns: bool,
    pub(crate) namespaces: CloneFlags,
    pub(crate) evacuate_cgroup2: Option<String>,
    pub(crate) subid_source: idmap::source::Source,
}

impl Config {
    /// Checks a command line.
    ///
    /// # Errors
    /// The first thing that is wrong, with its flag and value.
    pub(crate) fn validate(cli: &Cli, env: &Env) -> anyhow::Result<Self> {
        if cli.command.is_empty() {
            bail!(
                "no command specified\nhint: rootlesskit [flags] COMMAND [ARG...]; see rootlesskit --help"
            );
        }
        let evacuate_cgroup2 = evacuation(cli)?;
        child_flags(cli)?;
        let state_dir = state_dir(cli)?;
        let driver = driver(cli, env)?;
        let ports = ports(cli, env)?;
        let mut namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        let optional = [
            (cli.pidns, CloneFlags::CLONE_NEWPID),
            (cli.cgroupns, CloneFlags::CLONE_NEWCGROUP),
            (cli.utsns, CloneFlags::CLONE_NEWUTS),
            (cli.ipcns, CloneFlags::CLONE_NEWIPC),
            (driver.isolates() && !cli.detach_netns, CloneFlags::CLONE_NEWNET),
        ];
        for (_, flag) in optional.iter().filter(|(on, _)| *on) {
            namespaces |= *flag;
        }
        Ok(Self {
            state_dir,
            driver,
            ports,
            detach_netns: cli.detach_netns,
            namespaces,
            evacuate_cgroup2,
            subid_source: subid_source(&cli.subid_source)?,
        })
    }
}

fn subid_source(value: &str) -> anyhow::Result<idmap::source::Source> {
    idmap::source::Source::from_str(value)
        .with_context(|| format!("invalid --subid-source={value}"))
}

fn evacuation(cli: &Cli) -> anyhow::Result<Option<String>> {
    let name = &cli.evacuate_cgroup2;
    if name.is_empty() {
        return Ok(None);
    }
    if !cli.cgroupns {
        bail!("--evacuate-cgroup2={name} requires --cgroupns");
    }
    if !cli.pidns {
        bail!("--evacuate-cgroup2={name} requires --pidns");
    }
    if name.contains('/') || name == "." || name == ".." {
        bail!("invalid --evacuate-cgroup2={name}: must be the name of one group, without a slash");
    }
    Ok(Some(name.clone()))
}

/// Flags that only the child acts on, checked here so that nothing has to be undone.
fn child_flags(cli: &Cli) -> anyhow::Result<()> {
    Reaper::parse(&cli.reaper, cli.pidns)?;
    let propagation = Propagation::parse(&cli.propagation)?;
    if cli.copy_up_mode != "tmpfs+symlink" {
        bail!("unknown copy-up mode: {:?} (must be tmpfs+symlink)", cli.copy_up_mode);
    }
    for dir in &cli.copy_up {
        let path = Path::new(dir);
        if !path.is_absolute() {
            bail!("invalid --copy-up={dir}: must be an absolute path");
        }
        if crate::child::clean(path) == Path::new("/tmp") {
            bail!("/tmp cannot be copied up: programs on both sides meet there");
        }
        if crate::child::clean(path) == Path::new("/") {
            bail!("/ cannot be copied up: name the directories below it");
        }
        let meta = std::fs::metadata(path).with_context(|| format!("cannot copy up {dir}"))?;
        if !meta.is_dir() {
            bail!("cannot copy up {dir}: not a directory");
        }
    }
    if !cli.copy_up.is_empty() && propagation.is_shared() {
        bail!(
            "--copy-up cannot be used with --propagation={}: mounts would reach the host",
            cli.propagation
        );
    }
    Ok(())
}

/// Bytes that a socket's path may have: sun_path is 108 with its NUL (unix(7)).
pub(crate) const MAX_SOCKET_PATH: usize = 107;

fn state_dir(cli: &Cli) -> anyhow::Result<Option<PathBuf>> {
    if cli.state_dir.is_empty() {
        return Ok(None);
    }
    let path = std::path::absolute(&cli.state_dir)
        .with_context(|| format!("invalid --state-dir={}", cli.state_dir))?;
    let socket = match cli.port_driver.as_str() {
        "slirp4netns" => net::API_SOCKET,
        _ if cli.net == "vpnkit" => net::VPNKIT_SOCKET,
        _ => api::SOCKET_NAME,
    };
    let (length, room) = (path.as_os_str().len(), MAX_SOCKET_PATH - 1 - socket.len());
    if length > room {
        bail!(
            "--state-dir={} is too long: {length} bytes, but the socket {socket} in it allows {room}\nhint: use a shorter path, for instance below /run/user",
            path.display()
        );
    }
    Ok(Some(path))
}

fn driver(cli: &Cli, env: &Env) -> anyhow::Result<Box<dyn Driver>> {
    if !(0..=MAX_MTU).contains(&cli.mtu) {
        bail!("invalid --mtu={}: must be between 0 (default) and {MAX_MTU}", cli.mtu);
    }
    let cidr = match cli.cidr.as_str() {
        "" => Option::None,
        text => Some(text.parse::<Cidr>().with_context(|| format!("invalid --cidr={text}"))?),
    };
    if cli.ifname.contains('/') || cli.ifname.len() > 15 || cli.ifname.contains(char::is_whitespace)
    {
        bail!(
            "invalid --ifname={}: must be at most 15 bytes without slash or white space",
            cli.ifname
        );
    }
    if cli.ipv6 {
        match cli.net.as_str() {
            "gateway" => {}
            "pasta" | "slirp4netns" => tracing::warn!("ipv6 is experimental"),
            "gvisor-tap-vsock" if cfg!(feature = "gateway") => {
                bail!("--ipv6 is not supported for --net=gvisor-tap-vsock\nhint: use --net=gateway")
            }
            other => tracing::warn!("--ipv6 is discarded for --net={other}"),
        }
    }
    let leads_to_the_host = matches!(
        cli.net.as_str(),
        "gateway" | "gvisor-tap-vsock" | "pasta" | "slirp4netns" | "vpnkit"
    );
    if leads_to_the_host && !cli.disable_host_loopback {
        tracing::warn!(
            "specifying --disable-host-loopback is highly recommended to prohibit connecting to 127.0.0.1:* on the host namespace (requires gateway, pasta, slirp4netns, or VPNKit)"
        );
    }
    match cli.net.as_str() {
        "host" | "none" => {
            if cli.mtu != 0 {
                tracing::warn!("unsupported mtu for --net={}: {}", cli.net, cli.mtu);
            }
            no_cidr(cli)?;
            if !cli.ifname.is_empty() {
                bail!("ifname cannot be specified for --net={} (--ifname={})", cli.net, cli.ifname);
            }
            if cli.net == "none" && !matches!(cli.port_driver.as_str(), "none" | "builtin") {
                bail!(
                    "port driver {:?} cannot be used with --net=none (must be none or builtin)",
                    cli.port_driver
                );
            }
            if cli.net == "host" && cli.detach_netns {
                tracing::warn!(
                    "--detach-netns makes a network namespace that nothing is connected to, because of --net=host"
                );
            }
            Ok(if cli.net == "host" { Box::new(net::Host) } else { Box::new(net::None) })
        }
        "pasta" if cfg!(feature = "pasta") => {
            tracing::warn!(
                "\"pasta\" network driver is experimental. Needs pasta 2023_06_25 or later, 2023_12_04 or later is recommended"
            );
            if !matches!(cli.port_driver.as_str(), "none" | "implicit" | "pesto") {
                bail!(
                    "network \"pasta\" requires port driver \"none\", \"implicit\" or \"pesto\", got {:?}",
                    cli.port_driver
                );
            }
            let settings = settings(cli, cidr, &cli.pasta_binary, "passt", env)?;
            Ok(Box::new(net::Pasta::new(settings, cli.port_driver == "implicit", env)?))
        }
        "slirp4netns" if cfg!(feature = "slirp4netns") => {
            let sandbox = net::Switch::parse("slirp4netns-sandbox", &cli.slirp4netns_sandbox)?;
            let seccomp = net::Switch::parse("slirp4netns-seccomp", &cli.slirp4netns_seccomp)?;
            let settings = settings(cli, cidr, &cli.slirp4netns_binary, "slirp4netns", env)?;
            Ok(Box::new(net::Slirp4netns::new(settings, sandbox, seccomp, env)?))
        }
        #[cfg(feature = "gateway")]
        "gateway" => Ok(Box::new(net::Gateway::chosen(cli, cidr)?)),
        #[cfg(feature = "gateway")]
        "gvisor-tap-vsock" => Ok(Box::new(net::Gateway::like_gvisor(cli, cidr)?)),
        "vpnkit" if cfg!(feature = "vpnkit") => {
            no_cidr(cli)?;
            Ok(Box::new(net::Vpnkit::chosen(cli, env)?))
        }
        "lxc-user-nic" if cfg!(feature = "lxc-user-nic") => {
            no_cidr(cli)?;
            Ok(Box::new(net::LxcUserNic::chosen(cli, env)?))
        }
        known if net::left_out(known) => {
            let names = net::names().join(", ");
            bail!("network mode {known} is not in this build\nhint: use one of {names}")
        }
        other => {
            bail!("unknown network mode: {other} (must be one of {})", net::names().join(", "))
        }
    }
}

/// Refuses `--cidr` for a driver that does not choose addresses.
fn no_cidr(cli: &Cli) -> anyhow::Result<()> {
    if !cli.cidr.is_empty() {
        bail!("custom cidr is not supported for --net={} (--cidr={})", cli.net, cli.cidr);
    }
    Ok(())
}

fn settings(
    cli: &Cli,
    cidr: Option<Cidr>,
    binary: &str,
    package: &str,
    env: &Env,
) -> anyhow::Result<Settings> {
    let found = env.find_program(binary).with_context(|| {
        format!("{binary} was not found in $PATH, but --net={} needs it\nhint: install the package {package}", cli.net)
    })?;
    Ok(Settings {
        cidr: cidr.unwrap_or(Cidr::DEFAULT),
        cidr_given: cidr.is_some(),
        ifname: cli.ifname_or("tap0"),
        mtu: cli.mtu_or(net::DEFAULT_MTU),
        ipv6: cli.ipv6,
        disable_host_loopback: cli.disable_host_loopback,
        api_socket: matches!(cli.port_driver.as_str(), "slirp4netns" | "pesto"),
        detach_netns: cli.detach_netns,
        binary: found,
    })
}

fn ports(cli: &Cli, env: &Env) -> anyhow::Result<Ports> {
    let publish = cli
        .publish
        .iter()
        .map(|text| -> anyhow::Result<PortSpec> {
            let invalid = || format!("invalid --publish={text}");
            let spec: PortSpec = text.parse().with_context(invalid)?;
            spec.validate().with_context(invalid)?;
            Ok(spec)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    match cli.port_driver.as_str() {
        known if crate::cli::port_driver_left_out(known) => bail!(
            "port driver {known} is not in this build\nhint: use one of {}",
            crate::cli::port_drivers()
        ),
        "none" if publish.is_empty() => Ok(Ports::Unmanaged),
        "none" => bail!(
            "port driver \"none\" does not support publishing ports (--publish={})\nhint: add --port-driver=builtin",
            cli.publish.join(",")
        ),
        "implicit" => {
            if cli.net != "pasta" {
                bail!("port driver \"implicit\" requires --net=pasta, got --net={}", cli.net);
            }
            if !publish.is_empty() {
                tracing::warn!(
                    "--publish={} has no effect with --port-driver=implicit: every port that listens is published",
                    cli.publish.join(",")
                );
            }
            Ok(Ports::Unmanaged)
        }
        "builtin" if cli.net == "host" => {
            bail!(
                "port driver \"builtin\" requires a network of its own, but --net=host shares the host's"
            )
        }
        "builtin" => Ok(Ports::Builtin { publish, source_address: source_address(cli)? }),
        "slirp4netns" if cli.net != "slirp4netns" => {
            bail!("port driver \"slirp4netns\" requires --net=slirp4netns, got --net={}", cli.net)
        }
        "slirp4netns" => Ok(Ports::Slirp4netns { publish, child: child_address(cli)? }),
        "pesto" if cli.net != "pasta" => {
            bail!("port driver \"pesto\" requires --net=pasta, got --net={}", cli.net)
        }
        "pesto" => {
            let name = &cli.pesto_binary;
            let binary = env.find_program(name).with_context(|| {
                format!("{name} was not found in $PATH, but --port-driver=pesto needs it\nhint: install passt 2026_05_07 or later")
            })?;
            Ok(Ports::Pesto { publish, binary, child: child_address(cli)?, ipv6: cli.ipv6 })
        }
        name @ ("gateway" | "gvisor-tap-vsock") if cli.net != name => {
            bail!("port driver {name:?} requires --net={name}, got --net={}", cli.net)
        }
        #[cfg(feature = "gateway")]
        "gateway" => Ok(Ports::Gateway { publish, name: "gateway", dual_stack: cli.dual_stack }),
        #[cfg(feature = "gateway")]
        "gvisor-tap-vsock" => {
            Ok(Ports::Gateway { publish, name: "gvisor-tap-vsock", dual_stack: cli.dual_stack })
        }
        "pasta" => bail!("unknown port driver: pasta (did you mean implicit or pesto?)"),
        other => {
            bail!("unknown port driver: {other} (must be one of {})", crate::cli::port_drivers())
        }
    }
}

/// The address of the child in the driver's network.
fn child_address(cli: &Cli) -> anyhow::Result<Ipv4Addr> {
    let cidr = if cli.cidr.is_empty() { Cidr::DEFAULT } else { cli.cidr.parse()? };
    Ok(cidr.child())
}

fn source_address(cli: &Cli) -> anyhow::Result<SourceAddress> {
    let backend = match cli.source_ip_backend.as_str() {
        "auto" | "" => SourceAddress::Auto,
        "nft" => SourceAddress::Nft,
        "iptables" => SourceAddress::Iptables,
        other => {
            bail!("unknown --source-ip-transparent-backend={other} (must be auto, nft or iptables)")
        }
    };
    Ok(if cli.source_ip_transparent { backend } else { SourceAddress::Off })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn validate(words: &[&str]) -> anyhow::Result<Config> {
        let cli = Cli::parse(words.iter().map(OsString::from))?;
        Config::validate(&cli, &[("PATH", "/nonexistent")].into_iter().collect())
    }

    fn refuse(words: &[&str]) -> String {
        format!("{:#}", validate(words).unwrap_err())
    }

    #[test]
    fn namespaces_follow_the_flags() {
        let flags = |words: &[&str]| validate(words).unwrap().namespaces;
        let base = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        assert_eq!(flags(&["true"]), base);
        assert_eq!(flags(&["--net=none", "true"]), base | CloneFlags::CLONE_NEWNET);
        assert_eq!(flags(&["--net=none", "--detach-netns", "true"]), base);
        assert_eq!(
            flags(&["--pidns", "--utsns", "--ipcns", "--cgroupns", "true"]),
            base | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWCGROUP
        );
    }

    #[test]
    fn bad_values_are_named_with_the_reason() {
        let long = format!("--state-dir=/{}", "x".repeat(120));
        let nearly = format!("--state-dir=/{}", "x".repeat(97));
        let cases: &[(&[&str], &str)] = &[
            (&[], "no command specified"),
            (&["--evacuate-cgroup2=e", "x"], "requires --cgroupns"),
            (&["--evacuate-cgroup2=e", "--cgroupns", "x"], "requires --pidns"),
            (&["--evacuate-cgroup2=a/b", "--cgroupns", "--pidns", "x"], "without a slash"),
            (&["--mtu=70000", "x"], "--mtu=70000"),
            (&["--mtu=-1", "x"], "--mtu=-1"),
            (&["--net=slirp4netns", "--cidr=10.0.2.5/24", "x"], "must be like 10.0.2.0/24"),
            (&["--ifname=a/b", "--net=pasta", "x"], "--ifname=a/b"),
            (&["--cidr=10.0.2.0/24", "x"], "not supported for --net=host"),
            (&["--ifname=e0", "--net=none", "x"], "--ifname=e0"),
            (&["--net=slirp4netns", "x"], "slirp4netns was not found in $PATH"),
            (&["--net=bogus", "x"], "unknown network mode: bogus"),
            (&["--net=vpnkit", "x"], "vpnkit was not found in $PATH"),
            (&["--net=vpnkit", "--cidr=10.0.2.0/24", "x"], "not supported for --net=vpnkit"),
            (&["--net=lxc-user-nic", "--lxc-user-nic-binary=/nope", "x"], "/nope cannot be"),
            (&["--net=lxc-user-nic", "--cidr=10.0.2.0/24", "x"], "for --net=lxc-user-nic"),
            (&["--port-driver=bogus", "x"], "unknown port driver: bogus"),
            (&["--port-driver=pasta", "x"], "did you mean implicit"),
            (&["--port-driver=builtin", "x"], "--net=host"),
            (&["--port-driver=implicit", "x"], "requires --net=pasta"),
            (&["--net=none", "--port-driver=implicit", "x"], "cannot be used with --net=none"),
            (&["-p", "127.0.0.1:80:80/tcp", "x"], "does not support publishing"),
            (&["--net=none", "--port-driver=builtin", "-p", "8080:80", "x"], "8080:80"),
            (&["--net=none", "--port-driver=builtin", "-p", ":8080:80/icmp", "x"], "unknown proto"),
            (&["--reaper=true", "x"], "--reaper=true"),
            (&["--reaper=maybe", "x"], "maybe"),
            (&["--propagation=weird", "x"], "weird"),
            (&["--propagation=rshared", "--copy-up=/etc", "x"], "rshared"),
            (&["--copy-up=/tmp/.", "x"], "/tmp cannot be copied up"),
            (&["--copy-up=/nonexistent", "x"], "cannot copy up /nonexistent"),
            (&["--copy-up=/etc/passwd", "x"], "not a directory"),
            (&["--copy-up=etc", "x"], "absolute path"),
            (&["--copy-up-mode=overlay", "x"], "overlay"),
            (&["--subid-source=ldap", "x"], "ldap"),
            (&[&long, "x"], "too long"),
            (&[&nearly, "--net=slirp4netns", "--port-driver=slirp4netns", "x"], "allows 96"),
            (&[&nearly, "--net=bogus", "x"], "bogus"),
            (
                &[
                    "--net=none",
                    "--port-driver=builtin",
                    "--source-ip-transparent-backend=ebtables",
                    "x",
                ],
                "ebtables",
            ),
        ];
        let left_out = |word: &&str| {
            word.strip_prefix("--net=").is_some_and(net::left_out)
                || word.strip_prefix("--port-driver=").is_some_and(crate::cli::port_driver_left_out)
        };
        for (words, expected) in cases {
            let text = refuse(words);
            if words.iter().any(left_out) && text.contains("is not in this build") {
                continue;
            }
            assert!(text.contains(expected), "{words:?}: {text}");
        }
    }
}
