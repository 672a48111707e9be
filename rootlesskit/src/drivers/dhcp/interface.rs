//! The client's interface: packets before it has an address, datagrams after that.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

use super::client::{Port, Way};
use super::frame::{self, CLIENT_PORT, SERVER_PORT};

/// More than any DHCP message over Ethernet, in bytes.
const MAX_MESSAGE: usize = 2048;
/// Without the timer, how long the time in which the machine sleeps can go unnoticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// The interface, in the network namespace of the calling thread.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    /// What packet(7) calls its address, the index.
    address: LinkAddr,
    pub(super) mac: [u8; 6],
    /// Goes on while the machine sleeps.
    timer: TimerFd,
    open: Option<Open>,
}

#[derive(Debug)]
enum Open {
    /// Ethernet frames; packet(7).
    Packets(OwnedFd),
    /// What the kernel passes on to our address.
    Datagrams(UdpSocket),
}

impl Open {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Packets(fd) => fd.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

impl Interface {
    pub(super) fn named(name: &str) -> anyhow::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)
            .with_context(|| format!("failed to create a timer for the DHCP lease of {name}"))?;
        let addresses = getifaddrs().context("failed to list network interfaces")?;
        let address = addresses
            .filter(|found| found.interface_name == name)
            .find_map(|found| found.address.and_then(|a| a.as_link_addr().copied()))
            .with_context(|| format!("the network interface {name} does not exist"))?;
        let mac = address.addr().with_context(|| format!("{name} has no Ethernet address"))?;
        Ok(Self { name: name.to_owned(), address, mac, timer, open: None })
    }

    fn packets(&self) -> io::Result<Open> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthIp)?;
        bind(fd.as_raw_fd(), &self.address)?;
        Ok(Open::Packets(fd))
    }

    fn datagrams(&self) -> io::Result<Open> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
        // Answers and requests of this interface only, whatever routes there are.
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(&self.name))?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        Ok(Open::Datagrams(socket))
    }

    /// The socket for this way; one that is open for the other way is closed.
    fn opened(&mut self, way: Way) -> io::Result<&Open> {
        let fits = match (&self.open, way) {
            (Some(Open::Packets(_)), Way::Unconfigured) => true,
            (Some(Open::Datagrams(_)), Way::Server(_) | Way::Everyone) => true,
            (Some(Open::Packets(_) | Open::Datagrams(_)) | None, _) => false,
        };
        if !fits {
            self.open = None;
            let new = match way {
                Way::Unconfigured => self.packets()?,
                Way::Server(_) | Way::Everyone => self.datagrams()?,
            };
            self.open = Some(new);
        }
        self.open.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Port for Interface {
    fn now(&self) -> Duration {
        clock_gettime(Clock::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
    }

    fn wait(&mut self, until: Duration) {
        // Zero would disarm the timer.
        let at = Expiration::OneShot(TimeSpec::from_duration(until.max(Duration::from_nanos(1))));
        let set = self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        if let Err(e) = set.and_then(|()| self.timer.wait()) {
            tracing::debug!("failed to wait for the timer of {}: {e}", self.name);
            // The client relies on the pause: without it, it would ask the server again and again.
            while let Some(left) = until.checked_sub(self.now()).filter(|left| !left.is_zero()) {
                std::thread::sleep(left.min(LONGEST_SLEEP));
            }
        }
    }

    fn random(&mut self) -> u32 {
        // The keys of a new hasher are random, from the kernel.
        let [a, b, c, d, ..] = RandomState::new().hash_one(self.now()).to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    fn send(&mut self, way: Way, message: &[u8]) -> io::Result<()> {
        let frame = match way {
            Way::Unconfigured => frame::broadcast(self.mac, message).unwrap_or_default(),
            Way::Server(_) | Way::Everyone => Vec::new(),
        };
        match (self.opened(way)?, way) {
            (Open::Packets(fd), _) => {
                send(fd.as_raw_fd(), &frame, MsgFlags::empty())?;
            }
            (Open::Datagrams(socket), Way::Server(server)) => {
                socket.send_to(message, (server, SERVER_PORT))?;
            }
            (Open::Datagrams(socket), _) => {
                socket.send_to(message, (Ipv4Addr::BROADCAST, SERVER_PORT))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, until: Duration) -> io::Result<Option<Vec<u8>>> {
        let left = until.saturating_sub(self.now());
        let Some(open) = &self.open else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut fds = [PollFd::new(open.fd(), PollFlags::POLLIN)];
        // Rounded up, or the last millisecond would be spent spinning.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut buf = vec![0; MAX_MESSAGE];
        let length = match recv(open.fd().as_raw_fd(), &mut buf, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        buf.truncate(length);
        Ok(match open {
            Open::Packets(_) => frame::payload(&buf).map(<[u8]>::to_vec),
            Open::Datagrams(_) => Some(buf),
        })
    }

    fn close(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    const ALONE: &str = "TEST_INTERFACE_ALONE";

    #[test]
    fn a_timer_that_fails_shortens_no_wait() {
        let mut interface = Interface::named("lo").unwrap();
        // Reading it fails as long as it has not expired.
        interface.timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK).unwrap();
        let until = interface.now() + Duration::from_millis(50);
        interface.wait(until);
        assert!(interface.now() >= until);
    }

    /// Runs itself in a process of its own, where no other test needs descriptors.
    #[test]
    fn a_timer_that_cannot_be_created_is_named() {
        if std::env::var_os(ALONE).is_none() {
            let name = "drivers::dhcp::interface::tests::a_timer_that_cannot_be_created_is_named";
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", name]).env(ALONE, "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        let result = Interface::named("lo");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let text = format!("{:#}", result.unwrap_err());
        let expected = "failed to create a timer for the DHCP lease of lo: EMFILE";
        assert!(text.starts_with(expected), "{text}");
    }
}
