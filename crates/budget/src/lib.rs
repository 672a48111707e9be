//! One budget of file descriptors: what a limit of open files (`RLIMIT_NOFILE`, getrlimit(2)) is spent on.
//!
//! Pure arithmetic. The data path ([`Shares`]), rootlesskit's parent ([`Budget`]), its warning at start, the check of the
//! set-up tool and the table in `docs/network.md` all take their figures from here.
//!
//! # Theory of operation
//! Two processes have descriptors of published ports and connections, each with the same limit:
//!
//! * The *parent* keeps the listener of every port. It also answers the API and must be able to start its network helper
//!   again at any time, so that much is set aside ([`Budget::parent`]) and ports get the rest.
//! * The *data path* is a process of its own (the gateway) or a thread of the parent (the port driver `builtin`). What
//!   its process needs for itself is set aside, the rest ([`Shares::data`]) is shared:
//!
//! ```text
//!   │ ports │ TCP: 2 for each connection │ UDP flows, each direction │ pings │ names │ ready sockets, pipes │
//!   │ kept  │                            │ kept                      │ kept  │ kept  │ kept                 │
//! ```
//!
//! Each kind has a part that is *kept* for it, which no other kind can take. Beyond that, ports, connections and flows use
//! what is free, up to a cap. A connection lasts, a flow can be made again: so flows leave [`Shares::headroom`] free for
//! new connections, and when connections have used that, flows end, the least useful first. However many flows, pings and
//! names there are, TCP gets [`Shares::tcp`].

mod table;

pub use table::table;

/// The smallest limit with which anything starts: below, even a start without a network fails half-way.
pub const MINIMUM: u64 = 48;
/// Limits up to this are worth a warning: a busy host reaches what they allow.
pub const FEW: u64 = 4096;

/// What the parent has open while it serves: standard streams, locks, signals, event loops, the network helper.
pub const PARENT: usize = 18;
/// What it has open of the gateway network besides.
pub const NETWORK: usize = 12;
/// What it has open to forward published ports itself.
pub const ENGINE: usize = 3;
/// What starting a network helper, or running a program for a port, takes for a moment.
const RESTART: usize = 10;
/// What a gateway process has open besides the data: standard streams, its control channel, the devices and listeners of
/// its network, the connection tracking, its event loop, and a few that are open for a moment.
const GATEWAY: usize = 19;
/// What each further thread of the data path has open.
const THREAD: usize = 2;

/// Where the bytes of published ports go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// The gateway process, with the connections out of the network.
    Gateway,
    /// The parent itself, and published ports only (port driver `builtin`).
    Parent,
    /// A program that is not ours, which has a limit of its own.
    Elsewhere,
}

/// What rootlesskit does with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The limit.
    pub limit: u64,
    /// Where the data goes.
    pub path: DataPath,
    /// Connections to the API at a time.
    pub api: usize,
    /// Ports that can be published at a time.
    pub ports: usize,
    /// The data path's.
    pub shares: Shares,
}

/// What the data path does with its descriptors. Numbers are descriptors, unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The limit of the process, for messages.
    pub limit: u64,
    /// All that the data path may have open.
    pub data: usize,
    /// Whether connections, flows, pings and names go out, besides those to published ports.
    pub outward: bool,
    /// Threads that move bytes, at most.
    pub threads: usize,
    /// Listeners of published ports.
    pub ports: usize,
    /// What everything else leaves free for listeners to come.
    pub ports_kept: usize,
    /// TCP connections of both directions, two descriptors each, with no more than `ports_kept` ports.
    pub tcp: usize,
    /// The same of one direction, so that neither shuts out the other.
    pub one_way: usize,
    /// What UDP flows leave free for TCP connections to come.
    pub headroom: usize,
    /// UDP flows in each direction, at most.
    pub flows: usize,
    /// What is kept for UDP flows in each direction that there is.
    pub flows_kept: usize,
    /// Pings, kept for them.
    pub pings: usize,
    /// Name queries, kept for them.
    pub names: usize,
    /// Sockets of the namespace that are made ahead of use.
    pub ready: usize,
    /// Pipes, two descriptors each.
    pub pipes: usize,
}

impl Budget {
    /// The budget of a parent with this limit.
    pub fn new(limit: u64, path: DataPath) -> Self {
        Self::beside(limit, path, 0)
    }

    /// The budget of a parent with this limit that has `others` open besides what `path` implies.
    pub fn beside(limit: u64, path: DataPath, others: usize) -> Self {
        let files = count(limit);
        let api = (files / 16).clamp(4, 4096);
        let own = match path {
            DataPath::Gateway => NETWORK,
            DataPath::Parent => ENGINE,
            DataPath::Elsewhere => 0,
        };
        let own = PARENT + own + others + RESTART + api;
        let shares = match path {
            DataPath::Gateway | DataPath::Elsewhere => Shares::gateway(limit),
            DataPath::Parent => Shares::of(limit, files.saturating_sub(own), 0),
        };
        let ports = shares.ports.min(files.saturating_sub(own));
        Self { limit, path, api, ports, shares }
    }

    /// Whether there is room for a port and a connection to it, as far as those are ours.
    pub fn works(&self) -> bool {
        self.path == DataPath::Elsewhere || self.ports > 0 && self.connections() > 0
    }

    /// TCP connections out of the network, or to published ports, at a time.
    pub fn connections(&self) -> usize {
        self.shares.one_way / 2
    }

    /// What the limit has room for, in words.
    pub fn words(&self) -> String {
        let (ports, connections) = (self.ports, self.connections());
        let Shares { flows_kept, flows, .. } = self.shares;
        match self.path {
            DataPath::Parent => format!(
                "room for {ports} published ports, with {connections} TCP connections and {flows_kept} to {flows} UDP flows to them",
            ),
            DataPath::Gateway | DataPath::Elsewhere => format!(
                "room for {ports} published ports, {connections} outbound TCP connections from containers, the same number to published ports, and {flows_kept} to {flows} UDP flows in each direction",
            ),
        }
    }

    /// The same of connections out of the network only.
    pub fn words_out(&self) -> String {
        let Shares { flows_kept, flows, .. } = self.shares;
        let connections = self.connections();
        format!(
            "room for {connections} outbound TCP connections and {flows_kept} to {flows} outbound UDP flows from containers"
        )
    }
}

impl Shares {
    /// Of a gateway process with this limit.
    pub fn gateway(limit: u64) -> Self {
        Self::of(limit, count(limit).saturating_sub(GATEWAY), 1)
    }

    /// Of so many descriptors; `out` is 1 if there are connections out as well, otherwise 0.
    fn of(limit: u64, files: usize, out: usize) -> Self {
        // On a small budget one thread is fast enough, and further ones would cost more than they bring.
        let threads = if files < 256 { 1 } else { 4 };
        let data = files.saturating_sub((threads - 1) * THREAD);
        let part = |of: usize, least: usize, most: usize| (data / of).clamp(least, most);
        let ports_kept = part(16, 2, 64);
        let flows_kept = part(16, 1, 512);
        let pings = out * part(32, 1, 256);
        let names = out * part(12, 2, 1024);
        let ready = part(16, 1, 1024);
        let pipes = part(64, 0, 64);
        let others = ports_kept + (1 + out) * flows_kept + pings + names + ready + 2 * pipes;
        let tcp = data.saturating_sub(others);
        let one_way = tcp - out * (tcp / 8).max(2).min(tcp);
        let (ports, flows, headroom) = (data / 8 * 5, data / 2, part(8, 4, 256));
        Self {
            limit,
            data,
            outward: out > 0,
            threads,
            ports,
            ports_kept,
            tcp,
            one_way,
            headroom,
            flows,
            flows_kept,
            pings,
            names,
            ready,
            pipes,
        }
    }
}

/// A limit as a number of descriptors: "unlimited" is more than there can be.
fn count(limit: u64) -> usize {
    // `fs.nr_open` cannot be larger than this (proc_sys_fs(5)).
    usize::try_from(limit).unwrap_or(usize::MAX).min(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_fits_and_everybody_gets_something() {
        for limit in (MINIMUM..5000).chain([20_000, 65_536, 524_288, 1 << 20, u64::MAX]) {
            let budget = Budget::new(limit, DataPath::Gateway);
            let shares = budget.shares;
            let kept = shares.tcp
                + shares.ports_kept
                + 2 * shares.flows_kept
                + shares.pings
                + shares.names
                + shares.ready
                + 2 * shares.pipes;
            assert!(kept <= shares.data, "{budget:?}");
            assert!(budget.ports >= 2 && budget.connections() >= 4, "{budget:?}");
            assert!(shares.flows >= shares.flows_kept && shares.one_way < shares.tcp, "{budget:?}");
            assert!(shares.ports >= shares.ports_kept, "{budget:?}");
            let builtin = Budget::new(limit, DataPath::Parent);
            assert!(builtin.works() && builtin.ports > 1, "{builtin:?}");
            let shares = builtin.shares;
            assert_eq!((shares.pings, shares.names, shares.tcp), (0, 0, shares.one_way));
        }
    }

    #[test]
    fn a_larger_limit_hardly_ever_allows_less() {
        let mut last = [0; 6];
        for limit in MINIMUM..30_000 {
            let Budget { ports, api, shares, .. } = Budget::new(limit, DataPath::Gateway);
            let now = [ports, api, shares.one_way, shares.flows, shares.pings, shares.names];
            // Where more threads begin, they cost six, and the shares of others grow by steps.
            let fine = now.iter().zip(last).all(|(now, last)| *now + 10 >= last);
            assert!(fine, "{limit}: {now:?} after {last:?}");
            last = now;
        }
    }

    #[test]
    fn half_of_the_limit_is_for_connections() {
        // Two descriptors each, and the other direction has its part.
        for (limit, least) in [(256, 64), (1024, 256), (4096, 1024), (20_000, 5000)] {
            let budget = Budget::new(limit, DataPath::Gateway);
            assert!(budget.connections() >= least, "{budget:?}");
        }
    }
}
