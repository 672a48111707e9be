//! What the environment asks for: read once, checked value by value, nothing looked up.
//!
//! An empty variable is an unset one, as in the shell. A value that rootlesskit would reject after the
//! namespaces were made is rejected here, with the list of what is allowed. Defaults that depend on the
//! machine are left open for [`crate::plan`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use drivers::{LoopbackPorts, NetworkDriver, PortDriver};
use hostenv::Env;
use hostenv::swarm::{FORM, Swarm};
use hostenv::{shellwords, vars};

use crate::removal;
use crate::report::{Failure, Note};

/// The largest MTU in bytes that RootlessKit accepts.
const MAX_MTU: u32 = 65521;
/// What fits into `sun_path` besides the final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// `auto`, `true` or `false`, for slirp4netns and for the network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    Auto,
    On,
    Off,
}

impl Switch {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("true", Self::On), ("false", Self::Off)];
    const WORDS_AND_DIGITS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("true", Self::On),
        ("1", Self::On),
        ("false", Self::Off),
        ("0", Self::Off),
    ];
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::On => "true",
            Self::Off => "false",
        })
    }
}

/// The wishes of the user. `None` is no wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) state_dir: PathBuf,
    /// Where a containerd-rootless keeps its state: two of them on one `/run` do not work.
    pub(crate) containerd_state_dir: PathBuf,
    pub(crate) net: Option<NetworkDriver>,
    /// In bytes.
    pub(crate) mtu: Option<u32>,
    pub(crate) port_driver: Option<PortDriver>,
    pub(crate) sandbox: Switch,
    pub(crate) seccomp: Switch,
    /// Whether the namespace may reach services on the host's loopback addresses.
    pub(crate) host_loopback: bool,
    /// Ports of them that it may reach if not.
    pub(crate) loopback_ports: Option<LoopbackPorts>,
    pub(crate) detach: Switch,
    /// The daemon is to be a node of a swarm.
    pub(crate) swarm: Option<Swarm>,
    pub(crate) flags: Vec<OsString>,
    /// `DOCKERD`, not yet split.
    pub(crate) dockerd: Option<OsString>,
    pub(crate) notes: Vec<Note>,
}

impl Settings {
    /// Reads the environment. `XDG_RUNTIME_DIR` has been checked by [`crate::dirs::check`].
    pub(crate) fn read(env: &Env) -> Result<Self, Failure> {
        let runtime_dir = PathBuf::from(env.nonempty(vars::XDG_RUNTIME_DIR).unwrap_or_default());
        let dir = |name, default| {
            env.nonempty(name).map_or_else(|| runtime_dir.join(default), PathBuf::from)
        };
        let mut notes = Vec::new();
        let settings = Self {
            state_dir: state_dir(dir(vars::DOCKERD_ROOTLESS_STATE_DIR, "dockerd-rootless"))?,
            containerd_state_dir: dir(vars::CONTAINERD_ROOTLESS_STATE_DIR, "containerd-rootless"),
            net: net(env)?,
            mtu: mtu(env)?,
            port_driver: port_driver(env)?,
            sandbox: switch(env, vars::DOCKERD_ROOTLESS_SLIRP4NETNS_SANDBOX, Switch::WORDS)?,
            seccomp: switch(env, vars::DOCKERD_ROOTLESS_SLIRP4NETNS_SECCOMP, Switch::WORDS)?,
            host_loopback: host_loopback(env, &mut notes),
            loopback_ports: loopback_ports(env)?,
            detach: switch(env, vars::DOCKERD_ROOTLESS_DETACH_NETNS, Switch::WORDS_AND_DIGITS)?,
            swarm: swarm(env)?,
            flags: flags(env, &mut notes)?,
            dockerd: env.nonempty(vars::DOCKERD).map(OsStr::to_owned),
            notes,
        };
        Ok(settings)
    }
}

/// The value of a variable that must be one of these words.
fn one_of<T>(
    env: &Env,
    name: &str,
    words: impl IntoIterator<Item = (&'static str, T)>,
) -> Result<Option<T>, Failure> {
    let Some(value) = env.nonempty(name) else { return Ok(None) };
    let mut allowed = Vec::new();
    for (word, known) in words {
        if value == word {
            return Ok(Some(known));
        }
        allowed.push(word);
    }
    Err(Failure::new(format!("{name} is {value:?}, which is not one of {}", allowed.join(", ")))
        .hint(format!("set {name} to one of these values, or remove it from the daemon's settings to use the default")))
}

/// The value of a variable that has a form of its own; `form` says it in a hint.
fn parsed<T: FromStr<Err: fmt::Display>>(
    env: &Env,
    name: &str,
    form: &str,
) -> Result<Option<T>, Failure> {
    let Some(value) = env.nonempty(name) else { return Ok(None) };
    value.to_string_lossy().parse().map(Some).map_err(|why| {
        Failure::new(format!("{name} is {value:?}: {why}"))
            .hint(format!("set {name} to {form}, or {}", removal::variable(name)))
    })
}

fn loopback_ports(env: &Env) -> Result<Option<LoopbackPorts>, Failure> {
    let form = format!("ports such as {}", drivers::loopback::EXAMPLE);
    parsed(env, vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW, &form)
}

/// What the daemon is as a node of a swarm.
///
/// # Errors
/// The variable cannot be understood.
pub(crate) fn swarm(env: &Env) -> Result<Option<Swarm>, Failure> {
    let form = format!("{FORM}, such as 192.0.2.10,peers=192.0.2.0/24");
    parsed(env, vars::DOCKERD_ROOTLESS_SWARM, &form)
}

fn port_driver(env: &Env) -> Result<Option<PortDriver>, Failure> {
    let words = PortDriver::ALL.map(|driver| (driver.name(), driver));
    one_of(env, vars::DOCKERD_ROOTLESS_PORT_DRIVER, words)
}

fn switch(env: &Env, name: &str, table: &[(&'static str, Switch)]) -> Result<Switch, Failure> {
    Ok(one_of(env, name, table.iter().copied())?.unwrap_or(Switch::Auto))
}

fn state_dir(dir: PathBuf) -> Result<PathBuf, Failure> {
    let socket = dir.join("api.sock");
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Failure::new(format!(
            "the path of rootlesskit's socket, {}, has {} bytes, but at most {MAX_SOCKET_PATH} are allowed",
            socket.display(),
            socket.as_os_str().len()
        ))
        .hint(format!("set {} to a shorter path", vars::DOCKERD_ROOTLESS_STATE_DIR)));
    }
    Ok(dir)
}

fn net(env: &Env) -> Result<Option<NetworkDriver>, Failure> {
    let name = vars::DOCKERD_ROOTLESS_NET;
    if env.nonempty(name).is_some_and(|v| v == NetworkDriver::Host.name()) {
        return Err(Failure::new(format!(
            "{name} is \"host\", but dockerd needs a network namespace in which it can configure bridges"
        ))
        .hint(format!(
            "remove {name} from the daemon's settings; with dockerd 29.5 and later, containers can use the host's network with \
             docker run --net=host"
        )));
    }
    let isolating = NetworkDriver::ALL.into_iter().filter(|driver| driver.isolates());
    one_of(env, name, isolating.map(|driver| (driver.name(), driver)))
}

fn mtu(env: &Env) -> Result<Option<u32>, Failure> {
    let name = vars::DOCKERD_ROOTLESS_MTU;
    let Some(value) = env.nonempty(name) else { return Ok(None) };
    let digits = value.to_str().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|v| v.parse().ok()) {
        Some(mtu) if mtu <= MAX_MTU => Ok(Some(mtu)),
        _ => Err(Failure::new(format!(
            "{name} is {value:?}, which is not a number of bytes from 0 (the driver's default) to {MAX_MTU}"
        ))
        .hint(format!("set {name} to, for example, 1500 or 65520, or remove it from the daemon's settings"))),
    }
}

/// Only the exact word `false` gives access to the host's loopback: opening it must be no accident.
fn host_loopback(env: &Env, notes: &mut Vec<Note>) -> bool {
    let name = vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK;
    let value = env.nonempty(name).unwrap_or_default();
    let meant =
        ["0", "f", "n", "no", "off", "false"].iter().any(|no| value.eq_ignore_ascii_case(no));
    if meant && value != "false" {
        notes.push(Note::warn(format!(
            "{name} is {value:?}, which does not open the host's loopback; only the exact value \"false\" lets all containers \
             reach every port of it"
        )));
    }
    value == "false"
}

fn flags(env: &Env, notes: &mut Vec<Note>) -> Result<Vec<OsString>, Failure> {
    let name = vars::DOCKERD_ROOTLESS_FLAGS;
    let Some(value) = env.nonempty(name) else { return Ok(Vec::new()) };
    let words = shellwords::split(value).map_err(|e| Failure::new(format!("{name} is {e}")))?;
    if shellwords::has_quoting(value) {
        notes.push(Note::info(format!(
            "quotes and backslashes in {name} are interpreted as in a shell; Docker's shell script takes them literally"
        )));
    }
    Ok(words)
}
