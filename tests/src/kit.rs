//! A running rootlesskit with the gateway network, and a look at its gateway process.

use std::fs;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::Value;

use crate::procs::Proc;
use crate::{As, Cmd, Output, PATIENCE, Running, Suite, TestBox, wait};

/// What the launcher would use.
pub const FLAGS: &str = "--net=gateway --port-driver=gateway --ipv6 --disable-host-loopback --copy-up=/etc --copy-up=/run";

/// Enters the namespaces of the target, as its root; in detached mode its network is in a file.
const ENTER: &str = "nsenter -U -m --preserve-credentials -t $(cat /tmp/s/child_pid) \
     $([ -e /tmp/s/netns ] && echo nsenter -n/tmp/s/netns || printf %s -n)";

/// Open files that scenarios with thousands of connections ask for; the machine may allow fewer.
const MANY: u64 = 24_000;

/// What root runs to become the user with as many open files as it may give.
const RAISE: &str = "prlimit --pid $$ --nofile=24000:24000 2>/dev/null || ulimit -n $(ulimit -Hn)
     exec setpriv --reuid=1001 --regid=1001 --init-groups env HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/1001";

/// What `rootlessctl flows --follow --json` has shown so far.
///
/// # Errors
/// A line is no JSON.
pub fn events(follower: &Running<'_>) -> Result<Vec<Value>> {
    let printed = follower.printed()?;
    let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

/// A box of the suite that most scenarios of the gateway use.
///
/// # Errors
/// See [`TestBox::boot`].
pub fn boot() -> Result<TestBox> {
    TestBox::boot(Suite::Trixie)
}

/// A rootlesskit whose target does nothing.
#[derive(Debug)]
pub struct Net<'b> {
    /// Its host.
    pub b: &'b TestBox,
    /// The process.
    pub kit: Running<'b>,
    _alone: Alone,
}

impl<'b> Net<'b> {
    /// With the usual flags.
    ///
    /// # Errors
    /// It ends, or its target does not run.
    pub fn start(b: &'b TestBox) -> Result<Self> {
        Self::with(b, FLAGS)
    }

    /// With these flags.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn with(b: &'b TestBox, flags: &str) -> Result<Self> {
        Self::of(b, b.user(&line(flags)), Alone::no())
    }

    /// With a higher limit of open files.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn with_many_files(b: &'b TestBox, flags: &str) -> Result<Self> {
        let command = format!("{RAISE} {}", line(flags).trim_start_matches("exec"));
        Self::of(b, b.root(&command), Alone::no())
    }

    /// With a lower one, soft and hard.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn with_limit(b: &'b TestBox, nofile: u64, flags: &str) -> Result<Self> {
        // Ours try again.
        let alone = if flags.contains("slirp4netns") { Alone::yes() } else { Alone::no() };
        Self::of(b, b.user(&format!("ulimit -n {nofile}; {}", line(flags))), alone)
    }

    fn of(b: &'b TestBox, command: Cmd<'b>, alone: Alone) -> Result<Self> {
        let mut kit = command.spawn()?;
        wait::until_true("the target runs", PATIENCE, || {
            ensure!(kit.alive()?, "rootlesskit ended: {}", kit.printed()?);
            Ok(kit.printed()?.contains("up\n"))
        })?;
        Ok(Self { b, kit, _alone: alone })
    }

    /// A shell line in the network of the target; its first command replaces the shell if it begins with `exec`.
    #[must_use]
    pub fn inside(&self, script: &str) -> Cmd<'b> {
        self.b.user(&format!("exec {ENTER} sh -c \"$SCRIPT\"")).env("SCRIPT", script)
    }

    /// The same with a higher limit of open files.
    #[must_use]
    pub fn inside_with_many_files(&self, script: &str) -> Cmd<'b> {
        self.b.root(&format!("{RAISE} {ENTER} sh -c \"$SCRIPT\"")).env("SCRIPT", script)
    }

    /// `rootlessctl ARGS` for it.
    #[must_use]
    pub fn ctl(&self, args: &str) -> Cmd<'b> {
        self.b.user(&format!("rootlessctl --socket /tmp/s/api.sock {args}"))
    }

    /// Its statistics.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stats(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ctl("stats --json").ok()?)?)
    }

    /// The gateway process.
    ///
    /// # Errors
    /// There is none.
    pub fn gateway(&self) -> Result<Gateway> {
        let process = gateways(self.b).pop();
        Ok(Gateway(process.context("there is no gateway process")?))
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end, or leaves something behind.
    pub fn stop(self) -> Result<()> {
        let b = self.b;
        self.kit.signal("TERM")?;
        self.kit.wait(PATIENCE)?;
        b.assert_clean(&[])
    }
}

/// Descriptors on their way in messages are counted for a user, not for a process, and the users of all boxes are one to
/// the kernel. With a low limit a helper such as slirp4netns could send none while another test has many on their way
/// (unix(7), `ETOOMANYREFS`).
#[derive(Debug)]
enum Alone {
    Yes { _guard: RwLockWriteGuard<'static, ()> },
    No { _guard: RwLockReadGuard<'static, ()> },
}

impl Alone {
    fn yes() -> Self {
        Self::Yes { _guard: ALONE.write().unwrap_or_else(PoisonError::into_inner) }
    }

    fn no() -> Self {
        Self::No { _guard: ALONE.read().unwrap_or_else(PoisonError::into_inner) }
    }
}

static ALONE: RwLock<()> = RwLock::new(());

/// The kernel queues packets that arrive at any network namespace in one queue per processor
/// (`net.core.netdev_max_backlog`), and drops what does not fit: a flood in one box costs datagrams in another.
static FLOOD: RwLock<()> = RwLock::new(());

/// Held by a scenario that floods its network. Take it before a [`Net`] starts.
pub fn flooding() -> RwLockReadGuard<'static, ()> {
    FLOOD.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a scenario that counts each datagram. Take it before a [`Net`] starts.
pub fn without_floods() -> RwLockWriteGuard<'static, ()> {
    FLOOD.write().unwrap_or_else(PoisonError::into_inner)
}

fn line(flags: &str) -> String {
    format!("exec rootlesskit --state-dir=/tmp/s {flags} sh -c 'echo up; exec sleep infinity'")
}

/// All gateway processes that have not ended.
#[must_use]
pub fn gateways(b: &TestBox) -> Vec<Proc> {
    let all = b.processes().into_iter();
    all.filter(|p| p.program() == "rootlesskit-gateway" && p.state != 'Z').collect()
}

/// A gateway process at one moment.
#[derive(Debug)]
pub struct Gateway(pub Proc);

impl Gateway {
    /// Open descriptors.
    ///
    /// # Errors
    /// It has ended.
    pub fn descriptors(&self) -> Result<u64> {
        self.0.descriptors()
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        self.0.memory()
    }

    /// A line of its `/proc/PID/status`.
    ///
    /// # Errors
    /// It has ended.
    pub fn status(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.0.dir().join("status"))?;
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no {name} in {text}"))?.trim().to_owned())
    }

    /// Waits until it has as many descriptors as before, or a few more: sockets in stock, flows that linger.
    ///
    /// # Errors
    /// It keeps more.
    pub fn descriptors_return_to(&self, before: u64) -> Result<()> {
        let back = wait::until_true("descriptors are closed", PATIENCE, || {
            Ok(self.descriptors()? <= before + 72)
        });
        back.with_context(|| format!("{before} before, now {:?}", self.descriptors().ok()))
    }
}

/// How many files a process started with [`Net::with_many_files`] may open.
///
/// # Errors
/// The limit cannot be read.
pub fn many_files(b: &TestBox) -> Result<u64> {
    let limit = b.root(&format!("{RAISE} sh -c 'ulimit -n'")).ok()?;
    Ok(limit.trim().parse::<u64>()?.min(MANY))
}

/// Starts a server of the fixture program and waits until it listens.
///
/// # Errors
/// It ends.
pub fn serve<'b>(b: &'b TestBox, who: As, command: &str) -> Result<Running<'b>> {
    ready(b.argv(who, &["sh", "-c", &format!("ulimit -n $(ulimit -Hn); exec fixture {command}")]))
}

/// Starts a command that prints `ready`.
///
/// # Errors
/// It ends before.
pub fn ready(command: Cmd<'_>) -> Result<Running<'_>> {
    let mut server = command.spawn()?;
    wait::until_true("a server listens", PATIENCE, || {
        ensure!(server.alive()?, "it ended: {}", server.printed()?);
        Ok(server.printed()?.contains("ready"))
    })?;
    Ok(server)
}

/// Runs commands at the same time; their output in the same order.
///
/// # Errors
/// One of them cannot be run.
pub fn together<const N: usize>(commands: [Cmd<'_>; N]) -> Result<[Output; N]> {
    std::thread::scope(|scope| {
        let threads = commands.map(|command| scope.spawn(|| command.run()));
        let mut all = Vec::new();
        for thread in threads {
            all.push(thread.join().map_err(|_| Error::msg("a thread panicked"))??);
        }
        all.try_into().map_err(|_| Error::msg("as many as before"))
    })
}

/// A number out of the statistics, by the names on the way; one that is left out is zero.
#[must_use]
pub fn number(stats: &Value, path: &[&str]) -> u64 {
    path.iter().fold(stats, |value, name| &value[*name]).as_u64().unwrap_or(0)
}

/// A counter of a namespace out of its `/proc/net/snmp`, such as `Tcp` and `InSegs`.
#[must_use]
pub fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(found, _)| *found == name)?.1.parse().ok()
}

/// Packets whose checksum was found wrong, by the same file.
#[must_use]
pub fn wrong_checksums(text: &str) -> u64 {
    let wrong = |protocol| counter(text, protocol, "InCsumErrors").unwrap_or(u64::MAX / 4);
    wrong("Tcp") + wrong("Udp")
}
