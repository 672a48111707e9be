//! A capture from the first packet to the last block of the file.

use std::fmt;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use capture::{checksum, pcapng};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sys::capture::{Capture, Frame, LATENCY};
use sys::pidfd::PidFd;

use super::options::Options;
use super::output::{Output, Unwritten};
use crate::ctl::stats::pause::timeout;
use crate::visible::visible;

/// How many blocks of frames are read from one interface before the others have their turn.
const BLOCKS: usize = 8;
/// How long to wait at the end for frames from before it: the kernel hands over a block that is not full after a while.
const LAST_WAIT: Duration = LATENCY.saturating_mul(4);
/// Signals that end a capture with a complete file. SIGHUP means nothing under nohup(1).
const ENDING: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// An interface that is captured.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) capture: Capture,
    pub(super) delivered: u64,
    /// Its link has not gone away.
    pub(super) open: bool,
}

/// Why a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Signal(Signal),
    Size,
    Time,
    Packets,
    /// RootlessKit has ended.
    Gone,
    /// No interface is left.
    Down,
    /// Nobody reads the output.
    Reader,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "stopped by {signal}"),
            Self::Size => f.write_str("reached --max-size"),
            Self::Time => f.write_str("reached --max-time"),
            Self::Packets => f.write_str("reached --max-packets"),
            Self::Gone => f.write_str("RootlessKit has ended"),
            Self::Down => f.write_str("the interface was removed or set down"),
            Self::Reader => f.write_str("the reader has ended"),
        }
    }
}

/// Signals that end a capture, from now on read instead of delivered.
pub(super) fn block_signals() -> anyhow::Result<SignalFd> {
    let set: SigSet = ENDING.into_iter().collect();
    set.thread_block().context("cannot block signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&set, flags).context("cannot wait for signals")
}

/// The file as it grows, and its limits.
#[derive(Debug)]
struct Recorder {
    output: Output,
    packets: u64,
    max_packets: Option<u64>,
    max_size: Option<u64>,
    /// What has to fit behind the packets, in bytes.
    reserved: u64,
}

impl Recorder {
    /// Adds a frame. An answer means that the capture ends, with this frame if the limit allows it.
    fn record(&mut self, interface: u32, frame: &Frame<'_>) -> Option<End> {
        let most = (frame.data.len() + pcapng::PACKET_OVERHEAD) as u64 + self.reserved;
        if self.max_size.is_some_and(|max| self.output.length() + most > max) {
            return Some(End::Size);
        }
        let packet = pcapng::Packet {
            interface,
            time: frame.time,
            length: frame.length,
            direction: frame.direction,
        };
        let buffer = self.output.buffer();
        let range = pcapng::packet(buffer, &packet, frame.data);
        if frame.checksum_pending {
            checksum::finish(&mut buffer[range]);
        }
        self.packets += 1;
        (self.max_packets == Some(self.packets)).then_some(End::Packets)
    }
}

/// Everything that a capture needs until its end; nothing is opened after it was made.
#[derive(Debug)]
pub(super) struct Session {
    sources: Vec<Source>,
    recorder: Recorder,
    signals: SignalFd,
    /// RootlessKit's child.
    child: PidFd,
    begin: Duration,
    deadline: Option<Instant>,
    /// Something has ended the capture, and only the rest is to be written.
    ended: bool,
}

impl Session {
    /// `output` has the beginning of the file.
    pub(super) fn new(
        sources: Vec<Source>,
        output: Output,
        options: &Options,
        (signals, child): (SignalFd, PidFd),
    ) -> Self {
        let reserved = (sources.len() * pcapng::STATISTICS_LENGTH) as u64;
        let recorder = Recorder {
            output,
            packets: 0,
            max_packets: options.max_packets,
            max_size: options.max_size,
            reserved,
        };
        Self {
            sources,
            recorder,
            signals,
            child,
            begin: now(),
            deadline: options.max_time.and_then(|time| Instant::now().checked_add(time)),
            ended: false,
        }
    }

    /// Captures until something ends it, and says what was captured; nothing if the reader went away.
    pub(super) fn run(mut self) -> anyhow::Result<Option<String>> {
        let outcome =
            self.capture().and_then(|end| self.finish().map(|dropped| self.summary(end, dropped)));
        match outcome {
            Ok(summary) => Ok(Some(summary)),
            Err(Unwritten::Closed) => Ok(None),
            Err(why) => Err(self.recorder.output.explain(&why)),
        }
    }

    fn capture(&mut self) -> Result<End, Unwritten> {
        loop {
            self.flush()?;
            if let Some(end) = self.wait()? {
                if end == End::Reader {
                    return Err(Unwritten::Closed);
                }
                self.ended = true;
                return Ok(self.rest()?.unwrap_or(end));
            }
            for at in 0..self.sources.len() {
                if let Some(end) = self.read(at, Duration::MAX)? {
                    return Ok(end);
                }
            }
            if self.sources.iter().all(|source| !source.open) {
                self.ended = true;
                return Ok(self.rest()?.unwrap_or(End::Down));
            }
        }
    }

    /// Reads what came before now.
    fn rest(&mut self) -> Result<Option<End>, Unwritten> {
        let (until, deadline) = (now(), Instant::now() + LAST_WAIT);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let open = self.sources.iter().filter(|source| source.open);
            let mut fds: Vec<_> =
                open.map(|source| PollFd::new(source.capture.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, timeout(Some(left))) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(Unwritten::Failed(error.into())),
            }
            for at in 0..self.sources.len() {
                if let Some(end) = self.read(at, until)? {
                    return Ok(Some(end));
                }
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Waits for packets, or for an end.
    fn wait(&self) -> Result<Option<End>, Unwritten> {
        let left = left(self.deadline);
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.child.as_fd(), PollFlags::POLLIN),
            // Errors and hang-ups are told without being asked for: poll(2).
            PollFd::new(self.recorder.output.as_fd(), PollFlags::empty()),
        ];
        let open = self.sources.iter().filter(|source| source.open);
        fds.extend(open.map(|source| PollFd::new(source.capture.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout(left)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(Unwritten::Failed(error.into())),
        }
        let ready = |at: usize| fds[at].revents().is_some_and(|events| !events.is_empty());
        if ready(0)
            && let Ok(Some(signal)) = self.signals.read_signal()
        {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            return Ok(Some(End::Signal(Signal::try_from(number).unwrap_or(Signal::SIGTERM))));
        }
        Ok(if ready(1) {
            Some(End::Gone)
        } else if ready(2) {
            Some(End::Reader)
        } else {
            left.is_some_and(|left| left.is_zero()).then_some(End::Time)
        })
    }

    /// Reads some blocks from an interface, and takes the frames from before `until`.
    fn read(&mut self, at: usize, until: Duration) -> Result<Option<End>, Unwritten> {
        let interface = u32::try_from(at).unwrap_or(u32::MAX);
        for _ in 0..BLOCKS {
            let source = &mut self.sources[at];
            let (recorder, delivered) = (&mut self.recorder, &mut source.delivered);
            let mut end = None;
            let block = source.capture.read(|frame| {
                if frame.time <= until {
                    end = recorder.record(interface, frame);
                    *delivered += u64::from(end != Some(End::Size));
                }
                end.is_none()
            });
            match block {
                Ok(true) if end.is_some() => return Ok(end),
                Ok(true) => {}
                Ok(false) => break,
                // ENETDOWN: the link went down or away.
                Err(_) => {
                    source.open = false;
                    break;
                }
            }
            if self.recorder.output.is_enough() {
                self.flush()?;
            }
        }
        Ok(None)
    }

    /// Ends the file, and says how many packets the kernel dropped.
    fn finish(&mut self) -> Result<u64, Unwritten> {
        self.ended = true;
        let mut all = 0;
        for (interface, source) in (0..).zip(&self.sources) {
            let counted = source.capture.statistics().map_err(Unwritten::Failed)?;
            all += u64::from(counted.dropped);
            let statistics = pcapng::Statistics {
                interface,
                time: (self.begin, now()),
                accepted: counted.accepted.into(),
                dropped: counted.dropped.into(),
                delivered: source.delivered,
            };
            pcapng::statistics(self.recorder.output.buffer(), &statistics);
        }
        self.flush()?;
        Ok(all)
    }

    fn flush(&mut self) -> Result<(), Unwritten> {
        let (deadline, ended) = (self.deadline, self.ended);
        let left = || if ended { Some(Duration::ZERO) } else { left(deadline) };
        self.recorder.output.flush([self.signals.as_fd(), self.child.as_fd()], &left)
    }

    fn summary(&self, end: End, dropped: u64) -> String {
        let Recorder { output, packets, .. } = &self.recorder;
        let mut gone =
            self.sources.iter().filter(|source| !source.open).map(|source| &*source.name);
        let gone = gone.next().filter(|_| end != End::Down);
        let gone = gone
            .map(|name| format!("\nwarning: interface {} was removed or set down", visible(name)));
        format!(
            "captured {packets} packets, {dropped} dropped by the kernel, {} bytes written to {}: {end}{}",
            output.length(),
            output.name(),
            gone.unwrap_or_default(),
        )
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Since 1970-01-01 00:00:00 UTC.
fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}
