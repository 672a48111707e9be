//! `--net=vpnkit`: Docker's user-space network behind an Ethernet cable that is a UNIX socket (github.com/moby/vpnkit).
//!
//! The parent runs vpnkit and finds out when it serves. The child makes a TAP device, connects it with the socket
//! ([`crate::child`]'s pump) and asks vpnkit for an address by DHCP. Both name themselves with the same UUID, by which
//! vpnkit knows its clients: an instance that takes the place of one that died gives the same address.

pub(crate) mod protocol;

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use env::Env;
use sys::pidfd::PidFd;

use super::{Driver, Namespace, Starting, fresh_socket, path_text};
use crate::cli::Cli;
use crate::handshake::{Dynamic, Leased, Link, NetworkPlan};

/// vpnkit's socket in the state directory.
pub(crate) const SOCKET: &str = "vpnkit-ethernet.sock";

/// Of vpnkit's own network, in bytes.
const MTU: u32 = 1500;
/// How long vpnkit may take until it serves: less than whoever waits for the byte has, for the sake of the reason.
const LIMIT: Duration = Duration::from_secs(9);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);

/// The driver.
#[derive(Debug)]
pub(crate) struct Vpnkit {
    binary: PathBuf,
    ifname: String,
    mtu: u32,
    disable_host_loopback: bool,
    uuid: String,
    leased: RefCell<Option<Leased>>,
}

impl Vpnkit {
    /// As the flags have it.
    pub(crate) fn chosen(cli: &Cli, env: &Env) -> anyhow::Result<Self> {
        let name = &cli.vpnkit_binary;
        let binary = env.find_program(name).with_context(|| {
            format!("{name} was not found in $PATH, but --net=vpnkit needs it\nhint: install VPNKit (github.com/moby/vpnkit), or name it with --vpnkit-binary")
        })?;
        let mtu = cli.mtu_or(MTU);
        if mtu != MTU {
            tracing::warn!("vpnkit works best with an MTU of {MTU}, not of {mtu}");
        }
        Ok(Self::new(binary, &cli.ifname_or("tap0"), mtu, cli.disable_host_loopback))
    }

    fn new(binary: PathBuf, ifname: &str, mtu: u32, disable_host_loopback: bool) -> Self {
        Self {
            binary,
            ifname: ifname.to_owned(),
            mtu,
            disable_host_loopback,
            uuid: random_uuid(),
            leased: RefCell::default(),
        }
    }

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

impl Driver for Vpnkit {
    fn info(&self) -> api::NetworkDriverInfo {
        let leased = self.leased.borrow();
        api::NetworkDriverInfo {
            driver: "vpnkit".to_owned(),
            dns: leased.as_ref().map(|leased| leased.dns.clone()).unwrap_or_default(),
            child_ip: leased.as_ref().map(|leased| leased.address),
            dynamic_child_ip: false,
            ipv6: false,
        }
    }

    fn plan(&self) -> NetworkPlan {
        NetworkPlan { own_view: true, ..NetworkPlan::default() }
    }

    fn dynamic(&self) -> Option<Dynamic> {
        let link = Link::Vpnkit { uuid: self.uuid.clone() };
        Some(Dynamic { name: self.ifname.clone(), mtu: self.mtu, link })
    }

    fn leased(&self, leased: Leased) {
        self.leased.replace(Some(leased));
    }

    fn start(&self, ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        let socket = fresh_socket(&ns.state_dir, SOCKET);
        let (ready, writer) = io::pipe()?;
        let starting = Starting::spawn("vpnkit", self.command(&socket)?, ready.into())?;
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
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match protocol::connect(socket, uuid, deadline) {
            Ok(_) => {
                if let Err(e) = ready.write_all(b"1") {
                    tracing::debug!("nobody waits for vpnkit any more: {e}");
                }
                return;
            }
            Err(protocol::Error::Connect(e)) => tracing::trace!("vpnkit does not listen yet: {e}"),
            Err(e) => {
                tracing::error!("vpnkit cannot be used: {e}");
                return;
            }
        }
        if process.wait_ended(LOOK).unwrap_or(true) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(disable_host_loopback: bool) -> Vpnkit {
        Vpnkit::new("/usr/bin/vpnkit".into(), "tap0", MTU, disable_host_loopback)
    }

    #[test]
    fn f041_the_command_line_is_the_documented_one() {
        let words = |driver: &Vpnkit| {
            let cmd = driver.command(Path::new("/s/vpnkit-ethernet.sock")).unwrap();
            cmd.get_args().map(|a| a.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(&driver(false)), "--ethernet /s/vpnkit-ethernet.sock --mtu 1500");
        assert!(words(&driver(true)).ends_with(" --host-ip 0.0.0.0"));
    }

    #[test]
    fn the_address_is_known_once_it_is_leased() {
        let driver = driver(true);
        let link = driver.dynamic().unwrap().link;
        assert_eq!(link, Link::Vpnkit { uuid: driver.uuid.clone() });
        assert_eq!(driver.info().child_ip, None);
        let ip = "192.168.65.3".parse().unwrap();
        driver.leased(Leased { address: ip, dns: vec!["192.168.65.1".parse().unwrap()] });
        let info = driver.info();
        assert_eq!((info.driver.as_str(), info.child_ip, info.dns.len()), ("vpnkit", Some(ip), 1));
        assert!(!info.dynamic_child_ip);
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
