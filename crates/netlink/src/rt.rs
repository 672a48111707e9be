//! rtnetlink(7): links, addresses, routes and rules of the current network namespace.
//!
//! The file is long because it has one short function for each kind of request.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::Result;
use crate::connection::{Connection, Message};
use crate::error::During;

/// `INFINITY_LIFE_TIME` of the kernel.
const FOR_EVER: u32 = u32::MAX;

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn wire(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// The metric of our default route of IPv6. The kernel refuses a second route of the same metric, whatever its gateway, if it
/// is to be made anew (`NLM_F_EXCL`, as ip-route(8) does). So ours is not the usual 1024: somebody else's route is accepted,
/// and goes before ours.
const IPV6_METRIC: u32 = 2048;

/// A connection to rtnetlink in the namespace in which it was opened.
#[derive(Debug)]
pub struct Rt {
    connection: Connection,
    sequence: u32,
}

impl Rt {
    /// Connects to rtnetlink in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2): the kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let connection = Connection::open(NETLINK_ROUTE).during(|| "open an rtnetlink socket")?;
        Ok(Self { connection, sequence: 0 })
    }

    /// The index of the link called `name`.
    ///
    /// # Errors
    /// `NotFound` or `ENODEV` if no such link exists, or the kernel's errno.
    pub fn link_index(&mut self, name: &str) -> Result<u32> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut index = None;
        self.exchange(RouteNetlinkMessage::GetLink(message), NLM_F_ACK, |reply| {
            // The header alone: this must not depend on the parser knowing each attribute of a future kernel.
            index = Some(LinkHeader::parse(reply.payload).map_err(undecodable)?.index);
            Ok(())
        })
        .and_then(|()| index.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .during(|| format!("look up link {name}"))
    }

    /// Sets the link up; nothing happens if it is up.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn link_up(&mut self, index: u32) -> Result<()> {
        self.set_flag(index, LinkFlags::Up).during(|| format!("set link {index} up"))
    }

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        self.set_link(index, LinkAttribute::Mtu(mtu))
            .during(|| format!("set mtu {mtu} on link {index}"))
    }

    /// Gives the link an Ethernet address; a TAP device may be up.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` for a group address, or the kernel's errno.
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        self.set_link(index, LinkAttribute::Address(mac.to_vec()))
            .during(|| format!("set the Ethernet address of link {index}"))
    }

    /// Has the link carry packets without asking for the neighbour's address (`ip link set arp off`): they are sent to the
    /// link's own.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn set_no_arp(&mut self, index: u32) -> Result<()> {
        self.set_flag(index, LinkFlags::Noarp).during(|| format!("set arp off on link {index}"))
    }

    /// Creates a pair of virtual Ethernet links (veth(4)), both down and with an MTU of `mtu` bytes: `name` here and
    /// `peer_name` in the network namespace `peer_netns`, or here as well without one.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the kernel has no veth, or the kernel's errno.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer_name: &str,
        peer_netns: Option<BorrowedFd<'_>>,
        mtu: u32,
    ) -> Result<()> {
        let end = |name: &str| {
            let mut message = LinkMessage::default();
            message
                .attributes
                .extend([LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu)]);
            message
        };
        let mut peer = end(peer_name);
        peer.attributes.extend(peer_netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        let mut message = end(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .during(|| format!("add veth {name} with peer {peer_name} and mtu {mtu}"))
    }

    /// Sets how many packets wait for the device at most (`txqueuelen` of ip-link(8)).
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn set_queue_length(&mut self, index: u32, packets: u32) -> Result<()> {
        self.set_link(index, LinkAttribute::TxQueueLen(packets))
            .during(|| format!("set txqueuelen {packets} on link {index}"))
    }

    /// Gives the link an address, usable at once (no duplicate address detection for IPv6); an existing equal one is
    /// success.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        self.new_address(index, address, prefix, None)
    }

    /// As [`Rt::add_address`], for an address that the kernel does not choose as a source by itself (deprecated, RFC 4862).
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_deprecated_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<()> {
        let mut lifetimes = CacheInfo::default();
        (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, FOR_EVER);
        self.new_address(index, address, prefix, Some(lifetimes))
    }

    /// Takes an address from the link, and its routes with it.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if the link does not have the address, or the kernel's errno.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        let message = address_message(index, address, prefix);
        self.change(RouteNetlinkMessage::DelAddress(message), 0)
            .during(|| format!("delete address {address}/{prefix} from link {index}"))
    }

    fn new_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
        lifetimes: Option<CacheInfo>,
    ) -> Result<()> {
        let mut message = address_message(index, address, prefix);
        if address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Address(address));
        message.attributes.extend(lifetimes.map(AddressAttribute::CacheInfo));
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .or_else(already_exists_is_success)
            .during(|| format!("add address {address}/{prefix} to link {index}"))
    }

    /// Makes `gateway` on the link the default route of the main table, in place of one that exists with the same
    /// metric, which is 2048 with IPv6.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_default_route(&mut self, gateway: IpAddr, index: u32) -> Result<()> {
        let mut message = unicast(Family::of(gateway), RT_TABLE_MAIN, index, RouteScope::Universe);
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        if gateway.is_ipv6() {
            message.attributes.push(RouteAttribute::Priority(IPV6_METRIC));
        }
        self.replace_route(message)
            .during(|| format!("add default route via {gateway} on link {index}"))
    }

    /// `ip route replace DESTINATION/PREFIX via GATEWAY dev INDEX`, in the main table.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_route(
        &mut self,
        destination: IpAddr,
        prefix: u8,
        gateway: IpAddr,
        index: u32,
    ) -> Result<()> {
        let mut message = unicast(Family::of(gateway), RT_TABLE_MAIN, index, RouteScope::Universe);
        message.header.destination_prefix_length = prefix;
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        self.replace_route(message)
            .during(|| format!("add route to {destination}/{prefix} via {gateway} on link {index}"))
    }

    /// `ip route replace local ADDRESS dev INDEX table local`: what comes in by the link for that address is delivered here.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_local_route(&mut self, address: IpAddr, index: u32) -> Result<()> {
        let mut message = local(Family::of(address), RT_TABLE_LOCAL, index);
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(address.into()));
        self.replace_route(message)
            .during(|| format!("add local route to {address} on link {index}"))
    }

    /// `ip route replace local default dev lo table TABLE`: whoever consults the table finds each address local.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_local_default(&mut self, family: Family, table: u32) -> Result<()> {
        let loopback = self.link_index("lo")?;
        self.replace_route(local(family, table, loopback))
            .during(|| format!("{} route add local default dev lo table {table}", family.flag()))
    }

    /// `ip route replace default dev INDEX table TABLE`: without a gateway, as links without neighbours want it.
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_default_link_route(&mut self, family: Family, index: u32, table: u32) -> Result<()> {
        // The kernel takes a gateway-less IPv4 route with this scope only; IPv6 has no scopes of routes.
        self.replace_route(unicast(family, table, index, RouteScope::Link)).during(|| {
            format!("{} route add default dev link {index} table {table}", family.flag())
        })
    }

    /// `ip rule add fwmark MARK lookup TABLE priority PRIORITY`; an existing equal rule is success (Linux ≥ 4.8).
    ///
    /// # Errors
    /// The kernel's errno, `EPERM` without `CAP_NET_ADMIN`; the text names what failed.
    pub fn add_fwmark_rule(
        &mut self,
        family: Family,
        mark: u32,
        table: u32,
        priority: u32,
    ) -> Result<()> {
        let mut message = lookup_rule(family, table, priority);
        message.attributes.push(RuleAttribute::FwMark(mark));
        self.change(RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL)
            .or_else(already_exists_is_success)
            .during(|| {
                let flag = family.flag();
                format!("{flag} rule add fwmark {mark} lookup {table} priority {priority}")
            })
    }

    /// `ip rule add lookup local priority PRIORITY` and `ip rule del lookup local priority 0`: rules of a priority below
    /// this one are then asked before the addresses of the namespace itself. Done once only, a second time is `ENOENT`.
    ///
    /// # Errors
    /// `ENOENT` the second time, or the kernel's errno.
    pub fn move_local_rule(&mut self, family: Family, priority: u32) -> Result<()> {
        let table = RT_TABLE_LOCAL;
        // In this order, for without either rule nothing can be received.
        let new = lookup_rule(family, table, priority);
        self.change(RouteNetlinkMessage::NewRule(new), NLM_F_CREATE | NLM_F_EXCL)
            .or_else(already_exists_is_success)
            .during(|| format!("{} rule add lookup local priority {priority}", family.flag()))?;
        let old = lookup_rule(family, table, 0);
        self.change(RouteNetlinkMessage::DelRule(old), 0)
            .during(|| format!("{} rule del lookup local priority 0", family.flag()))
    }

    fn set_flag(&mut self, index: u32, flag: LinkFlags) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flag;
        message.header.change_mask = flag;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    fn set_link(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    fn replace_route(&mut self, message: RouteMessage) -> io::Result<()> {
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// A request that changes something and is answered by a verdict only.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK | flags, |_| Ok(()))
    }

    pub(crate) fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        each: impl FnMut(&Message<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.connection.exchange(&bytes, self.sequence, each)
    }
}

/// `RT_TABLE_MAIN`, rtnetlink(7).
const RT_TABLE_MAIN: u32 = 254;
/// `RT_TABLE_LOCAL`, rtnetlink(7): the addresses of the namespace, kept by the kernel.
const RT_TABLE_LOCAL: u32 = 255;

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(address).wire();
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.attributes.push(AddressAttribute::Local(address));
    message
}

fn local(family: Family, table: u32, index: u32) -> RouteMessage {
    let mut message = unicast(family, table, index, RouteScope::Host);
    message.header.kind = RouteType::Local;
    message
}

fn unicast(family: Family, table: u32, index: u32, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.kind = RouteType::Unicast;
    message.header.scope = scope;
    message.header.address_family = family.wire();
    message.header.protocol = RouteProtocol::Boot;
    message.attributes.push(RouteAttribute::Table(table));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn lookup_rule(family: Family, table: u32, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family.wire();
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([RuleAttribute::Priority(priority), RuleAttribute::Table(table)]);
    message
}

fn already_exists_is_success(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn undecodable(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("undecodable reply: {error}"))
}
