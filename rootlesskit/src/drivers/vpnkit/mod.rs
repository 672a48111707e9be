//! `--net=vpnkit`: Docker's user-space network behind an Ethernet cable that is a UNIX socket (github.com/moby/vpnkit).
//!
//! The parent runs vpnkit and finds out when it serves. The child makes a TAP device, connects it with the socket
//! ([`pump`]) and asks vpnkit for an address by DHCP. Both name themselves with the same UUID, by which vpnkit knows
//! its clients: an instance that takes the place of one that died gives the same address.

mod protocol;
pub(super) mod pump;

use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use drivers::NetworkDriver;
use sys::pidfd::PidFd;

use super::helper::{find_program, fresh_socket, path_text};
use super::{Flags, Namespace, Network, Program, Service, Starting, no_cidr};
use crate::plan::{Device, Dhcp, NetworkPlan, Uplink};

/// How long vpnkit may take until it serves: less than whoever waits for the byte has, for the sake of the reason.
const START_TIMEOUT: Duration = Duration::from_secs(9);
/// Between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

const HINT: &str =
    "check that the program works (vpnkit --version), or choose another network driver with --net";

#[derive(Debug)]
struct Vpnkit {
    binary: PathBuf,
    mtu: u32,
    disable_host_loopback: bool,
    uuid: String,
}

pub(super) fn network(flags: Flags<'_>) -> anyhow::Result<Network> {
    let Flags { cli, env, .. } = flags;
    let driver = NetworkDriver::Vpnkit;
    no_cidr(driver, cli)?;
    let package = driver.helper_package().unwrap_or_default();
    let remedy = format!("install {package}, or specify its path with --vpnkit-binary");
    let binary = find_program(env, &cli.vpnkit_binary, &format!("--net={driver}"), &remedy)?;
    let (usual, mtu) = (driver.default_mtu(), cli.mtu_or(driver.default_mtu()));
    if mtu != usual {
        tracing::warn!("vpnkit works best with an MTU of {usual}, but the MTU is {mtu}");
    }
    let uuid = random_uuid();
    let device = Device::Vpnkit { uuid: uuid.clone() };
    let uplink = Uplink::Dhcp(Dhcp { name: cli.ifname_or(driver.default_ifname()), mtu, device });
    let disable_host_loopback = cli.disable_host_loopback;
    Ok(Network {
        info: api::NetworkDriverInfo { driver: driver.to_string(), ..Default::default() },
        plan: NetworkPlan { uplink, dns: Vec::new() },
        service: Service::Program(Box::new(Vpnkit { binary, mtu, disable_host_loopback, uuid })),
    })
}

pub(super) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join(NetworkDriver::Vpnkit.socket().unwrap_or_default())
}

impl Vpnkit {
    fn command(&self, socket: &Path) -> anyhow::Result<Command> {
        let mut cmd = Command::new(&self.binary);
        cmd.args(["--ethernet", path_text(socket)?, "--mtu", &self.mtu.to_string()]);
        if self.disable_host_loopback {
            // The address by which guests reach the host: none.
            cmd.args(["--host-ip", "0.0.0.0"]);
        }
        Ok(cmd)
    }
}

/// A random UUID (RFC 9562, version 4).
fn random_uuid() -> String {
    let half = || RandomState::new().hash_one(0);
    let bits = (u128::from(half()) << 64) | u128::from(half());
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

impl Program for Vpnkit {
    fn start(&self, ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        let socket = socket(&ns.state_dir);
        fresh_socket(&socket);
        let (ready, writer) = io::pipe()?;
        let starting = Starting::spawn("vpnkit", HINT, self.command(&socket)?, ready.into())?;
        let process = PidFd::open(starting.process().pid())?;
        let uuid = self.uuid.clone();
        std::thread::Builder::new()
            .name("vpnkit".to_owned())
            .spawn(move || await_service(&process, &socket, &uuid, writer))?;
        Ok(Some(starting))
    }
}

/// Writes a byte when vpnkit serves; closes the pipe if it does not, in time or ever. vpnkit has no way of telling.
fn await_service(process: &PidFd, socket: &Path, uuid: &str, mut ready: PipeWriter) {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        match protocol::connect(socket, uuid, deadline) {
            Ok(_) => {
                if let Err(e) = ready.write_all(b"1") {
                    tracing::debug!("nothing is waiting for vpnkit anymore: {e}");
                }
                return;
            }
            Err(protocol::Error::Connect(e)) => tracing::trace!("vpnkit is not listening yet: {e}"),
            Err(e) => {
                tracing::error!("cannot use vpnkit: {e}");
                return;
            }
        }
        if process.wait_ended(LOOK_INTERVAL).unwrap_or(true) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(disable_host_loopback: bool) -> Vpnkit {
        Vpnkit {
            binary: "/usr/bin/vpnkit".into(),
            mtu: 1500,
            disable_host_loopback,
            uuid: random_uuid(),
        }
    }

    #[test]
    fn the_command_line_is_the_documented_one() {
        let words = |driver: &Vpnkit| {
            let cmd = driver.command(Path::new("/s/vpnkit-ethernet.sock")).unwrap();
            cmd.get_args().map(|a| a.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(&driver(false)), "--ethernet /s/vpnkit-ethernet.sock --mtu 1500");
        assert!(words(&driver(true)).ends_with(" --host-ip 0.0.0.0"));
    }

    #[test]
    fn uuids_are_random_ones() {
        let (a, b) = (random_uuid(), random_uuid());
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
        assert!(a.as_bytes()[14] == b'4' && b"89ab".contains(&a.as_bytes()[19]), "{a}");
        assert!(a.chars().enumerate().all(|(n, c)| [8, 13, 18, 23].contains(&n) == (c == '-')));
    }
}
