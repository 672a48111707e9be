//! Hosts in odd states, as people bring them about: one finding each, with what to do. Where that is for the administrator,
//! it is done, and cures.

use tests::docker::Docker;
use tests::{PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::doctor::{Check, paste};
use crate::{TOOL, host, in_order, login};

const DATA: &str = "/home/tester/.local/share/docker";

/// Where the user's data would be, there is a small file system of its own.
const SMALL: &str = "umount $DATA; mount -t tmpfs -o uid=1001,mode=700";

/// What was done to the host, the start of the command line, the fatal code, and a part of what is said.
const STATES: [(&str, &str, &str, &str); 16] = [
    ("chown 0:0 /home/tester", "", "home-foreign", "sudo chown tester: /home/tester\n"),
    ("rm /dev/net/tun", "", "tun-missing", "modprobe tun\n"),
    (
        "$SMALL,size=64k t $DATA; su tester -c \"cat /dev/zero > $DATA/f\" || :",
        "",
        "space-full",
        "No space left on device\n",
    ),
    // A little is left, with which the daemon does not start either.
    (
        "$SMALL,size=1m t $DATA; su tester -c \"head -c 512k /dev/zero > $DATA/f\"",
        "",
        "space-full",
        "No space left on device\n",
    ),
    ("$SMALL,nr_inodes=1 t $DATA", "", "space-full", "df -i show"),
    ("$SMALL,nr_inodes=20 t $DATA", "", "space-full", "df -i show"),
    // Room is of no use there.
    ("$SMALL,nr_inodes=20,ro t $DATA", "", "data-root-closed", "Read-only file system\n"),
    ("umount -l /proc", "", "proc-missing", "mount -t proc proc /proc\n"),
    ("true", "HOME=home ", "home-relative", "getent passwd tester"),
    ("true", "XDG_RUNTIME_DIR=. ", "runtime-dir", "export XDG_RUNTIME_DIR=/run/user/1001\n"),
    ("chown 0:0 /home/tester", "HOME=/root ", "home-foreign", "getent passwd tester"),
    (
        "mount --bind /home/tester /home/tester; mount -o remount,ro,bind /home/tester",
        "",
        "home-read-only",
        "mounted read-only",
    ),
    (
        "mkdir /home/tester/bin; mv /usr/bin/rootlesskit /home/tester/bin; \
         mount --bind /home/tester /home/tester; mount -o remount,noexec,bind /home/tester",
        "PATH=$HOME/bin:$PATH ",
        "not-executable",
        "/home/tester/bin/rootlesskit cannot be run: its file system is mounted with noexec\n",
    ),
    (
        "cd /home/tester; mkdir -p .config/docker; echo '{\"debug\": true,}' > .config/docker/daemon.json",
        "",
        "daemon-json",
        "/home/tester/.config/docker/daemon.json: trailing comma at line 1",
    ),
    (
        "cd /home/tester; mkdir -p .config/docker /data; \
         echo '{\"data-root\": \"/data/docker\"}' > .config/docker/daemon.json",
        "",
        "data-root-closed",
        "sudo install -d -m 0710 -o tester /data/docker\n",
    ),
    ("chmod 000 /usr/bin/newuidmap; rm /usr/bin/newgidmap", "", "newuidmap-missing", "uidmap\n"),
];

#[test]
fn one_finding_for_each_odd_state() -> Result<()> {
    for (breaking, prefix, code, part) in STATES {
        let b = TestBox::boot(Suite::Sid)?;
        let line = breaking.replace("$SMALL", SMALL).replace("$DATA", DATA);
        b.root(&line).ok()?;
        let seen = Check::of(b.user(&format!("{prefix}{TOOL} check --json")))?;
        assert_eq!((seen.status, seen.fatal()), (1, vec![code.to_owned()]), "{breaking}: {seen:?}");
        let said = b.user(&format!("{prefix}{TOOL} check")).fails_with(1)?;
        in_order(&said.replace("    fix: ", ""), &[part]).map_err(|e| e.context(line.clone()))?;
        // Nothing is touched before all is well.
        let refused = b.user(&format!("{prefix}{TOOL} install")).run()?;
        ensure!(refused.code == 1 && !b.exists("/home/tester/.docker"), "{breaking}: {refused}");
    }
    Ok(())
}

/// Directories that a docker under sudo left, and files that were locked away.
#[test]
fn what_root_took_is_given_back() -> Result<()> {
    for (breaking, verb, code) in [
        ("chmod 600 /etc/subuid", "check", "subid-unreadable"),
        ("mkdir -p /home/tester/.docker/buildx", "install", "config-closed"),
        ("mkdir -p /home/tester/.config/systemd", "install", "config-closed"),
    ] {
        let b = TestBox::boot(Suite::Sid)?;
        b.root(breaking).ok()?;
        let said = b.user(&format!("{TOOL} {verb}")).run()?;
        ensure!(said.code == 1, "{breaking}: {said}");
        in_order(&said.stderr, &[&format!("[ERROR] {code}: ")])?;
        paste(&b, &said.stdout)?;
        b.user(&format!("{TOOL} {verb}")).ok().map_err(|error| error.context(breaking))?;
    }
    Ok(())
}

/// Advice: the daemon would work.
#[test]
fn contexts_and_overlapping_ids_are_named() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("echo other:120000:65536 >> /etc/subuid").ok()?;
    b.user("docker context create rootless --docker host=unix:///nowhere").ok()?;
    b.user("echo '{\"currentContext\":\"gone\"}' > .docker/config.json").ok()?;
    let said = b.user(&format!("{TOOL} check")).run()?;
    ensure!(said.code == 0, "{said}");
    in_order(
        &said.stdout,
        &[
            "context-elsewhere: the docker CLI context \"rootless\" points to unix:///nowhere\n",
            "subid-overlap: /etc/subuid: this user's range 100000-165535 overlaps 120000-185535 of other\n",
            "sudo usermod --del-subuids 100000-165535 --add-subuids 185536-251071 tester",
        ],
    )?;
    in_order(
        &said.stderr,
        &["context-missing: ", "docker --context=default context use default\n"],
    )?;
    // What is said helps.
    b.user("unset DOCKER_HOST; docker ps").fails_with(1)?;
    b.user("unset DOCKER_HOST; docker --context=default context use default").ok()?;
    b.user("unset DOCKER_HOST; docker context update rootless --docker host=unix:///run/user/1001/docker.sock")
        .ok()?;
    b.root("usermod --del-subuids 100000-165535 --add-subuids 185536-251071 tester").ok()?;
    let now = Check::of(b.user(&format!("{TOOL} check --json")))?;
    for code in ["context-elsewhere", "context-missing", "subid-overlap"] {
        ensure!(!now.has(code), "{code}: {now:?}");
    }
    Ok(())
}

/// Containers run from an overlay, which has options of its own.
#[test]
fn data_on_a_mount_with_noexec_is_no_obstacle() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root(&format!("mount -o remount,bind,noexec,nosuid,nodev {DATA}")).ok()?;
    b.user(&format!("{TOOL} check")).ok()?;
    let d = Docker::start(&b, &[])?;
    d.import()?;
    assert_eq!(d.output("bb echo hi")?, "hi\n");
    d.stop()
}

/// A unit that somebody edited is kept as a backup; one whose programs have moved is named, and so is why a daemon ended.
#[test]
fn a_unit_that_was_edited_or_is_stale() -> Result<()> {
    let b = host(Suite::Sid)?;
    let unit = "/home/tester/.config/systemd/user/docker.service";
    login(&b, &format!("{TOOL} install")).ok()?;
    login(&b, &format!("sed -i s/RestartSec=2/RestartSec=7/ {unit}")).ok()?;
    let again = login(&b, &format!("{TOOL} install")).run()?;
    ensure!(again.code == 0 && again.stderr.contains(&format!("diff -u {unit} -")), "{again}");
    in_order(&b.read(unit)?, &["RestartSec=7\n"])?;

    // Stopped by its user, it has nothing to explain.
    login(&b, "systemctl --user stop docker").ok()?;
    let stopped = Check::of(login(&b, &format!("{TOOL} check --json")))?;
    ensure!(stopped.status == 0 && stopped.has("daemon-stopped"), "{stopped:?}");
    ensure!(!stopped.codes().iter().any(|code| code.starts_with("log-")), "{stopped:?}");

    login(&b, &format!("sed -i s,^ExecStart=.*,ExecStart=/old/dockerd-rootless.sh, {unit}"))
        .ok()?;
    let stale = Check::of(login(&b, &format!("{TOOL} check --json")))?;
    ensure!(stale.has("unit-stale") && !stale.has("daemon-stopped"), "{stale:?}");
    login(&b, &format!("{TOOL} install --force")).ok()?;
    in_order(&b.read(&format!("{unit}.bak"))?, &["ExecStart=/old/dockerd-rootless.sh\n"])?;
    ensure!(
        !Check::of(login(&b, &format!("{TOOL} check --json")))?.has("unit-stale"),
        "still stale"
    );

    // A failure that the journal explains.
    login(
        &b,
        "systemctl --user stop docker; mkdir -p .config/docker; \
         echo '{\"userland-proxy-path\": \"/nowhere\"}' > .config/docker/daemon.json",
    )
    .ok()?;
    login(&b, "systemctl --user start docker").run()?;
    wait::until_true("the journal has the reason", PATIENCE, || {
        Ok(Check::of(login(&b, &format!("{TOOL} check --json")))?.has("log-docker-proxy"))
    })
}
