//! The child's network namespace: its interfaces, and the thread that lives in it.
//!
//! Attached, the namespace is the child's own, made by clone(2). Detached, the thread makes it and pins it as a
//! bind mount at `<state dir>/netns`, visible in the child's mount namespace only; dockerd and CNI plug-ins
//! enter it by that path. When the parent wants sockets made in the namespace, the thread stays for that.

use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};

use anyhow::Context as _;
use netlink::Rt;
use netlink::transparent::{self, Backend, Choice};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{dhcp, gateway};
use crate::handshake::{Dynamic, Leased, Link, SourceAddress, Tap};
use crate::net::GatewayPlan;

/// What to build.
#[derive(Debug)]
pub(crate) struct Job {
    /// Whether the child has a network namespace of its own at all.
    pub(crate) isolated: bool,
    /// Where to pin a detached one.
    pub(crate) detached: Option<PathBuf>,
    pub(crate) tap: Option<Tap>,
    /// The gateway network that the interface leads to, instead of being a TAP device.
    pub(crate) gateway: Option<GatewayPlan>,
    /// The interface that comes with the helper.
    pub(crate) dynamic: Option<Dynamic>,
    /// Where the helper's socket is, and the `resolv.conf` that follows the name servers of such an interface.
    pub(crate) state_dir: PathBuf,
    pub(crate) source_address: SourceAddress,
    pub(crate) socket_factory: bool,
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Descriptors of the gateway network, if there is one, in the order that the driver expects.
    pub(crate) gateway: Vec<OwnedFd>,
    /// The parent's end of the socket factory.
    pub(crate) factory: Option<OwnedFd>,
    /// `nft`, `iptables` or `none`.
    pub(crate) source_address_backend: String,
    /// What is still to be done once the helper serves.
    pub(crate) later: Option<Later>,
}

/// The network thread, waiting for the helper.
#[derive(Debug)]
pub(crate) struct Later {
    go: SyncSender<()>,
    result: Receiver<anyhow::Result<Leased>>,
}

impl Later {
    /// Has the thread configure the interface, which is there now; takes as long as the DHCP server does.
    pub(crate) fn connect(&self) -> anyhow::Result<Leased> {
        let died = "the network thread died";
        self.go.send(()).context(died)?;
        self.result.recv().context(died)?
    }
}

/// Builds the network and returns when it stands; the thread stays behind.
pub(crate) fn build(job: Job) -> anyhow::Result<Built> {
    let (factory, ours) = if job.socket_factory {
        let (a, b) = channel()?;
        (Some(a), Some(b))
    } else {
        (None, None)
    };
    if job.detached.is_none() && ours.is_none() && job.dynamic.is_none() {
        return Ok(configure(&job)?.built(None));
    }
    let (report, result) = mpsc::sync_channel(1);
    let (later, mut dynamic) = match &job.dynamic {
        Some(wanted) => {
            let (later, waiting) = later(wanted.clone());
            (Some(later), Some(waiting))
        }
        None => (None, None),
    };
    std::thread::Builder::new().name("netns".to_owned()).stack_size(256 << 10).spawn(
        move || {
            let built = enter(&job).and_then(|()| configure(&job));
            let backend = built.as_ref().ok().map(|made| made.source_address);
            if report.send(built).is_ok()
                && let Some(backend) = backend
                && dynamic.take().is_none_or(|waiting| waiting.serve(&job.state_dir))
                && let Some(socket) = ours
                && let Err(e) = relay::factory::serve(socket, || arm(backend))
            {
                tracing::error!(
                    "the socket factory failed, no further connections are forwarded: {e}"
                );
            }
        },
    )?;
    let made = result.recv().context("the network thread died")??;
    Ok(Built { later, ..made.built(factory) })
}

/// The thread's side of [`Later`].
#[derive(Debug)]
struct Waiting {
    dynamic: Dynamic,
    told: Receiver<()>,
    report: SyncSender<anyhow::Result<Leased>>,
}

fn later(dynamic: Dynamic) -> (Later, Waiting) {
    let (go, told) = mpsc::sync_channel(1);
    let (report, result) = mpsc::sync_channel(1);
    (Later { go, result }, Waiting { dynamic, told, report })
}

impl Waiting {
    /// Waits for the helper, then configures its interface; whether there is a network now.
    fn serve(self, state_dir: &Path) -> bool {
        if self.told.recv().is_err() {
            return false;
        }
        let leased = dhcp::connect(&self.dynamic, state_dir);
        let works = leased.is_ok();
        self.report.send(leased).is_ok() && works
    }
}

/// A pair of sockets for a socket factory.
pub(super) fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// What [`configure`] has made.
#[derive(Debug, Default)]
struct Made {
    source_address: Option<Backend>,
    gateway: Vec<OwnedFd>,
}

impl Made {
    fn built(self, factory: Option<OwnedFd>) -> Built {
        let source_address_backend = backend_name(self.source_address);
        Built { factory, source_address_backend, gateway: self.gateway, later: None }
    }
}

/// The word of the API for what keeps source addresses.
fn backend_name(backend: Option<Backend>) -> String {
    backend.map_or_else(|| "none".to_owned(), |backend| backend.to_string())
}

/// Installs the rules that keep source addresses, now that there is a client who has one.
fn arm(backend: Option<Backend>) -> bool {
    let Some(backend) = backend else { return false };
    transparent::arm(backend)
        .inspect_err(|e| tracing::warn!("source addresses of clients are not preserved: {e}"))
        .is_ok()
}

/// Moves the calling thread into a new namespace and pins it, if the namespace is to be detached.
fn enter(job: &Job) -> anyhow::Result<()> {
    let Some(path) = &job.detached else { return Ok(()) };
    unshare(CloneFlags::CLONE_NEWNET).context("failed to make a detached network namespace")?;
    let flags = nix::libc::O_NOFOLLOW;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .custom_flags(flags)
        .open(path)
        .with_context(|| format!("failed to make {}", path.display()))?;
    let source = Path::new("/proc/thread-self/ns/net");
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("failed to pin the network namespace at {}", path.display()))
}

/// Interfaces, addresses, routes and what keeps source addresses, in the thread's namespace.
fn configure(job: &Job) -> anyhow::Result<Made> {
    if !job.isolated && job.detached.is_none() {
        return Ok(Made::default());
    }
    let mut rt = Rt::open()?;
    let lo = rt.link_index("lo")?;
    rt.link_up(lo)?;
    if ends_on_this_machine(job) {
        use_local_congestion_control();
    }
    let gateway = match &job.gateway {
        Some(plan) => gateway::connect(plan)?,
        None => Vec::new(),
    };
    if let Some(tap) = &job.tap {
        if job.gateway.is_none() {
            make_tap(&tap.name)?;
        }
        set_up(&mut rt, tap)?;
    }
    if let Some(plan) = &job.gateway {
        gateway::admit(plan)?;
    }
    Ok(Made { source_address: source_addresses(job.source_address), gateway })
}

/// Whether every TCP connection out of the namespace ends on this machine: in the gateway's namespace or in the helper,
/// which connects anew. lxc-user-nic puts the namespace on the network itself.
fn ends_on_this_machine(job: &Job) -> bool {
    job.dynamic.as_ref().is_none_or(|dynamic| dynamic.link != Link::Veth)
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

/// Makes a TAP device and opens it.
pub(super) fn make_tap(name: &str) -> anyhow::Result<OwnedFd> {
    let device = Path::new("/dev/net/tun");
    // Persistent: the interface outlives this descriptor and every helper.
    sys::tap::create(device, name).with_context(|| {
        format!(
            "failed to make the network interface {name} with {}\nhint: the device must exist and be writable for you: sudo modprobe tun; sudo chmod 0666 {}",
            device.display(),
            device.display()
        )
    })
}

/// Configures an interface that exists.
fn set_up(rt: &mut Rt, tap: &Tap) -> anyhow::Result<()> {
    let index = rt.link_index(&tap.name)?;
    rt.set_mtu(index, tap.mtu)?;
    let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    if ipv6 && tap.gateways.iter().any(IpAddr::is_ipv6) {
        ignore_advertisements(&tap.name);
    }
    rt.link_up(index)?;
    if !ipv6 && tap.addresses.iter().any(|(ip, _)| ip.is_ipv6()) {
        tracing::warn!("the kernel has no IPv6, --ipv6 has no effect");
    }
    for &(ip, prefix) in tap.addresses.iter().filter(|(ip, _)| ip.is_ipv4() || ipv6) {
        rt.add_address(index, ip, prefix)?;
    }
    for &ip in tap.gateways.iter().filter(|ip| ip.is_ipv4() || ipv6) {
        rt.add_default_route(ip, index)?;
    }
    Ok(())
}

/// libslirp advertises itself as a router. What the kernel would make of that lasts until something turns on forwarding, as
/// dockerd does, and takes the metric that somebody's own default route would have.
fn ignore_advertisements(name: &str) {
    let key = format!("net/ipv6/conf/{name}/accept_ra");
    if let Err(e) = netlink::sysctl::write(Path::new("/proc/sys"), &key, "0") {
        tracing::debug!("router advertisements are not ignored: {e}");
    }
}

/// Prepares the namespace for servers to see the addresses of TCP clients; says which means will be used.
fn source_addresses(wish: SourceAddress) -> Option<Backend> {
    let choice = match wish {
        SourceAddress::Off => return None,
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
            tracing::warn!("source addresses of clients are not preserved: {e}");
            None
        }
    }
}
