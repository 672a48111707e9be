//! Decoding objects the way Go's `encoding/json` decodes into a struct.
//!
//! serde's derive matches keys exactly, refuses duplicates and treats `null` as a type error for plain fields; Go does
//! none of that. The macro `fields!` writes a `Deserialize` that behaves like Go from a list of keys.

use std::net::IpAddr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// `fields!(Type { "key" => field: Wire, … })`: `Wire` is decoded and turned `into()` the type of the field.
macro_rules! fields {
    ($type:ident { $($key:literal => $field:ident: $wire:ty),+ $(,)? }) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object (", stringify!($type), ")"))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$type, A::Error> {
                        let mut out = $type::default();
                        while let Some(key) = map.next_key::<String>()? {
                            $(if key.eq_ignore_ascii_case($key) {
                                let value = map.next_value::<Option<$wire>>().map_err(|error| {
                                    serde::de::Error::custom(format_args!("{}: {error}", $key))
                                })?;
                                if let Some(value) = value {
                                    out.$field = value.into();
                                }
                                continue;
                            })+
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        Ok(out)
                    }
                }
                deserializer.deserialize_map(Visitor)
            }
        }
    };
}
pub(crate) use fields;

/// A list of strings whose `null` items are empty strings.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Strings(Vec<Option<String>>);

impl From<Strings> for Vec<String> {
    fn from(value: Strings) -> Self {
        value.0.into_iter().map(Option::unwrap_or_default).collect()
    }
}

/// The text form of Go's `net.IP`: empty means none, an IPv4-mapped IPv6 address is the IPv4 address.
pub(crate) struct IpText(Option<IpAddr>);

impl<'de> Deserialize<'de> for IpText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        let ip = text
            .parse::<IpAddr>()
            .map_err(|_| D::Error::custom(format_args!("invalid IP address: {text:?}")))?;
        Ok(Self(Some(ip.to_canonical())))
    }
}

impl From<IpText> for Option<IpAddr> {
    fn from(value: IpText) -> Self {
        value.0
    }
}

/// A list of [`IpText`]; empty and `null` items carry no address and are dropped.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct IpList(Vec<Option<IpText>>);

impl From<IpList> for Vec<IpAddr> {
    fn from(value: IpList) -> Self {
        value.0.into_iter().flatten().filter_map(|ip| ip.0).collect()
    }
}
