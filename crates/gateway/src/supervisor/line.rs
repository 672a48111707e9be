//! The conversation with one gateway process: a thread that waits for its answers, so that nobody else has to.
//!
//! Requests go out in order, [`AHEAD`] of them before their replies. The thread also checks the gateway's health: every
//! [`PERIOD`] it sends [`Request::Ping`], which passes through every thread of the gateway. A gateway that answers
//! nothing for [`SILENCE`] although it was asked hangs; it is killed, and whoever watches the process starts another
//! one.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use sys::pidfd::PidFd;
use tracing::{debug, info};

use super::job::Job;
use super::offer::Offer;
use super::queue::Queue;
use crate::control::{Channel, Reply, Request, poll_timeout};

/// How often the gateway's health is checked, and ports that it refused are offered to it again.
pub const PERIOD: Duration = Duration::from_secs(5);
/// How long a gateway may be silent that was asked something. Long, because a gateway that is killed takes every
/// connection with it, and one on a busy machine is only slow. It is counted in steps of [`SILENCE_STEP_INTERVAL`] in
/// which the supervisor ran:
/// after a pause of both processes (a frozen control group, a suspended machine) the gateway has its time again.
pub const SILENCE: Duration = Duration::from_secs(10);
const SILENCE_STEP_INTERVAL: Duration = Duration::from_secs(1);
/// Requests that are sent ahead of their replies. Small enough for both send buffers, and for the descriptors that a
/// user may have in flight (twice as many; as many as `RLIMIT_NOFILE`, unix(7)).
const AHEAD: usize = 32;
/// How long [`Shared::end`] waits for the thread to notice that the process has ended.
const NOTICE: Duration = Duration::from_secs(1);
/// Stack of the thread, in bytes; its buffers are on the heap.
const STACK: usize = 256 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process has ended, or nobody wants to talk to it any more.
    Over,
    GivenUp(String),
}

pub(super) struct Shared {
    /// Put off are ports that it refused when nobody waited for its answer.
    queue: Queue<Job, Offer, End>,
    /// Somebody has waited for an answer in vain, and nothing has come since.
    late: AtomicBool,
}

impl Shared {
    /// Whoever withdraws a port closes its listener before asking for that here, so a port that is still open now is
    /// offered before it is withdrawn.
    fn offer_again(self: &Arc<Self>) {
        self.queue.post_again(AHEAD, |offer| {
            let name = offer.name()?;
            self.job(offer, move |reply| match reply {
                Some(Reply::Failed(why)) => {
                    debug!("the gateway still does not serve {name}: {why}");
                    true
                }
                Some(_) => {
                    info!("the gateway serves {name} now");
                    false
                }
                // Its successor is told.
                None => false,
            })
        });
    }

    /// The job to serve the port of `offer`; `None` if it is not published any more. `refused` takes the reply and says
    /// whether it is a refusal that nobody else hears of.
    fn job(
        self: &Arc<Self>,
        offer: Offer,
        refused: impl FnOnce(Option<Reply>) -> bool + Send + 'static,
    ) -> Option<Job> {
        let shared = Arc::downgrade(self);
        offer.job(move |offer, reply| {
            if refused(reply)
                && let Some(shared) = shared.upgrade()
            {
                shared.queue.put_off(offer);
            }
        })
    }

    /// Why it is over, for somebody who knows that the process has ended. `None` if the thread has not noticed in time.
    pub(super) fn end(&self) -> Option<End> {
        self.queue.wait_for_end(NOTICE)
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    pub(super) fn set_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }
}

/// A conversation. Dropping it ends it, and so the gateway process.
#[derive(Debug)]
pub(super) struct Line(Arc<Shared>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("end", &self.queue.end()).finish_non_exhaustive()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.queue.stop();
    }
}

impl Line {
    /// Starts the thread. It kills `process` if it does not do as it should.
    pub(super) fn start(channel: Channel, process: Option<PidFd>) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Queue::new()?, late: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("gateway".to_owned()).stack_size(STACK);
        builder.spawn(move || run(&theirs, &channel, process.as_ref()))?;
        Ok(Self(shared))
    }

    /// Whether there is still somebody to talk to, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.0.queue.end().is_none()
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }

    /// Asks the gateway to serve a port; `refused` as for [`Shared::job`].
    pub(super) fn offer(
        &self,
        offer: Offer,
        refused: impl FnOnce(Option<Reply>) -> bool + Send + 'static,
    ) {
        if let Some(job) = self.0.job(offer, refused) {
            self.post(job);
        }
    }

    pub(super) fn post(&self, job: Job) {
        if let Err(job) = self.0.queue.post(job) {
            (job.done)(None);
        }
    }
}

fn run(shared: &Arc<Shared>, channel: &Channel, process: Option<&PidFd>) {
    let mut asked = VecDeque::with_capacity(AHEAD);
    let end = match talk(shared, channel, &mut asked) {
        Ok(()) => End::Over,
        Err(e) => End::GivenUp(format!("{e:#}")),
    };
    if end != End::Over
        && let Some(process) = process
        && let Err(e) = process.kill()
    {
        debug!("failed to kill the gateway process: {e}");
    }
    let unasked = shared.queue.finish(end);
    for job in asked.into_iter().chain(unasked) {
        (job.done)(None);
    }
}

/// Talks until the gateway has ended or the handle is gone. An error says why the gateway is of no use any more.
fn talk(shared: &Arc<Shared>, channel: &Channel, asked: &mut VecDeque<Job>) -> anyhow::Result<()> {
    let mut check = Instant::now() + PERIOD;
    let mut step = check;
    let mut silent = Duration::ZERO;
    loop {
        while asked.len() < AHEAD {
            if shared.queue.is_stopped() {
                return Ok(());
            }
            let now = Instant::now();
            // First, or somebody who always asks for something would put it off for ever.
            let next = if now >= check {
                Some(Job::new(Request::Ping, drop))
            } else {
                shared.queue.next()
            };
            let Some(job) = next else { break };
            if now >= check {
                shared.offer_again();
            }
            if job.request == Request::Ping {
                check = now + PERIOD;
            }
            if asked.is_empty() {
                (step, silent) = (now + SILENCE_STEP_INTERVAL, Duration::ZERO);
            }
            asked.push_back(job);
            send(channel, asked)?;
        }
        let until = match asked.len() {
            0 => check,
            AHEAD.. => step,
            _ => step.min(check),
        };
        if wait(shared, channel, until)? {
            let Some(reply) = channel.answer(Instant::now() + SILENCE)? else { return Ok(()) };
            shared.late.store(false, Ordering::Relaxed);
            (step, silent) = (Instant::now() + SILENCE_STEP_INTERVAL, Duration::ZERO);
            take(asked.pop_front(), reply)?;
        } else if let Some(oldest) = asked.front()
            && Instant::now() >= step
        {
            (step, silent) =
                (Instant::now() + SILENCE_STEP_INTERVAL, silent + SILENCE_STEP_INTERVAL);
            if silent >= SILENCE {
                let name = oldest.request.name();
                bail!("it did not answer {name} within {} s", SILENCE.as_secs());
            }
        }
    }
}

/// Sends the newest request. Its descriptors are closed here when they are on their way.
fn send(channel: &Channel, asked: &mut VecDeque<Job>) -> anyhow::Result<()> {
    let Some(job) = asked.back_mut() else { return Ok(()) };
    let held = std::mem::take(&mut job.fds);
    let fds: Vec<BorrowedFd<'_>> = held.iter().map(|fd| fd.as_fd()).collect();
    match channel.send(&job.request, &fds, Instant::now() + SILENCE) {
        // Its end is seen when we look for answers.
        Err(_) if channel.ended() => Ok(()),
        other => other,
    }
}

fn take(job: Option<Job>, reply: Reply) -> anyhow::Result<()> {
    let Some(Job { request, done, .. }) = job else {
        bail!("it sent an unexpected {}", reply.name());
    };
    let fits = match &reply {
        Reply::Done => !matches!(request, Request::Stats | Request::Flows { .. }),
        Reply::Stats(_) => request == Request::Stats,
        Reply::Flows { .. } => matches!(request, Request::Flows { .. }),
        Reply::Failed(_) => true,
    };
    let complaint = match (&request, &reply) {
        (Request::Configure { .. }, Reply::Failed(why)) => format!("it could not start: {why}"),
        (Request::Ping, Reply::Failed(why)) => why.clone(),
        _ if !fits => format!("it sent {} out of turn, to {}", reply.name(), request.name()),
        _ => {
            done(Some(reply));
            return Ok(());
        }
    };
    done(None);
    bail!(complaint)
}

/// Waits until the gateway says something (true), there is something to send, or `until` (false).
fn wait(shared: &Shared, channel: &Channel, until: Instant) -> io::Result<bool> {
    let timeout = poll_timeout(until.saturating_duration_since(Instant::now()));
    let mut fds = [
        PollFd::new(channel.as_fd(), PollFlags::POLLIN),
        PollFd::new(shared.queue.wake.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    shared.queue.wake.reset();
    Ok(fds[0].any().unwrap_or(false))
}
