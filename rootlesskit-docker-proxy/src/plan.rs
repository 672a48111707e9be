//! What to publish, and what the real proxy is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use api::spec::{Family, Proto};
use api::{Info, PortSpec};

use crate::args::Args;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing, for this reason: the port driver cannot publish the protocol, and dockerd must not fail because of it (it asks
    /// for IPv6 whenever the kernel has it).
    Skip(String),
    /// Publish `spec` and start the real proxy with these arguments.
    Forward { spec: PortSpec, real_args: Vec<String> },
}

/// Decides from the arguments and from what the drivers can do.
pub(crate) fn plan(args: &Args, info: &Info) -> anyhow::Result<Plan> {
    let Some(driver) = &info.port_driver else { bail!("rootlesskit has no port driver") };
    let family = family(&args.host_ip);
    let child_ip = if driver.disallow_loopback_child_ip {
        info.network_driver.as_ref().and_then(|network| network.child_ip).with_context(|| {
            format!(
                "the port driver {} cannot forward to a loopback address, and the network driver does not report the \
                 namespace's address",
                driver.driver
            )
        })?
    } else {
        loopback(&args.host_ip)
    };
    // A protocol that we do not know is left as it is: the driver has the last word.
    let proto = match args.proto.parse::<Proto>() {
        Ok(proto) => proto.or_family(family).to_string(),
        Err(_) => args.proto.clone(),
    };
    if !driver.protos.contains(&proto) {
        return Ok(Plan::Skip(format!(
            "port {} of {:?} is not published: the port driver {} does not support protocol {proto} (only {})",
            args.host_port,
            args.host_ip,
            driver.driver,
            driver.protos.join(", ")
        )));
    }
    let spec = PortSpec {
        allow_from: Vec::new(),
        proto,
        parent_ip: args.host_ip.clone(),
        parent_port: args.host_port,
        child_port: args.host_port,
        child_ip: child_ip.to_string(),
    };
    let real_args = [
        ("-container-ip", args.container_ip.clone()),
        ("-container-port", args.container_port.to_string()),
        ("-host-ip", child_ip.to_string()),
        ("-host-port", args.host_port.to_string()),
        ("-proto", args.proto.clone()),
    ];
    let real_args =
        real_args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    Ok(Plan::Forward { spec, real_args })
}

/// The address in the namespace that stands for one of the host. Each IPv4 address of the host has its own, so that one port
/// can be published on several of them; a loopback address is itself, since dockerd's rules know it by that.
fn loopback(host_ip: &str) -> IpAddr {
    match host_ip.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        Ok(IpAddr::V4(ip)) if ip.is_loopback() => ip.into(),
        Ok(IpAddr::V4(ip)) if !ip.is_unspecified() => {
            let [_, second, third, last] = ip.octets();
            // Out of the way of those that people choose: 127.0.0.1, 127.0.0.2, …
            Ipv4Addr::new(127, second | 128, third, last).into()
        }
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

/// Anything but an IPv6 address counts as IPv4, no address included; the API refuses what is not an address.
fn family(host_ip: &str) -> Family {
    match host_ip.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(_)) => Family::V6,
        _ => Family::V4,
    }
}

#[cfg(test)]
mod tests {
    use api::{NetworkDriverInfo, PortDriverInfo};

    use super::*;

    fn args(proto: &str, host_ip: &str) -> Args {
        Args {
            proto: proto.into(),
            host_ip: host_ip.into(),
            host_port: 8080,
            container_ip: "172.17.0.2".into(),
            container_port: 80,
        }
    }

    fn info(protos: &[&str], disallow: bool, child_ip: Option<&str>) -> Info {
        Info {
            network_driver: Some(NetworkDriverInfo {
                child_ip: child_ip.map(|ip| ip.parse().unwrap()),
                ..NetworkDriverInfo::default()
            }),
            port_driver: Some(PortDriverInfo {
                driver: "builtin".into(),
                protos: protos.iter().map(ToString::to_string).collect(),
                disallow_loopback_child_ip: disallow,
                ..PortDriverInfo::default()
            }),
            ..Info::default()
        }
    }

    const ALL: &[&str] = &["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"];

    #[test]
    fn family_and_loopback_follow_the_host_address() {
        for (proto, host_ip, wanted, child_ip) in [
            ("tcp", "0.0.0.0", "tcp4", "127.0.0.1"),
            ("udp", "::", "udp6", "::1"),
            ("tcp", "", "tcp4", "127.0.0.1"),
            ("tcp", "127.0.0.2", "tcp4", "127.0.0.2"),
            ("tcp", "10.77.0.1", "tcp4", "127.205.0.1"),
            ("tcp", "::ffff:1.2.3.4", "tcp4", "127.130.3.4"),
            ("tcp", "fd77::1", "tcp6", "::1"),
            ("tcp6", "127.0.0.1", "tcp6", "127.0.0.1"),
        ] {
            let Plan::Forward { spec, real_args } =
                plan(&args(proto, host_ip), &info(ALL, false, None)).unwrap()
            else {
                panic!("{proto} is skipped")
            };
            assert_eq!((spec.proto.as_str(), spec.child_ip.as_str()), (wanted, child_ip));
            assert_eq!(
                (spec.parent_ip.as_str(), spec.parent_port, spec.child_port),
                (host_ip, 8080, 8080)
            );
            assert_eq!(
                real_args.join(" "),
                format!(
                    "-container-ip 172.17.0.2 -container-port 80 -host-ip {child_ip} -host-port 8080 -proto {proto}"
                )
            );
        }
    }

    #[test]
    fn without_loopback_the_address_of_the_namespace_is_used() {
        let ok = plan(&args("tcp", "0.0.0.0"), &info(ALL, true, Some("10.0.2.100"))).unwrap();
        assert!(matches!(ok, Plan::Forward { spec, .. } if spec.child_ip == "10.0.2.100"));
        let error = plan(&args("tcp", "0.0.0.0"), &info(ALL, true, None)).unwrap_err().to_string();
        assert!(error.contains("builtin cannot forward to a loopback address"), "{error}");
    }

    #[test]
    fn what_the_driver_cannot_publish_is_skipped() {
        for (proto, host_ip, named) in
            [("tcp", "::", "tcp6"), ("sctp", "0.0.0.0", "sctp4"), ("frob", "0.0.0.0", "frob")]
        {
            let Plan::Skip(reason) =
                plan(&args(proto, host_ip), &info(&["tcp", "tcp4"], false, None)).unwrap()
            else {
                panic!("{proto} is not skipped")
            };
            assert!(reason.contains(&format!("protocol {named} ")), "{reason}");
        }
    }
}
