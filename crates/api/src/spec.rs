//! The textual form of a port and its validation.
//!
//! A port is written `PARENTIP:PARENTPORT[:CHILDIP]:CHILDPORT/PROTO[@CLIENTS]`, an IPv6 address in brackets, an empty
//! `PARENTIP` for every address: `0.0.0.0:8080:80/tcp`, `:53:53/udp`, `[::1]:8080:10.0.2.100:80/tcp`. `CLIENTS` are the
//! addresses and networks of clients that are served, with `+` between them, since a comma separates ports in lists:
//! `0.0.0.0:5432:5432/tcp@10.9.0.0/24+192.0.2.7`. Parsing only splits; addresses and ranges are checked by
//! [`PortSpec::validate`], which the API shares.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::types::{PortId, PortSpec, PortStatus};

/// A protocol that a spec may name. Which of them can be published is up to the port driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// `tcp`: both families when the address is a wildcard.
    Tcp,
    /// `tcp4`: IPv4 only.
    Tcp4,
    /// `tcp6`: IPv6 only.
    Tcp6,
    /// `udp`: both families when the address is a wildcard.
    Udp,
    /// `udp4`: IPv4 only.
    Udp4,
    /// `udp6`: IPv6 only.
    Udp6,
    /// `sctp`: valid, though no driver publishes it.
    Sctp,
    /// `sctp4`.
    Sctp4,
    /// `sctp6`.
    Sctp6,
}

/// Layer-4 protocol of a [`Proto`], without the address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Address family that a [`Proto`] is restricted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Proto {
    /// Every protocol, in the order of the contract.
    pub const ALL: [Self; 9] = [
        Self::Tcp,
        Self::Tcp4,
        Self::Tcp6,
        Self::Udp,
        Self::Udp4,
        Self::Udp6,
        Self::Sctp,
        Self::Sctp4,
        Self::Sctp6,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tcp4 => "tcp4",
            Self::Tcp6 => "tcp6",
            Self::Udp => "udp",
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Sctp => "sctp",
            Self::Sctp4 => "sctp4",
            Self::Sctp6 => "sctp6",
        }
    }

    /// The protocol without its family.
    pub fn transport(self) -> Transport {
        match self {
            Self::Tcp | Self::Tcp4 | Self::Tcp6 => Transport::Tcp,
            Self::Udp | Self::Udp4 | Self::Udp6 => Transport::Udp,
            Self::Sctp | Self::Sctp4 | Self::Sctp6 => Transport::Sctp,
        }
    }

    /// The family the name ends in, if it has one.
    pub fn family(self) -> Option<Family> {
        match self {
            Self::Tcp | Self::Udp | Self::Sctp => None,
            Self::Tcp4 | Self::Udp4 | Self::Sctp4 => Some(Family::V4),
            Self::Tcp6 | Self::Udp6 | Self::Sctp6 => Some(Family::V6),
        }
    }

    /// The same transport restricted to `family`; a family that is already there stays.
    pub fn or_family(self, family: Family) -> Self {
        let wanted = (self.transport(), self.family().or(Some(family)));
        let mut all = Self::ALL.into_iter();
        all.find(|proto| (proto.transport(), proto.family()) == wanted).unwrap_or(self)
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Proto {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        Self::ALL
            .into_iter()
            .find(|proto| proto.as_str() == name)
            .ok_or_else(|| SpecError::Proto(name.to_owned()))
    }
}

/// Why a spec was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The text cannot be split into the parts of a spec.
    #[error(
        "invalid port spec {spec:?}: {reason} (the form is {FORM}, such as 0.0.0.0:8080:80/tcp)"
    )]
    Syntax {
        /// The text.
        spec: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not one of [`Proto::ALL`].
    #[error("unknown proto: {0:?} (must be tcp, udp or sctp, with 4 or 6 appended for one family)")]
    Proto(String),
    /// `parentIP` is not an IP address.
    #[error("invalid ParentIP: {0:?} (must be an IP address, or empty for all addresses)")]
    ParentIp(String),
    /// `childIP` is not an IP address.
    #[error("invalid ChildIP: {0:?} (must be an IP address, or empty for the default)")]
    ChildIp(String),
    /// `parentPort` is out of range.
    #[error("invalid ParentPort: {0} (must be between 1 and 65535)")]
    ParentPort(i64),
    /// `childPort` is out of range.
    #[error("invalid ChildPort: {0} (must be between 1 and 65535)")]
    ChildPort(i64),
    /// An entry of `allowFrom` is neither an IP address nor a network.
    #[error(
        "invalid allowFrom: {0:?} (must be an IP address or a network, such as 192.0.2.7 or 10.9.0.0/24)"
    )]
    AllowFrom(String),
    /// `allowFrom` is too long.
    #[error("invalid allowFrom: {0} entries (at most {MAX_ALLOW_FROM})")]
    AllowFromLength(usize),
    /// Another published port has the same protocol, address and port.
    #[error("conflict with ID {0}")]
    Conflict(PortId),
}

/// Entries of `allowFrom`: each datagram is compared with all of them.
pub const MAX_ALLOW_FROM: usize = 256;

const FORM: &str = "PARENTIP:PARENTPORT[:CHILDIP]:CHILDPORT/PROTO[@CLIENTS]";

/// A spec whose every part has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ValidSpec {
    /// Protocol.
    pub proto: Proto,
    /// Address to listen on, `None` for every address.
    pub parent_ip: Option<IpAddr>,
    /// Port to listen on, not 0.
    pub parent_port: u16,
    /// Address inside the namespace, `None` for the driver's default.
    pub child_ip: Option<IpAddr>,
    /// Port inside the namespace, not 0.
    pub child_port: u16,
    /// Networks of the clients that are served; without any, all are.
    pub allow_from: Vec<IpNet>,
}

impl PortSpec {
    /// Checks every field and gives the typed form.
    ///
    /// # Errors
    /// The first bad field, in the order proto, parent IP, child IP, parent port, child port, clients.
    pub fn validate(&self) -> Result<ValidSpec, SpecError> {
        let ip = |text: &str, error: fn(String) -> SpecError| match text {
            "" => Ok(None),
            _ => text.parse::<IpAddr>().map(Some).map_err(|_| error(text.to_owned())),
        };
        let port = |number: i64, error: fn(i64) -> SpecError| match u16::try_from(number) {
            Ok(0) | Err(_) => Err(error(number)),
            Ok(port) => Ok(port),
        };
        if self.allow_from.len() > MAX_ALLOW_FROM {
            return Err(SpecError::AllowFromLength(self.allow_from.len()));
        }
        Ok(ValidSpec {
            proto: self.proto.parse()?,
            parent_ip: ip(&self.parent_ip, SpecError::ParentIp)?,
            child_ip: ip(&self.child_ip, SpecError::ChildIp)?,
            parent_port: port(self.parent_port, SpecError::ParentPort)?,
            child_port: port(self.child_port, SpecError::ChildPort)?,
            allow_from: self
                .allow_from
                .iter()
                .map(|text| network(text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// What must be unique among published ports; for an index over many of them.
    ///
    /// `tcp` and `tcp4`, or an empty address and `0.0.0.0`, do not conflict here; the kernel refuses the second when it is
    /// bound. That is RootlessKit's behaviour, and clients retry on it.
    pub fn conflict_key(&self) -> (&str, &str, i64) {
        (&self.proto, &self.parent_ip, self.parent_port)
    }

    /// [`PortSpec::validate`], and no conflict with a port in `published`.
    ///
    /// # Errors
    /// As [`PortSpec::validate`], then [`SpecError::Conflict`].
    pub fn validate_among<'a>(
        &self,
        published: impl IntoIterator<Item = &'a PortStatus>,
    ) -> Result<ValidSpec, SpecError> {
        let valid = self.validate()?;
        let key = self.conflict_key();
        match published.into_iter().find(|status| status.spec.conflict_key() == key) {
            Some(status) => Err(SpecError::Conflict(status.id)),
            None => Ok(valid),
        }
    }
}

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let whole = text;
        let syntax = |reason: String| SpecError::Syntax { spec: whole.to_owned(), reason };
        let number = |what: &str, digits: &str| {
            digits.parse::<i64>().map_err(|_| syntax(format!("{what} {digits:?} is not a number")))
        };
        let (text, clients) = match text.split_once('@') {
            Some((text, clients)) => (text, clients.split('+').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let (addresses, proto) = text
            .rsplit_once('/')
            .ok_or_else(|| syntax("/PROTO is missing at the end".to_owned()))?;
        let proto = proto.parse::<Proto>()?;
        let (front, child_port) = addresses
            .rsplit_once(':')
            .ok_or_else(|| syntax("the child port is missing".to_owned()))?;
        let child_port = number("child port", child_port)?;

        let token = |text| token(text).map_err(|reason| syntax(reason.to_owned()));
        let (parent_ip, rest) = token(front)?;
        let rest = rest.ok_or_else(|| {
            syntax("too few fields (to publish on all addresses, start with a colon)".to_owned())
        })?;
        let (parent_port, rest) = match rest.split_once(':') {
            Some((port, rest)) => (port, Some(rest)),
            None => (rest, None),
        };
        let parent_port = number("parent port", parent_port)?;
        let child_ip = match rest.map(token).transpose()? {
            None => "",
            Some((ip, None)) => ip,
            Some((_, Some(_))) => {
                return Err(syntax("too many fields (put IPv6 addresses in brackets)".to_owned()));
            }
        };
        Ok(Self {
            proto: proto.as_str().to_owned(),
            parent_ip: parent_ip.to_owned(),
            parent_port,
            child_port,
            child_ip: child_ip.to_owned(),
            allow_from: clients,
        })
    }
}

/// A network, or an address as a network of one. IPv4 in IPv6 form (`::ffff:0:0/96`) means IPv4.
fn network(text: &str) -> Result<IpNet, SpecError> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| SpecError::AllowFrom(text.to_owned()))?;
    let mapped = network.prefix_len().checked_sub(96).filter(|_| network.addr().is_ipv6());
    Ok(match (network.addr().to_canonical(), mapped) {
        (ip @ IpAddr::V4(_), Some(prefix)) => IpNet::new(ip, prefix).unwrap_or(network),
        _ => network,
    })
}

/// Splits an address off the front: what is in brackets or before the colon, and what follows the colon, if there is one.
fn token(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (ip, rest) = bracketed.split_once(']').ok_or("a bracket is not closed")?;
        if ip.is_empty() {
            return Err("the address between the brackets is missing");
        }
        return match rest.strip_prefix(':') {
            Some(rest) => Ok((ip, Some(rest))),
            None if rest.is_empty() => Ok((ip, None)),
            None => Err("a bracket is not followed by a colon"),
        };
    }
    Ok(match text.split_once(':') {
        Some((ip, rest)) => (ip, Some(rest)),
        None => (text, None),
    })
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |ip: &str| if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        write!(f, "{}:{}:", bracketed(&self.parent_ip), self.parent_port)?;
        if !self.child_ip.is_empty() {
            write!(f, "{}:", bracketed(&self.child_ip))?;
        }
        write!(f, "{}/{}", self.child_port, self.proto)?;
        if !self.allow_from.is_empty() {
            write!(f, "@{}", self.allow_from.join("+"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
