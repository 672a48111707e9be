//! The RootlessKit REST API: HTTP/1.1 with JSON bodies over the unix socket `<state dir>/api.sock`.
//!
//! `openapi.yaml`, beside `Cargo.toml`, is the contract; a test holds [`types`] to it. The module [`spec`] has the textual form
//! of a port (`--publish`) and its validation, [`server`] answers for a [`server::Backend`], and [`client`] is a small
//! synchronous client for programs that have no runtime.
//!
//! Clients written in Go (dockerd, nerdctl, k3s) decode with `encoding/json`, and their requests are encoded by it, so
//! [`types`] reads and writes JSON the way that package does. The types in [`stats`] belong to a path that no such client
//! knows, and are plain serde.

pub mod client;
mod decode;
pub mod flows;
pub mod policy;
pub mod server;
pub mod spec;
pub mod stats;
pub mod types;

pub use spec::{Proto, SpecError, ValidSpec};
pub use stats::Stats;
pub use types::{
    ErrorMessage, Info, NetworkDriverInfo, PortDriverInfo, PortId, PortSpec, PortStatus,
};

/// Level of the REST API, reported as `apiVersion`. Clients test the presence of fields, never this number.
///
/// 1.1.0 brought `/info` and the protocols ending in 4 and 6, 1.1.1 `childIP`, `dynamicChildIP` and
/// `disallowLoopbackChildIP`, 1.1.2 `networkDriver.ipv6`.
pub const API_VERSION: &str = "1.1.2";

/// Level of RootlessKit that our programs report as their version: flags, state directory and API are those of this release.
pub const ROOTLESSKIT_VERSION: &str = "3.2.0";

/// Name of the API socket inside the state directory.
pub const SOCKET_NAME: &str = "api.sock";
