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
mod etc;
mod mounts;
mod netns;
mod target;

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hostenv::Env;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SigSet, SignalFd};

pub(crate) use copyup::clean;

use crate::handshake::{Channel, Message};
use crate::log;
use crate::plan::ChildPlan;

pub(crate) fn main() -> anyhow::Result<()> {
    // The wish to die with the parent does not survive a change of credentials, so it is made again.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut env = Env::current();
    let (fd, _) =
        hostenv::rootlesskit::pipe_fds(&env)?.context("the handshake descriptor is not set")?;
    let activation = target::Activation::claim(&env, fd)?;
    let channel = Channel::from_fd(
        sys::inherit::adopt(fd).with_context(|| format!("invalid handshake descriptor {fd}"))?,
    );
    let state_dir = hostenv::rootlesskit::state_dir(&env)
        .context("ROOTLESSKIT_STATE_DIR is not set")?
        .to_owned();
    hostenv::rootlesskit::remove_internal(&mut env);
    // For the sockets that we make; the target gets what the user had.
    let nofile = sys::rlimit::raise_nofile()?;
    SigSet::all().thread_block()?;
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC)?;

    let (Message::Setup(plan), _) = channel.receive()? else {
        bail!("the handshake did not start with Setup");
    };
    let plan: ChildPlan = *plan;
    log::init("child ", plan.debug);
    let command = command(plan.command_words)?;

    if plan.pidns {
        mounts::own_proc();
    }
    let job = netns::Job { plan: plan.clone(), state_dir: state_dir.clone() };
    let net = netns::build(job)?;
    let fds: Vec<_> = net.fds.iter().map(|fd| fd.as_fd()).collect();
    channel.send(&Message::NetworkReady, &fds)?;
    drop(fds);
    // The helper reaches a detached namespace by its file, which is out of sight while the directory above it is copied up.
    if net.later.is_some() || plan.detach_netns {
        match channel.receive()?.0 {
            Message::Connected => {}
            other => return Err(other.unexpected("Connected")),
        }
    }
    let leased = net.later.as_ref().map(netns::Later::connect).transpose()?.flatten();
    drop(net.fds);

    mounts::propagate(plan.propagation)?;
    let copied: Vec<PathBuf> = copyup::copy_up(plan.copy_up.iter().map(PathBuf::as_path))?;
    let changes_view = plan.network.changes_view();
    // Detached, the target is in the host's network namespace, which the host's sysfs shows.
    mounts::own_sys(changes_view && !plan.detach_netns, plan.evacuated)?;
    if changes_view {
        let dns = leased.as_ref().map_or(&plan.network.dns, |leased| &leased.dns);
        etc::write(Path::new("/"), &state_dir, dns)?;
        if !plan.detach_netns {
            etc::bind(&state_dir, copied.iter().any(|dir| dir == Path::new("/etc")))?;
        }
    }
    let backend = net.source_address;
    let source_address_backend = backend.map_or("none".to_owned(), |backend| backend.to_string());
    let loopback_relayed = net.loopback_relayed;
    let ready = Message::Ready { source_address_backend, loopback_relayed, leased };
    let factory: Vec<_> = net.factory.iter().map(|fd| fd.as_fd()).collect();
    channel.send(&ready, &factory)?;
    drop(factory);
    drop(net.factory);
    match channel.receive()?.0 {
        Message::Start => {}
        other => return Err(other.unexpected("Start")),
    }
    drop(channel);
    target::run(&command, plan.reaper, env, &activation, nofile, &signals)
}

/// The target's command, the last words of our command line, which is the parent's.
fn command(words: usize) -> anyhow::Result<Vec<OsString>> {
    let line: Vec<_> = std::env::args_os().collect();
    let first =
        line.len().checked_sub(words).context("the command line is shorter than planned")?;
    Ok(line[first..].to_vec())
}
