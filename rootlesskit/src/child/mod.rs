//! The child: root of the new namespaces. It builds what the target will see, runs it, and ends as it ends.
//!
//! # Theory of operation
//! Everything up to "run the target" is sequential and happens on the main thread, with one exception:
//! the network thread ([`netns`]), which lives in the child's network namespace for good. With
//! `--detach-netns` that namespace is not the main thread's, and an unprivileged process that leaves the
//! host's network namespace cannot come back, so the thread is the only one that enters it. The target is
//! started from the main thread, because the kernel kills it when its starting *thread* ends.
//!
//! Signals are blocked from the start and read from a signalfd, so none is lost between the steps.

mod copyup;
mod dhcp;
mod etc;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(not(feature = "gateway"))]
mod gateway {
    //! Left out: there is no plan that anybody could ask for.

    pub(super) fn connect(
        plan: &crate::net::GatewayPlan,
    ) -> anyhow::Result<Vec<std::os::fd::OwnedFd>> {
        match *plan {}
    }

    pub(super) fn admit(plan: &crate::net::GatewayPlan) -> anyhow::Result<()> {
        match *plan {}
    }
}
mod mounts;
mod netns;
mod pump;
mod target;

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use env::Env;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SigSet, SignalFd};

pub(crate) use copyup::clean;
pub(crate) use mounts::Propagation;
pub(crate) use target::Reaper;

use crate::cli::Cli;
use crate::handshake::{Channel, Message};
use crate::log;

/// Runs the role "child".
pub(crate) fn main() -> anyhow::Result<()> {
    // The wish to die with the parent does not survive a change of credentials, so it is made again.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut env = Env::current();
    let (fd, _) =
        env::rootlesskit::pipe_fds(&env)?.context("the handshake descriptor is not set")?;
    let activation = target::Activation::claim(&env, fd)?;
    let channel = Channel::from_fd(
        sys::inherit::adopt(fd).with_context(|| format!("bad handshake descriptor {fd}"))?,
    );
    let state_dir =
        env::rootlesskit::state_dir(&env).context("ROOTLESSKIT_STATE_DIR is not set")?.to_owned();
    env::rootlesskit::remove_internal(&mut env);
    let cli = Cli::parse(std::env::args_os().skip(1))?;
    log::init("child ", cli.debug);
    // For the sockets that we make; the target gets what the user had.
    let nofile = sys::rlimit::raise_nofile()?;
    SigSet::all().thread_block()?;
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC)?;

    let (Message::Setup { network, dynamic, socket_factory, source_address }, _) =
        channel.receive()?
    else {
        bail!("the handshake did not start with Setup");
    };
    mounts::own_proc(cli.pidns);
    let detached = cli.detach_netns.then(|| state_dir.join("netns"));
    let job = netns::Job {
        isolated: cli.net != "host",
        detached: detached.clone(),
        tap: network.tap.clone(),
        gateway: network.gateway.as_deref().cloned(),
        dynamic,
        state_dir: state_dir.clone(),
        source_address,
        socket_factory,
    };
    let net = netns::build(job)?;
    let fds: Vec<_> = net.gateway.iter().map(|fd| fd.as_fd()).collect();
    channel.send(&Message::NetworkReady, &fds)?;
    drop(fds);
    // The helper reaches a detached namespace by its file, which is out of sight while the directory above it is copied up.
    if net.later.is_some() || detached.is_some() {
        match channel.receive()?.0 {
            Message::Connected => {}
            other => return Err(other.unexpected("Connected")),
        }
    }
    let leased = net.later.as_ref().map(netns::Later::connect).transpose()?;
    drop(net.gateway);

    mounts::propagate(Propagation::parse(&cli.propagation)?)?;
    let copied: Vec<PathBuf> = copyup::copy_up(cli.copy_up.iter().map(Path::new))?;
    // Detached, the target is in the host's network namespace, which the host's sysfs shows.
    let own_view = network.own_view && detached.is_none();
    mounts::own_sys(own_view, !cli.evacuate_cgroup2.is_empty())?;
    if network.own_view {
        let dns = leased.as_ref().map_or(&network.dns, |leased| &leased.dns);
        let files = etc::write(Path::new("/"), &state_dir, dns)?;
        if detached.is_none() {
            etc::bind(&files, copied.iter().any(|dir| dir == Path::new("/etc")))?;
        }
    }
    let source_address_backend = net.source_address_backend;
    let ready = Message::Ready { source_address_backend, leased };
    let factory: Vec<_> = net.factory.iter().map(|fd| fd.as_fd()).collect();
    channel.send(&ready, &factory)?;
    drop(factory);
    drop(net.factory);
    match channel.receive()?.0 {
        Message::Start => {}
        other => return Err(other.unexpected("Start")),
    }
    drop(channel);
    let reaper = Reaper::parse(&cli.reaper, cli.pidns)?;
    target::run(&cli.command, reaper, env, &activation, nofile, &signals)
}
