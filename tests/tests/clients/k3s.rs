//! k3s, which links the original's library and so cannot be given another program: what it asks of that library, as
//! flags, and what its controller of load balancers asks of the API.

use serde_json::{Value, json};
use tests::{As, Context as _, PATIENCE, Result, Running, Suite, TestBox, ensure, wait};

use crate::kit::{Api, delegated, ready, stop};

const STATE: &str = "/run/user/1001/k3s/rootless";

/// Namespaces of its own for processes, control groups, names and semaphores; an init; a network that does not overlap
/// with those of pods; `/var/run` beside `/run`, of which it is a link.
const FLAGS: &str = "--state-dir=/run/user/1001/k3s/rootless --net=slirp4netns --cidr=10.41.0.0/16 --disable-host-loopback \
    --pidns --cgroupns --utsns --ipcns --reaper=true --evacuate-cgroup2=k3s_evac \
    --copy-up=/etc --copy-up=/var/run --copy-up=/run --copy-up=/var/lib";

/// What the server needs of its surroundings: folders that it can write to, groups below its own, an address.
const SERVER: &str = r#"set -e
mkdir /var/lib/rancher /run/k3s /etc/rancher; touch /var/run/flannel
[ -e /run/flannel ]
for d in /etc /run /var/lib; do [ "$(stat -f -c %T $d)" = tmpfs ]; done
[ "$(tail -n1 /proc/self/cgroup)" = 0::/k3s_evac ]
mkdir /sys/fs/cgroup/kubepods; rmdir /sys/fs/cgroup/kubepods
hostname k3s-server
ip -o addr show dev tap0 | grep -q ' 10.41.0.100/16 '
[ $$ != 1 ]
setsid -f true
exec fixture http [::]:80 traefik"#;

fn server<'b>(b: &'b TestBox, driver: &str) -> Result<Running<'b>> {
    let script = format!("exec rootlesskit {FLAGS} --port-driver={driver} sh -c \"$SERVER\"");
    ready(delegated(b, &script).env("SERVER", SERVER))
}

/// A port of a service of the type LoadBalancer; those that a user may not have are moved by 10000. No address.
fn port(number: u16) -> Value {
    let parent = if number < 1024 { number + 10_000 } else { number };
    json!({ "proto": "tcp", "parentPort": parent, "childPort": number })
}

/// One round of the controller: what is published and not wanted goes, what is wanted and not published comes.
fn round(api: &Api<'_>, wanted: &[Value]) -> Result<()> {
    let list = api.list()?;
    for one in list.iter().filter(|one| !wanted.contains(&one["spec"])) {
        api.remove(one["id"].as_i64().context("no id")?)?;
    }
    for spec in wanted.iter().filter(|spec| !list.iter().any(|one| one["spec"] == **spec)) {
        api.add(spec)?;
    }
    let specs: Vec<Value> = api.list()?.iter().map(|one| one["spec"].clone()).collect();
    ensure!(specs.len() == wanted.len() && wanted.iter().all(|w| specs.contains(w)), "{specs:?}");
    Ok(())
}

fn asks(b: &TestBox, who: As, address: &str) -> Result<Option<String>> {
    let out = b.argv(who, &["fixture", "get", address]).run()?;
    Ok((out.code == 0).then_some(out.stdout))
}

/// With `driver`, a port without an address answers at `open`.
fn life(driver: &str, open: &[(As, &str)]) -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = server(&b, driver)?;
    // It waits for the socket for 30 seconds; here the socket is older than the target.
    let api = Api { b: &b, dir: STATE };
    assert_eq!(api.info()?["networkDriver"]["childIP"], "10.41.0.100");
    round(&api, &[port(80), port(8443)])?;
    for (who, host) in open {
        let got = asks(&b, *who, &format!("{host}:10080"))?;
        ensure!(got.is_some_and(|page| page.starts_with("traefik from ")), "{who:?} at {host}");
    }
    round(&api, &[port(8443)])?;
    ensure!(asks(&b, As::User, "127.0.0.1:10080")?.is_none(), "still published");
    round(&api, &[])?;
    assert_eq!(b.root("hostname").ok()?, "testbox\n");
    wait::until_true("no zombie is left", PATIENCE, || {
        Ok(b.user_processes().iter().all(|p| p.state != 'Z'))
    })?;
    stop(kit)?;
    b.root("rmdir /run/user/1001/k3s").run()?;
    b.assert_clean(&[])
}

#[test]
fn k3s_with_builtin_publishes_on_both_families() -> Result<()> {
    let six = [(As::User, "[::1]"), (As::Peer, "[fd77::1]")];
    let four = [(As::User, "127.0.0.1"), (As::User, "10.77.0.1"), (As::Peer, "10.77.0.1")];
    life("builtin", &[four.as_slice(), &six].concat())
}

#[test]
fn k3s_with_the_ports_of_slirp4netns() -> Result<()> {
    life("slirp4netns", &[(As::User, "127.0.0.1"), (As::Peer, "10.77.0.1")])
}
