//! Network drivers: addresses, names, the way out, what stays closed; attached and detached.

use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

/// Runs a script in the network of the target, with the usual flags of the launcher.
fn inside(b: &TestBox, flags: &str, script: &str) -> Result<String> {
    let kit = format!("rootlesskit {flags} --copy-up=/etc --copy-up=/run sh -ec \"$SCRIPT\"");
    b.user(&kit).env("SCRIPT", script).ok()
}

/// A target that, like dockerd 29.5, stays in the host's network and works on `$ROOTLESSKIT_STATE_DIR/netns`.
const ENTER: &str = "nsenter -n$ROOTLESSKIT_STATE_DIR/netns";

#[test]
fn slirp4netns_sets_up_the_usual_network() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let script = "ip -o addr show dev tap0; ip -o link show dev tap0; ip -o link show dev lo; ip route
        cat /etc/resolv.conf; fixture get peer.test:7000; dig +short foo.test; grep -c . /etc/hosts; stat -f -c %T /sys";
    let out = inside(&b, "--net=slirp4netns --disable-host-loopback", script)?;
    for part in [
        "inet 10.0.2.100/24",
        "mtu 65520",
        "lo: <LOOPBACK,UP",
        "default via 10.0.2.2 dev tap0",
        "nameserver 10.0.2.3\n",
        "peer from 10.77.0.1\n",
        "10.9.8.7\n",
        "sysfs\n",
    ] {
        ensure!(out.contains(part), "no {part:?} in:\n{out}");
    }
    b.assert_clean(&[])
}

#[test]
fn mtu_ifname_and_cidr_are_taken() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for net in ["slirp4netns", "pasta"] {
        let flags = format!(
            "--net={net} --mtu=1400 --ifname=up0 --cidr=10.50.0.0/16 --disable-host-loopback"
        );
        let out = inside(
            &b,
            &flags,
            "ip -o addr show dev up0; ip -o link show dev up0; ip route; cat /etc/resolv.conf; fixture get peer.test:7000",
        )?;
        for part in [
            "inet 10.50.0.100/16",
            "mtu 1400",
            "default via 10.50.0.2",
            "nameserver 10.50.0.3\n",
            "peer from 10.77.0.1\n",
        ] {
            ensure!(out.contains(part), "{net}: no {part:?} in:\n{out}");
        }
    }
    b.assert_clean(&[])
}

#[test]
fn pasta_sets_up_the_usual_network() -> Result<()> {
    for suite in Suite::ALL {
        let b = TestBox::boot(suite)?;
        let script =
            "ip -o addr show dev tap0; ip -o link show dev tap0; ip route; cat /etc/resolv.conf
            fixture get peer.test:7000; dig +short foo.test";
        let out = inside(&b, "--net=pasta --port-driver=implicit --disable-host-loopback", script)?;
        for part in [
            "inet 10.0.2.100/24",
            "mtu 65520",
            "default via 10.0.2.2",
            "nameserver 10.0.2.3\n",
            "peer from 10.77.0.1\n",
            "10.9.8.7\n",
        ] {
            ensure!(out.contains(part), "no {part:?} in:\n{out}");
        }
        b.assert_clean(&[])?;
    }
    Ok(())
}

#[test]
fn the_hosts_loopback_is_reachable_only_if_asked_for() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for net in ["slirp4netns", "pasta"] {
        let get = |flags: &str, to: &str| {
            b.user(&format!("rootlesskit --net={net} {flags} fixture get {to}")).run()
        };
        let open = get("", "10.0.2.2:7001")?;
        ensure!(open.stdout.starts_with("loopback from "), "{net}: {open}");
        ensure!(get("--disable-host-loopback", "10.0.2.2:7001")?.code != 0, "{net}");
        // Not through the namespace's own loopback either.
        ensure!(get("--disable-host-loopback", "127.0.0.1:7001")?.code != 0, "{net}");
    }
    b.assert_clean(&[])
}

#[test]
fn ipv6_reaches_the_other_machine() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for net in ["slirp4netns", "pasta"] {
        let out = b.user(&format!("rootlesskit --net={net} --ipv6 --disable-host-loopback --copy-up=/etc sh -c 'n=0; until fixture get [fd77::2]:7000 2>/dev/null || [ $n = 600 ]; do n=$((n+1)); sleep 0.1; done'")).ok()?;
        ensure!(out.starts_with("peer from fd77::1"), "{net}: {out}");
    }
    b.assert_clean(&[])
}

#[test]
fn none_has_a_loopback_and_nothing_else() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let out = b
        .user("rootlesskit --net=none sh -c 'ip -o link; ip -o addr; cat /etc/resolv.conf'")
        .ok()?;
    ensure!(out.contains("inet 127.0.0.1/8") && out.contains("LOOPBACK,UP"), "{out}");
    ensure!(!out.contains("tap0") && !out.contains("eth0"), "{out}");
    // No network, so the host's own file stays in place.
    ensure!(out.contains("nameserver 10.77.0.2"), "{out}");
    b.assert_clean(&[])
}

#[test]
fn detached_the_target_stays_in_the_hosts_network_and_the_namespace_is_in_a_file() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for net in ["slirp4netns", "pasta"] {
        let flags = format!(
            "--net={net} --detach-netns --disable-host-loopback --state-dir=/run/user/1001/s"
        );
        let script = format!(
            "cmp /etc/resolv.conf /proc/1/root/etc/resolv.conf 2>/dev/null || cat /etc/resolv.conf
             readlink /proc/self/ns/net; ip -o addr show dev eth0; fixture get 127.0.0.1:7001
             {ENTER} ip -o addr show dev tap0; {ENTER} ip -o link show dev lo; {ENTER} fixture get 10.77.0.2:7000
             cat $ROOTLESSKIT_STATE_DIR/resolv.conf; {ENTER} dig +short foo.test @10.0.2.3; {ENTER} readlink /proc/self/ns/net"
        );
        let out = inside(&b, &flags, &script)?;
        let host = b.user("readlink /proc/self/ns/net").ok()?;
        for part in [
            "nameserver 10.77.0.2\n",
            host.as_str(),
            "inet 10.77.0.1/24",
            "loopback from 127.0.0.1\n",
            "inet 10.0.2.100/24",
            "LOOPBACK,UP",
            "peer from 10.77.0.1\n",
            "nameserver 10.0.2.3\n",
            "10.9.8.7\n",
        ] {
            ensure!(out.contains(part), "{net}: no {part:?} in:\n{out}");
        }
        let last = out.lines().last().unwrap_or_default();
        ensure!(last.starts_with("net:[") && last != host.trim(), "{net}: {out}");
        b.assert_clean(&[])?;
    }
    Ok(())
}

#[test]
fn the_file_netns_is_the_mark_of_the_detached_mode_for_programs_on_the_host() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = b
        .user("exec rootlesskit --state-dir=/tmp/s --net=none --detach-netns sleep infinity")
        .spawn()?;
    wait::until_true("it runs", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
    assert_eq!(b.user("stat -c '%a %s %F' /tmp/s/netns").ok()?, "400 0 regular empty file\n");
    let out = b.user("nsenter -U -m --preserve-credentials -t $(cat /tmp/s/child_pid) nsenter -n/tmp/s/netns ip -o addr").ok()?;
    ensure!(out.contains("inet 127.0.0.1/8") && !out.contains("eth0"), "{out}");
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    b.assert_clean(&[])
}

#[test]
fn debugging_with_nsenter_works_in_both_modes() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit =
        b.user("exec rootlesskit --state-dir=/tmp/s --net=slirp4netns sleep infinity").spawn()?;
    wait::until_true("it runs", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
    let enter = "nsenter -U --preserve-credentials -n -m -t $(cat /tmp/s/child_pid)";
    ensure!(b.user(&format!("{enter} ip -o addr show dev tap0")).ok()?.contains("10.0.2.100"));
    assert_eq!(b.user(&format!("{enter} id -u")).ok()?, "0\n");
    ensure!(
        b.user("ls /proc/$(cat /tmp/s/child_pid)/root/tmp/s/child_pid").ok()?.contains("child_pid")
    );
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    b.assert_clean(&[])
}

#[test]
fn a_tun_device_that_the_user_cannot_open_is_named_with_the_remedy() -> Result<()> {
    let b = TestBox::builder(Suite::Sid).tun_mode(0o600).boot()?;
    for net in ["slirp4netns", "pasta"] {
        let text =
            b.argv(As::User, &["rootlesskit", &format!("--net={net}"), "true"]).fails_with(1)?;
        ensure!(text.contains("/dev/net/tun"), "{net}: {text}");
    }
    b.user("rootlesskit --net=none true").ok()?;
    b.assert_clean(&[])
}

#[test]
fn the_api_describes_the_network() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let info = |flags: &str| b.user(&format!("rootlesskit {flags} rootlessctl info --json")).ok();
    let compact = |text: String| text.split_whitespace().collect::<String>();
    let slirp = compact(info("--net=slirp4netns --port-driver=builtin --ipv6")?);
    for part in [
        "\"apiVersion\":\"1.1.2\"",
        "\"driver\":\"slirp4netns\"",
        "\"10.0.2.3\"",
        "\"childIP\":\"10.0.2.100\"",
        "\"ipv6\":true",
        "\"driver\":\"builtin\"",
    ] {
        ensure!(slirp.contains(part), "no {part} in {slirp}");
    }
    let pasta = compact(info("--net=pasta --port-driver=implicit")?);
    ensure!(pasta.contains("\"driver\":\"pasta\"") && !pasta.contains("portDriver"), "{pasta}");
    let host = compact(info("")?);
    ensure!(!host.contains("portDriver") && !host.contains("childIP"), "{host}");
    Ok(())
}
