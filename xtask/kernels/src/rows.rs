//! The rows of the page, and what they mean.

/// A row: `GROUP/NAME` as trials print it, and what people read.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The code with which `check` predicts that it does not work.
    pub(crate) code: Option<&'static str>,
    /// Words of the warning at the start of rootlesskit that says so.
    pub(crate) warning: Option<&'static str>,
}

/// Rows under a heading.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) rows: &'static [Row],
}

const fn row(id: &'static str, title: &'static str) -> Row {
    Row { id, title, code: None, warning: None }
}

const fn predicted(id: &'static str, title: &'static str, code: &'static str) -> Row {
    Row { id, title, code: Some(code), warning: None }
}

const fn warned(id: &'static str, title: &'static str, warning: &'static str) -> Row {
    Row { id, title, code: None, warning: Some(warning) }
}

/// In the warning about a pasta that is too old.
const OLD: &str = "is too old";

pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "Without root: `--net=gateway --port-driver=gateway --ipv6`",
        rows: &[
            predicted("gateway/start", "starts", "gateway-fails"),
            row("gateway/tcp4", "outbound TCP, IPv4"),
            row("gateway/tcp6", "outbound TCP, IPv6"),
            row("gateway/udp4", "outbound UDP, IPv4"),
            row("gateway/udp6", "outbound UDP, IPv6"),
            predicted("gateway/ping4", "ping, IPv4", "ping"),
            predicted("gateway/ping6", "ping, IPv6", "ping"),
            row("gateway/name", "DNS"),
            row(
                "gateway/published4",
                "published TCP port: the server sees the client's IPv4 address",
            ),
            row(
                "gateway/published6",
                "published TCP port: the server sees the client's IPv6 address",
            ),
            row(
                "gateway/loopback4",
                "published TCP port: a server on 127.0.0.1 sees the client's IPv4 address",
            ),
            row(
                "gateway/datagrams4",
                "published UDP port: the server sees the client's IPv4 address",
            ),
            row("gateway/end", "leaves nothing behind"),
        ],
    },
    Section {
        title: "Without root: `--net=slirp4netns --port-driver=builtin --ipv6`",
        rows: &[
            row("slirp4netns/start", "starts"),
            row("slirp4netns/tcp4", "outbound TCP, IPv4"),
            row("slirp4netns/tcp6", "outbound TCP, IPv6"),
            row("slirp4netns/udp4", "outbound UDP, IPv4"),
            row("slirp4netns/udp6", "outbound UDP, IPv6"),
            predicted("slirp4netns/ping4", "ping, IPv4", "ping"),
            predicted("slirp4netns/ping6", "ping, IPv6", "ping"),
            row("slirp4netns/name", "DNS"),
            row(
                "slirp4netns/published4",
                "published TCP port: the server sees the client's IPv4 address",
            ),
            row(
                "slirp4netns/published6",
                "published TCP port: the server sees the client's IPv6 address",
            ),
            row("slirp4netns/end", "leaves nothing behind"),
        ],
    },
    Section {
        title: "Without root: `--net=pasta --port-driver=implicit --ipv6`",
        rows: &[
            row("pasta/start", "starts"),
            row("pasta/tcp4", "outbound TCP, IPv4"),
            row("pasta/tcp6", "outbound TCP, IPv6"),
            row("pasta/udp4", "outbound UDP, IPv4"),
            row("pasta/udp6", "outbound UDP, IPv6"),
            predicted("pasta/ping4", "ping, IPv4", "ping"),
            predicted("pasta/ping6", "ping, IPv6", "ping"),
            row("pasta/name", "DNS"),
            warned(
                "pasta/published4",
                "published TCP port: the server sees the client's IPv4 address",
                OLD,
            ),
            warned(
                "pasta/published6",
                "published TCP port: the server sees the client's IPv6 address",
                OLD,
            ),
            row("pasta/end", "leaves nothing behind"),
        ],
    },
    Section {
        title: "Without root: Docker",
        rows: &[
            row("docker/install", "`dockerd-rootless-setuptool.sh install`"),
            row("docker/daemon", "the daemon answers"),
            row("docker/network", "it uses the network driver that `check` predicts"),
            row("docker/image", "an image is imported"),
            predicted(
                "docker/storage",
                "the storage driver does not copy all files of an image (as `vfs` does)",
                "overlay",
            ),
            row("docker/tcp4", "outbound TCP of a container"),
            row("docker/name", "DNS in a container"),
            predicted("docker/ping4", "ping in a container", "ping"),
            row("docker/run", "a container with a published port starts"),
            predicted("docker/published4", "its server sees the client's address", "ports-relayed"),
            row("docker/published6", "it answers over IPv6"),
            row("docker/echo", "a container with a published UDP port starts"),
            predicted("docker/datagrams4", "its server sees the client's address", "ports-relayed"),
            row("docker/build", "an image is built"),
            row("docker/built", "a container from this image runs"),
            predicted("limits/--memory", "`--memory`", "cgroup-delegation"),
            predicted("limits/--pids-limit", "`--pids-limit`", "cgroup-delegation"),
            predicted("limits/--cpus", "`--cpus`", "cgroup-delegation"),
            predicted("limits/--cpuset-cpus", "`--cpuset-cpus`", "cgroup-delegation"),
            predicted(
                "limits/--device-read-bps, --device-write-bps",
                "`--device-read-bps`, `--device-write-bps`, for a volume",
                "cgroup-delegation",
            ),
        ],
    },
    Section {
        title: "With the commands that `check` prints for root",
        rows: &[
            row("prepared/check", "`check` shows no more errors, warnings or commands"),
            row("prepared/ping4", "ping in a container"),
            row("prepared/--memory", "`--memory`"),
            row("prepared/--pids-limit", "`--pids-limit`"),
            row("prepared/--cpus", "`--cpus`"),
            row("prepared/--cpuset-cpus", "`--cpuset-cpus`"),
            row(
                "prepared/--device-read-bps, --device-write-bps",
                "`--device-read-bps`, `--device-write-bps`, for a volume",
            ),
        ],
    },
    Section {
        title: "After a restart of the machine",
        rows: &[
            row("again/running", "the container runs before any user logs in"),
            predicted("again/published4", "its server sees the client's address", "ports-relayed"),
        ],
    },
    Section {
        title: "Stop and uninstall",
        rows: &[
            row("end/stop", "the daemon stops"),
            row("end/processes", "no process remains"),
            row("end/purge", "`uninstall --purge`"),
            row("end/gone", "no data remains"),
        ],
    },
];

/// All rows.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|section| section.rows)
}
