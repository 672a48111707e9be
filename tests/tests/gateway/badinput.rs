//! What the gateway network cannot do is said in one line with the remedy, and nothing is left behind.

use tests::{As, Result, Suite, TestBox, ensure};

use crate::kit;

/// Runs a rootlesskit that must fail; the message has one line of error, perhaps a hint, and all `parts`.
fn refuses(b: &TestBox, flags: &str, parts: &[&str]) -> Result<()> {
    let out = b.user(&format!("rootlesskit --state-dir=/tmp/s {flags} true")).run()?;
    ensure!(out.code == 1, "{flags}: {out}");
    // What the child cannot do it says itself; the parent's line, as RootlessKit's, only adds the status.
    let status = |line: &str| line.starts_with("[rootlesskit:parent] error: child exited: ");
    let errors = out.stderr.lines().filter(|line| line.contains("error:") && !status(line));
    let errors: Vec<_> = errors.collect();
    ensure!(errors.len() == 1, "{flags}: {out}");
    for part in parts {
        ensure!(out.stderr.contains(part), "{flags}: no {part:?} in {out}");
    }
    b.assert_clean(&[]).map_err(|error| error.context(flags.to_owned()))
}

const NET: &str = "--net=gateway --port-driver=gateway --disable-host-loopback";

#[test]
fn badinput_a_missing_or_closed_tun_device_is_named() -> Result<()> {
    let b = TestBox::builder(Suite::Trixie).tun_mode(0o600).boot()?;
    // Nothing follows: the other drivers need the device as well.
    let closed = "hint: make the device writable for your user: sudo chmod 0666 /dev/net/tun\n";
    for net in [NET, "--net=gateway --detach-netns", "--net=gvisor-tap-vsock"] {
        refuses(&b, net, &["/dev/net/tun", "ermission denied", closed])?;
    }
    b.root("rm /dev/net/tun").ok()?;
    let missing = "hint: load the kernel module tun: sudo modprobe tun\n";
    refuses(&b, NET, &["/dev/net/tun", "No such file", missing])
}

#[test]
fn badinput_the_limit_of_network_namespaces_is_named() -> Result<()> {
    let b = kit::boot()?;
    // The limit of the account belongs to the machine; a shell in a user namespace has one of its own. The child's
    // namespace is the only one that it allows.
    b.root("echo root:1:65535 >> /etc/subuid; echo root:1:65535 >> /etc/subgid").ok()?;
    let none = "hint: user.max_net_namespaces is 0;";
    for (limit, flags, parts) in [
        (
            1,
            NET,
            [
                "network namespaces",
                "hint: raise the limit",
                "user.max_net_namespaces",
                "--net=pasta",
            ],
        ),
        (0, NET, ["failed to start the child", "no space left on device", none, "sudo sysctl -w"]),
        (
            0,
            "--detach-netns",
            [
                "a detached network namespace",
                "No space left",
                "hint: raise the limit of net namespaces",
                "user.max_net_namespaces=",
            ],
        ),
    ] {
        let script = format!(
            "echo {limit} > /proc/sys/user/max_net_namespaces; rootlesskit --state-dir=/tmp/s {flags} true"
        );
        let out = b
            .user("exec unshare --user --map-root-user --map-auto sh -c \"$SCRIPT\"")
            .env("SCRIPT", &script)
            .run()?;
        ensure!(out.code == 1, "{out}");
        for part in parts {
            ensure!(out.stderr.contains(part), "no {part:?} in {out}");
        }
    }
    b.assert_clean(&[])
}

#[test]
fn badinput_flags_that_do_not_fit_together_are_named() -> Result<()> {
    let b = kit::boot()?;
    for (flags, parts) in [
        ("--net=slirp4netns --port-driver=gateway", ["gateway", "--net=gateway", "slirp4netns"]),
        ("--net=none --port-driver=gateway", ["\"gateway\"", "--net=none", "must be"]),
        ("--net=host --port-driver=gateway", ["gateway", "--net=host", ""]),
        ("--net=gateway --port-driver=gvisor-tap-vsock", ["gvisor-tap-vsock", "--net=", "gateway"]),
        ("--net=gvisor-tap-vsock --port-driver=gateway", ["gateway", "--net=", "gvisor-tap-vsock"]),
        ("--net=gvisor-tap-vsock --ipv6", ["--ipv6", "gvisor-tap-vsock", "--net=gateway"]),
        ("--net=gateway --port-driver=slirp4netns", ["slirp4netns", "gateway", "--net="]),
        ("--net=gateway --port-driver=implicit", ["implicit", "gateway", ""]),
        ("--net=gateway --mtu=60", ["60", "mtu", ""]),
        ("--net=gateway --mtu=70000", ["70000", "mtu", ""]),
        ("--net=gateway --cidr=10.0.2.0/30", ["10.0.2.0/30", "", ""]),
        ("--net=gateway --cidr=nonsense", ["nonsense", "", ""]),
        ("--net=gateway --ifname=averyveryverylongname", ["averyveryverylongname", "", ""]),
        ("--net=gateway --ifname=a/b", ["a/b", "", ""]),
        (
            "--net=gateway --disable-host-loopback --host-loopback-allow=tcp:80-70",
            ["\"80-70\"", "ends before it begins", "hint:"],
        ),
        ("--net=gateway --host-loopback-allow=tcp:80", ["tcp:80", "requires", "hint: add"]),
        (
            "--net=slirp4netns --disable-host-loopback --host-loopback-allow=tcp:80",
            ["tcp:80", "slirp4netns", "hint: use --net=gateway"],
        ),
        (
            "--net=gvisor-tap-vsock --host-loopback-allow=tcp:80",
            ["gvisor", "not supported", "hint:"],
        ),
    ] {
        refuses(&b, flags, &parts)?;
    }
    for (port, parts) in [
        ("127.0.0.1:8080:[fd00::1]:80/tcp", ["invalid ChildIP: fd00::1", "hint:", "--ipv6"]),
        ("0.0.0.0:8080:80/sctp", ["sctp", "", ""]),
        ("0.0.0.0:80:80/tcp", ["80", "net.ipv4.ip_unprivileged_port_start", ""]),
        ("10.1.2.3:8080:80/tcp", ["10.1.2.3", "8080", ""]),
    ] {
        refuses(&b, &format!("{NET} -p {port}"), &parts)?;
    }
    Ok(())
}

#[test]
fn badinput_a_port_that_is_taken_is_named_and_the_others_stay() -> Result<()> {
    let b = kit::boot()?;
    let taken = kit::serve(&b, As::Root, "http 0.0.0.0:8080 other")?;
    let flags = format!("{NET} -p 0.0.0.0:8081:80/tcp -p 0.0.0.0:8080:80/tcp");
    refuses(&b, &flags, &["8080", "address already in use"])?;
    drop(taken);
    let net = kit::Net::with(&b, &format!("{NET} -p 0.0.0.0:8081:80/tcp"))?;
    let taken = kit::serve(&b, As::Root, "http 0.0.0.0:8080 other")?;
    for (port, part) in [
        ("0.0.0.0:8080:80/tcp", "address already in use"),
        ("0.0.0.0:8081:81/tcp", "conflict with ID 1"),
        ("0.0.0.0:8082:[fd00::1]:81/tcp", "invalid ChildIP"),
        ("0.0.0.0:0:81/tcp", "invalid ParentPort"),
    ] {
        let text = net.ctl(&format!("add-ports {port}")).fails_with(1)?;
        ensure!(text.contains(part), "{port}: {text}");
    }
    assert_eq!(net.ctl("list-ports --json").ok()?.lines().count(), 1);
    drop(taken);
    net.stop()
}
