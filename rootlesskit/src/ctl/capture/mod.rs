//! `rootlessctl capture`: the packets of a running rootlesskit, or of one of its containers, as Wireshark reads them.
//!
//! # Theory of operation
//! The namespaces are found ([`target`]), and the addresses of the container ([`container`]). The file is opened
//! ([`output`]) while the user is still who they are. Then this process, which has one thread, joins the user namespace
//! and the network namespace. With the capabilities that it has there, it opens a packet socket for each interface and
//! gives it a filter before the first packet. It keeps the sockets and gives all else up: from then on it reads what
//! anybody sends, so it enters the sandbox of the gateway process. [`session`] is the rest.
//!
//! A packet that the kernel would cut into segments for a network card only is written as it is: longer than the MTU.

mod container;
mod options;
mod output;
mod session;
mod target;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, bail};
use capture::{Filter, pcapng};
use clap::ArgMatches;
use hostenv::Env;
use netlink::{Route, Rt};
use nix::libc::{ARPHRD_ETHER, ARPHRD_LOOPBACK, EAFNOSUPPORT, EINVAL, ENOMEM};
use nix::net::if_::if_indextoname;
use nix::sys::prctl::set_dumpable;
use nix::sys::signalfd::SignalFd;
use sys::capture::Capture;

pub(super) use self::options::flags;

use self::container::Wanted;
use self::options::Options;
use self::output::Output;
use self::session::{Session, Source, block_signals};
use self::target::Target;
use crate::docker::Docker;
use crate::visible::visible;

/// Addresses in the documentation's networks (RFC 5737, RFC 3849), to which only a default route leads.
const OUTWARDS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// The most bytes of a packet, if no number is asked for: more than there are.
const WHOLE: u32 = 262_144;

/// Captures until something ends it. `socket` is that of rootlesskit's API.
pub(super) fn run(
    socket: &Path,
    matches: &ArgMatches,
    arguments: &[std::ffi::OsString],
    env: &Env,
) -> anyhow::Result<()> {
    use io::IsTerminal as _;
    let options = Options::new(matches, arguments, io::stdout().is_terminal())?;
    let target = target::find(socket)?;
    let find = |name: &String| container::find(name, &Docker::of(socket, env));
    let wanted = options.container.as_ref().map(find).transpose()?;
    let mut output = Output::open(&options.to)?;
    let prepared = prepare(&target, wanted.as_ref(), &options, &mut output);
    let (sources, signals) = prepared.inspect_err(|_| output.discard())?;
    // Nothing is left to do if this fails.
    let places: Vec<String> = sources.iter().map(|source| visible(&source.name)).collect();
    let whose = wanted.map(|wanted| format!(" ({})", wanted.label)).unwrap_or_default();
    let name = output.name();
    let line = format!("capturing on {}{whose} to {name}; press Ctrl-C to stop", places.join(", "));
    writeln!(io::stderr(), "{line}").ok();
    let session = Session::new(sources, output, &options, (signals, target.into_child()));
    if let Some(summary) = session.run()? {
        writeln!(io::stderr(), "{summary}").ok();
    }
    Ok(())
}

/// Joins the namespaces, opens what is needed there, begins the file, and gives up everything else.
fn prepare(
    target: &Target,
    wanted: Option<&Wanted>,
    options: &Options,
    output: &mut Output,
) -> anyhow::Result<(Vec<Source>, SignalFd)> {
    let signals = block_signals()?;
    // From the join on, whoever is privileged in the namespace could trace this process.
    set_dumpable(false)?;
    target.join()?;
    let links = match wanted {
        Some(wanted) => links_of(wanted)?,
        None => outwards()?,
    };
    let application = format!("rootlessctl {}", api::ROOTLESSKIT_VERSION);
    pcapng::section(output.buffer(), &application);
    let mut sources = Vec::new();
    for (index, addresses) in links {
        let source = open(index, &addresses, options)?;
        let mut comment = "packets on their way out of the namespace, and back".to_owned();
        if let Some(Wanted { label, .. }) = wanted {
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            comment = format!("{label}: {}", texts.join(", "));
        }
        let interface = pcapng::Interface {
            name: &source.name,
            comment: &comment,
            snaplen: options.snaplen.unwrap_or_default(),
        };
        pcapng::interface(output.buffer(), &interface);
        sources.push(source);
    }
    restrict().context("cannot give up privileges")?;
    Ok((sources, signals))
}

/// Links by index, each with the addresses whose packets are wanted; all packets are without an address.
type Links = BTreeMap<u32, Vec<IpAddr>>;

fn outwards() -> anyhow::Result<Links> {
    let mut rt = Rt::open()?;
    let routes = OUTWARDS.iter().filter_map(|to| rt.route(*to).ok());
    let links: Links = routes
        .filter_map(|route| match route {
            Route::Link { index, .. } => Some((index, Vec::new())),
            Route::Local | Route::Nowhere => None,
        })
        .collect();
    if links.is_empty() {
        bail!(
            "no interface leads out of the namespace: it has no default route\nhint: use --container"
        );
    }
    Ok(links)
}

fn links_of(wanted: &Wanted) -> anyhow::Result<Links> {
    let mut rt = Rt::open()?;
    let (mut links, mut elsewhere) = (Links::new(), Vec::new());
    for (ip, network) in &wanted.addresses {
        match rt.route(*ip) {
            Ok(Route::Link { index, by_gateway: false }) => {
                links.entry(index).or_default().push(*ip);
            }
            Ok(Route::Local) => {
                bail!(
                    "{ip} is an address of the namespace itself\n\
                     hint: to see what a container exchanges with it, use --container NAME --host {ip}"
                )
            }
            Ok(Route::Link { .. } | Route::Nowhere) | Err(_) => {
                let network = network.as_ref().map(|name| format!(" (network {name:?})"));
                elsewhere.push(format!("{ip}{}", network.unwrap_or_default()));
            }
        }
    }
    let elsewhere = elsewhere.join(", ");
    if links.is_empty() {
        bail!(
            "no interface of the namespace leads directly to {}: {elsewhere}\n\
             hint: overlay, macvlan and ipvlan networks are not supported; omit --container to capture \
             all packets that leave the namespace",
            wanted.label
        );
    }
    if !elsewhere.is_empty() {
        // Nothing is left to do if this fails.
        let line = "warning: no interface of the namespace is connected to these addresses";
        writeln!(io::stderr(), "{line}: {elsewhere}").ok();
    }
    Ok(links)
}

fn open(index: u32, addresses: &[IpAddr], options: &Options) -> anyhow::Result<Source> {
    let name = if_indextoname(index).with_context(|| format!("cannot name interface {index}"))?;
    let name = name.to_string_lossy().into_owned();
    let shown = visible(&name);
    let mut groups = vec![addresses.to_vec(), options.hosts.clone()];
    groups.retain(|group| !group.is_empty());
    let filter = Filter {
        addresses: groups,
        ports: options.ports.clone(),
        snaplen: options.snaplen.unwrap_or(WHOLE),
    };
    // Packets between two containers pass a bridge by, unless it listens to everything.
    let promiscuous = !addresses.is_empty();
    let capture = Capture::open(index, &filter.program(), promiscuous).map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(EAFNOSUPPORT) => "\nhint: load the kernel module af_packet",
            Some(ENOMEM | EINVAL) => {
                "\nhint: use fewer --host and --port flags, or let an administrator raise net.core.optmem_max"
            }
            _ => "",
        };
        anyhow::anyhow!("cannot capture on interface {shown}: {error}{hint}")
    })?;
    let hardware =
        capture.hardware().with_context(|| format!("cannot look at interface {shown}"))?;
    if ![ARPHRD_ETHER, ARPHRD_LOOPBACK].contains(&hardware) {
        bail!(
            "cannot capture on interface {shown}: it is not an Ethernet interface (type {hardware})"
        );
    }
    Ok(Source { name, capture, delivered: 0, open: true })
}

/// A packet that takes over this process gets no files, no privileges and few system calls; it could connect to what the
/// namespace reaches, as the gateway process does.
#[cfg(feature = "gateway")]
fn restrict() -> anyhow::Result<()> {
    let report = gateway::sandbox::enter()?;
    tracing::debug!("{report:?}");
    Ok(())
}

/// What is left of the sandbox in a build without the gateway.
#[cfg(not(feature = "gateway"))]
fn restrict() -> anyhow::Result<()> {
    use caps::CapSet;
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    Ok(nix::sys::prctl::set_no_new_privs()?)
}
