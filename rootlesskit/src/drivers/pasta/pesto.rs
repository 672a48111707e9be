//! `--port-driver=pesto`: pasta itself listens on the host, and its companion pesto(1) tells it for which ports
//! (passt 2026_05_07 and later). As fast as `implicit`, but only what was asked for is published.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::spec::{Family, Transport};
use api::{PortDriverInfo, PortId, PortSpec, PortStatus, ValidSpec};
use hostenv::Env;
use hostenv::helper::Helper;

use crate::port::Driver;
use crate::port::patience::{Patience, Refused, settle};
use crate::port::serves_everybody;
use crate::port::table::Table;

const PESTO_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Pesto {
    binary: PathBuf,
    env: Env,
    socket: PathBuf,
    /// The only address in the namespace that ports can lead to.
    child: Ipv4Addr,
    ipv6: bool,
    table: Table<()>,
    patience: Patience,
}

impl Pesto {
    pub(crate) fn new(
        binary: PathBuf,
        env: Env,
        socket: PathBuf,
        child: Ipv4Addr,
        ipv6: bool,
    ) -> Self {
        Self {
            binary,
            env,
            socket,
            child,
            ipv6,
            table: Table::new(),
            patience: Patience::default(),
        }
    }

    /// `change` is what pesto is to do: `--add` or `--delete`.
    fn run(&self, change: &str, spec: &ValidSpec) -> anyhow::Result<()> {
        let words = self.words(change, spec)?;
        let (command, output) = self.patience.ask("pasta", PESTO_TIMEOUT, || {
            let helper = Helper::start(&self.binary, &words, &self.env, PESTO_TIMEOUT)?;
            Ok((helper.command_line().to_owned(), helper.finish()?))
        })?;
        if !output.status.success() {
            let said = output.text().replace('\n', "; ");
            return Err(Refused(format!("{command} failed ({}): {said}", output.status)).into());
        }
        Ok(())
    }

    fn words(&self, change: &str, spec: &ValidSpec) -> anyhow::Result<Vec<String>> {
        serves_everybody(spec, "pesto")?;
        let flag = match spec.proto.transport() {
            Transport::Tcp => "--tcp-ports",
            Transport::Udp => "--udp-ports",
            Transport::Sctp => bail!("unsupported protocol: {}", spec.proto.as_str()),
        };
        if let Some(ip) = spec.child_ip.map(|ip| ip.to_canonical())
            && ip != self.child
        {
            bail!(
                "invalid ChildIP: {ip} (the pesto port driver can only forward to {})",
                self.child
            );
        }
        let mut words = vec![change.to_owned()];
        for ip in self.parents(spec)? {
            words.push(format!("{flag}={ip}/{}:{}", spec.parent_port, spec.child_port));
        }
        words.push(self.socket.display().to_string());
        Ok(words)
    }

    fn parents(&self, spec: &ValidSpec) -> anyhow::Result<Vec<IpAddr>> {
        let proto = spec.proto.as_str();
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let parents = match (spec.proto.family(), spec.parent_ip) {
            (Some(Family::V6), None) => vec![v6],
            (Some(Family::V4), None) => vec![v4],
            (None, None) if self.ipv6 => vec![v4, v6],
            (None, None) => vec![v4],
            (Some(family), Some(ip)) if ip.is_ipv6() != (family == Family::V6) => {
                bail!("invalid ParentIP: {ip} (not a valid address for {proto})")
            }
            (_, Some(ip)) => vec![ip],
        };
        if !self.ipv6 && parents.iter().any(IpAddr::is_ipv6) {
            bail!("unsupported protocol: {proto} (IPv6 is not enabled)\nhint: add --ipv6");
        }
        Ok(parents)
    }
}

impl Driver for Pesto {
    fn info(&self) -> PortDriverInfo {
        // The IPv6 protocols work with --ipv6, but are not offered: dockerd leads both families to the one child address
        // (see the driver `gateway`), and so the IPv6 half of `-p 8080:80` would keep the other half from starting.
        let protos = ["tcp", "tcp4", "udp", "udp4"].map(str::to_owned).to_vec();
        PortDriverInfo {
            driver: "pesto".to_owned(),
            protos,
            disallow_loopback_child_ip: true,
            ..PortDriverInfo::default()
        }
    }

    fn list(&self) -> Vec<PortStatus> {
        self.table.list()
    }

    fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus> {
        let valid = spec.validate()?;
        let id = self.table.reserve(&spec)?;
        self.run("--add", &valid).with_context(|| format!("failed to publish {spec}"))?;
        Ok(self.table.insert(id, spec, ()))
    }

    fn remove(&mut self, id: PortId) -> anyhow::Result<()> {
        let (spec, ()) = self.table.get(id)?;
        let valid = spec.validate()?;
        let withdrawn =
            self.run("--delete", &valid).with_context(|| format!("failed to remove {spec}"));
        settle(&mut self.table, id, withdrawn)
    }

    fn helper_restarted(&mut self) {
        self.patience = Patience::default();
        for PortStatus { spec, .. } in self.table.list() {
            let again =
                spec.validate().map_err(anyhow::Error::from).and_then(|v| self.run("--add", &v));
            if let Err(e) = again {
                tracing::error!("failed to publish {spec} again: {}", crate::exit::describe(&e));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(ipv6: bool, text: &str) -> anyhow::Result<String> {
        let child = Ipv4Addr::new(10, 0, 2, 100);
        let driver = Pesto::new("pesto".into(), Env::default(), "/s".into(), child, ipv6);
        let spec = text.parse::<PortSpec>()?.validate()?;
        Ok(driver.words("--add", &spec)?.join(" "))
    }

    #[test]
    fn the_command_line() {
        for (ipv6, spec, wanted) in [
            (false, "127.0.0.1:8080:80/tcp", "--add --tcp-ports=127.0.0.1/8080:80 /s"),
            (false, ":8080:80/udp4", "--add --udp-ports=0.0.0.0/8080:80 /s"),
            (true, ":8080:80/tcp", "--add --tcp-ports=0.0.0.0/8080:80 --tcp-ports=::/8080:80 /s"),
            (true, "[::1]:8080:80/tcp6", "--add --tcp-ports=::1/8080:80 /s"),
            (false, ":8080:10.0.2.100:80/tcp", "--add --tcp-ports=0.0.0.0/8080:80 /s"),
        ] {
            assert_eq!(words(ipv6, spec).unwrap(), wanted);
        }
    }

    #[test]
    fn dockerd_is_offered_one_family_for_the_one_child_address() {
        for ipv6 in [false, true] {
            let child = Ipv4Addr::new(10, 0, 2, 100);
            let driver = Pesto::new("pesto".into(), Env::default(), "/s".into(), child, ipv6);
            assert_eq!(driver.info().protos, ["tcp", "tcp4", "udp", "udp4"]);
        }
    }

    #[test]
    fn what_pasta_cannot_do_is_refused() {
        for (ipv6, spec, wanted) in [
            (false, ":8080:80/tcp6", "hint: add --ipv6"),
            (false, "[::1]:8080:80/tcp", "IPv6 is not enabled"),
            (true, "127.0.0.1:8080:80/tcp6", "not a valid address for tcp6"),
            (true, ":8080:172.17.0.2:80/tcp", "only forward to 10.0.2.100"),
            (true, ":8080:80/sctp", "unsupported protocol"),
        ] {
            let error = format!("{:#}", words(ipv6, spec).unwrap_err());
            assert!(error.contains(wanted), "{spec}: {error}");
        }
    }
}
