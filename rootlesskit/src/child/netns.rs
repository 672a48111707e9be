//! The child's network namespace: its interfaces, and the thread that lives in it.
//!
//! Attached, the namespace is the child's own, made by clone(2). Detached, the thread makes it and pins it as a
//! bind mount at `<state dir>/netns`, visible in the child's mount namespace only; dockerd and CNI plug-ins
//! enter it by that path. When the parent wants sockets made in the namespace, the thread stays for that.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};

use anyhow::Context as _;
use netlink::Rt;
use netlink::transparent::{self, Backend, Choice};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::drivers::inside::{self, Link};
use crate::limit;
use crate::plan::{ChildPlan, Leased, SourceAddress};

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plan: ChildPlan,
    /// Where a detached namespace is pinned, the sockets of helpers are, and the `resolv.conf` that follows a DHCP server.
    pub(crate) state_dir: PathBuf,
}

#[derive(Debug, Default)]
pub(crate) struct Built {
    /// Descriptors for the network driver's half in the parent.
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) factory: Option<OwnedFd>,
    /// What keeps the source addresses of clients.
    pub(crate) source_address: Option<Backend>,
    /// See [`Link::loopback_relayed`].
    pub(crate) loopback_relayed: bool,
    /// What is still to be done once the helper serves.
    pub(crate) later: Option<Later>,
}

/// The network thread, waiting for the helper.
#[derive(Debug)]
pub(crate) struct Later {
    go: SyncSender<()>,
    result: Receiver<anyhow::Result<Option<Leased>>>,
}

impl Later {
    /// Has the thread configure the interface, which is there now; takes as long as the DHCP server does.
    pub(crate) fn connect(&self) -> anyhow::Result<Option<Leased>> {
        let died = "the network thread exited unexpectedly";
        self.go.send(()).context(died)?;
        self.result.recv().context(died)?
    }
}

/// Builds the network and returns when it stands; the thread stays behind.
pub(crate) fn build(job: Job) -> anyhow::Result<Built> {
    let (factory, ours) = if job.plan.socket_factory {
        relay::factory::pair().map(|(a, b)| (Some(a), Some(b)))?
    } else {
        (None, None)
    };
    let waits = job.plan.network.uplink.waits_for_helper();
    if !job.plan.detach_netns && ours.is_none() && !waits {
        return configure(&job);
    }
    let (report, result) = mpsc::sync_channel(1);
    let (later, mut waiting) = waits.then(later).unzip();
    std::thread::Builder::new().name("netns".to_owned()).stack_size(256 << 10).spawn(
        move || {
            let built = enter(&job).and_then(|()| configure(&job));
            let backend = built.as_ref().ok().map(|built| built.source_address);
            if report.send(built).is_ok()
                && let Some(backend) = backend
                && waiting.take().is_none_or(|waiting: Waiting| waiting.serve(&job))
                && let Some(socket) = ours
                && let Err(e) = relay::factory::serve(socket, || arm(backend))
            {
                tracing::error!(
                    "the socket factory failed, so no more connections are forwarded: {e}"
                );
            }
        },
    )?;
    let built = result.recv().context("the network thread exited unexpectedly")??;
    Ok(Built { later, factory, ..built })
}

/// The thread's side of [`Later`].
#[derive(Debug)]
struct Waiting {
    told: Receiver<()>,
    report: SyncSender<anyhow::Result<Option<Leased>>>,
}

fn later() -> (Later, Waiting) {
    let (go, told) = mpsc::sync_channel(1);
    let (report, result) = mpsc::sync_channel(1);
    (Later { go, result }, Waiting { told, report })
}

impl Waiting {
    /// Waits for the helper, then configures its interface; whether there is a network now.
    fn serve(self, job: &Job) -> bool {
        if self.told.recv().is_err() {
            return false;
        }
        let leased = inside::connect(&job.plan.network.uplink, &job.state_dir);
        let works = leased.is_ok();
        self.report.send(leased).is_ok() && works
    }
}

/// Installs the rules that keep source addresses, now that there is a client who has one.
fn arm(backend: Option<Backend>) -> bool {
    let Some(backend) = backend else { return false };
    transparent::arm(backend)
        .inspect_err(|e| tracing::warn!("client source addresses are not preserved: {e}"))
        .is_ok()
}

/// Moves the calling thread into a new namespace and pins it, if the namespace is to be detached.
fn enter(job: &Job) -> anyhow::Result<()> {
    if !job.plan.detach_netns {
        return Ok(());
    }
    let path = &job.state_dir.join("netns");
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
        let hint = match errno {
            Errno::ENOSPC | Errno::EUSERS => limit::raise("net"),
            _ => String::new(),
        };
        let error = std::io::Error::from(errno);
        anyhow::anyhow!("failed to create a detached network namespace: {error}{hint}")
    })?;
    let flags = nix::libc::O_NOFOLLOW;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .custom_flags(flags)
        .open(path)
        .with_context(|| format!("failed to create {}", path.display()))?;
    let source = Path::new("/proc/thread-self/ns/net");
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("failed to pin the network namespace at {}", path.display()))
}

/// Interfaces, addresses, routes and what keeps source addresses, in the thread's namespace.
fn configure(job: &Job) -> anyhow::Result<Built> {
    let ChildPlan { isolated, network, detach_netns, source_address, .. } = &job.plan;
    if !isolated && !detach_netns {
        return Ok(Built::default());
    }
    let mut rt = Rt::open()?;
    let lo = rt.link_index("lo")?;
    rt.link_up(lo)?;
    if network.uplink.ends_on_this_machine() {
        use_local_congestion_control();
    }
    let Link { fds, loopback_relayed } = inside::build(&network.uplink, &mut rt)?;
    let wish = match *source_address {
        SourceAddress::AutoIfRelayed if loopback_relayed => SourceAddress::Auto,
        wish => wish,
    };
    let source_address = source_addresses(wish);
    Ok(Built { source_address, loopback_relayed, fds, ..Built::default() })
}

/// For sockets that programs make in the namespace itself, such as those of containers with `--net=host`; see
/// [`relay::congestion`]. A container with a namespace of its own gets the host's default from the kernel.
fn use_local_congestion_control() {
    let (root, key) = (Path::new("/proc/sys"), "net.ipv4.tcp_congestion_control");
    let found = netlink::sysctl::read(root, key);
    if found.is_ok_and(|name| relay::congestion::is_replaceable_name(name.as_bytes()))
        && let Err(error) = netlink::sysctl::write(root, key, relay::congestion::LOCAL)
    {
        tracing::debug!("{error}");
    }
}

/// Prepares the namespace for servers to see the addresses of TCP clients; says which means will be used.
fn source_addresses(wish: SourceAddress) -> Option<Backend> {
    let choice = match wish {
        SourceAddress::Off | SourceAddress::AutoIfRelayed => return None,
        SourceAddress::Auto => Choice::Auto,
        SourceAddress::Nft => Choice::Only(Backend::Nft),
        SourceAddress::Iptables => Choice::Only(Backend::Iptables),
    };
    match transparent::prepare(Path::new("/proc/sys"), choice) {
        Ok(prepared) => {
            if let Err(e) = &prepared.ipv6 {
                tracing::debug!("source addresses of IPv6 clients are not preserved: {e}");
            }
            Some(prepared.backend)
        }
        Err(e) => {
            tracing::warn!("client source addresses are not preserved: {e}");
            None
        }
    }
}
