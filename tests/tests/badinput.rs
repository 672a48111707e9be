//! Bad input: one clear line that names the value, exit status 1, nothing left behind.

use tests::{As, Result, Suite, TestBox, ensure};

/// Runs rootlesskit, expects status 1, one line of error that holds all of `parts`, and nothing left.
fn refuses(b: &TestBox, args: &[&str], parts: &[&str]) -> Result<()> {
    let argv: Vec<&str> = [&["rootlesskit"], args].concat();
    complains(&b.argv(As::User, &argv).run()?, parts)?;
    b.assert_clean(&[])
}

fn complains(out: &tests::Output, parts: &[&str]) -> Result<()> {
    ensure!(out.code == 1, "not status 1: {out}");
    let errors: Vec<&str> = out.stderr.lines().filter(|line| line.contains("error: ")).collect();
    ensure!(errors.len() == 1, "not one line of error: {out}");
    // The error itself and its hint lines.
    let told = out.stderr.split_once("error: ").map(|(_, told)| told).unwrap_or_default();
    for part in parts {
        ensure!(told.contains(part), "no {part:?} in: {out}");
    }
    for bug in ["panicked", "RUST_BACKTRACE", "unwrap"] {
        ensure!(!out.stderr.contains(bug), "{out}");
    }
    Ok(())
}

#[test]
fn flags_and_their_values() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["no command specified"]),
        (&["--net=none"], &["no command specified"]),
        (&["--nonsense", "true"], &["nonsense"]),
        (&["-nonsense=1", "true"], &["nonsense"]),
        (&["--debug=maybe", "true"], &["maybe", "debug"]),
        (&["--pidns=2", "true"], &["\"2\"", "pidns"]),
        (&["--mtu=large", "true"], &["large", "mtu"]),
        (&["--mtu=-1", "true"], &["mtu", "-1"]),
        (&["--mtu=65522", "--net=slirp4netns", "true"], &["65522"]),
        (&["--mtu=99999999999999999999", "true"], &["99999999999999999999"]),
        (&["--print-semver=middle"], &["middle", "major"]),
        (&["--net=token-ring", "true"], &["token-ring"]),
        (&["--net=", "true"], &["network"]),
        (&["--port-driver=pigeon", "--net=none", "true"], &["pigeon"]),
        (&["--port-driver=builtin", "true"], &["builtin"]),
        (&["--port-driver=implicit", "--net=slirp4netns", "true"], &["implicit", "pasta"]),
        (&["--port-driver=builtin", "--net=pasta", "true"], &["builtin", "pasta"]),
        (&["--evacuate-cgroup2=evac", "true"], &["cgroupns"]),
        (&["--evacuate-cgroup2=evac", "--cgroupns", "true"], &["pidns"]),
        (&["--evacuate-cgroup2=a/b", "--cgroupns", "--pidns", "true"], &["a/b"]),
        (&["--ifname=a/b", "--net=slirp4netns", "true"], &["a/b"]),
        (&["--ifname=a23456789012345678", "--net=slirp4netns", "true"], &["a23456789012345678"]),
        (&["--ifname=eth9", "true"], &["ifname"]),
        (&["--reaper=maybe", "true"], &["maybe"]),
        (&["--reaper=true", "true"], &["reaper", "pidns"]),
        (&["--copy-up=/tmp", "true"], &["/tmp"]),
        (&["--copy-up=/nonexistent", "true"], &["/nonexistent"]),
        (&["--copy-up=relative", "true"], &["relative"]),
        (&["--copy-up=/etc", "--copy-up-mode=overlay", "true"], &["overlay", "tmpfs+symlink"]),
        (&["--subid-source=oracle", "true"], &["oracle"]),
        (&["--slirp4netns-sandbox=perhaps", "--net=slirp4netns", "true"], &["perhaps", "auto"]),
        (&["--slirp4netns-seccomp=perhaps", "--net=slirp4netns", "true"], &["perhaps"]),
        (
            &["--slirp4netns-sandbox=true", "--detach-netns", "--net=slirp4netns", "true"],
            &["sandbox", "detach-netns"],
        ),
        (
            &["--slirp4netns-binary=/nonexistent/s", "--net=slirp4netns", "true"],
            &["/nonexistent/s"],
        ),
        (&["--pasta-binary=no-such-pasta", "--net=pasta", "true"], &["no-such-pasta"]),
        (&["--slirp4netns-binary=/bin/true", "--net=slirp4netns", "true"], &["/bin/true"]),
        (&["--pasta-binary=/bin/false", "--net=pasta", "true"], &["/bin/false"]),
    ];
    let mut failures = Vec::new();
    for (args, parts) in cases {
        if let Err(error) = refuses(&b, args, parts) {
            failures.push(format!("{args:?}: {error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    Ok(())
}

#[test]
fn networks_in_cidr_notation() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for cidr in [
        "10.0.2.0",
        "10.0.2.1/24",
        "10.0.2.0/33",
        "10.0.2/24",
        "fd00::/64",
        "zehn/8",
        "0.0.0.0/",
        "255.255.255.128/25",
    ] {
        refuses(&b, &["--net=slirp4netns", &format!("--cidr={cidr}"), "true"], &[cidr])?;
    }
    refuses(&b, &["--net=none", "--cidr=10.0.3.0/24", "true"], &["cidr"])
}

#[test]
fn port_specs() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let mut failures = Vec::new();
    for spec in [
        "8080",
        "8080:80/tcp",
        "0.0.0.0:8080:80",
        "0.0.0.0:8080:80/",
        "0.0.0.0:8080:80/icmp",
        "0.0.0.0:8080:80/TCP",
        "0.0.0.0:0:80/tcp",
        "0.0.0.0:65536:80/tcp",
        "0.0.0.0:-1:80/tcp",
        "0.0.0.0:8080:0/tcp",
        "0.0.0.0:8080:x/tcp",
        "300.0.0.0:8080:80/tcp",
        "::1:8080:80/tcp",
        "[::1:8080:80/tcp",
        "[::1]:8080:[zz]:80/tcp",
        "localhost:8080:80/tcp",
        "0.0.0.0:8080:80/sctp",
        "127.0.0.1:8080:80/tcp6",
        "[::1]:8080:80/tcp4",
        "/",
        ":",
    ] {
        let flag = format!("--publish={spec}");
        let named = match spec.rsplit_once('/') {
            // The protocol by itself is named where it is what is wrong.
            Some((_, proto)) if !["tcp", "udp"].contains(&proto) && !proto.is_empty() => proto,
            Some((address, "tcp4" | "tcp6")) => &address[..address.len() - 3],
            _ => spec,
        };
        if let Err(error) =
            refuses(&b, &["--net=none", "--port-driver=builtin", &flag, "true"], &[named])
        {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{} specs:\n{}", failures.len(), failures.join("\n"));
    refuses(&b, &["--net=none", "-p", "0.0.0.0:8080:80/tcp", "true"], &["port-driver"])?;
    let twice = "-p=0.0.0.0:8080:80/tcp,0.0.0.0:8080:81/tcp";
    refuses(&b, &["--net=none", "--port-driver=builtin", twice, "true"], &["conflict with ID 1"])
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let spec = "127.0.0.1:7001:80/tcp";
    refuses(
        &b,
        &["--net=none", "--port-driver=builtin", "-p", spec, "true"],
        &["127.0.0.1:7001", "address already in use"],
    )?;
    refuses(
        &b,
        &["--net=none", "--port-driver=builtin", "-p", "10.1.2.3:8080:80/tcp", "true"],
        &["10.1.2.3:8080"],
    )
}

#[test]
fn state_folders() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let long = format!("/tmp/{}", "x".repeat(120));
    for (dir, parts) in [
        ("/etc/passwd", &["/etc/passwd"][..]),
        ("/root/s", &["/root/s"]),
        ("/proc/s", &["/proc/s"]),
        (long.as_str(), &["xxxx", "too long"]),
    ] {
        refuses(
            &b,
            &[&format!("--state-dir={dir}"), "--net=none", "--port-driver=builtin", "true"],
            parts,
        )?;
    }
    let out = b.user("TMPDIR=/nonexistent rootlesskit true").run()?;
    complains(&out, &["/nonexistent"])?;
    b.assert_clean(&[])
}

#[test]
fn missing_and_broken_subordinate_ids() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for (file, word) in [("/etc/subuid", "subuid"), ("/etc/subgid", "subgid")] {
        let saved = b.read(file)?;
        b.write(file, "somebody:100000:65536\n")?;
        let what = format!("No {word} ranges found for user");
        refuses(&b, &["true"], &[&what, "1001", "tester", "usermod"])?;
        for broken in [
            "tester:100000",
            "tester:x:65536",
            "tester:100000:-1",
            "tester:4294967295:65536",
            "tester:100000:65536:7",
        ] {
            b.write(file, &format!("{broken}\n"))?;
            refuses(&b, &["--subid-source=static", "true"], &[broken])?;
        }
        b.write(file, &saved)?;
    }
    // A range that holds the user's own id.
    b.write("/etc/subuid", "tester:1000:65536\n")?;
    let out = b.user("rootlesskit true").run()?;
    if out.code != 0 {
        complains(&out, &["1001"])?;
    }
    b.assert_clean(&[])
}

#[test]
fn newuidmap_that_is_missing_or_has_no_privilege() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("chmod u-s /usr/bin/newuidmap; setcap -r /usr/bin/newuidmap 2>/dev/null || true")
        .ok()?;
    refuses(&b, &["true"], &["newuidmap", "hint"])?;
    b.root("mv /usr/bin/newuidmap /usr/bin/was-newuidmap").ok()?;
    refuses(&b, &["true"], &["newuidmap", "uidmap"])
}

#[test]
fn user_namespaces_that_are_not_allowed() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    // The limit of the namespace the box is in is the machine's; a user namespace in between has one of its own.
    let script = "rootlesskit --subid-source=static sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec rootlesskit true'";
    let out = b.user(script).run()?;
    ensure!(out.code == 1 && out.stderr.contains("max_user_namespaces"), "{out}");
    b.assert_clean(&[])
}

#[test]
fn values_of_the_environment() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    // Variables that mean something only between our own processes, set by somebody else.
    for name in [
        "_ROOTLESSKIT_PIPEFD_UNDOCUMENTED",
        "_ROOTLESSKIT_SYSTEMD_ACTIVATION_RUN_HELPER_UNDOCUMENTED",
    ] {
        let out = b.user("rootlesskit true").env(name, "nonsense").run()?;
        ensure!(out.code <= 1 && !out.stderr.contains("panicked"), "{name}: {out}");
    }
    for (name, value) in [("LISTEN_FDS", "many"), ("LISTEN_FDS", "-3"), ("LISTEN_PID", "x")] {
        b.user("rootlesskit true")
            .env("LISTEN_FDS", "1")
            .env("LISTEN_PID", "1")
            .env(name, value)
            .run()?;
    }
    let out = b.user("rootlesskit true").env("GETSUBIDS", "/nonexistent/getsubids").run()?;
    assert_eq!(out.code, 0, "auto falls back to the files: {out}");
    let out = b
        .user("rootlesskit --subid-source=dynamic true")
        .env("GETSUBIDS", "/nonexistent/getsubids")
        .run()?;
    complains(&out, &["/nonexistent/getsubids"])?;
    b.assert_clean(&[])
}

#[test]
fn rootlessctl() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for (args, parts) in [
        (&["list-ports"][..], &["ROOTLESSKIT_STATE_DIR", "socket"][..]),
        (&["--socket=/nonexistent/api.sock", "list-ports"], &["/nonexistent/api.sock"]),
        (&["--socket=/nonexistent/api.sock", "add-ports"], &["no port specified"]),
        (&["--socket=/nonexistent/api.sock", "add-ports", "8080"], &["8080"]),
        (&["--socket=/nonexistent/api.sock", "remove-ports"], &["no ID specified"]),
        (&["--socket=/nonexistent/api.sock", "remove-ports", "one"], &["one"]),
    ] {
        let argv: Vec<&str> = [&["rootlessctl"], args].concat();
        complains(&b.argv(As::User, &argv).run()?, parts)?;
    }
    Ok(())
}
