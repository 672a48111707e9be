//! Which charts there are, and what each of them shows.

use plotters::style::RGBColor;

use crate::results::{Program, Results};
use crate::sheet::Side;

/// Sides with their labels. `{theirs}` in a label is RootlessKit with its version.
type Series = &'static [(Side, &'static str)];

/// A chart of horizontal bars.
#[derive(Debug)]
pub(super) struct Bars {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    /// Whether all panels have one scale.
    pub(super) shared: bool,
    pub(super) panels: &'static [Panel],
}

/// One row of the benchmark, with a bar for each side.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) row: &'static str,
    /// The part of the benchmark that measures the row.
    pub(super) part: &'static str,
    pub(super) series: Series,
}

/// A chart of figures against a number of ports.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    /// What the axes show.
    pub(super) axes: [&'static str; 2],
    /// Numbers and rows.
    pub(super) points: &'static [(f64, &'static str)],
    pub(super) series: Series,
}

const fn panel(
    part: &'static str,
    row: &'static str,
    title: &'static str,
    series: Series,
) -> Panel {
    Panel { title, row, part, series }
}

/// As users choose them.
const SPEED: Series = &[
    (Side::Gateway, "gateway"),
    (Side::GatewayBuiltin, "gateway + builtin"),
    (Side::Theirs, "{theirs}: slirp4netns"),
    (Side::PastaNet, "pasta"),
];

/// Forwarders of published ports.
const FORWARDERS: Series = &[
    (Side::Ours, "builtin"),
    (Side::Theirs, "{theirs}, builtin"),
    (Side::Pasta, "pasta alone"),
    (Side::Splice, "bare splice(2) proxy"),
];

/// The same where the proxy is not measured.
const REQUESTS: Series =
    &[(Side::Ours, "builtin"), (Side::Theirs, "{theirs}, builtin"), (Side::Pasta, "pasta alone")];

/// Those that publish over the API.
const PUBLISHERS: Series = &[(Side::Ours, "builtin"), (Side::Theirs, "{theirs}, builtin")];

/// Networks. The last one is a bridge that takes root.
const NETWORKS: Series = &[
    (Side::Gateway, "gateway"),
    (Side::Slirp, "slirp4netns"),
    (Side::PastaNet, "pasta"),
    (Side::Gvisor, "{theirs}: gvisor-tap-vsock"),
    (Side::Kernel, "bridge made by root"),
];

/// The same where processes count.
const PROCESSES: Series = &[
    (Side::Gateway, "gateway"),
    (Side::Slirp, "slirp4netns"),
    (Side::PastaNet, "pasta"),
    (Side::Gvisor, "{theirs}: gvisor-tap-vsock"),
];

/// Ports of containers.
const TO_CONTAINERS: Series =
    &[(Side::Gateway, "gateway"), (Side::DockerProxy, "builtin + docker-proxy")];

pub(super) const BARS: [Bars; 7] = [
    Bars {
        file: "speed.svg",
        title: "TCP throughput of one stream (more is better)",
        shared: true,
        panels: &[
            panel("speed", "speed.pub.up", "Published port, upload", SPEED),
            panel("speed", "speed.pub.down", "Published port, download", SPEED),
            panel("speed", "speed.out.up", "Outbound, upload", SPEED),
            panel("speed", "speed.out.down", "Outbound, download", SPEED),
        ],
    },
    Bars {
        file: "throughput-published.svg",
        title: "Throughput of published ports (more is better)",
        shared: true,
        panels: &[
            panel("tcp", "tcp.up1", "Upload, 1 stream", FORWARDERS),
            panel("tcp", "tcp.down1", "Download, 1 stream", FORWARDERS),
            panel("tcp", "tcp.up8", "Upload, 8 streams", FORWARDERS),
            panel("tcp", "tcp.down8", "Download, 8 streams", FORWARDERS),
        ],
    },
    Bars {
        file: "throughput-outbound.svg",
        title: "Throughput of outbound connections (more is better)",
        shared: true,
        panels: &[
            panel("net-tcp", "net.box.out1", "From a container, upload, 1 stream", NETWORKS),
            panel("net-tcp", "net.box.in1", "From a container, download, 1 stream", NETWORKS),
            panel("net-tcp", "net.box.out8", "From a container, upload, 8 streams", NETWORKS),
            panel("net-tcp", "net.box.in8", "From a container, download, 8 streams", NETWORKS),
            panel("net-tcp", "net.ns.out1", "From the namespace, upload, 1 stream", NETWORKS),
            panel("net-tcp", "net.ns.in1", "From the namespace, download, 1 stream", NETWORKS),
        ],
    },
    Bars {
        file: "connections.svg",
        title: "New TCP connections per second (more is better)",
        shared: false,
        panels: &[
            panel("conn", "conn.32", "Published port, 32 in flight", REQUESTS),
            panel("conn", "conn.1", "Published port, one by one", REQUESTS),
            panel(
                "net-published",
                "net.pub.conn32",
                "Published port of a container",
                TO_CONTAINERS,
            ),
            panel("net-conn", "net.box.conn32", "From a container, 32 in flight", NETWORKS),
            panel("net-conn", "net.ns.conn32", "From the namespace, 32 in flight", NETWORKS),
        ],
    },
    Bars {
        file: "requests.svg",
        title: "Requests per second over kept connections (more is better)",
        shared: false,
        panels: &[
            panel("keepalive", "keepalive.32", "Published port, 32 connections", REQUESTS),
            panel(
                "net-published",
                "net.pub.keep32",
                "Published port of a container",
                TO_CONTAINERS,
            ),
            panel("net-requests", "net.box.keep8", "From a container, 8 connections", NETWORKS),
            panel("net-requests", "net.box.keep32", "From a container, 32 connections", NETWORKS),
            panel("net-requests", "net.box.keep256", "From a container, 256 connections", NETWORKS),
        ],
    },
    Bars {
        file: "cpu.svg",
        title: "Processor time of the forwarder per GB (less is better)",
        shared: false,
        panels: &[
            panel("tcp", "tcp.up1.cpu", "Published port, upload, 1 stream", FORWARDERS),
            panel("tcp", "tcp.down1.cpu", "Published port, download, 1 stream", FORWARDERS),
            panel("net-tcp", "net.box.out1.cpu", "From a container, upload, 1 stream", PROCESSES),
            panel("net-tcp", "net.box.in1.cpu", "From a container, download, 1 stream", PROCESSES),
            panel("net-tcp", "net.ns.out1.cpu", "From the namespace, upload, 1 stream", PROCESSES),
            panel("net-tcp", "net.ns.in1.cpu", "From the namespace, download, 1 stream", PROCESSES),
        ],
    },
    Bars {
        file: "memory.svg",
        title: "Memory of the forwarder (PSS, less is better)",
        shared: false,
        panels: &[
            panel("memory", "memory.0", "Idle", PUBLISHERS),
            panel("memory", "memory.1000", "1,000 published ports", PUBLISHERS),
            panel("memory", "memory.10000", "10,000 published ports", PUBLISHERS),
            panel("net-memory", "net.mem.idle", "Network, idle", PROCESSES),
            panel("net-memory", "net.mem.1000", "Network, for 1,000 open connections", PROCESSES),
        ],
    },
];

pub(super) const PUBLISH: Lines = Lines {
    file: "publish.svg",
    title: "Time to publish ports, one by one over the API (less is better)",
    axes: ["ports", "seconds"],
    points: &[
        (1000.0, "publish.1000"),
        (2000.0, "publish.2000"),
        (4000.0, "publish.4000"),
        (6000.0, "publish.6000"),
        (8000.0, "publish.8000"),
        (10_000.0, "publish.10000"),
    ],
    series: PUBLISHERS,
};

/// What a series is called in the charts of a run.
pub(super) fn label(results: &Results, label: &str) -> String {
    label.replace("{theirs}", &theirs(results))
}

/// RootlessKit with its version. What a distribution adds to that after a plus sign would not fit.
fn theirs(results: &Results) -> String {
    let version = results.programs.get("theirs").and_then(Option::as_ref).map(Program::number);
    let version = version.and_then(|number| number.split('+').next()).unwrap_or_default();
    format!("RootlessKit {version}").trim_end().to_owned()
}

/// A side has the same colour in every chart. All of them stand out from white.
pub(super) fn color(side: Side) -> RGBColor {
    match side {
        Side::Ours | Side::Gateway | Side::GatewayRules | Side::GatewaySenders | Side::Overlay => {
            RGBColor(11, 92, 173)
        }
        Side::GatewayBuiltin => RGBColor(91, 155, 213),
        Side::Theirs => RGBColor(217, 120, 30),
        Side::Slirp | Side::Slirp1500 => RGBColor(142, 107, 191),
        Side::Pasta | Side::PastaNet | Side::Pasta1500 => RGBColor(58, 154, 91),
        Side::Gvisor => RGBColor(192, 80, 77),
        Side::DockerProxy => RGBColor(160, 120, 60),
        Side::Floor
        | Side::Splice
        | Side::Loopback
        | Side::Kernel
        | Side::GatewayBefore
        | Side::RootVxlan
        | Side::HostToHost => RGBColor(138, 143, 152),
    }
}
