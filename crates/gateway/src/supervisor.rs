//! The supervisor's handle on a gateway process.
//!
//! It holds whatever a gateway needs and that must outlive one: the descriptors of G, the listeners of published ports,
//! the name servers. It starts no process itself. Whoever does so gives [`Gateway::renew`]'s descriptor to the process as
//! standard input and calls [`Gateway::configure`]; when the process has ended, the same again. Used by one thread.
//!
//! Every call is bounded. Whenever a gateway fails to answer in time, answers nonsense or has ended, the handle closes its
//! end of the channel ([`Gateway::is_up`] is false then) and kills the process, if it was told which ([`Gateway::adopt`]).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sys::pidfd::PidFd;
use tracing::{debug, warn};

use crate::control::{Channel, Reply, Request};
use crate::plan::{Plan, Resolvers};

/// How long publishing every port again may take, however many there are.
const AGAIN: Duration = Duration::from_secs(5);
/// Requests that are sent ahead of their replies then. Small enough for both send buffers, and for the descriptors that a
/// user may have in flight (twice as many; as many as `RLIMIT_NOFILE`, unix(7)).
const AHEAD: usize = 32;

/// The descriptors that a gateway works with.
#[derive(Debug)]
pub struct Descriptors {
    /// The tun device of new connections and DNS.
    pub dial: OwnedFd,
    /// The tun device of other datagrams and echo requests.
    pub data: OwnedFd,
    /// Our end of the socket factory of G.
    pub factory: OwnedFd,
    /// The transparent IPv4 listener of G.
    pub listener4: OwnedFd,
    /// The transparent IPv6 listener of G.
    pub listener6: Option<OwnedFd>,
}

#[derive(Debug)]
struct Port {
    udp: bool,
    target: SocketAddr,
    name: String,
    listener: OwnedFd,
}

impl Port {
    fn request(&self, id: u64) -> Request {
        Request::Publish { id, udp: self.udp, target: self.target, name: self.name.clone() }
    }

    fn fds(&self) -> [BorrowedFd<'_>; 1] {
        [self.listener.as_fd()]
    }
}

#[derive(Debug)]
enum State {
    /// There is no process, or none that can be talked to.
    Down,
    /// It has not been told anything yet.
    New(Channel),
    /// It serves.
    Up(Channel),
}

/// Everything about a gateway but its process.
#[derive(Debug)]
pub struct Gateway {
    driver: String,
    plan: Plan,
    descriptors: Descriptors,
    resolvers: Resolvers,
    nofile: u64,
    ports: BTreeMap<u64, Port>,
    state: State,
    process: Option<PidFd>,
    /// Processes so far.
    started: u64,
}

impl Gateway {
    /// `nofile` is the soft limit of open files of the gateway processes. IPv6 is used if both the plan and the
    /// descriptors have it.
    #[must_use]
    pub fn new(
        mut plan: Plan,
        mut descriptors: Descriptors,
        resolvers: Resolvers,
        nofile: u64,
    ) -> Self {
        if descriptors.listener6.is_none() {
            plan.v6 = None;
        } else if plan.v6.is_none() {
            descriptors.listener6 = None;
        }
        Self {
            driver: "gateway".to_owned(),
            plan,
            descriptors,
            resolvers,
            nofile,
            ports: BTreeMap::new(),
            state: State::Down,
            process: None,
            started: 0,
        }
    }

    /// Gives the statistics the name of another network driver than `gateway`.
    #[must_use]
    pub fn named(mut self, driver: &str) -> Self {
        driver.clone_into(&mut self.driver);
        self
    }

    /// The network that gateways are told.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether a gateway has been configured and nothing has gone wrong since. A process for which this is false after
    /// [`Gateway::configure`] is useless and should be killed, unless it ends by itself.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(&self.state, State::Up(channel) if !channel.ended())
    }

    /// The end of a control channel for a new gateway process, its standard input. Forgets the old process.
    ///
    /// # Errors
    /// Those of socketpair(2); the old process is forgotten nevertheless.
    pub fn renew(&mut self) -> io::Result<OwnedFd> {
        self.state = State::Down;
        self.process = None;
        let (ours, theirs) = Channel::pair()?;
        self.state = State::New(ours);
        self.started += 1;
        Ok(theirs)
    }

    /// Tells a new gateway process what it has to know, waits until it serves, and publishes again every port that is
    /// known. A port that it refuses is logged; it stays known and is offered to the next gateway.
    ///
    /// # Errors
    /// When the process refuses, ends, or does not answer: within 5 s to begin with, within 5 s for all ports. There is
    /// no gateway then until the next [`Gateway::renew`].
    pub fn configure(&mut self) -> anyhow::Result<()> {
        let State::New(channel) = std::mem::replace(&mut self.state, State::Down) else {
            bail!("there is no new gateway process to configure");
        };
        let request = Request::Configure {
            plan: self.plan.clone(),
            resolvers: self.resolvers.clone(),
            nofile: self.nofile,
        };
        let Descriptors { dial, data, factory, listener4, listener6 } = &self.descriptors;
        let fds = [dial, data, factory, listener4].into_iter().chain(listener6);
        let fds: Vec<BorrowedFd<'_>> = fds.map(AsFd::as_fd).collect();
        match channel.call(&request, &fds).context("starting the gateway")? {
            Reply::Done => {}
            Reply::Failed(why) => bail!("the gateway process cannot start: {why}"),
            Reply::Stats(_) => bail!("the gateway process sent Stats out of turn, to Configure"),
        }
        self.publish_all(&channel).context("publishing the ports again")?;
        self.state = State::Up(channel);
        Ok(())
    }

    /// The process that was configured, to be killed if it does not answer.
    pub fn adopt(&mut self, process: PidFd) {
        self.process = Some(process);
    }

    /// Gives up a gateway that cannot be talked to.
    fn give_up(&mut self) {
        self.state = State::Down;
        if let Some(process) = self.process.take()
            && let Err(e) = process.kill()
        {
            debug!("failed to kill the gateway process: {e}");
        }
    }

    fn publish_all(&self, channel: &Channel) -> anyhow::Result<()> {
        let deadline = Instant::now() + AGAIN;
        let mut asked: VecDeque<&Port> = VecDeque::with_capacity(AHEAD);
        for (&id, port) in &self.ports {
            if asked.len() == AHEAD {
                settle(channel, &mut asked, deadline)?;
            }
            channel.send(&port.request(id), &port.fds(), deadline)?;
            asked.push_back(port);
        }
        while !asked.is_empty() {
            settle(channel, &mut asked, deadline)?;
        }
        Ok(())
    }

    /// Serves `listener` as the port `id`, which leads to `target` in A. While there is no
    /// gateway the port is only noted, and connections wait in its listener; the next gateway serves it.
    ///
    /// # Errors
    /// When `id` is taken or the gateway refuses, ends meanwhile or does not answer within 5 s; the listener is closed
    /// and the port is not known then.
    pub fn publish(
        &mut self,
        id: u64,
        udp: bool,
        target: SocketAddr,
        name: String,
        listener: OwnedFd,
    ) -> anyhow::Result<()> {
        ensure!(!self.ports.contains_key(&id), "port {id} is published already");
        let port = Port { udp, target, name, listener };
        if self.serves() {
            self.order(&port.request(id), &port.fds())
                .with_context(|| format!("publishing {}", port.name))?;
        }
        self.ports.insert(id, port);
        Ok(())
    }

    /// Closes the port `id` and its connections. Its listener is closed here and the port is forgotten in any case.
    ///
    /// # Errors
    /// When there is no such port, or the gateway does not confirm it within 5 s; a gateway that hangs holds its copies
    /// of the listener until it is killed.
    pub fn withdraw(&mut self, id: u64) -> anyhow::Result<()> {
        let port = self.ports.remove(&id).with_context(|| format!("no published port {id}"))?;
        drop(port.listener);
        if self.serves() {
            self.order(&Request::Withdraw { id }, &[])
                .with_context(|| format!("withdrawing {}", port.name))?;
        }
        Ok(())
    }

    /// The host's name servers are others now. A gateway that cannot be told is given up, and the next one knows them
    /// from the start.
    pub fn set_resolvers(&mut self, resolvers: Resolvers) {
        self.resolvers.clone_from(&resolvers);
        if self.serves()
            && let Err(e) = self.order(&Request::Resolvers(resolvers), &[])
        {
            warn!("the gateway does not know the new name servers: {e:#}");
        }
    }

    /// What the gateway has counted, with the driver's name and the number of restarts.
    ///
    /// # Errors
    /// When there is no gateway at the moment, or it does not answer within 5 s.
    pub fn stats(&mut self) -> anyhow::Result<api::Stats> {
        ensure!(
            self.serves(),
            "the gateway process is not running at the moment\nhint: it is started again; ask again in a moment"
        );
        match self.ask(&Request::Stats, &[]).context("asking for statistics")? {
            Reply::Stats(mut stats) => {
                self.driver.clone_into(&mut stats.driver);
                stats.restarts = self.started.saturating_sub(1);
                Ok(*stats)
            }
            Reply::Failed(why) => bail!("the gateway has no statistics: {why}"),
            Reply::Done => {
                self.give_up();
                bail!("the gateway process sent Done out of turn, to Stats")
            }
        }
    }

    /// Whether there is a gateway to be asked; notices if it has ended.
    fn serves(&mut self) -> bool {
        let up = self.is_up();
        if !up && matches!(self.state, State::Up(_)) {
            self.give_up();
        }
        up
    }

    /// A request that is answered by "done".
    fn order(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        match self.ask(request, fds)? {
            Reply::Done => Ok(()),
            Reply::Failed(why) => bail!("the gateway refused: {why}"),
            Reply::Stats(_) => {
                self.give_up();
                bail!("the gateway process sent Stats out of turn, to {}", request.name())
            }
        }
    }

    fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> anyhow::Result<Reply> {
        let State::Up(channel) = &self.state else {
            bail!("the gateway process is not running");
        };
        let reply = channel.call(request, fds);
        if reply.is_err() {
            self.give_up();
        }
        reply
    }
}

/// Takes the reply to the oldest of the requests.
fn settle(channel: &Channel, asked: &mut VecDeque<&Port>, deadline: Instant) -> anyhow::Result<()> {
    let Some(port) = asked.pop_front() else { return Ok(()) };
    match channel.answer(deadline).with_context(|| format!("no answer about {}", port.name))? {
        Reply::Done => Ok(()),
        Reply::Failed(why) => {
            warn!(port = port.name, "the new gateway does not serve a published port: {why}");
            Ok(())
        }
        Reply::Stats(_) => bail!("the gateway process sent Stats out of turn, to Publish"),
    }
}
