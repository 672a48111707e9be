//! The parent: stays in the host's namespaces, makes the child, connects it with the network, publishes its
//! ports and serves the API.
//!
//! # Theory of operation
//! Up to `Start` everything is sequential, on one thread, and may be undone: [`start_up`] reads from top to
//! bottom like the protocol in [`crate::handshake`]. Every wait in it also watches the child and our
//! signals ([`Watch`]). Then the process serves ([`serve`]): one tokio thread for API, signals and the
//! network helper, which waits for no helper, the thread "publish" that the port driver works on, and the threads of
//! [`relay`] for the data. What was started is a field of
//! [`Running`] or an owned value here, so that every way out stops it; the state directory goes last.

mod descriptors;
mod preflight;
mod serve;
mod statedir;
mod watch;

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use budget::Budget;
use hostenv::rootlesskit::ParentIds;
use hostenv::{Env, vars};
use idmap::map::Maps;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Uid, getegid, geteuid, getpid};
use sys::pidfd::PidFd;
use sys::rlimit::Nofile;
use sys::spawn::SpawnConfig;

use crate::api_backend::Backend;
use crate::cli::Cli;
use crate::drivers::ports::Parts;
use crate::drivers::{Connection, Helper, Namespace};
use crate::execve::{c_string, environ};
use crate::handshake::{Channel, Message};
use crate::launch::Launch;
use crate::{exit, help, log, port, signals, umask};
use statedir::StateDir;
use watch::{Interrupted, Watch};

/// How long a step of the start-up may take. Slow disks and DHCP servers are within it; a hang is not.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn main() -> anyhow::Result<()> {
    let env = Env::current();
    // Before anything opens a descriptor of its own.
    let listen = hostenv::rootlesskit::listen_fds(&env);
    let count = listen.map_or(0, |l| l.count);
    let listen_fds = sys::inherit::claim_listen_fds(count)?;
    sys::inherit::close_from(3 + i32::from(count))
        .context("failed to close inherited descriptors")?;
    let cli = Cli::parse(std::env::args_os().skip(1)).inspect_err(|usage| {
        // Help goes to standard output, as urfave/cli does.
        let text = format!("Incorrect Usage: {usage}\n\n{}\n", help::text());
        exit::say(std::io::stdout(), &text);
    })?;
    if let Some(text) = answer(&cli)? {
        return print(&text);
    }
    log::init("parent", cli.debug);
    let nofile = descriptors::raise(listen_fds.len())?;
    let launch = Launch::validate(&cli, &env)?;
    // Programs may be asked for them, and so far a signal has nothing to interrupt but those.
    let maps = id_maps(&launch, &env)?;
    let signals = signals::block()?;
    let budget = descriptors::budget(&launch, nofile, listen_fds.len())?;
    descriptors::warn(&launch, &budget);
    preflight::warnings(Path::new("/"), &cli);

    let state = StateDir::open(launch.state_dir.as_deref(), &env)?;
    let parent = Parent {
        launch: &launch,
        env: &env,
        state: &state,
        signals: &signals,
        nofile,
        budget,
        listen_fds,
        listen_fds_are_ours: listen.is_some_and(|l| l.pid == getpid().as_raw()),
    };
    let result = parent.run(&maps);
    state.remove();
    if let Err(error) = &result
        && let Some(Interrupted(signal)) = error.downcast_ref()
    {
        signals::die_of(*signal);
    }
    result
}

fn id_maps(launch: &Launch, env: &Env) -> anyhow::Result<Maps> {
    let root = Path::new("/");
    let user = hostenv::user::lookup_uid(root, Uid::current().as_raw(), env)?;
    let subids = idmap::source::lookup(launch.subid_source, root, &user, env)?;
    Ok(idmap::map::build(user.uid, user.gid, &subids.uid, &subids.gid))
}

/// The error for a signal that asked us to stop, if there is one.
fn interruption(interrupts: &SignalFd) -> Option<anyhow::Error> {
    let info = interrupts.read_signal().ok().flatten()?;
    signals::ends_us(&info).map(|signal| Interrupted(signal).into())
}

/// Flags that are questions.
fn answer(cli: &Cli) -> anyhow::Result<Option<String>> {
    if cli.help {
        return Ok(Some(help::text()));
    }
    if cli.version {
        return Ok(Some(format!("rootlesskit version {}", api::ROOTLESSKIT_VERSION)));
    }
    let Some(part) = &cli.print_semver else { return Ok(None) };
    let index = match part.as_str() {
        "major" => 0,
        "minor" => 1,
        "patch" => 2,
        _ => bail!("invalid --print-semver={part} (must be major, minor or patch)"),
    };
    Ok(api::ROOTLESSKIT_VERSION.split('.').nth(index).map(str::to_owned))
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct Parent<'a> {
    launch: &'a Launch,
    env: &'a Env,
    state: &'a StateDir,
    signals: &'a SignalFd,
    nofile: Nofile,
    budget: Budget,
    /// Sockets of a service manager for the target.
    listen_fds: Vec<i32>,
    listen_fds_are_ours: bool,
}

/// Everything that runs once the target may start. Dropping it stops what is ours; the child has ended by
/// then or is killed by whoever drops it.
struct Running<'a> {
    child: PidFd,
    helper: Option<Helper>,
    connection: Connection<'a>,
    api: UnixListener,
    backend: Rc<Backend>,
}

impl<'a> Parent<'a> {
    fn run(&self, maps: &Maps) -> anyhow::Result<()> {
        let (channel, theirs) = Channel::pair()?;
        let child = self.make_child(maps, theirs)?;
        let mut helper = None;
        match self.start_up(&child, &channel, &mut helper) {
            Ok((connection, api, backend)) => {
                drop(channel);
                let running = Running { child, helper, connection, api, backend };
                let how = serve::serve(running, self.budget.api, self.signals)?;
                exit::Exited::check("child", how)
            }
            Err(error) => {
                // Before the channel closes, or the child would complain about that as well.
                watch::kill_and_reap(&child);
                if let Some(helper) = helper {
                    watch::kill_and_reap(&helper.process);
                }
                Err(error)
            }
        }
    }

    /// The child in its namespaces, with its ids, executing; `channel` is its end of the handshake.
    fn make_child(&self, maps: &Maps, channel: OwnedFd) -> anyhow::Result<PidFd> {
        let plan = self.child_plan(channel.as_raw_fd())?;
        let gated = sys::spawn::namespaced(&plan, self.launch.namespaces)
            .map_err(|e| preflight::explain_spawn(Path::new("/"), &e))?;
        drop(channel);
        let pid = gated.process.pid();
        let interrupts = signals::interrupts()?;
        let watched = [interrupts.as_fd(), gated.process.as_fd()];
        idmap::apply::apply(pid, maps, self.env, Path::new("/"), &watched)
            .map_err(|error| interruption(&interrupts).unwrap_or_else(|| error.into()))
            .and_then(|()| gated.open().map_err(|error| preflight::explain_exec(&error)))
            .inspect_err(|_| {
                // The gate is closed now, which ends the child if nothing else has.
                if let Ok(child) = PidFd::open(pid) {
                    watch::kill_and_reap(&child);
                }
            })
    }

    /// The child is this same program with the same arguments, for ps(1); what differs is its environment.
    fn child_plan(&self, channel: i32) -> anyhow::Result<SpawnConfig> {
        let mut env = self.env.clone();
        hostenv::rootlesskit::set_pipe_fds(&mut env, channel, channel);
        hostenv::rootlesskit::set_activation_child_use(&mut env, self.listen_fds_are_ours);
        hostenv::rootlesskit::set_state_dir(&mut env, self.state.path());
        let ids = ParentIds { euid: geteuid().as_raw(), egid: getegid().as_raw() };
        hostenv::rootlesskit::set_parent_ids(&mut env, ids);
        // The target takes over what was meant for us.
        if env.get(vars::WATCHDOG_PID).is_some_and(|pid| pid == getpid().to_string().as_str()) {
            env.remove(vars::WATCHDOG_PID);
        }
        if self.listen_fds.is_empty() && env.get(vars::LISTEN_FDS).is_some() {
            tracing::debug!("LISTEN_FDS is set, but no descriptor was passed");
        }
        let mut argv = vec![c"/proc/self/exe".to_owned()];
        for arg in std::env::args_os().skip(1) {
            argv.push(c_string(&arg)?);
        }
        let mut keep = self.listen_fds.clone();
        keep.push(channel);
        Ok(SpawnConfig {
            program: c"/proc/self/exe".to_owned(),
            argv,
            env: environ(&env)?,
            keep,
            nofile: Some(self.nofile),
            ..SpawnConfig::default()
        })
    }

    /// From the child's first breath to "everything but the target is there".
    fn start_up(
        &self,
        child: &PidFd,
        channel: &Channel,
        helper: &mut Option<Helper>,
    ) -> anyhow::Result<(Connection<'a>, UnixListener, Rc<Backend>)> {
        let watch = Watch { child, signals: self.signals };
        let Launch { network, ports, child: plan, .. } = self.launch;
        if let Some(name) = &self.launch.evacuate_cgroup2 {
            let own = getpid().as_raw().unsigned_abs();
            for warning in cgroup2::evacuate(Path::new("/proc"), own, name)?.warnings {
                tracing::warn!("{warning}");
            }
        }
        channel.send(&Message::Setup(Box::new(plan.clone())), &[])?;
        let mut connection = match watch.message(channel, STEP_TIMEOUT)? {
            (Message::NetworkReady, fds) => network.connect(self.namespace(child), fds)?,
            (other, _) => return Err(other.unexpected("NetworkReady")),
        };
        if let Some(starting) = connection.start()? {
            let name = starting.name();
            *helper = Some(watch.helper(starting).map_err(|e| {
                match connection.why_ended().blocking_recv() {
                    Ok(Some(why)) => anyhow::anyhow!("{name} failed: {why}"),
                    Ok(None) | Err(_) => e,
                }
            })?);
        }
        if plan.network.uplink.waits_for_helper() || plan.detach_netns {
            channel.send(&Message::Connected, &[])?;
        }
        let (ready, factory) = watch.message(channel, STEP_TIMEOUT)?;
        let Message::Ready { source_address_backend, loopback_relayed, leased } = ready else {
            return Err(ready.unexpected("Ready"));
        };
        let parts = Parts {
            connection: &connection,
            factory: factory.into_iter().next(),
            source_address_backend,
            loopback_relayed,
            state_dir: self.state.path(),
            env: self.env,
            budget: &self.budget,
        };
        let ports = ports.start(parts)?.map(port::Worker::start).transpose()?;
        let info = self.info(child, network.info(leased));
        let backend = Rc::new(Backend::new(info, ports, connection.questions()));
        self.write_child_pid(child)?;
        let socket = self.state.path().join(api::SOCKET_NAME);
        let api = umask::private(|| UnixListener::bind(&socket))
            .with_context(|| format!("failed to listen on {}", socket.display()))?;
        channel.send(&Message::Start, &[])?;
        Ok((connection, api, backend))
    }

    fn namespace(&self, child: &PidFd) -> Namespace {
        let dir = self.state.path();
        let inside = dir.strip_prefix("/").unwrap_or(dir);
        let root = Path::new("/proc").join(child.pid().to_string()).join("root");
        Namespace {
            child: child.pid(),
            netns: self.launch.child.detach_netns.then(|| root.join(inside).join("netns")),
            state_dir: dir.to_owned(),
        }
    }

    fn info(&self, child: &PidFd, network: api::NetworkDriverInfo) -> api::Info {
        api::Info {
            api_version: api::API_VERSION.to_owned(),
            version: api::ROOTLESSKIT_VERSION.to_owned(),
            state_dir: self.state.path().to_string_lossy().into_owned(),
            child_pid: child.pid().as_raw(),
            network_driver: Some(network),
            port_driver: None,
        }
    }

    /// Decimal, no newline: clients parse the file without trimming it.
    fn write_child_pid(&self, child: &PidFd) -> anyhow::Result<()> {
        let path = self.state.path().join("child_pid");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .with_context(|| format!("failed to create {}", path.display()))?;
        write!(file, "{}", child.pid())?;
        Ok(())
    }
}
