//! BuildKit: the one in dockerd, with Debian's buildx; and the daemon buildkitd, which Debian does not ship, replayed with
//! the runtime that it uses for the steps of a build.

use tests::docker::{Docker, LEFT_BY_DOCKERD, MAKE_ARCHIVE};
use tests::{PATIENCE, Result, Running, Suite, TestBox, UPSTREAM_LAUNCHER, ensure, wait};

/// Two steps with a cache that the first fills, and one that reaches out by name; all of them again in each round. A cache
/// that is not `locked` is made anew while BuildKit has not yet released it after the step before.
const DOCKERFILE: &str = "FROM bb
ARG ROUND
RUN --mount=type=cache,target=/cache,sharing=locked echo x >>/cache/n; cp /cache/n /count
RUN --mount=type=cache,target=/cache,sharing=locked cmp /cache/n /count && nslookup foo.test
RUN wget -qO /proof http://peer.test:7000/
CMD [\"cat\", \"/count\", \"/proof\"]
";

#[test]
fn a_build_with_buildx_reaches_the_network_and_keeps_its_caches() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let d = Docker::start_with(&b, UPSTREAM_LAUNCHER, &[])?;
    d.import()?;
    b.user("mkdir /tmp/context && cat >/tmp/context/Dockerfile").input(DOCKERFILE).ok()?;
    for (round, count) in [(1, "x\n"), (2, "x\nx\n")] {
        d.run(&format!("buildx build --build-arg ROUND={round} --load -t built /tmp/context"))?;
        assert_eq!(d.output("built")?, format!("{count}peer from 10.77.0.1\n"));
    }
    b.user("rm -r /tmp/context").ok()?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

/// The programs of the image: those that rootlesskit and buildkitd need, and busybox, but no iproute2.
const IMAGE: &str = r#"set -e; mkdir -p /opt/image /home/tester/.local/tmp; chown -R 1001:1001 /home/tester/.local/tmp
for p in rootlesskit newuidmap newgidmap slirp4netns runc jq fixture nsenter; do ln -s "$(command -v $p)" /opt/image/$p; done
for a in sh cat id ls mkdir mktemp tar sleep touch nslookup rm sed test; do ln -s /usr/bin/busybox /opt/image/$a; done"#;

/// What buildkitd does with the step of a build, in its root file system `$W/rootfs`: in the namespaces for processes
/// and network of the daemon (`--oci-worker-no-process-sandbox`, no network of its own), unless the state directory
/// has a file `netns`, in which case the network is that one; without control groups.
const BUILDKITD: &str = r#"#!/bin/sh
set -e
echo "flags $*"; echo "id $(id -u) state $ROOTLESSKIT_STATE_DIR init $(cat /proc/1/comm)"
W=$(mktemp -d); mkdir "$W/rootfs"; tar -x -C "$W/rootfs" -f "$HOME/layer.tar"
cd "$W"; runc spec; cat config.json >spec.json
net=null; [ ! -e "$ROOTLESSKIT_STATE_DIR/netns" ] || net="\"$ROOTLESSKIT_STATE_DIR/netns\""
jq --argjson net "$net" '.process.terminal = false | .root.readonly = false | del(.linux.resources, .linux.cgroupsPath)
    | .process.args = ["sh", "-c", env.STEP] | .process.env = ["PATH=/usr/local/bin:/bin"]
    | .linux.namespaces |= map(select(.type == ("mount", "ipc", "uts")))
    | if $net then .linux.namespaces += [{type: "network", path: $net}] else . end
    | .linux.maskedPaths = [] | .linux.readonlyPaths = []
    | .mounts |= map(select(.destination | startswith("/sys") or . == "/proc" | not))
    | .mounts += [{destination: "/proc", type: "bind", source: "/proc", options: ["rbind"]},
        {destination: "/sys", type: "bind", source: "/sys", options: ["rbind", "ro"]}]
    | .mounts += ["/usr", "/lib", "/lib64", "/etc/resolv.conf"
        | {destination: ., type: "bind", source: ., options: ["rbind", "ro"]}]' spec.json >config.json
runc --root "$W/runc" run step
rm -r "$W"
echo ready
exec sleep infinity"#;

/// What a step prints: who it is, which network it has, and how far it gets.
const STEP: &str =
    "id -u; touch /made; busybox ip -o addr | grep -o 'inet 10[.0-9]*'; fixture get 10.77.0.2:7000";

/// The entry of the image: process 1 of a container, uid 1000 there, with nothing but what the image sets in its
/// environment.
fn image_runs<'b>(b: &'b TestBox, flags: &str, args: &str) -> Result<Running<'b>> {
    let entry = "exec unshare --pid --fork --mount-proc --kill-child setpriv --reuid=1001 --regid=1001 --init-groups \
        env -i PATH=/opt/image HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/1001 \
        TMPDIR=/home/tester/.local/tmp BUILDKIT_HOST=unix:///run/user/1001/buildkit/buildkitd.sock";
    let line = format!("{entry} STEP=\"$STEP\" rootlesskit {flags} buildkitd {args}");
    crate::kit::ready(b.root(&line).env("STEP", STEP))
}

#[test]
fn buildkitd_as_the_entry_of_its_image() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root(IMAGE).ok()?;
    b.script("/opt/image/buildkitd", BUILDKITD)?;
    b.user(&format!("({MAKE_ARCHIVE}) | tar -x -C ~ layer.tar")).ok()?;
    let worker =
        "--addr unix:///run/user/1001/buildkit/buildkitd.sock --oci-worker-no-process-sandbox";
    let host = "inet 10.77.0.1";
    let tap = "inet 10.0.2.100";
    for (flags, network) in [
        ("", host),
        ("--net=host --port-driver=none --mtu=0", host),
        ("--net=slirp4netns --copy-up=/etc --disable-host-loopback", tap),
        ("--net=slirp4netns --copy-up=/etc --disable-host-loopback --detach-netns", tap),
    ] {
        let kit = image_runs(&b, flags, worker)?;
        let said = kit.printed()?;
        let state = "/home/tester/.local/tmp/rootlesskit";
        for part in [
            format!("flags {worker}\n"),
            format!("id 0 state {state}"),
            " init rootlesskit\n".to_owned(),
            format!("0\n{network}\npeer from 10.77.0.1\n"),
        ] {
            ensure!(said.contains(&part), "{flags:?}: no {part:?} in {said}");
        }
        numbers(&b, state)?;
        // The end of the container: a signal to its process 1.
        b.signal(b.process("rootlesskit")?.pid, "TERM")?;
        kit.wait(PATIENCE)?;
        b.assert_no_processes()?;
    }
    b.root("rm /home/tester/layer.tar && rmdir /home/tester/.local/tmp").ok()?;
    b.assert_clean(&["/run/user/1001/runc"])
}

/// BuildKit's tests take the content of `child_pid` as a number as it is, untrimmed.
fn numbers(b: &TestBox, state: &str) -> Result<()> {
    let text = b.user(&format!("cat {state}*/child_pid")).ok()?;
    let pid: i32 = text.parse()?;
    ensure!(pid > 1, "{pid}");
    Ok(())
}

/// `buildctl-daemonless.sh`: a daemon in the background for one build. Its pid is that of rootlesskit, which is waited
/// for after a signal, when the client has had its answer.
const DAEMONLESS: &str = r#"set -eu
t=$(mktemp -d); trap 'kill $pid || true; wait $pid || true; rm -r $t' EXIT
rootlesskit buildkitd --addr=unix://$XDG_RUNTIME_DIR/buildkit/buildkitd.sock >$t/log 2>&1 &
pid=$!
echo $pid >$t/pid
until socat -u UNIX-CONNECT:$XDG_RUNTIME_DIR/buildkit/buildkitd.sock - 2>/dev/null; do
    kill -0 $pid || { cat $t/log >&2; exit 1; }
    sleep 0.1
done"#;

#[test]
fn buildkitd_for_one_build() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let daemon = r#"#!/bin/sh
mkdir -p $XDG_RUNTIME_DIR/buildkit
exec socat UNIX-LISTEN:${1#--addr=unix://},fork,unlink-close=1 SYSTEM:'id -u'"#;
    b.script("/usr/local/bin/buildkitd", daemon)?;
    assert_eq!(b.user(DAEMONLESS).ok()?, "0\n");
    wait::until_true("the daemon has gone", PATIENCE, || {
        Ok(!b.exists("/run/user/1001/buildkit/buildkitd.sock"))
    })?;
    b.assert_clean(&["/run/user/1001/buildkit"])
}
