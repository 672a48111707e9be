//! The server of the API.
//!
//! Theory of operation. [`serve`] is one future for a `current_thread` runtime: it owns a `LocalSet`, so a [`Backend`] needs
//! neither `Send` nor locks, and whoever drops the future drops every connection with it. Each connection is a task that
//! speaks HTTP/1.1 with keep-alive. A request that changes something runs in a task of its own, because hyper drops the
//! handler of a peer that hangs up, and a port must not stay half published.
//!
//! Whoever may connect to the socket owns the daemon, so the limits in [`Limits`] guard against broken peers, not against
//! hostile ones: a peer that is slow to ask or idle is dropped. Beyond `connections` one that has never sent a
//! request makes room for the next, or else the one that was idle longest; while there is neither, newcomers wait.
//! One that does not read its answer keeps its place until it goes away.
//!
//! The answers are those of Go's RootlessKit 3.2 with two corrections: errors are `application/json`, which they are
//! (upstream labels them `text/plain`; no client looks), and a method that a path does not have is 405 everywhere (upstream:
//! 404 below `/v1/ports`). An empty list of ports is `null`, as upstream sends it.
//! `GET /v1/stats`, `GET /v1/flows` and `GET /v1/policy` are our extensions.

mod answer;
mod crowd;
mod lines;
mod route;
mod stats;
mod stream;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::LocalSet;

use crate::policy::PolicyStatus;
use crate::stats::Stats;
use crate::types::{Info, PortId, PortSpec, PortStatus};
use crowd::{Crowd, Member};
pub use lines::{LineWriter, Lines, MAX_LINES, line};
use stream::Stream;

/// What the API is about. One runtime thread calls it; calls may overlap at their await points.
pub trait Backend: 'static {
    /// Answers `GET /v1/info`.
    ///
    /// # Errors
    /// Reported with status 500.
    fn info(&self) -> Result<Info, BackendError>;

    /// Answers `GET /v1/ports`.
    ///
    /// # Errors
    /// [`BackendError::NoPortDriver`] has status 400, others 500.
    fn ports(&self) -> Result<Vec<PortStatus>, BackendError>;

    /// Publishes a port, answering `POST /v1/ports`. `spec` is as received: the backend validates it, and echoes it in the
    /// status. Runs to its end even if the peer hangs up.
    ///
    /// # Errors
    /// Reported with status 400; dockerd shows the text to the user.
    fn add(&self, spec: PortSpec) -> impl Future<Output = Result<PortStatus, BackendError>>;

    /// Withdraws a port, answering `DELETE /v1/ports/{id}`. Runs to its end even if the peer hangs up.
    ///
    /// # Errors
    /// Reported with status 400.
    fn remove(&self, id: PortId) -> impl Future<Output = Result<(), BackendError>>;

    /// Answers `GET /v1/stats`. A backend whose network driver counts nothing need not have this.
    ///
    /// # Errors
    /// [`BackendError::NoStatistics`] has status 404, others 500.
    fn stats(&self) -> impl Future<Output = Result<Stats, BackendError>> {
        let driver = self.info().map(|info| info.network_driver.map(|network| network.driver));
        std::future::ready(
            driver.and_then(|name| Err(BackendError::NoStatistics(name.unwrap_or_default()))),
        )
    }

    /// Answers `GET /v1/flows`: the lines go on until the client hangs up, or whoever makes them ends. A backend whose network
    /// driver has no flow log need not have this.
    ///
    /// # Errors
    /// [`BackendError::NoFlowLog`] has status 404, [`BackendError::ManyFollowers`] 503, others 500.
    fn flows(&self) -> impl Future<Output = Result<Lines, BackendError>> {
        let driver = self.info().map(|info| info.network_driver.map(|network| network.driver));
        std::future::ready(
            driver.and_then(|name| Err(BackendError::NoFlowLog(name.unwrap_or_default()))),
        )
    }

    /// Answers `GET /v1/policy`. A backend without an egress policy need not have this.
    ///
    /// # Errors
    /// [`BackendError::NoPolicy`] has status 404, others 500.
    fn policy(&self) -> impl Future<Output = Result<PolicyStatus, BackendError>> {
        std::future::ready(Err(BackendError::NoPolicy))
    }
}

/// Why a [`Backend`] could not answer; the text goes to the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The port driver is `none` or `implicit`.
    #[error("no PortDriver is available")]
    NoPortDriver,
    /// The network driver of this name counts nothing.
    #[error(
        "network driver {0:?} has no statistics\nhint: use --net=gateway, which counts connections and bytes"
    )]
    NoStatistics(String),
    /// The network driver of this name keeps no flow log.
    #[error(
        "network driver {0:?} has no flow log\nhint: use --net=gateway, which records each connection that ends"
    )]
    NoFlowLog(String),
    /// As many follow the flow log as may.
    #[error(
        "too many clients follow the flow log\nhint: end one of them, such as another rootlessctl flows --follow"
    )]
    ManyFollowers,
    /// Nothing restricts what containers reach.
    #[error(
        "no egress policy is in force\nhint: start rootlesskit with --egress-policy=FILE; dockerd-rootless \
         does so if there is a file egress.toml when it starts"
    )]
    NoPolicy,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<crate::spec::SpecError> for BackendError {
    fn from(error: crate::spec::SpecError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Bounds for what a peer can make the server hold or wait for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at once; one more may be open. The docker-proxy of Go's RootlessKit keeps one per published port.
    pub connections: usize,
    /// Longest wait for the head of a request; also how long a connection may be idle. Long, because a
    /// client whose kept connection is closed under it fails its next `POST`, and dockerd shows that to
    /// its user.
    pub head: Duration,
    /// Longest wait for the body of a request.
    pub body: Duration,
    /// Largest head of a request, in bytes (hyper's minimum is 8192).
    pub head_bytes: usize,
    /// Largest body of a request, in bytes.
    pub body_bytes: usize,
    /// How long requests in progress may take once the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(3600),
            body: Duration::from_secs(10),
            head_bytes: 64 << 10,
            body_bytes: 1 << 20,
            drain: Duration::from_millis(500),
        }
    }
}

/// Serves the API with the default [`Limits`] until `shutdown` completes, then lets requests in progress finish.
///
/// The runtime needs its I/O and time drivers. Errors of single connections are logged at debug level.
pub async fn serve<B: Backend>(
    listener: UnixListener,
    backend: Rc<B>,
    shutdown: impl Future<Output = ()>,
) {
    serve_with(listener, backend, shutdown, Limits::default()).await;
}

/// [`serve`] with other limits.
pub async fn serve_with<B: Backend>(
    listener: UnixListener,
    backend: Rc<B>,
    shutdown: impl Future<Output = ()>,
    limits: Limits,
) {
    let tasks = LocalSet::new();
    let (stop, stopped) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let crowd = Rc::<Crowd>::default();
    let drain = limits.drain;
    let limits = Rc::new(limits);
    let accepting = async {
        let mut shutdown = pin!(shutdown);
        let mut failing = false;
        loop {
            let stream = tokio::select! {
                () = &mut shutdown => break,
                stream = accept(&listener, &permits, &crowd, &mut failing) => stream,
            };
            let Some((stream, permit)) = stream else { continue };
            let (backend, limits, stopped) = (backend.clone(), limits.clone(), stopped.clone());
            let member = crowd.join();
            tokio::task::spawn_local(async move {
                connection(stream, backend, limits, stopped, member).await;
                drop(permit);
            });
        }
    };
    tasks.run_until(accepting).await;
    drop(listener);
    stop.send_replace(true);
    if tokio::time::timeout(drain, tasks).await.is_err() {
        tracing::debug!("requests to the API were still in progress after {drain:?}");
    }
}

/// The next connection, as soon as there is room for it. `None` after an error such as EMFILE, which is worth another try a little
/// later; `failing` remembers that it has been reported.
async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
    crowd: &Crowd,
    failing: &mut bool,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    match listener.accept().await {
        Ok((stream, _)) => {
            *failing = false;
            if let Ok(permit) = permits.clone().try_acquire_owned() {
                return Some((stream, permit));
            }
            crowd.want();
            let mut place = pin!(permits.clone().acquire_owned());
            let permit = loop {
                tokio::select! {
                    permit = &mut place => break permit.ok()?,
                    () = tokio::time::sleep(crowd::FIRST) => crowd.still_want(),
                }
            };
            crowd.satisfied();
            Some((stream, permit))
        }
        Err(error) => {
            if !std::mem::replace(failing, true) {
                tracing::warn!("temporarily cannot accept connections to the API: {error}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection<B: Backend>(
    stream: UnixStream,
    backend: Rc<B>,
    limits: Rc<Limits>,
    mut stopped: watch::Receiver<bool>,
    member: Rc<Member>,
) {
    let stream = Stream::new(stream);
    let follows = Notify::new();
    let service = service_fn(|request| {
        let (backend, limits, member) = (backend.clone(), limits.clone(), member.clone());
        let follows = &follows;
        async move {
            member.works();
            let answer = route::answer(request, backend, limits).await;
            // One whose answer goes on is not idle.
            if answer.as_ref().is_ok_and(answer::goes_on) {
                follows.notify_one();
            } else {
                member.rests();
            }
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream.clone()), service));
    let gone = async {
        follows.notified().await;
        stream.hung_up().await;
    };
    let outcome = tokio::select! {
        // The connection first: a request that has arrived is not thrown away.
        biased;
        outcome = &mut connection => outcome,
        _ = stopped.wait_for(|stopped| *stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = gone => return,
        () = member.asked_to_leave() => {
            if member.is_mute() {
                // Perhaps in the middle of the head of its first request, which hyper would wait for.
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!("connection to the API: {error}");
    }
}

#[cfg(test)]
mod tests;
