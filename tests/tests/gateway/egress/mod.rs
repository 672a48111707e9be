//! The egress policy without Docker: two namespaces behind a masquerade are containers with fixed addresses.

mod changes;
mod dry_run;
mod files;
mod names;
mod rules;

use serde_json::Value;
use tests::egress::{self, serve, write};
use tests::{Cmd, Context as _, Result, Running, TestBox, ensure};

use crate::kit::{FLAGS, Net};

/// The policy of a scenario.
const FILE: &str = "/home/tester/egress.toml";

/// The flags with it.
fn flags(more: &str) -> String {
    format!("{FLAGS} --egress-policy={FILE} {more}")
}

/// The addresses of the containers.
const ONE: &str = "172.20.0.2";
const TWO: &str = "172.21.0.2";

/// Makes two namespaces behind a masquerade, which outlive the shell, and prints a process of each.
const CONTAINERS: &str = "
    set -e
    echo 1 >/proc/sys/net/ipv4/ip_forward
    nft 'add table ip m; add chain ip m out { type nat hook postrouting priority srcnat; }'
    nft 'add rule ip m out oifname tap0 masquerade'
    for n in 0 1; do
        setsid unshare -n sleep 3600 </dev/null >/dev/null 2>&1 & c=$!
        until [ \"$(readlink /proc/$c/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
        ip link add c$n type veth peer name eth0 netns $c
        ip addr add 172.2$n.0.1/24 dev c$n
        ip link set c$n up
        nsenter -t $c -n sh -ec \"
            ip link set lo up
            ip addr add 172.2$n.0.2/24 dev eth0
            ip link set eth0 up
            ip route add default via 172.2$n.0.1\"
        echo $c
    done";

/// Somebody who begins something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// No container.
    Namespace,
    One,
    Two,
}

/// A rootlesskit with two containers.
struct Egress<'b> {
    net: Net<'b>,
    pids: Vec<String>,
    _servers: Vec<Running<'b>>,
}

impl<'b> Egress<'b> {
    fn start(b: &'b TestBox, more: &str, policy: &str) -> Result<Self> {
        write(b, FILE, policy)?;
        let servers = serve(b)?;
        let net = Net::with(b, &flags(more))?;
        let printed = net.inside(CONTAINERS).ok()?;
        let pids: Vec<_> = printed.lines().map(str::to_owned).collect();
        ensure!(pids.len() == 2, "{printed}");
        Ok(Self { net, pids, _servers: servers })
    }

    /// A shell line there.
    fn command(&self, who: Who, script: &str) -> Cmd<'b> {
        let pid = match who {
            Who::Namespace => return self.net.inside(script),
            Who::One => &self.pids[0],
            Who::Two => &self.pids[1],
        };
        self.net.inside(&format!("exec nsenter -t {pid} -n sh -c \"$LINE\"")).env("LINE", script)
    }

    /// Fails unless these are the outcomes, see [`egress::outcomes`].
    fn expect(&self, who: Who, expected: &[(&str, &str)]) -> Result<()> {
        egress::expect(|line| self.command(who, line), expected).with_context(|| format!("{who:?}"))
    }

    /// Waits until an attempt ends like this.
    fn becomes(&self, who: Who, target: &str, outcome: &str) -> Result<()> {
        egress::becomes(|expected| self.expect(who, expected), target, outcome)
    }

    /// Something that goes on, see `fixture keep`.
    fn keep(&self, who: Who, how: &str, address: &str) -> Result<Running<'b>> {
        egress::keep(|line| self.command(who, line), how, address)
    }

    /// `rootlessctl policy show --json`.
    fn show(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.net.ctl("policy show --json").ok()?)?)
    }

    /// What `rootlessctl policy test` says, and its exit status.
    fn tested(&self, from: &str, to: &str, protocol: &str) -> Result<(i32, String)> {
        let args = format!("policy test --from {from} --to '{to}' --protocol {protocol}");
        let out = self.net.ctl(&args).run()?;
        Ok((out.code, format!("{}{}", out.stdout, out.stderr)))
    }

    /// Ends it, and leaves nothing behind; without its file, the policy stays in force.
    fn stop(self) -> Result<()> {
        self.net.inside(&format!("kill {}", self.pids.join(" "))).ok()?;
        self.net.b.user("rm -f egress.toml zone").ok()?;
        self.net.stop()
    }
}
