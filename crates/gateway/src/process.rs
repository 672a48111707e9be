//! The gateway process: configured by its supervisor, locked up, and then an event loop beside a thread that handles
//! requests.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use api::stats::PortTraffic;
use budget::Shares;
use ipnet::IpNet;
use relay::flow_log::FlowLog;
use relay::overlay::Writer;
use relay::{Listener, Options, Service, Traffic, Transparent};

use crate::Descriptors;
use crate::control::{Channel, Reply, Request};
use crate::engine::{Engine, SharedPolicies, SharedResolvers, Sources, Statistics, inward};
use crate::flows;
use crate::sandbox;

#[derive(Debug)]
struct RunningGateway {
    relay: relay::Engine,
    resolvers: SharedResolvers,
    policies: SharedPolicies,
    statistics: Arc<Statistics>,
    flow_log: Arc<FlowLog>,
    ports: BTreeMap<u64, (String, Arc<Traffic>)>,
}

/// Runs the gateway process until its supervisor goes away. `control` is its end of the channel.
///
/// # Errors
/// A first request that is no [`Request::Configure`], a sandbox that cannot be entered, or an event loop that cannot
/// start. The supervisor has been told by then, if it listens.
pub fn run(control: OwnedFd) -> anyhow::Result<()> {
    let channel = Channel::new(control)?;
    let Some((request, fds)) = channel.request()? else { return Ok(()) };
    let started = start(request, fds);
    let reply = match &started {
        Ok(_) => Reply::Done,
        Err(e) => Reply::Failed(format!("{e:#}")),
    };
    channel.reply(&reply)?;
    let mut gateway = started?;
    while let Some((request, fds)) = channel.request()? {
        let reply = gateway.handle_request(request, fds);
        channel.reply(&reply.unwrap_or_else(|e| Reply::Failed(format!("{e:#}"))))?;
    }
    Ok(())
}

fn start(request: Request, fds: Vec<OwnedFd>) -> anyhow::Result<RunningGateway> {
    let Request::Configure { plan, resolvers, nofile, policy, .. } = request else {
        bail!("the first request was not to configure the gateway");
    };
    let (descriptors, factory) = Descriptors::try_from_fds(fds)?;
    // Everything after this line happens without privileges; threads inherit it.
    let report = sandbox::enter().context("failed to sandbox the gateway process")?;
    tracing::debug!("{report:?}");
    let resolvers = Arc::new(Mutex::new(Some(resolvers)));
    let policies = Arc::new(Mutex::new(Some(policy)));
    let statistics = Arc::new(Statistics::default());
    let flow_log = Arc::new(FlowLog::default());
    let Descriptors { dial, data, v4, v6, conntrack, overlay } = descriptors;
    let (reader, writer) = overlay.map(|of| (of.reader, of.writer)).unzip();
    let listeners = [v4].into_iter().chain(v6).collect();
    let writer = writer.flatten().map(|tap| Arc::new(Writer::new(tap, plan.mtu)));
    // Servers of published ports see their clients.
    let options = Options {
        // No mark: the packet rules of the gateway namespace find the sockets by their addresses.
        transparent: Transparent::Mark(0),
        tproxy: true,
        occupied: plan.nets().filter_map(|net| IpNet::new(net.gateway, net.prefix).ok()).collect(),
        shares: Shares::gateway(nofile),
        overlay: writer.clone(),
        flow_log: Some(Arc::clone(&flow_log)),
        ..Options::default()
    };
    let overlay = reader.map(|reader| (reader, writer));
    let sources = Sources { dial, data, listeners, conntrack, overlay };
    let engine = Engine::new(
        plan,
        sources,
        Arc::clone(&resolvers),
        Arc::clone(&policies),
        Arc::clone(&statistics),
        Arc::clone(&flow_log),
    );
    let relay = relay::Engine::start_with(factory, options, Some(Box::new(engine)))
        .context("failed to start the event loop")?;
    let ports = BTreeMap::new();
    Ok(RunningGateway { relay, resolvers, policies, statistics, flow_log, ports })
}

impl RunningGateway {
    fn handle_request(&mut self, request: Request, fds: Vec<OwnedFd>) -> anyhow::Result<Reply> {
        match request {
            Request::Configure { .. } => bail!("the gateway is already configured"),
            Request::Publish { id, udp, target, allow_from, name } => {
                let Ok([listener]) = <[OwnedFd; 1]>::try_from(fds) else {
                    bail!("a port must come with one listener");
                };
                let listener = if udp { Listener::Udp(listener) } else { Listener::Tcp(listener) };
                let traffic = Arc::new(Traffic::default());
                let service =
                    Service { target, allowed: allow_from.into(), traffic: Arc::clone(&traffic) };
                self.relay
                    .add(id, listener, service)
                    .with_context(|| format!("failed to publish {name}"))?;
                self.ports.insert(id, (name, traffic));
            }
            Request::Withdraw { id } => {
                // One that was refused is not there.
                let _ = self.relay.remove(id);
                self.ports.remove(&id);
            }
            Request::Resolvers(resolvers) => {
                *self.resolvers.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolvers);
            }
            Request::Policy(policies) => {
                *self.policies.lock().unwrap_or_else(PoisonError::into_inner) = Some(*policies);
                self.relay.change().context("the gateway no longer works")?;
            }
            Request::Ping => self.relay.ping().context("the gateway no longer works")?,
            Request::Flows { follow } => return Ok(self.flows(follow)),
            Request::Stats => return Ok(Reply::Stats(Box::new(self.stats()))),
        }
        Ok(Reply::Done)
    }

    fn flows(&self, follow: bool) -> Reply {
        if follow {
            self.flow_log.follow();
        } else {
            self.flow_log.stop();
        }
        let (records, missed) = self.flow_log.take();
        Reply::Flows { flows: flows::describe(&records), missed }
    }

    fn stats(&self) -> api::Stats {
        let ports = self.ports.iter().map(|(id, (name, traffic))| PortTraffic {
            id: id.cast_signed(),
            port: name.clone(),
            refused: traffic.refused.load(Ordering::Relaxed),
            traffic: inward(traffic),
        });
        api::Stats { ports: ports.collect(), ..self.statistics.stats() }
    }
}
