//! Serving: from the start of the target to the end of the child.
//!
//! One current-thread runtime. Three things happen side by side: the API answers, signals go to the child,
//! and the network helper is watched. `waitpid(-1)` on SIGCHLD is the only place that collects processes, so
//! orphans are reaped too when we are pid 1, and no status is collected by the wrong one. Nothing here waits for a
//! helper: one that hangs must not keep signals, the API or the end of the child waiting.

mod output;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use sys::pidfd::PidFd;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};

use super::Running;
use super::watch::{READY_TIMEOUT, kill_and_reap};
use crate::api_backend::Backend;
use crate::drivers::{Connection, Helper, Said, Starting};
use crate::exit::Words;
use crate::signals::{forwardable, from_terminal, suspend, suspends};
use output::Output;

/// Waits before a helper is started again: the first death may be an accident, the sixth in a row is not.
const BACKOFF: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_secs(5),
];
/// A helper that served this long starts with a clean record.
const STABLE_INTERVAL: Duration = Duration::from_secs(5);

/// Serves until the child ends and says how it ended; the API has so many connections at a time.
pub(super) fn serve(
    running: Running<'_>,
    connections: usize,
    signals: &SignalFd,
) -> anyhow::Result<ExitStatus> {
    let Running { child, helper, mut connection, api, backend } = running;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            kill_and_reap(&child);
            return Err(e).context("failed to start the event loop");
        }
    };
    let served: anyhow::Result<ExitStatus> = runtime.block_on(async {
        api.set_nonblocking(true)?;
        let api = UnixListener::from_std(api)?;
        let limits = api::server::Limits { connections, ..Default::default() };
        let (stop, mut stopped) = watch::channel(false);
        let shutdown = async move {
            // An error means that the sender is gone, which is as good.
            let _ = stopped.wait_for(|s| *s).await;
        };
        let watching = async {
            let background = connection.background();
            let helper = Supervised::new(helper, connection, &backend);
            let result = watch_all(&child, helper, background, signals).await;
            backend.end_follows();
            stop.send_replace(true);
            result
        };
        let ((), result) =
            tokio::join!(api::server::serve_with(api, backend.clone(), shutdown, limits), watching);
        result
    });
    backend.stop();
    if served.is_err() {
        kill_and_reap(&child);
    }
    served
}

async fn watch_all(
    child: &PidFd,
    mut helper: Supervised<'_>,
    mut background: Pin<Box<dyn Future<Output = ()>>>,
    signals: &SignalFd,
) -> anyhow::Result<ExitStatus> {
    // A second descriptor of the same signalfd: the runtime wants to own what it polls.
    let readable = sys::readable::register(signals.as_fd().try_clone_to_owned()?)
        .context("failed to watch signals")?;
    let mut ended = HashMap::new();
    // Whoever ended during start-up sent a signal that was read there.
    reap(&mut ended)?;
    helper.ended(&mut ended);
    loop {
        if let Some(how) = ended.remove(&child.pid()) {
            helper.stop();
            return Ok(how);
        }
        // Orphans that we inherit as pid 1.
        ended.clear();
        tokio::select! {
            ready = readable.readable() => {
                let mut guard = ready?;
                while let Some(info) = signals.read_signal()? {
                    if info.ssi_signo == Signal::SIGCHLD as u32 {
                        reap(&mut ended)?;
                    } else if suspends(&info) {
                        suspend();
                    } else if let Some(signal) = forwardable(&info)
                        && !from_terminal(&info)
                        && let Err(e) = child.send(signal)
                    {
                        tracing::debug!("failed to forward signal {signal}: {e}");
                    }
                }
                guard.clear_ready();
                helper.ended(&mut ended);
            }
            () = &mut background => {}
            () = helper.step() => {}
        }
    }
}

/// Collects everybody who has ended. What other threads have started (the port driver runs pesto) is theirs to collect;
/// orphans are given to the main thread, which we are.
fn reap(ended: &mut HashMap<Pid, ExitStatus>) -> anyhow::Result<()> {
    while let Some((pid, how)) =
        sys::wait::any_of_this_thread().context("failed to wait for child processes")?
    {
        ended.insert(pid, how);
    }
    Ok(())
}

/// The network helper, started again whenever it dies.
struct Supervised<'a> {
    connection: Connection<'a>,
    backend: &'a Backend,
    name: &'static str,
    state: State,
    /// Deaths in a row.
    deaths: usize,
    serving_since: Option<Instant>,
    last_words: String,
}

enum State {
    /// The driver has none.
    None,
    /// It serves; what it prints is logged.
    Serving(PidFd, Output),
    /// Started, not ready yet.
    Starting {
        starting: Starting,
        /// Readable when the helper says that it serves, or has closed its end.
        ready: AsyncFd<OwnedFd>,
        deadline: Instant,
    },
    /// Killed by us, for this reason; its death comes as a signal.
    Killed(PidFd, String),
    /// Dead; whether we have killed it, and why, takes a moment to find out.
    Dead { how: ExitStatus, why: oneshot::Receiver<Option<String>> },
    /// Dead; to be started at this time.
    Waiting(Instant),
}

impl<'a> Supervised<'a> {
    fn new(helper: Option<Helper>, connection: Connection<'a>, backend: &'a Backend) -> Self {
        let mut this = Self {
            connection,
            backend,
            name: helper.as_ref().map(|helper| helper.name).unwrap_or_default(),
            state: State::None,
            deaths: 0,
            serving_since: Some(Instant::now()),
            last_words: String::new(),
        };
        if let Some(helper) = helper {
            this.serving(helper);
        }
        this
    }

    fn serving(&mut self, helper: Helper) {
        match Output::new(helper.output) {
            Ok(output) => self.state = State::Serving(helper.process, output),
            Err(e) => {
                tracing::error!("failed to watch the output of {}: {e}", helper.name);
                self.kill(helper.process, "was killed".to_owned());
            }
        }
    }

    fn kill(&mut self, process: PidFd, why: String) {
        if let Err(e) = process.kill() {
            tracing::debug!("failed to kill {}: {e}", self.name);
        }
        self.state = State::Killed(process, why);
    }

    /// Whatever the state lets happen next. Cancelling it loses nothing.
    async fn step(&mut self) {
        let is_ready = match &mut self.state {
            State::None | State::Killed(..) => std::future::pending().await,
            State::Serving(_, output) => {
                let Some(words) = output.lines().await else {
                    // It closed its output; its death, if that is what it was, comes as a signal.
                    return std::future::pending().await;
                };
                self.said(words);
                false
            }
            State::Starting { starting, ready, deadline } => tokio::select! {
                () = serves(starting, ready) => true,
                () = tokio::time::sleep_until((*deadline).into()) => {
                    tracing::warn!("{} did not become ready in time; killing it", starting.name());
                    if let Err(e) = starting.process().kill() {
                        tracing::debug!("{e}");
                    }
                    *deadline += READY_TIMEOUT;
                    false
                }
            },
            State::Dead { how, why } => {
                let died = match why.await {
                    Ok(Some(why)) => format!("was killed: {why}"),
                    Ok(None) | Err(_) => format!("died: {}", Words(*how)),
                };
                self.died(&died);
                false
            }
            State::Waiting(when) => {
                tokio::time::sleep_until((*when).into()).await;
                self.start();
                false
            }
        };
        if is_ready {
            self.ready();
        }
    }

    /// Notes what the helper has printed.
    fn said(&mut self, words: String) {
        if !words.is_empty() {
            tracing::debug!("[{}] {words}", self.name);
            self.last_words = words;
        }
    }

    fn ready(&mut self) {
        let state = std::mem::replace(&mut self.state, State::None);
        let State::Starting { starting, .. } = state else { return };
        tracing::info!("{} is running again", starting.name());
        self.serving_since = Some(Instant::now());
        self.serving(starting.into_helper());
        self.backend.helper_restarted();
    }

    fn start(&mut self) {
        match self.connection.start() {
            Ok(Some(starting)) => {
                let ready = starting.as_fd().try_clone_to_owned();
                match ready.and_then(sys::readable::register) {
                    Ok(ready) => {
                        let deadline = Instant::now() + READY_TIMEOUT;
                        self.state = State::Starting { starting, ready, deadline };
                    }
                    Err(e) => {
                        let process = starting.into_helper().process;
                        self.kill(process, format!("could not be watched: {e}"));
                    }
                }
            }
            Ok(None) => self.state = State::None,
            Err(e) => self.died(&format!("could not be restarted: {e:#}")),
        }
    }

    /// Looks for our process among those that have ended.
    fn ended(&mut self, ended: &mut HashMap<Pid, ExitStatus>) {
        let pid = match &self.state {
            State::Serving(process, _) | State::Killed(process, _) => process.pid(),
            State::Starting { starting, .. } => starting.process().pid(),
            State::None | State::Dead { .. } | State::Waiting(_) => return,
        };
        let Some(how) = ended.remove(&pid) else { return };
        match std::mem::replace(&mut self.state, State::None) {
            State::Killed(_, why) => return self.died(&why),
            State::Serving(_, output) => self.said(output.rest()),
            State::Starting { starting, .. } => self.said(starting.into_helper().printed()),
            State::None | State::Dead { .. } | State::Waiting(_) => {}
        }
        if how.signal().is_some() {
            // Somebody killed it; what it said before is no explanation.
            self.last_words.clear();
        }
        self.state = State::Dead { how, why: self.connection.why_ended() };
    }

    fn died(&mut self, how: &str) {
        if self.serving_since.take().is_some_and(|since| since.elapsed() > STABLE_INTERVAL) {
            self.deaths = 0;
        }
        let wait = BACKOFF[self.deaths.min(BACKOFF.len() - 1)];
        self.deaths += 1;
        let words = std::mem::take(&mut self.last_words);
        let words = if words.is_empty() { words } else { format!(" ({words})") };
        tracing::warn!("{} {how}{words}; the network is down until it runs again", self.name);
        self.state = State::Waiting(Instant::now() + wait);
    }

    fn stop(&mut self) {
        match std::mem::replace(&mut self.state, State::None) {
            State::Serving(process, _) | State::Killed(process, _) => {
                kill_and_reap(&process);
            }
            State::Starting { starting, .. } => {
                kill_and_reap(starting.process());
            }
            State::None | State::Dead { .. } | State::Waiting(_) => {}
        }
    }
}

/// Waits until a helper says that it serves. If it closes its end without a word, this never ends, and its death comes as a
/// signal: a closed pipe stays readable, and whoever looked at it again and again would see nothing else.
async fn serves(starting: &Starting, ready: &AsyncFd<OwnedFd>) {
    while let Ok(mut guard) = ready.readable().await {
        match starting.said() {
            Said::Ready => return,
            Said::Nothing => guard.clear_ready(),
            Said::Goodbye => break,
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests;
