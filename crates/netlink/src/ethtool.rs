//! Features of links (ethtool(8), option `-K`), over the generic netlink family "ethtool" (Linux ≥ 5.6,
//! `CONFIG_ETHTOOL_NETLINK`; Documentation/networking/ethtool-netlink.rst).

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::Result;
use crate::attribute::Attributes;
use crate::connection::{Connection, message};
use crate::error::During;

/// `GENL_ID_CTRL`, linux/genetlink.h: the family that knows the numbers of the others.
const CONTROLLER: u16 = 16;
/// `struct genlmsghdr`: command, version, reserved.
const GET_FAMILY: [u8; 4] = [3, 1, 0, 0];
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// linux/ethtool_netlink.h
const FEATURES_SET: [u8; 4] = [12, 1, 0, 0];
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// Switches features of the link called `link` on (true) or off, by the names that `ethtool -k` shows, all in one step.
///
/// # Errors
/// `NotFound` if the kernel has no such interface, `EOPNOTSUPP` or `EINVAL` for a feature that it does not know, or the
/// kernel's errno. The text names features that the link cannot change; the others are changed.
pub fn set_features(link: &str, features: &[(&str, bool)]) -> Result<()> {
    let text: Vec<_> = features
        .iter()
        .map(|(name, on)| format!("{name} {}", if *on { "on" } else { "off" }))
        .collect();
    let attempt = || {
        let connection = Connection::open(NETLINK_GENERIC)?;
        let family = family(&connection)?;
        let mut attributes = Attributes::default();
        attributes.nested(ETHTOOL_A_FEATURES_HEADER, |header| {
            header.string(ETHTOOL_A_HEADER_DEV_NAME, link);
        });
        attributes.nested(ETHTOOL_A_FEATURES_WANTED, |bitset| {
            bitset.nested(ETHTOOL_A_BITSET_BITS, |bits| {
                for (name, on) in features {
                    bits.nested(ETHTOOL_A_BITSET_BITS_BIT, |bit| {
                        bit.string(ETHTOOL_A_BITSET_BIT_NAME, name);
                        if *on {
                            bit.raw(ETHTOOL_A_BITSET_BIT_VALUE, &[]);
                        }
                    });
                }
            });
        });
        let mut refused = Vec::new();
        exchange(&connection, family, FEATURES_SET, &attributes, |attributes| {
            refused.extend(unchanged(attributes));
        })?;
        if refused.is_empty() {
            return Ok(());
        }
        Err(io::Error::other(format!("the link cannot change {}", refused.join(", "))))
    };
    attempt().during(|| format!("ethtool -K {link} {}", text.join(" ")))
}

/// The features that are not as they were wanted, by the kernel's answer.
fn unchanged(attributes: &[u8]) -> Vec<String> {
    let of = |attributes: &[u8], kind: u16| -> Vec<Vec<u8>> {
        let all = NlasIterator::new(attributes).flatten();
        all.filter(|attribute| attribute.kind() == kind).map(|a| a.value().to_vec()).collect()
    };
    let path = [ETHTOOL_A_FEATURES_WANTED, ETHTOOL_A_BITSET_BITS, ETHTOOL_A_BITSET_BITS_BIT];
    let bits = path.iter().fold(vec![attributes.to_vec()], |level, kind| {
        level.iter().flat_map(|attributes| of(attributes, *kind)).collect()
    });
    let names = bits.iter().flat_map(|bit| of(bit, ETHTOOL_A_BITSET_BIT_NAME));
    names
        .map(|name| {
            String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name.as_slice()))
                .into_owned()
        })
        .collect()
}

/// The number of the family "ethtool".
fn family(connection: &Connection) -> io::Result<u16> {
    let mut name = Attributes::default();
    name.string(CTRL_ATTR_FAMILY_NAME, "ethtool");
    let mut number = None;
    exchange(connection, CONTROLLER, GET_FAMILY, &name, |attributes| {
        let all = NlasIterator::new(attributes).flatten();
        let mut id = all.filter(|attribute| attribute.kind() == CTRL_ATTR_FAMILY_ID);
        number = id.find_map(|id| Some(u16::from_ne_bytes(*id.value().first_chunk()?)));
    })?;
    number.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Sends one request; `each` sees the attributes of what is answered before the verdict.
fn exchange(
    connection: &Connection,
    kind: u16,
    header: [u8; 4],
    attributes: &Attributes,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    const SEQUENCE: u32 = 1;
    let request = message(kind, NLM_F_REQUEST | NLM_F_ACK, SEQUENCE, header, attributes);
    connection.exchange(&request, SEQUENCE, |reply| {
        each(reply.payload.get(header.len()..).unwrap_or_default());
        Ok(())
    })
}
