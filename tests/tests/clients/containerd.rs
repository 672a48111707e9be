//! containerd and `ctr` of three Debians in rootlesskit, as containerd-rootless.sh of nerdctl starts it.

use tests::docker::MAKE_ARCHIVE;
use tests::{As, Cmd, PATIENCE, Result, Running, Suite, TestBox, ensure, wait};

use crate::kit::Api;

/// The state directory, where nerdctl looks for it.
pub(crate) const STATE: &str = "/run/user/1001/containerd-rootless";

/// The launcher, which is its own target. The parent's part has the flags of the original, the defaults of its
/// variables, and its question whether rootlesskit knows detached namespaces. The child relies on `/run`, `/etc` and
/// `/var/lib` having been copied up: it removes the links to the host's folders and puts the user's in their place.
const LAUNCHER: &str = r#"#!/bin/sh
set -eu
: "${CONTAINERD_ROOTLESS_ROOTLESSKIT_STATE_DIR:=$XDG_RUNTIME_DIR/containerd-rootless}"
if [ -z "${_CONTAINERD_ROOTLESS_CHILD:-}" ]; then
    export _CONTAINERD_ROOTLESS_CHILD=1
    more=
    case ${CONTAINERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS:-auto} in
        auto) if rootlesskit --help | grep -q -e --detach-netns; then more=--detach-netns; fi ;;
        1 | true) more=--detach-netns ;;
    esac
    case ${CONTAINERD_ROOTLESS_ROOTLESSKIT_IPV6:-} in 1 | true) more="$more --ipv6" ;; esac
    exec rootlesskit --state-dir="$CONTAINERD_ROOTLESS_ROOTLESSKIT_STATE_DIR" \
        --net="${CONTAINERD_ROOTLESS_ROOTLESSKIT_NET:-slirp4netns}" --mtu="${CONTAINERD_ROOTLESS_ROOTLESSKIT_MTU:-65520}" \
        --slirp4netns-sandbox="${CONTAINERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX:-auto}" \
        --slirp4netns-seccomp="${CONTAINERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SECCOMP:-auto}" \
        --disable-host-loopback --port-driver="${CONTAINERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER:-builtin}" \
        --copy-up=/etc --copy-up=/run --copy-up=/var/lib --propagation=rslave \
        $more ${CONTAINERD_ROOTLESS_ROOTLESSKIT_FLAGS:-} "$0" "$@"
fi
own() { rm -f "$2"; mkdir -p "$1" "$2"; mount --bind "$1" "$2"; }
rm -f /run/xtables.lock
own "$XDG_RUNTIME_DIR/containerd" /run/containerd
own "$XDG_RUNTIME_DIR/nri" /run/nri
own "$XDG_DATA_HOME/containerd" /var/lib/containerd
own "$XDG_DATA_HOME/cni" /var/lib/cni
own "$HOME/.config/containerd" /etc/containerd
ssl=$(realpath /etc/ssl); rm -f /etc/ssl; mkdir /etc/ssl; mount --rbind "$ssl" /etc/ssl
exec containerd "$@"
"#;

/// How nerdctl and its setup tool get in from the host: the pid is read from the state directory and trimmed, the
/// target's three variables from the environment of that process; the file `netns` tells whether the network namespace
/// is to be entered as well.
const ENTER: &str = r#"S=$XDG_RUNTIME_DIR/containerd-rootless; pid=$(cat $S/child_pid)
for name in STATE_DIR PARENT_EUID PARENT_EGID; do
    export "$(tr '\0' '\n' </proc/$pid/environ | grep "^ROOTLESSKIT_$name=")"
done
net=-n; [ ! -e $S/netns ] || net=
exec nsenter -U -m $net -F -w"$PWD" --preserve-credentials -t $pid sh -ec "$SCRIPT""#;

/// What containerd and its programs leave in the user's folders.
const LEFT: &[&str] = &[
    "/run/user/1001/containerd",
    "/run/user/1001/nri",
    "/run/user/1001/runc",
    "/home/tester/.config",
];

/// The options that bring the fixture program into a container, and no groups: the user has none.
pub(crate) const FIXTURE: &str = "--cgroup= --cpu-shares=0 --mount type=bind,src=/usr,dst=/usr,options=rbind:ro \
    --mount type=bind,src=/lib,dst=/lib,options=rbind:ro --mount type=bind,src=/lib64,dst=/lib64,options=rbind:ro";

/// The image.
pub(crate) const IMAGE: &str = "docker.io/library/bb:latest";

/// A running containerd.
pub(crate) struct Containerd<'b> {
    pub(crate) b: &'b TestBox,
    daemon: Running<'b>,
}

impl<'b> Containerd<'b> {
    /// Starts it with variables of the launcher, and imports the image.
    pub(crate) fn start(b: &'b TestBox, env: &[(&str, &str)]) -> Result<Self> {
        b.script("/usr/local/bin/containerd-rootless.sh", LAUNCHER)?;
        let mut command = b.user("exec containerd-rootless.sh");
        for (name, value) in env {
            command = command.env(name, value);
        }
        // The one folder of the user on which overlayfs works.
        let data = "/home/tester/.local/share/docker";
        let daemon = command.env("XDG_DATA_HOME", data).spawn()?;
        let mut this = Self { b, daemon };
        wait::until_true("containerd answers", PATIENCE, || {
            ensure!(this.daemon.alive()?, "it ended: {}", this.daemon.printed()?);
            Ok(b.exists(&format!("{STATE}/api.sock"))
                && this.inside("ctr version").run()?.code == 0)
        })?;
        let import = format!("({MAKE_ARCHIVE}) | ctr images import -");
        this.inside(&import).limit(120).ok()?;
        Ok(this)
    }

    /// A shell line in the namespaces, as nerdctl enters them.
    pub(crate) fn inside(&self, script: &str) -> Cmd<'b> {
        self.b.user(ENTER).env("SCRIPT", script)
    }

    pub(crate) fn api(&self) -> Api<'b> {
        Api { b: self.b, dir: STATE }
    }

    /// Ends a container; containerd itself would leave it running.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.inside(&format!("ctr task kill -s KILL {name}")).ok()?;
        let gone = format!("ctr task rm {name} && ctr container rm {name}");
        wait::until_true("the container has ended", PATIENCE, || {
            Ok(self.inside(&gone).run()?.code == 0)
        })
    }

    /// Stops it as a service manager does.
    pub(crate) fn stop(self) -> Result<()> {
        self.daemon.signal("TERM")?;
        let out = self.daemon.wait(PATIENCE)?;
        ensure!(out.code == 0, "{out}");
        self.b.assert_clean(LEFT)
    }
}

/// A container in the network of the daemon, which is rootlesskit's: names, the way out, and a port that the user asked
/// for with `--publish` in the launcher's flags. `rootlessctl` finds the API by the variable of the namespace.
fn life(suite: Suite) -> Result<()> {
    let b = TestBox::boot(suite)?;
    let c = Containerd::start(
        &b,
        &[
            ("CONTAINERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS", "false"),
            ("CONTAINERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--publish=0.0.0.0:8080:80/tcp"),
        ],
    )?;
    ensure!(!b.exists(&format!("{STATE}/netns")), "a detached namespace nobody asked for");
    let once = |script: &str| {
        c.inside(&format!("ctr run --rm --net-host {FIXTURE} {IMAGE} once {script}")).ok()
    };
    ensure!(once("nslookup foo.test")?.contains("10.9.8.7"));
    assert_eq!(once("/usr/local/bin/fixture get 10.77.0.2:7000")?, "peer from 10.77.0.1\n");
    let links = once("ip -o addr show dev tap0")?;
    ensure!(links.contains("10.0.2.100/24"), "{links}");
    let server = format!(
        "ctr run -d --net-host {FIXTURE} {IMAGE} web /usr/local/bin/fixture http 0.0.0.0:80 page"
    );
    c.inside(&server).ok()?;
    for (who, host) in [(As::User, "127.0.0.1"), (As::Peer, "10.77.0.1")] {
        let page = wait::until("the published port answers", PATIENCE, || {
            Ok(b.argv(who, &["fixture", "get", &format!("{host}:8080")]).ok().ok())
        })?;
        ensure!(page.starts_with("page from "), "{page}");
    }
    let ports = c.inside("rootlessctl list-ports --json").ok()?;
    let port: serde_json::Value = serde_json::from_str(&ports)?;
    assert_eq!(port["spec"]["parentPort"], 8080, "{ports}");
    c.remove("web")?;
    c.stop()
}

#[test]
fn containerd_1_6_and_ctr_in_rootlesskit() -> Result<()> {
    life(Suite::Bookworm)
}

#[test]
fn containerd_1_7_and_ctr_in_rootlesskit() -> Result<()> {
    life(Suite::Trixie)
}

#[test]
fn containerd_2_1_and_ctr_in_rootlesskit() -> Result<()> {
    life(Suite::Sid)
}
