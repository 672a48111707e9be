//! Network drivers that get their address by DHCP: lxc-user-nic, with the real program and a real server, and vpnkit,
//! with a stand-in that speaks its protocol.

use tests::networks::{self, LEFT_BY_LXC, RANGE, dhcp_server};
use tests::{Context as _, PATIENCE, Result, Running, Suite, TestBox, ensure, wait};

/// A target that, like dockerd 29.5, stays in the host's network and works on `$ROOTLESSKIT_STATE_DIR/netns`.
const ENTER: &str = "nsenter -n$ROOTLESSKIT_STATE_DIR/netns";

fn bridge() -> Result<TestBox> {
    let b = TestBox::boot(Suite::Sid)?;
    networks::lxc_bridge(&b)?;
    Ok(b)
}

/// A rootlesskit whose target does nothing but wait.
fn start<'b>(b: &'b TestBox, flags: &str) -> Result<Running<'b>> {
    let line = format!(
        "exec rootlesskit --state-dir=/run/user/1001/s {flags} sh -c 'echo up; exec sleep infinity'"
    );
    let mut kit = b.user(&line).spawn()?;
    wait::until_true("the target runs", PATIENCE, || {
        ensure!(kit.alive()?, "rootlesskit ended: {}", kit.printed()?);
        Ok(kit.printed()?.contains("up\n"))
    })?;
    Ok(kit)
}

fn stop(kit: Running<'_>) -> Result<()> {
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    Ok(())
}

/// In the network of the target of [`start`].
fn inside(b: &TestBox, command: &str) -> Result<tests::Output> {
    b.user(&format!(
        "nsenter -U -m -n --preserve-credentials -t $(cat /run/user/1001/s/child_pid) {command}"
    ))
    .run()
}

fn has(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "no {part:?} in:\n{text}");
    }
    Ok(())
}

#[test]
fn lxc_user_nic_gets_address_route_and_names_from_the_bridge() -> Result<()> {
    let b = bridge()?;
    let _server = dhcp_server(&b, RANGE)?;
    let script =
        "ip -o addr show dev eth0; ip -o link show dev eth0; ip route; cat /etc/resolv.conf
        ping -c1 -W5 10.0.3.1; dig +short foo.test; fixture get peer.test:7000";
    let common = ["inet 10.0.3.1", "/24", "dev eth0", "ping statistics", "10.9.8.7\n"];
    let kit = "rootlesskit --net=lxc-user-nic --copy-up=/etc --copy-up=/run sh -ec";
    let out = b.user(&format!("{kit} \"$SCRIPT\"")).env("SCRIPT", script).ok()?;
    has(&out, &common)?;
    has(&out, &["mtu 1500", "default via 10.0.3.1", "nameserver 10.0.3.1\n", "1 received"])?;
    // Masqueraded by the host.
    has(&out, &["peer from 10.77.0.1\n"])?;

    // Detached: there is no process in the namespace, only a thread.
    let script = format!(
        "{ENTER} sh -ec \"$INNER\"; cat $ROOTLESSKIT_STATE_DIR/resolv.conf; rootlessctl info --json; ip -o link"
    );
    let inner = "ip -o addr show dev up0; ip -o link show dev up0; ip route; fixture get 10.77.0.2:7000; ip -o link show dev lo";
    let kit = "rootlesskit --net=lxc-user-nic --detach-netns --pidns --mtu=1400 --ifname=up0 --port-driver=builtin --copy-up=/etc sh -ec";
    let out =
        b.user(&format!("{kit} \"$SCRIPT\"")).env("SCRIPT", &script).env("INNER", inner).ok()?;
    has(&out, &["inet 10.0.3.1", "mtu 1400", "default via 10.0.3.1 dev up0", "LOOPBACK,UP"])?;
    has(&out, &["peer from 10.77.0.1\n", "nameserver 10.0.3.1\n", "lxcbr0"])?;
    let info = out.split_whitespace().collect::<String>();
    has(
        &info,
        &["\"driver\":\"lxc-user-nic\"", "\"dynamicChildIP\":true", "\"driver\":\"builtin\""],
    )?;
    ensure!(!info.contains("childIP"), "{info}");
    b.assert_clean(LEFT_BY_LXC)
}

#[test]
fn ports_are_published_by_builtin_and_the_host_forgets_the_link() -> Result<()> {
    let b = bridge()?;
    let _server = dhcp_server(&b, RANGE)?;
    let flags = "--net=lxc-user-nic --port-driver=builtin -p 0.0.0.0:8080:80/tcp";
    let line = format!(
        "exec rootlesskit --state-dir=/run/user/1001/s {flags} fixture http 0.0.0.0:80 inside"
    );
    let mut kit = b.user(&line).spawn()?;
    wait::until_true("the server listens", PATIENCE, || {
        ensure!(kit.alive()?, "{}", kit.printed()?);
        Ok(kit.printed()?.contains("ready"))
    })?;
    assert_eq!(b.peer("fixture get 10.77.0.1:8080").ok()?, "inside from 10.77.0.2\n");
    stop(kit)?;
    wait::until_true("the veth pair goes", PATIENCE, || {
        Ok(!b.root("ip -o link show master lxcbr0").ok()?.contains("veth"))
    })?;
    b.assert_clean(LEFT_BY_LXC)
}

#[test]
fn leases_are_renewed_and_a_changed_address_is_followed() -> Result<()> {
    let b = bridge()?;
    let first =
        dhcp_server(&b, &format!("{RANGE} --dhcp-option=option:T1,3 --dhcp-option=option:T2,60"))?;
    let kit = start(&b, "--debug --net=lxc-user-nic --copy-up=/etc --copy-up=/run")?;
    let asked = || Ok::<_, tests::Error>(first.printed()?.matches("DHCPACK").count());
    wait::until_true("the lease is renewed twice", PATIENCE, || Ok(asked()? >= 3))?;
    let before = inside(&b, "ip -o addr show dev eth0")?.stdout;
    has(&before, &["inet 10.0.3.1"])?;
    // Another server takes over that knows nothing of the lease, and nothing of its range.
    first.signal("TERM")?;
    first.wait(PATIENCE)?;
    let names = "--dhcp-option=option:dns-server,10.77.0.2";
    let _second = dhcp_server(&b, &format!("--dhcp-range=10.0.3.200,10.0.3.249,2m {names}"))?;
    wait::until_true("the new address is there", PATIENCE, || {
        Ok(inside(&b, "ip -o addr show dev eth0")?.stdout.contains("inet 10.0.3.2"))
    })?;
    let after = inside(&b, "sh -c 'ip -o -4 addr show dev eth0; ip route; cat /etc/resolv.conf'")?;
    has(&after.stdout, &["default via 10.0.3.1", "nameserver 10.77.0.2\n"])?;
    ensure!(after.stdout.matches("inet ").count() == 1, "the old one has gone: {after}");
    has(&inside(&b, "fixture get peer.test:7000")?.stdout, &["peer from "])?;
    has(&kit.printed()?, &["is no longer valid", "the network's address is now 10.0.3.2"])?;
    stop(kit)?;
    b.assert_clean(LEFT_BY_LXC)
}

#[test]
fn a_server_without_router_and_names_is_a_network_with_a_warning() -> Result<()> {
    let b = bridge()?;
    let _server = dhcp_server(&b, &format!("{RANGE} --dhcp-option=3 --dhcp-option=6"))?;
    let out = b.user("rootlesskit --net=lxc-user-nic --copy-up=/etc sh -c 'ip -o addr show dev eth0; ip route; cat /etc/resolv.conf; ping -c1 -W5 10.0.3.1'").run()?;
    ensure!(out.code == 0, "{out}");
    has(&out.stdout, &["inet 10.0.3.1", "1 received"])?;
    ensure!(!out.stdout.contains("default") && !out.stdout.contains("nameserver"), "{out}");
    has(&out.stderr, &["provides no router", "provides no name server"])?;
    b.assert_clean(LEFT_BY_LXC)
}

#[test]
fn without_a_server_or_a_permission_the_error_says_so() -> Result<()> {
    let b = bridge()?;
    let text = b.user("rootlesskit --net=lxc-user-nic true").fails_with(1)?;
    has(
        &text,
        &["no address from a DHCP server within 30 s (no answer)", "hint: start a DHCP server"],
    )?;
    b.assert_clean(LEFT_BY_LXC)?;
    for (flags, spoil) in [("--lxc-user-nic-bridge=nobr0", "true"), ("", "rm /etc/lxc/lxc-usernet")]
    {
        b.root(spoil).ok()?;
        let line = format!("rootlesskit --net=lxc-user-nic {flags} true");
        let text = b.user(&line).fails_with(1)?;
        has(&text, &["lxc-user-nic create /dev/null dummy ", " failed: ", "/etc/lxc/lxc-usernet"])?;
        b.assert_clean(LEFT_BY_LXC)?;
    }
    let text =
        b.user("rootlesskit --net=lxc-user-nic --lxc-user-nic-binary=/nope true").fails_with(1)?;
    has(&text, &["/nope cannot be executed", "hint: install the package lxc"])?;
    b.assert_clean(LEFT_BY_LXC)
}

/// A box that has a vpnkit.
fn vpnkit() -> Result<TestBox> {
    let b = TestBox::boot(Suite::Sid)?;
    networks::vpnkit(&b)?;
    Ok(b)
}

#[test]
fn vpnkit_gives_address_names_and_a_way_out() -> Result<()> {
    let b = vpnkit()?;
    let _echo = b.peer("exec fixture udp-echo 10.77.0.2:9000").spawn()?;
    let inner =
        "ip -o addr show dev $IF; ip -o link show dev $IF; ip route; ping -c1 -W5 192.168.65.1
        dig +short foo.test @192.168.65.1; fixture udp-ask 10.77.0.2:9000 hello";
    let parts = [
        "inet 192.168.65.3/24",
        "link/ether 02:50:00:00:00:02",
        "default via 192.168.65.1",
        "nameserver 192.168.65.1\n",
        "1 received",
        "10.9.8.7\n",
        "10.77.0.1:",
        " hello\n",
    ];
    let script = format!("{inner}; cat /etc/resolv.conf; rootlessctl info --json");
    let kit = "rootlesskit --net=vpnkit --port-driver=builtin --copy-up=/etc sh -ec \"$SCRIPT\"";
    let out = b.user(kit).env("IF", "tap0").env("SCRIPT", &script).ok()?;
    has(&out, &parts)?;
    has(&out, &["mtu 1500"])?;
    let info = out.split_whitespace().collect::<String>();
    has(&info, &["\"driver\":\"vpnkit\"", "\"childIP\":\"192.168.65.3\"", "\"192.168.65.1\""])?;
    ensure!(!info.contains("\"dynamicChildIP\":true"), "{info}");

    let script = format!("{ENTER} sh -ec \"$INNER\"; cat $ROOTLESSKIT_STATE_DIR/resolv.conf");
    let kit = "rootlesskit --net=vpnkit --detach-netns --mtu=1400 --ifname=up0 --copy-up=/etc sh -ec \"$SCRIPT\"";
    let command = b.user(kit).env("IF", "up0").env("INNER", inner).env("SCRIPT", &script);
    let out = command.run()?;
    ensure!(out.code == 0, "{out}");
    has(&out.stdout, &parts)?;
    has(&out.stdout, &["mtu 1400"])?;
    has(&out.stderr, &["MTU of 1500, but the MTU is 1400"])?;
    b.assert_clean(&[])
}

#[test]
fn vpnkits_host_address_leads_to_the_loopback_only_if_asked_for() -> Result<()> {
    let b = vpnkit()?;
    let _echo = b.root("exec fixture udp-echo 127.0.0.1:9001").spawn()?;
    let ask = "fixture udp-ask 192.168.65.1:9001 hello";
    let open = b.user(&format!("rootlesskit --net=vpnkit {ask}")).ok()?;
    ensure!(open.starts_with("127.0.0.1:"), "{open}");
    b.user(&format!("rootlesskit --net=vpnkit --disable-host-loopback {ask}")).fails_with(1)?;
    b.assert_clean(&[])
}

#[test]
fn a_killed_vpnkit_is_replaced_and_the_network_is_the_same() -> Result<()> {
    let b = vpnkit()?;
    let _echo = b.peer("exec fixture udp-echo 10.77.0.2:9000").spawn()?;
    let mut kit = start(&b, "--debug --net=vpnkit --copy-up=/etc --copy-up=/run")?;
    for round in 1..=3 {
        let out = inside(&b, "fixture udp-ask 10.77.0.2:9000 hello")?;
        ensure!(out.stdout.ends_with(" hello\n"), "round {round}: {out}\n{}", kit.printed()?);
        b.signal(b.process("vpnkit")?.pid, "KILL")?;
        wait::until_true("it is replaced and connected with", PATIENCE, || {
            ensure!(kit.alive()?, "{}", kit.printed()?);
            let text = kit.printed()?;
            Ok(text.matches("vpnkit is running again").count() == round
                && text.matches("reconnected to vpnkit").count() >= round)
        })?;
    }
    has(&kit.printed()?, &["vpnkit died: signal: killed", "lost the connection to vpnkit"])?;
    has(&inside(&b, "fixture udp-ask 10.77.0.2:9000 hello")?.stdout, &[" hello\n"])?;
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn vpnkits_lease_is_renewed() -> Result<()> {
    let b = vpnkit()?;
    b.script("/usr/local/bin/short", "#!/bin/sh\nSTANDIN_LEASE=12 exec vpnkit \"$@\"\n")?;
    let kit = start(&b, "--debug --net=vpnkit --vpnkit-binary=short --copy-up=/etc")?;
    wait::until_true("the server is asked for more time", PATIENCE, || {
        let text = kit.printed()?;
        Ok(text.matches("dhcp 3 from 192.168.65.3").count() >= 2
            && text.contains("the lease of 192.168.65.3 was extended"))
    })
    .with_context(|| kit.printed().unwrap_or_default())?;
    stop(kit)?;
    b.assert_clean(&[])
}

#[test]
fn a_vpnkit_that_is_missing_broken_or_something_else_is_named() -> Result<()> {
    let b = vpnkit()?;
    b.script("/usr/local/bin/broken", "#!/bin/sh\necho cannot do that\nexit 3\n")?;
    // Answers with what it is told, one byte changed.
    b.script(
        "/usr/local/bin/other",
        "#!/bin/sh\nexec socat UNIX-LISTEN:$2,fork SYSTEM:'head -c 49 | tr V W'\n",
    )?;
    for (binary, parts) in [
        ("nope", &["nope was not found in $PATH", "hint: install VPNKit"][..]),
        ("broken", &["vpnkit failed: exit status 3: cannot do that"]),
        ("other", &["cannot use vpnkit: the server on the socket is not vpnkit"]),
    ] {
        let line = format!("rootlesskit --net=vpnkit --vpnkit-binary={binary} true");
        has(&b.user(&line).fails_with(1)?, parts)?;
        b.assert_clean(&[])?;
    }
    Ok(())
}
