//! usernetes: the first generation, which is a script around rootlesskit, replayed; of the second, which is a container
//! of a rootless Docker, what it asks of Docker.

use tests::containers::{HOST, page, peer_serves, serve};
use tests::docker::{Docker, LEFT_BY_DOCKERD};
use tests::{As, PATIENCE, Result, Suite, TestBox, UPSTREAM_LAUNCHER, ensure, wait};

use crate::kit::{delegated, ready, stop};

/// Flags and values as separate words, a sandboxed slirp4netns, every namespace, and `/opt`, in which plugins lie.
const FLAGS: &str = "--state-dir /run/user/1001/usernetes/rootlesskit --net=slirp4netns --mtu=65520 --disable-host-loopback \
    --slirp4netns-sandbox=true --slirp4netns-seccomp=true --port-driver=builtin \
    --copy-up=/etc --copy-up=/run --copy-up=/var/lib --copy-up=/opt \
    --cgroupns --pidns --ipcns --utsns --propagation=rslave --evacuate-cgroup2=rootlesskit_evac";

/// The child: links to the host's files are removed and replaced, ports are published before anything listens, and the
/// file with the pid is read from within.
const CHILD: &str = r#"set -e
for f in /etc/cni /run/containerd /var/lib/cni /opt/cni; do [ -L $f ]; rm -f $f; mkdir $f; done
rootlessctl --socket $ROOTLESSKIT_STATE_DIR/api.sock add-ports 0.0.0.0:6443:6443/tcp 0.0.0.0:8472:8472/udp
echo "pid $(cat $ROOTLESSKIT_STATE_DIR/child_pid)"
fixture udp-echo 0.0.0.0:8472 >/dev/null &
exec fixture http 0.0.0.0:6443 apiserver"#;

#[test]
fn usernetes_of_the_first_generation() -> Result<()> {
    let b = TestBox::boot(Suite::Bookworm)?;
    let folders = "/etc/cni /run/containerd /var/lib/cni /opt/cni";
    b.root(&format!("mkdir {folders}")).ok()?;
    let script = format!("exec rootlesskit {FLAGS} sh -c \"$CHILD\"");
    let kit = ready(delegated(&b, &script).env("CHILD", CHILD))?;
    let said = kit.printed()?;
    let pid = b.user("cat /run/user/1001/usernetes/rootlesskit/child_pid").ok()?;
    ensure!(said.contains(&format!("1\n2\npid {pid}\n")), "{said}");
    for (who, host) in [(As::User, "127.0.0.1"), (As::Peer, HOST)] {
        ensure!(page(&b, who, &format!("{host}:6443"))?.starts_with("apiserver from "));
        let echo = b.argv(who, &["fixture", "udp-ask", &format!("{host}:8472"), "vxlan"]).ok()?;
        ensure!(echo.ends_with(" vxlan\n"), "{echo}");
    }
    // Its helper for the host enters network and mounts.
    let enter = format!("nsenter -U --preserve-credentials -n -m -t {pid} --wd=$PWD -- ");
    let seen =
        b.user(&format!("{enter} sh -c 'ls -d {folders}; ip -o addr show dev tap0; pwd'")).ok()?;
    ensure!(seen.contains("10.0.2.100") && seen.ends_with("/home/tester\n"), "{seen}");
    stop(kit)?;
    b.root(&format!("rmdir {folders} /run/user/1001/usernetes")).ok()?;
    b.assert_clean(&[])
}

/// A node: a privileged container with an init of its own that mounts file systems and makes namespaces, the ports of
/// the API server and of the network between nodes.
#[test]
fn usernetes_of_the_second_generation_in_docker() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    peer_serves(&b, "udp-echo 0.0.0.0:8472")?;
    let d = Docker::start_with(&b, UPSTREAM_LAUNCHER, &[])?;
    d.import()?;
    ensure!(d.run("info -f '{{json .SecurityOptions}}'")?.contains("name=rootless"));
    let node = "-p 6443:6443 -p 8472:8472/udp --privileged --init --cgroupns=private --hostname=node --tmpfs /run \
        -v node-var:/var -v /lib/modules:/lib/modules:ro --sysctl net.ipv4.ip_forward=1";
    serve(&d, "node", node, "http 0.0.0.0:6443 apiserver")?;
    for (who, host) in [(As::User, "127.0.0.1"), (As::Peer, HOST)] {
        let got = wait::until("the node answers", PATIENCE, || {
            Ok(page(&b, who, &format!("{host}:6443")).ok())
        })?;
        ensure!(got.starts_with("apiserver from "), "{got}");
    }
    let within = |script: &str| d.run(&format!("exec node sh -ec '{script}'"));
    within(
        "mkdir /run/pod; mount -t tmpfs none /run/pod; mount --bind /run/pod /tmp; umount /tmp /run/pod",
    )?;
    within(
        "unshare -n ip link set lo up; ip link add cni0 type bridge; ip link set cni0 mtu 1400 up",
    )?;
    // To the node of another host, from the port that it publishes itself.
    let echo = d.run("exec node fixture udp-ask 10.77.0.2:8472 vxlan")?;
    ensure!(echo.ends_with(" vxlan\n"), "{echo}");
    d.run("rm -f node")?;
    d.run("volume rm node-var")?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}
