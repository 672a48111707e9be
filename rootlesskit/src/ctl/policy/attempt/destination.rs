//! `--to`: where an attempt leads.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use egress::{Protocol, Target};

/// A destination as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    Address(IpAddr),
    /// In lower case, without a final dot.
    Name(String),
}

/// A destination, and its port if the protocol has ports.
pub(super) fn destination(text: &str, protocol: Protocol) -> anyhow::Result<(Destination, u16)> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let (host, port) = match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => (Destination::Address(address.ip()), Some(address.port())),
        (_, Ok(ip)) => (Destination::Address(ip), None),
        _ => {
            let (name, port) = match text.rsplit_once(':') {
                Some((name, port)) if !text.contains("://") => (name, Some(port)),
                _ => (text, None),
            };
            let name =
                self::name(name).with_context(|| format!("invalid value {text:?} for --to"))?;
            let port = port.map(|port| {
                port.parse().ok().with_context(|| {
                    format!("invalid value {text:?} for --to: the port {port:?} is not a number from 1 to 65535")
                })
            });
            (Destination::Name(name), port.transpose()?)
        }
    };
    match (protocol, port) {
        (Protocol::Icmp, None) => Ok((host, 0)),
        (Protocol::Icmp, Some(_)) => {
            bail!("invalid value {text:?} for --to: icmp has no ports\nhint: omit the port")
        }
        (_, Some(port @ 1..)) => Ok((host, port)),
        (_, Some(0)) => bail!(
            "invalid value {text:?} for --to: 0 is not a port\nhint: use a port from 1 to 65535"
        ),
        (_, None) => {
            bail!(
                "invalid value {text:?} for --to: the port is missing\nhint: add a port, such as :443"
            )
        }
    }
}

/// A host name as files have it, in lower case and without a final dot.
fn name(text: &str) -> anyhow::Result<String> {
    if text.is_empty() || (text.contains(':') && !text.contains("://")) {
        bail!(
            "{text:?} is neither an address nor a host name\n\
             hint: use a form such as 192.0.2.7:443, [2001:db8::7]:443 or registry.example.org:443"
        );
    }
    match text.parse()? {
        Target::Network(_) => bail!("{text:?} is a network\nhint: use one address of it"),
        Target::Name(name) if name.starts_with('*') => {
            bail!("{text:?} is a pattern\nhint: use a name that it matches")
        }
        Target::Name(name) => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_addresses_or_names() {
        let address = |text: &str| Destination::Address(text.parse().unwrap());
        let name = |text: &str| Destination::Name(text.to_owned());
        for (text, protocol, expected) in [
            ("192.0.2.7:443", Protocol::Tcp, (address("192.0.2.7"), 443)),
            ("[2001:db8::7]:53", Protocol::Udp, (address("2001:db8::7"), 53)),
            ("2001:db8::7", Protocol::Icmp, (address("2001:db8::7"), 0)),
            ("[2001:db8::7]", Protocol::Icmp, (address("2001:db8::7"), 0)),
            ("WWW.Example.org.:80", Protocol::Tcp, (name("www.example.org"), 80)),
            ("example.org", Protocol::Icmp, (name("example.org"), 0)),
        ] {
            assert_eq!(destination(text, protocol).unwrap(), expected, "{text}");
        }
        for (text, protocol, part) in [
            ("192.0.2.7", Protocol::Tcp, "the port is missing"),
            ("192.0.2.7:0", Protocol::Tcp, "0 is not a port"),
            ("example.org:0", Protocol::Tcp, "0 is not a port"),
            ("192.0.2.7:1", Protocol::Icmp, "icmp has no ports"),
            ("example.org:https", Protocol::Tcp, "the port \"https\""),
            ("10.0.0.0/8:80", Protocol::Tcp, "\"10.0.0.0/8\" is a network"),
            ("*.example.org:80", Protocol::Tcp, "\"*.example.org\" is a pattern"),
            ("300.0.2.2:443", Protocol::Tcp, "\"300.0.2.2\" is neither an IP address nor"),
            ("192.0.2.02:7443", Protocol::Tcp, "\"192.0.2.02\" is neither an IP address nor"),
            (
                "192.0.2.2 :7443",
                Protocol::Tcp,
                "\"192.0.2.2 \" is not a host name\nhint: use letters",
            ),
            ("example..org:443", Protocol::Tcp, "\"example..org\" is not a host name: a label is"),
            ("bücher.de:443", Protocol::Tcp, "\"bücher.de\" is not in ASCII\nhint: "),
            ("https://example.org", Protocol::Tcp, "is a URL\nhint: write only the host name"),
            ("https://example.org:443", Protocol::Tcp, "is a URL\nhint: write only the host name"),
            ("[2001:db8::g]:443", Protocol::Tcp, "neither an address nor a host name"),
            (":80", Protocol::Tcp, "neither an address nor a host name"),
        ] {
            let error = format!("{:#}", destination(text, protocol).unwrap_err());
            assert!(error.contains(part) && error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
