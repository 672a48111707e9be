//! What was typed: the flags, their defaults and their help, in one definition. Whether the values make
//! sense together is the business of [`crate::config`].
//!
//! The command line follows Go's `flag` package (one dash or two, the last scalar wins, lists split at
//! commas, parsing stops at the first word that is no flag), which [`goflags`] turns into clap's form.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, ArgMatches, Command};
use drivers::NetworkDriver;

use crate::available;

/// Headings of the help text, in its order.
pub(crate) mod heading {
    pub(crate) const MISC: &str = "Misc";
    pub(crate) const MOUNT: &str = "Mount";
    pub(crate) const NETWORK: &str = "Network";
    pub(crate) const LXC_USER_NIC: &str = "Network [lxc-user-nic]";
    pub(crate) const PASTA: &str = "Network [pasta]";
    pub(crate) const SLIRP4NETNS: &str = "Network [slirp4netns]";
    pub(crate) const VPNKIT: &str = "Network [vpnkit]";
    pub(crate) const PORT: &str = "Port";
    pub(crate) const PROCESS: &str = "Process";
    pub(crate) const STATE: &str = "State";
    pub(crate) const SUBID: &str = "SubID";
    pub(crate) const ALL: [&str; 11] = [
        MISC,
        MOUNT,
        NETWORK,
        LXC_USER_NIC,
        PASTA,
        SLIRP4NETNS,
        VPNKIT,
        PORT,
        PROCESS,
        STATE,
        SUBID,
    ];
}

fn text(
    name: &'static str,
    default: &'static str,
    heading: &'static str,
    help: impl Into<StyledStr>,
) -> Arg {
    let arg = Arg::new(name).long(name).help(help).help_heading(heading).value_name("value");
    if default.is_empty() { arg } else { arg.default_value(default) }
}

fn switch(name: &'static str, heading: &'static str, help: impl Into<StyledStr>) -> Arg {
    Arg::new(name).long(name).help(help).help_heading(heading).action(ArgAction::SetTrue)
}

fn list(name: &'static str, heading: &'static str, help: impl Into<StyledStr>) -> Arg {
    text(name, "", heading, help).action(ArgAction::Append)
}

fn networks() -> String {
    let names = available::networks().map(|driver| match driver.is_experimental() {
        true => format!("{driver}(experimental)"),
        false => driver.to_string(),
    });
    format!("network driver [{}]", drivers::list(names))
}

/// Those of this build's network drivers that have a property, in words.
fn networks_that(have: impl Fn(NetworkDriver) -> bool) -> String {
    let names: Vec<_> = available::networks().filter(|driver| have(*driver)).collect();
    match names.as_slice() {
        [] => "no driver in this build".to_owned(),
        [one] => one.to_string(),
        [rest @ .., last] => format!("{} and {last}", drivers::list(rest)),
    }
}

fn bare() -> Command {
    Command::new("rootlesskit")
        .about("Linux-native fakeroot using user namespaces")
        .version(api::ROOTLESSKIT_VERSION)
        .disable_help_flag(true)
        .disable_version_flag(true)
}

/// What people are to see of the definition: completions would offer hidden flags.
pub(crate) fn shown() -> Command {
    let all = command();
    bare().args(all.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
}

/// The definition that parsing, help, man page and completions share.
pub(crate) fn command() -> Command {
    use heading::*;
    bare()
        .args([
            switch("debug", MISC, "debug mode"),
            text("print-semver", "", MISC, "print a version component as a decimal integer [major, minor, patch]"),
            switch("help", MISC, "show help").short('h'),
            switch("version", MISC, "print the version").short('v'),
            list("copy-up", MOUNT, "mount a filesystem and copy-up the contents. e.g. \"--copy-up=/etc\" (typically required for non-host network)"),
            text("copy-up-mode", "tmpfs+symlink", MOUNT, "copy-up mode [tmpfs+symlink]"),
            text("propagation", "rprivate", MOUNT, "mount propagation [rprivate, rslave, ...]"),
            text("net", "host", NETWORK, networks()),
            text("mtu", "0", NETWORK, format!("MTU for non-host network; 0 means the driver's default: 1500 for {}, 65520 for others", networks_that(|driver| driver.connects() && driver.default_mtu() == 1500)))
                .value_parser(clap::value_parser!(i64)),
            text("cidr", "", NETWORK, format!("CIDR for {} networks (default: 10.0.2.0/24)", networks_that(NetworkDriver::has_cidr))),
            text("ifname", "", NETWORK, "network interface name (default: eth0 for lxc-user-nic, tap0 for others)"),
            switch("disable-host-loopback", NETWORK, "prohibit connecting to 127.0.0.1:* on the host namespace"),
            list("host-loopback-allow", NETWORK, format!("ports of 127.0.0.1 on the host that can be reached at the gateway's address despite --disable-host-loopback. Only supported for --net=gateway. e.g. \"--host-loopback-allow={}\"", drivers::loopback::EXAMPLE))
                .hide(!cfg!(feature = "gateway")),
            list("egress-policy", NETWORK, format!("TOML file with rules that restrict which destinations containers can reach. Can be repeated; every file must allow a connection. Only supported for {}. e.g. \"--egress-policy=/etc/docker-rootless/egress.toml\"", networks_that(NetworkDriver::has_egress_policy)))
                .hide(!cfg!(feature = "gateway")),
            switch("ipv6", NETWORK, format!("enable IPv6 routing. Only supported for {}. (experimental)", networks_that(NetworkDriver::has_ipv6))),
            switch("detach-netns", NETWORK, "detach network namespaces"),
            text("pasta-binary", "pasta", PASTA, "path of pasta binary for --net=pasta")
                .hide(!cfg!(feature = "pasta")),
            text("pesto-binary", "pesto", PASTA, "path of pesto binary for --port-driver=pesto")
                .hide(!cfg!(feature = "pasta")),
            text("slirp4netns-binary", "slirp4netns", SLIRP4NETNS, "path of slirp4netns binary for --net=slirp4netns")
                .hide(!cfg!(feature = "slirp4netns")),
            text("slirp4netns-sandbox", "false", SLIRP4NETNS, "enable slirp4netns sandbox (experimental) [auto, true, false] (the default is planned to be \"auto\" in future)")
                .hide(!cfg!(feature = "slirp4netns")),
            text("slirp4netns-seccomp", "false", SLIRP4NETNS, "enable slirp4netns seccomp (experimental) [auto, true, false] (the default is planned to be \"auto\" in future)")
                .hide(!cfg!(feature = "slirp4netns")),
            text("vpnkit-binary", "vpnkit", VPNKIT, "path of VPNKit binary for --net=vpnkit")
                .hide(!cfg!(feature = "vpnkit")),
            text("lxc-user-nic-binary", "", LXC_USER_NIC, "path of lxc-user-nic binary for --net=lxc-user-nic (default: searched for in the directories where distributions install it)")
                .hide(!cfg!(feature = "lxc-user-nic")),
            text("lxc-user-nic-bridge", "lxcbr0", LXC_USER_NIC, "lxc-user-nic bridge name")
                .hide(!cfg!(feature = "lxc-user-nic")),
            text("port-driver", "none", PORT, format!("port driver for non-host network [{}]", available::port_drivers())),
            list("publish", PORT, "publish ports. e.g. \"127.0.0.1:8080:80/tcp\"").short('p'),
            text("source-ip-transparent", "true", PORT, "preserve the source addresses of TCP clients (builtin)")
                .value_parser(clap::value_parser!(bool)),
            switch("gateway-dual-stack", PORT, "with --port-driver=gateway, also publish ports on all IPv6 addresses if they are published on all IPv4 addresses (0.0.0.0)")
                .hide(!cfg!(feature = "gateway")),
            text("source-ip-transparent-backend", "auto", PORT, "how to preserve source addresses [auto, nft, iptables]"),
            switch("pidns", PROCESS, "create a PID namespace"),
            switch("cgroupns", PROCESS, "create a cgroup namespace"),
            switch("utsns", PROCESS, "create a UTS namespace"),
            switch("ipcns", PROCESS, "create an IPC namespace"),
            text("reaper", "auto", PROCESS, "enable process reaper. Requires --pidns. [auto, true, false]"),
            text("evacuate-cgroup2", "", PROCESS, "evacuate processes into the specified subgroup. Requires --pidns and --cgroupns"),
            text("state-dir", "", STATE, "state directory"),
            text("subid-source", "auto", SUBID, "the source of the subids. \"dynamic\" executes /usr/bin/getsubids. \"static\" reads /etc/{subuid,subgid}. [auto, dynamic, static]"),
        ])
        .arg(Arg::new("command").num_args(0..).value_parser(clap::value_parser!(OsString)))
}

/// A command line that is refused before its values are looked at, in the words of Go's parser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// The command line, typed, not yet validated.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    pub(crate) debug: bool,
    pub(crate) help: bool,
    pub(crate) version: bool,
    pub(crate) print_semver: Option<String>,
    pub(crate) state_dir: String,
    pub(crate) net: String,
    pub(crate) pasta_binary: String,
    pub(crate) pesto_binary: String,
    pub(crate) slirp4netns_binary: String,
    pub(crate) vpnkit_binary: String,
    pub(crate) lxc_user_nic_binary: String,
    pub(crate) lxc_user_nic_bridge: String,
    pub(crate) slirp4netns_sandbox: String,
    pub(crate) slirp4netns_seccomp: String,
    pub(crate) mtu: i64,
    pub(crate) cidr: String,
    pub(crate) ifname: String,
    pub(crate) disable_host_loopback: bool,
    /// Entries of a [`drivers::LoopbackPorts`].
    pub(crate) host_loopback_allow: Vec<String>,
    /// Files, in the order in which they judge.
    pub(crate) egress_policy: Vec<String>,
    pub(crate) ipv6: bool,
    pub(crate) detach_netns: bool,
    pub(crate) copy_up: Vec<String>,
    pub(crate) copy_up_mode: String,
    pub(crate) propagation: String,
    pub(crate) port_driver: String,
    pub(crate) publish: Vec<String>,
    pub(crate) source_ip_transparent: bool,
    pub(crate) source_ip_backend: String,
    pub(crate) dual_stack: bool,
    pub(crate) pidns: bool,
    pub(crate) cgroupns: bool,
    pub(crate) utsns: bool,
    pub(crate) ipcns: bool,
    pub(crate) reaper: String,
    pub(crate) evacuate_cgroup2: String,
    pub(crate) subid_source: String,
    pub(crate) command: Vec<OsString>,
}

impl Cli {
    /// Reads a command line without `argv[0]`.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, Usage> {
        let cmd = command();
        let normalized = goflags::normalize(&cmd, args).map_err(|e| Usage(e.to_string()))?;
        let argv = normalized.to_clap_args("rootlesskit");
        let m = cmd.try_get_matches_from(argv).map_err(|e| Usage(one_line(&e.to_string())))?;
        Ok(Self::from_matches(&m))
    }

    /// The MTU that was asked for, in bytes.
    pub(crate) fn mtu_or(&self, default: u32) -> u32 {
        u32::try_from(self.mtu).ok().filter(|mtu| *mtu != 0).unwrap_or(default)
    }

    pub(crate) fn ifname_or(&self, default: &str) -> String {
        if self.ifname.is_empty() { default.to_owned() } else { self.ifname.clone() }
    }

    fn from_matches(m: &ArgMatches) -> Self {
        let string = |name: &str| m.get_one::<String>(name).cloned().unwrap_or_default();
        let strings = |name: &str| {
            goflags::split_slice(
                m.get_many::<String>(name).into_iter().flatten().map(String::as_str),
            )
        };
        let command = m.get_many::<OsString>("command").into_iter().flatten().cloned().collect();
        Self {
            debug: m.get_flag("debug"),
            help: m.get_flag("help"),
            version: m.get_flag("version"),
            print_semver: m.get_one::<String>("print-semver").cloned().filter(|s| !s.is_empty()),
            state_dir: string("state-dir"),
            net: string("net"),
            pasta_binary: string("pasta-binary"),
            pesto_binary: string("pesto-binary"),
            slirp4netns_binary: string("slirp4netns-binary"),
            vpnkit_binary: string("vpnkit-binary"),
            lxc_user_nic_binary: string("lxc-user-nic-binary"),
            lxc_user_nic_bridge: string("lxc-user-nic-bridge"),
            slirp4netns_sandbox: string("slirp4netns-sandbox"),
            slirp4netns_seccomp: string("slirp4netns-seccomp"),
            mtu: m.get_one::<i64>("mtu").copied().unwrap_or_default(),
            cidr: string("cidr"),
            ifname: string("ifname"),
            disable_host_loopback: m.get_flag("disable-host-loopback"),
            host_loopback_allow: strings("host-loopback-allow"),
            egress_policy: strings("egress-policy"),
            ipv6: m.get_flag("ipv6"),
            detach_netns: m.get_flag("detach-netns"),
            copy_up: strings("copy-up"),
            copy_up_mode: string("copy-up-mode"),
            propagation: string("propagation"),
            port_driver: string("port-driver"),
            publish: strings("publish"),
            source_ip_transparent: m
                .get_one::<bool>("source-ip-transparent")
                .copied()
                .unwrap_or(true),
            source_ip_backend: string("source-ip-transparent-backend"),
            dual_stack: m.get_flag("gateway-dual-stack"),
            pidns: m.get_flag("pidns"),
            cgroupns: m.get_flag("cgroupns"),
            utsns: m.get_flag("utsns"),
            ipcns: m.get_flag("ipcns"),
            reaper: string("reaper"),
            evacuate_cgroup2: string("evacuate-cgroup2"),
            subid_source: string("subid-source"),
            command,
        }
    }
}

/// clap's report without its `error: ` and its usage lines, which [`crate::help`] prints in full.
fn one_line(report: &str) -> String {
    let first = report.lines().next().unwrap_or(report);
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Cli {
        Cli::parse(words.iter().map(OsString::from)).unwrap()
    }

    fn refuse(words: &[&str]) -> String {
        Cli::parse(words.iter().map(OsString::from)).unwrap_err().to_string()
    }

    #[test]
    fn go_style_flags_and_defaults() {
        let cli = parse(&[
            "-net",
            "none",
            "--mtu=1500",
            "--mtu=0x10",
            "--copy-up=/etc, /run",
            "sh",
            "-c",
            "-debug",
        ]);
        assert_eq!((cli.net.as_str(), cli.mtu), ("none", 16));
        assert_eq!(cli.copy_up, ["/etc", "/run"]);
        assert_eq!(cli.command, ["sh", "-c", "-debug"]);
        assert!(!cli.debug && cli.source_ip_transparent);
        assert_eq!((cli.propagation.as_str(), cli.port_driver.as_str()), ("rprivate", "none"));
        assert_eq!((cli.reaper.as_str(), cli.subid_source.as_str()), ("auto", "auto"));
        assert!(!parse(&["--source-ip-transparent=false", "x"]).source_ip_transparent);
        assert_eq!(parse(&["--pidns", "false"]).command, ["false"]);
    }

    #[test]
    fn errors_are_go_texts() {
        assert_eq!(refuse(&["--nope"]), "flag provided but not defined: -nope");
        assert_eq!(refuse(&["--net"]), "flag needs an argument: -net");
        assert!(refuse(&["--mtu=abc", "x"]).contains("invalid value \"abc\" for flag -mtu"));
        assert!(refuse(&["--debug=7", "x"]).contains("invalid boolean value \"7\" for -debug"));
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
        let headings = heading::ALL;
        for arg in command().get_arguments().filter(|a| a.get_id() != "command") {
            assert!(headings.contains(&arg.get_help_heading().unwrap()), "{}", arg.get_id());
        }
    }
}
