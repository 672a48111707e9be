//! Names that an installation has for systemd and for the docker command.

pub const UNIT: &str = "docker.service";
/// The unit that starts the daemon on demand.
pub const SOCKET_UNIT: &str = "docker.socket";
/// The context of the docker command.
pub const CONTEXT: &str = "rootless";
