//! What goes over the wire, in the key order of the contract and with zero values left out.
//!
//! Encoding is serde's; [`to_json`] adds what Go's encoder does on top. Decoding follows Go's `encoding/json`, see
//! [`from_json`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use crate::decode::{IpList, IpText, Strings, fields};

/// Number of a published port: counts up from 1, is never reused while the parent lives.
pub type PortId = i64;

/// Answer to `GET /v1/info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// [`crate::API_VERSION`] of the server.
    pub api_version: String,
    /// Version of the server program.
    pub version: String,
    /// Absolute path of the state directory.
    pub state_dir: String,
    /// Pid of the child in the parent's pid namespace; the number in the file `child_pid`.
    #[serde(rename = "childPID")]
    pub child_pid: i32,
    /// The network driver. dockerd dereferences it unchecked, so a server always sends one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_driver: Option<NetworkDriverInfo>,
    /// The port driver; absent with `--port-driver=none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_driver: Option<PortDriverInfo>,
}

/// The network driver in [`Info`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkDriverInfo {
    /// Value of `--net`.
    pub driver: String,
    /// Name servers inside the namespace.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "ip_list")]
    pub dns: Vec<IpAddr>,
    /// Address of the namespace, if it is known.
    #[serde(rename = "childIP", skip_serializing_if = "Option::is_none", serialize_with = "ip")]
    pub child_ip: Option<IpAddr>,
    /// Whether `childIP` may change (DHCP).
    #[serde(rename = "dynamicChildIP", skip_serializing_if = "is_false")]
    pub dynamic_child_ip: bool,
    /// Whether the namespace has IPv6 connectivity; since API 1.1.2.
    #[serde(skip_serializing_if = "is_false")]
    pub ipv6: bool,
}

/// The port driver in [`Info`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortDriverInfo {
    /// Value of `--port-driver`.
    pub driver: String,
    /// Protocols that can be published, in the driver's order; see [`crate::Proto`].
    pub protos: Vec<String>,
    /// Whether a port cannot be forwarded to the loopback address of the namespace.
    #[serde(rename = "disallowLoopbackChildIP", skip_serializing_if = "is_false")]
    pub disallow_loopback_child_ip: bool,
    /// Further facts about the driver, such as [`EXTRA_SOURCE_IP_BACKEND`]; since RootlessKit 3.2.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// Key in [`PortDriverInfo::extra`]: what keeps the source addresses of clients (`nft`, `iptables` or `none`).
pub const EXTRA_SOURCE_IP_BACKEND: &str = "sourceIPTransparentBackend";

/// A port to publish, exactly as the client wrote it.
///
/// Nothing is normalised because nerdctl finds the ports it owns by comparing what comes back with what it had sent.
/// Numbers are as wide as Go's `int` for the same reason; [`PortSpec::validate`] gives the checked form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSpec {
    /// Protocol, see [`crate::Proto`].
    pub proto: String,
    /// Address to listen on; empty means every address.
    #[serde(rename = "parentIP", skip_serializing_if = "String::is_empty")]
    pub parent_ip: String,
    /// Port to listen on.
    #[serde(skip_serializing_if = "is_zero")]
    pub parent_port: i64,
    /// Port inside the namespace.
    #[serde(skip_serializing_if = "is_zero")]
    pub child_port: i64,
    /// Address inside the namespace; empty lets the driver choose.
    #[serde(rename = "childIP", skip_serializing_if = "String::is_empty")]
    pub child_ip: String,
    /// Addresses and networks of the clients that are served; without any, all are. An extension to RootlessKit's API.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<String>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PortStatus {
    /// Number for `DELETE /v1/ports/{id}`.
    pub id: PortId,
    /// What was asked for.
    pub spec: PortSpec,
}

/// Body of every answer with status 400 or 500.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ErrorMessage {
    /// One sentence for the user.
    pub message: String,
}

fields!(Info {
    "apiVersion" => api_version: String,
    "version" => version: String,
    "stateDir" => state_dir: String,
    "childPID" => child_pid: i32,
    "networkDriver" => network_driver: NetworkDriverInfo,
    "portDriver" => port_driver: PortDriverInfo,
});
fields!(NetworkDriverInfo {
    "driver" => driver: String,
    "dns" => dns: IpList,
    "childIP" => child_ip: IpText,
    "dynamicChildIP" => dynamic_child_ip: bool,
    "ipv6" => ipv6: bool,
});
fields!(PortDriverInfo {
    "driver" => driver: String,
    "protos" => protos: Strings,
    "disallowLoopbackChildIP" => disallow_loopback_child_ip: bool,
    "extra" => extra: StringMap,
});
fields!(PortSpec {
    "proto" => proto: String,
    "parentIP" => parent_ip: String,
    "parentPort" => parent_port: i64,
    "childPort" => child_port: i64,
    "childIP" => child_ip: String,
    "allowFrom" => allow_from: Strings,
});
fields!(PortStatus {
    "id" => id: PortId,
    "spec" => spec: PortSpec,
});
fields!(ErrorMessage {
    "message" => message: String,
});

/// An object of strings whose `null` values are empty strings.
#[derive(Deserialize)]
#[serde(transparent)]
struct StringMap(BTreeMap<String, Option<String>>);

impl From<StringMap> for BTreeMap<String, String> {
    fn from(value: StringMap) -> Self {
        value.0.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
    }
}

/// A body that is not what the contract asks for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Decodes the first JSON value in `body` as Go's `json.Decoder` would.
///
/// Keys match without regard to case, unknown keys and anything behind the value are ignored, `null` leaves a field at
/// its zero value, a later duplicate of a key wins, and bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// An empty body (the message is Go's `EOF`), a syntax error, a value of the wrong type or a number out of range; the
/// message names the key, what was found and where.
pub fn from_json<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, JsonError> {
    let text = String::from_utf8_lossy(body);
    if text.trim_ascii().is_empty() {
        return Err(JsonError("EOF".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    Option::<T>::deserialize(&mut deserializer)
        .map(Option::unwrap_or_default)
        .map_err(|error| JsonError(format!("invalid JSON: {error}")))
}

/// Encodes compactly, without a trailing newline, with `<`, `>`, `&`, U+2028 and U+2029 escaped as Go's encoder does
/// (they can only occur within strings).
pub fn to_json<T: Serialize>(value: &T) -> String {
    escape_html(&serde_json::to_string(value).unwrap_or_default())
}

/// [`to_json`], but indented by four spaces a level.
pub fn to_json_pretty<T: Serialize>(value: &T) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // The types of this module have string keys only and the sink is memory: neither can fail.
    if value.serialize(&mut serializer).is_err() {
        out.clear();
    }
    escape_html(&String::from_utf8_lossy(&out))
}

fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out
}

/// Go prints an IPv4-mapped IPv6 address as the IPv4 address it stands for.
fn ip<S: Serializer>(value: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|ip| ip.to_canonical()).serialize(serializer)
}

fn ip_list<S: Serializer>(value: &[IpAddr], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(value.iter().map(IpAddr::to_canonical))
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests;
