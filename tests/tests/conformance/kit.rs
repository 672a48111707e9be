//! A host for one network driver, and a running rootlesskit in it.

use tests::{
    As, Context as _, Output, PATIENCE, Result, Running, Suite, TestBox, ensure, networks, wait,
};

use crate::ports::{self, ByFlags};

/// Port of the servers in the namespace that nobody has to publish; the following ones are for ports that are published.
/// slirp4netns does not serve two UDP ports that lead to the same one.
pub(crate) const SERVER: u16 = 5080;
/// The other machine, with servers of both protocols there.
pub(crate) const PEER: &str = "10.77.0.2:9000";
pub(crate) const PEER6: &str = "[fd77::2]:9000";
/// Port of the servers on the host's loopback.
pub(crate) const LOOPBACK: u16 = 9001;
/// Port of further ones, which the gateway leaves open when the rest is closed.
pub(crate) const OPEN: u16 = 9002;

/// What is asked for beyond the names of the drivers in the second of two looks.
const FULL: &str = "--mtu=1400 --disable-host-loopback";

/// The flag that opens a port of the host's loopback.
pub(crate) fn allow() -> String {
    format!("--host-loopback-allow=tcp:{OPEN}")
}

/// What the DHCP server lends. It does not ask by ping first whether an address is free, which takes seconds.
const DHCP: &str = "--no-ping --dhcp-range=10.0.3.100,10.0.3.249,2m";

/// The host.
pub(crate) struct Host {
    pub(crate) b: TestBox,
    pub(crate) network: &'static str,
}

impl Host {
    pub(crate) fn boot(network: &'static str) -> Result<Self> {
        let b = TestBox::boot(Suite::Sid)?;
        // The host has no such machines; without this it would ask the other one, which says nothing.
        b.root("ip route add unreachable 10.0.2.0/24; ip route add unreachable 192.168.65.0/24")
            .ok()?;
        match network {
            "vpnkit" => networks::vpnkit(&b)?,
            "lxc-user-nic" => networks::lxc_bridge(&b)?,
            _ => {}
        }
        Ok(Self { b, network })
    }

    /// What the namespaces talk to, and a DHCP server if it takes one.
    pub(crate) fn services(&self) -> Result<Vec<Running<'_>>> {
        let here = [LOOPBACK, OPEN].map(|port| (As::Root, format!("127.0.0.1:{port}")));
        let mut all = Vec::new();
        for (who, address) in [(As::Peer, "[::]:9000".to_owned())].into_iter().chain(here) {
            for verb in ["tcp-echo", "udp-echo"] {
                let server = self.b.argv(who, &["fixture", verb, &address]).spawn()?;
                all.push(says(server, "ready")?);
            }
        }
        if self.network == "lxc-user-nic" {
            all.push(networks::dhcp_server(&self.b, DHCP)?);
        }
        Ok(all)
    }

    /// Whether `--ipv6` is refused, not just of no effect.
    pub(crate) fn refuses_ipv6(&self) -> bool {
        self.network == "gvisor-tap-vsock"
    }

    /// Whether it can open single ports of the host's loopback.
    pub(crate) fn opens_ports(&self) -> bool {
        self.network == "gateway"
    }

    /// The program that can be killed.
    pub(crate) fn helper(&self) -> Option<&'static str> {
        match self.network {
            "gateway" | "gvisor-tap-vsock" => Some("rootlesskit-gateway"),
            "pasta" | "slirp4netns" | "vpnkit" => Some(self.network),
            _ => None,
        }
    }

    /// Fails if something is left, but for the list that lxc-user-nic keeps of who has how many.
    pub(crate) fn assert_clean(&self) -> Result<()> {
        self.b.assert_clean(networks::LEFT_BY_LXC)
    }
}

/// Waits until a program has printed something.
pub(crate) fn says<'b>(mut running: Running<'b>, words: &str) -> Result<Running<'b>> {
    wait::until_true(words, PATIENCE, || {
        ensure!(running.alive()?, "it ended: {}", running.printed()?);
        Ok(running.printed()?.contains(words))
    })?;
    Ok(running)
}

/// A rootlesskit whose target serves TCP and UDP in the namespace.
pub(crate) struct Kit<'h> {
    pub(crate) host: &'h Host,
    pub(crate) port: &'static str,
    pub(crate) detached: bool,
    /// Whether it has the flags of [`FULL`], and `--ipv6` and [`allow`] if they are not refused.
    pub(crate) full: bool,
    pub(crate) published: ByFlags,
    running: Running<'h>,
}

/// Enters the namespaces of the target, as its root; in detached mode its network is in a file, and that of the host is
/// where we are.
const ENTER: &str = "nsenter -U -m --preserve-credentials -t $(cat /tmp/s/child_pid)";

/// What the target does.
const TARGET: &str = "in=$([ ! -e /tmp/s/netns ] || echo nsenter -n/tmp/s/netns); all=
     for port in 5080 5081 5082 5083; do for proto in tcp udp; do
         $in fixture $proto-echo [::]:$port & all=\"$all $!\"
     done; done
     trap \"kill $all\" TERM; wait; wait";

impl<'h> Kit<'h> {
    /// Starts it with all ports that are not refused; `published` is the answer of the first time.
    pub(crate) fn start(
        host: &'h Host,
        port: &'static str,
        detached: bool,
        full: bool,
        published: &mut Option<ByFlags>,
    ) -> Result<Self> {
        let mut flags = format!(
            "--net={} --port-driver={port} --copy-up=/etc --copy-up=/run --debug",
            host.network
        );
        let allow = allow();
        for (on, flag) in [
            (detached, "--detach-netns"),
            (full, FULL),
            (full && !host.refuses_ipv6(), "--ipv6"),
            (full && host.opens_ports(), &*allow),
        ] {
            if on {
                flags.push(' ');
                flags.push_str(flag);
            }
        }
        let published = match published {
            Some(known) => known.clone(),
            None => published.insert(ports::by_flags(host, &flags)?).clone(),
        };
        let publish = &published.flags;
        let line =
            format!("exec rootlesskit --state-dir=/tmp/s {flags} {publish} sh -c \"$TARGET\"");
        let mut running = host.b.user(&line).env("TARGET", TARGET).spawn()?;
        wait::until_true("the servers of the target listen", PATIENCE, || {
            ensure!(running.alive()?, "{flags}: it ended: {}", running.printed()?);
            Ok(running.printed()?.matches("ready\n").count() == 8)
        })?;
        Ok(Self { host, port, detached, full, published, running })
    }

    /// A script in the network of the target.
    pub(crate) fn inside(&self, script: &str) -> Result<Output> {
        let network = match (self.detached, self.host.network) {
            (true, _) => "nsenter -n/tmp/s/netns",
            (false, "host") => "",
            (false, _) => "-n",
        };
        let line = format!("exec {ENTER} {network} sh -c \"$SCRIPT\"");
        self.host.b.user(&line).env("SCRIPT", script).run()
    }

    /// Asks servers of the host, one line of the result for each.
    pub(crate) fn ask(&self, who: As, targets: &[String]) -> Result<Vec<Seen>> {
        let targets: Vec<_> = targets.iter().map(|target| (target.clone(), 0)).collect();
        let out = self.host.b.argv(who, &["sh", "-c", &asking(&targets)]).run()?;
        Seen::all(&out, &targets)
    }

    /// Asks servers from the network of the target; each as many times more, while there is no answer, as it says.
    pub(crate) fn ask_from_inside(&self, targets: &[(String, u32)]) -> Result<Vec<Seen>> {
        Seen::all(&self.inside(&asking(targets))?, targets)
    }

    /// Kills the helper and waits until there is another; `false` without one.
    pub(crate) fn kill_helper(&self) -> Result<bool> {
        let Some(name) = self.host.helper() else { return Ok(false) };
        // pasta goes by the name of the processor that it was built for.
        let mut found = self.host.b.user_processes().into_iter();
        let helper = found.rfind(|p| p.program().starts_with(name));
        self.host.b.signal(helper.with_context(|| format!("there is no {name}"))?.pid, "KILL")?;
        wait::until_true("the helper is replaced", PATIENCE, || {
            Ok(self.running.printed()?.contains("is running again"))
        })?;
        Ok(true)
    }

    /// Ends it in order; nothing is left.
    pub(crate) fn stop(self) -> Result<()> {
        self.running.signal("TERM")?;
        self.running.wait(PATIENCE)?;
        self.host.assert_clean()
    }
}

/// Whom a server sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The client's own address and port.
    Own,
    /// The client's own address with another port.
    OwnAddress,
    /// This address.
    Other(String),
    /// Nobody: there was no answer.
    Nothing,
}

impl Seen {
    fn all(out: &Output, targets: &[(String, u32)]) -> Result<Vec<Self>> {
        let find = |(target, _): &(String, u32)| {
            let mut lines = out.stdout.lines().filter_map(|l| l.split_once(' '));
            let (_, answer) = lines
                .find(|(asked, _)| asked == target)
                .with_context(|| format!("nothing about {target}: {out}"))?;
            Self::of(answer)
        };
        targets.iter().map(find).collect()
    }

    /// Reads what `fixture who` prints: the client's socket, and what the server says.
    fn of(answer: &str) -> Result<Self> {
        let Some((own, seen)) = answer.split_once(' ') else { return Ok(Self::Nothing) };
        let split = |text: &str| -> Result<(String, String)> {
            let (ip, port) = text.rsplit_once(':').context("an address with a port")?;
            Ok((ip.trim_matches(['[', ']']).to_owned(), port.to_owned()))
        };
        let (own, seen) = (split(own)?, split(seen)?);
        Ok(match (own.0 == seen.0, own.1 == seen.1) {
            (true, true) => Self::Own,
            (true, false) => Self::OwnAddress,
            (false, _) => Self::Other(seen.0),
        })
    }

    pub(crate) fn answered(&self) -> bool {
        *self != Self::Nothing
    }
}

/// A script that asks all of `tcp/ADDRESS` and `udp/ADDRESS` at the same time.
fn asking(targets: &[(String, u32)]) -> String {
    let one = "one() { n=0; until a=$(fixture who ${1%%/*} ${1#*/} 2>/dev/null) || [ $n = $2 ]; do n=$((n+1)); sleep 0.1; done; \
         echo \"$1 ${a:--}\"; }";
    let line = |(target, again): &(String, u32)| format!("one '{target}' {again} &\n");
    format!("{one}\n{}wait", targets.iter().map(line).collect::<String>())
}
