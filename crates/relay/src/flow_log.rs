//! The flow log: a record of each connection, UDP flow, ping and denied attempt that has ended, while somebody follows.
//!
//! Threads of the data path leave records here; whoever follows takes them, several times a second. Nobody waits for
//! room: what finds none is counted. While nobody follows, an end costs one relaxed read, and a beginning the few dozen
//! bytes of a [`FlowStart`], which whoever follows from then on may need.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use nix::errno::Errno;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Records that wait to be taken.
pub const MAX_RECORDS: usize = 4096;

/// What a flow consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// UDP datagrams between two addresses and ports.
    Udp,
    /// Echo requests with one identifier, and what answers them.
    Icmp,
}

/// How a flow has ended. The client is the side that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEnd {
    /// Both sides have closed it.
    Closed,
    /// The client has reset it, or gave up.
    ClientReset,
    /// The server has reset it.
    ServerReset,
    /// Nobody answered, or one side has vanished.
    TimedOut,
    /// It was silent for so long that it was removed.
    Idle,
    /// Nobody listens there.
    Refused,
    /// The network says that there is no way.
    Unreachable,
    /// A rule forbids it.
    Denied,
    /// It made room for others, because a limit was reached.
    Evicted,
    /// Its published port was removed.
    Withdrawn,
    /// Something was missing here, such as a descriptor.
    Failed,
}

impl FlowEnd {
    /// What an error of connect(2) or of a connected socket says.
    pub fn of(error: Errno) -> Self {
        match error {
            Errno::ECONNREFUSED => Self::Refused,
            Errno::ECONNRESET => Self::ServerReset,
            Errno::ETIMEDOUT => Self::TimedOut,
            // The latter two: a route or a packet filter of the host forbids it.
            Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETDOWN
            | Errno::EACCES
            | Errno::EPERM => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

/// What is known of a flow when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStart {
    /// What it consists of.
    pub transport: Transport,
    /// Whether it goes to a published port.
    pub published: bool,
    /// Who began it: as the target namespace sees it, or the client of a published port as the host sees it.
    pub client: SocketAddr,
    /// Where it leads: the destination outside as the target namespace sees it, or the published port. An echo request
    /// has port 0.
    pub destination: SocketAddr,
    /// The name that the destination was looked up by. Not of [`crate::sync`], because the model checker's has no `str`.
    pub name: Option<std::sync::Arc<str>>,
    /// The rule of a policy that would forbid it if it were enforced.
    pub dry_run_rule: Option<std::sync::Arc<str>>,
    /// When it began.
    pub began: Instant,
}

/// A flow that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// What was known at its beginning.
    pub start: FlowStart,
    /// The container that began or answered it, if it was found.
    pub container: Option<IpAddr>,
    /// Payload bytes from the client.
    pub up: u64,
    /// Payload bytes to it.
    pub down: u64,
    /// When it ended.
    pub ended: Instant,
    /// How it ended.
    pub end: FlowEnd,
    /// The rule of a policy that has denied or ended it.
    pub rule: Option<std::sync::Arc<str>>,
}

/// The records that have not been taken yet.
#[derive(Debug, Default)]
pub struct FlowLog {
    /// Whether it is worth making records. A hint; [`Records::open`] decides.
    followed: AtomicBool,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    open: bool,
    kept: Vec<FlowRecord>,
    missed: u64,
}

impl FlowLog {
    /// Whether somebody follows.
    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// Keeps records from now on.
    pub fn follow(&self) {
        self.lock().open = true;
        self.followed.store(true, Ordering::Relaxed);
    }

    /// Keeps no records any more, and forgets those that are there.
    pub fn stop(&self) {
        self.followed.store(false, Ordering::Relaxed);
        let forgotten = std::mem::take(&mut *self.lock());
        // Threads of the data path do not wait for this.
        drop(forgotten);
    }

    /// Keeps a record if somebody follows. It is only counted if there is no room.
    pub fn push(&self, record: FlowRecord) {
        let mut records = self.lock();
        if !records.open {
            return;
        }
        if records.kept.len() < MAX_RECORDS {
            records.kept.push(record);
        } else {
            records.missed += 1;
        }
    }

    /// The records since the last call, and how many there was no room for.
    pub fn take(&self) -> (Vec<FlowRecord>, u64) {
        let mut records = self.lock();
        (std::mem::take(&mut records.kept), std::mem::take(&mut records.missed))
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
