//! The host of a soak: a box with an account for each rootlesskit, and servers on the other machine.

use anyhow::{Context as _, Result, ensure};
use tests::docker::Docker;
use tests::{As, Cmd, PATIENCE, Running, Suite, TestBox, Under, kit, wait};
use xtask_support::host;

use crate::record::{GATEWAY_PROCESS, Label, Machine};

/// What every rootlesskit of the soak is told.
const FLAGS: &str = "--ipv6 --disable-host-loopback --copy-up=/etc --copy-up=/run";

/// Both files that the host's `/etc/resolv.conf` alternates between, by what their name server answers.
pub(crate) const RESOLVERS: [(&str, &str); 2] =
    [("first", "nameserver 10.77.0.2\n"), ("second", "nameserver 10.77.0.3\n")];

/// A user of the box, made for the soak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) name: &'static str,
    pub(crate) uid: u32,
}

/// How an instance is started and reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) label: Label,
    pub(crate) account: Account,
    drivers: &'static str,
    /// The published ports of its servers: TCP, and UDP on the next one.
    pub(crate) port: u16,
    /// The process whose death it survives.
    pub(crate) helper: &'static str,
    /// Whether the host's loopback stands for the clients of UDP ports.
    pub(crate) hides_datagrams: bool,
}

pub(crate) const GATEWAY: Kind = Kind {
    label: Label::Gateway,
    account: Account { name: "soak-gateway", uid: 2001 },
    drivers: "--net=gateway --port-driver=gateway",
    port: 8080,
    helper: GATEWAY_PROCESS,
    hides_datagrams: false,
};

pub(crate) const SLIRP4NETNS: Kind = Kind {
    label: Label::Slirp4netns,
    account: Account { name: "soak-slirp", uid: 2002 },
    drivers: "--net=slirp4netns --mtu=65520 --port-driver=builtin",
    port: 9080,
    helper: "slirp4netns",
    hides_datagrams: true,
};

/// Where the servers of the container are published.
pub(crate) const CONTAINER_PORT: u16 = 7080;

/// A running rootlesskit with servers in its namespace.
#[derive(Debug)]
pub(crate) struct Instance<'b> {
    pub(crate) b: &'b TestBox,
    pub(crate) kind: Kind,
    // Servers end before the namespace does.
    _servers: Vec<Running<'b>>,
    kit: Running<'b>,
}

impl<'b> Instance<'b> {
    pub(crate) fn start(b: &'b TestBox, kind: Kind) -> Result<Self> {
        let Kind { account: Account { name, uid }, drivers, port, .. } = kind;
        b.root(&format!(
            "useradd --create-home --uid {uid} --shell /bin/bash {name}
             install -d -m 700 -o {uid} -g {uid} /run/user/{uid}"
        ))
        .ok()
        .with_context(|| format!("making the account {name}"))?;
        let udp = port + 1;
        let publish = format!(
            "-p 0.0.0.0:{port}:80/tcp4 -p [::]:{port}:80/tcp6 -p 0.0.0.0:{udp}:81/udp4 -p [::]:{udp}:81/udp6"
        );
        let state = state_dir(kind);
        let line = format!(
            "exec rootlesskit --state-dir={state} {drivers} {FLAGS} {publish} \
             sh -c 'echo up; exec sleep infinity'"
        );
        let mut kit = as_account(b, kind, &line).spawn()?;
        wait::until_true("the target runs", PATIENCE, || {
            ensure!(kit.alive()?, "rootlesskit of {name} ended: {}", kit.printed()?);
            Ok(kit.printed()?.contains("up\n"))
        })?;
        let mut this = Self { b, kind, _servers: Vec::new(), kit };
        for server in ["streams [::]:80", "udp-echo [::]:81"] {
            let server = kit::ready(this.inside(&format!("exec fixture {server}")))?;
            this._servers.push(server);
        }
        Ok(this)
    }

    /// A shell line as root of its namespaces.
    pub(crate) fn inside(&self, script: &str) -> Cmd<'b> {
        let state = state_dir(self.kind);
        let enter = format!(
            "exec nsenter -U -m -n --preserve-credentials -t $(cat {state}/child_pid) sh -c \"$INSIDE\""
        );
        as_account(self.b, self.kind, &enter).env("INSIDE", script)
    }

    /// `rootlessctl ARGS` for it.
    pub(crate) fn ctl(&self, args: &str) -> Cmd<'b> {
        let socket = format!("{}/api.sock", state_dir(self.kind));
        as_account(self.b, self.kind, &format!("exec rootlessctl --socket {socket} {args}"))
    }

    /// What it logged.
    pub(crate) fn log(&self) -> Result<String> {
        self.kit.printed()
    }

    /// Ends it in order.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { kind, kit, _servers: servers, .. } = self;
        drop(servers);
        kit.signal("TERM")?;
        // The target, sleep(1), ends by the signal that is passed on to it.
        kit.wait(PATIENCE).with_context(|| format!("stopping {}", kind.label)).map(drop)
    }
}

fn state_dir(kind: Kind) -> String {
    format!("/run/user/{}/soak", kind.account.uid)
}

/// A shell line as an account.
fn as_account<'b>(b: &'b TestBox, kind: Kind, script: &str) -> Cmd<'b> {
    let Account { name, uid } = kind.account;
    let become_it = format!(
        "cd /home/{name} && exec setpriv --reuid={uid} --regid={uid} --init-groups env HOME=/home/{name} \
         USER={name} XDG_RUNTIME_DIR=/run/user/{uid} sh -c \"$SCRIPT\""
    );
    b.root(&become_it).env("SCRIPT", script)
}

/// A box of the suite that has the newest Docker and slirp4netns.
pub(crate) fn boot() -> Result<TestBox> {
    TestBox::builder(Suite::Sid).under(Under::Ours).boot()
}

/// Starts the servers of the other machine: streams, datagrams, and two name servers that answer differently.
pub(crate) fn serve(b: &TestBox) -> Result<Vec<Running<'_>>> {
    b.stop_name_server()?;
    b.root("ip -n peer address add 10.77.0.3/24 dev eth1").ok()?;
    let all = [
        "streams [::]:80",
        "udp-echo [::]:81",
        "names 10.77.0.2:53 first",
        "names 10.77.0.3:53 second",
    ];
    let all = all.map(|command| kit::serve(b, As::Peer, command));
    all.into_iter().collect()
}

/// Starts dockerd with a container whose servers are published.
pub(crate) fn docker(b: &TestBox) -> Result<Docker<'_>> {
    let env = [
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway"),
        ("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "gateway"),
    ];
    let d = Docker::start(b, &env)?;
    d.import()?;
    let udp = CONTAINER_PORT + 1;
    for (name, publish, verb) in [
        ("streams", format!("-p {CONTAINER_PORT}:80"), "streams 0.0.0.0:80"),
        ("echo", format!("-p {udp}:81/udp"), "udp-echo 0.0.0.0:81"),
    ] {
        tests::containers::serve(&d, name, &publish, verb)?;
    }
    Ok(d)
}

/// The machine, and the programs that the soak uses.
pub(crate) fn machine(b: &TestBox, d: &Docker<'_>) -> Result<Machine> {
    let first = |script: &str| -> Result<String> {
        let text = b.user(script).ok()?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(Machine {
        date: first("date -u +%F")?,
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        model: host::processor_model(),
        kernel: host::kernel_release(),
        versions: vec![
            first("rootlesskit --version")?,
            first("slirp4netns --version")?,
            format!("Docker {}", d.run("version --format '{{.Server.Version}}'")?.trim()),
        ],
    })
}
