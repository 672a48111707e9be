//! What was typed, validated: every combination is accepted or refused here, before anything is touched, and becomes the
//! plans that parent and child follow. The order of the checks is RootlessKit's.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::{Context as _, bail};
use budget::DataPath;
use drivers::{Cidr, NetworkDriver, PortDriver};
use hostenv::Env;
use nix::sched::CloneFlags;

use crate::available;
use crate::cli::Cli;
use crate::drivers::ports::Ports;
use crate::drivers::{Flags, Network};
use crate::plan::{ChildPlan, Propagation, PropagationKind};

/// The largest MTU that slirp4netns and pasta take, in bytes.
const MAX_MTU: i64 = 65521;

#[derive(Debug)]
pub(crate) struct Launch {
    /// Absolute; a temporary one if absent.
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) network: Network,
    pub(crate) ports: Ports,
    pub(crate) namespaces: CloneFlags,
    pub(crate) evacuate_cgroup2: Option<String>,
    pub(crate) subid_source: idmap::source::Source,
    pub(crate) child: ChildPlan,
}

impl Launch {
    pub(crate) fn validate(cli: &Cli, env: &Env) -> anyhow::Result<Self> {
        if cli.command.is_empty() {
            bail!(
                "no command specified\nhint: use: rootlesskit [flags] COMMAND [ARG...]; see rootlesskit --help"
            );
        }
        let evacuate_cgroup2 = evacuation(cli)?;
        let reaper = reaper(&cli.reaper, cli.pidns)?;
        let propagation = Propagation::parse(&cli.propagation)?;
        let copy_up = copy_up(cli, propagation)?;
        let driver = NetworkDriver::from_name(&cli.net);
        let ports = PortDriver::from_name(&cli.port_driver);
        let state_dir = state_dir(cli, driver, ports)?;
        let cidr = addresses(cli)?;
        let driver = network_driver(cli, driver)?;
        let flags = Flags { cli, cidr, ports, env };
        let network = Network::from_flags(driver, flags)?;
        let ports = Ports::from_flags(driver, flags)?;
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
        let subid_source = idmap::source::Source::from_str(&cli.subid_source)
            .with_context(|| format!("invalid --subid-source={}", cli.subid_source))?;
        let child = ChildPlan {
            debug: cli.debug,
            isolated: driver.isolates(),
            network: network.plan.clone(),
            detach_netns: cli.detach_netns,
            socket_factory: ports.data_path() != DataPath::Elsewhere,
            source_address: ports.source_address(),
            pidns: cli.pidns,
            evacuated: evacuate_cgroup2.is_some(),
            propagation,
            copy_up,
            reaper,
            command_words: cli.command.len(),
        };
        Ok(Self { state_dir, network, ports, namespaces, evacuate_cgroup2, subid_source, child })
    }
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
        bail!("invalid --evacuate-cgroup2={name}: must be a single name without a slash");
    }
    Ok(Some(name.clone()))
}

/// Whether the target gets a session of its own and orphans are collected.
fn reaper(word: &str, pidns: bool) -> anyhow::Result<bool> {
    match word {
        "auto" => Ok(pidns),
        "true" if pidns => Ok(true),
        "true" => bail!("--reaper=true requires --pidns"),
        "false" => Ok(false),
        _ => bail!("unknown --reaper={word} (must be auto, true or false)"),
    }
}

/// The directories to copy up, checked here so that nothing has to be undone.
fn copy_up(cli: &Cli, propagation: Propagation) -> anyhow::Result<Vec<PathBuf>> {
    if cli.copy_up_mode != "tmpfs+symlink" {
        bail!("unknown copy-up mode: {:?} (must be tmpfs+symlink)", cli.copy_up_mode);
    }
    for dir in &cli.copy_up {
        let path = Path::new(dir);
        if !path.is_absolute() {
            bail!("invalid --copy-up={dir}: must be an absolute path");
        }
        if crate::child::clean(path) == Path::new("/tmp") {
            bail!("/tmp cannot be copied up, because programs inside and outside share it");
        }
        if crate::child::clean(path) == Path::new("/") {
            bail!("/ cannot be copied up; specify directories below it instead");
        }
        let meta = std::fs::metadata(path).with_context(|| format!("cannot copy up {dir}"))?;
        if !meta.is_dir() {
            bail!("cannot copy up {dir}: not a directory");
        }
    }
    if !cli.copy_up.is_empty() && propagation.kind == PropagationKind::Shared {
        bail!(
            "--copy-up cannot be used with --propagation={}, because its mounts would propagate to the host",
            cli.propagation
        );
    }
    Ok(cli.copy_up.iter().map(PathBuf::from).collect())
}

/// Bytes that a socket's path may have: sun_path is 108 with its NUL (unix(7)).
pub(crate) const MAX_SOCKET_PATH: usize = 107;

fn state_dir(
    cli: &Cli,
    network: Option<NetworkDriver>,
    ports: Option<PortDriver>,
) -> anyhow::Result<Option<PathBuf>> {
    if cli.state_dir.is_empty() {
        return Ok(None);
    }
    let path = std::path::absolute(&cli.state_dir)
        .with_context(|| format!("invalid --state-dir={}", cli.state_dir))?;
    let others = [network.and_then(NetworkDriver::socket), ports.and_then(PortDriver::socket)];
    let sockets = others.into_iter().flatten().chain([api::SOCKET_NAME]);
    let socket = sockets.max_by_key(|name| name.len()).unwrap_or(api::SOCKET_NAME);
    let (length, room) = (path.as_os_str().len(), MAX_SOCKET_PATH - 1 - socket.len());
    if length > room {
        bail!(
            "--state-dir={} is too long: it has {length} bytes, but the path of the socket {socket} in it allows only {room}\nhint: use a shorter path, for example below /run/user",
            path.display()
        );
    }
    Ok(Some(path))
}

/// Checks what any network driver may be told of its interface; the addresses that the user chose.
fn addresses(cli: &Cli) -> anyhow::Result<Option<Cidr>> {
    if !(0..=MAX_MTU).contains(&cli.mtu) {
        bail!("invalid --mtu={}: must be between 0 (default) and {MAX_MTU}", cli.mtu);
    }
    let cidr = match cli.cidr.as_str() {
        "" => None,
        text => Some(text.parse::<Cidr>().with_context(|| format!("invalid --cidr={text}"))?),
    };
    if cli.ifname.contains('/') || cli.ifname.len() > 15 || cli.ifname.contains(char::is_whitespace)
    {
        bail!(
            "invalid --ifname={}: must be at most 15 bytes long, without slashes or white space",
            cli.ifname
        );
    }
    Ok(cidr)
}

/// The network driver, with warnings about flags that have no effect on it.
fn network_driver(cli: &Cli, named: Option<NetworkDriver>) -> anyhow::Result<NetworkDriver> {
    let Some(driver) = named else {
        let names = drivers::list(available::networks());
        bail!("unknown network mode: {} (must be one of {names})", cli.net)
    };
    if cli.ipv6 {
        match driver {
            NetworkDriver::Gateway => {}
            NetworkDriver::GvisorTapVsock if available::has_network(driver) => {
                bail!("--ipv6 is not supported for --net={driver}\nhint: use --net=gateway")
            }
            _ if driver.has_ipv6() => tracing::warn!("ipv6 is experimental"),
            _ => tracing::warn!("--ipv6 is discarded for --net={driver}"),
        }
    }
    if !cli.host_loopback_allow.is_empty() && !driver.has_loopback_ports() {
        bail!(
            "--host-loopback-allow={} is not supported for --net={driver}, which cannot open single ports of the host's loopback\nhint: use --net=gateway, or remove --host-loopback-allow",
            cli.host_loopback_allow.join(",")
        );
    }
    if !cli.egress_policy.is_empty() && !driver.has_egress_policy() {
        bail!(
            "--egress-policy={} is not supported for --net={driver}, which cannot enforce it\nhint: use --net=gateway, or remove --egress-policy",
            cli.egress_policy.join(",")
        );
    }
    if driver.reaches_host_loopback() && !cli.disable_host_loopback {
        tracing::warn!(
            "specifying --disable-host-loopback is highly recommended to prohibit connecting to 127.0.0.1:* on the host namespace (requires gateway, pasta, slirp4netns, or VPNKit)"
        );
    }
    Ok(driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn validate(words: &[&str]) -> anyhow::Result<Launch> {
        let cli = Cli::parse(words.iter().map(OsString::from))?;
        Launch::validate(&cli, &[("PATH", "/nonexistent")].into_iter().collect())
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
            (&["--net=slirp4netns", "--cidr=10.0.2.5/24", "x"], "cidr must be 10.0.2.0/24"),
            (&["--ifname=a/b", "--net=pasta", "x"], "--ifname=a/b"),
            (&["--host-loopback-allow=tcp:80", "x"], "not supported for --net=host"),
            (
                &["--net=pasta", "--host-loopback-allow=tcp:80,udp:1", "x"],
                "--host-loopback-allow=tcp:80,udp:1 is not supported for --net=pasta",
            ),
            (
                &["--net=gateway", "--disable-host-loopback", "--host-loopback-allow=tcp", "x"],
                "invalid --host-loopback-allow=tcp: the entry \"tcp\" has no protocol",
            ),
            (
                &["--net=gateway", "--host-loopback-allow=tcp:80", "x"],
                "--host-loopback-allow=tcp:80 requires --disable-host-loopback",
            ),
            (
                &["--net=pasta", "--egress-policy=/a,/b", "x"],
                "--egress-policy=/a,/b is not supported for --net=pasta, which cannot enforce it",
            ),
            (
                &["--net=gateway", "--egress-policy=/nonexistent/e.toml", "x"],
                "cannot read the egress policy /nonexistent/e.toml: No such file",
            ),
            (&["--cidr=10.0.2.0/24", "x"], "not supported for --net=host"),
            (&["--ifname=e0", "--net=none", "x"], "--ifname=e0"),
            (&["--net=slirp4netns", "x"], "slirp4netns was not found in $PATH"),
            (&["--net=bogus", "x"], "unknown network mode: bogus"),
            (&["--net=vpnkit", "x"], "vpnkit was not found in $PATH"),
            (&["--net=vpnkit", "--cidr=10.0.2.0/24", "x"], "not supported for --net=vpnkit"),
            (&["--net=lxc-user-nic", "--lxc-user-nic-binary=/nope", "x"], "/nope cannot be"),
            (&["--net=lxc-user-nic", "--cidr=10.0.2.0/24", "x"], "for --net=lxc-user-nic"),
            (&["--port-driver=bogus", "x"], "unknown port driver: bogus"),
            (&["--port-driver=pasta", "x"], "use implicit or pesto"),
            (&["--port-driver=builtin", "x"], "--net=host"),
            (&["--port-driver=implicit", "x"], "requires --net=pasta"),
            (&["--net=none", "--port-driver=implicit", "x"], "cannot be used with --net=none"),
            (&["-p", "127.0.0.1:80:80/tcp", "x"], "hint: remove --publish: with --net=host"),
            (&["--net=none", "-p", "127.0.0.1:80:80/tcp", "x"], "hint: add --port-driver=builtin"),
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
            (&[&nearly, "--net=slirp4netns", "--port-driver=slirp4netns", "x"], "allows only 96"),
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
            let network = word.strip_prefix("--net=").and_then(NetworkDriver::from_name);
            let ports = word.strip_prefix("--port-driver=").and_then(PortDriver::from_name);
            network.is_some_and(|driver| !available::has_network(driver))
                || ports.is_some_and(|driver| !available::has_ports(driver))
        };
        for (words, expected) in cases {
            let text = refuse(words);
            if words.iter().any(left_out) && text.contains("is not included in this build") {
                continue;
            }
            assert!(text.contains(expected), "{words:?}: {text}");
        }
    }

    #[test]
    fn a_reaper_needs_a_pid_namespace() {
        assert!(reaper("auto", true).unwrap());
        assert!(!reaper("auto", false).unwrap());
        assert!(!reaper("false", true).unwrap());
        assert!(reaper("true", false).unwrap_err().to_string().contains("--pidns"));
    }

    #[test]
    fn the_child_gets_the_end_of_the_command_line_as_the_command() {
        let child = validate(&["--net=none", "--pidns", "sh", "-c", "true"]).unwrap().child;
        assert_eq!((child.command_words, child.reaper, child.pidns), (3, true, true));
        assert!(child.isolated && !child.network.changes_view());
    }
}
