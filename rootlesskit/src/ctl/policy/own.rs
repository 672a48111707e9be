//! What the gateway decides about an attempt before any file of an egress policy is asked.

use std::net::IpAddr;
#[cfg(feature = "gateway")]
use std::net::SocketAddr;

use api::policy::PolicyGateway;
use egress::Protocol;
#[cfg(feature = "gateway")]
use gateway::{
    NetworkConfig,
    policy::{self, Verdict},
};

/// `Ok` if it goes on, for this reason; without one, the files decide. `Err` if it is denied, for this reason.
pub(super) type Own = Result<Option<&'static str>, &'static str>;

/// What the gateway decides about this, before any file.
#[cfg(feature = "gateway")]
pub(super) fn own(gateway: &PolicyGateway, protocol: Protocol, ip: IpAddr, port: u16) -> Own {
    let Some(gateway) = NetworkConfig::described(gateway) else { return Ok(None) };
    let (protocol, port) = match protocol {
        Protocol::Tcp => (policy::Protocol::Tcp, port),
        Protocol::Udp => (policy::Protocol::Udp, port),
        // A port for rules about addresses.
        Protocol::Icmp => (policy::Protocol::Echo, 7),
    };
    let is_gateway = gateway.nets().any(|net| net.gateway == ip);
    if is_gateway && protocol == policy::Protocol::Echo {
        return Ok(Some("the gateway itself answers this ping, which no rule is for"));
    }
    match policy::outbound(&gateway, protocol, SocketAddr::new(ip, port)) {
        Verdict::Dns => Ok(Some("this is the name server of the namespace, which no rule is for")),
        Verdict::Dial(_) => Ok(None),
        Verdict::Deny(reason) => Err(reason),
    }
}

/// Without the gateway, there is no policy either.
#[cfg(not(feature = "gateway"))]
pub(super) fn own(_: &PolicyGateway, _: Protocol, _: IpAddr, _: u16) -> Own {
    Ok(None)
}
