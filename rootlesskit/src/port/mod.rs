//! What port drivers have in common: how ports of the host reach servers in the child's network namespace. The drivers
//! themselves are in [`crate::drivers`].

pub(crate) mod bind;
pub(crate) mod patience;
pub(crate) mod table;
mod worker;

use std::fmt::Debug;

use api::{PortDriverInfo, PortId, PortSpec, PortStatus};

pub(crate) use worker::Worker;

/// Refuses a list of clients, for a driver whose helper serves all of them.
///
/// # Errors
/// The spec has one.
pub(crate) fn serves_everybody(spec: &api::ValidSpec, driver: &str) -> anyhow::Result<()> {
    if let Some(first) = spec.allow_from.first() {
        anyhow::bail!(
            "invalid allowFrom: {first} (the {driver} port driver cannot restrict clients)\nhint: use --port-driver=builtin or --port-driver=gateway"
        );
    }
    Ok(())
}

/// A port driver that the API manages. Methods may take as long as one exchange with a local helper, which is why a
/// [`Worker`] calls them once the API serves.
pub(crate) trait Driver: Debug {
    /// What `GET /v1/info` says.
    fn info(&self) -> PortDriverInfo;

    /// The published ports, oldest first.
    fn list(&self) -> Vec<PortStatus>;

    /// Publishes a port; it answers when this returns. The status has the spec exactly as given.
    ///
    /// # Errors
    /// A bad spec, a conflict, or what the kernel or the helper said.
    fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus>;

    /// Withdraws a port; nobody can connect when this returns. Open connections end, unless a helper has them that leaves
    /// them alone (slirp4netns, pasta).
    ///
    /// # Errors
    /// There is no port of that number.
    fn remove(&mut self, id: PortId) -> anyhow::Result<()>;

    /// The network helper was started anew and knows nothing of the ports that its predecessor published.
    fn helper_restarted(&mut self) {}
}
