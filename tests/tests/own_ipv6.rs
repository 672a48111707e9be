//! Units that were written for RootlessKit and slirp4netns give the namespace an IPv6 address and a default route by
//! themselves, since dockerd's forwarding makes the kernel forget advertised ones. They go on working.

use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

/// The line of such an `ExecStartPost=`, run in the namespace.
const ADDED: &str =
    "ip addr add fd00::100/64 dev tap0 && ip route add default via fd00::2 dev tap0";

#[test]
fn ipv6_address_and_route_of_public_workarounds_can_still_be_added() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let _echo = b.argv(As::Peer, &["fixture", "udp-echo", "[::]:85"]).spawn()?;
    for flags in [
        "--net=gateway --port-driver=gateway -p 0.0.0.0:8080:80/tcp",
        "--net=gateway --detach-netns",
        "--net=slirp4netns",
        "--net=slirp4netns --detach-netns",
    ] {
        let target = "sh -c 'echo up; exec sleep infinity'";
        let flags = format!("--state-dir=/tmp/s {flags} --ipv6 --disable-host-loopback");
        let mut kit = b.user(&format!("exec rootlesskit {flags} {target}")).spawn()?;
        wait::until_true("the target runs", PATIENCE, || {
            ensure!(kit.alive()?, "rootlesskit ended: {}", kit.printed()?);
            Ok(kit.printed()?.contains("up\n"))
        })?;
        let netns = if flags.contains("detach") { "-n/tmp/s/netns" } else { "-n" };
        let inside = |script: &str| {
            let enter = "nsenter -U -m --preserve-credentials -t $(cat /tmp/s/child_pid)";
            let enter = if netns == "-n" {
                format!("{enter} -n")
            } else {
                format!("{enter} nsenter {netns}")
            };
            b.user(&format!("exec {enter} sh -c \"$SCRIPT\"")).env("SCRIPT", script)
        };
        // As dockerd does.
        inside("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding").run()?;
        inside(ADDED).ok()?;
        let routes = inside("ip -6 addr show dev tap0; ip -6 route show default").ok()?;
        ensure!(routes.contains("fd00::100/64") && routes.contains("fd00::64/64"), "{routes}");
        ensure!(routes.matches("default via fd00::2 dev tap0").count() == 2, "{routes}");
        wait::until_true("the address is usable", PATIENCE, || {
            Ok(!inside("ip -6 addr show dev tap0 tentative").ok()?.contains("fd00::100"))
        })?;
        let said = inside("fixture get [fd77::2]:7000").ok()?;
        ensure!(said.starts_with("peer from fd77::1"), "{flags}: {said}");
        for source in ["fd00::100", "fd00::64"] {
            let ping = format!(
                "ip -6 route replace fd77::/64 via fd00::2 dev tap0 src {source}; fixture get [fd77::2]:7000; fixture udp-ask [fd77::2]:85 hello"
            );
            let said = inside(&ping).ok()?;
            ensure!(
                said.starts_with("peer from fd77::1") && said.contains(" hello"),
                "{flags} from {source}: {said}"
            );
        }
        kit.signal("TERM")?;
        kit.wait(PATIENCE)?;
        b.assert_clean(&[])?;
    }
    Ok(())
}
