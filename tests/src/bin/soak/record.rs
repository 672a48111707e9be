//! What a soak writes down: samples of processes, sums of traffic, failures, and what was done to provoke them.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tests::clock;

/// An instance of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Label {
    Gateway,
    Slirp4netns,
    Docker,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gateway => "gateway",
            Self::Slirp4netns => "slirp4netns",
            Self::Docker => "docker",
        })
    }
}

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Milliseconds since the soak began.
    pub(crate) at: u64,
    pub(crate) instance: Label,
    /// The program, with `parent` or `child` for rootlesskit.
    pub(crate) process: String,
    pub(crate) pid: i32,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) rss_kib: u64,
    pub(crate) pss_kib: u64,
    /// Processor seconds so far.
    pub(crate) cpu_s: f64,
}

/// What a gateway process is called.
pub(crate) const GATEWAY_PROCESS: &str = "rootlesskit-gateway";

impl Sample {
    pub(crate) fn is_gateway_process(&self) -> bool {
        self.process == GATEWAY_PROCESS
    }
}

/// Operations of one kind that ended well in an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// When the first of them began, and when the interval ended, in milliseconds since the soak began.
    pub(crate) since: u64,
    pub(crate) at: u64,
    pub(crate) instance: Label,
    /// What carries it, such as `out, IPv6`.
    pub(crate) way: String,
    pub(crate) kind: String,
    pub(crate) done: u64,
    pub(crate) bytes: u64,
    /// Datagrams that were sent again.
    pub(crate) repeated: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// An operation that did not end well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// When it began (one over a kept connection: when that was opened) and ended, in milliseconds since the soak
    /// began.
    pub(crate) since: u64,
    pub(crate) at: u64,
    pub(crate) instance: Label,
    pub(crate) way: String,
    pub(crate) kind: String,
    /// Whether there was an answer, which was not the right one.
    pub(crate) wrong: bool,
    pub(crate) error: String,
}

/// What was done to the instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) at: u64,
    pub(crate) what: What,
}

/// See [`Event`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// The helper or gateway process of an instance was killed.
    Killed(Label),
    /// Another took its place, and serves.
    Replaced(Label),
    /// The host's `/etc/resolv.conf` names the server of this tag from now on.
    Resolver(String),
}

/// How busy the machine was, with the soak and with everything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) at: u64,
    /// Processes that ran or were ready to run, on average over one minute (proc_loadavg(5)).
    pub(crate) average: f64,
}

/// Where the figures come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) kernel: String,
    /// Names and versions of programs.
    pub(crate) versions: Vec<String>,
}

/// Everything that a soak measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    /// How long it lasted, in milliseconds.
    pub(crate) length: u64,
    /// Why it ended before everything was done.
    #[serde(default)]
    pub(crate) aborted: Option<String>,
    /// Lines of the logs that tell of a panic.
    #[serde(default)]
    pub(crate) panics: Vec<String>,
    pub(crate) events: Vec<Event>,
    pub(crate) samples: Vec<Sample>,
    #[serde(default)]
    pub(crate) loads: Vec<Load>,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) failures: Vec<Failure>,
}

/// What the threads of a soak write to while it runs.
#[derive(Debug)]
pub(crate) struct Journal {
    /// When the soak began, by [`clock::now`].
    pub(crate) start: u64,
    record: Mutex<Record>,
}

impl Journal {
    pub(crate) fn begin(machine: Machine) -> Self {
        let record = Record { machine, ..Record::default() };
        Self { start: clock::now(), record: Mutex::new(record) }
    }

    /// Milliseconds since the soak began.
    pub(crate) fn now(&self) -> u64 {
        clock::now().saturating_sub(self.start)
    }

    pub(crate) fn with<T>(&self, write: impl FnOnce(&mut Record) -> T) -> T {
        write(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn note(&self, what: What) {
        let at = self.now();
        self.with(|record| record.events.push(Event { at, what }));
    }

    /// The soak has its length; what is written down from now on is the rest of what had begun.
    pub(crate) fn ends(&self) {
        let length = self.now();
        self.with(|record| record.length = length);
    }

    /// What was written down.
    pub(crate) fn end(self) -> Record {
        self.record.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
