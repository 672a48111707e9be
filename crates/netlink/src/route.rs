//! Which way packets to an address would take.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};

use crate::attribute::find;
use crate::error::During;
use crate::{Family, Result, Rt};

/// Length of `struct rtmsg`, rtnetlink(7), and where the type of the route is in it.
const HEADER: usize = 12;
const TYPE: usize = 7;
/// `RTN_UNICAST`: a way to somebody else.
const UNICAST: u8 = 1;
/// `RTN_LOCAL`: an address of the namespace itself.
const LOCAL: u8 = 2;
/// `RTA_OIF`, `RTA_GATEWAY`, `RTA_VIA`.
const OIF: u16 = 4;
const GATEWAYS: [u16; 2] = [5, 18];

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The address is one of the namespace's own.
    Local,
    /// Packets leave by a link.
    Link {
        /// The index of the link.
        index: u32,
        /// They go to a router first; otherwise the address is in the network of the link.
        by_gateway: bool,
    },
    /// It is an address of many, or packets to it are dropped.
    Nowhere,
}

impl Rt {
    /// Asks for the way to an address (`ip route get`).
    ///
    /// # Errors
    /// The kernel's errno: `ENETUNREACH` if there is no way, and whatever a route says that refuses packets.
    pub fn route(&mut self, to: IpAddr) -> Result<Route> {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(to).wire();
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(to.into()));
        let mut route = None;
        self.exchange(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK, |reply| {
            // Read by hand: this must not depend on the parser knowing each attribute of a future kernel.
            route = decode(reply.payload);
            Ok(())
        })
        .and_then(|()| route.ok_or_else(|| io::ErrorKind::InvalidData.into()))
        .during(|| format!("look up the route to {to}"))
    }
}

fn decode(payload: &[u8]) -> Option<Route> {
    let (header, attributes) = payload.split_at_checked(HEADER)?;
    Some(match header[TYPE] {
        LOCAL => Route::Local,
        UNICAST => {
            let index = u32::from_ne_bytes(find(attributes, OIF)?.try_into().ok()?);
            let by_gateway = GATEWAYS.iter().any(|kind| find(attributes, *kind).is_some());
            Route::Link { index, by_gateway }
        }
        _ => Route::Nowhere,
    })
}
