//! What user-mode networks with a helper program have in common.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::NetworkDriverInfo;
use drivers::{Cidr, NetworkDriver};
use hostenv::Env;
use hostenv::helper::{Helper, Output};
use nix::unistd::Pid;

use super::Flags;
use super::helper::find_program;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) cidr: Cidr,
    pub(super) cidr_given: bool,
    pub(super) ifname: String,
    /// In bytes.
    pub(super) mtu: u32,
    pub(super) ipv6: bool,
    pub(super) disable_host_loopback: bool,
    /// The name of the helper's control socket, if ports are published over it.
    pub(super) control_socket: Option<&'static str>,
    pub(super) detach_netns: bool,
    /// The helper program, absolute.
    pub(super) binary: PathBuf,
}

impl Settings {
    /// Reads them. `binary` is the program that the flags name.
    pub(super) fn read(
        driver: NetworkDriver,
        flags: Flags<'_>,
        binary: &str,
    ) -> anyhow::Result<Self> {
        let Flags { cli, cidr, ports, env } = flags;
        let remedy = format!("install {}", driver.helper_package().unwrap_or_default());
        let binary = find_program(env, binary, &format!("--net={driver}"), &remedy)?;
        Ok(Self {
            cidr: cidr.unwrap_or(Cidr::DEFAULT),
            cidr_given: cidr.is_some(),
            ifname: cli.ifname_or(driver.default_ifname()),
            mtu: cli.mtu_or(driver.default_mtu()),
            ipv6: cli.ipv6,
            disable_host_loopback: cli.disable_host_loopback,
            control_socket: ports.and_then(drivers::PortDriver::socket),
            detach_netns: cli.detach_netns,
            binary,
        })
    }

    pub(super) fn info(&self, driver: NetworkDriver, dns: &[IpAddr]) -> NetworkDriverInfo {
        NetworkDriverInfo {
            driver: driver.to_string(),
            dns: dns.to_vec(),
            child_ip: Some(self.cidr.child().into()),
            dynamic_child_ip: false,
            ipv6: self.ipv6,
        }
    }
}

/// Runs `binary` with an option that makes it answer and end at once.
pub(super) fn ask(binary: &Path, args: &[&str], env: &Env) -> anyhow::Result<Output> {
    Ok(Helper::start(binary, args, env, Duration::from_secs(5))?.finish()?)
}

/// A namespace file of the child as the parent sees it.
pub(super) fn ns_file(child: Pid, name: &str) -> String {
    format!("/proc/{child}/ns/{name}")
}

#[cfg(test)]
pub(super) fn example() -> Settings {
    Settings {
        cidr: Cidr::DEFAULT,
        cidr_given: false,
        ifname: "tap0".into(),
        mtu: 65520,
        ipv6: false,
        disable_host_loopback: true,
        control_socket: None,
        detach_netns: false,
        binary: "/usr/bin/helper".into(),
    }
}
