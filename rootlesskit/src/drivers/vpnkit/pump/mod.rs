//! The cable between a TAP device and vpnkit's switch.
//!
//! One thread moves the frames both ways. When vpnkit dies, the parent starts it again; the thread connects with the
//! successor. It lives in the network namespace of its interface, whose Ethernet address is vpnkit's choice.

mod frames;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netlink::Rt;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::protocol::{self, Port};
use crate::drivers::tap;
use frames::{Incoming, Outgoing};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between two attempts to reach the successor of a vpnkit that died: first and longest.
const RECONNECT_INTERVALS: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_secs(1));
/// A frame with the largest MTU, in bytes.
const FRAME: usize = 64 << 10;

/// Makes the interface `name`, connects it with vpnkit's socket and keeps it connected.
pub(crate) fn start(name: &str, socket: &Path, uuid: &str) -> anyhow::Result<()> {
    let tap = tap::create(name)?;
    fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let (name, socket, uuid) = (name.to_owned(), socket.to_owned(), uuid.to_owned());
    let mut pump = Pump { name, socket, uuid, tap: tap.into(), buf: vec![0; FRAME] };
    let stream = pump.connect()?;
    let thread = std::thread::Builder::new().name("pump".to_owned()).stack_size(256 << 10);
    thread.spawn(move || {
        let mut stream = stream;
        loop {
            match pump.forward(&stream) {
                Broken::Stream(e) => tracing::warn!(
                    "lost the connection to vpnkit ({e}); the network is down until vpnkit runs again"
                ),
                Broken::Tap(e) => {
                    tracing::error!("the network interface {} is gone: {e}", pump.name);
                    return;
                }
            }
            stream = pump.connect_again();
            tracing::info!("reconnected to vpnkit");
        }
    })?;
    Ok(())
}

enum Broken {
    Stream(io::Error),
    Tap(io::Error),
}

struct Pump {
    name: String,
    socket: PathBuf,
    uuid: String,
    tap: File,
    buf: Vec<u8>,
}

impl Pump {
    /// A connection in our name, with our interface as vpnkit wants it.
    fn connect(&self) -> anyhow::Result<UnixStream> {
        let (stream, port) =
            protocol::connect(&self.socket, &self.uuid, Instant::now() + ANSWER_TIMEOUT)?;
        tracing::debug!("vpnkit's port: {port:02x?}");
        let Port { mac, .. } = port;
        let mut rt = Rt::open()?;
        let index = rt.link_index(&self.name)?;
        rt.set_mac(index, mac)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Tries for as long as it takes: when vpnkit gives up for good, so does the parent, and we with it.
    fn connect_again(&self) -> UnixStream {
        let (mut pause, longest) = RECONNECT_INTERVALS;
        loop {
            match self.connect() {
                Ok(stream) => return stream,
                Err(e) => tracing::debug!("vpnkit is not answering yet: {e:#}"),
            }
            // vpnkit tells nobody when it listens, and inotify(7) only of the name of its socket, which comes first.
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    fn forward(&mut self, stream: &UnixStream) -> Broken {
        let (mut out, mut inc) = (Outgoing::default(), Incoming::default());
        loop {
            let (tap, socket) = match wait(&self.tap, stream, &out) {
                Ok(ready) => ready,
                Err(e) => return Broken::Stream(e),
            };
            if tap && let Err(e) = self.take_frames(&mut out) {
                return Broken::Tap(e);
            }
            if socket {
                let read = inc.fill(|buf| (&*stream).read(buf));
                if let Err(e) = read.and_then(|()| self.give_frames(&mut inc)) {
                    return Broken::Stream(e);
                }
            }
            if let Err(e) = out.flush(|bytes| (&*stream).write(bytes)) {
                return Broken::Stream(e);
            }
        }
    }

    /// What has left by the interface.
    fn take_frames(&mut self, out: &mut Outgoing) -> io::Result<()> {
        while out.has_room() {
            match self.tap.read(&mut self.buf) {
                Ok(length) => out.push(&self.buf[..length]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What is to arrive on it. A frame that the kernel does not take is lost, as frames may be.
    fn give_frames(&mut self, inc: &mut Incoming) -> io::Result<()> {
        while let Some(frame) = inc.next()? {
            if let Err(e) = self.tap.write(frame) {
                tracing::trace!("dropped a frame of {} bytes: {e}", frame.len());
            }
        }
        Ok(())
    }
}

/// Waits until something can be moved: whether there are frames of the interface, and whether there is something to
/// read from the stream.
fn wait(tap: &File, stream: &UnixStream, out: &Outgoing) -> io::Result<(bool, bool)> {
    let wanted = |on: bool, flag: PollFlags| if on { flag } else { PollFlags::empty() };
    let mut fds = [
        PollFd::new(tap.as_fd(), wanted(out.has_room(), PollFlags::POLLIN)),
        PollFd::new(
            stream.as_fd(),
            PollFlags::POLLIN | wanted(!out.is_empty(), PollFlags::POLLOUT),
        ),
    ];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok((false, false)),
        Err(e) => return Err(e.into()),
    }
    let ended = PollFlags::POLLHUP | PollFlags::POLLERR;
    let is = |n: usize| {
        let events = fds.get(n).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        events.intersects(PollFlags::POLLIN | ended)
    };
    Ok((is(0), is(1)))
}

#[cfg(test)]
mod tests;
