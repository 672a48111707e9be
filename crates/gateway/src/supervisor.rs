//! The supervisor's handle on a gateway process.
//!
//! It holds whatever a gateway needs and that must outlive one: the descriptors of the gateway namespace, the listeners
//! of published ports, the name servers. It starts no process itself. Whoever does so gives [`Supervisor::renew`]'s
//! descriptor to the process as standard input and calls [`Supervisor::configure`]; when the process has ended, the
//! same again.
//!
//! No call waits for the gateway. A thread for each process (`line`) talks to it, checks its health and, whenever it
//! fails to answer in time, answers nonsense or cannot start, kills it ([`Supervisor::ending`]). An answer that matters
//! can be waited for, a little while ([`Answer::wait`]).

mod answer;
mod job;
mod line;
mod offer;
mod place;
mod queue;
mod sync;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use api::flows::{Flow, FlowEvent, rfc3339};
use egress::Policies;
use ipnet::IpNet;
use sys::pidfd::PidFd;
use tracing::warn;

pub use answer::Answer;
pub use line::{PERIOD, SILENCE};
pub use relay::flow_log::MAX_RECORDS;

use crate::control::{Channel, Reply, Request, check_policy};
use crate::descriptors::{Descriptors, OverlayDescriptors};
use crate::network_config::{NetworkConfig, Resolvers};
use job::Job;
use line::{End, Line, Shared};
use offer::{Offer, Port};

/// Why a gateway process has ended, as far as we know. It is no part of the handle, so that others can use that
/// meanwhile.
#[derive(Debug)]
pub struct Ending(Arc<Shared>);

impl Ending {
    /// Why we have ended the gateway process, for somebody who sees that it has ended. `None` if it was not us. Waits
    /// for a moment, at most a second, for the thread that talks to the process to notice.
    pub fn why(&self) -> Option<String> {
        match self.0.end() {
            Some(End::GivenUp(why)) => Some(why),
            Some(End::Over) | None => None,
        }
    }
}

#[derive(Debug)]
enum State {
    /// There is no process, or none that can be talked to.
    Down,
    /// It has not been told anything yet.
    New(Channel),
    /// It serves, or is about to.
    Up(Line),
}

impl State {
    fn line(&self) -> Option<&Line> {
        match self {
            Self::Up(line) if line.is_open() => Some(line),
            _ => None,
        }
    }
}

/// Everything about a gateway but its process.
#[derive(Debug)]
pub struct Supervisor {
    driver: String,
    plan: NetworkConfig,
    /// Those of [`Request::Configure`].
    descriptors: Vec<Arc<OwnedFd>>,
    resolvers: Resolvers,
    policy: Policies,
    nofile: u64,
    /// How many of the descriptors are for overlay networks.
    overlay: usize,
    ports: BTreeMap<u64, Arc<Port>>,
    state: State,
    /// Processes so far.
    started: u64,
    /// If somebody follows the flow log: of how many processes we have heard there.
    followed: Option<u64>,
}

impl Supervisor {
    /// `factory` is our end of the namespace's socket factory; `nofile` is the soft limit of open files of the gateway
    /// processes. IPv6 is used if both the plan and the descriptors have it.
    pub fn new(
        mut plan: NetworkConfig,
        mut descriptors: Descriptors,
        factory: OwnedFd,
        resolvers: Resolvers,
        nofile: u64,
    ) -> Self {
        if descriptors.v6.is_none() {
            plan.v6 = None;
        } else if plan.v6.is_none() {
            descriptors.v6 = None;
        }
        let overlay = descriptors.overlay.as_ref().map_or(0, OverlayDescriptors::count);
        let descriptors = descriptors.into_fds(factory).into_iter().map(Arc::new).collect();
        Self {
            driver: "gateway".to_owned(),
            plan,
            descriptors,
            resolvers,
            policy: Policies::default(),
            nofile,
            overlay,
            ports: BTreeMap::new(),
            state: State::Down,
            started: 0,
            followed: None,
        }
    }

    /// Gives the statistics the name of another network driver than `gateway`.
    #[must_use]
    pub fn named(mut self, driver: &str) -> Self {
        driver.clone_into(&mut self.driver);
        self
    }

    /// The network that gateways are told.
    pub fn plan(&self) -> &NetworkConfig {
        &self.plan
    }

    /// Whether a gateway has been told what it has to know and nothing has gone wrong since.
    pub fn is_up(&self) -> bool {
        self.state.line().is_some()
    }

    /// The end of a control channel for a new gateway process, its standard input. Forgets the old process.
    ///
    /// # Errors
    /// Those of socketpair(2); the old process is forgotten nevertheless.
    pub fn renew(&mut self) -> io::Result<OwnedFd> {
        self.state = State::Down;
        let (ours, theirs) = Channel::pair()?;
        self.state = State::New(ours);
        self.started += 1;
        Ok(theirs)
    }

    /// Tells the new gateway process what it has to know, and publishes again every port that is known. `ready` is
    /// called once it serves; if it never does it is killed, `ready` is dropped, and [`Supervisor::ending`] says why. A
    /// port that it refuses is logged; it stays known and is offered again every [`PERIOD`].
    ///
    /// # Errors
    /// There is no new process, or the thread that talks to it cannot be started.
    pub fn configure(
        &mut self,
        process: Option<PidFd>,
        ready: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<()> {
        let State::New(channel) = std::mem::replace(&mut self.state, State::Down) else {
            bail!("no new gateway process to configure");
        };
        let line = Line::start(channel, process)
            .context("failed to start the thread that talks to the gateway process")?;
        let request = Request::Configure {
            plan: self.plan.clone(),
            resolvers: self.resolvers.clone(),
            nofile: self.nofile,
            overlay: self.overlay,
            policy: self.policy.clone(),
        };
        line.post(Job { request, fds: self.descriptors.clone(), done: Box::new(drop) });
        if self.followed.is_some() {
            // Before the ports, because clients that have waited in their listeners are served at once.
            line.post(Job::new(Request::Flows { follow: true }, drop));
        }
        for (&id, port) in &self.ports {
            let name = port.name.clone();
            let refused = move |reply| {
                let Some(Reply::Failed(why)) = reply else { return false };
                warn!(
                    port = name,
                    "the new gateway refused to serve a published port: {why}; retrying every {} s",
                    PERIOD.as_secs()
                );
                true
            };
            line.offer(Offer { id, port: Arc::downgrade(port) }, refused);
        }
        // Answered after everything before it.
        line.post(Job::new(Request::Ping, |reply| {
            if reply.is_some() {
                ready();
            }
        }));
        self.state = State::Up(line);
        Ok(())
    }

    /// Why the gateway process has ended, for somebody who sees that it has; `None` if it was told nothing.
    pub fn ending(&self) -> Option<Ending> {
        let State::Up(line) = &self.state else { return None };
        Some(Ending(line.shared()))
    }

    /// Serves `listener` as the port `id`, which leads to `target` in the target namespace. Without networks in
    /// `allow_from`, it serves all clients. The port is known from now on: while there is no gateway, connections wait in
    /// the listener, and the next gateway serves it. If the answer is that the gateway refuses, call
    /// [`Supervisor::forget`]. A refusal that comes when nobody waits for it any more is logged, and the port is offered
    /// again every [`PERIOD`].
    ///
    /// # Errors
    /// When `id` is taken.
    pub fn publish(
        &mut self,
        id: u64,
        udp: bool,
        target: SocketAddr,
        allow_from: Vec<IpNet>,
        name: String,
        listener: OwnedFd,
    ) -> anyhow::Result<Answer> {
        ensure!(!self.ports.contains_key(&id), "port {id} is already published");
        let port = Arc::new(Port { udp, target, allow_from, name, listener: Arc::new(listener) });
        let what = format!("publishing {}", port.name);
        let (answer, deliver) = Answer::to(what.clone());
        let refused = move |reply| {
            let Some(Reply::Failed(why)) = deliver.to(reply) else { return false };
            let period = PERIOD.as_secs();
            warn!(
                "{what}: the gateway refused: {why}; retrying every {period} s, and connections wait until it accepts"
            );
            true
        };
        let offer = Offer { id, port: Arc::downgrade(&port) };
        self.ports.insert(id, port);
        let Some(line) = self.state.line() else { return Ok(answer) };
        line.offer(offer, refused);
        Ok(answer.from(line))
    }

    /// Forgets a port that the gateway has refused, and closes its listener. A gateway that was started since was offered
    /// the port as well, and may serve it.
    pub fn forget(&mut self, id: u64) {
        let Some(port) = self.ports.remove(&id) else { return };
        drop(port);
        self.ask(Request::Withdraw { id }, drop);
    }

    /// Closes the port `id` and its connections. Its listener is closed here and the port is forgotten; a gateway that
    /// hangs holds its copies of the listener until it is killed.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn withdraw(&mut self, id: u64) -> anyhow::Result<Answer> {
        let port = self.ports.remove(&id).with_context(|| format!("no published port {id}"))?;
        let what = format!("withdrawing {}", port.name);
        let (answer, deliver) = Answer::to(what.clone());
        let log = move |reply| {
            if let Some(Reply::Failed(why)) = deliver.to(reply) {
                warn!("{what}: the gateway refused: {why}");
            }
        };
        // Before it is asked: see `Shared::offer_again`.
        drop(port);
        let Some(line) = self.state.line() else { return Ok(answer) };
        line.post(Job::new(Request::Withdraw { id }, log));
        Ok(answer.from(line))
    }

    /// The host's name servers are others now. A gateway that starts later knows them from the start.
    pub fn set_resolvers(&mut self, resolvers: Resolvers) {
        self.resolvers.clone_from(&resolvers);
        self.ask(Request::Resolvers(resolvers), |reply| {
            if let Some(Reply::Failed(why)) = reply {
                warn!("the gateway did not accept the new name servers: {why}");
            }
        });
    }

    /// Containers may begin what this allows from now on, and what they have begun ends if it does not allow it. A gateway that
    /// starts later has it from the start. `done` is called when it is in force, when the gateway has refused it, or when the
    /// gateway has ended, so that the next one has it. It may be called at once, or on another thread, which it must not
    /// block. After a refusal, gateways that start later would have it nevertheless, so set the previous one again.
    ///
    /// # Errors
    /// The policy is too large for the gateway. Nothing has changed then.
    pub fn set_policy(
        &mut self,
        policy: Policies,
        done: impl FnOnce(anyhow::Result<()>) + Send + 'static,
    ) -> anyhow::Result<()> {
        check_policy(&policy)?;
        self.policy.clone_from(&policy);
        let done = |reply| {
            done(match reply {
                Some(Reply::Failed(why)) => Err(anyhow::anyhow!("the gateway refused it: {why}")),
                Some(_) | None => Ok(()),
            });
        };
        self.ask(Request::Policy(Box::new(policy)), done);
        Ok(())
    }

    /// Asks what the gateway has counted; `done` gets it with the driver's name and the number of restarts, or the
    /// reason why there is nothing: no gateway at the moment, or one that ends or is given up before it answers. It may
    /// be called at once, or on another thread, which it must not block.
    pub fn stats(&self, done: impl FnOnce(anyhow::Result<api::Stats>) + Send + 'static) {
        let driver = self.driver.clone();
        let restarts = self.started.saturating_sub(1);
        let done = move |reply| {
            done(match reply {
                Some(Reply::Stats(stats)) => Ok(api::Stats { driver, restarts, ..*stats }),
                Some(Reply::Failed(why)) => {
                    Err(anyhow::anyhow!("the gateway has no statistics: {why}"))
                }
                Some(_) | None => Err(not_running()),
            });
        };
        self.ask(Request::Stats, done);
    }

    /// Begins to follow the flow log, goes on, or ends that. `done` gets what has happened since the last call, or the reason
    /// why that is not known, as with [`Supervisor::stats`]. Whoever follows calls this several times a second: the
    /// gateway keeps [`MAX_RECORDS`] records. A gateway that starts later keeps records from its start.
    pub fn flows(
        &mut self,
        follow: bool,
        done: impl FnOnce(anyhow::Result<Vec<FlowEvent>>) + Send + 'static,
    ) {
        let restarted = self.followed.is_some_and(|heard| heard != self.started);
        // While there is no process, its successor is still to be told of.
        let heard = self.followed.filter(|_| self.state.line().is_none()).unwrap_or(self.started);
        self.followed = follow.then_some(heard);
        let done = move |reply| {
            done(match reply {
                Some(Reply::Flows { flows, missed }) => Ok(events(restarted, flows, missed)),
                Some(Reply::Failed(why)) => {
                    Err(anyhow::anyhow!("the gateway has no flow log: {why}"))
                }
                Some(_) | None => Err(not_running()),
            });
        };
        self.ask(Request::Flows { follow }, done);
    }

    /// Asks the gateway for something. `done` gets nothing if there is no gateway.
    fn ask(&self, request: Request, done: impl FnOnce(Option<Reply>) + Send + 'static) {
        match self.state.line() {
            Some(line) => line.post(Job::new(request, done)),
            None => done(None),
        }
    }
}

/// What a gateway process says of flows, as far as it can be believed: it knows no names of containers.
fn events(restarted: bool, flows: Vec<Flow>, missed: u64) -> Vec<FlowEvent> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = || rfc3339(u64::try_from(clock.as_millis()).unwrap_or(u64::MAX));
    let restarted = restarted.then(|| FlowEvent::Restarted { time: time() });
    let flows = flows
        .into_iter()
        .take(MAX_RECORDS)
        .map(|flow| FlowEvent::Flow(Box::new(Flow { container: None, network: None, ..flow })));
    let missed = (missed > 0).then_some(FlowEvent::Missed { count: missed });
    restarted.into_iter().chain(flows).chain(missed).collect()
}

fn not_running() -> anyhow::Error {
    anyhow::anyhow!(
        "the gateway process is not running\nhint: try again in a moment; the gateway is being restarted"
    )
}
