//! Variables that only this program reads. All others are in [`hostenv::vars`].

/// Base of what programs keep between two runs, by default `$HOME/.local/state` (XDG Base Directory).
pub const XDG_STATE_HOME: &str = "XDG_STATE_HOME";

/// The user's shell, which `nsenter` without a command starts.
pub const SHELL: &str = "SHELL";

/// Directory of the docker CLI's configuration, by default `$HOME/.docker`.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";

/// The context that the docker CLI uses; wins over `docker context use`.
pub const DOCKER_CONTEXT: &str = "DOCKER_CONTEXT";

/// Where the user's bus is, if it is not at its usual place (dbus-daemon(1)).
pub const DBUS_SESSION_BUS_ADDRESS: &str = "DBUS_SESSION_BUS_ADDRESS";
