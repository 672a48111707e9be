//! Which port driver there is, with what the flags say about it.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use api::PortSpec;
use budget::{Budget, DataPath};
use drivers::{Cidr, NetworkDriver, PortDriver};
use hostenv::Env;

use super::builtin::Builtin;
use super::helper::find_program;
use super::{Connection, Flags};
use crate::available;
use crate::plan::SourceAddress;
use crate::port::Driver;

#[derive(Debug)]
pub(crate) struct Ports {
    driver: PortDriver,
    settings: Settings,
    publish: Vec<PortSpec>,
}

#[derive(Debug)]
enum Settings {
    /// The API has nothing to manage.
    Unmanaged,
    Builtin(SourceAddress),
    Gateway {
        dual_stack: bool,
    },
    /// `child` is where ports lead that name no address.
    Slirp4netns {
        child: Ipv4Addr,
    },
    /// `child` is the only address that ports can lead to.
    Pesto {
        binary: PathBuf,
        child: Ipv4Addr,
        ipv6: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) connection: &'a Connection<'a>,
    pub(crate) factory: Option<OwnedFd>,
    /// What the child says of [`Ports::source_address`]: `nft`, `iptables` or `none`.
    pub(crate) source_address_backend: String,
    /// Whether the gateway cannot reach the loopback addresses of the namespace.
    pub(crate) loopback_relayed: bool,
    pub(crate) state_dir: &'a Path,
    pub(crate) env: &'a Env,
    pub(crate) budget: &'a Budget,
}

impl Ports {
    /// As the flags have it, for this network.
    pub(crate) fn from_flags(network: NetworkDriver, flags: Flags<'_>) -> anyhow::Result<Self> {
        let cli = flags.cli;
        let publish = cli.publish.iter().map(|text| parse_publish(text));
        let publish = publish.collect::<anyhow::Result<Vec<_>>>()?;
        let driver = match (flags.ports, cli.port_driver.as_str()) {
            (Some(driver), _) if available::has_ports(driver) => driver,
            (Some(left_out), _) => bail!(
                "port driver {left_out} is not included in this build\nhint: use one of {}",
                available::port_drivers()
            ),
            (None, "pasta") => {
                bail!("unknown port driver: pasta\nhint: use implicit or pesto")
            }
            (None, name) => {
                bail!("unknown port driver: {name} (must be one of {})", available::port_drivers())
            }
        };
        check_pair(network, driver)?;
        let settings = Settings::read(driver, flags)?;
        if matches!(settings, Settings::Unmanaged) && !publish.is_empty() {
            let given = cli.publish.join(",");
            match driver {
                PortDriver::Implicit => tracing::warn!(
                    "--publish={given} has no effect with --port-driver=implicit: every listening port is published"
                ),
                _ => bail!(
                    "port driver \"none\" does not support publishing ports (--publish={given})\nhint: {}",
                    how_to_publish(network)
                ),
            }
        }
        Ok(Self { driver, settings, publish })
    }

    pub(crate) fn source_address(&self) -> SourceAddress {
        match self.settings {
            Settings::Builtin(source_address) => source_address,
            Settings::Gateway { .. } => SourceAddress::AutoIfRelayed,
            _ => SourceAddress::Off,
        }
    }

    pub(crate) fn data_path(&self) -> DataPath {
        match self.settings {
            Settings::Builtin(_) => DataPath::Parent,
            Settings::Gateway { .. } => DataPath::Gateway,
            _ => DataPath::Elsewhere,
        }
    }

    /// Starts the driver, with everything published that the command line asks for. `None` if the API has nothing to manage.
    #[allow(unreachable_patterns, reason = "a build with all drivers leaves none out")]
    pub(crate) fn start(&self, parts: Parts<'_>) -> anyhow::Result<Option<Box<dyn Driver + Send>>> {
        let Parts {
            connection,
            factory,
            source_address_backend: backend,
            loopback_relayed,
            state_dir,
            env,
            budget,
        } = parts;
        let socket = || state_dir.join(self.driver.socket().unwrap_or_default());
        let mut driver: Box<dyn Driver + Send> = match &self.settings {
            Settings::Unmanaged => return Ok(None),
            Settings::Builtin(_) => {
                let factory = factory.context("the child sent no socket factory")?;
                Box::new(Builtin::start(factory, budget, backend)?)
            }
            #[cfg(feature = "gateway")]
            Settings::Gateway { dual_stack } => {
                let Connection::Gateway(gateway) = connection else {
                    bail!("there is no gateway network")
                };
                let (name, handle) = (self.driver.name(), gateway.handle());
                let all_loopback = loopback_relayed.then_some(backend);
                let inside = super::gateway::Inside::new(factory, all_loopback, budget);
                Box::new(super::gateway::Ports::new(name, handle, *dual_stack, inside, budget))
            }
            #[cfg(feature = "slirp4netns")]
            Settings::Slirp4netns { child } => {
                Box::new(super::slirp4netns::Ports::new(socket(), *child))
            }
            #[cfg(feature = "pasta")]
            Settings::Pesto { binary, child, ipv6 } => {
                let (binary, env) = (binary.clone(), env.clone());
                Box::new(super::pasta::Pesto::new(binary, env, socket(), *child, *ipv6))
            }
            _ => bail!("port driver {} is not included in this build", self.driver),
        };
        for spec in &self.publish {
            driver.add(spec.clone())?;
        }
        Ok(Some(driver))
    }
}

impl Settings {
    fn read(driver: PortDriver, flags: Flags<'_>) -> anyhow::Result<Self> {
        let Flags { cli, cidr, env, .. } = flags;
        let child = cidr.unwrap_or(Cidr::DEFAULT).child();
        Ok(match driver {
            PortDriver::None | PortDriver::Implicit => Self::Unmanaged,
            PortDriver::Builtin => {
                let (wanted, backend) = (cli.source_ip_transparent, &cli.source_ip_backend);
                Self::Builtin(source_address(wanted, backend)?)
            }
            PortDriver::Gateway | PortDriver::GvisorTapVsock => {
                Self::Gateway { dual_stack: cli.dual_stack }
            }
            PortDriver::Slirp4netns => Self::Slirp4netns { child },
            PortDriver::Pesto => {
                let remedy = "install passt 2026_05_07 or later";
                let binary = find_program(env, &cli.pesto_binary, "--port-driver=pesto", remedy)?;
                Self::Pesto { binary, child, ipv6: cli.ipv6 }
            }
        })
    }
}

fn parse_publish(text: &str) -> anyhow::Result<PortSpec> {
    let invalid = || format!("invalid --publish={text}");
    let spec: PortSpec = text.parse().with_context(invalid)?;
    spec.validate().with_context(invalid)?;
    Ok(spec)
}

fn check_pair(network: NetworkDriver, driver: PortDriver) -> anyhow::Result<()> {
    if network.goes_with(driver) {
        return Ok(());
    }
    match driver.network() {
        Some(other) => {
            bail!("port driver \"{driver}\" requires --net={other}, got --net={network}")
        }
        None => bail!(
            "port driver \"{driver}\" requires its own network, but --net={network} uses the host's"
        ),
    }
}

/// What to do if ports are to be published, but the port driver is `none`.
fn how_to_publish(network: NetworkDriver) -> String {
    let mut drivers = network.port_drivers().iter().copied();
    drivers.find(|driver| driver.is_managed() && available::has_ports(*driver)).map_or_else(
        || format!("remove --publish: with --net={network}, servers use the host's addresses"),
        |driver| format!("add --port-driver={driver}"),
    )
}

fn source_address(wanted: bool, backend: &str) -> anyhow::Result<SourceAddress> {
    let backend = match backend {
        "auto" | "" => SourceAddress::Auto,
        "nft" => SourceAddress::Nft,
        "iptables" => SourceAddress::Iptables,
        other => {
            bail!("unknown --source-ip-transparent-backend={other} (must be auto, nft or iptables)")
        }
    };
    Ok(if wanted { backend } else { SourceAddress::Off })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_publishes_ports_is_sent_to_a_driver_that_can() {
        for network in NetworkDriver::ALL {
            let hint = how_to_publish(network);
            let named = hint.strip_prefix("add --port-driver=").and_then(PortDriver::from_name);
            let can = named.is_some_and(|driver| driver.is_managed() && network.goes_with(driver));
            assert_eq!(can, network != NetworkDriver::Host, "{network}: {hint}");
        }
    }
}
