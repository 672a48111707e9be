//! Whether containers are to reach some ports of the host's loopback.

use std::path::PathBuf;

use drivers::{LoopbackPorts, LoopbackPortsError};
use hostenv::vars;

use super::variables::variable;
use crate::place::World;

/// What `DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW` is set to.
#[derive(Debug, Clone)]
pub struct AllowedPorts {
    /// The file that sets the variable, if that is not the environment.
    pub file: Option<PathBuf>,
    pub value: String,
    /// Or why the launcher refuses the value.
    pub ports: Result<LoopbackPorts, LoopbackPortsError>,
    /// Every port is open by another variable, in this file or in the environment.
    pub all: Option<Option<PathBuf>>,
}

impl AllowedPorts {
    pub(super) fn gather(world: &World) -> Option<Self> {
        let (file, value) = variable(world, vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW)?;
        let disabled = variable(world, vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK);
        let all = disabled.and_then(|(file, value)| (value == "false").then_some(file));
        Some(Self { ports: value.parse(), file, value, all })
    }
}
