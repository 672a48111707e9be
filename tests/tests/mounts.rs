//! Copy-up, propagation, and what the host sees of it: nothing.

use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

#[test]
fn copied_up_folders_are_private_and_the_hosts_stay() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("mkdir /run/docker; touch /run/docker/of-the-host; ln -s /usr/lib/ssl /etc/sslink")
        .ok()?;
    let script = "stat -f -c %T /etc /run; [ -L /run/docker ]; readlink /etc/passwd /etc/sslink
        rm -f /run/docker; mkdir /run/docker; touch /run/docker/inside /etc/inside; ls /run/docker";
    let out = b.user(&format!("rootlesskit --copy-up=/etc,/run sh -ec '{script}'")).ok()?;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["tmpfs", "tmpfs"]);
    // Relative links lead to the originals; links are links with their own text.
    ensure!(lines[2].starts_with(".ro") && lines[2].ends_with("/passwd"), "{out}");
    assert_eq!(lines[3], "/usr/lib/ssl");
    assert_eq!(lines[4..], ["inside"]);
    ensure!(
        b.exists("/run/docker/of-the-host")
            && !b.exists("/run/docker/inside")
            && !b.exists("/etc/inside")
    );
    b.root("rm -r /run/docker").ok()?;
    b.assert_clean(&[])
}

#[test]
fn a_rewritten_resolv_conf_of_the_host_does_not_disturb_the_targets() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let kit = b.user("exec rootlesskit --net=slirp4netns --state-dir=/tmp/s --copy-up=/etc --copy-up=/run sleep infinity").spawn()?;
    wait::until_true("it runs", PATIENCE, || Ok(b.exists("/tmp/s/api.sock")))?;
    let inside = || {
        b.user(
            "nsenter -U -m --preserve-credentials -t $(cat /tmp/s/child_pid) cat /etc/resolv.conf",
        )
        .ok()
    };
    assert_eq!(inside()?, "nameserver 10.0.2.3\n");
    b.root("echo nameserver 9.9.9.9 > /etc/new; mv /etc/new /etc/resolv.conf").ok()?;
    assert_eq!(inside()?, "nameserver 10.0.2.3\n");
    kit.signal("TERM")?;
    kit.wait(PATIENCE)?;
    b.assert_clean(&[])
}

#[test]
fn mounts_of_the_host_propagate_as_asked() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("mkdir /mnt/late").ok()?;
    for (mode, visible, copy_up) in [
        ("private", false, true),
        ("rprivate", false, true),
        ("slave", true, true),
        ("rslave", true, true),
        ("shared", true, false),
        ("rshared", true, false),
    ] {
        let copy_up = if copy_up { "--copy-up=/run" } else { "" };
        let kit = b
            .user(&format!(
                "exec rootlesskit --state-dir=/tmp/s --propagation={mode} {copy_up} sleep infinity"
            ))
            .spawn()?;
        wait::until_true("it runs", PATIENCE, || {
            Ok(b.user_processes().iter().any(|p| p.program() == "sleep"))
        })?;
        b.root("mount -t tmpfs late /mnt/late; touch /mnt/late/file").ok()?;
        let out = b
            .user("nsenter -U -m --preserve-credentials -t $(cat /tmp/s/child_pid) ls /mnt/late")
            .ok()?;
        assert_eq!(out.trim() == "file", visible, "{mode}");
        b.root("umount /mnt/late").ok()?;
        kit.signal("TERM")?;
        kit.wait(PATIENCE)?;
    }
    b.assert_clean(&[])
}

#[test]
fn a_copy_up_that_fails_removes_nothing() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.user("mkdir -p ~/data/sub; echo precious > ~/data/sub/file; chmod 700 ~/data").ok()?;
    for bad in ["/tmp", "/nonexistent", "/etc/passwd"] {
        let text = b
            .argv(
                As::User,
                &["rootlesskit", "--copy-up=/home", &format!("--copy-up={bad}"), "true"],
            )
            .fails_with(1)?;
        ensure!(text.contains(bad), "{bad}: {text}");
    }
    let text = b.user("rootlesskit --copy-up=/run --propagation=rshared true").fails_with(1)?;
    ensure!(text.contains("rshared"), "{text}");
    assert_eq!(b.read("/home/tester/data/sub/file")?, "precious\n");
    b.assert_clean(&["/home/tester/data"])
}
